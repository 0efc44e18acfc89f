//! [`RawRobustMutex`]: the robust lock under `lock_api`'s mutex, inside one process (feature `lock_api`).
//!
//! # Why not for named locks
//!
//! `lock_api::RawMutex` has one way to say something, which is that the lock was taken. A lock that processes share has three things to say: it was taken, its last owner was killed and what it guards may be half changed, or it
//! could not be taken at all. And a `Mutex<R, T>` is `T` beside a lock that is made by a constant, with references into it: another process can break what a reference promises, and a
//! named lock is a file. So `Lock`, `Value` and `Array` have guards of their own.
//!
//! # Why a box, and why a leaked guard is for ever
//!
//! The kernel knows a held lock by its address, so it must neither move nor go while it is held, which a leaked guard would permit to a mutex: therefore a box, which stays if somebody holds it. And
//! `MutexGuard::leak` lends what is guarded for longer than a thread lives; so what the kernel gives back at a thread's end nobody may have again. Whoever waits for it is told, by a panic, instead of waiting for ever.
#![allow(unsafe_code, reason = "a lock in a box of its own; what `lock_api` asks for")]

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lock_api::{GuardNoSend, RawMutex, RawMutexTimed};

use crate::deadline::Deadline;
use crate::lock::RobustLock;
use crate::outcome::{AcquireError, Acquired};

/// A mutex of `lock_api`'s over the robust lock: within one process, and where another mutex would hang silently it panics.
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

/// The robust lock as a `lock_api::RawMutex`, for a mutex inside one process; [`RobustMutex`] is that mutex.
///
/// # Panics
///
/// `lock` panics when this thread holds the mutex already, when it holds 1,000 locks, when the system has no robust lists, and when a thread has ended that had leaked its guard. `try_lock` and its like say
/// no then.
pub struct RawRobustMutex {
    /// Null until it is first locked.
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
        // ORDER: AcqRel pairs with the Acquire of the load above: who finds it finds it made.
        let lock = match self.lock.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire) {
            Ok(_) => fresh,
            Err(faster) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                faster
            }
        };
        // SAFETY: as above.
        unsafe { &*lock }
    }

    fn take(&self, deadline: Deadline) -> Result<(), Refused> {
        let lock = self.robust();
        // SAFETY: the box stays as long as the lock is held.
        let how = unsafe { lock.acquire(deadline) }.map_err(Refused::Lock)?;
        let abandoned = &lock.guarded[0];
        if how != Acquired::Clean {
            abandoned.store(1, Relaxed);
        }
        // ORDER: written with the lock held, read with the lock held.
        if abandoned.load(Relaxed) != 0 {
            lock.release();
            return Err(Refused::Abandoned);
        }
        Ok(())
    }
}

/// Why it was not taken.
enum Refused {
    Lock(AcquireError),
    Abandoned,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(cause) => cause.fmt(f),
            Self::Abandoned => f.write_str("a thread has ended that had leaked its guard"),
        }
    }
}

// SAFETY: `RobustLock` excludes; what the kernel gives back when a thread ends, whose leaked guard may live on as a reference, is given to nobody.
unsafe impl RawMutex for RawRobustMutex {
    #[allow(clippy::declare_interior_mutable_const, reason = "how `lock_api` makes a mutex")]
    const INIT: Self = Self { lock: AtomicPtr::new(ptr::null_mut()) };

    /// The kernel knows locks by threads.
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        if let Err(refused) = self.take(Deadline::NEVER) {
            panic!("robust mutex: {refused}");
        }
    }

    fn try_lock(&self) -> bool {
        self.take(Deadline::NOW).is_ok()
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
        self.take(Deadline::after(timeout)).is_ok()
    }

    fn try_lock_until(&self, timeout: Instant) -> bool {
        self.try_lock_for(timeout.saturating_duration_since(Instant::now()))
    }
}

impl Drop for RawRobustMutex {
    fn drop(&mut self) {
        let lock = *self.lock.get_mut();
        // SAFETY: null, or a box that nobody else can reach any more but the kernel, if it is held.
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
