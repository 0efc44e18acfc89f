//! [`Capacity`], and the shared part of a queue: the [`QueueBlock`], and the sizes of its log.
#![allow(unsafe_code, reason = "promises the layout of its block")]

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;
use std::sync::atomic::AtomicU64;

use multiproc_ring::{CLAIMS, Log, PIECE, Ring, RingObject, SPAN, SideTable, Sizes, UNBOUNDED, UNLIMITED};
use multiproc_robust::RobustLock;
use multiproc_shm::{Element, Error, Object, Shared, copy};

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
    /// Returns a limit of this many waiting messages, whatever their length: 1 to 2^30.
    pub fn messages(messages: usize) -> Self {
        Self { messages: Some(messages), bytes: None, fixed: false }
    }

    /// Returns no limit (Python's default): messages wait as long as the system has memory, at most 8 GiB of
    /// them.
    pub fn unbounded() -> Self {
        Self { messages: None, bytes: None, fixed: false }
    }

    /// Adds a limit of this many waiting bytes, at least 4,096. Each message counts with a header of 8 bytes,
    /// and is rounded up to a multiple of 8 bytes.
    ///
    /// A message that is longer than the limit is admitted once no other such message is queued. So what
    /// waits is at most this limit, and one long message.
    ///
    /// Without this there is no limit of bytes. Memory is taken as messages need it, and given back. Only the
    /// first piece is the queue's for its life: 64 bytes for each message, but 64 KiB to 1 MiB, and not more
    /// than this limit. A queue of long messages keeps room for 64 of them, up to 4 MiB, for speed (and not
    /// more than this limit).
    ///
    /// In memory that cannot grow, a file or a region of the caller's
    /// ([`Options::place`](multiproc_shm::Options::place)), this is the room for messages, rounded up to a
    /// power of two; 8 bytes of it stay free. The default is 256 bytes for each message, or 64 KiB if
    /// unbounded. A longer message is [`TooLarge`](crate::PutError::TooLarge).
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }

    pub(crate) fn in_fixed_memory(self) -> Self {
        Self { fixed: true, ..self }
    }

    pub(crate) fn is_fixed(self) -> bool {
        self.fixed
    }
}

impl From<usize> for Capacity {
    fn from(messages: usize) -> Self {
        Self::messages(messages)
    }
}

/// The shared part of a [`Queue`](crate::Queue). The log lies behind it, and the side table behind the log.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct QueueBlock<T: ?Sized> {
    ring: Ring,
    message: PhantomData<fn(&T)>,
}

/// Bytes of the initial capacity.
const MIN_INITIAL: usize = 4 << 10;
const DEFAULT_INITIAL: usize = 64 << 10;
const MAX_INITIAL: usize = 1 << 20;
const MAX_MESSAGES: usize = 1 << 30;
/// Bytes that can be a limit.
const MAX_LIMIT: usize = SPAN as usize / 2 * copy::WORD;

/// In the second extent: the log cannot grow.
const FIXED: u64 = 1 << 32;

/// Returns what the extents mean. First: messages (low half), words of the initial capacity (high half).
/// Second: the limit in words (low half), and whether the log is fixed (above it).
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "halves, and what `checked_sizes` has checked")]
pub(crate) fn sizes_of([messages, limit]: [u64; 2]) -> Sizes {
    let initial = (messages >> 32) as u32;
    let span = if limit & FIXED == 0 { SPAN } else { initial };
    Sizes { messages: messages as u32, initial, limit: limit as u32, span, piece: PIECE }
}

/// Returns the same if a queue can have such extents.
pub(crate) fn checked_sizes(extents: [u64; 2]) -> Option<Sizes> {
    let sizes = sizes_of(extents);
    if extents[1] & FIXED != 0 {
        let room = MIN_INITIAL..=MAX_LIMIT;
        let sound = sizes.span.is_power_of_two()
            && room.contains(&(sizes.span as usize * copy::WORD))
            && extents[1] == FIXED | u64::from(UNLIMITED);
        return (sound && sizes.messages <= UNBOUNDED).then_some(sizes);
    }
    let sound = (MIN_INITIAL..=MAX_INITIAL).contains(&(sizes.initial as usize * copy::WORD))
        && (sizes.messages == UNBOUNDED || (1..=MAX_MESSAGES).contains(&(sizes.messages as usize)))
        && (extents[1] == u64::from(UNLIMITED) || extents[1] <= (MAX_LIMIT / copy::WORD) as u64)
        && sizes.initial <= sizes.limit;
    sound.then_some(sizes)
}

// SAFETY: `repr(C)`, atomics only; its size is the ring, the log and the side table; all locks are listed.
unsafe impl<T: ?Sized + 'static> Object for QueueBlock<T> {
    const KIND: &'static str = "queue";
    const LAYOUT: u32 = 1;
    type Params = Capacity;

    fn extents(capacity: &Capacity) -> Result<[u64; 2], String> {
        let Capacity { messages, bytes, fixed } = *capacity;
        if let Some(messages) = messages.filter(|messages| !(1..=MAX_MESSAGES).contains(messages)) {
            return Err(format!("a capacity of {messages} messages; 1 to {MAX_MESSAGES} are possible"));
        }
        if let Some(bytes) = bytes.filter(|bytes| !(1..=MAX_LIMIT).contains(bytes)) {
            return Err(format!("a capacity of {bytes} bytes; 1 to {MAX_LIMIT} are possible"));
        }
        if fixed {
            let room =
                bytes.or(messages.map(|messages| messages.saturating_mul(256))).unwrap_or(DEFAULT_INITIAL);
            let room = room.clamp(MIN_INITIAL, MAX_LIMIT).next_power_of_two() / copy::WORD;
            let messages = messages.map_or(u64::from(UNBOUNDED), |messages| messages as u64);
            return Ok([messages | (room as u64) << 32, FIXED | u64::from(UNLIMITED)]);
        }
        let limit = bytes.map_or(usize::MAX, |bytes| bytes.max(MIN_INITIAL));
        let initial = messages
            .map_or(DEFAULT_INITIAL, |messages| (messages * 64).clamp(DEFAULT_INITIAL, MAX_INITIAL))
            .min(limit)
            / copy::WORD;
        let limit = bytes.map_or(u64::from(UNLIMITED), |_| (limit / copy::WORD) as u64);
        let messages = messages.map_or(u64::from(UNBOUNDED), |messages| messages as u64);
        Ok([messages | (initial as u64) << 32, limit])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        checked_sizes(extents).map(|sizes| bytes_of_side_table(sizes).end)
    }

    fn reserved(extents: [u64; 2]) -> Option<usize> {
        let initial = |sizes: Sizes| size_of::<Ring>() + sizes.initial as usize * copy::WORD;
        checked_sizes(extents)
            .map(|sizes| if sizes.is_fixed() { bytes_of_side_table(sizes).end } else { initial(sizes) })
    }

    fn placed(capacity: Capacity) -> Capacity {
        capacity.in_fixed_memory()
    }

    fn element() -> Element {
        Element::message::<T>()
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        self.ring.locks()
    }

    unsafe fn more_locks(&self, tail: *const AtomicU64, extents: [u64; 2]) -> &[RobustLock] {
        // Before the first claim was taken there may be no memory. Where there is some, a process may have
        // died in a claim before that was noted.
        if !self.ring.has_side_table() && !sizes_of(extents).is_fixed() {
            return &[];
        }
        // SAFETY: behind the log, as `side_table` says; the claims are the first in it.
        unsafe { slice::from_raw_parts(side_table(tail, sizes_of(extents)).cast(), CLAIMS) }
    }
}

impl<T: ?Sized + 'static> RingObject for QueueBlock<T> {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline(always)]
    fn log(shared: &Shared<Self>) -> Log<'_> {
        // SAFETY: `size` has checked the extents when the handle was made, which is borrowed and keeps the
        // mapping; atomics only.
        unsafe { Log::new(shared.tail(), sizes_of(shared.extents())) }
    }

    fn bytes_of(words: Range<u32>) -> Range<usize> {
        bytes_of(words)
    }

    #[inline]
    fn side_table(shared: &Shared<Self>) -> Option<&SideTable> {
        // SAFETY: `size` has checked the extents when the handle was made, which is borrowed; atomics only,
        // of which every pattern is valid.
        Some(unsafe { &*side_table(shared.tail(), sizes_of(shared.extents())) })
    }

    fn populate_side_table(shared: &Shared<Self>) -> Result<(), Error> {
        let sizes = sizes_of(shared.extents());
        // A log that cannot grow has all its memory.
        if sizes.is_fixed() { Ok(()) } else { shared.populate(bytes_of_side_table(sizes)) }
    }
}

/// Returns where the side table is if the log begins at `tail`.
fn side_table(tail: *const AtomicU64, sizes: Sizes) -> *const SideTable {
    tail.wrapping_add(sizes.span as usize).cast()
}

/// Returns the bytes of the object that the side table takes up.
fn bytes_of_side_table(sizes: Sizes) -> Range<usize> {
    let start = bytes_of(sizes.span..sizes.span).start;
    start..start + size_of::<SideTable>()
}

/// Returns the bytes of the object that these words of the log take up.
fn bytes_of(words: Range<u32>) -> Range<usize> {
    let byte = |word: u32| size_of::<Ring>() + word as usize * copy::WORD;
    byte(words.start)..byte(words.end)
}
