//! [`BoundedSemaphore`]: a count that anybody may raise, up to a limit.
#![allow(unsafe_code, reason = "its block")]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline, EventCount, LockError, RobustLock};
use multiproc_shm::{Object, Shared};
use serde::{Deserialize, Serialize};

/// A count that processes share: to acquire takes one from it, and waits while it is zero; to release adds to it, up to a limit (Python's `BoundedSemaphore`). It is made with its count, `initial`, and that `limit`.
///
/// Nothing is held: whoever acquires need not be the one who releases, be it another thread or another process, and the count may begin at 0. So it suits hand-over (a job server's tokens,
/// a signal that something was made), where [`Semaphore`](crate::Semaphore) suits what is used and given back. Python's `Semaphore`, whose count anybody may
/// raise as far as they like, is this one with [`NO_LIMIT`](Self::NO_LIMIT).
///
/// # When a process dies
///
/// What it had taken stays taken, since nobody knows who would have given it back: that is what [`Semaphore`](crate::Semaphore) is for. A killed waiter, or one who releases and is killed before it has woken
/// anybody, costs those who wait a second at most.
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

/// The shared part of a [`BoundedSemaphore`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct BoundedBlock {
    count: AtomicU64,
    released: EventCount,
}

// SAFETY: `repr(C)`, atomics only, always the same size, no locks.
unsafe impl Object for BoundedBlock {
    const KIND: &'static str = "bounded";
    const LAYOUT: u32 = 1;
    /// Initial count, limit.
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
    /// As a limit: one that no program meets (2^32 - 1; Python's own is 2^31 - 1). So this is Python's `Semaphore`: untracked, unbounded, and the same four verbs make it.
    ///
    /// ```
    /// # use multiproc_sync::BoundedSemaphore;
    /// let count = BoundedSemaphore::new(1, BoundedSemaphore::NO_LIMIT)?;
    /// count.release(1)?; // nobody had taken one
    /// assert_eq!(count.available(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "untracked")]
    #[doc(alias = "Semaphore")]
    pub const NO_LIMIT: u32 = u32::MAX;

    /// Takes one, waiting as long as it takes.
    pub fn acquire(&self) {
        while !self.acquire_until(Deadline::NEVER) {}
    }

    /// Takes one if the count is not zero; whether it did.
    pub fn try_acquire(&self) -> bool {
        self.acquire_until(Deadline::NOW)
    }

    /// Takes one, waiting at most this long; whether it did.
    pub fn acquire_timeout(&self, timeout: Duration) -> bool {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Adds so many, and wakes those who wait for them.
    ///
    /// # Errors
    ///
    /// [`LockError`] with [`TooMany`](AcquireError::TooMany): that would be more than the limit; nothing is added.
    pub fn release(&self, count: u32) -> Result<(), LockError> {
        let [_, limit] = self.shared.extents();
        let more = |now: u64| now.checked_add(count.into()).filter(|sum| *sum <= limit);
        // ORDER: Release pairs with the Acquire in `take`: what was done before is seen by who goes on.
        let added = self.shared.count.fetch_update(Release, Relaxed, more);
        added.map_err(|_| LockError::new(self.shared.describe(), AcquireError::TooMany))?;
        // CRASH: added, nobody woken: those who wait look again within a second.
        match count {
            0 => {}
            1 => drop(self.shared.released.wake_one()),
            _ => drop(self.shared.released.wake_all()),
        }
        Ok(())
    }

    /// The count now.
    pub fn available(&self) -> u32 {
        u32::try_from(self.shared.count.load(Relaxed)).unwrap_or(u32::MAX)
    }

    /// How many threads sleep for it now, in all processes, as the kernel counts them: a moment's view. One that has been killed is not counted, nor is one that has just come and still spins.
    pub fn waiters(&self) -> usize {
        self.shared.released.waiters()
    }

    fn acquire_until(&self, deadline: Deadline) -> bool {
        self.shared.released.wait_until(deadline, || self.take())
    }

    fn take(&self) -> bool {
        // ORDER: Acquire pairs with the Release in `release`. CRASH: taken, by somebody dead: it stays taken.
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
