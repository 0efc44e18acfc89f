//! [`Semaphore`]: a fixed number of permits that processes share.
//!
//! This is the handle. The protocol is described in `multiproc_robust`'s `permits.rs`.
#![allow(unsafe_code, reason = "locks behind the block stay mapped while held; a raw pair for bindings")]

mod owned;

use std::fmt;
use std::marker::PhantomData;
use std::slice;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use multiproc_robust::{
    AcquireError, Acquired, Deadline, Death, LockError, MAX_PERMITS, Owner, Permits, RobustLock, Taken,
};
use multiproc_shm::{Object, Shared};
use serde::{Deserialize, Serialize};

use crate::timeout::unless_timed_out;

pub use owned::OwnedPermit;

/// A semaphore between processes that gets back the permits of dead owners (Python's `Semaphore`): 1 to 127
/// permits.
///
/// [`acquire`](Self::acquire) takes a permit, and waits while none is free. A [`Permit`] belongs to the
/// *thread* that took it, and is given back when it is dropped: no thread can give back more than it took. A
/// thread may hold several permits; it holds at most 1,000 locks and permits in all. An [`OwnedPermit`]
/// belongs to the *process*, and may move between its threads. Waiting threads have no order.
///
/// | What gives a permit back? | Use |
/// |---|---|
/// | the thread that took it, or the kernel at its death: download slots, licences, connections | [`acquire`](Self::acquire) |
/// | any thread of the process, or the kernel at its death: many threads, tasks, callbacks | [`acquire_owned`](Self::acquire_owned) |
/// | any process: hand-over, a job server's tokens (note 1) | [`BoundedSemaphore`](crate::BoundedSemaphore) |
/// | any process, as often as it likes, as with Python's `Semaphore` (note 1) | the same, with [`NO_LIMIT`](crate::BoundedSemaphore::NO_LIMIT) |
///
/// 1. What a dead process had taken is lost.
///
/// # When a process dies
///
/// Its permits are free again at once, and the thread that next takes one of them may ask
/// [`previous_owner_died`](Permit::previous_owner_died). The same holds for the permits of a thread that
/// ends, and of a process that calls `exec`. A killed waiter leaves no trace, even if it had gathered some of
/// the permits that it wanted. A stopped owner keeps its permits. A stopped waiter delays the other waiters
/// by at most 1 s.
///
/// ```
/// use multiproc_sync::Semaphore;
///
/// let downloads = Semaphore::new(2)?;
/// let first = downloads.acquire()?;
/// let second = downloads.acquire()?;
/// assert_eq!(downloads.available(), 0);
/// assert!(downloads.try_acquire()?.is_none());
/// drop(first);
/// std::thread::scope(|s| {
///     s.spawn(|| assert!(downloads.acquire().is_ok()));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Semaphore {
    shared: Shared<SemaphoreBlock>,
}

/// The shared bytes of a [`Semaphore`]: the mutex of the one thread that sleeps on the permits. The permits,
/// a robust lock each, lie behind it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SemaphoreBlock {
    mutex: RobustLock,
}

/// Returns the permits that lie behind the block.
///
/// # Safety
///
/// - The object has these extents, and stays mapped for `'a`.
unsafe fn permits<'a>(tail: *const AtomicU64, extents: [u64; 2]) -> &'a [RobustLock] {
    let count = usize::try_from(extents[0]).unwrap_or(0);
    // SAFETY: `size` has room for so many behind the block, whose size is a multiple of their alignment; they
    // are atomics only, of which every bit pattern is valid.
    unsafe { slice::from_raw_parts(tail.cast(), count) }
}

// SAFETY: `repr(C)`, atomics only; its size depends on the extents alone; the mutex and the permits are all
// its locks.
unsafe impl Object for SemaphoreBlock {
    const KIND: &'static str = "semaphore";
    const LAYOUT: u32 = 1;
    type Params = usize;

    fn extents(count: &usize) -> Result<[u64; 2], String> {
        match *count {
            1..=MAX_PERMITS => Ok([*count as u64, 0]),
            _ => Err(format!("{count} permits are not 1 to {MAX_PERMITS}")),
        }
    }

    fn size([count, zero]: [u64; 2]) -> Option<usize> {
        let count =
            usize::try_from(count).ok().filter(|count| (1..=MAX_PERMITS).contains(count) && zero == 0)?;
        Some(size_of::<Self>() + count * size_of::<RobustLock>())
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.mutex), None]
    }

    unsafe fn more_locks(&self, tail: *const AtomicU64, extents: [u64; 2]) -> &[RobustLock] {
        // SAFETY: the caller's promise.
        unsafe { permits(tail, extents) }
    }
}

multiproc_shm::verbs! {
    impl[] Semaphore { shared: SemaphoreBlock };
    "semaphore" "of so many permits"; new(permits: usize) => permits;
    invalid "`permits` is not 1 to 127"; differs "it has another number of permits";
}

impl Semaphore {
    /// Takes a permit, waiting as long as necessary.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds all the permits itself, or too many locks and permits.
    #[inline(always)]
    pub fn acquire(&self) -> Result<Permit<'_>, LockError> {
        self.acquire_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes a permit if one is free.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds too many locks and permits.
    pub fn try_acquire(&self) -> Result<Option<Permit<'_>>, LockError> {
        self.acquire_timeout(Duration::ZERO)
    }

    /// Takes a permit, waiting at most `timeout`; returns `None` if none was free by then.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire`](Self::acquire) does.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Option<Permit<'_>>, LockError> {
        unless_timed_out(self.acquire_until(Deadline::after(timeout)), |cause| self.error(cause))
    }

    /// Takes `count` permits, waiting as long as necessary.
    ///
    /// One thread at a time gathers several permits; all threads that have to wait, wait behind it. So two
    /// gathering threads never wait for each other. (A thread that holds permits already and wants more may
    /// still wait for another thread that does the same, as with any two locks.)
    ///
    /// ```
    /// # use multiproc_sync::Semaphore;
    /// let slots = Semaphore::new(4)?;
    /// let three = slots.acquire_many(3)?;
    /// assert!(slots.try_acquire_many(2)?.is_none(), "all or none");
    /// assert_eq!(slots.available(), 1);
    /// # drop(three);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire`](Self::acquire) does, or if the semaphore has fewer than `count`
    /// permits. No permit is taken then.
    pub fn acquire_many(&self, count: usize) -> Result<Vec<Permit<'_>>, LockError> {
        self.acquire_many_until(count, Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes `count` permits if so many are free and no thread waits.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`try_acquire`](Self::try_acquire) does, or if the semaphore has fewer than
    /// `count` permits.
    pub fn try_acquire_many(&self, count: usize) -> Result<Option<Vec<Permit<'_>>>, LockError> {
        self.acquire_many_timeout(count, Duration::ZERO)
    }

    /// Takes `count` permits, waiting at most `timeout`; returns `None`, and takes none, if that was not
    /// enough.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire_many`](Self::acquire_many) does.
    pub fn acquire_many_timeout(
        &self,
        count: usize,
        timeout: Duration,
    ) -> Result<Option<Vec<Permit<'_>>>, LockError> {
        unless_timed_out(self.acquire_many_until(count, Deadline::after(timeout)), |cause| self.error(cause))
    }

    /// Returns how many permits are free now.
    pub fn available(&self) -> usize {
        self.locks().iter().filter(|permit| !permit.is_held()).count()
    }

    /// Returns how many permits the semaphore has.
    pub fn permits(&self) -> usize {
        self.locks().len()
    }

    /// Returns the threads that hold permits now, with their processes: one entry for each permit that is
    /// held.
    ///
    /// The thread of an [`OwnedPermit`] is the owner thread that its process keeps for this purpose.
    pub fn holders(&self) -> Vec<Owner> {
        self.locks().iter().filter_map(RobustLock::owner).collect()
    }

    /// Returns how many threads sleep for a permit now, in all processes, as the kernel counts them.
    ///
    /// The number may change at once. Neither a killed thread nor a waiter that still spins is counted.
    pub fn waiters(&self) -> usize {
        self.view().waiters()
    }

    /// Takes a permit without a guard, for language bindings; returns its number.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire`](Self::acquire) does.
    ///
    /// # Safety
    ///
    /// - The same thread calls [`raw_release`](Self::raw_release) with that number.
    /// - This handle, or a clone of it, lives until then.
    pub unsafe fn raw_acquire(&self) -> Result<usize, LockError> {
        // SAFETY: the caller's promise.
        let taken = unsafe { self.view().take(Deadline::NEVER) };
        taken.map(|(at, _)| at).map_err(|cause| self.error(cause))
    }

    /// Gives back the permit that [`raw_acquire`](Self::raw_acquire) took.
    ///
    /// Does nothing and returns false if this thread does not hold that permit.
    ///
    /// # Safety
    ///
    /// - No [`Permit`] with that number is alive in this thread.
    pub unsafe fn raw_release(&self, permit: usize) -> bool {
        self.locks().get(permit).is_some_and(RobustLock::release)
    }

    #[inline(always)]
    fn locks(&self) -> &[RobustLock] {
        // SAFETY: this object's own tail and extents, mapped as long as this handle.
        unsafe { permits(self.shared.tail(), self.shared.extents()) }
    }

    #[inline(always)]
    fn view(&self) -> Permits<'_> {
        Permits::new(&self.shared.mutex, self.locks())
    }

    #[inline(always)]
    fn acquire_until(&self, deadline: Deadline) -> Result<Permit<'_>, AcquireError> {
        // SAFETY: the guard borrows this handle, so the mapping outlives the guard; a leaked guard keeps the
        // mapping.
        let taken = unsafe { self.view().take(deadline) }?;
        Ok(self.guard(taken))
    }

    fn acquire_many_until(&self, count: usize, deadline: Deadline) -> Result<Vec<Permit<'_>>, AcquireError> {
        // SAFETY: as above, for each guard.
        let taken = unsafe { self.view().take_many(count, deadline) }?;
        Ok(taken.into_iter().map(|taken| self.guard(taken)).collect())
    }

    #[inline(always)]
    fn guard(&self, (at, how): Taken) -> Permit<'_> {
        let died = match how {
            Acquired::Clean => None,
            Acquired::OwnerDied(death) => Some(death),
        };
        Permit { semaphore: self, permit: &self.locks()[at], at, died, here: PhantomData }
    }

    #[cold]
    fn error(&self, cause: AcquireError) -> LockError {
        LockError::new(self.shared.describe(), cause)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Semaphore");
        shown
            .field("object", &self.shared)
            .field("available", &self.available())
            .field("holders", &self.holders());
        shown.field("waiters", &self.waiters()).finish()
    }
}

/// A permit of a [`Semaphore`], held by this thread until dropped.
///
/// A guard that `fork` has copied owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the permit is given back at once"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    permit: &'a RobustLock,
    at: usize,
    died: Option<Death>,
    /// Makes the guard not `Send`: the kernel gives the permit back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl Permit<'_> {
    /// Returns the death of this permit's previous owner, if it died while it held the permit.
    ///
    /// What the permit stands for may then need repair.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }

    /// Returns which of the permits this is, from 0. No other owner has this number at the same time.
    pub fn number(this: &Self) -> usize {
        this.at
    }
}

impl Drop for Permit<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.permit.release();
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Permit");
        shown
            .field("semaphore", &self.semaphore.shared)
            .field("number", &self.at)
            .field("previous_owner_died", &self.died)
            .finish()
    }
}
