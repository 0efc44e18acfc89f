//! The tables: which configurations are run, and what is to come out.

use crate::{
    Expect, Row, System,
    barrier::{self, Barrier},
    condition::{self, Condition},
    lock::{self, Lock},
    ring::{self, ALL, Brief, Ring, Role},
    rwlock::{self, RwLock},
    semaphore::{self, Semaphore},
};

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = lock_rows();
    rows.extend(lock_bugs());
    rows.extend(condition_rows());
    rows.extend(condition_bugs());
    rows.extend(semaphore_rows());
    rows.extend(semaphore_bugs());
    rows.extend(rwlock_rows());
    rows.extend(rwlock_bugs());
    rows.extend(barrier_rows());
    rows.extend(barrier_bugs());
    rows.extend(ring_rows());
    rows.extend(ring_bugs());
    rows.extend(ring_holes());
    rows
}

/// A row of the lock: processes, rounds, kills/timeouts/signals.
fn lock(processes: usize, rounds: u8, [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let lock = Lock { processes, rounds, kills, timeouts, spurious, bug: None };
    Row { system: System::Lock(lock), expect: Expect::Right, deep: false, live: true }
}

/// A row of the ring: who takes part, slots, kills/timeouts/signals.
fn ring(roles: &[Role], slots: u8, [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let (roles, brief) = (roles.to_vec(), Brief::Never);
    let ring = Ring { roles, slots, filled: 0, kills, timeouts, spurious, brief, belt: false, bug: None };
    Row { system: System::Ring(ring), expect: Expect::Right, deep: false, live: false }
}

impl Row {
    fn deep(mut self) -> Self {
        self.deep = true;
        self
    }

    fn live(mut self) -> Self {
        self.live = true;
        self
    }

    fn lock_bug(mut self, bug: lock::Bug) -> Self {
        if let System::Lock(lock) = &mut self.system {
            lock.bug = Some(bug);
            self.expect = Expect::Found;
        }
        self
    }

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

    fn hole(mut self, complaints: &'static [&'static str]) -> Self {
        self.expect = Expect::Hole(complaints);
        self
    }

    fn belt(self) -> Self {
        self.live().with(|ring| ring.belt = true)
    }
}

fn lock_rows() -> Vec<Row> {
    vec![
        lock(2, 2, [2, 1, 1]),
        lock(3, 2, [0, 1, 1]),
        lock(3, 2, [1, 1, 1]),
        lock(3, 2, [2, 1, 0]),
        lock(4, 1, [1, 1, 1]),
        lock(4, 1, [2, 1, 0]),
        lock(4, 2, [0, 0, 0]),
        lock(4, 2, [1, 1, 0]).deep(),
        lock(4, 2, [2, 0, 0]).deep(),
        lock(3, 3, [2, 1, 1]).deep(),
    ]
}

fn lock_bugs() -> Vec<Row> {
    use lock::Bug;
    let mut spare = lock(4, 1, [1, 1, 0]).lock_bug(Bug::WaiterDoesNotAnnounce);
    spare.expect = Expect::Right;
    vec![
        lock(2, 1, [0; 3]).lock_bug(Bug::NoWake),
        lock(3, 1, [0; 3]).lock_bug(Bug::ClearBeforeWake),
        lock(4, 1, [0; 3]).lock_bug(Bug::ClearIgnoresAnnounce),
        lock(4, 1, [0; 3]).lock_bug(Bug::NobodyAnnounces),
        lock(4, 2, [0; 3]).lock_bug(Bug::SlowTakeDoesNotAnnounce),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::SwapZero),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::PendingAfterTake),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::PendingClearedBeforeWake),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::OldKernel),
        spare,
    ]
}

/// A row of the condition: waiters, how many each notifier calls, kills/timeouts.
fn condition(waiters: usize, notifiers: [u8; 2], [kills, timeouts]: [u8; 2]) -> Row {
    let condition = Condition { waiters, notifiers, kills, timeouts, bug: None };
    Row { system: System::Condition(condition), expect: Expect::Right, deep: false, live: true }
}

fn condition_rows() -> Vec<Row> {
    vec![
        condition(2, [1, 1], [0, 2]),
        condition(2, [1, 0], [2, 1]),
        condition(2, [1, 1], [1, 0]),
        condition(2, [1, 1], [1, 1]).deep(),
        condition(2, [2, 0], [2, 1]),
        condition(3, [1, 0], [1, 0]).deep(),
        condition(3, [2, 0], [1, 0]).deep(),
        condition(2, [2, 1], [2, 1]).deep(),
        condition(3, [1, 1], [1, 1]).deep(),
        condition(3, [2, 0], [2, 1]).deep(),
    ]
}

fn condition_bugs() -> Vec<Row> {
    use condition::Bug;
    let row = |waiters, notifiers, kills, timeouts, bug| {
        let condition = Condition { waiters, notifiers, kills, timeouts, bug: Some(bug) };
        Row { system: System::Condition(condition), expect: Expect::Found, deep: false, live: false }
    };
    vec![
        row(1, [1, 0], 0, 0, Bug::LookBeforeNote),
        row(1, [1, 0], 1, 0, Bug::NoAlarm),
        row(2, [2, 0], 1, 0, Bug::TakerCallsNobody),
        row(3, [2, 0], 1, 0, Bug::CalledDoesNotLook).deep(),
        row(2, [1, 0], 1, 0, Bug::SeatsNotWatched),
        row(3, [1, 0], 2, 0, Bug::ForgetFirst).deep(),
        row(2, [1, 1], 1, 0, Bug::DeadPassed),
        row(2, [1, 0], 0, 1, Bug::GiveUpOutside),
        row(2, [1, 0], 1, 0, Bug::NoDebts),
    ]
}

/// A row of the semaphore: permits, how many each process wants, rounds, kills/timeouts/signals.
fn semaphore<const N: usize>(permits: usize, wants: [u8; N], rounds: u8, [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let wants = std::array::from_fn(|process| wants.get(process).copied().unwrap_or(0));
    let semaphore = Semaphore { permits, wants, rounds, kills, timeouts, spurious, bug: None };
    Row { system: System::Semaphore(semaphore), expect: Expect::Right, deep: false, live: true }
}

fn semaphore_rows() -> Vec<Row> {
    vec![
        semaphore(1, [1, 1, 1], 1, [2, 1, 1]),
        semaphore(2, [1, 1, 1], 1, [1, 1, 1]),
        semaphore(2, [1, 1, 2], 1, [1, 1, 0]),
        semaphore(2, [2, 2], 2, [1, 1, 1]),
        semaphore(1, [1, 1, 1], 2, [1, 1, 0]),
    ]
}

fn semaphore_bugs() -> Vec<Row> {
    use semaphore::Bug;
    let bug = |mut row: Row, bug| {
        if let System::Semaphore(semaphore) = &mut row.system {
            semaphore.bug = Some(bug);
            (row.expect, row.live) = (Expect::Found, false);
        }
        row
    };
    vec![
        bug(semaphore(2, [1, 1, 1, 1], 1, [0; 3]), Bug::NoGate),
        bug(semaphore(1, [1, 1], 1, [0; 3]), Bug::NoMark),
        bug(semaphore(2, [1, 1, 1], 1, [0; 3]), Bug::WatchesOne),
        bug(semaphore(1, [1, 1, 1, 1], 1, [1, 0, 0]), Bug::ClearIgnoresAnnounce),
        bug(semaphore(1, [1, 1], 1, [0; 3]), Bug::NoWake),
        bug(semaphore(2, [1, 2], 1, [0, 1, 0]), Bug::KeepsTheRest),
        bug(semaphore(2, [2, 2], 1, [0; 3]), Bug::GathersOutside),
    ]
}

/// A row of the rwlock: readers, writers, rounds, places, kills/timeouts/signals.
fn rwlock(readers: usize, writers: usize, rounds: u8, places: usize, [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let rwlock = RwLock { places, readers, writers, rounds, kills, timeouts, spurious, bug: None };
    Row { system: System::RwLock(rwlock), expect: Expect::Right, deep: false, live: true }
}

fn rwlock_rows() -> Vec<Row> {
    vec![
        rwlock(1, 1, 2, 1, [2, 1, 1]),
        rwlock(2, 1, 1, 2, [2, 1, 1]),
        rwlock(1, 2, 1, 2, [2, 1, 1]),
        rwlock(2, 1, 2, 2, [1, 1, 0]),
    ]
}

fn rwlock_bugs() -> Vec<Row> {
    use rwlock::Bug;
    let bug = |mut row: Row, bug| {
        if let System::RwLock(rwlock) = &mut row.system {
            rwlock.bug = Some(bug);
            (row.expect, row.live) = (Expect::Found, false);
        }
        row
    };
    let mut spare = bug(rwlock(2, 2, 1, 2, [1, 0, 0]), Bug::ClearIgnoresAnnounce);
    spare.expect = Expect::Right;
    vec![
        bug(rwlock(1, 1, 1, 1, [0; 3]), Bug::TurnstileOpens),
        bug(rwlock(1, 1, 1, 1, [0; 3]), Bug::LooksOutside),
        bug(rwlock(1, 1, 1, 1, [0; 3]), Bug::SitsOutside),
        bug(rwlock(1, 2, 1, 1, [1, 0, 0]), Bug::ClearsOutside),
        bug(rwlock(1, 2, 1, 1, [1, 0, 0]), Bug::SignsFirst),
        bug(rwlock(2, 1, 1, 1, [1, 0, 0]), Bug::KernelsMark),
        bug(rwlock(1, 1, 1, 1, [0; 3]), Bug::NoWake),
        spare,
    ]
}

/// A row of the barrier: parties, threads, rounds, closers/menders, kills/timeouts/signals.
fn barrier(parties: usize, threads: usize, rounds: u8, [closers, menders]: [usize; 2], left: [u8; 3]) -> Row {
    let [kills, timeouts, spurious] = left;
    let barrier = Barrier { parties, threads, rounds, closers, menders, kills, timeouts, spurious, bug: None };
    Row { system: System::Barrier(barrier), expect: Expect::Right, deep: false, live: true }
}

fn barrier_rows() -> Vec<Row> {
    vec![
        barrier(2, 2, 2, [0, 0], [1, 1, 1]),
        barrier(2, 2, 1, [1, 0], [1, 0, 0]),
        barrier(2, 2, 1, [0, 1], [1, 0, 0]),
        barrier(2, 3, 1, [0, 0], [1, 0, 0]),
        barrier(3, 3, 1, [0, 0], [1, 0, 0]),
        barrier(2, 2, 2, [0, 0], [2, 1, 1]).deep(),
        barrier(2, 2, 1, [1, 0], [2, 1, 0]).deep(),
        barrier(2, 2, 1, [0, 1], [2, 1, 0]).deep(),
        barrier(2, 3, 1, [0, 0], [2, 1, 0]).deep(),
        barrier(3, 3, 2, [0, 0], [1, 0, 0]).deep(),
        barrier(3, 3, 1, [0, 0], [2, 0, 0]).deep(),
        barrier(2, 2, 1, [1, 1], [1, 0, 0]).hole(&["SLEEPS THROUGH THE END"]).deep(),
    ]
}

fn barrier_bugs() -> Vec<Row> {
    use barrier::Bug;
    let bug = |mut row: Row, bug| {
        if let System::Barrier(barrier) = &mut row.system {
            barrier.bug = Some(bug);
            (row.expect, row.live) = (Expect::Found, false);
        }
        row
    };
    let mut spare = bug(barrier(2, 2, 1, [0, 0], [1, 0, 0]), Bug::LookBeforeNote).live();
    spare.expect = Expect::Right;
    vec![
        spare,
        bug(barrier(2, 2, 1, [0, 0], [1, 0, 0]), Bug::SeatsNotWatched),
        bug(barrier(2, 2, 1, [0, 1], [1, 0, 0]), Bug::WokenTellsNobody),
        bug(barrier(3, 3, 1, [0, 0], [1, 0, 0]), Bug::WokenTellsNobody).deep(),
        bug(barrier(2, 2, 1, [0, 1], [1, 0, 0]), Bug::TellsWhenOver),
        bug(barrier(2, 3, 1, [0, 0], [2, 0, 0]), Bug::SleepsOnDeath).deep(),
        bug(barrier(2, 3, 1, [0, 0], [1, 0, 0]), Bug::TakerHides),
        bug(barrier(2, 2, 1, [0, 0], [1, 0, 0]), Bug::TakerBreaksNothing),
        bug(barrier(3, 4, 1, [0, 0], [1, 0, 0]), Bug::TakerTellsNobody).deep(),
        bug(barrier(2, 2, 1, [0, 0], [1, 0, 0]), Bug::CountsWithoutLook),
        bug(barrier(2, 2, 1, [0, 0], [1, 0, 0]), Bug::CountsBeforeNote),
        bug(barrier(2, 3, 2, [0, 0], [0, 0, 0]), Bug::DeathBeforeNote),
        bug(barrier(2, 2, 1, [1, 1], [0; 3]), Bug::NoTurn),
        bug(barrier(2, 1, 1, [1, 0], [1, 0, 0]), Bug::NoHelm),
        bug(barrier(2, 2, 1, [0, 0], [0; 3]), Bug::NoWake),
    ]
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

fn ring_rows() -> Vec<Row> {
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

fn ring_bugs() -> Vec<Row> {
    use ring::Bug;
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
fn ring_holes() -> Vec<Row> {
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
