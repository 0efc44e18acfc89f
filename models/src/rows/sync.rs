//! The rows of the lock, the condition, the semaphore, the rwlock and the barrier.

use super::Case;
use crate::barrier::{self, Barrier};
use crate::condition::{self, Condition};
use crate::lock::{self, Lock};
use crate::robust::{PROCESSES, WORDS};
use crate::rwlock::{self, RwLock};
use crate::semaphore::{self, Semaphore};

/// A row of the lock: processes, rounds; kills, time-outs, spurious wake-ups.
fn lock(processes: usize, rounds: u8, left: [u8; 3]) -> Case<Lock, { lock::PROCESSES }, { lock::WORDS }> {
    Case::new(Lock { processes, rounds }, left)
}

pub(super) fn locks() -> impl Iterator<Item = Case<Lock, { lock::PROCESSES }, { lock::WORDS }>> {
    use lock::Bug;
    let rows = vec![
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
        lock(2, 1, [0; 3]).bug(Bug::NoWake),
        lock(3, 1, [0; 3]).bug(Bug::ClearBeforeWake),
        lock(4, 1, [0; 3]).bug(Bug::ClearIgnoresEpoch),
        lock(4, 1, [0; 3]).bug(Bug::EpochStandsStill),
        lock(4, 2, [0; 3]).bug(Bug::SlowTakeKeepsEpoch),
        lock(3, 1, [1, 0, 0]).bug(Bug::SwapZero),
        lock(3, 1, [1, 0, 0]).bug(Bug::PendingAfterTake),
        lock(3, 1, [1, 0, 0]).bug(Bug::PendingClearedBeforeWake),
        lock(3, 1, [1, 0, 0]).bug(Bug::OldKernel),
        lock(4, 1, [1, 1, 0]).spare(Bug::WaiterKeepsEpoch).live(),
    ];
    rows.into_iter()
}

/// A row of the condition: waiters, how many each notifier notifies; kills and time-outs.
fn condition(
    waiters: usize,
    notifiers: [u8; 2],
    [kills, timeouts]: [u8; 2],
) -> Case<Condition, { condition::PROCESSES }, { condition::WORDS }> {
    Case::new(Condition { waiters, notifiers }, [kills, timeouts, 0])
}

pub(super) fn conditions()
-> impl Iterator<Item = Case<Condition, { condition::PROCESSES }, { condition::WORDS }>> {
    use condition::Bug;
    let rows = vec![
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
        condition(1, [1, 0], [0, 0]).bug(Bug::LookBeforeNote),
        condition(1, [1, 0], [1, 0]).bug(Bug::NoWaitersBit),
        condition(2, [2, 0], [1, 0]).bug(Bug::RecovererNotifiesNone),
        condition(3, [2, 0], [1, 0]).bug(Bug::NotifiedDoesNotLook).deep(),
        condition(2, [1, 0], [1, 0]).bug(Bug::SlotsNotWatched),
        condition(3, [1, 0], [2, 0]).bug(Bug::ForgetFirst).deep(),
        condition(2, [1, 1], [1, 0]).bug(Bug::DeadPassed),
        condition(2, [1, 0], [0, 1]).bug(Bug::GiveUpOutside),
        condition(2, [1, 0], [1, 0]).bug(Bug::NoDebts),
    ];
    rows.into_iter()
}

/// A row of the semaphore: permits, how many each process wants, rounds; kills, time-outs, spurious wake-ups.
fn semaphore<const K: usize>(
    permits: usize,
    wants: [u8; K],
    rounds: u8,
    left: [u8; 3],
) -> Case<Semaphore, PROCESSES, WORDS> {
    let wants = std::array::from_fn(|process| wants.get(process).copied().unwrap_or(0));
    Case::new(Semaphore { permits, wants, rounds }, left)
}

pub(super) fn semaphores() -> impl Iterator<Item = Case<Semaphore, PROCESSES, WORDS>> {
    use semaphore::Bug;
    let rows = vec![
        semaphore(1, [1, 1, 1], 1, [2, 1, 1]),
        semaphore(2, [1, 1, 1], 1, [1, 1, 1]),
        semaphore(2, [1, 1, 2], 1, [1, 1, 0]),
        semaphore(2, [2, 2], 2, [1, 1, 1]),
        semaphore(1, [1, 1, 1], 2, [1, 1, 0]),
        semaphore(2, [1, 1, 2], 1, [2, 1, 1]).deep(),
        semaphore(3, [1, 2, 2], 1, [1, 1, 0]).deep(),
        semaphore(2, [1, 1, 1, 1], 1, [1, 1, 0]).deep(),
        semaphore(2, [1, 1, 2], 2, [1, 0, 0]).deep(),
        semaphore(2, [1, 1, 1, 1], 1, [0; 3]).bug(Bug::NoMutex),
        semaphore(1, [1, 1], 1, [0; 3]).bug(Bug::NotRegistered),
        semaphore(2, [1, 1, 1], 1, [0; 3]).bug(Bug::WatchesOne),
        semaphore(1, [1, 1, 1, 1], 1, [1, 0, 0]).bug(Bug::ClearIgnoresEpoch),
        semaphore(1, [1, 1], 1, [0; 3]).bug(Bug::NoWake),
        semaphore(2, [1, 2], 1, [0, 1, 0]).bug(Bug::KeepsTheRest),
        semaphore(2, [2, 2], 1, [0; 3]).bug(Bug::GathersOutside),
    ];
    rows.into_iter()
}

/// A row of the rwlock: readers, writers, rounds, reader locks; kills, time-outs, spurious wake-ups.
fn rwlock(
    readers: usize,
    writers: usize,
    rounds: u8,
    locks: usize,
    left: [u8; 3],
) -> Case<RwLock, PROCESSES, WORDS> {
    Case::new(RwLock { locks, readers, writers, rounds }, left)
}

pub(super) fn rwlocks() -> impl Iterator<Item = Case<RwLock, PROCESSES, WORDS>> {
    use rwlock::Bug;
    let rows = vec![
        rwlock(1, 1, 2, 1, [2, 1, 1]),
        rwlock(2, 1, 1, 2, [2, 1, 1]),
        rwlock(1, 2, 1, 2, [2, 1, 1]),
        rwlock(2, 1, 2, 2, [1, 1, 0]),
        rwlock(2, 1, 3, 2, [2, 1, 0]).deep(),
        rwlock(2, 2, 1, 2, [2, 1, 1]).deep(),
        rwlock(3, 1, 1, 3, [2, 1, 0]).deep(),
        rwlock(2, 2, 2, 2, [1, 1, 0]).deep(),
        rwlock(1, 1, 1, 1, [0; 3]).bug(Bug::EntryLockOpens),
        rwlock(1, 1, 1, 1, [0; 3]).bug(Bug::LooksOutside),
        rwlock(1, 1, 1, 1, [0; 3]).bug(Bug::SitsOutside),
        rwlock(1, 1, 2, 1, [0; 3]).bug(Bug::ChecksFirst),
        rwlock(1, 1, 1, 1, [0; 3]).bug(Bug::WidensOutside),
        rwlock(1, 2, 1, 1, [1, 0, 0]).bug(Bug::ClearsOutside),
        rwlock(1, 2, 1, 1, [1, 0, 0]).bug(Bug::SignsFirst),
        rwlock(2, 1, 1, 1, [1, 0, 0]).bug(Bug::KernelsMark),
        rwlock(1, 1, 1, 1, [0; 3]).bug(Bug::NoWake),
        rwlock(2, 2, 1, 2, [1, 0, 0]).spare(Bug::ClearIgnoresEpoch),
    ];
    rows.into_iter()
}

/// A row of the barrier: participants, threads, rounds, closers and menders; kills, time-outs, spurious
/// wake-ups.
fn barrier(
    parties: usize,
    threads: usize,
    rounds: u8,
    [closers, menders]: [usize; 2],
    left: [u8; 3],
) -> Case<Barrier, PROCESSES, WORDS> {
    Case::new(Barrier { parties, threads, rounds, closers, menders }, left)
}

pub(super) fn barriers() -> impl Iterator<Item = Case<Barrier, PROCESSES, WORDS>> {
    use barrier::Bug;
    let rows = vec![
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
        barrier(2, 2, 1, [1, 1], [1, 0, 0]).gap(&["SLEEPS THROUGH THE END"]).deep(),
        barrier(2, 2, 1, [0, 0], [1, 0, 0]).spare(Bug::LookBeforeNote).live(),
        barrier(2, 2, 1, [0, 0], [1, 0, 0]).bug(Bug::SlotsNotWatched),
        barrier(2, 2, 1, [0, 1], [1, 0, 0]).bug(Bug::WokenNotifiesNone),
        barrier(3, 3, 1, [0, 0], [1, 0, 0]).bug(Bug::WokenNotifiesNone).deep(),
        barrier(2, 2, 1, [0, 1], [1, 0, 0]).bug(Bug::NotifiesWhenOver),
        barrier(2, 3, 1, [0, 0], [2, 0, 0]).bug(Bug::SleepsOnDeath),
        barrier(2, 3, 1, [0, 0], [1, 0, 0]).bug(Bug::TakerHides),
        barrier(2, 3, 1, [0, 0], [1, 0, 0]).bug(Bug::NoteOfANewOwner),
        barrier(2, 2, 1, [0, 0], [1, 0, 0]).bug(Bug::TakerBreaksNothing),
        barrier(2, 2, 1, [0, 0], [1, 0, 0]).bug(Bug::CountsWithoutLook),
        barrier(2, 2, 1, [0, 0], [1, 0, 0]).bug(Bug::CountsBeforeNote),
        barrier(2, 3, 2, [0, 0], [0, 0, 0]).bug(Bug::DeathBeforeNote),
        barrier(2, 2, 1, [1, 1], [0; 3]).bug(Bug::NoSense),
        barrier(2, 1, 1, [1, 0], [1, 0, 0]).bug(Bug::NoControlLock),
        barrier(2, 2, 1, [0, 0], [0; 3]).bug(Bug::NoWake),
    ];
    rows.into_iter()
}
