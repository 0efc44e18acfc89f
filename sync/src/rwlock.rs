//! [`RwLock`]: many readers or one writer, across processes.
//!
//! # State
//!
//! A **turnstile** and 120 **places**, all of them robust locks, and nothing else to wait for:
//!
//! - **read**: take a free place that was used before, then look at the turnstile. If it is free, that was all. If not, or if there is no such place: give the place back, and go through the turnstile
//!   (take it, take a free place, give it back). The place is held as long as the guard lives.
//! - **write**: take the turnstile, then wait for each place that is held until its reader has given it back. The turnstile is held as long as the guard lives: nobody comes in meanwhile.
//!
//! Two words beside the turnstile: the **signature** is process and thread of the writer, from when the last reader has left until the guard is dropped; **used** is how many places, from the first on,
//! were ever taken: others need not be looked at.
//!
//! | who dies | finds who comes next |
//! |---|---|
//! | reader, at the turnstile | it free, "owner died", no signature: nobody had written |
//! | reader, in its place | the place free: the kernel wakes the writer that waits for it |
//! | writer, waiting for readers | as a reader at the turnstile |
//! | writer, from the signature on | it free, with a signature: everybody is told, until a writer's guard has been dropped |
//!
//! # Why a writer is alone
//!
//! A reader takes its place, then looks at the turnstile; a writer takes the turnstile, then looks at the places. Whichever of the two locked instructions comes first, the other one's look sees it:
//! the writer waits for that place, or the reader goes back. So a place that a writer finds free may be taken for a moment, but nobody reads in it. `used` grows only with the turnstile held, and
//! before the place is taken. A reader that was let in finds a signature only if its writer has died: a living one waits for the reader before it signs.
//!
//! Each wait is for a robust lock, so each wake-up and each death is that lock's affair, and what is shown of it (`models/src/lock.rs`) is shown of this. How all play together is shown by `models/src/rwlock.rs`.
#![allow(unsafe_code, reason = "promises the layout of its block; turnstile and places are held only while a handle is borrowed")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst, compiler_fence, fence};
use std::time::Duration;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Deadline, Death, LockError, Owner, RobustLock, spread};
use multiproc_shm::{Object, Shared};
use serde::{Deserialize, Serialize};

use crate::verbs::verbs;

/// A lock that many may have for reading, or one for writing (Rust's [`std::sync::RwLock`] between processes), by name or as a handle in an argument or message.
///
/// It guards what its users say it guards. A writer that waits keeps new readers out, so it waits only for the readers that are there; among those who wait to come in there is no order. As
/// many as [`READERS`](Self::READERS) may read at a time. A guard belongs to the *thread* that took it. A thread that reads and asks to read again may wait for ever, if a writer came in between;
/// one that reads and asks to write gets an error, and so does one that writes and asks again.
///
/// # When a process dies
///
/// A killed reader is forgotten at once, and so is one that was waiting. When a writer is killed, the next ones get the lock at once; all of them, readers too, are told
/// ([`previous_owner_died`](ReadGuard::previous_owner_died)), until a writer's guard has been dropped: then what is guarded counts as mended. A stopped reader or writer keeps the lock.
///
/// ```
/// use multiproc_sync::RwLock;
///
/// let lock = RwLock::new()?;
/// let (one, other) = (lock.read()?, lock.try_read()?);
/// assert!(other.is_some() && lock.readers() == 2);
/// drop((one, other));
/// let writer = lock.write()?;
/// std::thread::scope(|s| {
///     s.spawn(|| assert!(lock.try_read().unwrap().is_none()));
/// });
/// drop(writer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RwLock {
    shared: Shared<RwLockBlock>,
}

/// The shared part of a [`RwLock`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RwLockBlock {
    turnstile: RobustLock,
    places: [RobustLock; RwLock::READERS],
}

const _: () = assert!(size_of::<RwLockBlock>() == 64 * (1 + RwLock::READERS));

// SAFETY: `repr(C)`, atomics only, always the same size; the turnstile and the places.
unsafe impl Object for RwLockBlock {
    const KIND: &'static str = "rwlock";
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
        [Some(&self.turnstile), None]
    }

    unsafe fn more_locks(&self, _: *const AtomicU64, _: [u64; 2]) -> &[RobustLock] {
        &self.places
    }
}

verbs!(RwLock, RwLockBlock, "read-write lock");

impl RwLock {
    /// So many may read at a time; the next gets [`AcquireError::NoFreeSlot`].
    pub const READERS: usize = 120;

    /// Takes the lock for reading, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread writes, or holds too many locks; as many read as may.
    #[inline(always)]
    pub fn read(&self) -> Result<ReadGuard<'_>, LockError> {
        self.read_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock for reading if nobody writes or waits to write.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`read`](Self::read).
    pub fn try_read(&self) -> Result<Option<ReadGuard<'_>>, LockError> {
        self.read_timeout(Duration::ZERO)
    }

    /// Takes the lock for reading, waiting at most this long; `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> Result<Option<ReadGuard<'_>>, LockError> {
        self.in_time(self.read_until(Deadline::after(timeout)))
    }

    /// Takes the lock for writing, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread reads or writes already, or holds too many locks.
    #[inline(always)]
    pub fn write(&self) -> Result<WriteGuard<'_>, LockError> {
        self.write_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock for writing if nobody has it.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`write`](Self::write).
    pub fn try_write(&self) -> Result<Option<WriteGuard<'_>>, LockError> {
        self.write_timeout(Duration::ZERO)
    }

    /// Takes the lock for writing, waiting at most this long; `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`write`](Self::write).
    pub fn write_timeout(&self, timeout: Duration) -> Result<Option<WriteGuard<'_>>, LockError> {
        self.in_time(self.write_until(Deadline::after(timeout)))
    }

    /// How many read now.
    pub fn readers(&self) -> usize {
        self.used().iter().filter(|place| place.is_held()).count()
    }

    /// Who writes now, or waits for readers to leave.
    pub fn writer(&self) -> Option<Owner> {
        self.shared.turnstile.owner()
    }

    /// How many threads sleep for it now, in all processes, as the kernel counts them: a moment's view. One that has been killed is not counted, nor is one that has just come and still spins.
    pub fn waiters(&self) -> usize {
        // Before the turnstile; and in it one that wants to write, while others read.
        let reading = self.shared.places.iter().filter(|place| place.is_held());
        self.shared.turnstile.waiters() + reading.map(RobustLock::waiters).sum::<usize>()
    }

    #[inline(always)]
    fn read_until(&self, deadline: Deadline) -> Result<ReadGuard<'_>, AcquireError> {
        match self.read_at_once()? {
            Some(guard) => Ok(guard),
            None => self.read_through_the_turnstile(deadline),
        }
    }

    /// Takes a place that was used before, if nobody writes or comes in.
    #[inline(always)]
    fn read_at_once(&self) -> Result<Option<ReadGuard<'_>>, AcquireError> {
        let places = self.used();
        let (before, after) = places.split_at(spread(places.len()));
        let free = after.iter().chain(before).find(|place| !place.is_held());
        let Some(place) = free.filter(|_| !self.shared.turnstile.is_held()) else { return Ok(None) };
        // A dead reader has left nothing.
        // SAFETY: the guard borrows this handle, so the mapping outlives it.
        match unsafe { place.acquire(Deadline::NOW) } {
            Ok(_) => {}
            Err(AcquireError::TimedOut | AcquireError::AlreadyHeld) => return Ok(None),
            Err(error) => return Err(error),
        }
        // CRASH: a place, held for nothing: the writer that waits for it is woken.
        settle();
        if self.shared.turnstile.is_held() {
            place.release();
            return Ok(None);
        }
        // ORDER: pairs with the writer's release of the turnstile, which the look above has read: what is guarded is read after it, and is what that writer wrote.
        fence(Acquire);
        Ok(Some(ReadGuard { lock: self, place, died: self.unfinished(), here: PhantomData }))
    }

    #[cold]
    #[inline(never)]
    fn read_through_the_turnstile(&self, deadline: Deadline) -> Result<ReadGuard<'_>, AcquireError> {
        let turnstile = self.enter(deadline)?;
        let died = self.unfinished();
        let used = self.used().len();
        for (number, place) in self.shared.places.iter().enumerate().filter(|(_, place)| !place.is_held()) {
            if number >= used {
                // ORDER: Relaxed: writers read it with the turnstile, which we hold; for readers it is a hint. CRASH: a place more to look at.
                self.shared.turnstile.guarded[USED].store(number as u64 + 1, Relaxed);
            }
            // SAFETY: the guard borrows this handle, so the mapping outlives it.
            match unsafe { place.acquire(Deadline::NOW) } {
                Ok(_) => {
                    drop(turnstile);
                    return Ok(ReadGuard { lock: self, place, died, here: PhantomData });
                }
                // One that looks whether the turnstile is free.
                Err(AcquireError::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Err(AcquireError::NoFreeSlot)
    }

    #[inline(always)]
    fn write_until(&self, deadline: Deadline) -> Result<WriteGuard<'_>, AcquireError> {
        // Before the turnstile, whose holder may wait for this very thread.
        if self.used().iter().any(RobustLock::is_held) && self.is_read_by_this_thread() {
            return Err(AcquireError::AlreadyHeld);
        }
        let turnstile = self.enter(deadline)?;
        settle();
        let died = self.unfinished();
        if is_planted(Bug::SignedTooEarly) {
            sign(turnstile.0, turnstile.0.last_owner());
        }
        if let Some(reading) = self.used().iter().position(RobustLock::is_held) {
            self.wait_for_readers(reading, deadline)?;
        }
        // ORDER: pairs with the readers' releases of the places that were found free: what is guarded is written after they have read it.
        fence(Acquire);
        // CRASH: from here on who comes next is told of us.
        sign(turnstile.0, turnstile.0.last_owner());
        Ok(WriteGuard { lock: self, turnstile: turnstile.keep(), died, here: PhantomData })
    }

    #[cold]
    #[inline(never)]
    fn is_read_by_this_thread(&self) -> bool {
        self.used().iter().any(RobustLock::is_held_by_this_thread)
    }

    /// Until each place, from this one on, was free once. With the turnstile held.
    #[cold]
    #[inline(never)]
    fn wait_for_readers(&self, first: usize, deadline: Deadline) -> Result<(), AcquireError> {
        for place in self.used().iter().skip(first).filter(|place| place.is_held()) {
            // CRASH: killed while we wait, nobody has written: the turnstile opens.
            // SAFETY: released in the next line.
            let _ = unsafe { place.acquire(deadline) }?;
            place.release();
        }
        Ok(())
    }

    #[inline(always)]
    fn enter(&self, deadline: Deadline) -> Result<Turnstile<'_>, AcquireError> {
        // SAFETY: `Turnstile` borrows this handle, so the mapping outlives it.
        let _ = unsafe { self.shared.turnstile.acquire(deadline) }?;
        Ok(Turnstile(&self.shared.turnstile))
    }

    /// The writer that did not end. To be asked with the turnstile held.
    fn unfinished(&self) -> Option<Death> {
        let signature = self.shared.turnstile.guarded[SIGNATURE].load(Relaxed);
        (signature != 0).then(|| Death::of(signature))
    }

    /// The places that were ever taken.
    #[inline]
    fn used(&self) -> &[RobustLock] {
        let used = usize::try_from(self.shared.turnstile.guarded[USED].load(Relaxed)).unwrap_or(usize::MAX);
        &self.shared.places[..used.min(Self::READERS)]
    }

    fn in_time<G>(&self, taken: Result<G, AcquireError>) -> Result<Option<G>, LockError> {
        match taken {
            Ok(guard) => Ok(Some(guard)),
            Err(AcquireError::TimedOut) => Ok(None),
            Err(cause) => Err(self.error(cause)),
        }
    }

    #[cold]
    fn error(&self, cause: AcquireError) -> LockError {
        LockError::new(self.shared.describe(), cause)
    }
}

/// Words beside the turnstile.
const SIGNATURE: usize = 0;
const USED: usize = 1;

/// ORDER: Relaxed: whoever reads it came in after us, by the turnstile or by our death. Only what is guarded must not be written before or after it, and what is killed is killed between two instructions.
#[inline(always)]
fn sign(turnstile: &RobustLock, signature: u64) {
    compiler_fence(SeqCst);
    turnstile.guarded[SIGNATURE].store(signature, Relaxed);
    compiler_fence(SeqCst);
}

/// ORDER: between one's own lock taken and the look at the other one's. On x86-64 the locked instruction that took it is enough.
#[inline(always)]
fn settle() {
    if cfg!(target_arch = "x86_64") { compiler_fence(SeqCst) } else { fence(SeqCst) }
}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (readers, writer) = (self.readers(), self.writer());
        let mut shown = f.debug_struct("RwLock");
        shown.field("object", &self.shared).field("readers", &readers).field("writer", &writer);
        shown.field("waiters", &self.waiters()).finish()
    }
}

/// The turnstile, held.
struct Turnstile<'a>(&'a RobustLock);

impl<'a> Turnstile<'a> {
    /// For somebody else to give back.
    #[inline(always)]
    fn keep(self) -> &'a RobustLock {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Turnstile<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.release();
    }
}

/// A [`RwLock`], held by this thread for reading until dropped. A copy that a `fork` made owns nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct ReadGuard<'a> {
    lock: &'a RwLock,
    place: &'a RobustLock,
    died: Option<Death>,
    /// Not `Send`: the kernel gives the place back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl ReadGuard<'_> {
    /// The writer that died, if none has finished since; what the lock guards may be half changed.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

impl Drop for ReadGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.place.release();
    }
}

impl fmt::Debug for ReadGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadGuard").field("lock", &self.lock.shared).field("previous_owner_died", &self.died).finish()
    }
}

/// A [`RwLock`], held by this thread for writing until dropped. A copy that a `fork` made owns nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct WriteGuard<'a> {
    lock: &'a RwLock,
    turnstile: &'a RobustLock,
    died: Option<Death>,
    /// Not `Send`: the kernel gives the turnstile back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl WriteGuard<'_> {
    /// The writer before that died, if none has finished since; what the lock guards may be half changed, and counts as mended when this guard is dropped.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

impl Drop for WriteGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let turnstile = self.turnstile;
        if is_planted(Bug::SignatureClearedLate) {
            if turnstile.release() {
                sign(turnstile, 0);
            }
            return;
        }
        // CRASH: before this store the next ones are told of us; after it we had finished.
        turnstile.release_after(|| sign(turnstile, 0));
    }
}

impl fmt::Debug for WriteGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard").field("lock", &self.lock.shared).field("previous_owner_died", &self.died).finish()
    }
}
