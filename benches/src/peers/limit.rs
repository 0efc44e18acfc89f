//! Bare shared memory: no safety, no names, and no process may die. The distance to these values is the price
//! of everything else.

use std::hint::{black_box, spin_loop};
use std::ptr;
use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};

use crate::os::{self, Apart, Sharable};
use crate::queue::{Get, Put, Traffic, capacity, run_pair};
use crate::race::How;

/// A ring of slots of one size, with one producer and one consumer. Messages are read in their slots, and
/// each side caches the other's index. It waits as this library's queue does before it sleeps, and prefetches
/// as that does.
pub(crate) fn queue(traffic: Traffic) -> Result<f64, String> {
    match traffic.size {
        8 => ring::<8>(traffic),
        64 => ring::<64>(traffic),
        1024 => ring::<1024>(traffic),
        65536 => ring::<65536>(traffic),
        size => Err(format!("no slots of {size} bytes")),
    }
}

fn ring<const N: usize>(traffic: Traffic) -> Result<f64, String> {
    let slots = Slots::<N>::new();
    let producer = Producer { slots, own: 0, seen: 0 };
    let consumer = Consumer { slots, own: 0, seen: 0, shown: 0, pause: SHORTEST_PAUSE, marked: 0 };
    run_pair(traffic, How::Processes, producer, consumer)
}

/// As in this library's queue: see there for the purpose of each.
const SHORTEST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 192;
const RUN: u64 = 3;
const AHEAD: usize = 512;

#[derive(Default)]
struct Indices {
    head: Apart<AtomicU64>,
    tail: Apart<AtomicU64>,
}
// SAFETY: atomics only.
unsafe impl Sharable for Indices {}

#[derive(Clone, Copy)]
struct Slots<const N: usize> {
    indices: &'static Indices,
    first: *mut [u8; N],
    mask: u64,
}
// SAFETY: a slot is used by one side at a time, as the indices say.
unsafe impl<const N: usize> Send for Slots<N> {}

impl<const N: usize> Slots<N> {
    fn new() -> Self {
        let count = capacity(N);
        Self { indices: os::shared(), first: os::shared_bytes(count * N).cast(), mask: count as u64 - 1 }
    }

    #[inline]
    fn at(self, index: u64) -> *mut [u8; N] {
        self.first.wrapping_add((index & self.mask) as usize)
    }
}

struct Producer<const N: usize> {
    slots: Slots<N>,
    own: u64,
    seen: u64,
}

impl<const N: usize> Put for Producer<N> {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        let slots = self.slots;
        if self.own - self.seen > slots.mask {
            spin(SHORTEST_PAUSE, || {
                self.seen = slots.indices.head.load(Acquire);
                self.own - self.seen <= slots.mask
            });
        }
        prefetch_for_writing(slots.at(self.own + (AHEAD / N).max(1) as u64).cast());
        let message: &[u8; N] = message.try_into().map_err(|_| "wrong length")?;
        // SAFETY: the slot is inside the mapping, and free.
        unsafe { ptr::copy_nonoverlapping(message, slots.at(self.own), 1) };
        self.own += 1;
        slots.indices.tail.store(self.own, Release);
        Ok(())
    }
}

struct Consumer<const N: usize> {
    slots: Slots<N>,
    own: u64,
    seen: u64,
    /// The index that was last published. It is published after each eighth of the slots, and when all are
    /// free.
    shown: u64,
    pause: u32,
    /// The index at the last pause.
    marked: u64,
}

impl<const N: usize> Get for Consumer<N> {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let slots = self.slots;
        if self.own == self.seen {
            self.show();
            let run = self.own - self.marked;
            self.pause = if run >= RUN { (self.pause * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
            self.marked = self.own;
            spin(self.pause, || {
                self.seen = slots.indices.tail.load(Acquire);
                self.seen != self.own
            });
        }
        // SAFETY: the slot is inside the mapping, filled, and the consumer's until its index moves.
        let result = look(black_box(unsafe { &*slots.at(self.own) }));
        self.own += 1;
        if self.own - self.shown > slots.mask / 8 {
            self.show();
        }
        Ok(result)
    }
}

impl<const N: usize> Consumer<N> {
    #[inline]
    fn show(&mut self) {
        self.shown = self.own;
        self.slots.indices.head.store(self.own, Release);
    }
}

/// Pauses `first` times and looks, then again after 1, 2, 4, … 16 pauses.
#[inline]
fn spin(first: u32, mut ready: impl FnMut() -> bool) {
    let mut pauses = first;
    let mut next = 1;
    loop {
        (0..pauses).for_each(|_| spin_loop());
        if ready() {
            return;
        }
        pauses = next;
        next = (next * 2).min(16);
    }
}

#[inline]
fn prefetch_for_writing(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A word that is taken by one compare-and-swap and released by one store.
#[derive(Default)]
pub(crate) struct SpinLock(AtomicU32);
// SAFETY: atomics only.
unsafe impl Sharable for SpinLock {}

impl SpinLock {
    #[inline]
    pub(crate) fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        while self.0.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            while self.0.load(Relaxed) != 0 {
                spin_loop();
            }
        }
        let result = section();
        self.0.store(0, Release);
        result
    }
}

/// A cache line in each direction, for requests and answers without sleeping.
#[derive(Default)]
pub(crate) struct CacheLines {
    there: Apart<[AtomicU64; 8]>,
    back: Apart<[AtomicU64; 8]>,
}
// SAFETY: atomics only.
unsafe impl Sharable for CacheLines {}

impl CacheLines {
    pub(crate) fn ask(&self, number: u64) {
        write(&self.there, number);
        read(&self.back, number);
    }

    pub(crate) fn answer(&self, number: u64) {
        read(&self.there, number);
        write(&self.back, number);
    }
}

/// The first word is stored last: it publishes the others.
fn write(line: &[AtomicU64; 8], number: u64) {
    line[1..].iter().for_each(|word| word.store(number, Relaxed));
    line[0].store(number + 1, Release);
}

fn read(line: &[AtomicU64; 8], number: u64) {
    while line[0].load(Acquire) != number + 1 {
        spin_loop();
    }
    black_box(line[1..].iter().fold(0, |sum, word| sum ^ word.load(Relaxed)));
}

/// A futex word in each direction, without spinning.
#[derive(Default)]
pub(crate) struct Futexes {
    there: Apart<AtomicU32>,
    back: Apart<AtomicU32>,
}
// SAFETY: atomics only.
unsafe impl Sharable for Futexes {}

impl Futexes {
    pub(crate) fn ask(&self, number: u64) {
        raise(&self.there, number);
        sleep(&self.back, number);
    }

    pub(crate) fn answer(&self, number: u64) {
        sleep(&self.there, number);
        raise(&self.back, number);
    }
}

fn raise(word: &AtomicU32, number: u64) {
    word.store(number as u32 + 1, SeqCst);
    os::futex_wake(word);
}

fn sleep(word: &AtomicU32, number: u64) {
    while word.load(SeqCst) == number as u32 {
        os::futex_wait(word, number as u32);
    }
}
