//! [`Queue`]: what it promises. The bytes are in `ring.rs`; how it waits is in `multiproc_robust::Side`.

use std::fmt;

use multiproc_robust::Deadline;
use multiproc_shm::{Error, Shared};
use serde::{Deserialize, Serialize};

use crate::block::{Capacity, QueueBlock};
use crate::error::{GetError, PutError};
use crate::verbs::verbs;
use multiproc_ring::Peer;
use multiproc_ring::UNBOUNDED;
use multiproc_ring::{Refusal, View};

/// A queue of messages between processes: many may put, many may get, each message reaches one (Python's `Queue`).
///
/// It holds as many messages as was said when it was made, of any length up to 4 GiB. Messages of one producer keep their order. A `put` that returned is in shared
/// memory: it needs neither its producer nor a helper thread any more. Handles may be in messages, also handles to this queue.
///
/// [`Queue<[u8]>`](Queue#impl-Queue<[u8]>) carries bytes as they are; any other `T` travels through serde.
///
/// # When a process dies
///
/// Killed in `put`, its message is there wholly or not at all. Killed in `get`, the message stays for another, or, if it had just been taken, is lost with its taker: one at most. Killed while waiting:
/// nobody notices. The others never hang and never see half a message.
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
verbs!(Queue, QueueBlock, "queue", capacity: Capacity);

/// Looking, and closing.
impl<T: ?Sized + 'static> Queue<T> {
    /// No more puts, in any process; gets go on until the queue is empty, and then, like everybody who waits, find it closed. Idempotent. Dropping a handle closes nothing.
    pub fn close(&self) {
        self.view().close();
    }

    /// Whether somebody has closed it.
    pub fn is_closed(&self) -> bool {
        self.view().is_closed()
    }

    /// Messages in it, a snapshot: exact for what was committed when it was taken.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there is no message in it, a snapshot.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Whether it holds as many messages as it may, a snapshot. (Where it has a limit of bytes, a message may find no room before.)
    pub fn is_full(&self) -> bool {
        self.capacity().is_some_and(|capacity| self.len() >= capacity)
    }

    /// Messages it can hold; `None` if there is no limit.
    pub fn capacity(&self) -> Option<usize> {
        let messages = self.view().log().sizes.messages;
        (messages != UNBOUNDED).then_some(messages as usize)
    }

    /// Bytes of the longest message that it takes, if the system has the memory: 16 less than 4 GiB.
    pub fn longest_message(&self) -> usize {
        self.view().log().sizes.longest()
    }

    #[inline]
    pub(crate) fn view(&self) -> View<'_, Shared<QueueBlock<T>>> {
        View { memory: &self.shared }
    }

    /// A queue without a name that takes as many messages as come: [`Capacity::unbounded`].
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
    pub(crate) fn put_bytes_to(&self, bytes: &[u8], others: Option<Peer>, deadline: Deadline) -> Result<(), PutError<()>> {
        self.view().put_to(bytes, others, deadline).map_err(|refusal| self.put_error((), refusal, bytes.len()))
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
