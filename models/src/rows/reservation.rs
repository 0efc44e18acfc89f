//! The rows of the reservations.

use super::Case;
use crate::reservation::{ALL, Bug, PROCESSES, Reservation, Role, WORDS};

type Row = Case<Reservation, PROCESSES, WORDS>;

/// A row: the processes that take part; the locks, and how many of them were used; kills, time-outs, spurious
/// wake-ups.
fn reserved(roles: &[Role], [locks, used]: [u8; 2], left: [u8; 3]) -> Row {
    Case::new(Reservation { roles: roles.to_vec(), locks, used, room: 7, ..Reservation::default() }, left)
}

impl Row {
    /// So many records have room.
    fn room(self, room: u8) -> Self {
        self.with(|model| model.room = room)
    }

    /// So many reservations may be aborted.
    fn aborted(self, backs: u8) -> Self {
        self.with(|model| model.backs = backs)
    }

    /// The first process is a member.
    fn member(self) -> Self {
        self.with(|model| model.member = true)
    }

    /// A reservation is being filled.
    fn begun(self) -> Self {
        self.with(|model| model.begun = true)
    }

    /// A dead process has left a reservation.
    fn legacy(self) -> Self {
        self.with(|model| model.legacy = true)
    }

    /// The member has disconnected.
    fn disconnected(self) -> Self {
        self.with(|model| model.disconnected = true)
    }

    fn closed(self) -> Self {
        self.with(|model| model.closed = true)
    }
}

const R: Role = Role::Reserver { count: 1 };
const R2: Role = Role::Reserver { count: 2 };
const PUTS: Role = Role::Putter { messages: 1 };
const LEAVES: Role = Role::Putter { messages: 0 };
const G: Role = Role::Getter { messages: ALL, member: false };
const ONE: Role = Role::Getter { messages: 1, member: false };
const MEMBER: Role = Role::Getter { messages: ALL, member: true };
const K: Role = Role::Closer;

pub(super) fn rows() -> impl Iterator<Item = Row> {
    [right(), bugs()].into_iter().flatten()
}

fn right() -> Vec<Row> {
    vec![
        // A reservation that is filled, aborted, left; a lock's first use; room; no free lock; the end; a
        // member.
        reserved(&[R, G], [1, 0], [1, 1, 1]).aborted(1),
        reserved(&[R2, G], [1, 0], [2, 0, 0]).aborted(1),
        reserved(&[R, G, G], [1, 1], [1, 0, 0]).begun().aborted(1),
        reserved(&[R, G], [1, 1], [1, 0, 0]).legacy(),
        reserved(&[R, R], [1, 1], [1, 0, 0]).legacy(),
        reserved(&[R, PUTS, G], [1, 1], [0, 1, 1]).begun().aborted(1).room(1),
        reserved(&[R, R, G], [1, 1], [0, 0, 0]).begun().aborted(1),
        reserved(&[R, R, K], [1, 1], [1, 0, 0]).begun(),
        reserved(&[R, G, G], [1, 1], [1, 0, 1]).begun().closed(),
        reserved(&[LEAVES, R, MEMBER], [1, 1], [1, 0, 0]).member().begun().aborted(1),
        reserved(&[R, MEMBER, G], [1, 1], [1, 0, 0]).disconnected().begun(),
        // Large ones.
        reserved(&[R, K, G], [1, 1], [1, 0, 0]).begun().aborted(1).deep(),
        reserved(&[R, G, G], [1, 1], [0, 0, 0]).aborted(1).deep(),
        reserved(&[R, G, G], [1, 0], [1, 1, 0]).deep(),
        reserved(&[R, R, G], [2, 1], [1, 0, 0]).begun().aborted(1).deep(),
        reserved(&[R, R, G], [2, 1], [1, 0, 0]).begun().aborted(1).room(1).deep(),
        reserved(&[R, PUTS, G], [1, 1], [1, 0, 0]).begun().aborted(1).deep(),
        reserved(&[R, PUTS, G], [1, 1], [1, 0, 1]).begun().aborted(1).room(1).deep(),
        reserved(&[R, PUTS, ONE, ONE], [1, 1], [0, 0, 0]).begun().aborted(1).deep(),
        reserved(&[R, PUTS, G, G], [1, 1], [0, 0, 0]).begun().room(1).deep(),
        reserved(&[R, K, G, G], [1, 1], [0, 0, 0]).begun().aborted(1).deep(),
        reserved(&[LEAVES, R, MEMBER, MEMBER], [1, 1], [0, 0, 0]).member().begun().aborted(1).deep(),
        reserved(&[R, MEMBER, G], [1, 1], [1, 0, 0]).member().begun().aborted(1).deep(),
        reserved(&[R, MEMBER, MEMBER], [1, 1], [1, 0, 0]).member().begun().aborted(1).deep(),
        // Two deaths: the process that was woken dies as well, while another is half-way to its sleep. It
        // costs a second at most.
        reserved(&[R, R, R], [1, 1], [2, 0, 0]).begun().gap(&["SLEEPS BESIDE A LOCK"]),
        reserved(&[R, R, G], [1, 1], [2, 0, 0])
            .begun()
            .gap(&["SLEEPS BESIDE A LOCK", "SLEEPS BESIDE A RECORD"])
            .deep(),
    ]
}

fn bugs() -> Vec<Row> {
    vec![
        reserved(&[R, R, G], [1, 1], [1, 0, 0]).begun().bug(Bug::NoGeneration),
        reserved(&[R, G], [1, 1], [0, 0, 0]).begun().bug(Bug::HeaderReadOnce),
        reserved(&[R, R], [1, 1], [1, 0, 0]).legacy().bug(Bug::RecovererKeepsEpoch),
        reserved(&[R, G], [1, 1], [0, 0, 0]).begun().bug(Bug::GivenFirst),
        reserved(&[R, G], [1, 1], [1, 0, 0]).begun().bug(Bug::NotifiesUnarmed),
        reserved(&[R, G, G], [1, 0], [1, 1, 0]).bug(Bug::FirstUseNotNotified).deep(),
        reserved(&[R, G], [1, 0], [1, 0, 0]).bug(Bug::LocksCountedOnce),
        reserved(&[R, G], [1, 1], [1, 0, 0]).begun().bug(Bug::LocksUnwatched),
        reserved(&[K, G, G], [1, 1], [1, 0, 0]).bug(Bug::WokenNotifiesNone),
        reserved(&[R, G, G], [1, 1], [0, 0, 1]).begun().closed().bug(Bug::NotifiesAgainAlways).live(),
        reserved(&[LEAVES, R, MEMBER, G], [1, 1], [1, 0, 0])
            .member()
            .begun()
            .bug(Bug::NonMemberForgets)
            .deep(),
        reserved(&[R, PUTS, G], [1, 1], [0, 0, 1]).begun().room(1).bug(Bug::NoProgressWakes).live(),
        reserved(&[R, PUTS, G], [1, 1], [0, 0, 1]).begun().room(1).bug(Bug::PassesOnAlways).live(),
        reserved(&[R, PUTS, ONE, ONE], [1, 1], [0, 0, 0]).begun().bug(Bug::NoChain),
        reserved(&[R, K, G, G], [1, 1], [0, 0, 0]).begun().spare(Bug::EndWakesOne).deep(),
        reserved(&[R, R, G], [1, 1], [1, 0, 0]).begun().spare(Bug::BackKeepsEpoch).deep(),
        reserved(&[R, R, G], [1, 1], [1, 0, 0]).begun().spare(Bug::WaiterKeepsWake).deep(),
    ]
}
