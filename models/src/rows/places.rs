//! The rows of the reserved places.

use crate::places::{ALL, Bug, Places, Role};
use crate::{Expect, Row, System};

/// A row of the places: who takes part, locks and how many of them were used, kills/timeouts/signals.
fn places(roles: &[Role], [locks, used]: [u8; 2], [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let places = Places {
        roles: roles.to_vec(),
        locks,
        used,
        room: 7,
        seat: false,
        begun: false,
        legacy: false,
        gone: false,
        closed: false,
        backs: 0,
        kills,
        timeouts,
        spurious,
        bug: None,
    };
    Row { system: System::Places(places), expect: Expect::Right, deep: false, live: true }
}

impl Row {
    fn places_with(mut self, change: impl FnOnce(&mut Places)) -> Self {
        if let System::Places(places) = &mut self.system {
            change(places);
        }
        self
    }

    /// So many records have room.
    fn room(self, room: u8) -> Self {
        self.places_with(|places| places.room = room)
    }

    /// So many places may be given up.
    fn given_up(self, backs: u8) -> Self {
        self.places_with(|places| places.backs = backs)
    }

    /// The first process says that it puts.
    fn seat(self) -> Self {
        self.places_with(|places| places.seat = true)
    }

    /// A place is being filled.
    fn begun(self) -> Self {
        self.places_with(|places| places.begun = true)
    }

    /// A dead one has left a place.
    fn place_of_the_dead(self) -> Self {
        self.places_with(|places| places.legacy = true)
    }

    /// Who said that he puts is gone.
    fn all_gone(self) -> Self {
        self.places_with(|places| places.gone = true)
    }

    fn no_more_places(self) -> Self {
        self.places_with(|places| places.closed = true)
    }

    /// Of no use: without it all is as well.
    fn spare(mut self) -> Self {
        self.expect = Expect::Right;
        self
    }

    fn places_bug(self, bug: Bug) -> Self {
        let mut row = self.places_with(|places| places.bug = Some(bug));
        (row.expect, row.live) = (Expect::Found, false);
        row
    }
}

const R: Role = Role::Reserver { places: 1 };
const R2: Role = Role::Reserver { places: 2 };
const PUTS: Role = Role::Putter { messages: 1 };
const LEAVES: Role = Role::Putter { messages: 0 };
const G: Role = Role::Getter { messages: ALL, role: false };
const ONE: Role = Role::Getter { messages: 1, role: false };
const WITH_ROLE: Role = Role::Getter { messages: ALL, role: true };
const K: Role = Role::Closer;

pub(super) fn places_rows() -> Vec<Row> {
    vec![
        // A place that is filled, given up, left; the lock's first use; room; no free lock; the end; a role.
        places(&[R, G], [1, 0], [1, 1, 1]).given_up(1),
        places(&[R2, G], [1, 0], [2, 0, 0]).given_up(1),
        places(&[R, G, G], [1, 1], [1, 0, 0]).begun().given_up(1),
        places(&[R, G], [1, 1], [1, 0, 0]).place_of_the_dead(),
        places(&[R, R], [1, 1], [1, 0, 0]).place_of_the_dead(),
        places(&[R, PUTS, G], [1, 1], [0, 1, 1]).begun().given_up(1).room(1),
        places(&[R, R, G], [1, 1], [0, 0, 0]).begun().given_up(1),
        places(&[R, R, K], [1, 1], [1, 0, 0]).begun(),
        places(&[R, G, G], [1, 1], [1, 0, 1]).begun().no_more_places(),
        places(&[LEAVES, R, WITH_ROLE], [1, 1], [1, 0, 0]).seat().begun().given_up(1),
        places(&[R, WITH_ROLE, G], [1, 1], [1, 0, 0]).all_gone().begun(),
        // Large ones.
        places(&[R, K, G], [1, 1], [1, 0, 0]).begun().given_up(1).deep(),
        places(&[R, G, G], [1, 1], [0, 0, 0]).given_up(1).deep(),
        places(&[R, G, G], [1, 0], [1, 1, 0]).deep(),
        places(&[R, R, G], [2, 1], [1, 0, 0]).begun().given_up(1).deep(),
        places(&[R, R, G], [2, 1], [1, 0, 0]).begun().given_up(1).room(1).deep(),
        places(&[R, PUTS, G], [1, 1], [1, 0, 0]).begun().given_up(1).deep(),
        places(&[R, PUTS, G], [1, 1], [1, 0, 1]).begun().given_up(1).room(1).deep(),
        places(&[R, PUTS, ONE, ONE], [1, 1], [0, 0, 0]).begun().given_up(1).deep(),
        places(&[R, PUTS, G, G], [1, 1], [0, 0, 0]).begun().room(1).deep(),
        places(&[R, K, G, G], [1, 1], [0, 0, 0]).begun().given_up(1).deep(),
        places(&[LEAVES, R, WITH_ROLE, WITH_ROLE], [1, 1], [0, 0, 0]).seat().begun().given_up(1).deep(),
        places(&[R, WITH_ROLE, G], [1, 1], [1, 0, 0]).seat().begun().given_up(1).deep(),
        places(&[R, WITH_ROLE, WITH_ROLE], [1, 1], [1, 0, 0]).seat().begun().given_up(1).deep(),
        // Two deaths: who was woken dies, too, while another has gone to sleep only half. At most a second.
        places(&[R, R, R], [1, 1], [2, 0, 0]).begun().hole(&["SLEEPS BESIDE A LOCK"]),
        places(&[R, R, G], [1, 1], [2, 0, 0]).begun().hole(&["SLEEPS BESIDE A LOCK", "SLEEPS BESIDE A RECORD"]).deep(),
    ]
}

pub(super) fn places_bugs() -> Vec<Row> {
    vec![
        places(&[R, R, G], [1, 1], [1, 0, 0]).begun().places_bug(Bug::NoTurn),
        places(&[R, G], [1, 1], [0, 0, 0]).begun().places_bug(Bug::HeaderReadOnce),
        places(&[R, R], [1, 1], [1, 0, 0]).place_of_the_dead().places_bug(Bug::HeirStays),
        places(&[R, G], [1, 1], [0, 0, 0]).begun().places_bug(Bug::GivenFirst),
        places(&[R, G], [1, 1], [1, 0, 0]).begun().places_bug(Bug::ToldUnarmed),
        places(&[R, G, G], [1, 0], [1, 1, 0]).places_bug(Bug::FirstUseTellsNobody).deep(),
        places(&[R, G], [1, 0], [1, 0, 0]).places_bug(Bug::LocksCountedOnce),
        places(&[R, G], [1, 1], [1, 0, 0]).begun().places_bug(Bug::LocksUnwatched),
        places(&[K, G, G], [1, 1], [1, 0, 0]).places_bug(Bug::WokenTellsNobody),
        places(&[R, G, G], [1, 1], [0, 0, 1]).begun().no_more_places().places_bug(Bug::RetellsAlways).live(),
        places(&[LEAVES, R, WITH_ROLE, G], [1, 1], [1, 0, 0]).seat().begun().places_bug(Bug::RolelessForgets).deep(),
        places(&[R, PUTS, G], [1, 1], [0, 0, 1]).begun().room(1).places_bug(Bug::VainWakes).live(),
        places(&[R, PUTS, G], [1, 1], [0, 0, 1]).begun().room(1).places_bug(Bug::PassesOnAlways).live(),
        places(&[R, PUTS, ONE, ONE], [1, 1], [0, 0, 0]).begun().places_bug(Bug::NoChain),
        places(&[R, K, G, G], [1, 1], [0, 0, 0]).begun().places_bug(Bug::EndWakesOne).spare().deep(),
        places(&[R, R, G], [1, 1], [1, 0, 0]).begun().places_bug(Bug::BackStays).spare().deep(),
        places(&[R, R, G], [1, 1], [1, 0, 0]).begun().places_bug(Bug::WaiterKeepsWake).spare().deep(),
    ]
}
