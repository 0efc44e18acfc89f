//! Jobs of bytes, without serde.

use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::InFlight;

use super::{Job, JoinableQueue, each};
use crate::error::{GetError, PutError};

/// Jobs of bytes, without serde. [Dead letters](JoinableQueue::dead_letters) return them by
/// [`bytes`](crate::DeadLetter::bytes).
impl JoinableQueue<[u8]> {
    /// Puts a job; waits while the queue is full.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// let queue: JoinableQueue<[u8]> = JoinableQueue::new(16)?;
    /// queue.put_bytes(b"raw")?;
    /// let job = queue.get_bytes()?;
    /// assert_eq!((&job[..], job.attempts()), (&b"raw"[..], 1));
    /// job.done();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn put_bytes(&self, job: &[u8]) -> Result<(), PutError<()>> {
        self.put_bytes_until(job, Deadline::NEVER)
    }

    /// Puts a job if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn try_put_bytes(&self, job: &[u8]) -> Result<(), PutError<()>> {
        self.put_bytes_until(job, Deadline::NOW)
    }

    /// Puts a job; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn put_bytes_timeout(&self, job: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
        self.put_bytes_until(job, Deadline::after(timeout))
    }

    /// Leases a job; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed`, once every job is done that this thread does not hold itself.
    pub fn get_bytes(&self) -> Result<Job<'_, Vec<u8>, [u8]>, GetError> {
        self.get_bytes_until(Deadline::NEVER)
    }

    /// Leases a job if there is one and fewer than [`MAX_LEASES`](crate::MAX_LEASES) are leased; does not
    /// wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_bytes`](Self::get_bytes).
    pub fn try_get_bytes(&self) -> Result<Job<'_, Vec<u8>, [u8]>, GetError> {
        self.get_bytes_until(Deadline::NOW)
    }

    /// Leases a job; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_bytes`](Self::get_bytes).
    pub fn get_bytes_timeout(&self, timeout: Duration) -> Result<Job<'_, Vec<u8>, [u8]>, GetError> {
        self.get_bytes_until(Deadline::after(timeout))
    }

    /// Returns jobs as they arrive, until the queue is closed and everything is done. An error is the last
    /// item.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// let queue: JoinableQueue<[u8]> = JoinableQueue::new(16)?;
    /// queue.put_bytes(b"one")?;
    /// queue.close();
    /// for job in queue.iter_bytes() {
    ///     let job = job?;
    ///     assert_eq!(*job, b"one");
    ///     job.done();
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter_bytes(&self) -> impl Iterator<Item = Result<Job<'_, Vec<u8>, [u8]>, GetError>> {
        each(|| self.get_bytes())
    }

    fn put_bytes_until(&self, job: &[u8], deadline: Deadline) -> Result<(), PutError<()>> {
        self.put_encoded(job, deadline).map_err(|refusal| self.put_error((), refusal, job.len()))
    }

    fn get_bytes_until(&self, deadline: Deadline) -> Result<Job<'_, Vec<u8>, [u8]>, GetError> {
        let mut job = Vec::new();
        // A guess: another job may be leased. If this fails, so will the lease, whose error knows the length
        // of the job.
        let _ = job.try_reserve_exact(self.view().next_length().unwrap_or(0));
        let (lease, leased) = self.lease(&mut job, deadline)?;
        Ok(Job::new(lease, job, leased, InFlight::default()))
    }
}
