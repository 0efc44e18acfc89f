//! [`Lock`]: one at a time, across processes.
#![allow(unsafe_code, reason = "the robust lock's mapping must outlive the time it is held; a raw pair for bindings")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use multiproc_robust::{AcquireError, Acquired, Deadline, Death, LockError, Owner, RobustLock};
use multiproc_shm::{Guarded, Object, Shared};
use serde::{Deserialize, Serialize};

use crate::verbs::verbs;

/// A lock that processes share (Python's `Lock`), by name or as a handle in an argument or message.
///
/// It guards what its users say it guards; a [`Value`](multiproc_shm::Value) carries its own. It belongs to the *thread* that took it. Taking it twice is an error, not a hang.
/// There is no order among those who wait; whoever comes when it is free takes it.
///
/// # When it seems to hang
///
/// Ask [`owner`](Self::owner), by process and thread, and [`waiters`](Self::waiters); `{:?}` shows both, of this lock and of every other object here, from any process that opens it by its name. Two
/// threads that wait for each other show as two locks, each owned by one that waits for the other: `/proc/PID/task/TID/syscall` (or `gdb -p PID`) says what an owner is doing. A lock whose owner has died never
/// waits for it; one whose owner is stopped (`State: T` in `/proc/PID/status`) does. Take several locks in one order everywhere, or with [`lock_timeout`](Self::lock_timeout), giving back what one has when the
/// time is over.
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
/// The next one gets the lock at once, and may ask [`previous_owner_died`](LockGuard::previous_owner_died). So it does when a holder's thread ends, or calls `exec`, without
/// unlocking. A killed waiter leaves no trace. A stopped holder keeps its lock.
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
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lock {
    shared: Shared<LockBlock>,
}

/// The shared part of a [`Lock`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct LockBlock {
    lock: RobustLock,
}

// SAFETY: `repr(C)`, atomics only, always the same size, one lock.
unsafe impl Object for LockBlock {
    const KIND: &'static str = "lock";
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
        [Some(&self.lock), None]
    }
}

verbs!(Lock, LockBlock, "lock");

impl Lock {
    /// Takes the lock, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread holds it already, or too many locks.
    #[inline(always)]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError> {
        self.lock_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<Option<LockGuard<'_>>, LockError> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Takes the lock, waiting at most this long; `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<LockGuard<'_>>, LockError> {
        match self.lock_until(Deadline::after(timeout)) {
            Ok(guard) => Ok(Some(guard)),
            Err(AcquireError::TimedOut) => Ok(None),
            Err(cause) => Err(self.error(cause)),
        }
    }

    /// Whether anybody holds it now.
    pub fn is_locked(&self) -> bool {
        self.shared.lock.is_held()
    }

    /// Who holds it now.
    pub fn owner(&self) -> Option<Owner> {
        self.shared.lock.owner()
    }

    /// How many threads sleep for it now, in all processes, as the kernel counts them: a moment's view. One that has been killed is not counted, nor is one that has just come and still spins.
    pub fn waiters(&self) -> usize {
        self.shared.lock.waiters()
    }

    /// Takes the lock without a guard, for language bindings; true when the previous owner died.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`lock`](Self::lock).
    ///
    /// # Safety
    ///
    /// - The same thread calls [`raw_unlock`](Self::raw_unlock), and this handle (or a clone) lives until then.
    pub unsafe fn raw_lock(&self) -> Result<bool, LockError> {
        // SAFETY: the caller's promise.
        let how = unsafe { self.shared.lock.acquire(Deadline::NEVER) };
        how.map(|how| how != Acquired::Clean).map_err(|cause| self.error(cause))
    }

    /// Gives back what [`raw_lock`](Self::raw_lock) took; false, and nothing done, when this thread does not hold it.
    ///
    /// # Safety
    ///
    /// - No [`LockGuard`] of this thread is alive for it.
    pub unsafe fn raw_unlock(&self) -> bool {
        self.shared.lock.release()
    }

    #[inline(always)]
    fn lock_until(&self, deadline: Deadline) -> Result<LockGuard<'_>, AcquireError> {
        // SAFETY: the guard borrows this handle, so the mapping outlives it; a leaked guard keeps the mapping.
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
        shown.field("object", &self.shared).field("owner", &self.owner()).field("waiters", &self.waiters()).finish()
    }
}

/// The lock, held by this thread until dropped.
///
/// A copy that a `fork` made owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct LockGuard<'a> {
    lock: &'a Lock,
    /// What `lock` leads to: to ask again after the locked instruction would be a load more in front of the next one.
    held: &'a RobustLock,
    died: Option<Death>,
    /// Not `Send`: the kernel gives the lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl LockGuard<'_> {
    /// Who held the lock before and died; what it guards may be half changed.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

impl<'a> Guarded for LockGuard<'a> {
    type Held = &'a Lock;
    type Error = LockError;

    fn suspend(self) -> Result<&'a Lock, LockError> {
        let lock = self.lock;
        if lock.shared.lock.is_held_by_this_thread() { Ok(lock) } else { Err(lock.error(AcquireError::NotHeld)) }
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
        f.debug_struct("LockGuard").field("lock", &self.lock.shared).field("previous_owner_died", &self.died).finish()
    }
}
