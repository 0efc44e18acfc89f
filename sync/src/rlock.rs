//! [`RLock`]: mutual exclusion across processes that its owner may take again.
#![allow(unsafe_code, reason = "the lock stays mapped while it is held; a raw pair for bindings")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use multiproc_robust::{AcquireError, Acquired, Deadline, Death, LockError, Owner, RobustLock, shared_words};
use multiproc_shm::{Object, Shared, Suspend};
use serde::{Deserialize, Serialize};

use crate::timeout::unless_timed_out;

/// A recursive lock between processes (Python's `RLock`): the thread that holds it may take it again.
///
/// It is free once each guard has been dropped, in whatever order. Everything else is as with
/// [`Lock`](crate::Lock), which is a little faster.
///
/// # When a process dies
///
/// The next thread gets the lock at once and holds it once, however often the dead owner had taken it. It may
/// ask [`previous_owner_died`](RLockGuard::previous_owner_died). The same holds if the owner's thread ends,
/// or calls `exec`. A killed waiter leaves no trace. A stopped owner keeps its lock.
///
/// ```
/// use multiproc_sync::RLock;
///
/// let lock = RLock::new()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?; // a Lock would be an error here
/// assert_eq!(lock.depth(), 2);
/// drop(outer);
/// std::thread::scope(|s| {
///     s.spawn(|| assert!(lock.try_lock().unwrap().is_none(), "held once, still"));
/// });
/// drop(inner);
/// assert_eq!(lock.depth(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct RLock {
    shared: Shared<RLockBlock>,
}

/// The shared bytes of an [`RLock`]: a lock, and in its guarded words how often the owner has taken it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RLockBlock {
    lock: RobustLock,
}

/// How often one thread may take the lock.
const DEEPEST: u64 = u32::MAX as u64;

shared_words! {
    /// The words that the lock guards.
    struct RLockWords {
        /// How often the owner has taken the lock. Only the owner writes it. A release leaves 1, so that the
        /// next owner need not write it. A death leaves any value.
        depth: AtomicU64,
        reserved: [AtomicU64; 2],
    }
}

impl RLockBlock {
    #[inline(always)]
    fn depth(&self) -> &AtomicU64 {
        &self.lock.guarded_as::<RLockWords>().depth
    }
}

// SAFETY: `repr(C)`, atomics only, always the same size; `locks` names its one lock.
unsafe impl Object for RLockBlock {
    const KIND: &'static str = "rlock";
    const LAYOUT: u32 = 1;
    type Params = ();

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.lock), None]
    }
}

multiproc_shm::verbs! { impl[] RLock { shared: RLockBlock }; "recursive lock"; new() => (); }

impl RLock {
    /// Takes the lock, waiting as long as necessary. Does not wait if this thread holds the lock already.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds too many locks, or has taken this one 2^32 - 1 times.
    #[inline(always)]
    pub fn lock(&self) -> Result<RLockGuard<'_>, LockError> {
        self.lock_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock unless another thread holds it.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`lock`](Self::lock) does.
    pub fn try_lock(&self) -> Result<Option<RLockGuard<'_>>, LockError> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Takes the lock, waiting at most `timeout`; returns `None` if another thread still held it then.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`lock`](Self::lock) does.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<RLockGuard<'_>>, LockError> {
        unless_timed_out(self.lock_until(Deadline::after(timeout)), |cause| self.error(cause))
    }

    /// Returns whether a thread holds the lock now.
    pub fn is_locked(&self) -> bool {
        self.shared.lock.is_held()
    }

    /// Returns how often the owner has taken the lock; 0 if the lock is free.
    ///
    /// The number is exact for the owner; for other threads it may change at once.
    pub fn depth(&self) -> u32 {
        let depth = u32::try_from(self.shared.depth().load(Relaxed)).unwrap_or(u32::MAX);
        if self.is_locked() { depth.max(1) } else { 0 }
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
    /// - The same thread calls [`raw_unlock`](Self::raw_unlock) as often as this function.
    /// - This handle, or a clone of it, lives until then.
    pub unsafe fn raw_lock(&self) -> Result<bool, LockError> {
        // SAFETY: the caller's promise.
        let died = unsafe { self.take(Deadline::NEVER) };
        died.map(|died| died.is_some()).map_err(|cause| self.error(cause))
    }

    /// Undoes one [`raw_lock`](Self::raw_lock).
    ///
    /// Does nothing and returns false if this thread does not hold the lock.
    ///
    /// # Safety
    ///
    /// - This thread has called [`raw_lock`](Self::raw_lock) more often than this function.
    pub unsafe fn raw_unlock(&self) -> bool {
        self.give()
    }

    #[inline(always)]
    fn lock_until(&self, deadline: Deadline) -> Result<RLockGuard<'_>, AcquireError> {
        // SAFETY: the guard borrows this handle, so the mapping outlives the guard; a leaked guard keeps the
        // mapping.
        let died = unsafe { self.take(deadline) }?;
        Ok(RLockGuard { lock: self, died, here: PhantomData })
    }

    /// Takes the lock for the first time or once more; returns the death of the previous owner.
    ///
    /// # Safety
    ///
    /// - The object stays mapped until this thread has called [`give`](Self::give) as often.
    #[inline(always)]
    unsafe fn take(&self, deadline: Deadline) -> Result<Option<Death>, AcquireError> {
        let depth = self.shared.depth();
        if self.shared.lock.is_held_by_this_thread() {
            return match depth.load(Relaxed) {
                DEEPEST.. => Err(AcquireError::TooDeep),
                // ORDER: Relaxed: only the owner writes the word; the release and acquire of the lock hand it
                // on.
                // CRASH: the next owner does not read it.
                times => {
                    depth.store(times.max(1) + 1, Relaxed);
                    Ok(None)
                }
            };
        }
        // SAFETY: the caller's promise.
        let how = unsafe { self.shared.lock.acquire(deadline) }?;
        // CRASH: the lock is held with the depth that a dead owner left: the next owner sets it as well.
        if depth.load(Relaxed) != 1 {
            depth.store(1, Relaxed);
        }
        Ok(match how {
            Acquired::Clean => None,
            Acquired::OwnerDied(death) => Some(death),
        })
    }

    /// Gives the lock back once.
    ///
    /// Does nothing and returns false if this thread does not hold the lock: a guard that `fork` has copied.
    #[inline(always)]
    fn give(&self) -> bool {
        let depth = self.shared.depth();
        let times = depth.load(Relaxed);
        if times <= 1 {
            // `release` itself checks whether this thread holds the lock.
            return self.shared.lock.release();
        }
        let held = self.shared.lock.is_held_by_this_thread();
        if held {
            depth.store(times - 1, Relaxed);
        }
        held
    }

    #[cold]
    fn error(&self, cause: AcquireError) -> LockError {
        LockError::new(self.shared.describe(), cause)
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RLock");
        shown.field("object", &self.shared).field("owner", &self.owner()).field("depth", &self.depth());
        shown.field("waiters", &self.waiters()).finish()
    }
}

/// An [`RLock`], held once by this thread until the guard is dropped.
///
/// A guard that `fork` has copied owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    died: Option<Death>,
    /// Makes the guard not `Send`: the kernel gives the lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl RLockGuard<'_> {
    /// Returns the death of the previous owner, if it died while it held the lock.
    ///
    /// What the lock guards may then be half changed. Of this thread's guards only the first reports the
    /// death, not those taken while it has one.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

/// Lets [`Condition::wait`](crate::Condition::wait) give the lock back however often this thread has taken
/// it, and take it again as often, as Python's `Condition` does.
///
/// The thread's other guards stay as they are; what they guard may have changed. If the lock cannot be taken
/// again, none of them holds anything.
impl<'a> Suspend for RLockGuard<'a> {
    type Held = (&'a RLock, u32);
    type Error = LockError;

    fn suspend(self) -> Result<(&'a RLock, u32), LockError> {
        let lock = self.lock;
        if !lock.shared.lock.is_held_by_this_thread() {
            return Err(lock.error(AcquireError::NotHeld));
        }
        let depth = lock.depth();
        // CRASH: the lock is held once, or free: the next owner sets the depth.
        lock.shared.depth().store(1, Relaxed);
        // The drop of this guard gives the lock back.
        Ok((lock, depth))
    }

    fn resume((lock, depth): (&'a RLock, u32)) -> Result<Self, LockError> {
        let guard = lock.lock()?;
        lock.shared.depth().store(depth.into(), Relaxed);
        Ok(guard)
    }
}

impl Drop for RLockGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.give();
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard")
            .field("lock", &self.lock.shared)
            .field("previous_owner_died", &self.died)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_at_its_greatest_depth_refuses_one_more() -> Result<(), Box<dyn std::error::Error>> {
        let lock = RLock::new()?;
        let _first = lock.lock()?;
        lock.shared.depth().store(DEEPEST - 1, Relaxed);
        drop(lock.lock()?);
        let _last = lock.lock()?;
        assert_eq!(lock.depth(), u32::MAX);
        let error = lock.lock().map(drop).expect_err("too deep");
        assert_eq!(error.cause(), AcquireError::TooDeep);
        assert!(lock.try_lock().is_err() && lock.lock_timeout(Duration::MAX).is_err());
        assert_eq!(lock.depth(), u32::MAX);
        lock.shared.depth().store(2, Relaxed);
        Ok(())
    }
}
