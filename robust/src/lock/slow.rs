//! The slow half of a [`RobustLock`]: waiting for a lock that is held, and the hand-over to a waiter. The
//! protocol is in the docs of `lock.rs`.

use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

use super::{RobustLock, WaitOn};
use crate::deadline::Deadline;
use crate::outcome::AcquireError;
use crate::planted_bugs::{Bug, is_planted};
use crate::spin::{LONGEST_PAUSE, sleeps_at_once};
use crate::sys::{self, Woken};
use crate::thread::ThisThread;
use crate::wait_set::{LIVENESS_POLL, WaitSet};
use crate::word::{LOW, ONE_EPOCH, OWNER_DIED, TID, WAITERS, low};

impl RobustLock {
    /// Wakes one waiter. `after` is the word as the release left it. Clears `W` only if no thread was asleep,
    /// and no waiter has registered since `after`.
    #[cold]
    #[inline(never)]
    pub(crate) fn hand_over(&self, after: u64) {
        if is_planted(Bug::MissingWake) {
            return;
        }
        if sys::futex_wake(self.futex_word(), 1) == 0 {
            self.clear_waiters_bit(after);
        }
    }

    /// Changes `(W, E)` to `(0, E)`, if the epoch is still the one that the release saw.
    pub(crate) fn clear_waiters_bit(&self, after: u64) {
        let _ = self.word().compare_exchange((after & !LOW) | WAITERS, after & !LOW, SeqCst, Relaxed);
    }

    /// Waits until this thread has the word. Returns whether the last owner died.
    #[cold]
    #[inline(never)]
    pub(crate) fn wait_to_acquire(
        &self,
        me: ThisThread,
        deadline: Deadline,
        wait_on: WaitOn,
    ) -> Result<bool, AcquireError> {
        let first = if sleeps_at_once() { LONGEST_PAUSE + 1 } else { 2 };
        let mut pauses = first;
        let mut seen = self.word().load(Relaxed);
        loop {
            if seen & TID == 0 {
                let plain = seen & LOW == 0;
                if seen & OWNER_DIED != 0 && is_planted(Bug::RecoveryWithoutPending) {
                    me.clear_pending();
                }
                let next = (seen & !OWNER_DIED).wrapping_add(if plain { 0 } else { ONE_EPOCH }) | me.tid();
                // ORDER: Acquire pairs with the release in `release_unlinked`, and with the kernel's
                // `OWNER_DIED` store.
                match self.word().compare_exchange(seen, next, Acquire, Relaxed) {
                    Ok(_) => return Ok(seen & OWNER_DIED != 0),
                    Err(now) => seen = now,
                }
                continue;
            }
            if seen & TID == me.tid() {
                // Also if the table does not know the lock: then this thread holds it through another mapping
                // of the same object (after a fork).
                return Err(AcquireError::AlreadyHeld);
            }
            if deadline == Deadline::NOW {
                if me.fails_again(self.node(), seen) && self.take_from_dead_owner(me) {
                    return Ok(true);
                }
                return Err(AcquireError::TimedOut);
            }
            if seen & WAITERS == 0 && pauses <= LONGEST_PAUSE {
                (0..pauses).for_each(|_| std::hint::spin_loop());
                pauses *= 2;
                seen = self.word().load(Relaxed);
                continue;
            }
            if deadline.has_passed() {
                return Err(AcquireError::TimedOut);
            }
            if self.sleep(seen, deadline, wait_on) && self.take_from_dead_owner(me) {
                return Ok(true);
            }
            pauses = first;
            seen = self.word().load(Relaxed);
        }
    }

    /// Registers as a waiter and sleeps once. Returns true if the sleep timed out.
    fn sleep(&self, seen: u64, deadline: Deadline, wait_on: WaitOn) -> bool {
        if wait_on == WaitOn::WaiterWord {
            self.parked_waiters.fetch_add(1, SeqCst);
        }
        let registered = (seen | WAITERS).wrapping_add(ONE_EPOCH);
        let mut timed_out = false;
        // ORDER: SeqCst pairs with the fetch_sub in `release_unlinked`.
        if self.word().compare_exchange(seen, registered, SeqCst, Relaxed).is_ok() {
            let mut words = WaitSet::new();
            if wait_on == WaitOn::WaiterWord {
                words.push((&raw const self.waiter_word, 0));
            }
            words.push((self.futex_word(), low(registered)));
            let woken = words.wait(deadline.within(LIVENESS_POLL));
            timed_out = woken == Woken::TimedOut;
        }
        if wait_on == WaitOn::WaiterWord {
            self.parked_waiters.fetch_sub(1, SeqCst);
        }
        timed_out
    }

    /// Registers a thread that watches this word and does not want to sleep here. Returns the low half of the
    /// word then, or `None` if the lock is free.
    pub(crate) fn register_waiter(&self) -> Option<u32> {
        let mut seen = self.word().load(Relaxed);
        while seen & TID != 0 {
            let registered = (seen | WAITERS).wrapping_add(ONE_EPOCH);
            // ORDER: SeqCst pairs with the fetch_sub in `release_unlinked`.
            match self.word().compare_exchange(seen, registered, SeqCst, Relaxed) {
                Ok(_) => return Some(low(registered)),
                Err(now) => seen = now,
            }
        }
        None
    }
}
