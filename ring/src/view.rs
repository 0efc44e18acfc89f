//! The bytes of a queue: a log of records between two [`Side`]s.
//!
//! # Layout
//!
//! | bytes | field | written by |
//! |---|---|---|
//! | 0..128 | producers' side; beside its lock: `tail`, `bytes`, `closed`; notes: `least`, `passed`, `jumped` and `top`, `filled`, `seen head`, `low`, `solid` | its lock's holder; `closed` once; `least` by who is about to sleep |
//! | 128..256 | consumers' side; beside its lock: `head`, `pause`, `CPUs`; notes: counts (`ring/counts.rs`) | its lock's holder; counts by anybody, seldom |
//! | 256.. | the log: 8-byte words (`log.rs`) | producers |
//! | behind it | the side_table (`ring/side_table.rs`): locks of those who have a role, and of those who fill reserved places | who has them |
//!
//! A *place* is one word: position in words (low half), number of messages so far (high half), both counting on for ever, modulo 2^32. One store moves both, so `head` and `tail` are never half moved.
//!
//! # Who moves what
//!
//! - **put**, holding the producers' lock: payload; header of the *next* record = 0; this header (the commit; behind a jump, the jump is the commit); `tail`.
//! - **get**, holding the consumers' lock: read the header at `head`; if it is not 0, copy the payload out; `head` (the commit).
//! - **several at once**: a producer commits each message; a consumer copies all out, then moves `head` once.
//!
//! The consumer polls the header itself, so a message is visible in one cache line; `tail` is the producers' private note.
//!
//! # What a death leaves
//!
//! | killed | what is there | who mends it |
//! |---|---|---|
//! | producer before the commit | a free place with rubbish in it; perhaps memory that nobody needs | nobody needs to; the memory is used or given back by the next |
//! | producer between commit and `tail` | a whole message that `tail` does not count | the next producer walks from `tail` over whatever headers are there |
//! | consumer before the `head` store | the messages, still there | nobody needs to: another gets them |
//! | consumer after it | the messages are gone with their consumer | at most those of this one call |
//! | consumer that gives memory back | it holds the producers' lock and has nothing half done | the next that gives back does it again |
//! | closer after the flag | closed, sleepers not told | the kernel wakes one, who tells the others; so does whoever takes the lock next |
//!
//! Waiting is [`Side`]'s: nobody sleeps or spins with a lock of the ring, so a killed or stopped sleeper holds nobody up.
//!
//! # What is not trusted
//!
//! Sizes come from the handle. A place is masked into the log; a length is read once, compared with what the log can hold and with how far it has memory, and used from the local copy. (Who lies about that, too, gets
//! a get to copy as much as the longest message.)
#![allow(unsafe_code, reason = "raw bytes of the log")]

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Acquired, Deadline, RobustLock, Side, this_cpu};

use crate::log::{Contradiction, Cursor, Header, Log, Spot, record_words};
use crate::memory::Memory;
use crate::messages::Messages;

use crate::counts::DEATHS;
use crate::members::Peer;
use crate::sink::Sink;
use crate::wait::Wait;

/// The fixed part of a queue.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Ring {
    pub producers: Side,
    pub consumers: Side,
}

const _: () = assert!(size_of::<Ring>() == 256 && offset_of!(Ring, consumers) == 128);

/// Words beside the producers' lock.
pub const TAIL: usize = 0;
/// Bytes of all messages so far.
pub const BYTES: usize = 1;
pub const CLOSED: usize = 2;
/// Notes of the producers' side. The smallest record that a producer has ever slept for, subtracted from `u64::MAX`, so that 0 means none.
pub const LEAST: usize = 0;
/// The head at which producers last woke each other because the room was too little for one of them.
pub const PASSED: usize = 1;
/// The word of the last jump; in the high half: above this word there is no memory (`top`).
pub const JUMPED: usize = 2;
/// From the tail up to this word there is memory.
pub const FILLED: usize = 3;
/// The head as a producer last read it: written seldom, so not beside the lock, where there is no word to spare.
pub const SEEN_HEAD: usize = 4;
/// Up to this word, from `home` on, memory was given back since the last jump; in the high half, how many laps in a row were calm.
pub const LOW: usize = 5;
/// From the beginning up to this word there is memory.
pub const SOLID: usize = 6;
/// Words beside the consumers' lock.
pub const HEAD: usize = 0;
pub const PAUSE: usize = 1;
pub const CPUS: usize = 2;

/// Pauses between two looks of a producer that waits for room: each takes the consumers' line away from them, and more room is worth waiting for.
pub const SELDOM: u32 = 128;
/// Words of a cache line.
pub const LINE: u32 = 8;
/// How long a call that must not wait lets another process finish its own put or get.
pub const MOMENT: Duration = Duration::from_millis(1);
/// How often a look without a lock is repeated when others move what it looks at; each repetition means that somebody got on, unless a peer is hostile.
pub const TRIES: u32 = 10_000;
/// Messages that one call takes at most: its lock is others' wait.
pub const MOST_AT_ONCE: usize = 1 << 16;

/// A ring as this process sees it. One pointer: what is larger is written to the stack before each call that is not inlined, and those writes wait in front of the lock.
pub struct View<'a, M> {
    pub memory: &'a M,
}

/// Why nothing was put or got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room, or nothing there, until the deadline.
    TimedOut,
    Closed,
    /// It can never fit.
    TooLarge,
    /// Somebody else was in the middle of the same until the deadline, or for longer than a moment.
    Busy,
    /// The system has no memory for it.
    NoSpace,
    /// This process has no memory for a message of so many bytes, which stays.
    NoMemory(usize),
    /// The shared words contradict each other.
    Corrupt,
    Lock(AcquireError),
}

impl Ring {
    pub fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(self.producers.lock()), Some(self.consumers.lock())]
    }
}

impl<M> Clone for View<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for View<'_, M> {}

impl<'a, M: Memory> View<'a, M> {
    #[inline(always)]
    pub fn ring(self) -> &'a Ring {
        self.memory.ring()
    }

    #[inline(always)]
    pub fn log(self) -> Log<'a> {
        self.memory.log()
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// Appends a message.
    #[inline]
    pub fn put(self, message: &[u8], deadline: Deadline) -> Result<(), Refusal> {
        self.put_to(message, None, deadline)
    }

    /// Appends a message, for these; if there were such and are no more, it is refused.
    #[inline]
    pub fn put_to(self, message: &[u8], others: Option<Peer>, deadline: Deadline) -> Result<(), Refusal> {
        let need = self.words_for(message)?;
        if others.is_some_and(|others| self.are_gone(others)) {
            return Err(Refusal::Closed);
        }
        self.enter(&self.ring().producers, deadline, || self.recover())?;
        match self.append(message, need, || deadline == Deadline::NOW) {
            Ok(Appended::Yes) => {
                self.leave_producers();
                Ok(())
            }
            not => self.put_slowly(not, message, need, others, deadline),
        }
    }

    /// With the producers' lock, having found no room.
    #[cold]
    #[inline(never)]
    pub fn put_slowly(
        self,
        mut done: Result<Appended, Refusal>,
        message: &[u8],
        need: u32,
        others: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let mut wait = Wait::default();
        while done != Ok(Appended::Yes) {
            self.pass_on_room();
            self.leave_producers_without_progress();
            self.wait_to_append(done?, &mut wait, need, others, deadline)?;
            self.enter(&self.ring().producers, deadline, || self.recover())?;
            done = self.append(message, need, || wait.may_grow || deadline == Deadline::NOW);
        }
        self.leave_producers();
        Ok(())
    }

    /// Appends messages in their order, as many at a time as there is room for; `done` counts them, also where it fails.
    pub fn put_many(self, messages: &Messages, done: &mut usize, deadline: Deadline) -> Result<(), Refusal> {
        let mut wait = Wait::default();
        while *done < messages.len() {
            self.enter(&self.ring().producers, deadline, || self.recover())?;
            let mut result = Ok(Appended::Yes);
            let (mut need, before) = (0, *done);
            while let Some(message) = messages.get(*done) {
                result = self.words_for(message).and_then(|words| {
                    need = words;
                    self.append(message, words, || wait.may_grow || deadline == Deadline::NOW)
                });
                if result != Ok(Appended::Yes) {
                    self.pass_on_room();
                    break;
                }
                *done += 1;
                wait = Wait::default();
            }
            if *done == before {
                self.leave_producers_without_progress()
            } else {
                self.leave_producers()
            }
            match result? {
                Appended::Yes => {}
                not => self.wait_to_append(not, &mut wait, need, None, deadline)?,
            }
        }
        Ok(())
    }

    /// Takes the oldest message out into `message`, whose content is replaced.
    #[inline]
    pub fn get(self, message: &mut impl Sink, deadline: Deadline) -> Result<(), Refusal> {
        self.get_from(message, None, deadline)
    }

    /// The same, from these; if there were such and are no more, nothing is waited for.
    #[inline]
    pub fn get_from(self, message: &mut impl Sink, others: Option<Peer>, deadline: Deadline) -> Result<(), Refusal> {
        if deadline == Deadline::NOW && !self.has_data() {
            return Err(self.nothing(others));
        }
        self.enter(&self.ring().consumers, deadline, || ())?;
        let head = Cursor::load(self.consumer(HEAD));
        // ORDER: as in `take`.
        let header = Header::from(self.log().at(head.position).load(Acquire));
        if let Header::Message { length, cpu } = header
            && self.may_be(head, length as usize)
            && message.holds(length as usize)
            && !is_planted(Bug::LengthReadTwice)
        {
            message.clear();
            let next = self.take_this(head, length as usize, cpu, message);
            self.move_head(next);
            self.leave_consumers();
            self.tidy(head, next);
            return Ok(());
        }
        self.get_slowly(head, message, others, deadline)
    }

    /// With the consumers' lock: the rest of a get.
    #[cold]
    #[inline(never)]
    pub fn get_slowly(
        self,
        mut head: Cursor,
        message: &mut impl Sink,
        others: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let mut wait = Wait::default();
        loop {
            message.clear();
            let found = self.take(head, message);
            let mut pause = 0;
            match &found {
                Ok((Found::Taken | Found::Hole, next)) => self.move_head(*next),
                Ok((Found::Nothing, _)) => pause = self.next_pause(head),
                _ => {}
            }
            self.leave_consumers_after(matches!(found, Ok((Found::Taken | Found::Hole, _))));
            match found? {
                (Found::Taken, next) => {
                    self.tidy(head, next);
                    return Ok(());
                }
                (Found::Hole, next) => {
                    self.tidy(head, next);
                    self.go_on_after_hole(&mut wait, deadline)?;
                }
                // Memory is fetched without the lock: an allocator is somebody else's code.
                (Found::Longer(length), _) => message.make_room(length).map_err(|_| Refusal::NoMemory(length))?,
                (Found::Nothing, _) => self.wait_or_end(&mut wait, pause, head, others, deadline)?,
            }
            self.enter(&self.ring().consumers, deadline, || ())?;
            head = Cursor::load(self.consumer(HEAD));
        }
    }

    /// Takes up to `most` of the oldest messages out and appends them to `messages`; waits only for the first. One call takes no more bytes than `messages` has room for, but at least one message.
    pub fn get_many(self, messages: &mut Messages, most: usize, deadline: Deadline) -> Result<(), Refusal> {
        let most = most.min(MOST_AT_ONCE);
        if most == 0 {
            return Ok(());
        }
        if deadline == Deadline::NOW && !self.has_data() {
            return Err(self.nothing(None));
        }
        let mut wait = Wait::default();
        messages.reserve(most);
        loop {
            self.enter(&self.ring().consumers, deadline, || ())?;
            let head = Cursor::load(self.consumer(HEAD));
            let mut next = head;
            let last = loop {
                match self.take(next, messages.bytes_mut()) {
                    Ok((Found::Taken, after)) => {
                        messages.end_one();
                        next = after;
                        if next.count.wrapping_sub(head.count) as usize >= most {
                            break Ok(Found::Taken);
                        }
                    }
                    _ if next != head => break Ok(Found::Taken),
                    other => {
                        break other.map(|(found, after)| {
                            if matches!(found, Found::Hole) {
                                next = after;
                            }
                            found
                        });
                    }
                }
            };
            let mut pause = 0;
            match last {
                Ok(Found::Taken | Found::Hole) => self.move_head(next),
                Ok(Found::Nothing) => pause = self.next_pause(head),
                _ => {}
            }
            self.leave_consumers_after(matches!(last, Ok(Found::Taken | Found::Hole)));
            match last? {
                Found::Taken => {
                    self.tidy(head, next);
                    return Ok(());
                }
                Found::Hole => {
                    self.tidy(head, next);
                    self.go_on_after_hole(&mut wait, deadline)?;
                }
                Found::Longer(length) => messages.bytes_mut().try_reserve(length).map_err(|_| Refusal::NoMemory(length))?,
                Found::Nothing => self.wait_or_end(&mut wait, pause, head, None, deadline)?,
            }
        }
    }

    /// No more puts; gets go on until the log is empty. Idempotent.
    pub fn close(self) {
        if self.enter(&self.ring().producers, Deadline::NEVER, || self.recover()).is_err() {
            // A thread that can take no lock (it holds a thousand) closes all the same; only, nobody repeats its wakes if it dies now.
            self.producer(CLOSED).store(1, SeqCst);
            self.tell_all();
            return;
        }
        self.ring().producers.set_waiters_bit();
        // CRASH: the commit. The lock is still held, with its alarm on, so the kernel wakes one of those who watch it, and that one tells the others.
        self.producer(CLOSED).store(1, SeqCst);
        self.tell_all();
        self.leave_producers();
    }

    pub fn is_closed(self) -> bool {
        self.producer(CLOSED).load(SeqCst) != 0
    }

    /// Committed messages and reserved places, a snapshot.
    pub fn len(self) -> usize {
        let mut estimate = 0;
        for _ in 0..TRIES {
            let head = Cursor::load(self.consumer(HEAD));
            let tail = Cursor::load(self.producer(TAIL));
            // A producer between its commit and its note of it (or killed there) has one more.
            let unnoted = u32::from(self.log().at(tail.position).load(SeqCst) != 0);
            estimate = tail.count.wrapping_add(unnoted).wrapping_sub(head.count).min(self.log().sizes.messages) as usize;
            if Cursor::load(self.producer(TAIL)) == tail && Cursor::load(self.consumer(HEAD)) == head {
                break;
            }
        }
        estimate
    }

    pub fn is_empty(self) -> bool {
        !self.has_data()
    }

    /// Bytes of the message at the head, if there is one: a hint.
    pub fn next_length(self) -> Option<usize> {
        let head = Cursor::load(self.consumer(HEAD));
        let mut header = Header::from(self.log().at(head.position).load(Acquire));
        if let Header::Jump(index) = header {
            header = Header::from(self.log().at(self.log().sizes.onward(head.position, index)).load(Acquire));
        }
        let Header::Message { length, .. } = header else { return None };
        Some(length as usize).filter(|length| *length <= self.log().sizes.longest())
    }

    pub fn words_for(self, message: &[u8]) -> Result<u32, Refusal> {
        record_words(message.len()).filter(|_| message.len() <= self.log().sizes.longest()).ok_or(Refusal::TooLarge)
    }

    /// A note of the producers' side.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "these notes are words of the log")]
    pub fn note(&self, note: usize) -> u32 {
        self.ring().producers.notes[note].load(Relaxed) as u32
    }

    /// With the producers' lock: sets a note.
    #[inline]
    pub fn set_note(&self, note: usize, word: u32) {
        // ORDER: Relaxed: for the next holder of the lock, whose acquire pairs with our release; others look at it as a hint.
        self.ring().producers.notes[note].store(u64::from(word), Relaxed);
    }

    #[inline]
    pub fn producer(self, word: usize) -> &'a AtomicU64 {
        &self.ring().producers.lock().guarded[word]
    }

    #[inline]
    pub fn consumer(self, word: usize) -> &'a AtomicU64 {
        &self.ring().consumers.lock().guarded[word]
    }

    #[inline(always)]
    pub fn enter(self, side: &Side, deadline: Deadline, recover: impl FnOnce()) -> Result<(), Refusal> {
        // SAFETY: the mapping lives as long as the handle, which the caller borrows; each path leaves before it returns.
        let entered = unsafe { side.enter(deadline) };
        match entered {
            Ok(Acquired::Clean) => Ok(()),
            Ok(Acquired::OwnerDied(_)) => {
                self.take_over(recover);
                Ok(())
            }
            Err(AcquireError::TimedOut) if deadline == Deadline::NOW => self.enter_in_a_moment(side, recover),
            Err(AcquireError::TimedOut) => Err(Refusal::Busy),
            Err(cause) => Err(Refusal::Lock(cause)),
        }
    }

    /// A call that must not wait lets another finish what takes a moment.
    #[cold]
    pub fn enter_in_a_moment(self, side: &Side, recover: impl FnOnce()) -> Result<(), Refusal> {
        // SAFETY: as above.
        match unsafe { side.enter(Deadline::after(MOMENT)) } {
            Ok(Acquired::Clean) => Ok(()),
            Ok(Acquired::OwnerDied(_)) => {
                self.take_over(recover);
                Ok(())
            }
            Err(AcquireError::TimedOut) => Err(Refusal::Busy),
            Err(cause) => Err(Refusal::Lock(cause)),
        }
    }

    /// The producers' lock, if it is to be had without waiting.
    pub fn enter_producers_at_once(self) -> bool {
        // SAFETY: as above.
        match unsafe { self.ring().producers.enter(Deadline::NOW) } {
            Ok(Acquired::Clean) => true,
            Ok(Acquired::OwnerDied(_)) => {
                self.take_over(|| self.recover());
                true
            }
            Err(_) => false,
        }
    }

    /// With a lock whose last owner died: what it may have left undone.
    #[cold]
    pub fn take_over(self, recover: impl FnOnce()) {
        self.count(DEATHS);
        recover();
        self.retell(None);
    }

    #[inline]
    pub fn leave_producers(self) {
        self.ring().producers.leave(&self.ring().consumers, |brief| self.has_more_room(brief), || true);
    }

    /// Having appended nothing: then those who sleep for messages may have been left to us by a dead one at most.
    #[cold]
    pub fn leave_producers_without_progress(self) {
        self.ring().producers.leave_without_progress(
            &self.ring().consumers,
            |brief| self.has_more_room(brief),
            || self.has_news(),
        );
    }

    #[inline]
    pub fn leave_consumers(self) {
        self.ring().consumers.leave(&self.ring().producers, |_| self.has_data(), || self.offers_room());
    }

    /// Having moved the head, or not: likewise.
    pub fn leave_consumers_after(self, moved: bool) {
        if moved {
            self.leave_consumers();
        } else {
            self.ring().consumers.leave_without_progress(
                &self.ring().producers,
                |_| self.has_data(),
                || self.has_room_for_some(),
            );
        }
    }

    /// With the producers' lock: whether a record of this many words fits at the tail, where there is memory.
    #[inline(always)]
    pub fn fits(self, tail: Cursor, need: u32) -> bool {
        let fits = |head| self.log().sizes.fits(tail, head, || self.jumped(), self.end(), need);
        fits(Cursor::from(self.ring().producers.notes[SEEN_HEAD].load(Relaxed))) || fits(self.see_head())
    }

    /// With the producers' lock: reads the head, and notes it.
    #[cold]
    pub fn see_head(self) -> Cursor {
        // ORDER: SeqCst, hence Acquire, pairs with `move_head`: the words before the head are read and may be written.
        let head = Cursor::load(self.consumer(HEAD));
        self.ring().producers.notes[SEEN_HEAD].store(head.word(), Relaxed);
        head
    }

    pub fn spot(self, tail: Cursor, head: Cursor, need: u32) -> Result<Option<Spot>, Refusal> {
        self.spot_within(tail, head, need, self.end().max(self.log().sizes.roomy(need)))
    }

    pub fn spot_within(self, tail: Cursor, head: Cursor, need: u32, end: u32) -> Result<Option<Spot>, Refusal> {
        self.log().sizes.spot(tail, head, self.jumped(), end, need).map_err(|Contradiction| Refusal::Corrupt)
    }

    /// The word of the last jump.
    #[inline]
    pub fn jumped(self) -> u32 {
        self.log().sizes.index(self.note(JUMPED))
    }

    /// Where the log wraps: the end of home, or of what it has had to grow to.
    #[inline]
    pub fn end(self) -> u32 {
        self.note(SOLID).clamp(self.log().sizes.home, self.log().sizes.span)
    }
}

/// What a consumer found under its lock.
pub enum Found {
    Taken,
    /// A message of this many bytes, for which the vector has too little room.
    Longer(usize),
    /// A place that was reserved, and is never filled.
    Hole,
    Nothing,
}

/// What became of a record that was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    Yes,
    NoRoom,
    /// There is room, if memory is set aside for it.
    WouldGrow,
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "`words_for` found it short enough")]
pub fn header_of(message: &[u8]) -> u64 {
    Header::Message { length: message.len() as u32, cpu: this_cpu() }.word()
}
