//! The rows of the leased jobs.

use crate::lease::{ALL, Bug, Lease, Role};
use crate::{Expect, Row, System};

/// A row of the leases: who takes part, slots and how many of them were used, messages that are there, kills/timeouts/signals.
fn lease(roles: &[Role], [slots, used, filled]: [u8; 3], [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let roles = roles.to_vec();
    let lease = Lease {
        roles,
        slots,
        used,
        filled,
        letter: false,
        legacy: false,
        poison: false,
        closed: false,
        backs: 0,
        kills,
        timeouts,
        spurious,
        belt: false,
        bug: None,
    };
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

    /// A dead one has left a job.
    fn legacy(self) -> Self {
        self.lease_with(|lease| lease.legacy = true)
    }

    /// What comes back becomes a dead letter.
    fn poison(self) -> Self {
        self.lease_with(|lease| lease.poison = true)
    }

    /// There is a dead letter.
    fn letter(self) -> Self {
        self.lease_with(|lease| lease.letter = true)
    }

    fn lease_belt(self) -> Self {
        self.lease_with(|lease| lease.belt = true)
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
const REVIVER: Role = Role::Reviver;
const MANY: Role = Role::Consumer { jobs: ALL };
const PUTS: Role = Role::Producer { messages: 1 };

pub(super) fn lease_rows() -> Vec<Row> {
    vec![
        // Jobs come back and are starved for; a put; the first use of slots; both roles of sleepers; the end; a dead letter.
        lease(&[MANY, MANY], [2, 0, 2], [1, 1, 1]).backs(1),
        lease(&[MANY, MANY], [1, 1, 2], [2, 0, 0]).backs(1),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]).backs(1),
        lease(&[ONE, ONE, ONE], [2, 0, 3], [1, 0, 0]),
        lease(&[PUTS, MANY, MANY], [2, 0, 0], [1, 0, 0]),
        lease(&[PUTS, ONE, ONE], [1, 1, 1], [1, 0, 0]),
        lease(&[MANY, J], [2, 0, 2], [2, 1, 1]),
        lease(&[PUTS, MANY, J], [1, 0, 0], [1, 0, 0]),
        lease(&[ONE, ONE, J], [1, 1, 2], [1, 0, 0]),
        lease(&[MANY, MANY], [2, 0, 1], [2, 0, 0]).closed(),
        lease(&[ONE, J], [1, 1, 1], [2, 0, 1]).closed(),
        lease(&[MANY, MANY, MANY], [2, 2, 1], [0, 0, 1]).closed(),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [0, 0, 0]).letter(),
        lease(&[REVIVER, J], [1, 0, 0], [2, 1, 1]).letter(),
        lease(&[REVIVER, MANY], [1, 1, 1], [2, 0, 0]).letter(),
        lease(&[REVIVER, ONE, ONE], [1, 1, 1], [1, 0, 0]).letter(),
        lease(&[ONE, ONE], [1, 1, 1], [1, 1, 1]).legacy(),
        lease(&[MANY, MANY], [1, 1, 2], [2, 0, 0]).backs(1).poison(),
        lease(&[MANY, J], [2, 0, 2], [2, 0, 0]).backs(1).poison(),
        // Large ones.
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).backs(1).poison().deep(),
        lease(&[ONE, ONE, J], [2, 0, 1], [1, 0, 0]).deep(),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).legacy().deep(),
        lease(&[ONE, ONE, J], [2, 2, 1], [1, 0, 0]).closed().deep(),
        lease(&[REVIVER, ONE, J], [2, 2, 0], [1, 0, 0]).letter().deep(),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [1, 0, 0]).letter().deep(),
        lease(&[MANY, MANY, J], [1, 1, 1], [1, 0, 0]).deep(),
        lease(&[MANY, MANY, J], [2, 0, 2], [1, 0, 0]).deep(),
        lease(&[PUTS, MANY, MANY, J], [1, 1, 0], [0, 0, 0]).deep(),
        lease(&[MANY, MANY, MANY], [1, 1, 2], [1, 0, 0]).deep(),
        lease(&[PUTS, MANY, J], [2, 0, 1], [2, 0, 0]).deep(),
        lease(&[PUTS, MANY, MANY], [1, 1, 0], [2, 0, 0]).deep(),
        lease(&[ONE, ONE, J], [1, 1, 1], [2, 0, 0])
            .hole(&["JOINS THOUGH ALL IS DONE", "LOST LOCK WAKE", "SLEEPS BESIDE A JOB"])
            .deep(),
        lease(&[ONE, ONE, ONE], [1, 1, 1], [2, 0, 0]).hole(&["SLEEPS BESIDE A JOB"]).deep(),
        // The same, with the belt.
        lease(&[ONE, ONE, J], [1, 1, 1], [2, 0, 0]).lease_belt().deep(),
        lease(&[ONE, ONE, ONE], [1, 1, 1], [2, 0, 0]).lease_belt().deep(),
    ]
}

pub(super) fn lease_bugs() -> Vec<Row> {
    vec![
        lease(&[MANY, MANY], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::OutBeforeHead),
        lease(&[MANY, MANY], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::HeadBeforeOut),
        lease(&[MANY, MANY], [2, 0, 2], [0, 0, 0]).lease_bug(Bug::FreeAfterRelease),
        lease(&[MANY, MANY], [2, 0, 2], [0, 0, 0]).lease_bug(Bug::StateBeforeLock),
        lease(&[MANY, MANY], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::RecoverLate),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).lease_bug(Bug::WatchesNoSlots),
        lease(&[MANY, J], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::FirstUseTellsNobody),
        lease(&[MANY, J], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::SlotsCountedOnce),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).backs(1).lease_bug(Bug::HalfMovedUnseen),
        lease(&[MANY, MANY], [1, 1, 1], [2, 0, 0]).poison().lease_bug(Bug::NoBurying),
        lease(&[REVIVER, J], [1, 1, 0], [1, 0, 0]).letter().lease_bug(Bug::JoinerRecoversNothing),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).lease_bug(Bug::JoinerKeepsWake),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).lease_bug(Bug::WokenTellsNobody),
        lease(&[PUTS, ONE, J], [1, 1, 1], [0, 0, 0]).lease_bug(Bug::FinishedWithoutSecondLook),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [0, 0, 0]).letter().lease_bug(Bug::RevivedUncounted),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [0, 0, 0]).letter().lease_bug(Bug::CountedFirst),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).lease_bug(Bug::ToldUnarmed),
        lease(&[MANY, J], [2, 0, 2], [1, 0, 0]).lease_bug(Bug::CountStays),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]).lease_bug(Bug::DoneStays),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).backs(1).lease_bug(Bug::BackStays),
        lease(&[ONE, ONE], [1, 1, 1], [1, 0, 0]).legacy().lease_bug(Bug::HeirStays),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [0, 0, 0]).lease_bug(Bug::StarvedForgotten),
        lease(&[MANY, MANY, MANY], [2, 2, 1], [0, 0, 1]).closed().lease_bug(Bug::WokenTellsAll).live(),
        lease(&[Role::Producer { messages: 2 }, ONE, ONE], [2, 2, 0], [1, 0, 0]).lease_bug(Bug::NoChain),
    ]
}
