//! [`Lock`]: mutual exclusion across processes.
#![allow(unsafe_code, reason = "the lock stays mapped while it is held; a raw pair for bindings")]

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use multiproc_robust::{AcquireError, Acquired, Deadline, Death, LockError, Owner, RobustLock};
use multiproc_shm::{Object, Shared, Suspend};
use serde::{Deserialize, Serialize};

use crate::timeout::unless_timed_out;

/// A mutual exclusion lock between processes (Python's `Lock`), found by name or sent as a handle in an
/// argument or message.
///
/// It guards what its users say it guards; a [`Value`](multiproc_shm::Value) carries a lock of its own. A
/// lock belongs to the *thread* that took it. To take it twice is an error, not a hang. Waiting threads have
/// no order: a thread that comes while the lock is free takes it.
///
/// # When it seems to hang
///
/// Ask [`owner`](Self::owner), which names process and thread, and [`waiters`](Self::waiters). `{:?}` shows
/// both, of this lock and of every other object of this crate, from any process that opens it by name.
///
/// Two threads that wait for each other show as two locks, each owned by a thread that waits for the other
/// lock. `/proc/PID/task/TID/syscall` (or `gdb -p PID`) says what an owner is doing. A dead owner holds up
/// nothing; a stopped owner (`State: T` in `/proc/PID/status`) does. Take several locks in the same order
/// everywhere. Or take them with [`lock_timeout`](Self::lock_timeout), and give back those already held when
/// the time is over.
///
/// ```
/// # use multiproc_sync::Lock;
/// let lock = Lock::new()?;
/// let guard = lock.lock()?;
/// std::thread::scope(|s| {
///     s.spawn(|| drop(lock.lock()));
///     while lock.waiters() == 0 {
///         std::thread::yield_now();
///     }
///     let owner = lock.owner().expect("it is held");
///     assert_eq!((owner.pid, lock.waiters()), (Some(std::process::id()), 1));
///     drop(guard);
/// });
/// assert_eq!(lock.waiters(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When a process dies
///
/// If the owner is killed, the next thread gets the lock at once, and may ask
/// [`previous_owner_died`](LockGuard::previous_owner_died). The same holds if the owner's thread ends, or
/// calls `exec`, without unlocking. A killed waiter leaves no trace. A stopped owner keeps its lock.
///
/// ```
/// use multiproc_sync::Lock;
/// use std::time::Duration;
///
/// let lock = Lock::new()?;
/// let guard = lock.lock()?;
/// assert!(lock.lock().is_err(), "this thread has it already");
/// std::thread::scope(|s| {
///     s.spawn(|| assert!(lock.lock_timeout(Duration::from_millis(10)).unwrap().is_none()));
/// });
/// drop(guard);
/// assert!(lock.try_lock()?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lock {
    shared: Shared<LockBlock>,
}

/// The shared bytes of a [`Lock`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct LockBlock {
    lock: RobustLock,
}

// SAFETY: `repr(C)`, atomics only, always the same size; `locks` names its one lock.
unsafe impl Object for LockBlock {
    const KIND: &'static str = "lock";
    const LAYOUT: u32 = 1;
    type Params = ();

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.lock), None]
    }
}

multiproc_shm::verbs! { impl[] Lock { shared: LockBlock }; "lock"; new() => (); }

impl Lock {
    /// Takes the lock, waiting as long as necessary.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds the lock already, or holds too many locks.
    #[inline(always)]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError> {
        self.lock_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`lock`](Self::lock) does.
    pub fn try_lock(&self) -> Result<Option<LockGuard<'_>>, LockError> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Takes the lock, waiting at most `timeout`; returns `None` if the lock was not free by then.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`lock`](Self::lock) does.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<LockGuard<'_>>, LockError> {
        unless_timed_out(self.lock_until(Deadline::after(timeout)), |cause| self.error(cause))
    }

    /// Returns whether a thread holds the lock now.
    pub fn is_locked(&self) -> bool {
        self.shared.lock.is_held()
    }

    /// Returns the thread that holds the lock now, and its process.
    pub fn owner(&self) -> Option<Owner> {
        self.shared.lock.owner()
    }

    /// Returns how many threads sleep for the lock now, in all processes, as the kernel counts them.
    ///
    /// The number may change at once. Neither a killed thread nor a waiter that still spins is counted.
    pub fn waiters(&self) -> usize {
        self.shared.lock.waiters()
    }

    /// Takes the lock without a guard, for language bindings; returns true if the previous owner died.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`lock`](Self::lock) does.
    ///
    /// # Safety
    ///
    /// - The same thread calls [`raw_unlock`](Self::raw_unlock).
    /// - This handle, or a clone of it, lives until then.
    pub unsafe fn raw_lock(&self) -> Result<bool, LockError> {
        // SAFETY: the caller's promise.
        let how = unsafe { self.shared.lock.acquire(Deadline::NEVER) };
        how.map(|how| how != Acquired::Clean).map_err(|cause| self.error(cause))
    }

    /// Gives back the lock that [`raw_lock`](Self::raw_lock) took.
    ///
    /// Does nothing and returns false if this thread does not hold the lock.
    ///
    /// # Safety
    ///
    /// - No [`LockGuard`] of this lock is alive in this thread.
    pub unsafe fn raw_unlock(&self) -> bool {
        self.shared.lock.release()
    }

    #[inline(always)]
    fn lock_until(&self, deadline: Deadline) -> Result<LockGuard<'_>, AcquireError> {
        // SAFETY: the guard borrows this handle, so the mapping outlives the guard; a leaked guard keeps the
        // mapping.
        let died = match unsafe { self.shared.lock.acquire(deadline) }? {
            Acquired::Clean => None,
            Acquired::OwnerDied(death) => Some(death),
        };
        Ok(LockGuard { lock: self, held: &self.shared.lock, died, here: PhantomData })
    }

    #[cold]
    fn error(&self, cause: AcquireError) -> LockError {
        LockError::new(self.shared.describe(), cause)
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Lock");
        shown
            .field("object", &self.shared)
            .field("owner", &self.owner())
            .field("waiters", &self.waiters())
            .finish()
    }
}

/// A [`Lock`], held by this thread until the guard is dropped.
///
/// A guard that `fork` has copied owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct LockGuard<'a> {
    lock: &'a Lock,
    /// The robust lock inside `lock`. To look it up again at the release would cost one more load, between
    /// the locked instruction of the acquire and that of the release.
    held: &'a RobustLock,
    died: Option<Death>,
    /// Makes the guard not `Send`: the kernel gives the lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl LockGuard<'_> {
    /// Returns the death of the previous owner, if it died while it held the lock.
    ///
    /// What the lock guards may then be half changed.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

impl<'a> Suspend for LockGuard<'a> {
    type Held = &'a Lock;
    type Error = LockError;

    fn suspend(self) -> Result<&'a Lock, LockError> {
        let lock = self.lock;
        if lock.shared.lock.is_held_by_this_thread() {
            Ok(lock)
        } else {
            Err(lock.error(AcquireError::NotHeld))
        }
    }

    fn resume(lock: &'a Lock) -> Result<Self, LockError> {
        lock.lock()
    }
}

impl Drop for LockGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.held.release();
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("lock", &self.lock.shared)
            .field("previous_owner_died", &self.died)
            .finish()
    }
}
