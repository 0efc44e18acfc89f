//! [`BoundedSemaphore`]: a count that any process may raise, up to a limit.
#![allow(unsafe_code, reason = "its block")]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline, EventCount, LockError, RobustLock};
use multiproc_shm::{Object, Shared};
use serde::{Deserialize, Serialize};

/// A counting semaphore between processes with an upper limit (Python's `BoundedSemaphore`).
///
/// To acquire takes one from the count, and waits while the count is zero. To release adds to the count, up
/// to the limit. The semaphore is made with `initial`, its count at first, and `limit`.
///
/// No thread or process holds anything: a process may release what another one has acquired, and the count
/// may begin at 0. So this type suits hand-over: a job server's tokens, or a signal that something was made.
/// [`Semaphore`](crate::Semaphore) suits what is used and given back. Python's `Semaphore`, whose count every
/// process may raise without limit, is this type with [`NO_LIMIT`](Self::NO_LIMIT).
///
/// # When a process dies
///
/// What it had acquired stays acquired, since the count does not say which process would have released it:
/// that is what [`Semaphore`](crate::Semaphore) is for. A process that is killed while it waits, or in
/// `release` before it has woken a waiter, costs the waiting threads at most 1 s.
///
/// ```
/// use multiproc_sync::BoundedSemaphore;
///
/// let tokens = BoundedSemaphore::new(0, 2)?;
/// assert!(!tokens.try_acquire());
/// std::thread::scope(|s| {
///     s.spawn(|| tokens.acquire());
///     tokens.release(1).unwrap();
/// });
/// tokens.release(2)?;
/// assert!(tokens.release(1).is_err(), "one too many");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct BoundedSemaphore {
    shared: Shared<BoundedBlock>,
}

/// The shared bytes of a [`BoundedSemaphore`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct BoundedBlock {
    count: AtomicU64,
    released: EventCount,
}

// SAFETY: `repr(C)`, atomics only, always the same size; there are no locks.
unsafe impl Object for BoundedBlock {
    const KIND: &'static str = "bounded";
    const LAYOUT: u32 = 1;
    /// Count at first, limit.
    type Params = (u32, u32);

    fn extents(&(initial, limit): &(u32, u32)) -> Result<[u64; 2], String> {
        if initial > limit {
            return Err(format!("{initial} is more than the limit, {limit}"));
        }
        Ok([u64::from(initial), u64::from(limit)])
    }

    fn size([initial, limit]: [u64; 2]) -> Option<usize> {
        (initial <= limit && limit <= u64::from(u32::MAX)).then_some(size_of::<Self>())
    }

    unsafe fn init(&self, _: *const AtomicU64, (initial, _): (u32, u32)) {
        self.count.store(initial.into(), Relaxed);
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }
}

multiproc_shm::verbs! {
    impl[] BoundedSemaphore { shared: BoundedBlock };
    "bounded semaphore" "with the count `initial`"; new(initial: u32, limit: u32) => (initial, limit);
    invalid "`initial` is above `limit`"; differs "it was made with another `initial` or `limit`";
}

impl BoundedSemaphore {
    /// A limit that no program reaches: 2^32 - 1 (Python's own is 2^31 - 1).
    ///
    /// A semaphore with this limit is Python's `Semaphore`, untracked and unbounded.
    ///
    /// ```
    /// # use multiproc_sync::BoundedSemaphore;
    /// let count = BoundedSemaphore::new(1, BoundedSemaphore::NO_LIMIT)?;
    /// count.release(1)?; // without an `acquire` before
    /// assert_eq!(count.available(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "untracked")]
    #[doc(alias = "Semaphore")]
    pub const NO_LIMIT: u32 = u32::MAX;

    /// Takes one from the count, waiting as long as necessary.
    pub fn acquire(&self) {
        while !self.acquire_until(Deadline::NEVER) {}
    }

    /// Takes one from the count if that is not zero; returns whether it did.
    pub fn try_acquire(&self) -> bool {
        self.acquire_until(Deadline::NOW)
    }

    /// Takes one from the count, waiting at most `timeout`; returns whether it did.
    pub fn acquire_timeout(&self, timeout: Duration) -> bool {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Adds `count` to the semaphore's count, and wakes threads that wait for it.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] with [`TooMany`](AcquireError::TooMany) if the sum would be above the limit.
    /// Nothing is added then.
    pub fn release(&self, count: u32) -> Result<(), LockError> {
        let [_, limit] = self.shared.extents();
        let more = |now: u64| now.checked_add(count.into()).filter(|sum| *sum <= limit);
        // ORDER: Release pairs with the Acquire in `take`: the thread that takes one sees what this thread
        // did before.
        let added = self.shared.count.fetch_update(Release, Relaxed, more);
        added.map_err(|_| LockError::new(self.shared.describe(), AcquireError::TooMany))?;
        // CRASH: added, but no thread woken: waiting threads look again within 1 s.
        match count {
            0 => {}
            1 => drop(self.shared.released.wake_one()),
            _ => drop(self.shared.released.wake_all()),
        }
        Ok(())
    }

    /// Returns the count now.
    pub fn available(&self) -> u32 {
        u32::try_from(self.shared.count.load(Relaxed)).unwrap_or(u32::MAX)
    }

    /// Returns how many threads sleep for the semaphore now, in all processes, as the kernel counts them.
    ///
    /// The number may change at once. Neither a killed thread nor a waiter that still spins is counted.
    pub fn waiters(&self) -> usize {
        self.shared.released.waiters()
    }

    fn acquire_until(&self, deadline: Deadline) -> bool {
        self.shared.released.wait_until(deadline, || self.take())
    }

    fn take(&self) -> bool {
        // ORDER: Acquire pairs with the Release in `release`.
        // CRASH: the dead process has taken one, and it stays taken.
        self.shared.count.fetch_update(Acquire, Relaxed, |now| now.checked_sub(1)).is_ok()
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore")
            .field("object", &self.shared)
            .field("available", &self.available())
            .field("waiters", &self.waiters())
            .finish()
    }
}
