//! Looks without a lock: whether there is a message, whether there is room, whether the end has come. So a
//! thread finds out whether to wait, and a thread that leaves finds out which other threads can go on.

use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

use multiproc_robust::{high, low};

use crate::header::{Cursor, Header};
use crate::log::{Contradiction, Spot, UNBOUNDED, UNLIMITED};
use crate::memory::Memory;
use crate::view::{Refusal, TRIES, View};
use crate::words::Peer;

/// What is at the head.
pub(crate) enum Front {
    /// Nothing, at this head.
    Empty(u64),
    /// A reservation that a producer still fills: for a consumer, nothing yet.
    Filling,
    /// A message, or an aborted record to be skipped.
    Something,
}

impl<M: Memory> View<'_, M> {
    /// What is at the head, which is read again afterwards: it did not move meanwhile.
    pub(crate) fn at_front(self) -> Front {
        for _ in 0..TRIES {
            let head = self.consumer_words().head.load(SeqCst);
            let position = Cursor::from(head).position;
            let front = match Header::from(self.log().at(position).load(SeqCst)) {
                Header::Empty => Front::Empty(head),
                Header::Message { .. } => return Front::Something,
                header if self.is_something(position, header) => return Front::Something,
                _ => Front::Filling,
            };
            if self.consumer_words().head.load(SeqCst) == head {
                return front;
            }
        }
        Front::Something
    }

    /// Returns whether there is a message, or an aborted record to be skipped.
    pub fn has_data(self) -> bool {
        matches!(self.at_front(), Front::Something)
    }

    /// Returns whether there is no message that could be taken now.
    pub fn is_empty(self) -> bool {
        !self.has_data()
    }

    /// Whether there is something, or a reservation that is being filled.
    pub(crate) fn has_record(self) -> bool {
        !matches!(self.at_front(), Front::Empty(_))
    }

    /// Returns the bytes of the oldest message, if there is one: a hint.
    pub fn next_length(self) -> Option<usize> {
        let Header::Message { length, .. } = self.header_at(self.head().position) else { return None };
        Some(length as usize).filter(|length| *length <= self.log().sizes.longest())
    }

    /// The position of the oldest record's header, and what that header is as long as there is nothing to be
    /// taken.
    pub(crate) fn front(self, head: Cursor) -> (u32, u64) {
        let mut position = head.position;
        // ORDER: Acquire, both, pairs with the commit in `record.rs`: what the header leads to is there.
        let mut word = self.log().at(position).load(Acquire);
        if let Header::Jump(index) = Header::from(word) {
            position = self.log().sizes.onward(position, index);
            word = self.log().at(position).load(Acquire);
        }
        if matches!(Header::from(word), Header::Reserved { .. }) {
            (position, word)
        } else {
            (head.position, 0)
        }
    }

    /// Whether nothing more will come for a member, once all that is there now is taken.
    pub(crate) fn is_ending(self) -> bool {
        self.is_closed() || self.seem_disconnected(Peer::Producer)
    }

    /// Whether nothing is there and nothing will come. (What is reserved may still come.)
    pub(crate) fn has_ended(self, others: Option<Peer>) -> bool {
        (self.is_closed() && !self.has_record())
            || others.is_some_and(|others| self.were_disconnected_while(others, || !self.has_record()))
    }

    /// The same at a glance: whether a closer look is worth it.
    pub(crate) fn seems_ended(self, others: Option<Peer>) -> bool {
        self.seems_closed(others) && !self.has_record()
    }

    /// Whether the ring is closed, or these peers seem to have disconnected.
    pub(crate) fn seems_closed(self, others: Option<Peer>) -> bool {
        self.is_closed() || others.is_some_and(|others| self.seem_disconnected(others))
    }

    /// For a thread that has put nothing: whether threads that are parked for messages should look all the
    /// same.
    pub(crate) fn has_news(self) -> bool {
        // A consumer of jobs parks for other reasons, too; and there are no reservations there.
        if self.memory.side_table().is_none() {
            return true;
        }
        let ending = self.is_ending();
        match self.at_front() {
            Front::Something => true,
            Front::Empty(_) => ending,
            Front::Filling => false,
        }
    }

    /// The word of the last jump.
    #[inline]
    pub(crate) fn jumped(self) -> u32 {
        self.log().sizes.index(low(self.producer_notes().jumped_top.load(Relaxed)))
    }

    /// Above this word there is no memory.
    pub(crate) fn top(self) -> u32 {
        high(self.producer_notes().jumped_top.load(Relaxed))
    }

    /// Returns the words of the log that have memory, at most.
    pub fn words_with_memory(self) -> u32 {
        self.top().clamp(self.log().sizes.initial, self.log().sizes.span)
    }

    /// Since the last jump, memory was given back up to this word.
    pub(crate) fn low(self) -> u32 {
        low(self.producer_notes().low_calm.load(Relaxed))
    }

    /// Where the log wraps: at the end of the initial capacity, or of what the log has had to grow to.
    #[inline]
    pub(crate) fn end(self) -> u32 {
        low(self.producer_notes().solid.load(Relaxed)).clamp(self.log().sizes.initial, self.log().sizes.span)
    }

    /// Where a record of so many words may lie: `Ok(None)` if there is no room.
    pub(crate) fn spot(self, tail: Cursor, head: Cursor, need: u32) -> Result<Option<Spot>, Refusal> {
        self.spot_within(tail, head, need, self.end().max(self.log().sizes.fast_end(need)))
    }

    pub(crate) fn spot_within(
        self,
        tail: Cursor,
        head: Cursor,
        need: u32,
        end: u32,
    ) -> Result<Option<Spot>, Refusal> {
        self.log().sizes.spot(tail, head, self.jumped(), end, need).map_err(|Contradiction| Refusal::Corrupt)
    }

    /// Whether a record of this many words would fit now.
    pub(crate) fn has_room(self, need: u32) -> bool {
        for _ in 0..TRIES {
            let head = self.head();
            let tail = self.tail();
            if self.head() == head {
                // A contradiction is for the producer that gets the lock to report.
                return self.spot(tail, head, need) != Ok(None);
            }
        }
        true
    }

    /// Returns whether there is room that some parked producer may be able to use.
    pub fn has_room_for_some(self) -> bool {
        let least = u64::MAX - self.producer_notes().least.load(SeqCst);
        u32::try_from(least).is_ok_and(|least| self.has_room(least))
    }

    /// Whether there is such room, and producers have not passed it on yet.
    pub(crate) fn has_room_to_share(self) -> bool {
        let passed = self.producer_notes().passed.load(SeqCst);
        passed != self.consumer_words().head.load(SeqCst) && self.has_room_for_some()
    }

    /// Whether a producer that leaves is to wake another one. `brief`: all parked producers are parked
    /// briefly.
    pub(crate) fn has_more_room(self, brief: bool) -> bool {
        (!brief || self.is_spacious()) && self.has_room_to_share()
    }

    /// Returns whether a producer that is parked briefly should be woken: a quarter is free, and a quarter
    /// has become free since the last such wake-up. So one of many producers fills the queue while the others
    /// stay parked: otherwise each would be woken for a few messages. When hardly anything is left in the
    /// queue, all of them have something to do. A wake-up is noted.
    pub fn offers_room(self) -> bool {
        let note = &self.consumer_notes().woke;
        let head = self.head();
        let woke = Cursor::from(note.load(Relaxed));
        let sizes = self.log().sizes;
        let freed = Cursor {
            position: head.position.wrapping_sub(woke.position),
            count: head.count.wrapping_sub(woke.count),
        };
        let enough = freed.count >= sizes.messages.div_ceil(4) || freed.position >= sizes.limit / 4;
        let worth = self.has_free_quarters(1) && (enough || self.is_spacious());
        if worth {
            // ORDER: Relaxed, as the load above, its partner: a hint. A faster consumer may note an older
            // head: one wake-up more.
            note.store(head.word(), Relaxed);
        }
        worth
    }

    /// Whether three quarters are free.
    fn is_spacious(self) -> bool {
        self.has_free_quarters(3)
    }

    /// Whether so many quarters are free.
    pub(crate) fn has_free_quarters(self, quarters: u32) -> bool {
        let head = self.head();
        let tail = self.tail();
        let sizes = self.log().sizes;
        // A tail that a dead producer did not note may lie behind the head: then there is room.
        let used = sizes.used(tail, head, self.jumped()).unwrap_or(0);
        let messages = tail.count.wrapping_sub(head.count).cast_signed().max(0).cast_unsigned();
        let most = |of: u32| of - of.div_ceil(4).saturating_mul(quarters).min(of);
        (sizes.limit == UNLIMITED || used <= most(sizes.limit))
            && (sizes.messages == UNBOUNDED || messages <= most(sizes.messages))
    }
}
