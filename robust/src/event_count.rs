//! [`EventCount`]: "something has changed since you looked".
//!
//! # Why no wake-up is lost
//!
//! A waiter counts itself, reads the counter, looks at its condition, and sleeps only if the counter is still the one
//! it read. A signaller changes the condition, then the counter, then wakes. Either the waiter's look comes after the
//! change, or the counter has moved before the kernel compares it.
//!
//! # What a death leaves
//!
//! A waiter that dies asleep leaves the count of waiters too high, which costs a futile system call for each signal.
//! It may take a `wake_one` with it if it was already woken. So use `wake_all`, or a condition that is looked at again
//! within a second, which every wait here does. A signaller that dies between its change and the wake costs its
//! waiters up to a second.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::spin::{EAGER, spin};
use crate::sys;
use crate::wait_set::LIVENESS_POLL;

/// "Something has changed since you looked": a counter that sleepers watch. All zeros is a good start.
///
/// ```
/// use multiproc_robust::{Deadline, EventCount};
/// use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
///
/// let (seq, flag) = (EventCount::new(), AtomicBool::new(false)); // in earnest: in shared memory
/// std::thread::scope(|s| {
///     s.spawn(|| { flag.store(true, SeqCst); seq.wake_all(); });
///     assert!(seq.wait_until(Deadline::NEVER, || flag.load(SeqCst)));
/// });
/// ```
#[repr(C)]
pub struct EventCount {
    count: AtomicU32,
    sleepers: AtomicU32,
    cpu: AtomicU32,
}

impl EventCount {
    /// A word on which nobody sleeps.
    pub const fn new() -> Self {
        Self { count: AtomicU32::new(0), sleepers: AtomicU32::new(0), cpu: AtomicU32::new(0) }
    }

    /// Waits until `ready` says so, or the deadline has passed (false). `ready` is asked at each change and at least once a second.
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
            self.sleepers.fetch_add(1, SeqCst);
            // ORDER: SeqCst pairs with `signal`: either our look sees the change, or the count has moved when the kernel compares it.
            let seen = self.count.load(SeqCst);
            let done = ready();
            if !done {
                sys::futex_wait(&raw const self.count, seen, deadline.within(LIVENESS_POLL));
            }
            // CRASH: killed above, the count of sleepers stays one too high.
            self.sleepers.fetch_sub(1, SeqCst);
            if done || ready() {
                return true;
            }
            if deadline.has_passed() {
                return false;
            }
        }
    }

    /// How many sleep on it now, as the kernel counts them: a killed one is not among them, nor is one that still spins.
    pub fn waiters(&self) -> usize {
        sys::sleepers_on(&raw const self.count)
    }

    /// Whether somebody may sleep on it (never falsely no; deaths may make it falsely yes).
    #[inline]
    pub fn has_waiters(&self) -> bool {
        // ORDER: SeqCst pairs with a sleeper's count: either it is seen, or the sleeper sees what was changed before this look.
        self.sleepers.load(SeqCst) != 0
    }

    /// If somebody may sleep, makes the word another one, and wakes nobody: who has noted it and does not sleep yet looks again.
    pub fn advance(&self) {
        if self.has_waiters() {
            self.count.fetch_add(1, SeqCst);
        }
    }

    /// How many sleep, as they count themselves, to be raised while one does.
    pub(crate) fn waiter_count(&self) -> &AtomicU32 {
        &self.sleepers
    }

    /// The word that its sleepers watch, and what it is now.
    pub(crate) fn watched(&self) -> (*const AtomicU32, u32) {
        (&raw const self.count, self.count.load(SeqCst))
    }

    /// Tells one sleeper that something has changed; true when one was woken.
    pub fn wake_one(&self) -> bool {
        self.signal(1) > 0
    }

    /// Tells every sleeper that something has changed; how many were woken.
    pub fn wake_all(&self) -> u32 {
        self.signal(i32::MAX)
    }

    fn signal(&self, count: i32) -> u32 {
        self.cpu.store(sys::cpu().wrapping_add(1), Relaxed);
        // ORDER: SeqCst pairs with `wait_until`.
        self.count.fetch_add(1, SeqCst);
        // CRASH: changed, nobody woken: sleepers look again within a second.
        if self.sleepers.load(SeqCst) == 0 { 0 } else { sys::futex_wake(&raw const self.count, count) }
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
            .field("sleepers", &self.sleepers.load(Relaxed))
            .finish()
    }
}
