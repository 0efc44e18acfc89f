//! [`RwLock`]: many readers or one writer, across processes.
//!
//! # State
//!
//! An **entry lock** and 120 **reader locks**. All of them are robust locks, and a thread waits for nothing
//! else.
//!
//! - **read**: takes a free reader lock that was used before, then looks at the entry lock. If that is free,
//!   the reader is in. If not, or if there is no such reader lock, it releases the reader lock and goes
//!   through the entry lock: takes that, takes a free reader lock, releases the entry lock. The guard holds
//!   the reader lock.
//! - **write**: takes the entry lock, then waits for each reader lock that is held, until its reader has
//!   released it. The guard holds the entry lock, so no reader comes in meanwhile.
//!
//! The entry lock guards two words. The **signature** is process and thread of the writer, from when the last
//! reader has left until the guard is dropped. **Used** is how many reader locks, from the first on, were
//! ever taken: the others need not be looked at.
//!
//! | Which thread dies | What the next thread finds |
//! |---|---|
//! | reader, at the entry lock | entry lock free, "owner died", no signature (note 1) |
//! | reader, with a reader lock | reader lock free (note 2) |
//! | writer, waiting for readers | the same as after a reader at the entry lock |
//! | writer, from the signature on | entry lock free, with a signature (note 3) |
//!
//! 1. Nothing had been written.
//! 2. The kernel wakes the writer that waits for this lock.
//! 3. Every thread that comes in learns of the death, until a writer's guard has been dropped.
//!
//! # Why a writer is alone
//!
//! A reader takes its reader lock, then looks at the entry lock. A writer takes the entry lock, then looks at
//! the reader locks. One of the two locked instructions comes first, and the look of the other thread sees
//! it: the writer waits for that reader lock, or the reader goes back. So another thread may take a reader
//! lock for a moment that a writer has found free, but it does not read. Used grows only while the entry lock
//! is held, and before the reader lock is taken. An admitted reader finds a signature only if its writer has
//! died: a living writer waits for that reader before it signs.
//!
//! Each wait is for a robust lock. So each wake-up and each death is that lock's affair, and what
//! `models/src/lock.rs` shows of it holds here. `models/src/rwlock.rs` shows how the locks work together.

mod block;
mod entry;
mod guards;

use std::fmt;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline, LockError, Owner, RobustLock};
use multiproc_shm::Shared;
use serde::{Deserialize, Serialize};

use crate::timeout::unless_timed_out;

pub use block::RwLockBlock;
pub use guards::{ReadGuard, WriteGuard};

/// A lock between processes that many threads may hold for reading, or one for writing.
///
/// It is Rust's [`std::sync::RwLock`] between processes, found by name or sent as a handle in an argument or
/// message. It guards what its users say it guards.
///
/// A waiting writer keeps new readers out, so it waits only for the readers that are in. Threads that wait to
/// come in have no order. As many as [`READERS`](Self::READERS) threads may read at a time. A guard belongs
/// to the *thread* that took it. A thread that reads and asks to read again may wait for ever, if a writer
/// has come in between. A thread that reads and asks to write gets an error, and so does a thread that writes
/// and asks again.
///
/// # When a process dies
///
/// A killed reader is forgotten at once, and so is a killed waiter. If a writer is killed, the next threads
/// get the lock at once. All of them, readers too, learn of it
/// ([`previous_owner_died`](ReadGuard::previous_owner_died)) until a writer's guard has been dropped: then
/// what is guarded counts as repaired. A stopped reader or writer keeps the lock.
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
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct RwLock {
    shared: Shared<RwLockBlock>,
}

multiproc_shm::verbs! { impl[] RwLock { shared: RwLockBlock }; "read-write lock"; new() => (); }

impl RwLock {
    /// How many threads may read at a time. One more gets [`AcquireError::NoFreeSlot`].
    pub const READERS: usize = 120;

    /// Takes the lock for reading, waiting as long as necessary.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread writes or holds too many locks, or if [`READERS`](Self::READERS)
    /// threads read.
    #[inline(always)]
    pub fn read(&self) -> Result<ReadGuard<'_>, LockError> {
        self.read_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock for reading if no thread writes or waits to write.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`read`](Self::read) does.
    pub fn try_read(&self) -> Result<Option<ReadGuard<'_>>, LockError> {
        self.read_timeout(Duration::ZERO)
    }

    /// Takes the lock for reading, waiting at most `timeout`; returns `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`read`](Self::read) does.
    pub fn read_timeout(&self, timeout: Duration) -> Result<Option<ReadGuard<'_>>, LockError> {
        unless_timed_out(self.read_until(Deadline::after(timeout)), |cause| self.error(cause))
    }

    /// Takes the lock for writing, waiting as long as necessary.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread reads or writes already, or holds too many locks.
    #[inline(always)]
    pub fn write(&self) -> Result<WriteGuard<'_>, LockError> {
        self.write_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock for writing if no thread reads or writes.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`write`](Self::write) does.
    pub fn try_write(&self) -> Result<Option<WriteGuard<'_>>, LockError> {
        self.write_timeout(Duration::ZERO)
    }

    /// Takes the lock for writing, waiting at most `timeout`; returns `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`write`](Self::write) does.
    pub fn write_timeout(&self, timeout: Duration) -> Result<Option<WriteGuard<'_>>, LockError> {
        unless_timed_out(self.write_until(Deadline::after(timeout)), |cause| self.error(cause))
    }

    /// Returns how many threads read now.
    pub fn readers(&self) -> usize {
        self.shared.used().iter().filter(|lock| lock.is_held()).count()
    }

    /// Returns the thread that writes now, or waits for readers to leave, and its process.
    pub fn writer(&self) -> Option<Owner> {
        self.shared.entry_lock.owner()
    }

    /// Returns how many threads sleep for the lock now, in all processes, as the kernel counts them.
    ///
    /// The number may change at once. Neither a killed thread nor a waiter that still spins is counted.
    pub fn waiters(&self) -> usize {
        // Before the entry lock; and with it a thread that wants to write, while others read.
        let reading = self.shared.reader_locks.iter().filter(|lock| lock.is_held());
        self.shared.entry_lock.waiters() + reading.map(RobustLock::waiters).sum::<usize>()
    }

    #[cold]
    fn error(&self, cause: AcquireError) -> LockError {
        LockError::new(self.shared.describe(), cause)
    }
}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (readers, writer) = (self.readers(), self.writer());
        let mut shown = f.debug_struct("RwLock");
        shown.field("object", &self.shared).field("readers", &readers).field("writer", &writer);
        shown.field("waiters", &self.waiters()).finish()
    }
}
