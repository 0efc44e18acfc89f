//! [`JoinableQueue`]: what it promises. How jobs are handed out and come back is in `ring/lease.rs`.

use std::fmt;
use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::Shared;
use serde::{Deserialize, Serialize};

use crate::error::{GetError, PutError};
use crate::jobs::lease::{JobView, Leased};
use crate::verbs::verbs;
use multiproc_ring::Refusal;
use multiproc_ring::UNBOUNDED;

pub(crate) mod block;
mod bytes;
mod job;
pub(crate) mod lease;
mod letters;
mod plain;
mod typed;

pub use block::{JobBlock, JobLimits, MAX_LEASES};
use job::Lease;
pub use job::{Holder, Job};
pub use letters::{DeadLetter, DeadLetters};

/// A queue of jobs (Python's `JoinableQueue`): what is got is *leased*, and comes back if whoever got it dies before it is done.
///
/// [`get`](Self::get) hands out a [`Job`]. Its message stays in shared memory until [`done`](Job::done); a job that is dropped without that is given back, and so is one whose holder dies:
/// at once, since the kernel tells, and to the front (where more than four jobs are out and more wait, within the next few gets). [`join`](Self::join) waits until everything that was put is done.
///
/// At most [`MAX_LEASES`] (120) jobs are out at a time; who asks for one more waits until one is done. A job that was handed out too often ([`JobLimits::max_deliveries`]; 5 times, if nothing is said) and
/// came back each time is a [dead letter](Self::dead_letters): it counts as done, and waits there for somebody to look at it.
///
/// [`JoinableQueue<[u8]>`](JoinableQueue#impl-JoinableQueue<[u8]>) carries bytes as they are, `JoinableQueue<Plain<T>>` [plain values](crate::Plain); any other `T` travels through serde.
///
/// # When a process dies
///
/// Killed in `put`, its job is there wholly or not at all. Killed in `get` or with jobs in its hands, they come back, and whoever waits gets them: no job that was put is ever lost, and none is handed out while its holder lives, stopped or not.
/// Killed in `done`, the job is done, or comes back. So work is done *at least* once: a holder that dies after the work and before `done` leaves a job that will be done again.
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
/// drop(job); // as if we had died
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

verbs!(JoinableQueue, JobBlock, "joinable queue", limits: JobLimits);

/// Looking, and closing.
impl<T: ?Sized + 'static> JoinableQueue<T> {
    /// No more puts, in any process. Gets go on until everything is done, also what others have in their hands now and may give back, and find it closed then. Idempotent.
    pub fn close(&self) {
        self.view().close_jobs();
    }

    /// Whether somebody has closed it.
    pub fn is_closed(&self) -> bool {
        self.view().is_closed()
    }

    /// Waits until everything that was put is done, or a dead letter.
    ///
    /// # Errors
    ///
    /// [`GetError::Broken`]: this thread cannot sleep for it.
    pub fn join(&self) -> Result<(), GetError> {
        self.view().join(Deadline::NEVER).map_err(|refusal| self.get_error(refusal))
    }

    /// Waits at most this long; whether everything is done.
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

    /// Jobs that were put and are not done: those that wait, those that are out, those that came back. A snapshot; 0 only if there was an instant in this call when all was done.
    pub fn unfinished(&self) -> usize {
        self.view().unfinished()
    }

    /// Jobs that nobody has had yet, a snapshot.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there is no such job, a snapshot.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Whether as many jobs wait as may, a snapshot.
    pub fn is_full(&self) -> bool {
        self.capacity().is_some_and(|capacity| self.len() >= capacity)
    }

    /// Jobs that are in somebody's hands, a snapshot.
    pub fn leased(&self) -> usize {
        self.view().leased()
    }

    /// Jobs that can wait in it; `None` if there is no limit.
    pub fn capacity(&self) -> Option<usize> {
        let messages = self.view().log().sizes.messages;
        (messages != UNBOUNDED).then_some(messages as usize)
    }

    /// How often a job is handed out before it is a dead letter; `None` if there is no limit.
    pub fn max_deliveries(&self) -> Option<u16> {
        Some(block::deliveries(self.shared.extents())).filter(|deliveries| *deliveries != 0)
    }

    /// Bytes of the longest job that it takes.
    pub fn longest_job(&self) -> usize {
        block::longest_job(self.shared.extents())
    }

    /// The jobs that nobody got done.
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

    /// Leases a job, whose bytes replace those in `message`. A panic from here on gives it back.
    fn lease(&self, message: &mut Vec<u8>, deadline: Deadline) -> Result<(Lease<'_, T>, Leased), GetError> {
        let leased = self.view().lease(message, deadline).map_err(|refusal| self.get_error(refusal))?;
        Ok((Lease::new(self, leased.slot), leased))
    }
}

/// What this gets, until the queue is closed and everything is done. An error is an item, too: after one that cannot be decoded it goes on, after any other it ends.
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
