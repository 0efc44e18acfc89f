//! Where the records of a queue lie: a log that may be much larger than the memory it has.
//!
//! # Addresses
//!
//! The log is [`SPAN`] words of address space, of which the first `home` have memory from the beginning. A position counts words on and on, modulo 2^32; its word is the position modulo the span.
//! A record is a header word and the payload in whole words, in one piece. Behind the last record there is always room for one empty header.
//!
//! Records follow each other upwards. Where the next one would leave `home`, or what the log has grown to since, and the room at the beginning of the log is free, the header there is a **jump** (low half all ones, high half the
//! word to go on at) and the record lies at the beginning: this is how a ring wraps. Where that room is not free the log **climbs**: memory is set aside piece by piece as the tail comes there, so
//! a queue is as large as what waits in it, a message is as long as it is, and a full file system is an error, not a fault. What the head has left behind is given back.
//!
//! ```text
//!   same lap                  wrapped                        jumped over (no limit of bytes)
//!   |..h####t.....            |####t...h####j.....           |####j..h####j####t....
//!    free: t.., ..h            free: t..h                     free: t..
//! ```
//!
//! A **fixed** log (in memory of somebody else's) has memory everywhere. Its records wrap around the end in two pieces, and it neither jumps nor climbs.
//!
//! # Jumps and deaths
//!
//! A jump is written last, after the record that it leads to: one store makes both visible, so no jump is ever without its record. What the producers note about the last jump (`JUMPED`, `FILLED`) they note after it;
//! who takes over from a dead producer walks from the noted tail, and notes it.
//!
//! Memory is set aside and given back with the producers' lock held, which makes the free part of the log the holder's own: consumers only ever make it larger. `TOP` is raised before memory is set aside above it, and lowered after it was given back,
//! so a death in between costs at most memory that the next one gives back.
#![allow(unsafe_code, reason = "raw words of the log")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use multiproc_shm::copy;

/// Words of address space of a log that can grow: 8 GiB.
pub const SPAN: u32 = 1 << 30;
/// Memory is set aside in pieces of this many words: 1 MiB.
pub const PIECE: u32 = 1 << 17;
/// This many pieces behind a head that is far from home are given back at a time: 4 MiB, which is more than a processor keeps of its own.
pub const MUCH: u32 = 4;
/// A log may grow until it holds so many messages, or [`MUCH`], before it uses its beginning again: of a few, each is written over while its lines are still in the caches of the one who reads
/// (64 KiB each, copied once: of two 6.3 us, of eight 3.7, of 64 3.2, which is what a bare copy takes).
const MANY: u32 = 64;
/// The low half of a jump.
const JUMP: u32 = u32::MAX;
/// The uppermost two bits where a message has its CPU: a place that is reserved. (No CPU has such a number; "no CPU" is all ones.)
const RESERVED: u32 = 0b10;
/// As a number of messages: no limit.
pub const UNBOUNDED: u32 = i32::MAX.cast_unsigned();
/// As a number of words: no limit.
pub const UNLIMITED: u32 = u32::MAX;

/// A position and a number of messages, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub position: u32,
    pub count: u32,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nothing here yet.
    Empty,
    /// A message of this many bytes, put on this CPU.
    Message { length: u32, cpu: u32 },
    /// The place of a message of this many bytes, which whoever has made this mark writes or has left there unwritten; see `ring/reserve.rs`.
    Reserved { length: u32, mark: Mark },
    /// It goes on at this word.
    Jump(u32),
}

/// Which lock a reservation holds, and as the how-many-th it has taken it: 27 bits, as the lock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u32);

impl Mark {
    pub fn new(lock: u32, turn: u32) -> Self {
        Self((turn << 3 | lock & 7) & (u32::MAX >> 2))
    }

    pub fn lock(self) -> usize {
        self.0 as usize & 7
    }

    /// Whether it was made at this turn.
    pub fn is_of(self, turn: u32) -> bool {
        Self::new(self.0, turn) == self
    }
}

/// Where the next record may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    Tail,
    /// At this word, by way of a jump.
    Jump(u32),
}

/// The sizes of a log, checked when it was made or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub messages: u32,
    /// Words that have memory from the beginning.
    pub home: u32,
    /// Words that messages and their headers may take up; at least `home`.
    pub limit: u32,
    /// Words of address space, a power of two; of a fixed log, `home`.
    pub span: u32,
    /// Words for which memory is set aside at a time, a power of two.
    pub piece: u32,
}

/// A log as this process sees it.
#[derive(Clone, Copy)]
pub struct Log<'a> {
    words: *const AtomicU64,
    pub sizes: Sizes,
    life: PhantomData<&'a AtomicU64>,
}

impl Cursor {
    pub fn load(word: &AtomicU64) -> Self {
        Self::from(word.load(SeqCst))
    }

    #[allow(clippy::cast_possible_truncation, reason = "two halves")]
    pub fn from(word: u64) -> Self {
        Self { position: word as u32, count: (word >> 32) as u32 }
    }

    pub fn word(self) -> u64 {
        u64::from(self.position) | u64::from(self.count) << 32
    }

    pub fn after(self, words: u32) -> Self {
        Self { position: self.position.wrapping_add(words), count: self.count.wrapping_add(1) }
    }
}

impl Header {
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "two halves")]
    pub fn from(word: u64) -> Self {
        match (word as u32, (word >> 32) as u32) {
            (0, 0) => Self::Empty,
            (JUMP, index) => Self::Jump(index),
            (length, mark) if mark >> 30 == RESERVED => {
                Self::Reserved { length: length.wrapping_sub(1), mark: Mark(mark & (u32::MAX >> 2)) }
            }
            // No length, but not empty either: nobody wrote this, and it is longer than any message. (As empty it would be waited for by some, and be something for others.)
            (length, cpu) => Self::Message { length: length.wrapping_sub(1), cpu },
        }
    }

    #[inline]
    pub fn word(self) -> u64 {
        let (low, high) = match self {
            Self::Empty => (0, 0),
            Self::Message { length, cpu } => (length + 1, cpu),
            Self::Reserved { length, mark: Mark(mark) } => (length + 1, RESERVED << 30 | mark),
            Self::Jump(index) => (JUMP, index),
        };
        u64::from(low) | u64::from(high) << 32
    }
}

impl Sizes {
    pub fn is_fixed(self) -> bool {
        self.home == self.span
    }

    /// The word of a position.
    #[inline]
    pub fn index(self, position: u32) -> u32 {
        position & (self.span - 1)
    }

    /// Bytes of the longest message.
    pub fn longest(self) -> usize {
        // In a log that grows, wherever head and tail are, one half of the span is free in one piece when it is empty.
        let words = if self.is_fixed() { self.span } else { self.span / 2 };
        (words as usize - 2) * copy::WORD
    }

    /// The next position of this word.
    pub fn onward(self, position: u32, index: u32) -> u32 {
        let index = self.index(index);
        let lap = position.wrapping_sub(self.index(position));
        let next = lap.wrapping_add(index);
        if index > self.index(position) { next } else { next.wrapping_add(self.span) }
    }

    /// Words in use, as far as they count against the limit; `None`: head and tail contradict each other. `jumped` is the word of the last jump.
    #[inline]
    pub fn used(self, tail: Cursor, head: Cursor, jumped: u32) -> Option<u32> {
        let distance = tail.position.wrapping_sub(head.position);
        let (t, h) = (self.index(tail.position), self.index(head.position));
        if self.is_fixed() || (distance < self.span && h <= t) {
            return (distance <= self.span).then_some(distance);
        }
        if distance < self.span {
            // Wrapped: up to the jump, and from the beginning. (At most a span, so it cannot overflow.)
            return jumped.checked_sub(h).map(|upper| upper + t);
        }
        // Jumped over: only where there is no limit.
        (distance <= 2 * self.span && self.limit == UNLIMITED).then_some(0)
    }

    /// Where the log may wrap at the earliest for the sake of speed, if its records have `need` words.
    pub fn roomy(self, need: u32) -> u32 {
        need.saturating_mul(MANY).min(MUCH * self.piece).min(self.limit).min(self.span)
    }

    /// Whether a record of `need` words fits at the tail for sure. The log wraps at the word `end`, if it can. An old head is good enough: there is only more room.
    #[inline(always)]
    pub fn fits(self, tail: Cursor, head: Cursor, jumped: impl FnOnce() -> u32, end: u32, need: u32) -> bool {
        let (t, h) = (self.index(tail.position), self.index(head.position));
        let distance = tail.position.wrapping_sub(head.position);
        // One word more, for the empty header behind the record.
        tail.count.wrapping_sub(head.count) < self.messages
            && distance < self.span
            && t + need < if h <= t { end } else { h }
            && (self.limit == UNLIMITED
                || self.used(tail, head, jumped()).and_then(|used| used.checked_add(need)).is_some_and(|sum| sum <= self.limit))
    }

    /// Where a record of `need` words may lie now: `Ok(None)` when there is no room, `Err` when head and tail contradict each other. `jumped` is the word of the last jump.
    pub fn spot(self, tail: Cursor, head: Cursor, jumped: u32, end: u32, need: u32) -> Result<Option<Spot>, Contradiction> {
        let messages = tail.count.wrapping_sub(head.count);
        let used = self.used(tail, head, jumped).ok_or(Contradiction)?;
        if messages > self.messages {
            return Err(Contradiction);
        }
        // A message that is longer than the limit is let in when nothing else is over it: else it could never be.
        let allowed = used.checked_add(need).is_some_and(|sum| sum <= self.limit) || (need > self.limit && used <= self.limit);
        if messages == self.messages || !allowed {
            return Ok(None);
        }
        let distance = tail.position.wrapping_sub(head.position);
        let (t, h) = (self.index(tail.position), self.index(head.position));
        // One word more, for the empty header behind the record.
        let fits_below = |from: u32, end: u32| u64::from(from) + u64::from(need) < u64::from(end);
        if self.is_fixed() {
            return Ok((need < self.span - used).then_some(Spot::Tail));
        }
        if distance >= self.span {
            return Ok(fits_below(t, self.span).then_some(Spot::Tail));
        }
        if h <= t {
            return Ok(if fits_below(t, end) {
                Some(Spot::Tail)
            } else if fits_below(0, h) {
                Some(Spot::Jump(0))
            } else {
                fits_below(t, self.span).then_some(Spot::Tail)
            });
        }
        Ok(if fits_below(t, h) {
            Some(Spot::Tail)
        } else {
            (self.limit == UNLIMITED && fits_below(jumped + 1, self.span)).then_some(Spot::Jump(jumped + 1))
        })
    }
}

/// Head and tail contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction;

impl<'a> Log<'a> {
    /// `words` is the first of `sizes.span` words that live for `'a`.
    #[inline(always)]
    pub fn new(words: *const AtomicU64, sizes: Sizes) -> Self {
        Self { words, sizes, life: PhantomData }
    }

    /// The word at a position.
    #[inline(always)]
    pub fn at(self, position: u32) -> &'a AtomicU64 {
        // SAFETY: the index is inside the log, which is mapped as long as the handle that this came from.
        unsafe { &*self.words.wrapping_add(self.sizes.index(position) as usize) }
    }

    #[inline(always)]
    pub fn copy_in(self, position: u32, message: &[u8]) {
        let index = self.sizes.index(position) as usize;
        let straight = (self.sizes.span as usize - index) * copy::WORD;
        let (first, second) = message.split_at(message.len().min(straight));
        // SAFETY: `spot` found the record's words free and inside the log; the first part ends at its end.
        unsafe { copy::store(self.words.wrapping_add(index), first) };
        if !second.is_empty() {
            // SAFETY: as above: the rest, from the beginning of the log.
            unsafe { copy::store(self.words, second) };
        }
    }

    /// `length` is at most [`Sizes::longest`], and `target` has as many bytes.
    #[inline(always)]
    pub fn copy_out(self, position: u32, target: *mut u8, length: usize) {
        let index = self.sizes.index(position) as usize;
        let straight = (self.sizes.span as usize - index) * copy::WORD;
        let first = length.min(straight);
        // SAFETY: the first part ends at the log's end, the target has `length` bytes.
        unsafe { copy::load(self.words.wrapping_add(index), target, first) };
        if first < length {
            // SAFETY: as above: the rest (less than the log), from the beginning of the log.
            unsafe { copy::load(self.words, target.wrapping_add(first), length - first) };
        }
    }
}

/// Where the payload of a record lies: in a fixed log perhaps in two pieces, else in one.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    log: Log<'a>,
    position: u32,
    length: usize,
}

impl<'a> Payload<'a> {
    /// Of a record whose header lies before `position`; `length` is at most [`Sizes::longest`].
    pub fn new(log: Log<'a>, position: u32, length: usize) -> Self {
        Self { log, position, length }
    }

    pub fn len(self) -> usize {
        self.length
    }

    /// The first byte of each piece, and how many there are.
    pub fn pieces(self) -> [(*mut u8, usize); 2] {
        let index = self.log.sizes.index(self.position) as usize;
        let first = self.length.min((self.log.sizes.span as usize - index) * copy::WORD);
        let bytes = |word: usize| self.log.words.wrapping_add(word).cast_mut().cast();
        [(bytes(index), first), (bytes(0), self.length - first)]
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not all inside.
    pub fn read_at(self, offset: usize, target: &mut [u8]) {
        self.check(offset, target.len());
        let [(first, length), (second, _)] = self.pieces();
        let (early, late) = target.split_at_mut(target.len().min(length.saturating_sub(offset)));
        // SAFETY: inside the payload, as was checked, and so inside the log.
        unsafe { copy::load_at(first.cast_const().cast(), offset, early.as_mut_ptr(), early.len()) };
        if !late.is_empty() {
            let offset = (offset + early.len()) - length;
            // SAFETY: as above: the rest, in the second piece.
            unsafe { copy::load_at(second.cast_const().cast(), offset, late.as_mut_ptr(), late.len()) };
        }
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not all inside.
    pub fn write_at(self, offset: usize, source: &[u8]) {
        self.check(offset, source.len());
        let [(first, length), (second, _)] = self.pieces();
        let (early, late) = source.split_at(source.len().min(length.saturating_sub(offset)));
        // SAFETY: inside the payload, as was checked, and so inside the log.
        unsafe { copy::store_at(first.cast_const().cast(), offset, early) };
        if !late.is_empty() {
            let offset = (offset + early.len()) - length;
            // SAFETY: as above: the rest, in the second piece.
            unsafe { copy::store_at(second.cast_const().cast(), offset, late) };
        }
    }

    fn check(self, offset: usize, count: usize) {
        let inside = offset.checked_add(count).is_some_and(|end| end <= self.length);
        assert!(inside, "{count} bytes at {offset} of a message of {}", self.length);
    }
}

/// Words of a record with this payload; `None` if its length has no header.
#[inline]
pub fn record_words(length: usize) -> Option<u32> {
    u32::try_from(copy::words(length) + 1).ok().filter(|_| length < (JUMP - 1) as usize)
}
