//! Appending a record at the tail, and repairing the tail after a death. With the producers' lock.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use multiproc_robust::{Deadline, this_cpu};
use multiproc_shm::copy;

use crate::counts::{is_worth_a_mark, whole};
use crate::guard::{ProducerEnd, ProducerGuard};
use crate::header::{Cursor, Header, record_words};
use crate::log::{Log, Spot};
use crate::memory::Memory;
use crate::view::{Refusal, TRIES, View};

/// Words of a cache line.
pub(crate) const CACHE_LINE: u32 = 8;
/// At most so many cache lines are fetched ahead: the processor has few to spare.
pub(crate) const MAX_LINES_AHEAD: u32 = 32;
/// How far ahead of the tail the producer fetches cache lines, in words.
const AHEAD: u32 = 64;

/// What became of a record that was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the callers handle each case")]
pub enum Appended {
    /// It was appended.
    Yes,
    /// There is no room.
    NoRoom,
    /// There is room, if memory is set aside for it.
    WouldGrow,
}

/// What a new record is to hold.
pub trait Content: Copy {
    /// Returns the bytes of the payload.
    fn length(self) -> usize;

    /// Returns the word of the header.
    fn header(self) -> u64;

    /// Writes the payload, from this position on.
    fn write(self, log: Log<'_>, position: u32);
}

impl Content for &[u8] {
    #[inline(always)]
    fn length(self) -> usize {
        self.len()
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "`words_for` found it short enough")]
    fn header(self) -> u64 {
        Header::Message { length: self.len() as u32, cpu: this_cpu() }.word()
    }

    #[inline(always)]
    fn write(self, log: Log<'_>, position: u32) {
        log.copy_in(position, self);
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// Enters the producers' side, and repairs the tail if the last owner of the lock died.
    #[inline(always)]
    pub(crate) fn enter_producers(self, deadline: Deadline) -> Result<ProducerGuard<'a, M>, Refusal> {
        self.enter_as_producer(deadline, ProducerEnd::recover)
    }
}

impl<M: Memory> ProducerEnd<'_, M> {
    /// Appends a record of `need` words. Memory is set aside only if it `may_grow`.
    ///
    /// # Errors
    ///
    /// [`Refusal::Closed`], [`Refusal::NoSpace`], [`Refusal::Corrupt`].
    #[inline(always)]
    pub fn append<C: Content>(
        self,
        message: C,
        need: u32,
        may_grow: impl FnOnce() -> bool,
    ) -> Result<Appended, Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        let tail = self.tail();
        if self.fits(tail, need) && self.log().sizes.index(tail.position) + need < self.filled() {
            self.fetch_ahead(tail, need);
            self.write(tail, need, message);
            return Ok(Appended::Yes);
        }
        self.append_afar(tail, need, message, may_grow())
    }

    /// Whether a record of this many words fits at the tail.
    #[inline(always)]
    fn fits(self, tail: Cursor, need: u32) -> bool {
        self.fits_behind(self.seen_head(), tail, need) || self.fits_now(tail, need)
    }

    #[inline(always)]
    fn fits_behind(self, head: Cursor, tail: Cursor, need: u32) -> bool {
        self.log().sizes.fits(tail, head, || self.jumped(), self.end(), need)
    }

    /// The same, behind the head as it is now. By value and apart: what a call needs in memory is written
    /// before the lock is taken.
    #[cold]
    #[inline(never)]
    fn fits_now(self, tail: Cursor, need: u32) -> bool {
        self.fits_behind(self.see_head(), tail, need)
    }

    /// The head as a producer last read it.
    #[inline(always)]
    fn seen_head(self) -> Cursor {
        Cursor::from(self.producer_notes().seen_head.load(Relaxed))
    }

    /// Reads the head, and notes it.
    #[cold]
    fn see_head(self) -> Cursor {
        // ORDER: SeqCst, hence Acquire, pairs with `move_head`: the words before the head are read, and may
        // be overwritten.
        let head = self.head();
        self.producer_notes().seen_head.store(head.word(), Relaxed);
        head
    }

    /// Writes a record at the tail, and commits it.
    #[inline(always)]
    fn write<C: Content>(self, tail: Cursor, need: u32, message: C) {
        let next = tail.after(need);
        self.fill(tail.position, next.position, message);
        // ORDER: Release pairs with the Acquire in `take`.
        // CRASH: the commit: before it nothing is there, after it the whole message.
        self.log().at(tail.position).store(message.header(), Release);
        // CRASH: `tail` is one record behind; `recover` walks over it.
        self.producer_words().tail.store(next.word(), Relaxed);
        self.count_bytes(message.length());
    }

    /// Writes all of a record but its header, and the empty header behind it.
    #[inline(always)]
    fn fill<C: Content>(self, position: u32, next: u32, message: C) {
        message.write(self.log(), position.wrapping_add(1));
        // ORDER: Relaxed: made visible by the commit, which pairs with the Acquire in `take`.
        self.log().at(next).store(0, Relaxed);
    }

    #[inline(always)]
    fn count_bytes(self, length: usize) {
        let bytes = &self.producer_words().bytes;
        // CRASH: `tail` is noted, the bytes are not: they are never counted. The other way round, `recover`
        // would count them twice.
        bytes.store(bytes.load(Relaxed).wrapping_add(length as u64), Relaxed);
    }

    /// Fetches the cache lines that a later put will write, as far as they are known to be free.
    #[inline]
    fn fetch_ahead(self, tail: Cursor, need: u32) {
        // A longer record is a stream that the processor sees by itself, and more than its nearest cache
        // holds.
        if need > MAX_LINES_AHEAD * CACHE_LINE {
            return;
        }
        let sizes = self.log().sizes;
        let head = sizes.index(self.seen_head().position);
        let start = sizes.index(tail.position);
        let end = start + AHEAD + need;
        if end >= if head <= start { self.filled() } else { head } {
            return;
        }
        let mut index = (start + AHEAD) & !(CACHE_LINE - 1);
        // From the first cache line that the last put did not fetch.
        if index != start + AHEAD {
            index += CACHE_LINE;
        }
        while index < end {
            copy::prefetch_for_writing(self.log().at(index));
            index += CACHE_LINE;
        }
    }

    /// Appends where room and memory at the tail were not certain: behind a jump, beyond the initial
    /// capacity, or nowhere.
    #[cold]
    #[inline(never)]
    fn append_afar<C: Content>(
        self,
        tail: Cursor,
        need: u32,
        message: C,
        may_grow: bool,
    ) -> Result<Appended, Refusal> {
        self.mark_puts(tail);
        let head = self.see_head();
        let Some(spot) = self.spot(tail, head, need)? else { return Ok(Appended::NoRoom) };
        let done = self.append_at(spot, tail, need, message, may_grow);
        if done == Err(Refusal::NoSpace)
            && let Some(nearer) = self.spot_within(tail, head, need, self.end())?
            && nearer != spot
        {
            // There is room, only less of it than is good for speed.
            return self.append_at(nearer, tail, need, message, may_grow);
        }
        done
    }

    fn append_at<C: Content>(
        self,
        spot: Spot,
        tail: Cursor,
        need: u32,
        message: C,
        may_grow: bool,
    ) -> Result<Appended, Refusal> {
        let sizes = self.log().sizes;
        if sizes.is_fixed() {
            self.write(tail, need, message);
            return Ok(Appended::Yes);
        }
        let old = sizes.index(tail.position);
        let (index, filled) = match spot {
            Spot::Tail => (old, self.filled_as_noted().max(old).max(sizes.initial)),
            Spot::Jump(index) => (index, self.filled_at(index)),
        };
        let last = index + need;
        if last >= filled && !may_grow {
            return Ok(Appended::WouldGrow);
        }
        let filled = self.grow(filled, last)?;
        match spot {
            Spot::Tail => {
                self.set_filled(filled);
                self.write(tail, need, message);
            }
            Spot::Jump(index) => {
                let position = sizes.onward(tail.position, index);
                let next = Cursor { position, ..tail }.after(need);
                self.fill(position, next.position, message);
                // ORDER: Relaxed: made visible by the commit below, which pairs with the Acquire in `take`.
                self.log().at(position).store(message.header(), Relaxed);
                // ORDER: Release pairs with the Acquire in `take`.
                // CRASH: the commit, of the jump and its record. What follows, `recover` does again.
                self.log().at(tail.position).store(Header::Jump(index).word(), Release);
                self.note_jump(old, filled);
                self.producer_words().tail.store(next.word(), Relaxed);
                self.count_bytes(message.length());
            }
        }
        Ok(Appended::Yes)
    }

    /// Notes, now and then, how many messages were put.
    fn mark_puts(self, tail: Cursor) {
        let mark = &self.consumer_notes().puts;
        let (seen, now) = (mark.load(Relaxed), tail.count);
        // Seldom: the cache line is the consumers'.
        if is_worth_a_mark(seen, now) {
            mark.store(whole(seen, now), Relaxed);
        }
    }

    /// The last producer died: notes what it had committed.
    #[cold]
    pub fn recover(self) {
        let sizes = self.log().sizes;
        let mut tail = self.tail();
        // At most one record is not noted; a hostile log has as many as it likes.
        for _ in 0..TRIES {
            let mut next = tail;
            // ORDER: Acquire, both, pairs with the commit in `write` or `append_at`.
            let mut header = Header::from(self.log().at(tail.position).load(Acquire));
            if let Header::Jump(index) = header {
                next.position = sizes.onward(tail.position, index);
                header = Header::from(self.log().at(next.position).load(Acquire));
                self.note_jump(sizes.index(tail.position), self.filled_at(sizes.index(index)));
            }
            // A reservation is a record like the others, and is left to the consumer that comes to it.
            let (Header::Message { length, .. } | Header::Reserved { length, .. }) = header else { break };
            let Some(need) =
                Some(length as usize).filter(|length| *length <= sizes.longest()).and_then(record_words)
            else {
                break;
            };
            tail = next.after(need);
            // CRASH: killed here, the next producer walks on.
            self.producer_words().tail.store(tail.word(), Relaxed);
            self.count_bytes(length as usize);
        }
        // What the dead producer had set aside beyond, it did not use.
        self.set_filled(self.filled_at(sizes.index(tail.position)));
        // It may have used the claim of a reservation for the first time, which parked threads do not watch
        // yet, without having notified them.
        if !self.reservations().used().is_empty() {
            self.producers().notify_all();
        }
    }

    /// After too little room for one message: that room may do for another, smaller one. All waiting
    /// producers are woken, once for each head. Woken one by one, the wake-up could end with a producer whose
    /// message does not fit; woken more often, they would keep each other awake for ever.
    #[cold]
    pub(crate) fn pass_on_room(self) {
        let head = self.consumer_words().head.load(SeqCst);
        if self.has_room_to_share() {
            if self.consumers().has_waiters() {
                self.consumers().notify_all();
            }
            // CRASH: woken but not noted: they are woken once more.
            self.producer_notes().passed.store(head, SeqCst);
        }
    }
}
