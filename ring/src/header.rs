//! What single words of a log say: a [`Cursor`] says where the head or the tail is, a [`Header`] lies in
//! front of each record.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use multiproc_robust::{high, low};
use multiproc_shm::copy;

/// The low half of a jump.
const JUMP: u32 = u32::MAX;
/// The upper two bits of a reservation's mark, where a message has its CPU. (No CPU has such a number; "no
/// CPU" is all ones.)
const RESERVED: u32 = 0b10;
/// The bits of a mark below these two.
const MARK: u32 = u32::MAX >> 2;
/// Where a mark has the generation; below it is the number of the claim.
const GENERATION: u32 = 3;

/// A position in the log, in words, and a number of messages: both count on for ever, modulo 2^32. They share
/// one word, so that one store moves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "two halves of a word")]
pub struct Cursor {
    /// Words since the beginning.
    pub position: u32,
    /// Messages since the beginning.
    pub count: u32,
}

impl Cursor {
    /// Reads the word of a cursor.
    #[inline]
    pub fn load(word: &AtomicU64) -> Self {
        Self::from(word.load(SeqCst))
    }

    /// Returns the cursor that a word says.
    #[inline]
    pub const fn from(word: u64) -> Self {
        Self { position: low(word), count: high(word) }
    }

    /// Returns its word.
    #[inline]
    pub fn word(self) -> u64 {
        u64::from(self.position) | u64::from(self.count) << 32
    }

    /// Returns the cursor behind a record of so many words.
    #[inline]
    pub(crate) fn after(self, words: u32) -> Self {
        Self { position: self.position.wrapping_add(words), count: self.count.wrapping_add(1) }
    }
}

/// What the header of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Nothing is here yet.
    Empty,
    /// A message of this many bytes, put on this CPU.
    Message { length: u32, cpu: u32 },
    /// A reservation of this many bytes. The mark says which producer fills it, or left it unfilled; see
    /// `reserve.rs`.
    Reserved { length: u32, mark: Mark },
    /// The log goes on at this word.
    Jump(u32),
}

impl Header {
    #[inline]
    pub(crate) const fn from(word: u64) -> Self {
        match (low(word), high(word)) {
            (0, 0) => Self::Empty,
            (JUMP, index) => Self::Jump(index),
            (length, mark) if mark >> 30 == RESERVED => {
                Self::Reserved { length: length.wrapping_sub(1), mark: Mark(mark & MARK) }
            }
            // A length of 0, but not empty: no process of ours wrote this. The length wraps, and is longer
            // than any message. (Taken as empty, some callers would wait for it, and others would find
            // something.)
            (length, cpu) => Self::Message { length: length.wrapping_sub(1), cpu },
        }
    }

    #[inline]
    pub(crate) fn word(self) -> u64 {
        let (low, high) = match self {
            Self::Empty => (0, 0),
            Self::Message { length, cpu } => (length + 1, cpu),
            Self::Reserved { length, mark: Mark(mark) } => (length + 1, RESERVED << 30 | mark),
            Self::Jump(index) => (JUMP, index),
        };
        u64::from(low) | u64::from(high) << 32
    }
}

/// Which claim a reservation has, and the generation in which that claim was taken: 30 bits, of which 27 are
/// the lower bits of the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u32);

impl Mark {
    pub(crate) const fn new(claim: u32, generation: u32) -> Self {
        Self((generation << GENERATION | claim & 7) & MARK)
    }

    /// The number of the claim.
    pub(crate) const fn claim(self) -> usize {
        self.0 as usize & 7
    }

    /// Whether it was made in this generation of its claim.
    pub(crate) fn is_of(self, generation: u32) -> bool {
        Self::new(self.0, generation) == self
    }
}

/// Returns the words of a record with this payload; `None` if no header can say its length.
#[inline]
pub fn record_words(length: usize) -> Option<u32> {
    u32::try_from(copy::words(length) + 1).ok().filter(|_| length < (JUMP - 1) as usize)
}
