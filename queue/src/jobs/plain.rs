//! Jobs that are the bytes of a plain value.

use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::{InFlight, Pod, bytemuck};

use super::{DeadLetter, Job, JoinableQueue, each};
use crate::error::{GetError, PutError};
use crate::plain::Plain;
use crate::typed::Buffer;

/// Plain values, as their bytes.
impl<T: Pod> JoinableQueue<Plain<T>> {
    /// Puts a job; waits while the queue is full.
    ///
    /// ```
    /// use multiproc_queue::{JoinableQueue, Plain};
    ///
    /// let queue: JoinableQueue<Plain<[f32; 2]>> = JoinableQueue::new(16)?;
    /// queue.put_plain(&[0.5, 1.5])?;
    /// let job = queue.get_plain()?;
    /// assert_eq!((*job, job.attempts()), ([0.5, 1.5], 1));
    /// job.done();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn put_plain(&self, job: &T) -> Result<(), PutError<()>> {
        self.put_plain_until(job, Deadline::NEVER)
    }

    /// Puts a job if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn try_put_plain(&self, job: &T) -> Result<(), PutError<()>> {
        self.put_plain_until(job, Deadline::NOW)
    }

    /// Puts a job; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn put_plain_timeout(&self, job: &T, timeout: Duration) -> Result<(), PutError<()>> {
        self.put_plain_until(job, Deadline::after(timeout))
    }

    /// Leases a job; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed`, once every job is done that this thread does not hold itself; `Decode` with the bytes, if there are more or fewer than in a `T`: that counts as a delivery, and the job returns to the queue.
    pub fn get_plain(&self) -> Result<Job<'_, T, Plain<T>>, GetError> {
        self.get_plain_until(Deadline::NEVER)
    }

    /// Leases a job if there is one and fewer than [`MAX_LEASES`](crate::MAX_LEASES) are leased; does not
    /// wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_plain`](Self::get_plain).
    pub fn try_get_plain(&self) -> Result<Job<'_, T, Plain<T>>, GetError> {
        self.get_plain_until(Deadline::NOW)
    }

    /// Leases a job; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_plain`](Self::get_plain).
    pub fn get_plain_timeout(&self, timeout: Duration) -> Result<Job<'_, T, Plain<T>>, GetError> {
        self.get_plain_until(Deadline::after(timeout))
    }

    /// Returns jobs as they arrive, until the queue is closed and everything is done. An error is an item,
    /// too. After a job of another length the iterator goes on; after any other error it ends.
    pub fn iter_plain(&self) -> impl Iterator<Item = Result<Job<'_, T, Plain<T>>, GetError>> {
        each(|| self.get_plain())
    }

    fn put_plain_until(&self, job: &T, deadline: Deadline) -> Result<(), PutError<()>> {
        self.put_encoded(bytemuck::bytes_of(job), deadline)
            .map_err(|refusal| self.put_error((), refusal, size_of::<T>()))
    }

    fn get_plain_until(&self, deadline: Deadline) -> Result<Job<'_, T, Plain<T>>, GetError> {
        let mut buffer = Buffer::take();
        let (lease, leased) = self.lease(&mut buffer, deadline)?;
        let value = plain(&buffer, || self.shared.describe())?;
        Ok(Job::new(lease, value, leased, InFlight::default()))
    }
}

impl<T: Pod> DeadLetter<Plain<T>> {
    /// Returns the job.
    ///
    /// # Errors
    ///
    /// [`GetError::Decode`]: it has another length than a `T`.
    pub fn plain(&self) -> Result<T, GetError> {
        plain(self.bytes(), || "a dead letter".to_owned())
    }
}

fn plain<T: Pod>(bytes: &[u8], queue: impl FnOnce() -> String) -> Result<T, GetError> {
    bytemuck::try_pod_read_unaligned(bytes).map_err(|_| GetError::Decode {
        queue: queue(),
        bytes: bytes.to_vec(),
        problem: format!("its type has {} bytes", size_of::<T>()),
    })
}
