//! [`Queue`]: what it promises. The bytes are in `ring.rs`; how it waits is in `multiproc_shm::Side`.
#![allow(unsafe_code, reason = "promises the layout of its block")]

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use multiproc_shm::{Deadline, Element, Error, Handle, Object, Options, RobustLock, Shared, Transit, copy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::{GetError, PutError};
use crate::log::{Log, Memory, PIECE, SPAN, Sizes, UNBOUNDED, UNLIMITED};
use crate::messages::Messages;
use crate::ring::{Refusal, Ring, View};

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
    shared: Shared<QueueBlock<T>>,
}

/// How much a queue holds. A plain number is a number of messages.
///
/// ```
/// use multiproc_queue::{Capacity, Queue};
///
/// let queue: Queue<Vec<u8>> = Queue::new(Capacity::messages(100).bytes(1 << 20))?;
/// assert_eq!(queue.capacity(), Some(100));
/// # Ok::<(), multiproc_queue::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// `None`: no limit.
    messages: Option<usize>,
    bytes: Option<usize>,
    /// In memory that cannot grow.
    fixed: bool,
}

impl Capacity {
    /// At most this many messages wait, whatever their length: 1 to 2^30.
    pub fn messages(messages: usize) -> Self {
        Self { messages: Some(messages), bytes: None, fixed: false }
    }

    /// As many messages wait as come, as long as the system has memory, and at most 8 GiB (Python's default).
    pub fn unbounded() -> Self {
        Self { messages: None, bytes: None, fixed: false }
    }

    /// At most this many bytes wait as well, each message with a header of 8 bytes and filled up to a multiple of 8; at least 4,096. A message that alone is longer waits until no
    /// other such is in the queue, and is let in then: so what waits is at most this, and one long message.
    ///
    /// Without this there is no limit of bytes. Memory is taken as messages need it, and given back; only the first piece (64 bytes for each message; 64 KiB to 1 MiB, and
    /// not more than this limit) is the queue's for its life.
    ///
    /// In memory that cannot grow, a file or a region of the caller's ([`Options::place`]), this is the room for messages, rounded up to a power of two, of which 8 bytes stay
    /// free (256 bytes for each message, if nothing is said; 64 KiB if unbounded); a longer message is [`TooLarge`](PutError::TooLarge).
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

const SMALLEST_HOME: usize = 4 << 10;
const USUAL_HOME: usize = 64 << 10;
const LARGEST_HOME: usize = 1 << 20;
const MOST_MESSAGES: usize = 1 << 30;
const LARGEST_LIMIT: usize = SPAN as usize / 2 * copy::WORD;

/// In the second extent: the log cannot grow.
const FIXED: u64 = 1 << 32;

/// What the extents mean: messages, and words of `home` above them; the limit, in words, and whether the log is fixed above it.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "halves, and what `checked_sizes` has checked")]
fn sizes_of([messages, limit]: [u64; 2]) -> Sizes {
    let home = (messages >> 32) as u32;
    let span = if limit & FIXED == 0 { SPAN } else { home };
    Sizes { messages: messages as u32, home, limit: limit as u32, span, piece: PIECE }
}

/// `None`: no queue has such extents.
fn checked_sizes(extents: [u64; 2]) -> Option<Sizes> {
    let sizes = sizes_of(extents);
    if extents[1] & FIXED != 0 {
        let room = SMALLEST_HOME..=LARGEST_LIMIT;
        let sound = sizes.span.is_power_of_two()
            && room.contains(&(sizes.span as usize * copy::WORD))
            && extents[1] == FIXED | u64::from(UNLIMITED);
        return (sound && sizes.messages <= UNBOUNDED).then_some(sizes);
    }
    let sound = (SMALLEST_HOME..=LARGEST_HOME).contains(&(sizes.home as usize * copy::WORD))
        && (sizes.messages == UNBOUNDED || (1..=MOST_MESSAGES).contains(&(sizes.messages as usize)))
        && (extents[1] == u64::from(UNLIMITED) || extents[1] <= (LARGEST_LIMIT / copy::WORD) as u64)
        && sizes.home <= sizes.limit;
    sound.then_some(sizes)
}

// SAFETY: `repr(C)`, atomics only; its size is the ring and the log; both locks are told.
unsafe impl<T: ?Sized + 'static> Object for QueueBlock<T> {
    const KIND: &'static str = "queue";
    const LAYOUT: u32 = 1;
    type Params = Capacity;

    fn extents(capacity: &Capacity) -> Result<[u64; 2], String> {
        let Capacity { messages, bytes, fixed } = *capacity;
        if let Some(messages) = messages.filter(|messages| !(1..=MOST_MESSAGES).contains(messages)) {
            return Err(format!("a capacity of {messages} messages; 1 to {MOST_MESSAGES} are possible"));
        }
        if let Some(bytes) = bytes.filter(|bytes| !(1..=LARGEST_LIMIT).contains(bytes)) {
            return Err(format!("a capacity of {bytes} bytes; 1 to {LARGEST_LIMIT} are possible"));
        }
        if fixed {
            let room = bytes.or(messages.map(|messages| messages.saturating_mul(256))).unwrap_or(USUAL_HOME);
            let room = room.clamp(SMALLEST_HOME, LARGEST_LIMIT).next_power_of_two() / copy::WORD;
            let messages = messages.map_or(u64::from(UNBOUNDED), |messages| messages as u64);
            return Ok([messages | (room as u64) << 32, FIXED | u64::from(UNLIMITED)]);
        }
        let limit = bytes.map_or(usize::MAX, |bytes| bytes.max(SMALLEST_HOME));
        let home =
            messages.map_or(USUAL_HOME, |messages| (messages * 64).clamp(USUAL_HOME, LARGEST_HOME)).min(limit) / copy::WORD;
        let limit = bytes.map_or(u64::from(UNLIMITED), |_| (limit / copy::WORD) as u64);
        let messages = messages.map_or(u64::from(UNBOUNDED), |messages| messages as u64);
        Ok([messages | (home as u64) << 32, limit])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        checked_sizes(extents).map(|sizes| size_of::<Ring>() + sizes.span as usize * copy::WORD)
    }

    fn reserved(extents: [u64; 2]) -> Option<usize> {
        checked_sizes(extents).map(|sizes| size_of::<Ring>() + sizes.home as usize * copy::WORD)
    }

    fn placed(capacity: Capacity) -> Capacity {
        Capacity { fixed: true, ..capacity }
    }

    fn element() -> Element {
        Element::message::<T>()
    }

    unsafe fn init(&self, _: *const AtomicU64, _: Capacity) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        self.ring.locks()
    }
}

impl<T: ?Sized + 'static> Memory for Shared<QueueBlock<T>> {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline(always)]
    fn log(&self) -> Log<'_> {
        // `size` has checked the extents when the handle was made.
        Log::new(self.tail(), sizes_of(self.extents()))
    }

    fn populate(&self, words: Range<u32>) -> Result<(), Error> {
        Self::populate(self, bytes_of(words))
    }

    fn give_back(&self, words: Range<u32>) {
        // Where the file system cannot, it stays.
        let _ = Self::give_back(self, bytes_of(words));
    }
}

/// Bytes of the object.
fn bytes_of(words: Range<u32>) -> Range<usize> {
    let byte = |word: u32| size_of::<Ring>() + word as usize * copy::WORD;
    byte(words.start)..byte(words.end)
}

impl<T: ?Sized + 'static> Handle for Queue<T> {
    type Object = QueueBlock<T>;

    fn from_shared(shared: Shared<QueueBlock<T>>) -> Self {
        Self { shared }
    }

    fn shared(&self) -> Option<&Shared<QueueBlock<T>>> {
        Some(&self.shared)
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

    /// Its name; `None` for an anonymous one.
    pub fn name(&self) -> Option<&str> {
        self.shared.name()
    }

    #[inline]
    fn view(&self) -> View<'_, Shared<QueueBlock<T>>> {
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
            Refusal::NoSpace => PutError::NoSpace { value, queue, length },
            Refusal::TooLarge => PutError::TooLarge { value, queue, length, longest: self.longest_message() },
            Refusal::Corrupt | Refusal::NoMemory(_) => PutError::Broken { value, queue, problem: CORRUPT.to_owned() },
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
            Refusal::NoMemory(length) => GetError::NoMemory { queue, length },
            Refusal::TooLarge | Refusal::NoSpace | Refusal::Corrupt => GetError::Broken { queue, problem: CORRUPT.to_owned() },
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
    /// [`PutError`] with the value in it: full; busy, if others held the producers' lock until the deadline (a very short one, or one of them is stopped);
    /// and as [`put`](Self::put).
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
    /// [`GetError`]: empty; busy, if others held the consumers' lock until the deadline (a very short one, or one of them is stopped), so that a message may be
    /// there; and as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(Deadline::after(timeout))
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

    fn get_until(&self, deadline: Deadline) -> Result<T, GetError> {
        with_buffer(|buffer| {
            self.view().get(buffer, deadline).map_err(|refusal| self.get_error(refusal))?;
            self.decode(buffer)
        })
    }

    fn get_many_until(&self, most: usize, deadline: Deadline) -> Result<Vec<Result<T, GetError>>, GetError> {
        let mut messages = Messages::new();
        self.view().get_many(&mut messages, most, deadline).map_err(|refusal| self.get_error(refusal))?;
        Ok(messages.iter().map(|message| self.decode(message)).collect())
    }

    fn decode(&self, message: &[u8]) -> Result<T, GetError> {
        let failed = |problem: postcard::Error| GetError::Decode {
            queue: self.shared.describe(),
            bytes: message.to_vec(),
            problem: problem.to_string(),
        };
        codec::decode(message).map_err(failed)
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

    fn fresh(&self, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        let view = self.view();
        let mut message = Vec::new();
        // If it fails, so does the get, which knows the message.
        let _ = message.try_reserve_exact(view.next_length().unwrap_or(0));
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
