//! [`RawRobustMutex`]: the robust lock under `lock_api`'s mutex, inside one process (feature `lock_api`).
//!
//! # Why not for named locks
//!
//! `lock_api::RawMutex` has one outcome: the lock was taken. A lock that processes share has three: it was
//! taken; it was taken from a dead owner, and what it guards may be half changed; it could not be taken.
//! Besides, a `Mutex<R, T>` is `T` next to a lock that a constant makes, with references into it. Another
//! process can break what a reference promises, and a named lock is a file. So `Lock`, `Value` and `Array`
//! have guards of their own.
//!
//! # Why the lock is in a box, and why a leaked guard locks the mutex forever
//!
//! The kernel knows a held lock by its address. So the lock must neither move nor be freed while it is held,
//! and a leaked guard would allow a mutex both. Hence the box, which is not freed if a thread holds the lock.
//!
//! `MutexGuard::leak` lends what is guarded for longer than a thread lives. So no thread may take the lock
//! that the kernel released at that thread's end. A thread that tries panics instead of waiting forever.
#![allow(unsafe_code, reason = "a lock in a box of its own; `lock_api`'s unsafe traits")]

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lock_api::{GuardNoSend, RawMutex, RawMutexTimed};

use crate::deadline::Deadline;
use crate::lock::RobustLock;
use crate::outcome::{AcquireError, Acquired};

/// `lock_api`'s mutex over the robust lock, for use within one process. It panics where another mutex would
/// hang silently.
///
/// ```
/// use multiproc_robust::RobustMutex;
///
/// static TOTAL: RobustMutex<u32> = RobustMutex::new(0);
/// std::thread::scope(|s| {
///     for _ in 0..4 {
///         s.spawn(|| *TOTAL.lock() += 1);
///     }
/// });
/// assert_eq!(*TOTAL.lock(), 4);
/// let guard = TOTAL.lock();
/// assert!(TOTAL.try_lock().is_none() && TOTAL.is_locked());
/// # drop(guard);
/// ```
pub type RobustMutex<T> = lock_api::Mutex<RawRobustMutex, T>;

/// The robust lock as a `lock_api::RawMutex`, for a mutex inside one process. [`RobustMutex`] is that mutex.
///
/// # Panics
///
/// `lock` panics if this thread holds the mutex already, if it holds 1,000 locks, if the system has no robust
/// lists, or if a thread that leaked its guard has ended. `try_lock` and its variants return false in these
/// cases.
pub struct RawRobustMutex {
    /// Null until the mutex is first locked.
    lock: AtomicPtr<RobustLock>,
}

impl RawRobustMutex {
    fn robust(&self) -> &RobustLock {
        let known = self.lock.load(Acquire);
        // SAFETY: null, or a box that lives as long as this.
        if let Some(lock) = unsafe { known.as_ref() } {
            return lock;
        }
        let fresh = Box::into_raw(Box::new(RobustLock::new()));
        // ORDER: AcqRel pairs with the Acquire of the load above: a thread that sees the pointer sees the
        // lock.
        let lock = match self.lock.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire) {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: no other thread has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                other
            }
        };
        // SAFETY: as above.
        unsafe { &*lock }
    }

    fn acquire(&self, deadline: Deadline) -> Result<(), Refused> {
        let lock = self.robust();
        // SAFETY: the box stays as long as the lock is held.
        let how = unsafe { lock.acquire(deadline) }.map_err(Refused::Lock)?;
        let abandoned = &lock.guarded[0];
        if how != Acquired::Clean {
            abandoned.store(1, Relaxed);
        }
        // ORDER: Relaxed: both accesses are made with the lock held.
        if abandoned.load(Relaxed) != 0 {
            lock.release();
            return Err(Refused::Abandoned);
        }
        Ok(())
    }
}

/// Why the mutex was not taken.
enum Refused {
    Lock(AcquireError),
    Abandoned,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(cause) => cause.fmt(f),
            Self::Abandoned => f.write_str("a thread that leaked its guard has ended"),
        }
    }
}

// SAFETY: `RobustLock` excludes. If a thread ends, its leaked guard may live on as a reference; no thread is
// given the lock that the kernel then released.
unsafe impl RawMutex for RawRobustMutex {
    #[allow(clippy::declare_interior_mutable_const, reason = "`lock_api` makes a mutex from this constant")]
    const INIT: Self = Self { lock: AtomicPtr::new(ptr::null_mut()) };

    /// A thread owns the lock, and the kernel knows it by that thread.
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        if let Err(refused) = self.acquire(Deadline::NEVER) {
            panic!("robust mutex: {refused}");
        }
    }

    fn try_lock(&self) -> bool {
        self.acquire(Deadline::NOW).is_ok()
    }

    unsafe fn unlock(&self) {
        self.robust().release();
    }

    fn is_locked(&self) -> bool {
        self.robust().is_held()
    }
}

// SAFETY: as above.
unsafe impl RawMutexTimed for RawRobustMutex {
    type Duration = Duration;
    type Instant = Instant;

    fn try_lock_for(&self, timeout: Duration) -> bool {
        self.acquire(Deadline::after(timeout)).is_ok()
    }

    fn try_lock_until(&self, timeout: Instant) -> bool {
        self.try_lock_for(timeout.saturating_duration_since(Instant::now()))
    }
}

impl Drop for RawRobustMutex {
    fn drop(&mut self) {
        let lock = *self.lock.get_mut();
        // SAFETY: null, or a box that no other thread can reach; only the kernel can, if the lock is held.
        if unsafe { lock.as_ref() }.is_some_and(|lock| !lock.is_held()) {
            // SAFETY: made by `Box::into_raw`, and neither held nor shared.
            drop(unsafe { Box::from_raw(lock) });
        }
    }
}

impl fmt::Debug for RawRobustMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.robust().fmt(f)
    }
}
