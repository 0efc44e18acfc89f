//! [`Semaphore`]: so many at a time, across processes.
#![allow(
    unsafe_code,
    reason = "robust locks behind the object, mapped as long as they are held; a raw pair for bindings"
)]

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

pub use owned::OwnedPermit;

/// So many permits, 127 at most, that processes share: whoever wants to go on takes one, and waits while there is none (Python's `Semaphore`).
///
/// A [`Permit`] belongs to the *thread* that took it, and goes back when it is dropped: nobody can give back more than were taken. A thread may hold several; it holds at most 1,000 locks
/// and permits in all. An [`OwnedPermit`] belongs to the *process*, and may move between its threads. There is no order among those who wait.
///
/// | who gives back? | use |
/// |---|---|
/// | the thread that took, and the kernel if it dies: places, licences, connections | [`acquire`](Self::acquire) |
/// | any thread of the process that took, and the kernel if that dies: the same in a program with many threads, tasks, callbacks | [`acquire_owned`](Self::acquire_owned) |
/// | anybody, in any process: hand-over, a job server's tokens; what the dead had taken is lost | [`BoundedSemaphore`](crate::BoundedSemaphore) |
/// | anybody, and as often as they like, which is Python's `Semaphore` | the same, with [`NO_LIMIT`](crate::BoundedSemaphore::NO_LIMIT) |
///
/// # When a process dies
///
/// Its permits are free again at once, and whoever takes one of them next may ask [`previous_owner_died`](Permit::previous_owner_died). So are those of a thread that ends, and of a process that calls `exec`.
/// A killed waiter leaves no trace, also if it had gathered some of many. A stopped holder keeps its permits; a stopped waiter costs the others a second at most.
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

/// The shared part of a [`Semaphore`]: the gate, in which one waits, and behind it the permits, a robust lock each.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SemaphoreBlock {
    gate: RobustLock,
}

/// The permits that lie behind the block.
///
/// # Safety
///
/// The object has these extents, and stays mapped for `'a`.
unsafe fn permits<'a>(tail: *const AtomicU64, extents: [u64; 2]) -> &'a [RobustLock] {
    let count = usize::try_from(extents[0]).unwrap_or(0);
    // SAFETY: `size` has room for that many, aligned as the block, whose size is a multiple of their alignment; they are only atomics, of which every pattern is valid.
    unsafe { slice::from_raw_parts(tail.cast(), count) }
}

// SAFETY: `repr(C)`, atomics only; its size depends on the extents alone; the gate and the permits are all its locks.
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

    unsafe fn init(&self, _: *const AtomicU64, _: usize) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.gate), None]
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
    /// Takes a permit, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread holds all the permits itself, or too many locks and permits.
    #[inline(always)]
    pub fn acquire(&self) -> Result<Permit<'_>, LockError> {
        self.acquire_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes a permit if one is free.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread holds too many locks and permits.
    pub fn try_acquire(&self) -> Result<Option<Permit<'_>>, LockError> {
        self.acquire_timeout(Duration::ZERO)
    }

    /// Takes a permit, waiting at most this long; `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Option<Permit<'_>>, LockError> {
        self.unless_late(self.acquire_until(Deadline::after(timeout)))
    }

    /// Takes so many permits at once, waiting as long as it takes.
    ///
    /// Of several that want many one at a time gathers them, and everybody who has to wait waits behind it; so two of them never wait for each other. (Who holds permits already and wants
    /// more may still wait for somebody who does the same, as with any two locks.)
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
    /// [`LockError`], as [`acquire`](Self::acquire), or there are not so many permits. None is taken then.
    pub fn acquire_many(&self, count: usize) -> Result<Vec<Permit<'_>>, LockError> {
        self.acquire_many_until(count, Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes so many permits if they are free, and nobody is waiting.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`try_acquire`](Self::try_acquire), or there are not so many permits.
    pub fn try_acquire_many(&self, count: usize) -> Result<Option<Vec<Permit<'_>>>, LockError> {
        self.acquire_many_timeout(count, Duration::ZERO)
    }

    /// Takes so many permits, waiting at most this long; `None`, and none taken, if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_timeout(
        &self,
        count: usize,
        timeout: Duration,
    ) -> Result<Option<Vec<Permit<'_>>>, LockError> {
        self.unless_late(self.acquire_many_until(count, Deadline::after(timeout)))
    }

    /// How many permits are free now.
    pub fn available(&self) -> usize {
        self.locks().iter().filter(|permit| !permit.is_held()).count()
    }

    /// How many permits there are.
    pub fn permits(&self) -> usize {
        self.locks().len()
    }

    /// Who holds permits now: one entry for each permit. Of an [`OwnedPermit`] the thread is one that its process keeps for this.
    pub fn holders(&self) -> Vec<Owner> {
        self.locks().iter().filter_map(RobustLock::owner).collect()
    }

    /// How many threads sleep for it now, in all processes, as the kernel counts them: a moment's view. One that has been killed is not counted, nor is one that has just come and still spins.
    pub fn waiters(&self) -> usize {
        self.view().waiters()
    }

    /// Takes a permit without a guard, for language bindings: its number.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire`](Self::acquire).
    ///
    /// # Safety
    ///
    /// - The same thread calls [`raw_release`](Self::raw_release) with that number, and this handle (or a clone) lives until then.
    pub unsafe fn raw_acquire(&self) -> Result<usize, LockError> {
        // SAFETY: the caller's promise.
        let taken = unsafe { self.view().take(Deadline::NEVER) };
        taken.map(|(at, _)| at).map_err(|cause| self.error(cause))
    }

    /// Gives back what [`raw_acquire`](Self::raw_acquire) took; false, and nothing done, when this thread does not hold that permit.
    ///
    /// # Safety
    ///
    /// - No [`Permit`] of this thread is alive for it.
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
        Permits::new(&self.shared.gate, self.locks())
    }

    #[inline(always)]
    fn acquire_until(&self, deadline: Deadline) -> Result<Permit<'_>, AcquireError> {
        // SAFETY: the guard borrows this handle, so the mapping outlives it; a leaked guard keeps the mapping.
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

    fn unless_late<T>(&self, result: Result<T, AcquireError>) -> Result<Option<T>, LockError> {
        match result {
            Ok(taken) => Ok(Some(taken)),
            Err(AcquireError::TimedOut) => Ok(None),
            Err(cause) => Err(self.error(cause)),
        }
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

/// One permit, held by this thread until dropped.
///
/// A copy that a `fork` made owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the permit goes back at once"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    permit: &'a RobustLock,
    at: usize,
    died: Option<Death>,
    /// Not `Send`: the kernel gives the permit back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl Permit<'_> {
    /// Who held this very permit before and died; what it stands for may be in need of care.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }

    /// Which of the permits it is, from 0: nobody else has this one.
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
