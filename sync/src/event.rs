//! [`Event`]: a manual-reset event between processes.
//!
//! This is the handle. The protocol, and why no wake-up is lost, is described in `multiproc_robust`'s
//! `raw_event.rs`.
#![allow(unsafe_code, reason = "its block: `unsafe impl Object`")]

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use multiproc_robust::{Deadline, RawEvent, RobustLock};
use multiproc_shm::{Object, Shared};
use serde::{Deserialize, Serialize};

/// A manual-reset event between processes (Python's `Event`), found by name or sent as a handle in an
/// argument or message. A new event is not set.
///
/// [`set`](Self::set) reaches every thread that waits at that moment, even if a [`clear`](Self::clear)
/// follows at once.
///
/// # When a process dies
///
/// A process that is killed in `set` has set the event or has not. If it has, every waiting thread goes on at
/// once, whichever other process dies. A killed waiter leaves no trace and takes no wake-up with it.
///
/// ```
/// use multiproc_sync::Event;
/// use std::time::Duration;
///
/// let ready = Event::new()?;
/// assert!(!ready.wait_timeout(Duration::from_millis(1)));
/// std::thread::scope(|s| {
///     s.spawn(|| ready.wait());
///     ready.set();
/// });
/// assert!(ready.is_set());
/// ready.clear();
/// assert!(!ready.is_set());
/// # Ok::<(), multiproc_sync::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Event {
    shared: Shared<EventBlock>,
}

/// The shared bytes of an [`Event`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct EventBlock {
    flag: RawEvent,
    reserved: [AtomicU64; 6],
}

const _: () = assert!(size_of::<EventBlock>() == 64);

// SAFETY: `repr(C)`, atomics only, always the same size, no locks.
unsafe impl Object for EventBlock {
    const KIND: &'static str = "event";
    const LAYOUT: u32 = 1;
    type Params = ();

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }
}

multiproc_shm::verbs! { impl[] Event { shared: EventBlock }; "event"; new() => (); }

impl Event {
    /// Sets the event: every waiting thread goes on, and no thread waits until the event is cleared.
    ///
    /// To set it again does nothing.
    pub fn set(&self) {
        self.shared.flag.set();
    }

    /// Clears the event: a thread that comes from now on waits.
    ///
    /// Threads that a `set` has reached go on all the same.
    pub fn clear(&self) {
        self.shared.flag.clear();
    }

    /// Returns whether the event is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.shared.flag.is_set()
    }

    /// Waits until the event is set, as long as necessary.
    #[inline]
    pub fn wait(&self) {
        self.shared.flag.wait(Deadline::NEVER);
    }

    /// Waits until the event is set, at most `timeout`.
    ///
    /// Returns whether the event was set at the call, or has been set since.
    #[inline]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.shared.flag.wait(Deadline::after(timeout))
    }

    /// Returns how many threads sleep for the event now, in all processes, as the kernel counts them.
    ///
    /// The number may change at once. Neither a killed thread nor a waiter that still spins is counted.
    pub fn waiters(&self) -> usize {
        self.shared.flag.waiters()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("object", &self.shared)
            .field("set", &self.is_set())
            .field("waiters", &self.waiters())
            .finish()
    }
}
