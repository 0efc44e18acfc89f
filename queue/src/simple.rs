//! [`SimpleQueue`]: Python's, with nothing that one could get wrong.

use std::fmt;

use multiproc_shm::{Error, Handle, Options, Shared};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::block::{Capacity, QueueBlock};
use crate::error::{GetError, PutError};
use crate::queue::Queue;

/// A queue without a bound, that can be put to, got from, looked at and closed: Python's `SimpleQueue`.
///
/// It is a [`Queue`], which it becomes by `Queue::from` where more is wanted (time-outs, several at once): the object and its bytes are the same, and whoever opens its name may open either.
///
/// # When a process dies
///
/// As for a [`Queue`]: a message of a killed producer is there wholly or not at all, and one at most is lost with a killed consumer.
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

impl<T: 'static> SimpleQueue<T> {
    /// One without a name, for handles in arguments and messages.
    ///
    /// # Errors
    ///
    /// [`Error`]: no space.
    pub fn new() -> Result<Self, Error> {
        Options::new().anonymous(Capacity::unbounded())
    }

    /// Makes a named one, which must not exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or in use; no space.
    pub fn create(name: &str) -> Result<Self, Error> {
        Options::new().create(name, Capacity::unbounded())
    }

    /// Finds a named one, which must exist. (Or a [`Queue`] of whatever capacity: a put to a full one waits.)
    ///
    /// # Errors
    ///
    /// [`Error`]: nobody uses the name; it is no queue, or one of other messages.
    pub fn open(name: &str) -> Result<Self, Error> {
        Options::new().open(name)
    }

    /// Finds a named one, or makes it.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad; it is no queue, or one of other messages or with a bound; no space.
    pub fn open_or_create(name: &str) -> Result<Self, Error> {
        Options::new().open_or_create(name, Capacity::unbounded())
    }

    /// Takes a name away at once; those who have handles keep the queue.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or not in use.
    pub fn unlink(name: &str) -> Result<(), Error> {
        Options::new().unlink(name)
    }

    /// No more puts, in any process; gets go on until the queue is empty. Idempotent. Dropping a handle closes nothing.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether there is no message in it, a snapshot.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its name; `None` for an anonymous one.
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }
}

impl<T: Serialize + DeserializeOwned + 'static> SimpleQueue<T> {
    /// Puts a message.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: closed, no space, too large, not encodable.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.0.put(value)
    }

    /// Takes a message, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty; not a `T`, then with the bytes.
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
