//! [`ClaimSet`]: locks that say that their holders live.
//!
//! A *claim* is a robust lock that is never waited for, only watched: a member of a queue holds one, so does a leased
//! job, a reserved record and a waiter of a condition. What it stands for is decided under another lock; the claim says
//! one thing, that its holder has not died.
//!
//! # The rules
//!
//! - **Claim**: takes a free lock and sets `W` in the same step. So the kernel wakes one of the watchers at a death.
//! - **Release**: keeps `W` and wakes nobody. What others must hear, the holder tells by other words *before* the
//!   operation is over: until then the pending entry names the lock, and the death of the holder wakes a watcher.
//! - **Watch**: a thread that is about to sleep adds the words of all claims that were ever used to its
//!   [`WaitSet`](crate::wait_set::WaitSet).
//! - A claim's word says the same before it was taken and after it was released. So whoever takes or releases one moves,
//!   before that, the word that watchers compare last.
//! - A watcher that was woken looks for everything that a death may have left: its wake-up may have been meant for
//!   another watcher.
//! - `used` is how many claims, from the first on, were ever taken: others are not looked at. It is raised with the claim
//!   held; then all waiters are notified, for they do not watch that claim yet.
//!
//! What a barrier's participants and a read-write lock's readers hold are not claims: those locks are waited for, too.
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

    /// Raises the count to at least `count`; true if that is news.
    fn raise(&self, count: usize) -> bool;
}

macro_rules! used_count {
    ($($word:ty: $integer:ty),*) => {$(
        impl UsedCount for $word {
            #[inline]
            fn get(&self) -> usize {
                // ORDER: SeqCst pairs with `raise`: a waiter that has counted itself finds the new count, or is found.
                usize::try_from(self.load(SeqCst)).unwrap_or(usize::MAX)
            }

            fn raise(&self, count: usize) -> bool {
                let count = <$integer>::try_from(count).unwrap_or(<$integer>::MAX);
                // ORDER: SeqCst pairs with `get`. CRASH: from here on the claim is looked at.
                self.fetch_max(count, SeqCst) < count
            }
        }
    )*};
}
used_count!(AtomicU16: u16, AtomicU32: u32, AtomicU64: u64);

/// Locks that say that their holders live, and how many of them were ever used. A view, to be made for each call.
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

    /// Returns those that were ever taken: what a waiter watches. A peer that lies makes it all of them at most.
    #[inline]
    pub fn used(self) -> &'a [RobustLock] {
        &self.locks[..self.used.get().min(self.locks.len())]
    }

    /// Returns the lock with this number if it was ever taken.
    #[inline]
    pub fn get(self, number: usize) -> Option<&'a RobustLock> {
        self.used().get(number)
    }

    /// Notes that the first `count` are used, and returns whether that is news, which all waiters must be told.
    pub fn raise_used(self, count: usize) -> bool {
        self.used.raise(count)
    }

    /// Marks every claim of a holder whose death the kernel missed, and returns how many there were. Asks the system
    /// about each holder, so it is for a look now and then.
    pub fn mark_dead_owners(self) -> usize {
        self.used().iter().filter(|lock| lock.mark_dead_owner()).count()
    }
}

impl RobustLock {
    /// Takes the lock as a claim if it is free (`None` if it is not): the kernel wakes one watcher when its holder dies.
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
            // ORDER: SeqCst, hence Acquire, pairs with the release in `give`; and with a waiter that counts itself and
            // then notes this word: what this thread looks at next it looks at after that.
            // CRASH: from here on the word is this thread's, and the pending entry names it.
            match self.word().compare_exchange(seen, next, SeqCst, Relaxed) {
                Ok(_) => return Ok(Some(self.finish_acquire(me, seen & OWNER_DIED != 0))),
                Err(now) => seen = now,
            }
        }
        me.clear_pending();
        Ok(None)
    }

    /// Runs `last`, releases the claim, and runs `then` while the death of this thread would still wake a watcher.
    /// Wakes nobody itself. False, and nothing done, if this thread does not hold it: in a forked child, what its parent
    /// holds.
    pub fn release_claim(&self, last: impl FnOnce(), then: impl FnOnce()) -> bool {
        // CRASH: off the list, still held: the pending entry names it, and the watchers hear of a death. The word has
        // `W`, so `then` always runs, with the pending entry on this lock: a watcher that is woken does what `then` does.
        self.release_with(ThisThread::here(), last, |_| then())
    }

    /// Returns whether it is held, read in one order with what others have written: for a look without a lock.
    pub fn is_held_now(&self) -> bool {
        self.free_since().is_none()
    }

    /// Returns the epoch of a free lock, `None` if it is held; read as above. The same epoch twice means that nobody took
    /// the lock in between. (It wraps at 2^32, and advances for other reasons, too.)
    pub fn free_since(&self) -> Option<u32> {
        let word = self.word().load(SeqCst);
        (word & TID == 0).then(|| high(word))
    }
}
