//! A queue of bytes, as they are.

use std::time::Duration;

use multiproc_robust::Deadline;

use crate::error::{GetError, PutError};
use crate::queue::Queue;
use multiproc_ring::Messages;
use multiproc_ring::Peer;

/// Bytes as they are, without serde.
impl Queue<[u8]> {
    /// Puts a message, waiting for room as long as it takes.
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
    /// [`PutError`]: closed, too large.
    #[inline]
    pub fn put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.put_bytes_until(message, Deadline::NEVER)
    }

    /// Puts a message if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, closed, too large.
    #[inline]
    pub fn try_put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.put_bytes_until(message, Deadline::NOW)
    }

    /// Puts a message, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, closed, too large.
    pub fn put_bytes_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
        self.put_bytes_until(message, Deadline::after(timeout))
    }

    /// Takes a message, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty.
    pub fn get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.fresh(None, Deadline::NEVER)
    }

    /// Takes a message if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, closed.
    pub fn try_get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.fresh(None, Deadline::NOW)
    }

    /// Takes a message, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, closed.
    pub fn get_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.fresh(None, Deadline::after(timeout))
    }

    /// Takes a message into a vector that the caller uses again and again; its content is replaced.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty.
    #[inline]
    pub fn get_into(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_into_until(message, Deadline::NEVER)
    }

    /// Takes a message into the caller's vector, if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    #[inline]
    pub fn try_get_into(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_into_until(message, Deadline::NOW)
    }

    /// Takes a message into the caller's vector, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    pub fn get_into_timeout(&self, message: &mut Vec<u8>, timeout: Duration) -> Result<(), GetError> {
        self.get_into_until(message, Deadline::after(timeout))
    }

    /// Puts messages in their order, as many with one lock as there is room for, waiting for more room as long as it takes.
    ///
    /// Killed in it, this process has put the first so many of them.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the number of those that were put: closed, too large, no space.
    pub fn put_many_bytes(&self, messages: &Messages) -> Result<(), PutError<usize>> {
        self.put_many_bytes_until(messages, Deadline::NEVER)
    }

    /// Puts as many of these messages as there is room for.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the number of those that were put: full, and as [`put_many_bytes`](Self::put_many_bytes).
    pub fn try_put_many_bytes(&self, messages: &Messages) -> Result<(), PutError<usize>> {
        self.put_many_bytes_until(messages, Deadline::NOW)
    }

    /// Puts messages, waiting for room at most this long in all.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the number of those that were put: full, busy, and as [`put_many_bytes`](Self::put_many_bytes).
    pub fn put_many_bytes_timeout(&self, messages: &Messages, timeout: Duration) -> Result<(), PutError<usize>> {
        self.put_many_bytes_until(messages, Deadline::after(timeout))
    }

    /// Takes up to `most` messages with one lock and appends them to `messages`, waiting for the first as long as it takes. One call takes no more bytes than
    /// [`messages`](Messages::with_capacity) has room for, but at least one message.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty.
    pub fn get_many_into(&self, messages: &mut Messages, most: usize) -> Result<(), GetError> {
        self.get_many_into_until(messages, most, Deadline::NEVER)
    }

    /// Takes up to `most` messages, if there are any.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    pub fn try_get_many_into(&self, messages: &mut Messages, most: usize) -> Result<(), GetError> {
        self.get_many_into_until(messages, most, Deadline::NOW)
    }

    /// Takes up to `most` messages, waiting for the first at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    pub fn get_many_into_timeout(&self, messages: &mut Messages, most: usize, timeout: Duration) -> Result<(), GetError> {
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

    fn get_many_into_until(&self, messages: &mut Messages, most: usize, deadline: Deadline) -> Result<(), GetError> {
        self.view().get_many(messages, most, deadline).map_err(|refusal| self.get_error(refusal))
    }

    pub(crate) fn fresh(&self, others: Option<Peer>, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        let view = self.view();
        let mut message = Vec::new();
        // If it fails, so does the get, which knows the message.
        let _ = message.try_reserve_exact(view.next_length().unwrap_or(0));
        view.get_from(&mut message, others, deadline).map_err(|refusal| self.get_error(refusal))?;
        Ok(message)
    }
}
