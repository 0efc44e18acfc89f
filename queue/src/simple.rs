//! [`SimpleQueue`]: Python's, with four operations.

use std::fmt;

use multiproc_shm::{Handle, Shared};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::block::{Capacity, QueueBlock};
use crate::error::{GetError, PutError};
use crate::queue::Queue;

/// An unbounded queue with `put`, `get`, `is_empty` and `close`: Python's `SimpleQueue`.
///
/// It is a [`Queue`] of the same bytes: `Queue::from` converts it where time-outs or batches are wanted, and
/// its name can be opened as either.
///
/// # When a process dies
///
/// As for a [`Queue`]: the message of a killed producer is wholly there or wholly absent, and a killed
/// consumer loses at most the one message that it had just taken.
///
/// ```
/// use multiproc_queue::SimpleQueue;
///
/// let queue = SimpleQueue::new()?;
/// queue.put("hello".to_string())?;
/// assert!(!queue.is_empty());
/// assert_eq!(queue.get()?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct SimpleQueue<T: 'static>(Queue<T>);

multiproc_shm::verbs! {
    impl[T: 'static] SimpleQueue<T> {};
    "queue";
    new() => Capacity::unbounded();
    other "it holds other messages";
    differs "it has a capacity";
}

impl<T: 'static> SimpleQueue<T> {
    /// Closes the queue for puts, in all processes. Gets go on until it is empty. Idempotent. Dropping a
    /// handle does not close it.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns whether the queue is empty: a snapshot.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns its name; `None` if it is anonymous.
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }
}

impl<T: Serialize + DeserializeOwned + 'static> SimpleQueue<T> {
    /// Puts a message.
    ///
    /// # Errors
    ///
    /// [`PutError`], which returns the value: `Closed`, `NoSpace`, `TooLarge`, `Encode`, `Broken`.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.0.put(value)
    }

    /// Takes the oldest message; waits while the queue is empty.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `Decode` (with the bytes, if they are not a `T`), `NoMemory`, `Broken`.
    pub fn get(&self) -> Result<T, GetError> {
        self.0.get()
    }
}

impl<T: 'static> Handle for SimpleQueue<T> {
    type Object = QueueBlock<T>;

    fn from_shared(shared: Shared<QueueBlock<T>>) -> Self {
        Self(Queue::from_shared(shared))
    }

    fn shared(&self) -> Option<&Shared<QueueBlock<T>>> {
        self.0.shared()
    }
}

impl<T: 'static> From<SimpleQueue<T>> for Queue<T> {
    fn from(simple: SimpleQueue<T>) -> Self {
        simple.0
    }
}

impl<T: 'static> Clone for SimpleQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> fmt::Debug for SimpleQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimpleQueue").field(&self.0).finish()
    }
}
