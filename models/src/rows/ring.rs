//! The rows of the ring.

use crate::{
    Expect, Row, System,
    ring::{self, ALL, Brief, Ring, Role},
};

/// A row of the ring: who takes part, slots, kills/timeouts/signals.
fn ring(roles: &[Role], slots: u8, [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let (roles, brief) = (roles.to_vec(), Brief::Never);
    let ring = Ring { roles, slots, filled: 0, kills, timeouts, spurious, brief, belt: false, bug: None };
    Row { system: System::Ring(ring), expect: Expect::Right, deep: false, live: false }
}

impl Row {
    fn with(mut self, change: impl FnOnce(&mut Ring)) -> Self {
        if let System::Ring(ring) = &mut self.system {
            change(ring);
        }
        self
    }

    fn brief(self, brief: Brief) -> Self {
        self.with(|ring| ring.brief = brief)
    }

    /// Begins with that many small messages in the ring.
    fn filled(self, filled: u8) -> Self {
        self.with(|ring| ring.filled = filled)
    }

    fn bug(mut self, bug: ring::Bug) -> Self {
        self.expect = Expect::Found;
        self.with(|ring| ring.bug = Some(bug))
    }

    fn belt(self) -> Self {
        self.live().with(|ring| ring.belt = true)
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

pub(super) fn ring_rows() -> Vec<Row> {
    vec![
        // No death: the brief sleep alone is exact, and nobody is kept busy.
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

pub(super) fn ring_bugs() -> Vec<Row> {
    use crate::ring::Bug;
    let data = |kills| ring(&[p(2), CONSUMER], 1, [kills, 0, 0]);
    let herd = |kills| ring(&[p(2), CONSUMER, CONSUMER], 2, [kills, 0, 0]);
    let crowd = |kills| ring(&[p(2), p(2), CONSUMER], 1, [kills, 0, 0]);
    let sizes = || ring(&[BIG, BIG, p(1), ONE_GET], 2, [0; 3]).filled(2);
    let mut spare = ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [1, 0, 0]).bug(Bug::BumpOverwritesSnapshot).deep();
    spare.expect = Expect::Right;
    let closed = |role| ring(&[role, role, CLOSER], 1, [1, 0, 0]);
    vec![
        data(0).bug(Bug::RecheckBeforeAnnounce),
        data(0).bug(Bug::ClearIgnoresAnnounce),
        data(0).bug(Bug::BellNotCompared),
        data(0).brief(Brief::Only).bug(Bug::NoBumpAtRelease),
        data(0).bug(Bug::NoBumpAtRelease),
        data(1).bug(Bug::BellComparedFirst),
        data(1).bug(Bug::SlowTakeDoesNotAnnounce),
        data(1).bug(Bug::OtherLockNotWatched),
        data(1).bug(Bug::PendingClearedBeforeWakes),
        data(1).bug(Bug::OldKernel),
        herd(1).bug(Bug::OwnLockNotWatched),
        herd(1).bug(Bug::NotArmedAsleep),
        herd(1).bug(Bug::NoFlightAnnounce),
        herd(2).bug(Bug::NoChain),
        spare,
        crowd(1).bug(Bug::NoDuty),
        crowd(1).bug(Bug::NoNews),
        crowd(1).bug(Bug::DutyByLastIndex),
        crowd(1).bug(Bug::WakersUseLockWord).deep(),
        sizes().bug(Bug::NoPassOn),
        sizes().bug(Bug::PassOnToOne),
        sizes().live().bug(Bug::PassOnAlways),
        sizes().with(|ring| ring.kills = 1).bug(Bug::PassMarkedBeforeWaking).deep(),
        ring(&[p(1), CLOSER], 1, [1, 0, 0]).filled(1).bug(Bug::OwnLockReadAfterRecheck),
        closed(p(1)).filled(1).bug(Bug::CloserDoesNotAnnounce),
        closed(p(1)).filled(1).bug(Bug::CloseWakesAfterRelease),
        closed(p(1)).filled(1).bug(Bug::CloseWakesAfterReleaseArmed),
        closed(p(1)).filled(1).bug(Bug::CloseNotRepeatedByTaker),
        closed(CONSUMER).bug(Bug::CloseNotRepeatedBySleeper),
    ]
}

/// Two deaths: what is left to the belt, and that the belt is enough.
pub(super) fn ring_holes() -> Vec<Row> {
    let trio = || ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [2, 0, 0]);
    let closed = || ring(&[p(1), p(1), CLOSER], 1, [2, 1, 0]).filled(1);
    vec![
        ring(&[p(2), CONSUMER, CONSUMER], 2, [2, 0, 0]),
        ring(&[p(1), p(1), CONSUMER], 1, [2, 0, 0]),
        ring(&[p(1), CONSUMER, CLOSER], 1, [2, 0, 0]),
        closed().hole(&["LOST CLOSE", "LOST LOCK WAKE"]),
        closed().belt(),
        trio().hole(&["LOST LOCK WAKE"]).deep(),
        trio().belt().deep(),
    ]
}
