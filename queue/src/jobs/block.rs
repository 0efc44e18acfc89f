//! [`JobLimits`], and the shared part of a joinable queue: the [`JobBlock`], two logs, and an area for each
//! lease.
#![allow(unsafe_code, reason = "promises the layout of its block, and reaches the leases' areas")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

use multiproc_ring::{Log, Memory, PIECE, Ring, RingObject, SPAN, Sizes, UNBOUNDED, UNLIMITED};
use multiproc_robust::RobustLock;
use multiproc_shm::{Element, Error, Object, Shared, copy};

use crate::block::{Capacity, QueueBlock, checked_sizes, sizes_of};
use crate::jobs::words::{Leases, MAX_LEASES};

/// How much a [`JoinableQueue`](crate::JoinableQueue) holds, and what it does with jobs that no consumer gets
/// done. A plain number, or a [`Capacity`], limits the jobs that wait.
///
/// ```
/// use multiproc_queue::{JobLimits, JoinableQueue};
///
/// let queue: JoinableQueue<String> = JoinableQueue::new(JobLimits::from(100).max_deliveries(3))?;
/// assert_eq!(queue.max_deliveries(), Some(3));
/// # Ok::<(), multiproc_queue::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLimits {
    capacity: Capacity,
    /// 0: no limit.
    deliveries: u16,
    longest: usize,
}

/// How often a job is leased, if nothing else is said.
const DEFAULT_DELIVERIES: u16 = 5;
/// Bytes of the longest job, if nothing else is said.
const DEFAULT_LONGEST: usize = 64 << 20;

impl JobLimits {
    /// Sets how often a job is leased: 1 to 65,535 times, 5 if nothing is said. A job that came back each
    /// time becomes a [dead letter](crate::JoinableQueue::dead_letters).
    pub fn max_deliveries(mut self, deliveries: u16) -> Self {
        self.deliveries = deliveries.max(1);
        self
    }

    /// Leases a job again and again, until a consumer gets it done.
    pub fn unlimited_deliveries(mut self) -> Self {
        self.deliveries = 0;
        self
    }

    /// Sets the bytes of the longest job: up to 4 GiB, rounded up to a power of two; 64 MiB if nothing is
    /// said. This costs address space, 120 times, and no memory.
    pub fn longest_job(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }
}

impl<C: Into<Capacity>> From<C> for JobLimits {
    fn from(capacity: C) -> Self {
        Self { capacity: capacity.into(), deliveries: DEFAULT_DELIVERIES, longest: DEFAULT_LONGEST }
    }
}

/// The shared part of a [`JoinableQueue`](crate::JoinableQueue). Its two logs and the leases' areas lie
/// behind it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct JobBlock<T: ?Sized> {
    ring: Ring,
    /// The dead-letter log. The consumers' lock of `ring` guards both its ends. (Of its own locks only the
    /// producers' is ever taken, at once or not at all, to give memory back.)
    dead_letters: Ring,
    leases: Leases,
    message: PhantomData<fn(&T)>,
}

/// The bits of the second extent that a queue has, too.
const QUEUE_BITS: u64 = (1 << 33) - 1;
/// Where the second extent has the logarithm of the bytes of an area, and how often a job is leased.
const AREA: u32 = 40;
const DELIVERIES: u32 = 48;
const MIN_AREA: u32 = 12;
const MAX_AREA: u32 = 32;
/// Bytes of a log's address space.
const LOG: usize = SPAN as usize * copy::WORD;

fn queue_extents([messages, limit]: [u64; 2]) -> [u64; 2] {
    [messages, limit & QUEUE_BITS]
}

#[allow(clippy::cast_possible_truncation, reason = "six bits")]
fn area_bytes([_, limit]: [u64; 2]) -> usize {
    1 << ((limit >> AREA) as u32 & 63).min(MAX_AREA)
}

// SAFETY: `repr(C)`, atomics only; its size is the block, both logs and the areas; all locks are listed.
unsafe impl<T: ?Sized + 'static> Object for JobBlock<T> {
    const KIND: &'static str = "jobs";
    const LAYOUT: u32 = 1;
    type Params = JobLimits;

    fn extents(limits: &JobLimits) -> Result<[u64; 2], String> {
        if limits.capacity.is_fixed() {
            return Err("a joinable queue takes memory as it needs it, so it cannot be placed".to_owned());
        }
        if !(1..=1 << MAX_AREA).contains(&limits.longest) {
            return Err(format!("jobs of {} bytes; 1 to {} are possible", limits.longest, 1_u64 << MAX_AREA));
        }
        let [messages, limit] = QueueBlock::<T>::extents(&limits.capacity)?;
        let area = limits.longest.next_power_of_two().ilog2().max(MIN_AREA);
        Ok([messages, limit | u64::from(area) << AREA | u64::from(limits.deliveries) << DELIVERIES])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        let area = extents[1] >> AREA & 63;
        let sizes = checked_sizes(queue_extents(extents)).filter(|sizes| !sizes.is_fixed())?;
        let sound = (u64::from(MIN_AREA)..=u64::from(MAX_AREA)).contains(&area) && sizes.span == SPAN;
        sound.then(|| size_of::<Self>() + 2 * LOG + MAX_LEASES * area_bytes(extents))
    }

    fn reserved(extents: [u64; 2]) -> Option<usize> {
        checked_sizes(queue_extents(extents))
            .map(|sizes| size_of::<Self>() + sizes.initial as usize * copy::WORD)
    }

    fn placed(limits: JobLimits) -> JobLimits {
        JobLimits { capacity: limits.capacity.in_fixed_memory(), ..limits }
    }

    fn element() -> Element {
        Element::message::<T>()
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        self.ring.locks()
    }

    unsafe fn more_locks(&self, _: *const AtomicU64, _: [u64; 2]) -> &[RobustLock] {
        &self.leases.claims
    }
}

impl<T: ?Sized + 'static> RingObject for JobBlock<T> {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline(always)]
    fn log(shared: &Shared<Self>) -> Log<'_> {
        // SAFETY: `size` has checked the extents when the handle was made, which is borrowed and keeps the
        // mapping; atomics only.
        unsafe { Log::new(shared.tail(), sizes_of(queue_extents(shared.extents()))) }
    }

    fn bytes_of(words: Range<u32>) -> Range<usize> {
        bytes_of::<T>(0, words)
    }
}

/// The dead-letter log of a queue.
#[derive(Debug)]
pub(crate) struct DeadLetterLog<'a, T: ?Sized + 'static>(&'a Shared<JobBlock<T>>);

/// Words of the dead-letter log that get memory with the first dead letter.
pub(crate) const LETTERS_INITIAL: u32 = 8 << 10;

impl<T: ?Sized + 'static> Memory for DeadLetterLog<'_, T> {
    fn ring(&self) -> &Ring {
        let Self(queue) = self;
        &queue.dead_letters
    }

    fn log(&self) -> Log<'_> {
        let sizes = Sizes {
            messages: UNBOUNDED,
            initial: LETTERS_INITIAL,
            limit: UNLIMITED,
            span: SPAN,
            piece: PIECE,
        };
        // SAFETY: the second log lies behind the first, inside the object, as `size` says; the handle is
        // borrowed and keeps the mapping; atomics only.
        unsafe { Log::new(self.0.tail().wrapping_add(SPAN as usize), sizes) }
    }

    fn populate(&self, words: Range<u32>) -> Result<(), Error> {
        self.0.populate(bytes_of::<T>(LOG, words))
    }

    fn give_back(&self, words: Range<u32>) {
        let _ = self.0.give_back(bytes_of::<T>(LOG, words));
    }
}

/// What a joinable queue has beside its log.
pub(crate) trait Jobs: Memory {
    /// The dead-letter log.
    type DeadLetters<'a>: Memory
    where
        Self: 'a;

    /// Returns the words of the leases.
    fn leases(&self) -> &Leases;

    /// Returns the dead-letter log.
    fn dead_letters(&self) -> Self::DeadLetters<'_>;

    /// Returns how often a job is leased; 0: no limit.
    fn max_deliveries(&self) -> u32;

    /// Returns the words of a lease's area.
    fn area_words(&self) -> usize;

    /// Writes a message to a lease's area, which has memory for it.
    fn write(&self, lease: usize, message: &[u8]);

    /// Appends what is in a lease's area to a vector that has room for it.
    fn read(&self, lease: usize, length: usize, message: &mut Vec<u8>);

    /// Sets memory aside in a lease's area.
    fn populate_area(&self, lease: usize, words: Range<u32>) -> Result<(), Error>;

    /// Gives memory of a lease's area back.
    fn give_back_area(&self, lease: usize, words: Range<u32>);
}

impl<T: ?Sized + 'static> Jobs for Shared<JobBlock<T>> {
    type DeadLetters<'a> = DeadLetterLog<'a, T>;

    #[inline]
    fn leases(&self) -> &Leases {
        &self.leases
    }

    fn dead_letters(&self) -> DeadLetterLog<'_, T> {
        DeadLetterLog(self)
    }

    #[inline]
    fn max_deliveries(&self) -> u32 {
        u32::from(deliveries(self.extents()))
    }

    #[inline]
    fn area_words(&self) -> usize {
        area_bytes(self.extents()) / copy::WORD
    }

    #[inline]
    fn write(&self, lease: usize, message: &[u8]) {
        debug_assert!(lease < MAX_LEASES && message.len() <= area_bytes(self.extents()));
        // SAFETY: the caller has seen to it that the area is so long and has memory; it lies inside the
        // object, as `size` says.
        unsafe { copy::store(self.area(lease), message) };
    }

    #[inline]
    fn read(&self, lease: usize, length: usize, message: &mut Vec<u8>) {
        debug_assert!(lease < MAX_LEASES && length <= area_bytes(self.extents()));
        let target = message.spare_capacity_mut();
        assert!(target.len() >= length, "the caller makes room");
        // SAFETY: as above; the target has `length` bytes.
        unsafe { copy::load(self.area(lease), target.as_mut_ptr().cast(), length) };
        // SAFETY: `load` wrote them.
        unsafe { message.set_len(message.len() + length) };
    }

    fn populate_area(&self, lease: usize, words: Range<u32>) -> Result<(), Error> {
        Self::populate(self, self.area_range(lease, words))
    }

    fn give_back_area(&self, lease: usize, words: Range<u32>) {
        let _ = Self::give_back(self, self.area_range(lease, words));
    }
}

/// Where the areas of the leases are.
trait Areas {
    fn area(&self, lease: usize) -> *const AtomicU64;

    fn area_range(&self, lease: usize, words: Range<u32>) -> Range<usize>;
}

impl<T: ?Sized + 'static> Areas for Shared<JobBlock<T>> {
    #[inline]
    fn area(&self, lease: usize) -> *const AtomicU64 {
        self.tail().wrapping_add(2 * SPAN as usize + lease * self.area_words())
    }

    fn area_range(&self, lease: usize, words: Range<u32>) -> Range<usize> {
        bytes_of::<T>(2 * LOG + lease * area_bytes(self.extents()), words)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the upper 16 bits")]
pub(crate) fn deliveries([_, limit]: [u64; 2]) -> u16 {
    (limit >> DELIVERIES) as u16
}

/// Returns the bytes of the longest job.
pub(crate) fn longest_job(extents: [u64; 2]) -> usize {
    area_bytes(extents).min(sizes_of(queue_extents(extents)).longest() - LETTER_HEADER)
}

/// Bytes before a job in the dead-letter log.
pub(crate) const LETTER_HEADER: usize = 16;

/// Returns the bytes of the object that these words take up, of what begins `from` bytes behind the block.
fn bytes_of<T: ?Sized>(from: usize, words: Range<u32>) -> Range<usize> {
    let byte = |word: u32| size_of::<JobBlock<T>>() + from + word as usize * copy::WORD;
    byte(words.start)..byte(words.end)
}
