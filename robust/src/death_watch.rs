//! [`DeathWatch`]: sleeps until the thread is notified, or until the owner of one of several locks dies.
//!
//! A participant of a barrier and a waiter of a condition hold a lock of their own while they wait, so the
//! kernel marks that lock when they die. The others watch it. No thread waits to take such a lock. So `W` in
//! its word means "wake a watcher when the owner dies", which only the kernel does. `W` is never cleared:
//! [`RobustLock::release_claim`] keeps it and wakes no thread.
//!
//! The kernel wakes **one** watcher of a dead owner's word. What the death means for the other watchers is up
//! to the object. Mostly, the woken watcher moves the count, wakes all watchers, and then [acknowledges the
//! death](RobustLock::acknowledge_death). If that watcher dies first, its own lock is watched by the others.
//!
//! # Steps
//!
//! 1. Note all words ([`watch_slot`](DeathWatch::watch_slot), [`watch_lock`](DeathWatch::watch_lock),
//!    [`mark_and_watch`](DeathWatch::mark_and_watch)).
//! 2. Look whether there is a reason not to sleep. What happens after that look changes a word that the
//!    kernel still has to compare, or wakes this thread.
//! 3. Note the count, if there is one ([`watch_count`](DeathWatch::watch_count)): it is compared last.
//! 4. [`wait`](DeathWatch::wait).
//!
//! A thread must not sleep on a word that says "owner died". If another thread takes that lock and dies
//! before the kernel compares the word, the word says the same again, and the wake-up for the second death is
//! lost.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::lock::RobustLock;
use crate::sys::{self, Woken};
use crate::thread::ThisThread;
use crate::wait_set::{LIVENESS_POLL, WaitSet};
use crate::wait_slot::WaitSlot;
use crate::word::{OWNER_DIED, TID, WAITERS, low};

/// The words of one sleep that a notification ends, or the death of a lock's owner. The module's docs have
/// the steps.
///
/// ```
/// use multiproc_robust::{DeathWatch, Deadline, RobustLock};
/// use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
///
/// // In earnest: in shared memory.
/// let (state, locks) = (AtomicU64::new(0), [RobustLock::new(), RobustLock::new()]);
/// let mut watch = DeathWatch::new();
/// assert!(!watch.mark_and_watch(&locks), "no owner has died");
/// state.store(1 << 32, SeqCst); // another process moves the count and calls `wake_all`
/// watch.watch_count(&state, 0);
/// assert!(!watch.wait(Deadline::NEVER), "does not sleep: the count has moved");
/// ```
#[derive(Debug, Default)]
pub struct DeathWatch(WaitSet);

impl DeathWatch {
    /// Returns a watch of no words.
    #[inline]
    pub const fn new() -> Self {
        Self(WaitSet::new())
    }

    /// Watches the notifications of a wait slot, which this thread occupies. Where the kernel cannot watch
    /// several words, the sleep is on this one.
    pub fn watch_slot(&mut self, slot: WaitSlot<'_>) {
        self.0.push_main(slot.watched());
    }

    /// Watches a lock whose owner sets `W` itself: a [claim](RobustLock::claim), or the lock of a
    /// [`Side`](crate::Side). Returns true if the owner has died and no thread has taken the lock since. A
    /// lock that does not fit into the set is not watched.
    pub fn watch_lock(&mut self, lock: &RobustLock) -> bool {
        // ORDER: SeqCst, before the caller's look: a death after that look changes the word that is noted
        // here.
        let word = low(lock.word().load(SeqCst));
        self.0.push((lock.futex_word(), word));
        u64::from(word) & OWNER_DIED != 0
    }

    /// Sets `W` in these locks where it is not set, and watches them. Skips the locks that this thread holds,
    /// and those that do not fit beside the count. Returns true if the owner of one has died and no thread
    /// has taken it since: then acknowledge the death, and do not sleep. The locks after that one are not
    /// marked.
    pub fn mark_and_watch(&mut self, locks: &[RobustLock]) -> bool {
        let me = ThisThread::current().map_or(0, ThisThread::tid);
        for lock in locks.iter().take(self.0.room().saturating_sub(1)) {
            let mut seen = lock.word().load(Relaxed);
            if seen & TID == me && me != 0 {
                continue;
            }
            if seen & WAITERS == 0 {
                // ORDER: SeqCst, before the caller's look: a death after this finds `W`; that look sees a
                // death before it.
                seen = lock.word().fetch_or(WAITERS, SeqCst);
            }
            if seen & TID == 0 && seen & OWNER_DIED != 0 {
                return true;
            }
            self.0.push((lock.futex_word(), low(seen | WAITERS)));
        }
        false
    }

    /// Watches the high half of `word`, which says `count` as long as the wait should go on. To be called
    /// last.
    pub fn watch_count(&mut self, word: &AtomicU64, count: u32) {
        self.0.push((high_half(word), count));
    }

    /// Sleeps until a word changes or is woken, until the deadline, or until the liveness poll is due (1 s).
    /// Returns true if nothing happened: then look for deaths that the kernel missed. May return false for no
    /// reason.
    pub fn wait(&self, deadline: Deadline) -> bool {
        self.0.wait(deadline.within(LIVENESS_POLL)) == Woken::TimedOut
    }

    /// Wakes every thread that [watches](Self::watch_count) the high half of `word`.
    pub fn wake_all(word: &AtomicU64) {
        sys::futex_wake(high_half(word), i32::MAX);
    }
}

fn high_half(word: &AtomicU64) -> *const AtomicU32 {
    std::ptr::from_ref(word).cast::<AtomicU32>().wrapping_add(1)
}
