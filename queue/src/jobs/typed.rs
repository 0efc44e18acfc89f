//! Jobs that travel through serde.

use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::{Reading, Transit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Job, JoinableQueue, each};
use crate::codec;
use crate::error::{GetError, NothingTaken, PutError};
use crate::typed::Buffer;

/// Jobs.
impl<T: Serialize + DeserializeOwned + 'static> JoinableQueue<T> {
    /// Puts a job; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the value: `Closed`, `TooLarge`, `NoSpace`, `Encode`, `Broken`.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::NEVER)
    }

    /// Puts a job if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the value: `Full`, `Busy`, and as [`put`](Self::put).
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::NOW)
    }

    /// Puts a job; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the value: `Full`, `Busy`, and as [`put`](Self::put).
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::after(timeout))
    }

    /// Leases a job; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed`, once every job is done that this thread does not hold itself; `Decode` with the bytes, if they are not a `T`: that counts as a delivery, and the job returns to the queue.
    pub fn get(&self) -> Result<Job<'_, T>, GetError> {
        self.get_until(Deadline::NEVER)
    }

    /// Leases a job if there is one and fewer than [`MAX_LEASES`](crate::MAX_LEASES) are leased; does not
    /// wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get`](Self::get).
    pub fn try_get(&self) -> Result<Job<'_, T>, GetError> {
        self.get_until(Deadline::NOW)
    }

    /// Leases a job; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Job<'_, T>, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Returns jobs as they arrive, until the queue is closed and everything is done. An error is an item,
    /// too. After a message that cannot be decoded the iterator goes on; after any other error it ends.
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
        each(|| self.get())
    }

    /// Leases a job and returns its value; the job stays leased to this thread until
    /// [`task_done`](Self::task_done). This is Python's `get`, for ported programs; a [`Job`] cannot be
    /// forgotten.
    ///
    /// # When a process dies
    ///
    /// As with a [`Job`]: if this *thread* ends without `task_done`, the job returns to the queue.
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
        self.take_until(Deadline::NEVER)
    }

    /// [Takes](Self::take) a job if there is one; does not wait (Python's `get_nowait`).
    ///
    /// # Errors
    ///
    /// As [`try_get`](Self::try_get).
    pub fn try_take(&self) -> Result<T, GetError> {
        self.take_until(Deadline::NOW)
    }

    /// [Takes](Self::take) a job; waits at most `timeout` for one (Python's `get` with a time-out).
    ///
    /// # Errors
    ///
    /// As [`get_timeout`](Self::get_timeout).
    pub fn take_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.take_until(Deadline::after(timeout))
    }

    /// Marks the oldest job as done that this thread has [taken](Self::take).
    ///
    /// # Errors
    ///
    /// [`NothingTaken`]: called more often than this thread has taken jobs.
    pub fn task_done(&self) -> Result<(), NothingTaken> {
        let view = self.view();
        view.first_taken().filter(|number| view.finish(*number)).map(|_| ()).ok_or(NothingTaken)
    }

    fn put_until(&self, value: T, deadline: Deadline) -> Result<(), PutError<T>> {
        let mut buffer = Buffer::take();
        buffer.clear();
        // Encoded before any lock is taken: the implementation of `Serialize` is user code.
        let transit = Transit::begin();
        if let Err(problem) = codec::encode(&value, &mut buffer) {
            return Err(PutError::Encode {
                value,
                queue: self.shared.describe(),
                problem: problem.to_string(),
            });
        }
        match self.put_encoded(&buffer, deadline) {
            Ok(()) => {
                transit.sent();
                Ok(())
            }
            Err(refusal) => Err(self.put_error(value, refusal, buffer.len())),
        }
    }

    fn take_until(&self, deadline: Deadline) -> Result<T, GetError> {
        Ok(self.get_until(deadline)?.leave_to_task_done())
    }

    fn get_until(&self, deadline: Deadline) -> Result<Job<'_, T>, GetError> {
        let mut buffer = Buffer::take();
        let (lease, leased) = self.lease(&mut buffer, deadline)?;
        let reading = Reading::begin();
        let value = decode(&buffer, || self.shared.describe())?;
        Ok(Job::new(lease, value, leased, reading.end()))
    }
}

pub(crate) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    queue: impl FnOnce() -> String,
) -> Result<T, GetError> {
    codec::decode(bytes).map_err(|problem| GetError::Decode {
        queue: queue(),
        bytes: bytes.to_vec(),
        problem: problem.to_string(),
    })
}
