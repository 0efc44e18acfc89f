//! The rows of the membership.

use super::Case;
use crate::membership::{ALL, Bug, Membership, PROCESSES, Role, WORDS};

type Row = Case<Membership, PROCESSES, WORDS>;

/// A row: the processes that take part; the memberships, and how many of them were used; kills, time-outs,
/// spurious wake-ups.
fn members(roles: &[Role], [memberships, used]: [u8; 2], left: [u8; 3]) -> Row {
    Case::new(Membership { roles: roles.to_vec(), memberships, used, legacy: false }, left)
}

impl Row {
    /// A dead process has left a membership.
    fn legacy(self) -> Self {
        self.with(|members| members.legacy = true)
    }
}

/// A producer that comes so often, and puts so much.
const fn p(visits: u8, messages: u8) -> Role {
    Role::Producer { visits, messages }
}

const C: Role = Role::Consumer { gets: ALL };
const G: Role = Role::Guest { gets: ALL };

pub(super) fn rows() -> impl Iterator<Item = Row> {
    [right(), bugs()].into_iter().flatten()
}

fn right() -> Vec<Row> {
    vec![
        // The first use of memberships; a message; a guest.
        members(&[p(1, 0), C], [2, 0], [1, 1, 1]),
        members(&[p(2, 1), C], [2, 0], [1, 1, 1]),
        members(&[p(1, 0), C, C], [1, 0], [1, 0, 0]),
        members(&[p(1, 0), p(1, 0), C], [2, 0], [1, 0, 0]),
        members(&[p(1, 0), C, G], [1, 0], [1, 0, 0]),
        // Memberships that were used before; a member hands over to another.
        members(&[p(2, 1), C], [1, 1], [2, 1, 1]),
        members(&[C, p(2, 0)], [1, 1], [2, 0, 0]).legacy(),
        members(&[C, p(1, 0), p(1, 0)], [2, 2], [1, 0, 0]).legacy(),
        members(&[p(1, 1), p(2, 0), C], [2, 2], [0, 0, 0]),
        members(&[p(2, 0), p(1, 0), C], [2, 1], [1, 0, 0]),
        // Large ones.
        members(&[p(1, 1), C, C], [1, 0], [1, 0, 0]).deep(),
        members(&[p(1, 0), C, C, G], [1, 1], [1, 0, 0]).deep(),
        members(&[p(1, 1), C, C, G], [1, 1], [1, 0, 0]).deep(),
        // One death, left to the liveness poll: a producer raises `used`; before it notifies, another leaves,
        // and wakes the consumer that knows the new claim already; then the first producer is killed.
        members(&[p(1, 0), p(1, 0), C, C], [2, 0], [1, 0, 0])
            .gap(&["WAITS THOUGH ALL HAVE DISCONNECTED"])
            .deep(),
        members(&[p(1, 0), p(1, 0), C, C], [2, 0], [1, 0, 0]).poll().deep(),
        // Two deaths: what is left to the liveness poll, and that the poll is enough.
        members(&[p(2, 1), p(1, 0), C], [2, 1], [2, 0, 0])
            .gap(&["WAITS THOUGH ALL HAVE DISCONNECTED"])
            .deep(),
        members(&[p(1, 0), C, C], [1, 0], [2, 0, 0]).gap(&["WAITS THOUGH ALL HAVE DISCONNECTED"]).deep(),
        members(&[p(2, 1), p(1, 0), C], [2, 1], [2, 0, 0]).poll().deep(),
        members(&[p(1, 0), C, C], [1, 0], [2, 0, 0]).poll().deep(),
    ]
}

fn bugs() -> Vec<Row> {
    vec![
        members(&[p(1, 0), C], [1, 0], [0, 0, 0]).bug(Bug::RaisesFirst),
        members(&[p(1, 0), C], [1, 0], [1, 0, 0]).bug(Bug::NextUnwatched),
        members(&[p(1, 0), C], [1, 0], [1, 0, 0]).bug(Bug::MembershipsUnwatched),
        members(&[p(1, 0), p(1, 0), C], [2, 0], [1, 0, 0]).bug(Bug::NoSecondLook),
        members(&[p(2, 0), C], [1, 1], [1, 0, 0]).bug(Bug::LeaverKeepsEpoch),
        members(&[C, p(2, 0)], [1, 1], [1, 0, 0]).legacy().bug(Bug::DeathNotCleared),
        members(&[C, p(1, 0), p(1, 0)], [1, 1], [2, 0, 0]).legacy().bug(Bug::ClearedKeepsEpoch),
        members(&[p(1, 0), C], [1, 1], [1, 0, 0]).bug(Bug::FreedWakesNone),
        members(&[p(1, 0), C], [1, 1], [1, 0, 0]).bug(Bug::DisarmedBeforeWake),
        members(&[p(1, 0), C, C, G], [1, 1], [1, 0, 0]).bug(Bug::LeaverNotifiesNone).deep(),
        members(&[p(1, 0), C, C], [1, 1], [1, 0, 0]).bug(Bug::WokenNotifiesNone),
        members(&[p(1, 1), C], [1, 1], [0, 0, 0]).bug(Bug::EmptyFirst),
        members(&[p(1, 0), p(2, 0), C], [2, 2], [0, 0, 0]).bug(Bug::OneLook),
        members(&[p(1, 0), p(1, 0), C, C], [2, 0], [1, 0, 0]).bug(Bug::FirstUseNotNotifiedAgain).deep(),
    ]
}
