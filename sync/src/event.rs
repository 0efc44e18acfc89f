//! [`Event`]: something has happened, and everybody who waits for it goes on.
//!
//! The protocol, and why no wake is lost, is in `multiproc_shm`'s `flag.rs`; this is its handle.
#![allow(unsafe_code, reason = "its block: `unsafe impl Object`")]

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use multiproc_robust::{Deadline, RawEvent, RobustLock};
use multiproc_shm::{Object, Shared};
use serde::{Deserialize, Serialize};

/// A flag that processes wait for (Python's `Event`), by name or as a handle in an argument or message. At first it is not set.
///
/// [`set`](Self::set) reaches everybody who waits at that moment, even if a [`clear`](Self::clear) follows at once.
///
/// # When a process dies
///
/// Killed in `set`, it has set it or it has not; if it has, everybody goes on at once, whoever else dies. A killed waiter leaves no trace and takes no wake-up with it.
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

/// The shared part of an [`Event`].
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

    fn extents((): &()) -> Result<[u64; 2], String> {
        Ok([0, 0])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        (extents == [0, 0]).then_some(size_of::<Self>())
    }

    unsafe fn init(&self, _: *const AtomicU64, (): ()) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }
}

multiproc_shm::verbs! { impl[] Event { shared: EventBlock }; "event"; new() => (); }

impl Event {
    /// Sets it: everybody who waits goes on, and nobody waits until it is cleared. Setting it again does nothing.
    pub fn set(&self) {
        self.shared.flag.set();
    }

    /// Clears it: whoever comes from now on waits. Those whom a `set` has reached go on all the same.
    pub fn clear(&self) {
        self.shared.flag.clear();
    }

    /// Whether it is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.shared.flag.is_set()
    }

    /// Waits until it is set, as long as it takes.
    #[inline]
    pub fn wait(&self) {
        self.shared.flag.wait(Deadline::NEVER);
    }

    /// Waits at most this long; whether it was set when this was called, or has been since.
    #[inline]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.shared.flag.wait(Deadline::after(timeout))
    }

    /// How many threads sleep for it now, in all processes, as the kernel counts them: a moment's view. One that has been killed is not counted, nor is one that has just come and still spins.
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
