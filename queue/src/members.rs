//! [`Producer`] and [`Consumer`]: registered peers, so that a waiting process learns that all its peers have
//! disconnected.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use multiproc_robust::{Deadline, LockError, ProcessOwned};
use multiproc_shm::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{GetError, PutError};
use crate::queue::Queue;
use multiproc_ring::Peer;

/// A registered producer. A [`Consumer`]'s get returns [`Closed`](GetError::Closed) once all producers have
/// disconnected and the queue is empty, instead of waiting for ever.
///
/// It is made by [`Queue::producer`] and belongs to the process. It disconnects when its last clone is
/// dropped, or when the process ends, for whatever reason; waiting consumers are notified at once. Likewise
/// its [`put`](Self::put) returns [`Closed`](PutError::Closed) once all consumers have disconnected.
///
/// Before the first producer has registered, consumers wait for one. After all have disconnected, another may
/// still register. A process that uses the [`Queue`] itself is not registered, and no peer waits for it.
///
/// It cannot be sent to another process: send the queue, and register there. The process that starts the
/// other one stays registered until then.
///
/// ```
/// use multiproc_queue::{GetError, PutError, Queue};
///
/// let queue = Queue::new(16)?;
/// let (producer, consumer) = (queue.producer()?, queue.consumer()?);
/// producer.put("hello".to_string())?;
/// drop(producer); // or killed
/// assert_eq!(consumer.get()?, "hello");
/// assert_eq!(consumer.get(), Err(GetError::Closed));
///
/// let producer = queue.producer()?; // another may come
/// drop(consumer);
/// assert!(producer.put("unread".to_string()).is_err_and(|error| error.is_closed()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Producer<T: ?Sized + 'static> {
    membership: Arc<Membership<T>>,
}

/// A registered consumer; see [`Producer`].
pub struct Consumer<T: ?Sized + 'static> {
    membership: Arc<Membership<T>>,
}

/// Why a producer or consumer was not registered.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegistrationError {
    /// 60 of this kind are registered already, or this process cannot hold the lock that says so.
    Lock(LockError),
    /// The system has no memory for the registration.
    Memory(Error),
}

/// Registered producers and consumers (disconnect detection).
impl<T: ?Sized + 'static> Queue<T> {
    /// Registers this process as a producer until the handle and its clones are dropped: see [`Producer`]. At
    /// most 60 can be registered at once, in all processes; clones count once.
    ///
    /// # Errors
    ///
    /// [`RegistrationError`].
    pub fn producer(&self) -> Result<Producer<T>, RegistrationError> {
        Membership::take(self, Peer::Producer).map(|membership| Producer { membership })
    }

    /// Registers this process as a consumer until the handle and its clones are dropped: see [`Producer`]. At
    /// most 60 can be registered at once, in all processes; clones count once.
    ///
    /// # Errors
    ///
    /// [`RegistrationError`].
    pub fn consumer(&self) -> Result<Consumer<T>, RegistrationError> {
        Membership::take(self, Peer::Consumer).map(|membership| Consumer { membership })
    }

    /// Returns how many producers are registered: a snapshot.
    pub fn producers(&self) -> usize {
        self.view().connected(Peer::Producer)
    }

    /// Returns how many consumers are registered: a snapshot.
    pub fn consumers(&self) -> usize {
        self.view().connected(Peer::Consumer)
    }
}

impl<T: ?Sized + 'static> Producer<T> {
    /// Returns the queue.
    pub fn queue(&self) -> &Queue<T> {
        &self.membership.queue
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Producer<T> {
    /// Puts a message; waits while the queue is full, unless all consumers have disconnected.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put`]; and `Closed` once all consumers have disconnected.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.queue().put_to(value, Some(Peer::Consumer), Deadline::NEVER)
    }

    /// Puts a message if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::try_put`]; and `Closed` once all consumers have disconnected.
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.queue().put_to(value, Some(Peer::Consumer), Deadline::NOW)
    }

    /// Puts a message; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put_timeout`]; and `Closed` once all consumers have disconnected.
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.queue().put_to(value, Some(Peer::Consumer), Deadline::after(timeout))
    }
}

impl Producer<[u8]> {
    /// Puts a message; waits while the queue is full, unless all consumers have disconnected.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put_bytes`]; and `Closed` once all consumers have disconnected.
    pub fn put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.queue().put_bytes_to(message, Some(Peer::Consumer), Deadline::NEVER)
    }

    /// Puts a message if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::try_put_bytes`]; and `Closed` once all consumers have disconnected.
    pub fn try_put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.queue().put_bytes_to(message, Some(Peer::Consumer), Deadline::NOW)
    }

    /// Puts a message; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put_bytes_timeout`]; and `Closed` once all consumers have disconnected.
    pub fn put_bytes_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
        self.queue().put_bytes_to(message, Some(Peer::Consumer), Deadline::after(timeout))
    }
}

impl<T: ?Sized + 'static> Consumer<T> {
    /// Returns the queue.
    pub fn queue(&self) -> &Queue<T> {
        &self.membership.queue
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Consumer<T> {
    /// Takes the oldest message; waits while the queue is empty, unless all producers have disconnected.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get`]; and `Closed` once it is empty and all producers have disconnected.
    pub fn get(&self) -> Result<T, GetError> {
        self.queue().get_from(Some(Peer::Producer), Deadline::NEVER)
    }

    /// Takes the oldest message if there is one; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::try_get`]; and `Closed` once it is empty and all producers have
    /// disconnected.
    pub fn try_get(&self) -> Result<T, GetError> {
        self.queue().get_from(Some(Peer::Producer), Deadline::NOW)
    }

    /// Takes the oldest message; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get_timeout`]; and `Closed` once it is empty and all producers have
    /// disconnected.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.queue().get_from(Some(Peer::Producer), Deadline::after(timeout))
    }

    /// Returns messages as they arrive, until all producers have disconnected and the queue is empty (or it
    /// was closed). An error is an item, too. After a message that cannot be decoded the iterator goes on;
    /// after any other error it ends.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, GetError>> {
        let mut broken = false;
        std::iter::from_fn(move || {
            let next = if broken { Err(GetError::Closed) } else { self.get() };
            broken |= next.as_ref().is_err_and(|error| !matches!(error, GetError::Decode { .. }));
            (!matches!(next, Err(GetError::Closed))).then_some(next)
        })
    }
}

impl Consumer<[u8]> {
    /// Takes the oldest message; waits while the queue is empty, unless all producers have disconnected.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get_bytes`]; and `Closed` once it is empty and all producers have
    /// disconnected.
    pub fn get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.queue().fresh(Some(Peer::Producer), Deadline::NEVER)
    }

    /// Takes the oldest message if there is one; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::try_get_bytes`]; and `Closed` once it is empty and all producers have
    /// disconnected.
    pub fn try_get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.queue().fresh(Some(Peer::Producer), Deadline::NOW)
    }

    /// Takes the oldest message; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get_bytes_timeout`]; and `Closed` once it is empty and all producers have
    /// disconnected.
    pub fn get_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.queue().fresh(Some(Peer::Producer), Deadline::after(timeout))
    }
}

/// A registration of this process.
struct Membership<T: ?Sized + 'static> {
    queue: Queue<T>,
    peer: Peer,
    at: usize,
    owned: ProcessOwned,
}

impl<T: ?Sized + 'static> Membership<T> {
    fn take(queue: &Queue<T>, peer: Peer) -> Result<Arc<Self>, RegistrationError> {
        // A handle of its own, so that the lock stays mapped.
        let queue = queue.clone();
        queue.view().populate_side_table().map_err(RegistrationError::Memory)?;
        let registered = queue.view().register(peer);
        let (at, owned) = registered
            .map_err(|cause| RegistrationError::Lock(LockError::new(queue.shared.describe(), cause)))?;
        Ok(Arc::new(Self { queue, peer, at, owned }))
    }
}

impl<T: ?Sized + 'static> Drop for Membership<T> {
    fn drop(&mut self) {
        self.queue.view().deregister(self.peer, self.at, self.owned);
    }
}

impl<T: ?Sized + 'static> Clone for Producer<T> {
    /// Returns a clone with the same registration, which ends with the last clone.
    fn clone(&self) -> Self {
        Self { membership: Arc::clone(&self.membership) }
    }
}

impl<T: ?Sized + 'static> Clone for Consumer<T> {
    /// Returns a clone with the same registration, which ends with the last clone.
    fn clone(&self) -> Self {
        Self { membership: Arc::clone(&self.membership) }
    }
}

impl<T: ?Sized + 'static> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("queue", self.queue()).field("number", &self.membership.at).finish()
    }
}

impl<T: ?Sized + 'static> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("queue", self.queue()).field("number", &self.membership.at).finish()
    }
}

impl fmt::Display for RegistrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RegistrationError {}
