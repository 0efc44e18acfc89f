//! One record: written at the tail, taken at the head, mended after a death. With the lock of its side.
#![allow(unsafe_code, reason = "bytes that were copied into spare room")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_shm::copy;

use crate::log::{Cursor, Header, Log, record_words};
use crate::memory::Memory;
use crate::side_table::Locks;
use crate::sink::Sink;
use crate::view::{Appended, CPUS, FILLED, Found, HEAD, LINE, Refusal, SEEN_HEAD, TAIL, TRIES, View, header_of};

/// How far ahead of the tail the producer fetches lines, in words.
const AHEAD: u32 = 64;
/// Messages of more bytes are worth it to fetch the next while one is copied; shorter ones come with the lines around them.
const LONG: usize = 256;
/// At every message so many, a consumer says where it is.
const SAYS: u32 = 256;
/// Lines that are fetched so at most: the processor has few to spare.
const MOST_LINES: u32 = 32;

impl<M: Memory> View<'_, M> {
    /// With the producers' lock: appends a record of `need` words.
    #[inline(always)]
    pub fn append<C: Content>(self, message: C, need: u32, may_grow: impl FnOnce() -> bool) -> Result<Appended, Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        let tail = Cursor::load(self.producer(TAIL));
        if self.fits(tail, need) && self.log().sizes.index(tail.position) + need < self.filled() {
            self.fetch_ahead(tail, need);
            self.write(tail, need, message);
            return Ok(Appended::Yes);
        }
        self.append_afar(tail, need, message, may_grow())
    }

    /// With the producers' lock: from the tail up to this word there is memory.
    #[inline(always)]
    pub fn filled(self) -> u32 {
        self.note(FILLED).max(self.log().sizes.home)
    }

    /// Writes a record at the tail, and commits it.
    #[inline(always)]
    pub fn write<C: Content>(self, tail: Cursor, need: u32, message: C) {
        let next = tail.after(need);
        self.fill(tail.position, next.position, message);
        // ORDER: Release pairs with the Acquire in `take`. CRASH: the commit: before it nothing, after it the whole message.
        self.log().at(tail.position).store(message.header(), Release);
        // CRASH: `tail` is one record behind; `recover` walks over it.
        self.producer(TAIL).store(next.word(), Relaxed);
        self.count_bytes(message.length());
    }

    /// All of a record but its header.
    #[inline(always)]
    pub fn fill<C: Content>(self, position: u32, next: u32, message: C) {
        message.write(self.log(), position.wrapping_add(1));
        // ORDER: Relaxed: made visible by the commit.
        self.log().at(next).store(0, Relaxed);
    }

    /// With the consumers' lock: copies the record at `head` out, behind what is in `message`, if that has room; and where the next record lies. The head stays.
    #[inline(always)]
    pub fn take(self, mut head: Cursor, message: &mut impl Sink) -> Result<(Found, Cursor), Refusal> {
        // ORDER: Acquire pairs with the commit in `write` or `append_afar`: what the header leads to is there.
        let mut header = Header::from(self.log().at(head.position).load(Acquire));
        if let Header::Jump(index) = header {
            head.position = self.log().sizes.onward(head.position, index);
            header = Header::from(self.log().at(head.position).load(Acquire));
            if matches!(header, Header::Empty | Header::Jump(_)) {
                return Err(Refusal::Corrupt);
            }
        }
        match header {
            Header::Message { length, cpu } => self.take_found(head, length, cpu, message),
            Header::Reserved { .. } => self.take_reserved(head, header, message),
            _ => Ok((Found::Nothing, head)),
        }
    }

    /// The rest of it: here is a message.
    #[inline(always)]
    pub fn take_found(self, head: Cursor, length: u32, cpu: u32, message: &mut impl Sink) -> Result<(Found, Cursor), Refusal> {
        let length = Some(length as usize).filter(|length| self.may_be(head, *length)).ok_or(Refusal::Corrupt)?;
        let length = if is_planted(Bug::LengthReadTwice) { self.next_length_unchecked() } else { length };
        if !message.has_room(length) {
            return Ok((Found::Longer(length), head));
        }
        Ok((Found::Taken, self.take_this(head, length, cpu, message)))
    }

    /// Copies a record out, behind what is in `message`, which has room; and where the next one lies.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "`may_be` found it short enough")]
    pub fn take_this(self, head: Cursor, length: usize, cpu: u32, message: &mut impl Sink) -> Cursor {
        let next = head.after(copy::words(length) as u32 + 1);
        if let Some(place) = message.place(length) {
            if length > LONG {
                self.fetch_next(head.position, next.position);
            }
            self.log().copy_out(head.position.wrapping_add(1), place, length);
        }
        // SAFETY: the caller has asked whether it has room, and `copy_out` wrote `length` bytes there.
        unsafe { message.written(length) };
        let cpus = self.consumer(CPUS).load(Relaxed);
        self.consumer(CPUS).store((cpus & 0xffff_ffff) | u64::from(cpu) << 32, Relaxed);
        if cpus & 0xffff_ffff == 0 || head.count.is_multiple_of(SAYS) {
            self.say_where();
        }
        next
    }

    /// Fetches the lines of the record at `next`, taken to be as long as the one from `this` to there: they come while this one is copied.
    #[inline]
    pub fn fetch_next(self, this: u32, next: u32) {
        for line in 0..=(next.wrapping_sub(this) / LINE).min(MOST_LINES) {
            copy::prefetch(self.log().at(next.wrapping_add(line * LINE)));
        }
    }

    /// Whether a message here can be as long as its header says. A long one must lie where there is memory: to read elsewhere would make some.
    #[inline]
    pub fn may_be(self, place: Cursor, length: usize) -> bool {
        let sizes = self.log().sizes;
        let end = sizes.index(place.position) as usize + copy::words(length);
        if end < sizes.home as usize {
            return true;
        }
        let below = |top: u32| end < top.clamp(sizes.home, sizes.span) as usize;
        length <= sizes.longest() && (sizes.is_fixed() || below(self.top()))
    }

    /// What a careless reader would do; only for the bug that is planted above.
    #[cold]
    pub fn next_length_unchecked(self) -> usize {
        let head = Cursor::load(self.consumer(HEAD));
        match Header::from(self.log().at(head.position).load(Acquire)) {
            Header::Message { length, .. } => length as usize,
            _ => 0,
        }
    }

    /// With the consumers' lock: what lies before `next` is taken.
    #[inline]
    pub fn move_head(self, next: Cursor) {
        // ORDER: Release pairs with the load in `room`: the copy is done. CRASH: the commit: before it the messages are there, after it they are ours.
        self.consumer(HEAD).store(next.word(), Release);
    }

    /// Fetches the lines that a later put will write, as far as they are known to be free.
    #[inline]
    pub fn fetch_ahead(self, tail: Cursor, need: u32) {
        // What is longer is a stream that the processor sees by itself, and more than its nearest cache holds.
        if need > MOST_LINES * LINE {
            return;
        }
        let sizes = self.log().sizes;
        let head = sizes.index(Cursor::from(self.ring().producers.notes[SEEN_HEAD].load(Relaxed)).position);
        let start = sizes.index(tail.position);
        let end = start + AHEAD + need;
        if end >= if head <= start { self.filled() } else { head } {
            return;
        }
        let mut index = (start + AHEAD) & !(LINE - 1);
        // From the first line that the last put did not fetch.
        if index != start + AHEAD {
            index += LINE;
        }
        while index < end {
            copy::prefetch_for_writing(self.log().at(index));
            index += LINE;
        }
    }

    /// The last producer died: notes what it had committed.
    #[cold]
    pub fn recover(self) {
        let sizes = self.log().sizes;
        let mut tail = Cursor::load(self.producer(TAIL));
        // At most one record is not noted; a hostile log has as many as it likes.
        for _ in 0..TRIES {
            let mut next = tail;
            let mut header = Header::from(self.log().at(tail.position).load(Acquire));
            if let Header::Jump(index) = header {
                next.position = sizes.onward(tail.position, index);
                header = Header::from(self.log().at(next.position).load(Acquire));
                self.note_jump(sizes.index(tail.position), self.filled_at(sizes.index(index)));
            }
            // A place that was reserved is one like the others, and is left to those who come to it.
            let (Header::Message { length, .. } | Header::Reserved { length, .. }) = header else { break };
            let Some(need) = Some(length as usize).filter(|length| *length <= sizes.longest()).and_then(record_words) else {
                break;
            };
            tail = next.after(need);
            // CRASH: killed here, the next walks on.
            self.producer(TAIL).store(tail.word(), Relaxed);
            self.count_bytes(length as usize);
        }
        // What it had set aside beyond, it did not use.
        self.set_note(FILLED, self.filled_at(sizes.index(tail.position)));
        // It may have used the lock of a place for the first time, which those who sleep do not watch yet, and have told nobody.
        if !self.used_locks(Locks::Reservations).is_empty() {
            self.ring().producers.notify_all();
        }
    }
}

/// What a new record is to hold.
pub trait Content: Copy {
    /// Bytes of it.
    fn length(self) -> usize;

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
    fn header(self) -> u64 {
        header_of(self)
    }

    #[inline(always)]
    fn write(self, log: Log<'_>, position: u32) {
        log.copy_in(position, self);
    }
}
