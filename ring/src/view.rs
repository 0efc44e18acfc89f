//! A ring as this process sees it: a [`View`]. What a ring is, and what a death leaves of it.
//!
//! # The bytes
//!
//! A ring is a log of records between two [`Side`](multiproc_robust::Side)s. The table of all its words is in
//! `words.rs`, the addresses of the log are in `log.rs`. A *cursor* is one word: a position in words (low
//! half) and the number of messages so far (high half), both counting on for ever, modulo 2^32. One store
//! moves both, so `head` and `tail` are never half moved.
//!
//! # Who moves what
//!
//! - **put**, holding the producers' lock: payload; header of the *next* record = 0; this record's header
//!   (the commit; behind a jump, the jump is the commit); `tail`.
//! - **get**, holding the consumers' lock: read the header at `head`; if it is not 0, copy the payload out;
//!   `head` (the commit).
//! - **several at once**: a producer commits each message; a consumer copies all of them out, then moves
//!   `head` once.
//!
//! A consumer looks at the header itself, so a message becomes visible in one cache line; `tail` is the
//! producers' private note.
//!
//! # What a death leaves
//!
//! | killed | what is there | repaired by |
//! |---|---|---|
//! | producer before the commit | free words with rubbish; perhaps unneeded memory [1] | nothing to repair |
//! | producer between commit and `tail` | a whole message that `tail` does not count | the next producer [2] |
//! | consumer before the store of `head` | the messages, still there | nothing to repair: another consumer gets them |
//! | consumer after the store of `head` | the messages are gone with their consumer | nothing: at most those of this one call are lost |
//! | consumer that gives memory back | nothing half done; it holds the producers' lock | the next consumer that gives memory back |
//! | closing thread, after the flag | closed; parked threads not notified | one that the kernel wakes [3] |
//!
//! 1. The next producer uses the memory, or it is given back later.
//! 2. It walks from `tail` over the headers that are there.
//! 3. That thread notifies the others. So does the next thread that takes the lock.
//!
//! Waiting is [`Side`](multiproc_robust::Side)'s: no thread parks or spins with a lock of the ring, so a
//! waiting thread that is killed or stopped delays no other.
//!
//! # What is not trusted
//!
//! Sizes come from the handle. A position is masked into the log. A length is read once, compared with what
//! the log can hold and with how far it has memory, and used from the local copy. (A peer that lies about
//! that, too, makes a get copy as much as the longest message.)

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;

use multiproc_robust::{AcquireError, Side};

use crate::header::{Cursor, Header};
use crate::log::Log;
use crate::memory::Memory;
use crate::words::{ConsumerNotes, ConsumerWords, ProducerNotes, ProducerWords, Ring};

/// How often a look without a lock is repeated if other threads move what it looks at. Each repetition means
/// that another thread made progress, unless a peer is hostile.
pub(crate) const TRIES: u32 = 10_000;

/// A ring as this process sees it. One pointer on purpose: what is larger is written to the stack before each
/// call that is not inlined, and those writes wait in front of the lock.
pub struct View<'a, M> {
    /// Where the ring and its log are.
    pub memory: &'a M,
}

/// Why nothing was put or got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "each object turns each of them into an error of its own")]
pub enum Refusal {
    /// There was no room, or no message, until the deadline.
    TimedOut,
    /// The ring is closed, or all peers have disconnected.
    Closed,
    /// The message can never fit.
    TooLarge,
    /// Another thread was in the middle of the same until the deadline, or for longer than a moment.
    Busy,
    /// The system has no memory for it.
    NoSpace,
    /// This process has no memory for a message of so many bytes, which stays.
    NoMemory(usize),
    /// The shared words contradict each other.
    Corrupt,
    /// The lock of a side cannot be taken.
    Lock(AcquireError),
}

impl<'a, M> View<'a, M> {
    /// Returns a view of the ring in this memory.
    #[inline(always)]
    pub const fn new(memory: &'a M) -> Self {
        Self { memory }
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// Returns the fixed part of the ring.
    #[inline(always)]
    pub fn ring(self) -> &'a Ring {
        self.memory.ring()
    }

    /// Returns the log.
    #[inline(always)]
    pub fn log(self) -> Log<'a> {
        self.memory.log()
    }

    #[inline(always)]
    pub(crate) fn producers(self) -> &'a Side {
        &self.ring().producers
    }

    #[inline(always)]
    pub(crate) fn consumers(self) -> &'a Side {
        &self.ring().consumers
    }

    #[inline(always)]
    pub(crate) fn producer_words(self) -> &'a ProducerWords {
        self.producers().guarded_as()
    }

    #[inline(always)]
    pub(crate) fn producer_notes(self) -> &'a ProducerNotes {
        self.producers().notes_as()
    }

    #[inline(always)]
    pub(crate) fn consumer_words(self) -> &'a ConsumerWords {
        self.consumers().guarded_as()
    }

    #[inline(always)]
    pub(crate) fn consumer_notes(self) -> &'a ConsumerNotes {
        self.consumers().notes_as()
    }

    /// Returns where the oldest record is.
    #[inline(always)]
    pub fn head(self) -> Cursor {
        Cursor::load(&self.consumer_words().head)
    }

    /// Returns where the next record goes, as the producers have noted it.
    #[inline(always)]
    pub fn tail(self) -> Cursor {
        Cursor::load(&self.producer_words().tail)
    }

    /// Returns whether there is no record at this position, as long as the head has not moved.
    #[inline]
    pub fn is_empty_at(self, position: u32) -> bool {
        self.log().at(position).load(SeqCst) == 0
    }

    /// Returns whether the ring is closed.
    #[inline]
    pub fn is_closed(self) -> bool {
        self.producer_words().closed.load(SeqCst) != 0
    }

    /// Returns how many messages and reservations there are, a snapshot.
    pub fn len(self) -> usize {
        let mut estimate = 0;
        for _ in 0..TRIES {
            let head = self.head();
            let tail = self.tail();
            estimate = (tail.count.wrapping_add(self.unnoted(tail)).wrapping_sub(head.count))
                .min(self.log().sizes.messages) as usize;
            if self.tail() == tail && self.head() == head {
                break;
            }
        }
        estimate
    }

    /// How many records the tail does not count: a producer that is between its commit and its note (or was
    /// killed there) has one more.
    pub(crate) fn unnoted(self, tail: Cursor) -> u32 {
        u32::from(!self.is_empty_at(tail.position))
    }

    /// The header at this position, or behind the jump there. Neither is read with a lock.
    pub(crate) fn header_at(self, position: u32) -> Header {
        // ORDER: SeqCst, hence Acquire, pairs with the commit in `record.rs`: what the header leads to is
        // there.
        self.behind_jump(position, Header::from(self.log().at(position).load(SeqCst)))
    }

    /// This header, which was read at this position, or, if it is a jump, the one that it leads to.
    pub(crate) fn behind_jump(self, position: u32, header: Header) -> Header {
        let Header::Jump(index) = header else { return header };
        // ORDER: as above.
        Header::from(self.log().at(self.log().sizes.onward(position, index)).load(SeqCst))
    }
}

impl<M> Clone for View<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for View<'_, M> {}

impl<M> fmt::Debug for View<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}
