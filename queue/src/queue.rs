//! [`Queue`]: what it promises. The bytes are in `ring.rs`; how it waits is in `multiproc_shm::Side`.
#![allow(unsafe_code, reason = "promises the layout of its block")]

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use multiproc_shm::{Deadline, Element, Error, Handle, Object, Options, RobustLock, Shared, Transit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::{GetError, PutError};
use crate::ring::{Refusal, Ring, View};

/// A queue of messages between processes: many may put, many may get, each message reaches one (Python's `Queue`).
///
/// It holds as many messages as was said when it was made, and as many bytes. Messages of one producer keep their order. A `put` that returned is in shared
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
    shared: Shared<QueueBlock<T>>,
}

/// How much a queue holds. A plain number is a number of messages.
///
/// ```
/// use multiproc_queue::{Capacity, Queue};
///
/// let queue: Queue<Vec<u8>> = Queue::new(Capacity::messages(100).bytes(1 << 20))?;
/// assert_eq!(queue.capacity(), 100);
/// # Ok::<(), multiproc_queue::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    messages: usize,
    bytes: Option<usize>,
}

impl Capacity {
    /// At most this many messages.
    pub fn messages(messages: usize) -> Self {
        Self { messages, bytes: None }
    }

    /// Room for this many bytes of messages, each with a header of 8 bytes and filled up to a multiple of 8; rounded up to a power of two, of which 8 bytes stay free, and reserved at once.
    /// Without it: 256 for each message, at least 64 KiB and at most 16 MiB.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }
}

impl From<usize> for Capacity {
    fn from(messages: usize) -> Self {
        Self::messages(messages)
    }
}

/// The shared part of a [`Queue`]; the log lies behind it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct QueueBlock<T: ?Sized> {
    ring: Ring,
    message: PhantomData<fn(&T)>,
}

const SMALLEST_LOG: usize = 4096;
const LARGEST_LOG: usize = 1 << 34;
const MOST_MESSAGES: usize = 1 << 30;

// SAFETY: `repr(C)`, atomics only; its size is the ring and the log, whose bytes are the second extent; both locks are told.
unsafe impl<T: ?Sized + 'static> Object for QueueBlock<T> {
    const KIND: &'static str = "queue";
    const LAYOUT: u32 = 1;
    type Params = Capacity;

    fn extents(capacity: &Capacity) -> Result<[u64; 2], String> {
        let Capacity { messages, bytes } = *capacity;
        if messages == 0 || messages > MOST_MESSAGES {
            return Err(format!("a capacity of {messages} messages; 1 to {MOST_MESSAGES} are possible"));
        }
        let bytes = bytes.unwrap_or((messages * 256).clamp(64 << 10, 16 << 20));
        if bytes == 0 || bytes > LARGEST_LOG {
            return Err(format!("a capacity of {bytes} bytes; 1 to {LARGEST_LOG} are possible"));
        }
        Ok([messages as u64, bytes.next_power_of_two().max(SMALLEST_LOG) as u64])
    }

    fn size([messages, bytes]: [u64; 2]) -> Option<usize> {
        let (messages, bytes) = (usize::try_from(messages).ok()?, usize::try_from(bytes).ok()?);
        let sound =
            (1..=MOST_MESSAGES).contains(&messages) && bytes.is_power_of_two() && (SMALLEST_LOG..=LARGEST_LOG).contains(&bytes);
        sound.then_some(size_of::<Ring>() + bytes)
    }

    fn element() -> Element {
        Element::message::<T>()
    }

    unsafe fn init(&self, _: *const AtomicU64, _: Capacity) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        self.ring.locks()
    }
}

impl<T: ?Sized + 'static> Handle for Queue<T> {
    type Object = QueueBlock<T>;

    fn from_shared(shared: Shared<QueueBlock<T>>) -> Self {
        Self { shared }
    }

    fn shared(&self) -> &Shared<QueueBlock<T>> {
        &self.shared
    }
}

/// Making, finding, looking: the same for bytes and for types.
impl<T: ?Sized + 'static> Queue<T> {
    /// A queue without a name, for handles in arguments and messages.
    ///
    /// # Errors
    ///
    /// [`Error`]: a capacity that cannot be; no space.
    pub fn new(capacity: impl Into<Capacity>) -> Result<Self, Error> {
        Options::new().anonymous(capacity.into())
    }

    /// Makes a named queue, which must not exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or in use; a capacity that cannot be; no space.
    pub fn create(name: &str, capacity: impl Into<Capacity>) -> Result<Self, Error> {
        Options::new().create(name, capacity.into())
    }

    /// Finds a named queue, which must exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: nobody uses the name; it is no queue, or one of other messages.
    pub fn open(name: &str) -> Result<Self, Error> {
        Options::new().open(name)
    }

    /// Finds a named queue, or makes it.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad; it is no queue, or one of other messages or capacity; no space.
    pub fn open_or_create(name: &str, capacity: impl Into<Capacity>) -> Result<Self, Error> {
        Options::new().open_or_create(name, capacity.into())
    }

    /// Takes a name away at once; those who have handles keep the queue.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or not in use.
    pub fn unlink(name: &str) -> Result<(), Error> {
        Options::new().unlink(name)
    }

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

    /// Whether it holds as many messages as it may, a snapshot. (A large message may find no room before.)
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity()
    }

    /// Messages it can hold.
    pub fn capacity(&self) -> usize {
        self.view().messages as usize
    }

    /// Bytes of the longest message it can hold.
    pub fn longest_message(&self) -> usize {
        self.view().longest()
    }

    /// Its name; `None` for an anonymous one.
    pub fn name(&self) -> Option<&str> {
        self.shared.name()
    }

    #[inline]
    fn view(&self) -> View<'_> {
        let [messages, bytes] = self.shared.extents();
        View::new(&self.shared.ring, self.shared.tail(), messages, bytes)
    }

    fn put_bytes_until(&self, bytes: &[u8], deadline: Deadline) -> Result<(), PutError<()>> {
        self.view().put(bytes, deadline).map_err(|refusal| self.put_error((), refusal, bytes.len()))
    }

    #[cold]
    fn put_error<V>(&self, value: V, refusal: Refusal, length: usize) -> PutError<V> {
        let queue = self.shared.describe();
        match refusal {
            Refusal::TimedOut => PutError::Full(value),
            Refusal::Closed => PutError::Closed(value),
            Refusal::Busy => PutError::Busy(value),
            Refusal::TooLarge => PutError::TooLarge { value, queue, length, longest: self.longest_message() },
            Refusal::Corrupt => PutError::Broken { value, queue, problem: CORRUPT.to_owned() },
            Refusal::Lock(cause) => PutError::Broken { value, queue, problem: cause.to_string() },
        }
    }

    #[cold]
    fn get_error(&self, refusal: Refusal) -> GetError {
        let queue = self.shared.describe();
        match refusal {
            Refusal::TimedOut => GetError::Empty,
            Refusal::Closed => GetError::Closed,
            Refusal::Busy => GetError::Busy,
            Refusal::TooLarge | Refusal::Corrupt => GetError::Broken { queue, problem: CORRUPT.to_owned() },
            Refusal::Lock(cause) => GetError::Broken { queue, problem: cause.to_string() },
        }
    }
}

/// Typed messages.
impl<T: Serialize + DeserializeOwned + 'static> Queue<T> {
    /// Puts a message, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: closed, too large, not encodable.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::NEVER)
    }

    /// Puts a message if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: full, and as [`put`](Self::put).
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::NOW)
    }

    /// Puts a message, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`] with the value in it: full, and as [`put`](Self::put). `Full` means that this call got no room in time: if others held the producers'
    /// lock until the deadline (a very short one, or one of them is stopped), there may be room.
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::after(timeout))
    }

    /// Takes a message, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty; not a `T`, then with the bytes.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::NEVER)
    }

    /// Takes a message if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, and as [`get`](Self::get). It is exact: `Empty` means that there was none at an instant of this call.
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::NOW)
    }

    /// Takes a message, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, and as [`get`](Self::get). `Empty` means that this call got none in time: if others held the consumers' lock until the
    /// deadline (a very short one, or one of them is stopped), a message may be there. [`try_get`](Self::try_get) is exact.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Messages as they come, until the queue is closed and empty. An error is an item, too: after one that cannot be decoded it goes on, after any other it ends.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { queue: self, broken: false }
    }

    fn put_until(&self, value: T, deadline: Deadline) -> Result<(), PutError<T>> {
        with_buffer(|buffer| {
            buffer.clear();
            // Encoded before any lock is taken: serde is other people's code.
            let transit = Transit::begin();
            if let Err(problem) = codec::encode(&value, buffer) {
                return Err(PutError::Encode { value, queue: self.shared.describe(), problem: problem.to_string() });
            }
            match self.view().put(buffer, deadline) {
                Ok(()) => {
                    transit.sent();
                    Ok(())
                }
                Err(refusal) => Err(self.put_error(value, refusal, buffer.len())),
            }
        })
    }

    fn get_until(&self, deadline: Deadline) -> Result<T, GetError> {
        with_buffer(|buffer| {
            self.view().get(buffer, deadline).map_err(|refusal| self.get_error(refusal))?;
            codec::decode(buffer).map_err(|problem| GetError::Decode {
                queue: self.shared.describe(),
                bytes: buffer.clone(),
                problem: problem.to_string(),
            })
        })
    }
}

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
        self.fresh(Deadline::NEVER)
    }

    /// Takes a message if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, closed.
    pub fn try_get_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.fresh(Deadline::NOW)
    }

    /// Takes a message, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, closed.
    pub fn get_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.fresh(Deadline::after(timeout))
    }

    /// Takes a message into a vector that the caller uses again and again; its content is replaced.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty.
    #[inline]
    pub fn get_into(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.view().get(message, Deadline::NEVER).map_err(|refusal| self.get_error(refusal))
    }

    fn fresh(&self, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        let view = self.view();
        let mut message = Vec::with_capacity(view.next_length().unwrap_or(0));
        view.get(&mut message, deadline).map_err(|refusal| self.get_error(refusal))?;
        Ok(message)
    }
}

impl<T: ?Sized + 'static> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
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

const CORRUPT: &str = "its memory contradicts itself: another process wrote to it";
/// Buffers above this are given back after use.
const KEPT: usize = 1 << 20;

/// Runs with this thread's buffer; a nested call (a message that puts a message while it is encoded) gets one of its own.
fn with_buffer<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = BUFFER
        .try_with(|kept| kept.try_borrow_mut().map(|mut kept| std::mem::take(&mut *kept)).unwrap_or_default())
        .unwrap_or_default();
    let result = work(&mut buffer);
    if buffer.capacity() <= KEPT {
        let _ = BUFFER.try_with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = buffer));
    }
    result
}
