//! [`RwLock`]: many readers or one writer, across processes.
//!
//! # State
//!
//! A **turnstile** and 120 **places**, all of them robust locks, and nothing else to wait for:
//!
//! - **read**: through the turnstile (take it, take a free place, give it back). The place is held as long as the guard lives.
//! - **write**: take the turnstile, then wait for each place that is held until its reader has given it back. The turnstile is held as long as the guard lives: nobody comes in meanwhile.
//!
//! One word beside the turnstile is the **signature**: process and thread of the writer, from when the last reader has left until the guard is dropped.
//!
//! | who dies | finds who comes next |
//! |---|---|
//! | reader, at the turnstile | it free, "owner died", no signature: nobody had written |
//! | reader, in its place | the place free: the kernel wakes the writer that waits for it |
//! | writer, waiting for readers | as a reader at the turnstile |
//! | writer, from the signature on | it free, with a signature: everybody is told, until a writer's guard has been dropped |
//!
//! Places that the turnstile's holder finds free stay free, since only it could take one. So each wait is for a robust lock, each wake-up and each death is that lock's affair, and what is
//! shown of it (`models/src/lock.rs`) is shown of this.
#![allow(unsafe_code, reason = "promises the layout of its block; turnstile and places are held only while a handle is borrowed")]

use std::fmt;
use std::marker::PhantomData;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use multiproc_shm::zoo::{self, Bug};
use multiproc_shm::{
    AcquireError, Deadline, Death, Error, Handle, LockError, Object, Options, Owner, RobustLock, Shared, identity,
};
use serde::{Deserialize, Serialize};

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

impl Handle for RwLock {
    type Object = RwLockBlock;

    fn from_shared(shared: Shared<RwLockBlock>) -> Self {
        Self { shared }
    }

    fn shared(&self) -> Option<&Shared<RwLockBlock>> {
        Some(&self.shared)
    }
}

impl RwLock {
    /// So many may read at a time; the next gets [`AcquireError::NoPlace`].
    pub const READERS: usize = 120;

    /// A lock without a name, for handles in arguments and messages.
    ///
    /// # Errors
    ///
    /// [`Error`]: no space.
    pub fn new() -> Result<Self, Error> {
        Options::new().anonymous(())
    }

    /// Makes a named lock, which must not exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or in use; no space.
    pub fn create(name: &str) -> Result<Self, Error> {
        Options::new().create(name, ())
    }

    /// Finds a named lock, which must exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: nobody uses the name, or it is no such lock.
    pub fn open(name: &str) -> Result<Self, Error> {
        Options::new().open(name)
    }

    /// Finds a named lock, or makes it.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad, or it is no such lock; no space.
    pub fn open_or_create(name: &str) -> Result<Self, Error> {
        Options::new().open_or_create(name, ())
    }

    /// Takes a name away at once; those who have handles keep the lock.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or not in use.
    pub fn unlink(name: &str) -> Result<(), Error> {
        Options::new().unlink(name)
    }

    /// Takes the lock for reading, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread writes, or holds too many locks; as many read as may.
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
        self.shared.places.iter().filter(|place| place.is_held()).count()
    }

    /// Who writes now, or waits for readers to leave.
    pub fn writer(&self) -> Option<Owner> {
        self.shared.turnstile.owner()
    }

    /// Its name; `None` for an anonymous one.
    pub fn name(&self) -> Option<&str> {
        self.shared.name()
    }

    fn read_until(&self, deadline: Deadline) -> Result<ReadGuard<'_>, AcquireError> {
        let turnstile = self.enter(deadline)?;
        let died = self.unfinished();
        for place in self.shared.places.iter().filter(|place| !place.is_held()) {
            // SAFETY: the guard borrows this handle, so the mapping outlives it.
            match unsafe { place.acquire(Deadline::NOW) } {
                // A dead reader has left nothing.
                Ok(_) => {
                    drop(turnstile);
                    return Ok(ReadGuard { lock: self, place, died, here: PhantomData });
                }
                Err(AcquireError::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Err(AcquireError::NoPlace)
    }

    fn write_until(&self, deadline: Deadline) -> Result<WriteGuard<'_>, AcquireError> {
        // Before the turnstile, whose holder may wait for this very thread.
        if self.shared.places.iter().any(|place| place.is_held() && place.is_held_by_this_thread()) {
            return Err(AcquireError::AlreadyHeld);
        }
        let turnstile = self.enter(deadline)?;
        let died = self.unfinished();
        let sign = || {
            let signature = u64::from(process::id()) << 32 | u64::from(identity::thread_id());
            self.signature().store(signature, SeqCst);
        };
        if zoo::planted(Bug::SignedTooEarly) {
            sign();
        }
        for place in self.shared.places.iter().filter(|place| place.is_held()) {
            // CRASH: killed while we wait, nobody has written: the turnstile opens.
            // SAFETY: released in the next line.
            let _ = unsafe { place.acquire(deadline) }?;
            place.release();
        }
        // CRASH: from here on who comes next is told of us.
        sign();
        Ok(WriteGuard { lock: self, turnstile, died, here: PhantomData })
    }

    fn enter(&self, deadline: Deadline) -> Result<Turnstile<'_>, AcquireError> {
        // SAFETY: `Turnstile` borrows this handle, so the mapping outlives it.
        let _ = unsafe { self.shared.turnstile.acquire(deadline) }?;
        Ok(Turnstile(&self.shared.turnstile))
    }

    /// The writer that did not end. To be asked with the turnstile held.
    fn unfinished(&self) -> Option<Death> {
        let signature = self.signature().load(SeqCst);
        (signature != 0).then(|| Death::of(signature))
    }

    fn signature(&self) -> &AtomicU64 {
        &self.shared.turnstile.beside[0]
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

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (readers, writer) = (self.readers(), self.writer());
        f.debug_struct("RwLock").field("object", &self.shared).field("readers", &readers).field("writer", &writer).finish()
    }
}

/// The turnstile, held.
struct Turnstile<'a>(&'a RobustLock);

impl Drop for Turnstile<'_> {
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
    turnstile: Turnstile<'a>,
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
    fn drop(&mut self) {
        if self.turnstile.0.is_held_by_this_thread() {
            if zoo::planted(Bug::SignatureClearedLate) {
                self.turnstile.0.release();
            }
            // CRASH: before this store the next ones are told of us; after it we had finished.
            self.lock.signature().store(0, SeqCst);
        }
    }
}

impl fmt::Debug for WriteGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard").field("lock", &self.lock.shared).field("previous_owner_died", &self.died).finish()
    }
}
