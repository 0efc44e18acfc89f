//! [`Capacity`], and what of a queue is shared: the [`QueueBlock`] and the sizes of its log.
#![allow(unsafe_code, reason = "promises the layout of its block")]

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;
use std::sync::atomic::AtomicU64;

use multiproc_robust::RobustLock;
use multiproc_shm::{Element, Error, Object, Shared, copy};

use multiproc_ring::Ring;
use multiproc_ring::{LOCKS, SideTable};
use multiproc_ring::{Log, PIECE, RingObject, SPAN, Sizes, UNBOUNDED, UNLIMITED};

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
    /// not more than this limit) is the queue's for its life. What passes through a queue of long messages keeps room for 64 of them, up to 4 MiB, for speed (and not more than this limit).
    ///
    /// In memory that cannot grow, a file or a region of the caller's ([`Options::place`](multiproc_shm::Options::place)), this is the room for messages, rounded up to a power of two, of which 8 bytes stay
    /// free (256 bytes for each message, if nothing is said; 64 KiB if unbounded); a longer message is [`TooLarge`](crate::PutError::TooLarge).
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

/// The shared part of a [`Queue`](crate::Queue); the log lies behind it, and the side_table behind that.
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
pub(crate) fn sizes_of([messages, limit]: [u64; 2]) -> Sizes {
    let home = (messages >> 32) as u32;
    let span = if limit & FIXED == 0 { SPAN } else { home };
    Sizes { messages: messages as u32, home, limit: limit as u32, span, piece: PIECE }
}

/// `None`: no queue has such extents.
pub(crate) fn checked_sizes(extents: [u64; 2]) -> Option<Sizes> {
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

// SAFETY: `repr(C)`, atomics only; its size is the ring, the log and the reservations; all locks are told.
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
        checked_sizes(extents).map(|sizes| bytes_of_side_table(sizes).end)
    }

    fn reserved(extents: [u64; 2]) -> Option<usize> {
        let home = |sizes: Sizes| size_of::<Ring>() + sizes.home as usize * copy::WORD;
        checked_sizes(extents).map(|sizes| if sizes.is_fixed() { bytes_of_side_table(sizes).end } else { home(sizes) })
    }

    fn placed(capacity: Capacity) -> Capacity {
        capacity.in_fixed_memory()
    }

    fn element() -> Element {
        Element::message::<T>()
    }

    unsafe fn init(&self, _: *const AtomicU64, _: Capacity) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        self.ring.locks()
    }

    unsafe fn more_locks(&self, tail: *const AtomicU64, extents: [u64; 2]) -> &[RobustLock] {
        // Before the first of them was taken there may be no memory; where there is, somebody may have died in one before that was noted.
        if !self.ring.has_side_table() && !sizes_of(extents).is_fixed() {
            return &[];
        }
        // SAFETY: behind the log, as `side_table` says; the locks are the first in it.
        unsafe { slice::from_raw_parts(side_table(tail, sizes_of(extents)).cast(), LOCKS) }
    }
}

impl<T: ?Sized + 'static> RingObject for QueueBlock<T> {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline(always)]
    fn log(shared: &Shared<Self>) -> Log<'_> {
        // `size` has checked the extents when the handle was made.
        Log::new(shared.tail(), sizes_of(shared.extents()))
    }

    fn bytes_of(words: Range<u32>) -> Range<usize> {
        bytes_of(words)
    }

    #[inline]
    fn side_table(shared: &Shared<Self>) -> Option<&SideTable> {
        // SAFETY: `size` has checked the extents when the handle was made, which is borrowed; atomics only, of which every pattern is valid.
        Some(unsafe { &*side_table(shared.tail(), sizes_of(shared.extents())) })
    }

    fn populate_side_table(shared: &Shared<Self>) -> Result<(), Error> {
        let sizes = sizes_of(shared.extents());
        // What cannot grow has all its memory.
        if sizes.is_fixed() { Ok(()) } else { shared.populate(bytes_of_side_table(sizes)) }
    }
}

/// Where the side_table is if the log begins at `tail`.
fn side_table(tail: *const AtomicU64, sizes: Sizes) -> *const SideTable {
    tail.wrapping_add(sizes.span as usize).cast()
}

/// Of the object.
fn bytes_of_side_table(sizes: Sizes) -> Range<usize> {
    let start = bytes_of(sizes.span..sizes.span).start;
    start..start + size_of::<SideTable>()
}

/// Bytes of the object.
fn bytes_of(words: Range<u32>) -> Range<usize> {
    let byte = |word: u32| size_of::<Ring>() + word as usize * copy::WORD;
    byte(words.start)..byte(words.end)
}
