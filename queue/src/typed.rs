//! A queue of values that travel through serde.

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
    /// Puts a message; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the value: `Closed`, `TooLarge`, `NoSpace`, `Encode`, `Broken`.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_to(value, None, Deadline::NEVER)
    }

    /// Puts a message if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the value: `Full`, `Busy`, and as [`put`](Self::put).
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_to(value, None, Deadline::NOW)
    }

    /// Puts a message; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the value: `Full`; `Busy`, if other producers held the lock of their side
    /// until the deadline (a very short one, or one of them is stopped); and as [`put`](Self::put).
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_to(value, None, Deadline::after(timeout))
    }

    /// Takes the oldest message; waits while the queue is empty.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `Decode` (with the bytes, if they are not a `T`), `NoMemory`, `Broken`.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_from(None, Deadline::NEVER)
    }

    /// Takes the oldest message if there is one; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get`](Self::get). `Empty` is exact: there was an instant in this call at which the queue was empty.
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_from(None, Deadline::NOW)
    }

    /// Takes the oldest message; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`; `Busy`, if other consumers held the lock of their side until the deadline (a very short one, or one of them is stopped), so that there may be a message; and as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_from(None, Deadline::after(timeout))
    }

    /// Puts messages in their order, as many under one lock as there is room for; waits for more room.
    /// Messages of other producers may come between them.
    ///
    /// If this process is killed meanwhile, it has put some of the first of them, each whole.
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
    /// [`PutError`], which returns the values that were not put: as [`put`](Self::put). If one cannot be
    /// encoded, none is put.
    pub fn put_many(&self, values: impl IntoIterator<Item = T>) -> Result<(), PutError<Vec<T>>> {
        self.put_many_until(values.into_iter().collect(), Deadline::NEVER)
    }

    /// Puts as many of these messages as there is room for; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the values that were not put: `Full`, `Busy`, and as
    /// [`put_many`](Self::put_many).
    pub fn try_put_many(&self, values: impl IntoIterator<Item = T>) -> Result<(), PutError<Vec<T>>> {
        self.put_many_until(values.into_iter().collect(), Deadline::NOW)
    }

    /// Puts messages; waits at most `timeout` in all for room.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the values that were not put: `Full`, `Busy`, and as
    /// [`put_many`](Self::put_many).
    pub fn put_many_timeout(
        &self,
        values: impl IntoIterator<Item = T>,
        timeout: Duration,
    ) -> Result<(), PutError<Vec<T>>> {
        self.put_many_until(values.into_iter().collect(), Deadline::after(timeout))
    }

    /// Takes up to `most` messages under one lock; waits for the first. It takes fewer than there are if they
    /// are long. A message that cannot be decoded is an error among the results.
    ///
    /// If this process is killed meanwhile, either all messages stay, or those are lost that it had just
    /// taken.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `NoMemory`, `Broken`.
    pub fn get_many(&self, most: usize) -> Result<Vec<Result<T, GetError>>, GetError> {
        self.get_many_until(most, Deadline::NEVER)
    }

    /// Takes up to `most` messages, if there are any; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn try_get_many(&self, most: usize) -> Result<Vec<Result<T, GetError>>, GetError> {
        self.get_many_until(most, Deadline::NOW)
    }

    /// Takes up to `most` messages; waits at most `timeout` for the first.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn get_many_timeout(
        &self,
        most: usize,
        timeout: Duration,
    ) -> Result<Vec<Result<T, GetError>>, GetError> {
        self.get_many_until(most, Deadline::after(timeout))
    }

    /// Returns messages as they arrive, until the queue is closed and empty. An error is an item, too. After
    /// a message that cannot be decoded the iterator goes on; after any other error it ends.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { queue: self, broken: false }
    }

    pub(crate) fn put_to(&self, value: T, peer: Option<Peer>, deadline: Deadline) -> Result<(), PutError<T>> {
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
        match self.view().put_to(&buffer, peer, deadline) {
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
            // Scopes nest, so the last one is closed first.
            transits.push(Transit::begin());
            if let Err(problem) = codec::encode(value, messages.bytes_mut()) {
                while transits.pop().is_some() {}
                return Err(PutError::Encode {
                    value: values,
                    queue: self.shared.describe(),
                    problem: problem.to_string(),
                });
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

    pub(crate) fn get_from(&self, peer: Option<Peer>, deadline: Deadline) -> Result<T, GetError> {
        let mut buffer = Buffer::take();
        self.view().get_from(&mut *buffer, peer, deadline).map_err(|refusal| self.get_error(refusal))?;
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

/// Messages as they arrive; see [`Queue::iter`].
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

/// A buffer of more bytes is freed after use.
const KEPT: usize = 1 << 20;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// This thread's buffer, while it is in use. A nested call (a message that puts a message while it is being
/// encoded) gets a buffer of its own.
///
/// A value, not a closure that is given the buffer: through a closure each result would be moved once more.
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
