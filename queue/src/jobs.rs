//! [`JoinableQueue`]: what it promises. How jobs are leased and returned is in `jobs/lease.rs`.

use std::fmt;
use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::Shared;
use serde::{Deserialize, Serialize};

use crate::error::{GetError, PutError};
use crate::jobs::lease::{JobView, Leased};
use multiproc_ring::Refusal;
use multiproc_ring::UNBOUNDED;

pub(crate) mod block;
mod bytes;
mod dead_letters;
mod job;
pub(crate) mod lease;
mod plain;
mod typed;
mod words;

pub use block::{JobBlock, JobLimits};
pub use dead_letters::{DeadLetter, DeadLetters};
use job::Lease;
pub use job::{Holder, Job};
pub use words::MAX_LEASES;

/// A work queue (Python's `JoinableQueue`): a consumer *leases* a job, and the job returns to the queue if
/// the consumer dies before it is done.
///
/// [`get`](Self::get) returns a [`Job`]. Its message stays in shared memory until [`done`](Job::done). A job
/// that is dropped without `done`, or whose holder dies, returns to the front of the queue. The kernel
/// reports a death at once. (While more than four jobs are leased and others wait, a returned job is found
/// within the next few gets.) [`join`](Self::join) waits until every job that was put is done.
///
/// At most [`MAX_LEASES`] (120) jobs are leased at a time; a further `get` waits until one is done. A job
/// that was leased too often without being done ([`JobLimits::max_deliveries`]; 5 times by default) becomes a
/// [dead letter](Self::dead_letters). It then counts as done and is kept for inspection.
///
/// [`JoinableQueue<[u8]>`](JoinableQueue#impl-JoinableQueue<[u8]>) carries bytes as they are,
/// `JoinableQueue<Plain<T>>` [plain values](crate::Plain); any other `T` travels through serde.
///
/// # When a process dies
///
/// - In `put`: its job is wholly there or wholly absent.
/// - In `get`, or while it holds jobs: they return to the queue, and waiting consumers get them. No job that
///   was put is lost. No job is leased again while its holder lives, stopped or not.
/// - In `done`: the job is done, or returns.
///
/// So work is done *at least* once: a holder that dies after the work and before `done` leaves a job that
/// will be done again.
///
/// ```
/// use multiproc_queue::JoinableQueue;
///
/// let queue = JoinableQueue::new(16)?;
/// queue.put("page 1".to_string())?;
/// queue.put("page 2".to_string())?;
///
/// let job = queue.get()?;
/// assert_eq!((job.as_str(), job.attempts()), ("page 1", 1));
/// drop(job); // as if this process had died
///
/// let job = queue.get()?;
/// assert_eq!((job.as_str(), job.attempts()), ("page 1", 2));
/// job.done();
/// queue.get()?.done();
/// queue.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct JoinableQueue<T: ?Sized + 'static> {
    pub(crate) shared: Shared<JobBlock<T>>,
}

multiproc_shm::verbs! {
    impl[T: ?Sized + 'static] JoinableQueue<T> { shared: JobBlock<T> };
    "joinable queue";
    new(limits: impl Into<JobLimits>) => limits.into();
    invalid "the limits are not possible";
    other "it holds other jobs";
    differs "it has other limits";
}

/// Inspecting and closing.
impl<T: ?Sized + 'static> JoinableQueue<T> {
    /// Closes the queue for puts, in all processes. Gets go on until every job is done, also those that are
    /// leased now and may return; then they return `Closed`. Idempotent.
    pub fn close(&self) {
        self.view().close_jobs();
    }

    /// Returns whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.view().is_closed()
    }

    /// Waits until every job that was put is done or is a dead letter.
    ///
    /// # Errors
    ///
    /// [`GetError::Broken`]: this thread has no robust list, or the shared memory is inconsistent.
    pub fn join(&self) -> Result<(), GetError> {
        self.view().join(Deadline::NEVER).map_err(|refusal| self.get_error(refusal))
    }

    /// Waits at most `timeout`, and returns whether every job is done.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool, GetError> {
        match self.view().join(Deadline::after(timeout)).map_err(|refusal| self.get_error(refusal)) {
            Ok(()) => Ok(true),
            Err(GetError::Empty) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns how many jobs were put and are not done: waiting, leased or returned. A snapshot; 0 only if
    /// there was an instant in this call at which all were done.
    pub fn unfinished(&self) -> usize {
        self.view().unfinished()
    }

    /// Returns how many jobs have never been leased: a snapshot.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Returns whether there is no such job: a snapshot.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Returns whether as many jobs wait as it can hold: a snapshot.
    pub fn is_full(&self) -> bool {
        self.capacity().is_some_and(|capacity| self.len() >= capacity)
    }

    /// Returns how many jobs are leased: a snapshot.
    pub fn leased(&self) -> usize {
        self.view().leased()
    }

    /// Returns how many jobs can wait in it; `None` if there is no limit.
    pub fn capacity(&self) -> Option<usize> {
        let messages = self.view().log().sizes.messages;
        (messages != UNBOUNDED).then_some(messages as usize)
    }

    /// Returns how often a job is leased before it becomes a dead letter; `None` if there is no limit.
    pub fn max_deliveries(&self) -> Option<u16> {
        Some(block::deliveries(self.shared.extents())).filter(|deliveries| *deliveries != 0)
    }

    /// Returns the length of the longest job, in bytes.
    pub fn longest_job(&self) -> usize {
        block::longest_job(self.shared.extents())
    }

    /// Returns the dead letters: jobs that were leased too often without being done.
    pub fn dead_letters(&self) -> DeadLetters<'_, T> {
        DeadLetters::of(self)
    }

    #[inline]
    pub(crate) fn view(&self) -> JobView<'_, Shared<JobBlock<T>>> {
        JobView::new(&self.shared)
    }

    pub(crate) fn get_error(&self, refusal: Refusal) -> GetError {
        GetError::from_refusal(refusal, || self.shared.describe())
    }

    fn put_encoded(&self, message: &[u8], deadline: Deadline) -> Result<(), Refusal> {
        if message.len() > self.longest_job() {
            return Err(Refusal::TooLarge);
        }
        self.view().put(message, deadline)
    }

    #[cold]
    fn put_error<V>(&self, value: V, refusal: Refusal, length: usize) -> PutError<V> {
        PutError::from_refusal(value, refusal, length, self.longest_job(), || self.shared.describe())
    }

    /// Leases a job, whose bytes replace those in `message`. If the caller panics after this, the job returns
    /// to the queue.
    fn lease(&self, message: &mut Vec<u8>, deadline: Deadline) -> Result<(Lease<'_, T>, Leased), GetError> {
        let leased = self.view().lease(message, deadline).map_err(|refusal| self.get_error(refusal))?;
        Ok((Lease::new(self, leased.number), leased))
    }
}

/// Returns what `get` returns, until the queue is closed and every job is done. After a job that cannot be
/// decoded the iterator goes on; after any other error it ends.
fn each<J>(mut get: impl FnMut() -> Result<J, GetError>) -> impl Iterator<Item = Result<J, GetError>> {
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken {
            return None;
        }
        match get() {
            Err(GetError::Closed) => None,
            Err(error) => {
                broken = !matches!(error, GetError::Decode { .. });
                Some(Err(error))
            }
            job => Some(job),
        }
    })
}

impl<T: ?Sized + 'static> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinableQueue")
            .field("object", &self.shared)
            .field("len", &self.len())
            .field("leased", &self.leased())
            .field("unfinished", &self.unfinished())
            .field("dead_letters", &self.dead_letters().len())
            .field("closed", &self.is_closed())
            .finish()
    }
}
