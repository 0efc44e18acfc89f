//! [`JoinableQueue`]: what it promises. How jobs are handed out and come back is in `ring/lease.rs`.

use std::fmt;
use std::time::Duration;

use multiproc_shm::{Deadline, Reading, Shared, Transit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::{GetError, NothingTaken, PutError};
use crate::log::UNBOUNDED;
use crate::ring::View;
use crate::typed::with_buffer;
use crate::verbs::verbs;

pub(crate) mod block;
mod job;
mod letters;

pub use block::{JobBlock, JobLimits, MOST_OUT};
pub use job::{Holder, Job};
pub use letters::{DeadLetter, DeadLetters};

/// A queue of jobs (Python's `JoinableQueue`): what is got is *leased*, and comes back if whoever got it dies before it is done.
///
/// [`get`](Self::get) hands out a [`Job`]. Its message stays in shared memory until [`done`](Job::done); a job that is dropped without that is given back, and so is one whose holder dies:
/// at once, since the kernel tells, and to the front (where more than four jobs are out and more wait, within the next few gets). [`join`](Self::join) waits until everything that was put is done.
///
/// At most [`MOST_OUT`] (120) jobs are out at a time; who asks for one more waits until one is done. A job that was handed out too often ([`JobLimits::max_deliveries`]; 5 times, if nothing is said) and
/// came back each time is a [dead letter](Self::dead_letters): it counts as done, and waits there for somebody to look at it.
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
    pub fn out(&self) -> usize {
        self.view().out()
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
    pub(crate) fn view(&self) -> View<'_, Shared<JobBlock<T>>> {
        View { memory: &self.shared }
    }

    pub(crate) fn get_error(&self, refusal: crate::ring::Refusal) -> GetError {
        GetError::from_refusal(refusal, || self.shared.describe())
    }
}

/// Jobs.
impl<T: Serialize + DeserializeOwned + 'static> JoinableQueue<T> {
    /// Puts a job, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: closed, too large, not encodable.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::NEVER)
    }

    /// Puts a job if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: full, and as [`put`](Self::put).
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::NOW)
    }

    /// Puts a job, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: full, busy, and as [`put`](Self::put).
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::after(timeout))
    }

    /// Leases a job, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed, and everything is done (but for what this thread itself has in its hands); not a `T`, then with the bytes: that was a delivery, and the job came back.
    pub fn get(&self) -> Result<Job<'_, T>, GetError> {
        self.get_until(Deadline::NEVER)
    }

    /// Leases a job if there is one, and fewer than [`MOST_OUT`] are out.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, and as [`get`](Self::get).
    pub fn try_get(&self) -> Result<Job<'_, T>, GetError> {
        self.get_until(Deadline::NOW)
    }

    /// Leases a job, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty; busy; and as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Job<'_, T>, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Jobs as they come, until the queue is closed and everything is done. An error is an item, too: after one that cannot be decoded it goes on, after any other it ends.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// let queue = JoinableQueue::new(16)?;
    /// queue.put(1_u32)?;
    /// queue.close();
    /// for job in queue.iter() {
    ///     let job = job?;
    ///     assert_eq!(*job, 1);
    ///     job.done();
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<Job<'_, T>, GetError>> {
        let mut broken = false;
        std::iter::from_fn(move || {
            if broken {
                return None;
            }
            match self.get() {
                Err(GetError::Closed) => None,
                Err(error) => {
                    broken = !matches!(error, GetError::Decode { .. });
                    Some(Err(error))
                }
                job => Some(job),
            }
        })
    }

    /// Python's `get`: the value of a job, which stays this thread's until it says [`task_done`](Self::task_done). For programs that are ported; a [`Job`] cannot be forgotten.
    ///
    /// # When a process dies
    ///
    /// As with a [`Job`]: when this *thread* ends without `task_done`, the job comes back.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// let queue = JoinableQueue::new(16)?;
    /// queue.put(7_u32)?;
    /// assert_eq!(queue.take()?, 7);
    /// assert_eq!(queue.unfinished(), 1);
    /// queue.task_done()?;
    /// queue.join()?;
    /// assert!(queue.task_done().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn take(&self) -> Result<T, GetError> {
        Ok(self.get()?.leave_to_task_done())
    }

    /// Says that the oldest job is done that this thread has [taken](Self::take).
    ///
    /// # Errors
    ///
    /// [`NothingTaken`]: called too many times, or by another thread.
    pub fn task_done(&self) -> Result<(), NothingTaken> {
        let view = self.view();
        view.first_taken().filter(|slot| view.finish(*slot)).map(|_| ()).ok_or(NothingTaken)
    }

    fn put_until(&self, value: T, deadline: Deadline) -> Result<(), PutError<T>> {
        with_buffer(|buffer| {
            buffer.clear();
            // Encoded before any lock is taken: serde is other people's code.
            let transit = Transit::begin();
            let queue = || self.shared.describe();
            if let Err(problem) = codec::encode(&value, buffer) {
                return Err(PutError::Encode { value, queue: queue(), problem: problem.to_string() });
            }
            let (length, longest) = (buffer.len(), self.longest_job());
            if length > longest {
                return Err(PutError::TooLarge { value, queue: queue(), length, longest });
            }
            match self.view().put(buffer, deadline) {
                Ok(()) => {
                    transit.sent();
                    Ok(())
                }
                Err(refusal) => Err(PutError::from_refusal(value, refusal, length, longest, queue)),
            }
        })
    }

    fn get_until(&self, deadline: Deadline) -> Result<Job<'_, T>, GetError> {
        with_buffer(|buffer| {
            let leased = self.view().lease(buffer, deadline).map_err(|refusal| self.get_error(refusal))?;
            // From here on a panic of other people's code gives it back.
            let lease = job::Lease::new(self, leased.slot);
            let reading = Reading::begin();
            let value = decode(buffer, || self.shared.describe())?;
            Ok(Job::new(lease, value, leased, reading.end()))
        })
    }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], queue: impl FnOnce() -> String) -> Result<T, GetError> {
    codec::decode(bytes).map_err(|problem| GetError::Decode {
        queue: queue(),
        bytes: bytes.to_vec(),
        problem: problem.to_string(),
    })
}

impl<T: ?Sized + 'static> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinableQueue")
            .field("object", &self.shared)
            .field("len", &self.len())
            .field("out", &self.out())
            .field("unfinished", &self.unfinished())
            .field("dead_letters", &self.dead_letters().len())
            .field("closed", &self.is_closed())
            .finish()
    }
}
