//! The rows of the roles.

use crate::roles::{ALL, Bug, Roles, Who};
use crate::{Expect, Row, System};

/// A row of the roles: who takes part, seats and how many of them were used, kills/timeouts/signals.
fn roles(who: &[Who], [seats, used]: [u8; 2], [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let who = who.to_vec();
    let roles = Roles { who, seats, used, legacy: false, kills, timeouts, spurious, belt: false, bug: None };
    Row { system: System::Roles(roles), expect: Expect::Right, deep: false, live: true }
}

impl Row {
    fn roles_with(mut self, change: impl FnOnce(&mut Roles)) -> Self {
        if let System::Roles(roles) = &mut self.system {
            change(roles);
        }
        self
    }

    /// A dead one has left a seat.
    fn left_by_the_dead(self) -> Self {
        self.roles_with(|roles| roles.legacy = true)
    }

    fn roles_belt(self) -> Self {
        self.roles_with(|roles| roles.belt = true)
    }

    fn roles_bug(self, bug: Bug) -> Self {
        let mut row = self.roles_with(|roles| roles.bug = Some(bug));
        (row.expect, row.live) = (Expect::Found, false);
        row
    }
}

/// A producer that comes so often, and puts so much.
const fn p(visits: u8, messages: u8) -> Who {
    Who::Producer { visits, messages }
}

const C: Who = Who::Consumer { gets: ALL };
const G: Who = Who::Guest { gets: ALL };

pub(super) fn roles_rows() -> Vec<Row> {
    vec![
        // The first use of seats; a message; a guest.
        roles(&[p(1, 0), C], [2, 0], [1, 1, 1]),
        roles(&[p(2, 1), C], [2, 0], [1, 1, 1]),
        roles(&[p(1, 0), C, C], [1, 0], [1, 0, 0]),
        roles(&[p(1, 0), p(1, 0), C], [2, 0], [1, 0, 0]),
        roles(&[p(1, 0), C, G], [1, 0], [1, 0, 0]),
        // Seats that were used before; one hands over to another.
        roles(&[p(2, 1), C], [1, 1], [2, 1, 1]),
        roles(&[C, p(2, 0)], [1, 1], [2, 0, 0]).left_by_the_dead(),
        roles(&[C, p(1, 0), p(1, 0)], [2, 2], [1, 0, 0]).left_by_the_dead(),
        roles(&[p(1, 1), p(2, 0), C], [2, 2], [0, 0, 0]),
        roles(&[p(2, 0), p(1, 0), C], [2, 1], [1, 0, 0]),
        // Large ones.
        roles(&[p(1, 1), C, C], [1, 0], [1, 0, 0]).deep(),
        roles(&[p(1, 0), p(1, 0), C, C], [2, 0], [1, 0, 0]).deep(),
        roles(&[p(1, 0), p(1, 0), C, C], [2, 0], [1, 1, 0]).deep(),
        roles(&[p(1, 0), C, C, G], [1, 1], [1, 0, 0]).deep(),
        roles(&[p(1, 1), C, C, G], [1, 1], [1, 0, 0]).deep(),
        // Two deaths: what is left to the belt, and that the belt is enough.
        roles(&[p(2, 1), p(1, 0), C], [2, 1], [2, 0, 0]).hole(&["WAITS FOR THOSE WHO ARE GONE"]).deep(),
        roles(&[p(1, 0), C, C], [1, 0], [2, 0, 0]).hole(&["WAITS FOR THOSE WHO ARE GONE"]).deep(),
        roles(&[p(2, 1), p(1, 0), C], [2, 1], [2, 0, 0]).roles_belt().deep(),
        roles(&[p(1, 0), C, C], [1, 0], [2, 0, 0]).roles_belt().deep(),
    ]
}

pub(super) fn roles_bugs() -> Vec<Row> {
    vec![
        roles(&[p(1, 0), C], [1, 0], [0, 0, 0]).roles_bug(Bug::RaisesFirst),
        roles(&[p(1, 0), C], [1, 0], [1, 0, 0]).roles_bug(Bug::NextUnwatched),
        roles(&[p(1, 0), C], [1, 0], [1, 0, 0]).roles_bug(Bug::WatchesNoSeats),
        roles(&[p(1, 0), p(1, 0), C], [2, 0], [1, 0, 0]).roles_bug(Bug::NoSecondLook),
        roles(&[p(2, 0), C], [1, 1], [1, 0, 0]).roles_bug(Bug::LeaverTouchesNothing),
        roles(&[C, p(2, 0)], [1, 1], [1, 0, 0]).left_by_the_dead().roles_bug(Bug::HeirStays),
        roles(&[C, p(1, 0), p(1, 0)], [1, 1], [2, 0, 0]).left_by_the_dead().roles_bug(Bug::SettledUnheard),
        roles(&[p(1, 0), C], [1, 1], [1, 0, 0]).roles_bug(Bug::FreedUnheard),
        roles(&[p(1, 0), C], [1, 1], [1, 0, 0]).roles_bug(Bug::DisarmedBeforeWake),
        roles(&[p(1, 0), C, C, G], [1, 1], [1, 0, 0]).roles_bug(Bug::LeaverTellsNobody).deep(),
        roles(&[p(1, 0), C, C], [1, 1], [1, 0, 0]).roles_bug(Bug::WokenTellsNobody),
        roles(&[p(1, 1), C], [1, 1], [0, 0, 0]).roles_bug(Bug::EmptyFirst),
        roles(&[p(1, 0), p(2, 0), C], [2, 2], [0, 0, 0]).roles_bug(Bug::OneLook),
        roles(&[p(1, 0), p(1, 0), C, C], [2, 0], [1, 0, 0]).roles_bug(Bug::FirstUseNotRetold).deep(),
    ]
}
