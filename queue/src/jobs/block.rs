//! [`JobLimits`], and what of a joinable queue is shared: the [`JobBlock`], two logs, and the slots' areas.
#![allow(unsafe_code, reason = "promises the layout of its block, and reaches the slots' areas")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64};

use multiproc_robust::{EventCount, RobustLock};
use multiproc_shm::{Element, Error, Object, Shared, copy};

use crate::block::{Capacity, QueueBlock, checked_sizes, sizes_of};
use multiproc_ring::Ring;
use multiproc_ring::{Log, Memory, PIECE, RingObject, SPAN, Sizes, UNBOUNDED, UNLIMITED};

/// How much a [`JoinableQueue`](crate::JoinableQueue) holds, and what it does with jobs that nobody gets done. A plain number, or a [`Capacity`], limits what waits.
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

/// So often a job is handed out, if nothing else is said.
const USUAL_DELIVERIES: u16 = 5;
/// Bytes of the longest job, if nothing else is said.
const USUAL_LONGEST: usize = 64 << 20;

impl JobLimits {
    /// A job that was handed out so many times (1 to 65,535; if nothing is said, 5) and came back each time becomes a [dead letter](crate::JoinableQueue::dead_letters).
    pub fn max_deliveries(mut self, deliveries: u16) -> Self {
        self.deliveries = deliveries.max(1);
        self
    }

    /// A job is handed out again and again, until somebody gets it done.
    pub fn unlimited_deliveries(mut self) -> Self {
        self.deliveries = 0;
        self
    }

    /// Bytes of the longest job: up to 4 GiB, rounded up to a power of two; 64 MiB if nothing is said. It is address space that this costs, 120 times, and no memory.
    pub fn longest_job(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }
}

impl<C: Into<Capacity>> From<C> for JobLimits {
    fn from(capacity: C) -> Self {
        Self { capacity: capacity.into(), deliveries: USUAL_DELIVERIES, longest: USUAL_LONGEST }
    }
}

/// So many jobs may be out at once: with the words of the two sides, as many as one sleeper can watch.
pub const MAX_LEASES: usize = 120;

/// What of jobs that are out is the queue's, beside the slots.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Leases {
    /// Slots that were ever used.
    pub(crate) used: AtomicU32,
    /// Not 0 once somebody has begun to close the queue.
    pub(crate) closing: AtomicU32,
    /// Not 0 when a consumer may wait for a slot.
    pub(crate) starved: AtomicU32,
    /// Not 0 once the home of the dead letters' log has memory.
    pub(crate) morgue: AtomicU32,
    /// Those who wait for the last job to be done.
    pub(crate) joiners: EventCount,
    /// Counts dead letters that became jobs again.
    pub(crate) revived: AtomicU32,
    reserved: [AtomicU32; 8],
    /// Where the next look for jobs that came back begins. Written with the consumers' lock, like the next.
    pub(crate) next: AtomicU32,
    /// Counts leases.
    pub(crate) leased: AtomicU32,
    /// How many jobs were [taken](crate::JoinableQueue::take).
    pub(crate) taken: AtomicU64,
    reserved_as_well: [AtomicU64; 6],
    pub(crate) slots: [RobustLock; MAX_LEASES],
    pub(crate) notes: [SlotNotes; MAX_LEASES],
}

/// What of a slot is not beside its lock.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct SlotNotes {
    /// Words of its area that have memory.
    pub(crate) filled: AtomicU32,
    reserved: AtomicU32,
    /// Not 0: taken by this thread without a [`Job`](crate::Job), as the how-many-th; see `task_done`.
    pub(crate) taken: AtomicU64,
    reserved_too: [AtomicU64; 6],
}

const _: () = assert!(size_of::<Leases>() == 128 + MAX_LEASES * 128);

/// The shared part of a [`JoinableQueue`](crate::JoinableQueue); its two logs and the slots' areas lie behind it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct JobBlock<T: ?Sized> {
    ring: Ring,
    /// Dead letters: who holds the consumers' lock of `ring` may do all. (Of its own locks, the producers' is taken at once or not at all, to give memory back.)
    morgue: Ring,
    leases: Leases,
    message: PhantomData<fn(&T)>,
}

/// The second extent of a queue, in ours.
const QUEUES: u64 = (1 << 33) - 1;
/// Where ours has the logarithm of the bytes of an area, and how often a job is handed out.
const AREA: u32 = 40;
const DELIVERIES: u32 = 48;
const SMALLEST_AREA: u32 = 12;
const LARGEST_AREA: u32 = 32;
/// Bytes of a log's address space.
const LOG: usize = SPAN as usize * copy::WORD;

fn queue_extents([messages, limit]: [u64; 2]) -> [u64; 2] {
    [messages, limit & QUEUES]
}

#[allow(clippy::cast_possible_truncation, reason = "six bits")]
fn area_bytes([_, limit]: [u64; 2]) -> usize {
    1 << ((limit >> AREA) as u32 & 63).min(LARGEST_AREA)
}

// SAFETY: `repr(C)`, atomics only; its size is the block, both logs and the areas; all locks are told.
unsafe impl<T: ?Sized + 'static> Object for JobBlock<T> {
    const KIND: &'static str = "jobs";
    const LAYOUT: u32 = 1;
    type Params = JobLimits;

    fn extents(limits: &JobLimits) -> Result<[u64; 2], String> {
        if limits.capacity.is_fixed() {
            return Err("a joinable queue takes memory as it needs it, so it cannot be placed".to_owned());
        }
        if !(1..=1 << LARGEST_AREA).contains(&limits.longest) {
            return Err(format!("jobs of {} bytes; 1 to {} are possible", limits.longest, 1_u64 << LARGEST_AREA));
        }
        let [messages, limit] = QueueBlock::<T>::extents(&limits.capacity)?;
        let area = limits.longest.next_power_of_two().ilog2().max(SMALLEST_AREA);
        Ok([messages, limit | u64::from(area) << AREA | u64::from(limits.deliveries) << DELIVERIES])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        let area = extents[1] >> AREA & 63;
        let sizes = checked_sizes(queue_extents(extents)).filter(|sizes| !sizes.is_fixed())?;
        let sound = (u64::from(SMALLEST_AREA)..=u64::from(LARGEST_AREA)).contains(&area) && sizes.span == SPAN;
        sound.then(|| size_of::<Self>() + 2 * LOG + MAX_LEASES * area_bytes(extents))
    }

    fn reserved(extents: [u64; 2]) -> Option<usize> {
        checked_sizes(queue_extents(extents)).map(|sizes| size_of::<Self>() + sizes.home as usize * copy::WORD)
    }

    fn placed(limits: JobLimits) -> JobLimits {
        JobLimits { capacity: limits.capacity.in_fixed_memory(), ..limits }
    }

    fn element() -> Element {
        Element::message::<T>()
    }

    unsafe fn init(&self, _: *const AtomicU64, _: JobLimits) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        self.ring.locks()
    }

    unsafe fn more_locks(&self, _: *const AtomicU64, _: [u64; 2]) -> &[RobustLock] {
        &self.leases.slots
    }
}

impl<T: ?Sized + 'static> RingObject for JobBlock<T> {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline(always)]
    fn log(shared: &Shared<Self>) -> Log<'_> {
        // `size` has checked the extents when the handle was made.
        Log::new(shared.tail(), sizes_of(queue_extents(shared.extents())))
    }

    fn bytes_of(words: Range<u32>) -> Range<usize> {
        bytes_of::<T>(0, words)
    }
}

/// The dead letters of a queue: a log of their own.
#[derive(Debug)]
pub(crate) struct Morgue<'a, T: ?Sized + 'static>(&'a Shared<JobBlock<T>>);

/// Words of the dead letters' log that get memory with the first of them.
pub(crate) const MORGUE_HOME: u32 = 8 << 10;

impl<T: ?Sized + 'static> Memory for Morgue<'_, T> {
    fn ring(&self) -> &Ring {
        let Self(queue) = self;
        &queue.morgue
    }

    fn log(&self) -> Log<'_> {
        let sizes = Sizes { messages: UNBOUNDED, home: MORGUE_HOME, limit: UNLIMITED, span: SPAN, piece: PIECE };
        Log::new(self.0.tail().wrapping_add(SPAN as usize), sizes)
    }

    fn populate(&self, words: Range<u32>) -> Result<(), Error> {
        self.0.populate(bytes_of::<T>(LOG, words))
    }

    fn give_back(&self, words: Range<u32>) {
        let _ = self.0.give_back(bytes_of::<T>(LOG, words));
    }
}

/// What is beside the log, for `ring/lease.rs`.
pub(crate) trait Jobs: Memory {
    type Morgue<'a>: Memory
    where
        Self: 'a;

    fn leases(&self) -> &Leases;

    fn morgue(&self) -> Self::Morgue<'_>;

    /// 0: no limit.
    fn max_deliveries(&self) -> u32;

    /// Words of a slot's area.
    fn area_words(&self) -> usize;

    /// Writes a message to a slot's area, which has memory for it.
    fn write(&self, slot: usize, message: &[u8]);

    /// Appends what is in a slot's area to a vector that has room for it.
    fn read(&self, slot: usize, length: usize, message: &mut Vec<u8>);

    /// Sets memory aside in a slot's area.
    fn populate_area(&self, slot: usize, words: Range<u32>) -> Result<(), Error>;

    /// Gives memory of a slot's area back.
    fn give_back_area(&self, slot: usize, words: Range<u32>);
}

impl<T: ?Sized + 'static> Jobs for Shared<JobBlock<T>> {
    type Morgue<'a> = Morgue<'a, T>;

    #[inline]
    fn leases(&self) -> &Leases {
        &self.leases
    }

    fn morgue(&self) -> Morgue<'_, T> {
        Morgue(self)
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
    fn write(&self, slot: usize, message: &[u8]) {
        debug_assert!(slot < MAX_LEASES && message.len() <= area_bytes(self.extents()));
        // SAFETY: the caller has seen to it that the area is so long and has memory; it lies inside the object, which `size` has told.
        unsafe { copy::store(self.area(slot), message) };
    }

    #[inline]
    fn read(&self, slot: usize, length: usize, message: &mut Vec<u8>) {
        debug_assert!(slot < MAX_LEASES && length <= area_bytes(self.extents()));
        let target = message.spare_capacity_mut();
        assert!(target.len() >= length, "the caller makes room");
        // SAFETY: as above; the target has `length` bytes.
        unsafe { copy::load(self.area(slot), target.as_mut_ptr().cast(), length) };
        // SAFETY: `load` wrote them.
        unsafe { message.set_len(message.len() + length) };
    }

    fn populate_area(&self, slot: usize, words: Range<u32>) -> Result<(), Error> {
        Self::populate(self, self.area_range(slot, words))
    }

    fn give_back_area(&self, slot: usize, words: Range<u32>) {
        let _ = Self::give_back(self, self.area_range(slot, words));
    }
}

/// Where the areas are.
trait Areas {
    fn area(&self, slot: usize) -> *const AtomicU64;

    fn area_range(&self, slot: usize, words: Range<u32>) -> Range<usize>;
}

impl<T: ?Sized + 'static> Areas for Shared<JobBlock<T>> {
    #[inline]
    fn area(&self, slot: usize) -> *const AtomicU64 {
        self.tail().wrapping_add(2 * SPAN as usize + slot * self.area_words())
    }

    fn area_range(&self, slot: usize, words: Range<u32>) -> Range<usize> {
        bytes_of::<T>(2 * LOG + slot * area_bytes(self.extents()), words)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the upper 16 bits")]
pub(crate) fn deliveries([_, limit]: [u64; 2]) -> u16 {
    (limit >> DELIVERIES) as u16
}

/// Bytes of the longest job.
pub(crate) fn longest_job(extents: [u64; 2]) -> usize {
    area_bytes(extents).min(sizes_of(queue_extents(extents)).longest() - RECORD)
}

/// Bytes before a job among the dead letters.
pub(crate) const RECORD: usize = 16;

/// Bytes of the object: these words of what begins so many bytes behind the block.
fn bytes_of<T: ?Sized>(from: usize, words: Range<u32>) -> Range<usize> {
    let byte = |word: u32| size_of::<JobBlock<T>>() + from + word as usize * copy::WORD;
    byte(words.start)..byte(words.end)
}
