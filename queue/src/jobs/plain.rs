//! Jobs that are the bytes of a plain value.

use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::{Pod, Tickets, bytemuck};

use super::{DeadLetter, Job, JoinableQueue, each};
use crate::error::{GetError, PutError};
use crate::plain::Plain;
use crate::typed::Buffer;

/// Plain values, as their bytes.
impl<T: Pod> JoinableQueue<Plain<T>> {
    /// Puts a job, waiting for room as long as it takes.
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
    /// [`PutError`]: closed, too large.
    pub fn put_plain(&self, job: &T) -> Result<(), PutError<()>> {
        self.put_plain_until(job, Deadline::NEVER)
    }

    /// Puts a job if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, closed, too large.
    pub fn try_put_plain(&self, job: &T) -> Result<(), PutError<()>> {
        self.put_plain_until(job, Deadline::NOW)
    }

    /// Puts a job, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, busy, closed, too large.
    pub fn put_plain_timeout(&self, job: &T, timeout: Duration) -> Result<(), PutError<()>> {
        self.put_plain_until(job, Deadline::after(timeout))
    }

    /// Leases a job, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed, and everything is done (but for what this thread itself has in its hands); of another length, then with its bytes: that was a delivery, and the job came back.
    pub fn get_plain(&self) -> Result<Job<'_, T, Plain<T>>, GetError> {
        self.get_plain_until(Deadline::NEVER)
    }

    /// Leases a job if there is one, and fewer than [`MAX_LEASES`](crate::MAX_LEASES) are out.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, and as [`get_plain`](Self::get_plain).
    pub fn try_get_plain(&self) -> Result<Job<'_, T, Plain<T>>, GetError> {
        self.get_plain_until(Deadline::NOW)
    }

    /// Leases a job, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty; busy; and as [`get_plain`](Self::get_plain).
    pub fn get_plain_timeout(&self, timeout: Duration) -> Result<Job<'_, T, Plain<T>>, GetError> {
        self.get_plain_until(Deadline::after(timeout))
    }

    /// Jobs as they come, until the queue is closed and everything is done. An error is an item, too: after one of another length it goes on, after any other it ends.
    pub fn iter_plain(&self) -> impl Iterator<Item = Result<Job<'_, T, Plain<T>>, GetError>> {
        each(|| self.get_plain())
    }

    fn put_plain_until(&self, job: &T, deadline: Deadline) -> Result<(), PutError<()>> {
        self.put_encoded(bytemuck::bytes_of(job), deadline).map_err(|refusal| self.put_error((), refusal, size_of::<T>()))
    }

    fn get_plain_until(&self, deadline: Deadline) -> Result<Job<'_, T, Plain<T>>, GetError> {
        let mut buffer = Buffer::take();
        let (lease, leased) = self.lease(&mut buffer, deadline)?;
        let value = plain(&buffer, || self.shared.describe())?;
        Ok(Job::new(lease, value, leased, Tickets::default()))
    }
}

impl<T: Pod> DeadLetter<Plain<T>> {
    /// The job.
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
