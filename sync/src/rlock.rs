//! [`RLock`]: one thread at a time, which may take it again.
#![allow(unsafe_code, reason = "the robust lock's mapping must outlive the time it is held; a raw pair for bindings")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use multiproc_robust::{AcquireError, Acquired, Deadline, Death, LockError, Owner, RobustLock};
use multiproc_shm::{Guarded, Object, Shared};
use serde::{Deserialize, Serialize};

use crate::verbs::verbs;

/// A lock that processes share, and that the thread which holds it may take again (Python's `RLock`).
///
/// It is free when each taking has been given back, in whatever order. Everything else is as with [`Lock`](crate::Lock), which is a little faster.
///
/// # When a process dies
///
/// However often it had taken the lock, the next one gets it at once, held once, and may ask [`previous_owner_died`](RLockGuard::previous_owner_died). So it does when a holder's
/// thread ends, or calls `exec`. A killed waiter leaves no trace. A stopped holder keeps its lock.
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
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RLock {
    shared: Shared<RLockBlock>,
}

/// The shared part of an [`RLock`]: a lock, and beside it how often its owner has taken it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RLockBlock {
    lock: RobustLock,
}

/// How often one thread may hold it.
const DEEPEST: u64 = u32::MAX as u64;

impl RLockBlock {
    /// How often the owner holds it. Only the owner writes it. A release leaves 1, so that the next owner need not write; a death leaves anything.
    fn depth(&self) -> &AtomicU64 {
        &self.lock.guarded[0]
    }
}

// SAFETY: `repr(C)`, atomics only, always the same size, one lock.
unsafe impl Object for RLockBlock {
    const KIND: &'static str = "rlock";
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

verbs!(RLock, RLockBlock, "recursive lock");

impl RLock {
    /// Takes the lock, waiting as long as it takes; at once, if this thread holds it.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread holds too many locks, or this one 2^32 - 1 times.
    #[inline(always)]
    pub fn lock(&self) -> Result<RLockGuard<'_>, LockError> {
        self.lock_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock if no other thread holds it.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<Option<RLockGuard<'_>>, LockError> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Takes the lock, waiting at most this long; `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<RLockGuard<'_>>, LockError> {
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

    /// How often its owner holds it now; 0 when it is free. Exact for the owner, for others a moment's view.
    pub fn depth(&self) -> u32 {
        let depth = u32::try_from(self.shared.depth().load(Relaxed)).unwrap_or(u32::MAX);
        if self.is_locked() { depth.max(1) } else { 0 }
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
    /// - The same thread calls [`raw_unlock`](Self::raw_unlock) as often as this, and this handle (or a clone) lives until then.
    pub unsafe fn raw_lock(&self) -> Result<bool, LockError> {
        // SAFETY: the caller's promise.
        let died = unsafe { self.take(Deadline::NEVER) };
        died.map(|died| died.is_some()).map_err(|cause| self.error(cause))
    }

    /// Gives back once what [`raw_lock`](Self::raw_lock) took; false, and nothing done, when this thread does not hold it.
    ///
    /// # Safety
    ///
    /// - This thread has taken it by [`raw_lock`](Self::raw_lock) more often than it has given it back.
    pub unsafe fn raw_unlock(&self) -> bool {
        self.give()
    }

    #[inline(always)]
    fn lock_until(&self, deadline: Deadline) -> Result<RLockGuard<'_>, AcquireError> {
        // SAFETY: the guard borrows this handle, so the mapping outlives it; a leaked guard keeps the mapping.
        let died = unsafe { self.take(deadline) }?;
        Ok(RLockGuard { lock: self, died, here: PhantomData })
    }

    /// Takes it once more, or for the first time; who died holding it.
    ///
    /// # Safety
    ///
    /// The object stays mapped until this thread has given it back as often.
    #[inline(always)]
    unsafe fn take(&self, deadline: Deadline) -> Result<Option<Death>, AcquireError> {
        let depth = self.shared.depth();
        if self.shared.lock.is_held_by_this_thread() {
            return match depth.load(Relaxed) {
                DEEPEST.. => Err(AcquireError::TooDeep),
                // ORDER: our own word as long as we hold the lock. CRASH: the next owner does not read it.
                times => {
                    depth.store(times.max(1) + 1, Relaxed);
                    Ok(None)
                }
            };
        }
        // SAFETY: the caller's promise.
        let how = unsafe { self.shared.lock.acquire(deadline) }?;
        // CRASH: held with the depth of somebody dead: the next owner sets it, too.
        if depth.load(Relaxed) != 1 {
            depth.store(1, Relaxed);
        }
        Ok(match how {
            Acquired::Clean => None,
            Acquired::OwnerDied(death) => Some(death),
        })
    }

    /// Gives it back once; false, and nothing done, when this thread does not hold it (in a forked child: a copy of its parent's guard).
    #[inline(always)]
    fn give(&self) -> bool {
        let depth = self.shared.depth();
        let times = depth.load(Relaxed);
        if times <= 1 {
            // Looks itself whether this thread holds it.
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

/// The lock, held once by this thread until dropped.
///
/// A copy that a `fork` made owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    died: Option<Death>,
    /// Not `Send`: the kernel gives the lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl RLockGuard<'_> {
    /// Who held the lock before and died; what it guards may be half changed. Told to this thread's first guard, not to those taken while it has one.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

/// For [`Condition::wait`](crate::Condition::wait): gives the lock back however often this thread has taken it, and takes it again as often (as Python's `Condition` does). The thread's other
/// guards stay as they are; what they guard may have changed. If it cannot be taken again, none of them holds anything.
impl<'a> Guarded for RLockGuard<'a> {
    type Held = (&'a RLock, u32);
    type Error = LockError;

    fn suspend(self) -> Result<(&'a RLock, u32), LockError> {
        let lock = self.lock;
        if !lock.shared.lock.is_held_by_this_thread() {
            return Err(lock.error(AcquireError::NotHeld));
        }
        let depth = lock.depth();
        // CRASH: held once, or not at all: the next owner sets the depth.
        lock.shared.depth().store(1, Relaxed);
        // The drop of this guard gives it back.
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
        f.debug_struct("RLockGuard").field("lock", &self.lock.shared).field("previous_owner_died", &self.died).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deepest() -> Result<(), Box<dyn std::error::Error>> {
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
