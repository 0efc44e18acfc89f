//! [`Queue`]: what it promises. Its bytes and how it waits are the business of `multiproc_ring`.

use std::fmt;

use multiproc_robust::Deadline;
use multiproc_shm::{Error, Shared};
use serde::{Deserialize, Serialize};

use crate::block::{Capacity, QueueBlock};
use crate::error::{GetError, PutError};
use multiproc_ring::Peer;
use multiproc_ring::UNBOUNDED;
use multiproc_ring::{Refusal, View};

/// A multi-producer, multi-consumer queue between processes (Python's `Queue`). Each message reaches one
/// consumer.
///
/// It holds as many messages as its [`Capacity`] says, each of up to 4 GiB. Messages of one producer keep
/// their order. Once `put` has returned, the message is in shared memory and needs neither its producer nor a
/// helper thread. Messages may contain handles, also handles to this queue.
///
/// [`Queue<[u8]>`](Queue#impl-Queue<[u8]>) carries bytes, `Queue<Plain<T>>` [plain values](crate::Plain); any
/// other `T` travels through serde.
///
/// # When a process dies
///
/// - In `put`: its message is wholly there or wholly absent.
/// - In `get`: the message stays for another consumer, or is lost if it had just been taken. At most one
///   message is lost; none is duplicated or truncated.
/// - While it waits: the other processes go on as if it had not been there.
///
/// No other process hangs.
///
/// ```
/// use multiproc_queue::Queue;
///
/// let queue = Queue::new(16)?;
/// queue.put("hello".to_string())?;
/// assert_eq!(queue.len(), 1);
/// assert_eq!(queue.get()?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Queue<T: ?Sized + 'static> {
    pub(crate) shared: Shared<QueueBlock<T>>,
}
multiproc_shm::verbs! {
    impl[T: ?Sized + 'static] Queue<T> { shared: QueueBlock<T> };
    "queue";
    new(capacity: impl Into<Capacity>) => capacity.into();
    invalid "the capacity is not possible";
    other "it holds other messages";
    differs "it has another capacity";
}

/// Inspecting and closing.
impl<T: ?Sized + 'static> Queue<T> {
    /// Closes the queue for puts, in all processes. Gets go on until it is empty, and then return `Closed`;
    /// so do waiting calls. Idempotent. Dropping a handle does not close the queue.
    pub fn close(&self) {
        self.view().close();
    }

    /// Returns whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.view().is_closed()
    }

    /// Returns the number of messages in it: a snapshot, exact for the instant at which it was taken.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Returns whether it is empty: a snapshot.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Returns whether it holds as many messages as it can: a snapshot. (With a limit of bytes, a put may
    /// wait earlier.)
    pub fn is_full(&self) -> bool {
        self.capacity().is_some_and(|capacity| self.len() >= capacity)
    }

    /// Returns how many messages it can hold; `None` if there is no limit.
    pub fn capacity(&self) -> Option<usize> {
        let messages = self.view().log().sizes.messages;
        (messages != UNBOUNDED).then_some(messages as usize)
    }

    /// Returns the length of the longest message, in bytes: 16 less than 4 GiB, if the system has the memory.
    pub fn longest_message(&self) -> usize {
        self.view().log().sizes.longest()
    }

    #[inline]
    pub(crate) fn view(&self) -> View<'_, Shared<QueueBlock<T>>> {
        View { memory: &self.shared }
    }

    /// Makes an anonymous queue without a limit: [`Capacity::unbounded`].
    ///
    /// # Errors
    ///
    /// [`Error`]: no space.
    pub fn unbounded() -> Result<Self, Error> {
        Self::new(Capacity::unbounded())
    }

    pub(crate) fn put_bytes_until(&self, bytes: &[u8], deadline: Deadline) -> Result<(), PutError<()>> {
        self.put_bytes_to(bytes, None, deadline)
    }

    #[inline]
    pub(crate) fn put_bytes_to(
        &self,
        bytes: &[u8],
        peer: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), PutError<()>> {
        self.view().put_to(bytes, peer, deadline).map_err(|refusal| self.put_error((), refusal, bytes.len()))
    }

    #[cold]
    pub(crate) fn put_error<V>(&self, value: V, refusal: Refusal, length: usize) -> PutError<V> {
        PutError::from_refusal(value, refusal, length, self.longest_message(), || self.shared.describe())
    }

    #[cold]
    pub(crate) fn get_error(&self, refusal: Refusal) -> GetError {
        GetError::from_refusal(refusal, || self.shared.describe())
    }
}
impl<T: ?Sized + 'static> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("object", &self.shared)
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish()
    }
}
