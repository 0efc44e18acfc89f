//! The rows of the ring.

use super::Case;
use crate::ring::{ALL, Brief, Bug, PROCESSES, Ring, Role, WORDS};

type Row = Case<Ring, PROCESSES, WORDS>;

/// A row, not checked for liveness: the processes that take part, slots; kills, time-outs, spurious wake-ups.
fn ring(roles: &[Role], slots: u8, left: [u8; 3]) -> Row {
    let mut row = Case::new(Ring { roles: roles.to_vec(), slots, ..Ring::default() }, left);
    row.live = false;
    row
}

impl Row {
    fn brief(self, brief: Brief) -> Self {
        self.with(|ring| ring.brief = brief)
    }

    /// Begins with that many small messages in the ring.
    fn filled(self, filled: u8) -> Self {
        self.with(|ring| ring.filled = filled)
    }
}

/// Producers of small messages, so many each.
const fn p(messages: u8) -> Role {
    Role::Producer { size: 1, messages }
}

/// A producer of one message of two units.
const BIG: Role = Role::Producer { size: 2, messages: 1 };
const CONSUMER: Role = Role::Consumer { messages: ALL };
/// Gets one message and leaves: what it frees is all the room there will be.
const ONE_GET: Role = Role::Consumer { messages: 1 };
const CLOSER: Role = Role::Closer;

pub(super) fn rows() -> impl Iterator<Item = Row> {
    [right(), bugs(), gaps()].into_iter().flatten()
}

fn right() -> Vec<Row> {
    vec![
        // No death: the brief sleep alone is exact, and no process is kept busy.
        ring(&[p(2), CONSUMER], 1, [0; 3]).live(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [0; 3]).live(),
        ring(&[p(2), p(2), CONSUMER], 1, [0; 3]).live(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [0, 1, 1]).brief(Brief::Only),
        ring(&[p(2), p(2), CONSUMER], 1, [0, 0, 0]).brief(Brief::Only),
        // One death.
        ring(&[p(2), CONSUMER], 1, [1, 1, 1]).live(),
        ring(&[p(2), CONSUMER], 1, [1, 1, 1]).brief(Brief::First),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [1, 1, 0]).live(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [1, 0, 0]).brief(Brief::First),
        ring(&[p(1), p(1), CONSUMER], 1, [1, 1, 0]).live(),
        ring(&[p(2), p(2), CONSUMER], 1, [1, 0, 0]),
        // Close.
        ring(&[p(1), CONSUMER, CLOSER], 1, [1, 1, 0]).live(),
        ring(&[CONSUMER, CONSUMER, CLOSER], 1, [1, 1, 1]).live(),
        ring(&[p(1), p(1), CLOSER], 1, [1, 1, 1]).filled(1).live(),
        ring(&[p(2), CONSUMER, CLOSER], 1, [1, 0, 0]),
        // Sizes.
        ring(&[BIG, p(1), ONE_GET], 2, [1, 1, 0]).filled(2).live(),
        ring(&[BIG, BIG, p(1), ONE_GET], 2, [0; 3]).filled(2).live(),
        ring(&[p(2), BIG, CONSUMER], 2, [1, 0, 0]),
        // The same, larger.
        ring(&[BIG, p(1), p(1), ONE_GET], 2, [0; 3]).filled(2).deep(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [1, 1, 1]).brief(Brief::First).deep(),
        ring(&[p(2), p(2), CONSUMER], 1, [1, 1, 0]).deep(),
        ring(&[p(2), p(2), CONSUMER], 1, [1, 0, 0]).brief(Brief::First).deep(),
        ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [1, 0, 0]).deep(),
        ring(&[p(1), CONSUMER, CONSUMER, CLOSER], 1, [1, 0, 0]).deep(),
        ring(&[p(1), p(1), CONSUMER, CLOSER], 1, [1, 0, 0]).deep(),
        ring(&[BIG, BIG, p(1), ONE_GET], 2, [1, 0, 0]).filled(2).deep(),
        ring(&[BIG, p(1), p(1), ONE_GET], 2, [1, 0, 0]).filled(2).deep(),
    ]
}

fn bugs() -> Vec<Row> {
    let data = |kills| ring(&[p(2), CONSUMER], 1, [kills, 0, 0]);
    let herd = |kills| ring(&[p(2), CONSUMER, CONSUMER], 2, [kills, 0, 0]);
    let crowd = |kills| ring(&[p(2), p(2), CONSUMER], 1, [kills, 0, 0]);
    let sizes = |kills| ring(&[BIG, BIG, p(1), ONE_GET], 2, [kills, 0, 0]).filled(2);
    let closed = |role| ring(&[role, role, CLOSER], 1, [1, 0, 0]);
    vec![
        data(0).bug(Bug::RecheckBeforeRegister),
        data(0).bug(Bug::ClearIgnoresEpoch),
        data(0).bug(Bug::EpochNotCompared),
        data(0).brief(Brief::Only).bug(Bug::NoAdvanceAtRelease),
        data(0).bug(Bug::NoAdvanceAtRelease),
        data(1).bug(Bug::EpochComparedFirst),
        data(1).bug(Bug::SlowTakeKeepsEpoch),
        data(1).bug(Bug::OtherLockNotWatched),
        data(1).bug(Bug::PendingClearedBeforeWakes),
        data(1).bug(Bug::OldKernel),
        herd(1).bug(Bug::OwnLockNotWatched),
        herd(1).bug(Bug::NotArmedAsleep),
        herd(1).bug(Bug::NoHandOverRegister),
        herd(2).bug(Bug::NoChain),
        ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [1, 0, 0])
            .spare(Bug::AdvanceOverwritesSnapshot)
            .deep(),
        crowd(1).bug(Bug::NoDuty),
        crowd(1).bug(Bug::NoNewWork),
        crowd(1).bug(Bug::DutyByLastIndex),
        crowd(1).bug(Bug::WakersUseLockWord).deep(),
        sizes(0).bug(Bug::NoPassOn),
        sizes(0).bug(Bug::PassOnToOne),
        sizes(0).bug(Bug::PassOnAlways).live(),
        sizes(1).bug(Bug::PassMarkedBeforeWaking).deep(),
        ring(&[p(1), CLOSER], 1, [1, 0, 0]).filled(1).bug(Bug::OwnLockReadAfterRecheck),
        closed(p(1)).filled(1).bug(Bug::CloserDoesNotRegister),
        closed(p(1)).filled(1).bug(Bug::CloseWakesAfterRelease),
        closed(p(1)).filled(1).bug(Bug::CloseWakesAfterReleaseArmed),
        closed(p(1)).filled(1).bug(Bug::CloseNotRepeatedByTaker),
        closed(CONSUMER).bug(Bug::CloseNotRepeatedBySleeper),
    ]
}

/// Two deaths: what is left to the liveness poll, and that the poll is enough.
fn gaps() -> Vec<Row> {
    let trio = || ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [2, 0, 0]);
    let closed = || ring(&[p(1), p(1), CLOSER], 1, [2, 1, 0]).filled(1);
    vec![
        ring(&[p(2), CONSUMER, CONSUMER], 2, [2, 0, 0]),
        ring(&[p(1), p(1), CONSUMER], 1, [2, 0, 0]),
        ring(&[p(1), CONSUMER, CLOSER], 1, [2, 0, 0]),
        closed().gap(&["LOST CLOSE", "LOST LOCK WAKE"]),
        closed().poll().live(),
        trio().gap(&["LOST LOCK WAKE"]).deep(),
        trio().poll().live().deep(),
    ]
}
