//! A queue of byte messages, without serde.

use std::time::Duration;

use multiproc_robust::Deadline;

use crate::error::{GetError, PutError};
use crate::queue::Queue;
use multiproc_ring::Messages;
use multiproc_ring::Peer;

/// Byte messages, without serde.
impl Queue<[u8]> {
    /// Puts a message; waits while the queue is full.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue: Queue<[u8]> = Queue::new(16)?;
    /// queue.put_bytes(b"raw")?;
    /// assert_eq!(queue.get_bytes()?, b"raw");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    #[inline]
    pub fn put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.put_bytes_until(message, Deadline::NEVER)
    }

    /// Puts a message if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    #[inline]
    pub fn try_put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.put_bytes_until(message, Deadline::NOW)
    }

    /// Puts a message; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn put_bytes_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
        self.put_bytes_until(message, Deadline::after(timeout))
    }

    /// Takes the oldest message; waits while the queue is empty.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `NoMemory`, `Broken`.
    pub fn get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.fresh(None, Deadline::NEVER)
    }

    /// Takes the oldest message if there is one; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn try_get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.fresh(None, Deadline::NOW)
    }

    /// Takes the oldest message; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn get_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.fresh(None, Deadline::after(timeout))
    }

    /// Takes the oldest message into the caller's vector, whose contents it replaces and whose memory it
    /// reuses; waits while the queue is empty.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `NoMemory`, `Broken`.
    #[inline]
    pub fn get_into(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_into_until(message, Deadline::NEVER)
    }

    /// Takes the oldest message into the caller's vector if there is one; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    #[inline]
    pub fn try_get_into(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_into_until(message, Deadline::NOW)
    }

    /// Takes the oldest message into the caller's vector; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn get_into_timeout(&self, message: &mut Vec<u8>, timeout: Duration) -> Result<(), GetError> {
        self.get_into_until(message, Deadline::after(timeout))
    }

    /// Puts messages in their order, as many under one lock as there is room for; waits for more room.
    ///
    /// If this process is killed meanwhile, it has put some of the first of them, each whole.
    ///
    /// # Errors
    ///
    /// [`PutError`], with the number of messages that were put: `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn put_many_bytes(&self, messages: &Messages) -> Result<(), PutError<usize>> {
        self.put_many_bytes_until(messages, Deadline::NEVER)
    }

    /// Puts as many of these messages as there is room for; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`], with the number of messages that were put: `Full`, `Busy`, and as
    /// [`put_many_bytes`](Self::put_many_bytes).
    pub fn try_put_many_bytes(&self, messages: &Messages) -> Result<(), PutError<usize>> {
        self.put_many_bytes_until(messages, Deadline::NOW)
    }

    /// Puts messages; waits at most `timeout` in all for room.
    ///
    /// # Errors
    ///
    /// [`PutError`], with the number of messages that were put: `Full`, `Busy`, and as
    /// [`put_many_bytes`](Self::put_many_bytes).
    pub fn put_many_bytes_timeout(
        &self,
        messages: &Messages,
        timeout: Duration,
    ) -> Result<(), PutError<usize>> {
        self.put_many_bytes_until(messages, Deadline::after(timeout))
    }

    /// Takes up to `most` messages under one lock and appends them to `messages`; waits for the first. One
    /// call takes at least one message, and no more bytes than [`messages`](Messages::with_capacity) has room
    /// for.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `NoMemory`, `Broken`.
    pub fn get_many_into(&self, messages: &mut Messages, most: usize) -> Result<(), GetError> {
        self.get_many_into_until(messages, most, Deadline::NEVER)
    }

    /// Takes up to `most` messages, if there are any; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn try_get_many_into(&self, messages: &mut Messages, most: usize) -> Result<(), GetError> {
        self.get_many_into_until(messages, most, Deadline::NOW)
    }

    /// Takes up to `most` messages; waits at most `timeout` for the first.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn get_many_into_timeout(
        &self,
        messages: &mut Messages,
        most: usize,
        timeout: Duration,
    ) -> Result<(), GetError> {
        self.get_many_into_until(messages, most, Deadline::after(timeout))
    }

    #[inline]
    fn get_into_until(&self, message: &mut Vec<u8>, deadline: Deadline) -> Result<(), GetError> {
        self.view().get(message, deadline).map_err(|refusal| self.get_error(refusal))
    }

    fn put_many_bytes_until(&self, messages: &Messages, deadline: Deadline) -> Result<(), PutError<usize>> {
        let mut done = 0;
        let result = self.view().put_many(messages, &mut done, deadline);
        result.map_err(|refusal| self.put_error(done, refusal, messages.get(done).map_or(0, <[u8]>::len)))
    }

    fn get_many_into_until(
        &self,
        messages: &mut Messages,
        most: usize,
        deadline: Deadline,
    ) -> Result<(), GetError> {
        self.view().get_many(messages, most, deadline).map_err(|refusal| self.get_error(refusal))
    }

    pub(crate) fn fresh(&self, peer: Option<Peer>, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        let view = self.view();
        let mut message = Vec::new();
        // If this fails, so will the get, whose error knows the length of the message.
        let _ = message.try_reserve_exact(view.next_length().unwrap_or(0));
        view.get_from(&mut message, peer, deadline).map_err(|refusal| self.get_error(refusal))?;
        Ok(message)
    }
}
