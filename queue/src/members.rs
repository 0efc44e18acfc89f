//! [`Producer`] and [`Consumer`]: who says that he puts, or gets, is waited for, and does not wait for those who are gone.

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

/// Who puts: a consumer gets [`Closed`](GetError::Closed) when all producers are gone and the queue is empty, instead of waiting for ever.
///
/// Taken by [`Queue::producer`]; it belongs to the process, and ends with its last clone, or with the process, whatever ends that: consumers who sleep are told at once. Likewise [`put`](Self::put) is
/// [`Closed`](PutError::Closed) when all consumers are gone. Those who have never come are waited for; and if all are gone, others may still come. Whoever uses the [`Queue`] itself has no role: he is not waited for.
///
/// It cannot be sent to another process. That gets the queue, and takes a role of its own; whoever starts it holds one until then.
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
/// assert!(producer.put("who reads this?".to_string()).is_err_and(|error| error.is_closed()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Producer<T: ?Sized + 'static> {
    seat: Arc<Seat<T>>,
}

/// Who gets; see [`Producer`].
pub struct Consumer<T: ?Sized + 'static> {
    seat: Arc<Seat<T>>,
}

/// Why a role was not taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegistrationError {
    /// All 60 places of this role are taken, or this process can keep none.
    Lock(LockError),
    /// There is no memory for the places.
    Memory(Error),
}

/// Roles: who puts, and who gets.
impl<T: ?Sized + 'static> Queue<T> {
    /// Says that this process puts, as long as it has the handle: see [`Producer`]. At most 60 handles that are not clones of each other can be had, by all processes.
    ///
    /// # Errors
    ///
    /// [`RegistrationError`].
    pub fn producer(&self) -> Result<Producer<T>, RegistrationError> {
        Seat::take(self, Peer::Producer).map(|seat| Producer { seat })
    }

    /// Says that this process gets, as long as it has the handle: see [`Producer`]. At most 60 handles that are not clones of each other can be had, by all processes.
    ///
    /// # Errors
    ///
    /// [`RegistrationError`].
    pub fn consumer(&self) -> Result<Consumer<T>, RegistrationError> {
        Seat::take(self, Peer::Consumer).map(|seat| Consumer { seat })
    }

    /// How many producers' handles there are now, a snapshot.
    pub fn producers(&self) -> usize {
        self.view().present(Peer::Producer)
    }

    /// How many consumers' handles there are now, a snapshot.
    pub fn consumers(&self) -> usize {
        self.view().present(Peer::Consumer)
    }
}

impl<T: ?Sized + 'static> Producer<T> {
    /// The queue.
    pub fn queue(&self) -> &Queue<T> {
        &self.seat.queue
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Producer<T> {
    /// Puts a message, waiting for room as long as there are consumers, or none has come yet.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put`]; and closed, when all consumers are gone.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.queue().put_to(value, Some(Peer::Consumer), Deadline::NEVER)
    }

    /// Puts a message if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::try_put`]; and closed, when all consumers are gone.
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.queue().put_to(value, Some(Peer::Consumer), Deadline::NOW)
    }

    /// Puts a message, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put_timeout`]; and closed, when all consumers are gone.
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.queue().put_to(value, Some(Peer::Consumer), Deadline::after(timeout))
    }
}

impl Producer<[u8]> {
    /// Puts a message, waiting for room as long as there are consumers, or none has come yet.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put_bytes`]; and closed, when all consumers are gone.
    pub fn put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.queue().put_bytes_to(message, Some(Peer::Consumer), Deadline::NEVER)
    }

    /// Puts a message if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::try_put_bytes`]; and closed, when all consumers are gone.
    pub fn try_put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.queue().put_bytes_to(message, Some(Peer::Consumer), Deadline::NOW)
    }

    /// Puts a message, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`], as [`Queue::put_bytes_timeout`]; and closed, when all consumers are gone.
    pub fn put_bytes_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
        self.queue().put_bytes_to(message, Some(Peer::Consumer), Deadline::after(timeout))
    }
}

impl<T: ?Sized + 'static> Consumer<T> {
    /// The queue.
    pub fn queue(&self) -> &Queue<T> {
        &self.seat.queue
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Consumer<T> {
    /// Takes a message, waiting for one as long as there are producers, or none has come yet.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get`]; and closed, when it is empty and all producers are gone.
    pub fn get(&self) -> Result<T, GetError> {
        self.queue().get_from(Some(Peer::Producer), Deadline::NEVER)
    }

    /// Takes a message if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::try_get`]; and closed, when it is empty and all producers are gone.
    pub fn try_get(&self) -> Result<T, GetError> {
        self.queue().get_from(Some(Peer::Producer), Deadline::NOW)
    }

    /// Takes a message, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get_timeout`]; and closed, when it is empty and all producers are gone.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.queue().get_from(Some(Peer::Producer), Deadline::after(timeout))
    }

    /// Messages as they come, until all producers are gone and the queue is empty (or it was closed). An error is an item, too: after one that cannot be decoded it goes on, after any other it ends.
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
    /// Takes a message, waiting for one as long as there are producers, or none has come yet.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get_bytes`]; and closed, when it is empty and all producers are gone.
    pub fn get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.queue().fresh(Some(Peer::Producer), Deadline::NEVER)
    }

    /// Takes a message if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::try_get_bytes`]; and closed, when it is empty and all producers are gone.
    pub fn try_get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.queue().fresh(Some(Peer::Producer), Deadline::NOW)
    }

    /// Takes a message, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`], as [`Queue::get_bytes_timeout`]; and closed, when it is empty and all producers are gone.
    pub fn get_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.queue().fresh(Some(Peer::Producer), Deadline::after(timeout))
    }
}

/// A seat that this process has.
struct Seat<T: ?Sized + 'static> {
    queue: Queue<T>,
    role: Peer,
    at: usize,
    kept: ProcessOwned,
}

impl<T: ?Sized + 'static> Seat<T> {
    fn take(queue: &Queue<T>, role: Peer) -> Result<Arc<Self>, RegistrationError> {
        // A handle of its own: what it keeps stays mapped.
        let queue = queue.clone();
        let seats = queue.view().all_seats(role).map_err(RegistrationError::Memory)?;
        let taken = queue.view().take_seat(role, seats);
        let (at, kept) = taken.map_err(|cause| RegistrationError::Lock(LockError::new(queue.shared.describe(), cause)))?;
        Ok(Arc::new(Self { queue, role, at, kept }))
    }
}

impl<T: ?Sized + 'static> Drop for Seat<T> {
    fn drop(&mut self) {
        self.queue.view().leave_seat(self.role, self.at, self.kept);
    }
}

impl<T: ?Sized + 'static> Clone for Producer<T> {
    /// Of the same process, and the same place: what is dropped last ends the role.
    fn clone(&self) -> Self {
        Self { seat: Arc::clone(&self.seat) }
    }
}

impl<T: ?Sized + 'static> Clone for Consumer<T> {
    /// Of the same process, and the same place: what is dropped last ends the role.
    fn clone(&self) -> Self {
        Self { seat: Arc::clone(&self.seat) }
    }
}

impl<T: ?Sized + 'static> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("queue", self.queue()).field("place", &self.seat.at).finish()
    }
}

impl<T: ?Sized + 'static> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("queue", self.queue()).field("place", &self.seat.at).finish()
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
