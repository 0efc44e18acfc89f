//! The slow half of a [`RobustLock`]: to wait for one that is held, to wake who waits, and what to do about owners whose death the kernel has missed. The protocol is told in `robust_lock.rs`.

use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::lock::{RobustLock, WaitOn};
use crate::outcome::{AcquireError, Death};
use crate::planted_bugs::{Bug, is_planted};
use crate::spin::is_patient;
use crate::sys::{self, Woken};
use crate::thread::{self, ThisThread};
use crate::wait_set::{LIVENESS_POLL, WaitSet};
use crate::word::{LOW, ONE_EPOCH, OWNER_DIED, TID, WAITERS, low};

impl RobustLock {
    /// Wakes one; clears `W` only if nobody was there and nobody has announced since `after`.
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

    /// `(W, count)` -> `(0, count)`, if the count is still the one that the release saw.
    pub(crate) fn clear_waiters_bit(&self, after: u64) {
        let _ = self.word().compare_exchange((after & !LOW) | WAITERS, after & !LOW, SeqCst, Relaxed);
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn wait_to_acquire(&self, me: ThisThread, deadline: Deadline, wait_on: WaitOn) -> Result<bool, AcquireError> {
        let first = if is_patient() { LONGEST_PAUSE + 1 } else { 2 };
        let mut pauses = first;
        let mut seen = self.word().load(Relaxed);
        loop {
            if seen & TID == 0 {
                let plain = seen & LOW == 0;
                if seen & OWNER_DIED != 0 && is_planted(Bug::RecoveryWithoutPending) {
                    me.clear_pending();
                }
                let next = (seen & !OWNER_DIED).wrapping_add(if plain { 0 } else { ONE_EPOCH }) | me.tid();
                // ORDER: as in `take`; the kernel's OWNER_DIED store is seen because this reads it.
                match self.word().compare_exchange(seen, next, Acquire, Relaxed) {
                    Ok(_) => return Ok(seen & OWNER_DIED != 0),
                    Err(now) => seen = now,
                }
                continue;
            }
            if seen & TID == me.tid() {
                // Also when the table does not know it: then it is held through another mapping of the same object (after a fork).
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

    /// Announces and sleeps once; true when the slice ran out.
    fn sleep(&self, seen: u64, deadline: Deadline, wait_on: WaitOn) -> bool {
        if wait_on == WaitOn::WaiterWord {
            self.parked_waiters.fetch_add(1, SeqCst);
        }
        let announced = (seen | WAITERS).wrapping_add(ONE_EPOCH);
        let mut timed_out = false;
        // ORDER: SeqCst pairs with the fetch_sub in `give`.
        if self.word().compare_exchange(seen, announced, SeqCst, Relaxed).is_ok() {
            let mut words = WaitSet::new();
            if wait_on == WaitOn::WaiterWord {
                words.push((&raw const self.waiter_word, 0));
            }
            words.push((self.futex_word(), low(announced)));
            let woken = words.wait(deadline.within(LIVENESS_POLL));
            timed_out = woken == Woken::TimedOut;
        }
        if wait_on == WaitOn::WaiterWord {
            self.parked_waiters.fetch_sub(1, SeqCst);
        }
        timed_out
    }

    /// Who died, by the signature; one that lives did not sign last, it only was the last to sign.
    #[cold]
    pub(crate) fn dead_owner(&self) -> Death {
        let holder = self.last_owner();
        Death::of(if thread::has_ended(low(holder)) { holder } else { 0 })
    }

    /// Takes the word from an owner whose death the kernel missed: its thread runs no more. The word is read before that is asked, and its announce count is part of the
    /// comparison, so nobody is robbed who took it meanwhile.
    #[cold]
    fn take_from_dead_owner(&self, me: ThisThread) -> bool {
        let seen = self.word().load(Relaxed);
        if seen & TID == 0 || is_planted(Bug::NoLivenessPoll) || !thread::has_ended(low(seen & TID)) {
            return false;
        }
        let next = (seen & !(TID | OWNER_DIED)).wrapping_add(ONE_EPOCH) | WAITERS | me.tid();
        self.word().compare_exchange(seen, next, Acquire, Relaxed).is_ok()
    }

    /// Announces somebody who watches this word without wanting to sleep in here; its low half then, or `None` if it is free.
    pub(crate) fn register_waiter(&self) -> Option<u32> {
        let mut seen = self.word().load(Relaxed);
        while seen & TID != 0 {
            let announced = (seen | WAITERS).wrapping_add(ONE_EPOCH);
            // ORDER: SeqCst pairs with the fetch_sub in `give`.
            match self.word().compare_exchange(seen, announced, SeqCst, Relaxed) {
                Ok(_) => return Some(low(announced)),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Marks the word of an owner whose death the kernel missed as the kernel would have; true if it did. Asks the
    /// system whether the owner's thread exists, so it is for a look now and then.
    #[cold]
    pub fn mark_dead_owner(&self) -> bool {
        // The word is read before the system is asked, and its epoch is part of the comparison: a thread that took the
        // lock meanwhile is not robbed.
        let seen = self.word().load(SeqCst);
        let freed = ((seen & !TID) | OWNER_DIED).wrapping_add(ONE_EPOCH);
        seen & TID != 0
            && thread::has_ended(low(seen & TID))
            && self.word().compare_exchange(seen, freed, SeqCst, Relaxed).is_ok()
    }

    /// Leaves the word as the kernel leaves that of a dead owner, if there is an owner. Only for a lock that nobody uses: its owner's thread id is of another time.
    pub fn mark_abandoned(&self) {
        let seen = self.word().load(Relaxed);
        if seen & TID != 0 {
            self.word().store((seen & !TID) | OWNER_DIED, SeqCst);
        }
        self.parked_waiters.store(0, SeqCst);
    }
}

/// Spinning ends after the pause of this length.
const LONGEST_PAUSE: u32 = 256;
