//! Where the records of a ring lie: a [`Log`], which may be much larger than the memory it has.
//!
//! # Addresses
//!
//! The log is [`SPAN`] words of address space. The first words, the *initial capacity* (`initial`), have
//! memory from the beginning. A position counts words for ever, modulo 2^32; its word is the position modulo
//! the span. A record is a header word and the payload in whole words, in one piece. Behind the last record
//! there is always room for one empty header.
//!
//! Each record follows the one before it, upwards. The log wraps where the next record would leave the
//! initial capacity, or what the log has grown to since, if the room at the beginning is free. The header
//! there is a **jump** (low half all ones, high half the word to go on at), and the record lies at the
//! beginning. If that room is not free the log **grows**: memory is set aside piece by piece as the tail
//! comes there. So a queue is as large as what waits in it, a message may have any length, and a full file
//! system is an error, not a fault. Memory that the head has left behind is given back.
//!
//! ```text
//!   same lap                  wrapped                        jumped over (no limit of bytes)
//!   |..h####t.....            |####t...h####j.....           |####j..h####j####t....
//!    free: t.., ..h            free: t..h                     free: t..
//! ```
//!
//! A **fixed** log (in memory of the caller's) has memory everywhere. Its records wrap around the end in two
//! pieces, and it neither jumps nor grows.
//!
//! # Jumps and deaths
//!
//! A producer writes the jump last, after the record that it leads to: one store makes both visible, so a
//! jump always has its record. What the producers note about the last jump (`jumped_top`, `filled`) they note
//! after it. The producer that takes over from a dead one walks from the noted tail, and notes it again.
//!
//! Memory is set aside and given back with the producers' lock held. So the free part of the log is its
//! holder's own: consumers only ever enlarge it. `top` is raised before memory is set aside above it, and
//! lowered after memory was given back. So a death in between costs at most memory that a later producer
//! gives back.
#![allow(unsafe_code, reason = "raw words of the log")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

use multiproc_shm::copy;

use crate::header::Cursor;

/// Words of address space of a log that can grow: 8 GiB.
pub const SPAN: u32 = 1 << 30;
/// Memory is set aside in pieces of this many words: 1 MiB.
pub const PIECE: u32 = 1 << 17;
/// So many pieces are given back at a time behind a head that is far from the beginning: 4 MiB, more than a
/// processor caches.
pub(crate) const PIECES_GIVEN_BACK: u32 = 4;
/// A log may grow until it holds so many messages, or [`PIECES_GIVEN_BACK`], before it uses its beginning
/// again. With few messages, each is overwritten while its cache lines are still in the consumer's caches.
/// (Messages of 64 KiB, copied once: with two in turn 6.3 us, with eight 3.7 us, with 64 3.2 us, which is
/// what a bare copy takes.)
const MESSAGES_PER_LAP: u32 = 64;
/// As a number of messages: no limit.
pub const UNBOUNDED: u32 = i32::MAX.cast_unsigned();
/// As a number of words: no limit.
pub const UNLIMITED: u32 = u32::MAX;

/// Where the next record may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// At the tail.
    Tail,
    /// At this word, behind a jump.
    Jump(u32),
}

/// The sizes of a log, checked when it was made or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "to be filled in by the object that holds the ring")]
pub struct Sizes {
    /// How many messages can wait.
    pub messages: u32,
    /// Words that have memory from the beginning.
    pub initial: u32,
    /// Words that messages and their headers may take up; at least `initial`.
    pub limit: u32,
    /// Words of address space, a power of two; of a fixed log, `initial`.
    pub span: u32,
    /// Words for which memory is set aside at a time, a power of two.
    pub piece: u32,
}

/// Head and tail contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction;

impl Sizes {
    /// Returns whether the log has all its memory from the beginning.
    #[inline]
    pub fn is_fixed(self) -> bool {
        self.initial == self.span
    }

    /// The word of a position.
    #[inline]
    pub(crate) fn index(self, position: u32) -> u32 {
        position & (self.span - 1)
    }

    /// Returns the bytes of the longest message.
    #[inline]
    pub fn longest(self) -> usize {
        // Wherever head and tail are, one half of the span of an empty log that grows is free in one piece.
        let words = if self.is_fixed() { self.span } else { self.span / 2 };
        (words as usize - 2) * copy::WORD
    }

    /// The next position of this word.
    pub(crate) fn onward(self, position: u32, index: u32) -> u32 {
        let index = self.index(index);
        let lap = position.wrapping_sub(self.index(position));
        let next = lap.wrapping_add(index);
        if index > self.index(position) { next } else { next.wrapping_add(self.span) }
    }

    /// Words in use, as far as they count against the limit; `None`: head and tail contradict each other.
    /// `jumped` is the word of the last jump.
    #[inline]
    pub(crate) fn used(self, tail: Cursor, head: Cursor, jumped: u32) -> Option<u32> {
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

    /// The first word at which the log should wrap, for the sake of speed, if its records have `need` words.
    pub(crate) fn fast_end(self, need: u32) -> u32 {
        need.saturating_mul(MESSAGES_PER_LAP)
            .min(PIECES_GIVEN_BACK * self.piece)
            .min(self.limit)
            .min(self.span)
    }

    /// Whether a record of `need` words fits at the tail for sure. The log wraps at the word `end`, if it
    /// can. An old head is good enough: there is only more room.
    #[inline(always)]
    pub(crate) fn fits(
        self,
        tail: Cursor,
        head: Cursor,
        jumped: impl FnOnce() -> u32,
        end: u32,
        need: u32,
    ) -> bool {
        let (t, h) = (self.index(tail.position), self.index(head.position));
        let distance = tail.position.wrapping_sub(head.position);
        // One word more, for the empty header behind the record.
        tail.count.wrapping_sub(head.count) < self.messages
            && distance < self.span
            && t + need < if h <= t { end } else { h }
            && (self.limit == UNLIMITED
                || self
                    .used(tail, head, jumped())
                    .and_then(|used| used.checked_add(need))
                    .is_some_and(|sum| sum <= self.limit))
    }

    /// Where a record of `need` words may lie now: `Ok(None)` if there is no room, `Err` if head and tail
    /// contradict each other. `jumped` is the word of the last jump.
    pub(crate) fn spot(
        self,
        tail: Cursor,
        head: Cursor,
        jumped: u32,
        end: u32,
        need: u32,
    ) -> Result<Option<Spot>, Contradiction> {
        let messages = tail.count.wrapping_sub(head.count);
        let used = self.used(tail, head, jumped).ok_or(Contradiction)?;
        if messages > self.messages {
            return Err(Contradiction);
        }
        // A message that is longer than the limit is admitted once no other oversized message is queued:
        // otherwise it never could be.
        let allowed = used.checked_add(need).is_some_and(|sum| sum <= self.limit)
            || (need > self.limit && used <= self.limit);
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

/// A log as this process has it mapped.
#[derive(Clone, Copy)]
pub struct Log<'a> {
    words: *const AtomicU64,
    /// Its sizes.
    pub sizes: Sizes,
    life: PhantomData<&'a AtomicU64>,
}

impl<'a> Log<'a> {
    /// Returns the log whose first word is `words`.
    ///
    /// # Safety
    ///
    /// - `sizes.span` words are mapped there for `'a`, and all of them are accessed as atomics.
    #[inline(always)]
    pub unsafe fn new(words: *const AtomicU64, sizes: Sizes) -> Self {
        Self { words, sizes, life: PhantomData }
    }

    /// The log in these words.
    #[cfg(test)]
    pub(crate) fn over(words: &'a [AtomicU64], sizes: Sizes) -> Self {
        assert!(words.len() >= sizes.span as usize);
        Self { words: words.as_ptr(), sizes, life: PhantomData }
    }

    /// The word at a position.
    #[inline(always)]
    pub(crate) fn at(self, position: u32) -> &'a AtomicU64 {
        // SAFETY: the index is inside the log, which is mapped as long as the handle that this came from.
        unsafe { &*self.words.wrapping_add(self.sizes.index(position) as usize) }
    }

    /// Copies a payload to this position.
    #[inline(always)]
    pub(crate) fn copy_in(self, position: u32, message: &[u8]) {
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

    /// Copies a payload out. `length` is at most [`Sizes::longest`], and `target` has as many bytes.
    #[inline(always)]
    pub(crate) fn copy_out(self, position: u32, target: *mut u8, length: usize) {
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

    /// The first byte of each piece of a payload at this position, and how many bytes the piece has.
    pub(crate) fn pieces(self, position: u32, length: usize) -> [(*mut u8, usize); 2] {
        let index = self.sizes.index(position) as usize;
        let first = length.min((self.sizes.span as usize - index) * copy::WORD);
        let bytes = |word: usize| self.words.wrapping_add(word).cast_mut().cast();
        [(bytes(index), first), (bytes(0), length - first)]
    }
}

impl fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}
