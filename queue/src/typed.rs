//! A queue of values, through serde.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::Transit;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{GetError, PutError};
use crate::queue::Queue;
use multiproc_ring::Messages;
use multiproc_ring::Peer;

/// Typed messages.
impl<T: Serialize + DeserializeOwned + 'static> Queue<T> {
    /// Puts a message, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: closed, too large, not encodable.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_to(value, None, Deadline::NEVER)
    }

    /// Puts a message if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: full, and as [`put`](Self::put).
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_to(value, None, Deadline::NOW)
    }

    /// Puts a message, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: full; busy, if others held the producers' lock until the deadline (a very short one, or one of them is stopped);
    /// and as [`put`](Self::put).
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_to(value, None, Deadline::after(timeout))
    }

    /// Takes a message, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty; not a `T`, then with the bytes.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_from(None, Deadline::NEVER)
    }

    /// Takes a message if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, and as [`get`](Self::get). It is exact: `Empty` means that there was none at an instant of this call.
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_from(None, Deadline::NOW)
    }

    /// Takes a message, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty; busy, if others held the consumers' lock until the deadline (a very short one, or one of them is stopped), so that a message may be
    /// there; and as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_from(None, Deadline::after(timeout))
    }

    /// Puts messages in their order, as many with one lock as there is room for, waiting for more room as long as it takes. Others' messages may come between them.
    ///
    /// Killed in it, this process has put the first so many of them.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue = Queue::new(100)?;
    /// queue.put_many(["a", "b", "c"].map(String::from))?;
    /// let first_two: Result<Vec<_>, _> = queue.get_many(2)?.into_iter().collect();
    /// assert_eq!(first_two?, ["a", "b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PutError`] with those in it that were not put: as [`put`](Self::put). If one cannot be encoded, none is put.
    pub fn put_many(&self, values: impl IntoIterator<Item = T>) -> Result<(), PutError<Vec<T>>> {
        self.put_many_until(values.into_iter().collect(), Deadline::NEVER)
    }

    /// Puts as many of these messages as there is room for.
    ///
    /// # Errors
    ///
    /// [`PutError`] with those in it that were not put: full, and as [`put_many`](Self::put_many).
    pub fn try_put_many(&self, values: impl IntoIterator<Item = T>) -> Result<(), PutError<Vec<T>>> {
        self.put_many_until(values.into_iter().collect(), Deadline::NOW)
    }

    /// Puts messages, waiting for room at most this long in all.
    ///
    /// # Errors
    ///
    /// [`PutError`] with those in it that were not put: full, busy, and as [`put_many`](Self::put_many).
    pub fn put_many_timeout(&self, values: impl IntoIterator<Item = T>, timeout: Duration) -> Result<(), PutError<Vec<T>>> {
        self.put_many_until(values.into_iter().collect(), Deadline::after(timeout))
    }

    /// Takes up to `most` messages with one lock, waiting for the first as long as it takes; fewer than there are if they are long. Those that cannot be decoded are errors among them.
    ///
    /// Killed in it, this process takes none of them, or those that it had just taken with it.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty.
    pub fn get_many(&self, most: usize) -> Result<Vec<Result<T, GetError>>, GetError> {
        self.get_many_until(most, Deadline::NEVER)
    }

    /// Takes up to `most` messages, if there are any.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    pub fn try_get_many(&self, most: usize) -> Result<Vec<Result<T, GetError>>, GetError> {
        self.get_many_until(most, Deadline::NOW)
    }

    /// Takes up to `most` messages, waiting for the first at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    pub fn get_many_timeout(&self, most: usize, timeout: Duration) -> Result<Vec<Result<T, GetError>>, GetError> {
        self.get_many_until(most, Deadline::after(timeout))
    }

    /// Messages as they come, until the queue is closed and empty. An error is an item, too: after one that cannot be decoded it goes on, after any other it ends.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { queue: self, broken: false }
    }

    pub(crate) fn put_to(&self, value: T, others: Option<Peer>, deadline: Deadline) -> Result<(), PutError<T>> {
        let mut buffer = Buffer::take();
        buffer.clear();
        // Encoded before any lock is taken: serde is other people's code.
        let transit = Transit::begin();
        if let Err(problem) = codec::encode(&value, &mut buffer) {
            return Err(PutError::Encode { value, queue: self.shared.describe(), problem: problem.to_string() });
        }
        match self.view().put_to(&buffer, others, deadline) {
            Ok(()) => {
                transit.sent();
                Ok(())
            }
            Err(refusal) => Err(self.put_error(value, refusal, buffer.len())),
        }
    }

    fn put_many_until(&self, mut values: Vec<T>, deadline: Deadline) -> Result<(), PutError<Vec<T>>> {
        let mut messages = Messages::new();
        let mut transits = Vec::with_capacity(values.len());
        for value in &values {
            // Scopes nest, so they are closed from the last to the first.
            transits.push(Transit::begin());
            if let Err(problem) = codec::encode(value, messages.bytes_mut()) {
                while transits.pop().is_some() {}
                return Err(PutError::Encode { value: values, queue: self.shared.describe(), problem: problem.to_string() });
            }
            messages.end_one();
        }
        let mut done = 0;
        let result = self.view().put_many(&messages, &mut done, deadline);
        while transits.len() > done {
            transits.pop();
        }
        while let Some(transit) = transits.pop() {
            transit.sent();
        }
        result.map_err(|refusal| {
            values.drain(..done);
            self.put_error(values, refusal, messages.get(done).map_or(0, <[u8]>::len))
        })
    }

    pub(crate) fn get_from(&self, others: Option<Peer>, deadline: Deadline) -> Result<T, GetError> {
        let mut buffer = Buffer::take();
        self.view().get_from(&mut *buffer, others, deadline).map_err(|refusal| self.get_error(refusal))?;
        self.decode(&buffer)
    }

    fn get_many_until(&self, most: usize, deadline: Deadline) -> Result<Vec<Result<T, GetError>>, GetError> {
        let mut messages = Messages::new();
        self.view().get_many(&mut messages, most, deadline).map_err(|refusal| self.get_error(refusal))?;
        Ok(messages.iter().map(|message| self.decode(message)).collect())
    }

    pub(crate) fn decode(&self, message: &[u8]) -> Result<T, GetError> {
        let failed = |problem: postcard::Error| GetError::Decode {
            queue: self.shared.describe(),
            bytes: message.to_vec(),
            problem: problem.to_string(),
        };
        codec::decode(message).map_err(failed)
    }
}

/// Messages as they come; see [`Queue::iter`].
#[derive(Debug)]
pub struct Iter<'a, T: 'static> {
    queue: &'a Queue<T>,
    broken: bool,
}

impl<T: Serialize + DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = Result<T, GetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        match self.queue.get() {
            Err(GetError::Closed) => None,
            Err(error) => {
                self.broken = !matches!(error, GetError::Decode { .. });
                Some(Err(error))
            }
            Ok(value) => Some(Ok(value)),
        }
    }
}

impl<'a, T: Serialize + DeserializeOwned> IntoIterator for &'a Queue<T> {
    type Item = Result<T, GetError>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Buffers above this are given back after use.
const KEPT: usize = 1 << 20;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// This thread's buffer, while it is in use; a nested call (a message that puts a message while it is encoded) gets one of its own. A value, and not a closure with the buffer, through which each result would be moved once more.
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    #[inline]
    pub(crate) fn take() -> Self {
        Self(BUFFER.try_with(Cell::take).unwrap_or_default())
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if self.0.capacity() <= KEPT {
            let buffer = std::mem::take(&mut self.0);
            let _ = BUFFER.try_with(|kept| kept.set(buffer));
        }
    }
}
