//! [`ClaimSet`]: locks that say that their holders live.
//!
//! A *claim* is a robust lock that is never waited for, only watched. A member of a queue holds one; so do a
//! leased job, a reserved record and a waiter of a condition. What the claim stands for is decided under
//! another lock. The claim itself says one thing: its holder has not died.
//!
//! # The rules
//!
//! - **Claim**: takes a free lock and sets `W` in the same step. So the kernel wakes one of the watchers when
//!   the holder dies.
//! - **Release**: keeps `W` and wakes no thread. What other processes must learn, the holder tells them
//!   through other words *before* the operation is over. Until then the pending entry names the lock, so the
//!   holder's death wakes a watcher.
//! - **Watch**: a thread that is about to sleep adds the words of all claims that were ever used to its
//!   [`WaitSet`](crate::wait_set::WaitSet).
//! - A claim's word is the same before it was taken and after it was released. So a thread that takes or
//!   releases a claim first moves the word that the watchers compare last.
//! - A watcher that was woken looks for everything that a death may have left: its wake-up may have been
//!   meant for another watcher.
//! - `used` is how many claims, from the first on, were ever taken. The others are not looked at. A thread
//!   raises `used` while it holds the claim, and then notifies all waiters, for they do not watch that claim
//!   yet.
//!
//! The locks of a barrier's participants and of a read-write lock's readers are not claims: they are waited
//! for, too.
#![allow(unsafe_code, reason = "locks whose mapping the caller keeps")]

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::lock::RobustLock;
use crate::outcome::{AcquireError, Acquired};
use crate::thread::ThisThread;
use crate::word::{ONE_EPOCH, OWNER_DIED, TID, WAITERS, high};

/// A word that says how many claims, from the first on, were ever taken.
pub trait UsedCount: Sync {
    /// Returns the count.
    fn get(&self) -> usize;

    /// Raises the count to at least `count`. Returns whether it was lower before.
    fn raise(&self, count: usize) -> bool;
}

macro_rules! used_count {
    ($($word:ty: $integer:ty),*) => {$(
        impl UsedCount for $word {
            #[inline]
            fn get(&self) -> usize {
                // ORDER: SeqCst pairs with `raise`: a waiter that has counted itself sees the new count, or
                // is seen by the thread that raises it.
                usize::try_from(self.load(SeqCst)).unwrap_or(usize::MAX)
            }

            fn raise(&self, count: usize) -> bool {
                let count = <$integer>::try_from(count).unwrap_or(<$integer>::MAX);
                // ORDER: SeqCst pairs with `get`.
                // CRASH: from here on waiters look at the claim.
                self.fetch_max(count, SeqCst) < count
            }
        }
    )*};
}
used_count!(AtomicU16: u16, AtomicU32: u32, AtomicU64: u64);

/// Locks that say that their holders live, and how many of them were ever used. A view, made for each call.
#[derive(Debug)]
pub struct ClaimSet<'a, U> {
    locks: &'a [RobustLock],
    used: &'a U,
}

impl<U> Clone for ClaimSet<'_, U> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<U> Copy for ClaimSet<'_, U> {}

impl<'a, U: UsedCount> ClaimSet<'a, U> {
    /// Returns these locks, of which the first `used` were ever taken.
    #[inline]
    pub const fn new(locks: &'a [RobustLock], used: &'a U) -> Self {
        Self { locks, used }
    }

    /// Returns all locks, used or not.
    #[inline]
    pub const fn all(self) -> &'a [RobustLock] {
        self.locks
    }

    /// Returns the locks that were ever taken, which a waiter watches. A count that a peer overwrote makes it
    /// all locks at most.
    #[inline]
    pub fn used(self) -> &'a [RobustLock] {
        &self.locks[..self.used.get().min(self.locks.len())]
    }

    /// Returns the lock with this number if it was ever taken.
    #[inline]
    pub fn get(self, number: usize) -> Option<&'a RobustLock> {
        self.used().get(number)
    }

    /// Notes that the first `count` locks are used. Returns whether fewer were used before: then notify all
    /// waiters.
    pub fn raise_used(self, count: usize) -> bool {
        self.used.raise(count)
    }

    /// Marks every claim of a holder whose death the kernel missed. Returns how many there were. Asks the
    /// system about each holder, so call it in a liveness poll only.
    pub fn mark_dead_owners(self) -> usize {
        self.used().iter().filter(|lock| lock.mark_dead_owner()).count()
    }
}

impl RobustLock {
    /// Takes the lock as a claim; `None` if it is not free. The kernel wakes one watcher when the holder
    /// dies.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: this thread can hold no more locks, or has no robust list.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until this thread has [released](Self::release_claim) it.
    pub unsafe fn claim(&self) -> Result<Option<Acquired>, AcquireError> {
        let me = ThisThread::current()?;
        if me.is_full() {
            return Err(AcquireError::TooManyHeld);
        }
        self.set_pending_to_take(me);
        let mut seen = self.word().load(Relaxed);
        while seen & TID == 0 {
            let next = (seen & !OWNER_DIED).wrapping_add(ONE_EPOCH) | WAITERS | me.tid();
            // ORDER: SeqCst, hence Acquire, pairs with the release in `release_unlinked`. It also pairs with
            // a waiter that counts itself and then notes this word: what this thread reads next, it reads
            // after that.
            // CRASH: from here on this thread owns the word, and the pending entry names it.
            match self.word().compare_exchange(seen, next, SeqCst, Relaxed) {
                Ok(_) => return Ok(Some(self.finish_acquire(me, seen & OWNER_DIED != 0))),
                Err(now) => seen = now,
            }
        }
        me.clear_pending();
        Ok(None)
    }

    /// Runs `last`, releases the claim, and runs `then` while the death of this thread would still wake a
    /// watcher. Wakes no thread itself. Returns false, with nothing done, if this thread does not hold the
    /// claim (in a forked child: its parent holds it).
    pub fn release_claim(&self, last: impl FnOnce(), then: impl FnOnce()) -> bool {
        // CRASH: off the list, still held: the pending entry names the lock, so a death wakes a watcher. The
        // word has `W`, so `then` always runs, with the pending entry on this lock: a watcher that is woken
        // does what `then` does.
        self.release_with(ThisThread::here(), last, |_| then())
    }

    /// Returns whether a thread holds the lock, by a load that is sequentially consistent: for a look without
    /// a lock.
    pub fn is_held_now(&self) -> bool {
        self.free_since().is_none()
    }

    /// Returns the epoch of a free lock, or `None` if it is held; by the same load as
    /// [`is_held_now`](Self::is_held_now). The same epoch twice means that no thread took the lock in
    /// between. (The epoch wraps at 2^32, and also advances for other reasons.)
    pub fn free_since(&self) -> Option<u32> {
        let word = self.word().load(SeqCst);
        (word & TID == 0).then(|| high(word))
    }
}
