//! The rows of the leased jobs.

use crate::lease::{ALL, Bug, Lease, Role};
use crate::{Expect, Row, System};

/// A row of the leases: who takes part, slots and how many of them were used, messages that are there, kills/timeouts/signals.
fn lease(roles: &[Role], [slots, used, filled]: [u8; 3], [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let roles = roles.to_vec();
    let lease = Lease { roles, slots, used, filled, closed: false, backs: 0, kills, timeouts, spurious, bug: None };
    Row { system: System::Lease(lease), expect: Expect::Right, deep: false, live: true }
}

impl Row {
    fn lease_with(mut self, change: impl FnOnce(&mut Lease)) -> Self {
        if let System::Lease(lease) = &mut self.system {
            change(lease);
        }
        self
    }

    /// So many jobs may be given back.
    fn backs(self, backs: u8) -> Self {
        self.lease_with(|lease| lease.backs = backs)
    }

    fn closed(self) -> Self {
        self.lease_with(|lease| lease.closed = true)
    }

    fn lease_bug(self, bug: Bug) -> Self {
        let mut row = self.lease_with(|lease| lease.bug = Some(bug));
        (row.expect, row.live) = (Expect::Found, false);
        row
    }
}

const J: Role = Role::Joiner;
const ONE: Role = Role::Consumer { jobs: 1 };
const MANY: Role = Role::Consumer { jobs: ALL };
const PUTS: Role = Role::Producer { messages: 1 };

pub(super) fn lease_rows() -> Vec<Row> {
    vec![
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]).backs(1),
        lease(&[ONE, ONE, ONE], [2, 1, 3], [1, 0, 0]),
        lease(&[ONE, ONE, ONE], [2, 0, 3], [1, 0, 0]),
        lease(&[MANY, MANY, MANY], [1, 1, 2], [1, 0, 0]),
        lease(&[PUTS, ONE, ONE], [1, 1, 1], [1, 0, 0]),
        lease(&[PUTS, ONE, ONE], [2, 0, 1], [1, 0, 0]),
        lease(&[ONE, ONE, J], [1, 1, 2], [1, 0, 0]),
        lease(&[ONE, ONE, J], [2, 0, 2], [1, 0, 0]),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 1, 1]),
        lease(&[ONE, ONE, J], [2, 1, 1], [1, 0, 0]).closed(),
        lease(&[MANY, MANY, MANY], [2, 2, 1], [1, 0, 1]).closed(),
        lease(&[ONE, ONE, ONE], [2, 2, 1], [1, 0, 0]).backs(1).closed(),
        lease(&[Role::Producer { messages: 2 }, ONE, ONE], [2, 2, 0], [1, 0, 0]),
    ]
}

pub(super) fn lease_bugs() -> Vec<Row> {
    vec![
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]).lease_bug(Bug::DoneStays),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).lease_bug(Bug::WokenTellsNobody),
        lease(&[PUTS, ONE, J], [1, 1, 1], [0, 0, 0]).lease_bug(Bug::FinishedWithoutSecondLook),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]).lease_bug(Bug::StarvedForgotten),
        lease(&[PUTS, MANY, J], [1, 1, 1], [0, 0, 0]).lease_bug(Bug::FinishedWithoutSecondLook),
        lease(&[Role::Producer { messages: 2 }, ONE, ONE], [2, 2, 0], [0, 0, 0]).lease_bug(Bug::NoChain),
        lease(&[ONE, ONE], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::FirstUseTellsNobody),
        lease(&[MANY, MANY], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::SlotsCountedOnce),
        lease(&[MANY, MANY], [1, 0, 1], [1, 0, 0]).lease_bug(Bug::SlotsCountedOnce),
        lease(&[ONE, ONE, ONE], [1, 1, 1], [2, 0, 0]).lease_bug(Bug::HeirStays),
    ]
}
