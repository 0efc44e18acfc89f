//! [`EventCount`]: waits until something has changed since the waiter looked.
//!
//! # Why no wake-up is lost
//!
//! A waiter counts itself, reads the counter, and looks at its condition. It sleeps only if the counter is
//! still the one that it read. A signaller changes the condition, then the counter, then wakes. Either the
//! waiter's look comes after the change, or the counter moves before the kernel compares it.
//!
//! # What a death leaves
//!
//! - A waiter that dies asleep leaves the count of waiters too high. That costs a needless system call for
//!   each signal.
//! - A waiter that dies after it was woken takes a `wake_one` with it. So use `wake_all`, or a condition that
//!   is looked at again within a second, as every wait here does.
//! - A signaller that dies between its change and the wake-up costs its waiters up to a second.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::spin::{EAGER, spin};
use crate::sys;
use crate::wait_set::LIVENESS_POLL;

/// A counter that tells waiters that something has changed since they looked. All zeros is an event count
/// without waiters.
///
/// ```
/// use multiproc_robust::{Deadline, EventCount};
/// use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
///
/// let (changes, flag) = (EventCount::new(), AtomicBool::new(false)); // in earnest: in shared memory
/// std::thread::scope(|s| {
///     s.spawn(|| { flag.store(true, SeqCst); changes.wake_all(); });
///     assert!(changes.wait_until(Deadline::NEVER, || flag.load(SeqCst)));
/// });
/// ```
#[repr(C)]
pub struct EventCount {
    count: AtomicU32,
    waiters: AtomicU32,
    cpu: AtomicU32,
}

impl EventCount {
    /// Returns an event count without waiters.
    pub const fn new() -> Self {
        Self { count: AtomicU32::new(0), waiters: AtomicU32::new(0), cpu: AtomicU32::new(0) }
    }

    /// Waits until `ready` returns true. Returns false if the deadline passed first. Calls `ready` at each
    /// change, and at least once a second.
    pub fn wait_until(&self, deadline: Deadline, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        if deadline == Deadline::NOW {
            return false;
        }
        let signaller = self.cpu.load(Relaxed).wrapping_sub(1);
        if spin(signaller, 1, EAGER, &mut ready) {
            return true;
        }
        loop {
            self.waiters.fetch_add(1, SeqCst);
            // ORDER: SeqCst pairs with `signal`: either the look below sees the change, or the count has
            // moved when the kernel compares it.
            let seen = self.count.load(SeqCst);
            let done = ready();
            if !done {
                sys::futex_wait(&raw const self.count, seen, deadline.within(LIVENESS_POLL).timespec());
            }
            // CRASH: killed above, the count of waiters stays one too high.
            self.waiters.fetch_sub(1, SeqCst);
            if done || ready() {
                return true;
            }
            if deadline.has_passed() {
                return false;
            }
        }
    }

    /// Returns how many threads sleep here, as the kernel counts them. Killed waiters are not among them, nor
    /// are waiters that still spin.
    pub fn waiters(&self) -> usize {
        sys::waiters_on(&raw const self.count)
    }

    /// Returns whether there may be waiters: never false with a waiter asleep; deaths may make it true
    /// without one.
    #[inline]
    pub fn has_waiters(&self) -> bool {
        // ORDER: SeqCst pairs with a waiter's count in `wait_until`: either this sees it, or the waiter sees
        // what was changed before this look.
        self.waiters.load(SeqCst) != 0
    }

    /// Advances the count if there may be waiters, and wakes no thread. A waiter that has noted the count and
    /// does not sleep yet looks again.
    pub fn advance(&self) {
        if self.has_waiters() {
            self.count.fetch_add(1, SeqCst);
        }
    }

    /// Returns the count of waiters, as they count themselves: to be raised while a thread sleeps here.
    pub(crate) fn waiter_count(&self) -> &AtomicU32 {
        &self.waiters
    }

    /// Returns the word that waiters watch, and what it is now.
    pub(crate) fn watched(&self) -> (*const AtomicU32, u32) {
        (&raw const self.count, self.count.load(SeqCst))
    }

    /// Wakes one waiter: something has changed. Returns whether one was asleep.
    pub fn wake_one(&self) -> bool {
        self.signal(1) > 0
    }

    /// Wakes every waiter: something has changed. Returns how many were asleep.
    pub fn wake_all(&self) -> u32 {
        self.signal(i32::MAX)
    }

    fn signal(&self, count: i32) -> u32 {
        self.cpu.store(sys::cpu().wrapping_add(1), Relaxed);
        // ORDER: SeqCst pairs with `wait_until`.
        self.count.fetch_add(1, SeqCst);
        // CRASH: changed, and no waiter woken: waiters look again within a second.
        if self.waiters.load(SeqCst) == 0 { 0 } else { sys::futex_wake(&raw const self.count, count) }
    }
}

impl Default for EventCount {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EventCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventCount")
            .field("count", &self.count.load(Relaxed))
            .field("waiters", &self.waiters.load(Relaxed))
            .finish()
    }
}
