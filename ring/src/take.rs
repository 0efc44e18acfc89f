//! Taking the record at the head. With the consumers' lock.
#![allow(unsafe_code, reason = "bytes that were copied into spare room")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::this_cpu;
use multiproc_shm::copy;

use crate::guard::ConsumerEnd;
use crate::header::{Cursor, Header, record_words};
use crate::memory::Memory;
use crate::record::{CACHE_LINE, MAX_LINES_AHEAD};
use crate::sink::Sink;
use crate::view::{Refusal, View};

/// Longer messages (in bytes) are worth fetching the next one while this one is copied; shorter ones come
/// with the cache lines around them.
const LONG: usize = 256;
/// A consumer notes its CPU once in so many messages.
const MESSAGES_PER_CPU_NOTE: u32 = 256;
/// How many pauses a consumer that found nothing makes before it looks again: the longer it lets a busy
/// producer build a run, the fewer cache lines go back and forth.
const SHORTEST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 192;
/// A run of this many messages doubles the pause; a shorter one resets it.
const RUN: u32 = 3;

/// What a consumer found at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the callers handle each case")]
pub enum Found {
    /// A message, which was copied.
    Taken,
    /// A message of this many bytes, for which the sink has too little room.
    Longer(usize),
    /// An aborted record: a reservation that is never filled.
    Aborted,
    /// Nothing yet.
    Nothing,
}

impl<M: Memory> ConsumerEnd<'_, M> {
    /// Copies the record at `head` into `message`, behind what is in it, if it has room. Returns where the
    /// next record lies, too. The head stays.
    ///
    /// # Errors
    ///
    /// [`Refusal::Corrupt`].
    #[inline(always)]
    pub fn take(self, mut head: Cursor, message: &mut impl Sink) -> Result<(Found, Cursor), Refusal> {
        // ORDER: Acquire pairs with the commit in `write` or `append_at`: what the header leads to is there.
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

    /// Takes a message of which the header is read.
    #[inline(always)]
    fn take_found(
        self,
        head: Cursor,
        length: u32,
        cpu: u32,
        message: &mut impl Sink,
    ) -> Result<(Found, Cursor), Refusal> {
        let length =
            Some(length as usize).filter(|length| self.may_be(head, *length)).ok_or(Refusal::Corrupt)?;
        let length = if is_planted(Bug::LengthReadTwice) { self.next_length_unchecked() } else { length };
        if !message.has_room(length) {
            return Ok((Found::Longer(length), head));
        }
        Ok((Found::Taken, self.take_this(head, length, cpu, message)))
    }

    /// Copies a message into a sink that has room, and returns where the next record lies.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "`may_be` found it short enough")]
    pub(crate) fn take_this(self, head: Cursor, length: usize, cpu: u32, message: &mut impl Sink) -> Cursor {
        let next = head.after(copy::words(length) as u32 + 1);
        if let Some(to) = message.destination(length) {
            if length > LONG {
                self.fetch_next(head.position, next.position);
            }
            self.log().copy_out(head.position.wrapping_add(1), to, length);
        }
        // SAFETY: the caller has asked whether the sink has room, and `copy_out` wrote `length` bytes there.
        unsafe { message.written(length) };
        let cpus = self.consumer_words().cpus.load(Relaxed);
        self.consumer_words().cpus.store((cpus & 0xffff_ffff) | u64::from(cpu) << 32, Relaxed);
        if cpus & 0xffff_ffff == 0 || head.count.is_multiple_of(MESSAGES_PER_CPU_NOTE) {
            self.note_cpu();
        }
        next
    }

    /// Takes what was perhaps reserved when its header was read.
    #[cold]
    #[inline(never)]
    fn take_reserved(
        self,
        head: Cursor,
        header: Header,
        message: &mut impl Sink,
    ) -> Result<(Found, Cursor), Refusal> {
        let Header::Reserved { length, mark } = header else { return Ok((Found::Nothing, head)) };
        if self.is_being_filled(mark).ok_or(Refusal::Corrupt)? {
            return Ok((Found::Nothing, head));
        }
        // ORDER: Acquire pairs with the commit of the reservation.
        match Header::from(self.log().at(head.position).load(Acquire)) {
            Header::Message { length, cpu } => self.take_found(head, length, cpu, message),
            same if same == header && self.may_be(head, length as usize) => {
                let need = record_words(length as usize).ok_or(Refusal::Corrupt)?;
                Ok((Found::Aborted, head.after(need)))
            }
            _ => Err(Refusal::Corrupt),
        }
    }

    /// Fetches the cache lines of the record at `next`, taken to be as long as the one from `this` to there:
    /// they come while this one is copied.
    #[inline]
    fn fetch_next(self, this: u32, next: u32) {
        for line in 0..=(next.wrapping_sub(this) / CACHE_LINE).min(MAX_LINES_AHEAD) {
            copy::prefetch(self.log().at(next.wrapping_add(line * CACHE_LINE)));
        }
    }

    /// Moves the head: what lies before `next` is taken.
    #[inline]
    pub fn move_head(self, next: Cursor) {
        // ORDER: Release pairs with the load in `see_head`: the copy is done.
        // CRASH: the commit: before it the messages are there, after it they are this consumer's.
        self.consumer_words().head.store(next.word(), Release);
    }

    /// Returns how long to pause before the next look, after nothing was found at this head.
    pub fn next_pause(self, head: Cursor) -> u32 {
        let note = Cursor::from(self.consumer_words().pause.load(Relaxed));
        let run = head.count.wrapping_sub(note.count);
        let pause = if run >= RUN {
            (note.position.clamp(SHORTEST_PAUSE, LONGEST_PAUSE) * 2).min(LONGEST_PAUSE)
        } else {
            SHORTEST_PAUSE
        };
        self.consumer_words().pause.store(Cursor { position: pause, count: head.count }.word(), Relaxed);
        self.note_cpu();
        pause
    }

    /// Notes this consumer's CPU, for producers that wait for room. A consumer that finds nothing notes it,
    /// too. Otherwise a consumer that always finds something never would, and a producer that is bound to one
    /// CPU would take the consumer to be there, and would not wait until there is room for more than one
    /// message.
    #[cold]
    fn note_cpu(self) {
        let producer = Cursor::from(self.consumer_words().cpus.load(Relaxed)).count;
        self.consumer_words()
            .cpus
            .store(Cursor { position: this_cpu().wrapping_add(1), count: producer }.word(), Relaxed);
    }

    /// What a careless reader would do; only for the bug that is planted above.
    #[cold]
    fn next_length_unchecked(self) -> usize {
        match Header::from(self.log().at(self.head().position).load(Acquire)) {
            Header::Message { length, .. } => length as usize,
            _ => 0,
        }
    }
}

impl<M: Memory> View<'_, M> {
    /// Whether a message at this cursor can be as long as its header says. A long one must lie where there is
    /// memory: to read elsewhere would make some.
    #[inline]
    pub(crate) fn may_be(self, at: Cursor, length: usize) -> bool {
        let sizes = self.log().sizes;
        let end = sizes.index(at.position) as usize + copy::words(length);
        if end < sizes.initial as usize {
            return true;
        }
        length <= sizes.longest() && (sizes.is_fixed() || end < self.words_with_memory() as usize)
    }
}
