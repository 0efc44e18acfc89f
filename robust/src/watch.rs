//! Watching: to sleep until a count moves *or the owner of one of many locks dies*. For objects in which everybody who takes part holds a lock of his own, as a seat.
//!
//! Nobody waits to take such a lock, so `W` in its word does not mean "wake me when it is free" but "wake me when its owner dies", which is the kernel's business alone. It is set by
//! whoever watches and never cleared: [`RobustLock::release_claim`] keeps it and wakes nobody. The kernel wakes *one* of those who watch a dead owner's word; what that is to mean for the others
//! is up to the object (mostly: it moves the count and wakes them all, and then [settles](RobustLock::acknowledge_death) the death). If that one is killed, too, its own seat is watched by the others.
//! Nobody sleeps on a word that says "owner died": it would say the same after another death, of whom took the lock meanwhile.
#![allow(unsafe_code, reason = "pointers to the halves of words")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::lock::RobustLock;
use crate::outcome::Death;
use crate::sys;
use crate::thread::{self, ThisThread};
use crate::wait_set::{LIVENESS_POLL, WaitSet};
use crate::word::{ONE_EPOCH, OWNER_DIED, TID, WAITERS, low};

impl RobustLock {
    /// Who died holding it, if nobody has taken it since.
    #[inline]
    pub fn death(&self) -> Option<Death> {
        // ORDER: SeqCst: what the dead one had written before is seen.
        let word = self.word().load(SeqCst);
        (word & TID == 0 && word & OWNER_DIED != 0).then(|| self.dead_owner())
    }

    /// If its owner died and nobody has taken it since: runs `deal` and makes it a free lock like others; false, and nothing done, otherwise. `deal` is to do all that the death asks for,
    /// since nobody finds it afterwards. It may run in several threads at once, and again if this one dies.
    pub fn acknowledge_death(&self, deal: impl FnOnce(Death)) -> bool {
        let seen = self.word().load(SeqCst);
        if seen & TID != 0 || seen & OWNER_DIED == 0 {
            return false;
        }
        deal(self.dead_owner());
        // CRASH: dealt with, not forgotten: it is dealt with again.
        // The count is part of the comparison: the death of one who took it meanwhile is another one.
        let _ = self.word().compare_exchange(seen, (seen & !OWNER_DIED).wrapping_add(ONE_EPOCH), SeqCst, Relaxed);
        true
    }

    /// Who holds it and has ended, though the kernel has not said so (see the module's docs): asks the system, so only now and then.
    pub fn missed_death(&self) -> Option<Death> {
        let tid = low(self.word().load(SeqCst) & TID);
        (tid != 0 && thread::has_ended(tid)).then(|| self.dead_owner())
    }
}

/// Sleeps until the high half of `word` is no more `count`, the owner of one of `locks` dies, or the deadline or a second has passed. `ready` is asked after all is set up and before
/// the sleep: a count that moves, or a death that comes, after that question ends the sleep. Does not sleep while one of them is left by a dead owner (see [`RobustLock::acknowledge_death`]), and
/// may return for no reason. Locks that this thread holds are not watched, nor those that do not fit beside the count.
pub fn sleep_watching(word: &AtomicU64, count: u32, locks: &[RobustLock], deadline: Deadline, ready: impl FnOnce() -> bool) {
    let me = ThisThread::current().map_or(0, ThisThread::tid);
    let mut words = WaitSet::new();
    for lock in locks.iter().take(WaitSet::CAPACITY - 1) {
        let mut seen = lock.word().load(Relaxed);
        if seen & TID == me && me != 0 {
            continue;
        }
        if seen & WAITERS == 0 {
            // ORDER: SeqCst, before `ready`: a death after this finds `WAITERS`, one before it is seen by `ready`.
            seen = lock.word().fetch_or(WAITERS, SeqCst);
        }
        if seen & TID == 0 && seen & OWNER_DIED != 0 {
            // Another one may take it and die before the kernel compares: then the word is the same, and that wake is gone.
            return;
        }
        words.push((lock.futex_word(), low(seen | WAITERS)));
    }
    if ready() {
        return;
    }
    words.push((high_half(word), count));
    words.wait(deadline.within(LIVENESS_POLL));
}

/// Wakes all who sleep on the high half of `word`.
pub fn wake_watchers(word: &AtomicU64) {
    sys::futex_wake(high_half(word), i32::MAX);
}

fn high_half(word: &AtomicU64) -> *const AtomicU32 {
    std::ptr::from_ref(word).cast::<AtomicU32>().wrapping_add(1)
}
