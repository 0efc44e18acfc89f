//! The bytes of a queue: a log of records between two [`Side`]s.
//!
//! # Layout
//!
//! | bytes | field | written by |
//! |---|---|---|
//! | 0..128 | producers' side; beside its lock: `tail`, `seen head`, `closed`; notes: `least`, `passed` | its lock's holder; `closed` once; `least` by who is about to sleep |
//! | 128..256 | consumers' side; beside its lock: `head`, `pause`, `CPUs` | its lock's holder |
//! | 256.. | the log: a power of two of 8-byte words | producers |
//!
//! A *place* is one word: position in 8-byte units (low half), number of messages so far (high half), both counting on for ever, modulo 2^32. One store moves both, so `head` and `tail` are never half moved.
//!
//! A *record* is a header word, then the payload in whole words. Header: length + 1 (low half; 0 is "nothing here yet"), CPU of the producer (high half). Headers are never split; a payload
//! wraps around the end in two copies.
//!
//! # Who moves what
//!
//! - **put**, holding the producers' lock: payload; header of the *next* record = 0; this header (the commit); `tail`.
//! - **get**, holding the consumers' lock: read the header at `head`; if it is not 0, copy the payload out; `head` (the commit).
//!
//! The consumer polls the header itself, so a message is visible in one cache line; `tail` is the producers' private note.
//!
//! # What a death leaves
//!
//! | killed | what is there | who mends it |
//! |---|---|---|
//! | producer before the header store | a free place with rubbish in it | nobody needs to |
//! | producer between header and `tail` | a whole message that `tail` does not count | the next producer walks from `tail` over whatever headers are there |
//! | consumer before the `head` store | the message, still there | nobody needs to: another gets it |
//! | consumer after it | the message is gone with its consumer | at most this one |
//! | closer after the flag | closed, sleepers not told | the kernel wakes one, who tells the others; so does whoever takes the lock next |
//!
//! Waiting is [`Side`]'s: nobody sleeps or spins with a lock of the ring, so a killed or stopped sleeper holds nobody up.
//!
//! # What is not trusted
//!
//! Sizes come from the handle. A place is masked into the log; a length is read once, compared with what the log can hold, and used from the local copy.
#![allow(unsafe_code, reason = "raw bytes of the log")]

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};
use std::time::Duration;

use multiproc_shm::zoo::{self, Bug};
use multiproc_shm::{AcquireError, Acquired, Deadline, EAGER, NO_CPU, RobustLock, Side, copy, spin, this_cpu};

/// The fixed part of a queue.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct Ring {
    producers: Side,
    consumers: Side,
}

const _: () = assert!(size_of::<Ring>() == 256 && offset_of!(Ring, consumers) == 128);

/// Words beside the producers' lock.
const TAIL: usize = 0;
const SEEN_HEAD: usize = 1;
const CLOSED: usize = 2;
/// Notes of the producers' side. The smallest record that a producer has ever slept for, subtracted from `u64::MAX`, so that 0 means none.
const LEAST: usize = 0;
/// The head at which producers last woke each other because the room was too little for one of them.
const PASSED: usize = 1;
/// Words beside the consumers' lock.
const HEAD: usize = 0;
const PAUSE: usize = 1;
const CPUS: usize = 2;

/// Pauses before a consumer that found nothing looks again: the longer it lets a busy producer build a run, the fewer cache lines go back and forth.
const SHORTEST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 192;
/// A run of this many messages doubles the pause; a shorter one resets it.
const RUN: u32 = 3;
/// Pauses between two looks of a producer that waits for room: each takes the consumers' line away from them, and more room is worth waiting for.
const SELDOM: u32 = 128;
/// How far ahead of the tail the producer fetches lines, in words.
const AHEAD: u32 = 64;
/// How long a call that must not wait lets another process finish its own put or get.
const MOMENT: Duration = Duration::from_millis(1);
/// How often a look without a lock is repeated when others move what it looks at; each repetition means that somebody got on, unless a peer is hostile.
const TRIES: u32 = 10_000;
/// How often one call spins before it sleeps, when others are always faster.
const SPINS: u32 = 4;

/// A ring as this process sees it: the shared words, and sizes that were checked when it was opened.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    ring: &'a Ring,
    log: *const AtomicU64,
    pub(crate) messages: u32,
    /// Words of the log, a power of two.
    words: u32,
}

/// Why nothing was put or got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No room, or nothing there, until the deadline.
    TimedOut,
    Closed,
    /// It can never fit.
    TooLarge,
    /// Somebody else was in the middle of the same for longer than a moment.
    Busy,
    /// The shared words contradict each other.
    Corrupt,
    Lock(AcquireError),
}

/// A position and a number of messages.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    position: u32,
    count: u32,
}

impl Ring {
    pub(crate) fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(self.producers.lock()), Some(self.consumers.lock())]
    }
}

impl Place {
    fn load(word: &AtomicU64) -> Self {
        Self::from(word.load(SeqCst))
    }

    #[allow(clippy::cast_possible_truncation, reason = "two halves")]
    fn from(word: u64) -> Self {
        Self { position: word as u32, count: (word >> 32) as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.position) | u64::from(self.count) << 32
    }

    fn after(self, words: u32) -> Self {
        Self { position: self.position.wrapping_add(words), count: self.count.wrapping_add(1) }
    }
}

impl<'a> View<'a> {
    /// `log` is the first of `bytes` / 8 words that live as long as `ring`; both numbers were checked.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "at most 2^30 and 2^31, by `Object::size`")]
    pub(crate) fn new(ring: &'a Ring, log: *const AtomicU64, messages: u64, bytes: u64) -> Self {
        Self { ring, log, messages: messages as u32, words: (bytes / copy::WORD as u64) as u32 }
    }
}

impl View<'_> {
    /// Appends a message.
    #[inline]
    pub(crate) fn put(self, message: &[u8], deadline: Deadline) -> Result<(), Refusal> {
        let need = record_words(message.len()).filter(|need| *need < self.words).ok_or(Refusal::TooLarge)?;
        let mut wait = Wait::default();
        loop {
            self.enter(&self.ring.producers, deadline, || self.recover())?;
            let tail = Place::load(self.producer(TAIL));
            let fits = if self.is_closed() { Err(Refusal::Closed) } else { self.room(tail, need) };
            if fits == Ok(true) {
                self.append(tail, need, message);
            } else {
                self.pass_on_room();
            }
            self.leave_producers();
            if fits? {
                return Ok(());
            }
            self.wait_for_room(&mut wait, need, deadline)?;
        }
    }

    /// Takes the oldest message out into `message`, whose content is replaced.
    #[inline]
    pub(crate) fn get(self, message: &mut Vec<u8>, deadline: Deadline) -> Result<(), Refusal> {
        if deadline == Deadline::NOW && !self.has_data() {
            return Err(self.nothing());
        }
        let mut wait = Wait::default();
        loop {
            self.enter(&self.ring.consumers, deadline, || ())?;
            let head = Place::load(self.consumer(HEAD));
            // ORDER: Acquire pairs with the commit in `append`: the payload behind the header is there.
            let header = self.at(head.position).load(Acquire);
            let found = if header == 0 { Ok(Found::Nothing(self.next_pause(head))) } else { self.take(head, header, message) };
            self.leave_consumers();
            match found? {
                Found::Taken => return Ok(()),
                Found::Longer(length) => {
                    // Memory is fetched without the lock: an allocator is somebody else's code.
                    message.clear();
                    message.reserve(length);
                }
                Found::Nothing(_) if self.is_closed() && !self.has_data() => return Err(Refusal::Closed),
                Found::Nothing(pause) => self.wait_for_data(&mut wait, pause, head, deadline)?,
            }
        }
    }

    /// No more puts; gets go on until the log is empty. Idempotent.
    pub(crate) fn close(self) {
        if self.enter(&self.ring.producers, Deadline::NEVER, || self.recover()).is_err() {
            // A thread that can take no lock (it holds a thousand) closes all the same; only, nobody repeats its wakes if it dies now.
            self.producer(CLOSED).store(1, SeqCst);
            self.tell_all();
            return;
        }
        self.ring.producers.alarm();
        // CRASH: the commit. The lock is still held, with its alarm on, so the kernel wakes one of those who watch it, and that one tells the others.
        self.producer(CLOSED).store(1, SeqCst);
        self.tell_all();
        self.leave_producers();
    }

    pub(crate) fn is_closed(self) -> bool {
        self.producer(CLOSED).load(SeqCst) != 0
    }

    /// Committed messages, a snapshot.
    pub(crate) fn len(self) -> usize {
        let mut estimate = 0;
        for _ in 0..TRIES {
            let head = Place::load(self.consumer(HEAD));
            let tail = Place::load(self.producer(TAIL));
            // A producer between its commit and its note of it (or killed there) has one more.
            let unnoted = u32::from(self.at(tail.position).load(SeqCst) != 0);
            estimate = tail.count.wrapping_add(unnoted).wrapping_sub(head.count).min(self.messages) as usize;
            if Place::load(self.producer(TAIL)) == tail && Place::load(self.consumer(HEAD)) == head {
                break;
            }
        }
        estimate
    }

    pub(crate) fn is_empty(self) -> bool {
        !self.has_data()
    }

    /// Bytes of the largest message.
    pub(crate) fn longest(self) -> usize {
        (self.words as usize - 2) * copy::WORD
    }

    /// Bytes of the message at the head, if there is one: a hint.
    pub(crate) fn next_length(self) -> Option<usize> {
        let head = Place::load(self.consumer(HEAD));
        length_of(self.at(head.position).load(Acquire)).filter(|length| *length <= self.longest())
    }

    #[inline]
    fn producer(&self, word: usize) -> &AtomicU64 {
        &self.ring.producers.lock().beside[word]
    }

    #[inline]
    fn consumer(&self, word: usize) -> &AtomicU64 {
        &self.ring.consumers.lock().beside[word]
    }

    /// The word of the log at a position.
    #[inline]
    fn at(&self, position: u32) -> &AtomicU64 {
        let index = (position & (self.words - 1)) as usize;
        // SAFETY: the index is inside the log, which is mapped as long as the handle that this view came from.
        unsafe { &*self.log.wrapping_add(index) }
    }

    #[inline(always)]
    fn enter(self, side: &Side, deadline: Deadline, recover: impl FnOnce()) -> Result<(), Refusal> {
        // SAFETY: the mapping lives as long as the handle, which the caller borrows; each path leaves before it returns.
        let entered = unsafe { side.enter(deadline) };
        match entered {
            Ok(Acquired::Clean) => Ok(()),
            Ok(Acquired::OwnerDied(_)) => {
                self.take_over(recover);
                Ok(())
            }
            Err(AcquireError::TimedOut) if deadline == Deadline::NOW => self.enter_in_a_moment(side, recover),
            Err(AcquireError::TimedOut) => Err(Refusal::TimedOut),
            Err(cause) => Err(Refusal::Lock(cause)),
        }
    }

    /// A call that must not wait lets another finish what takes a moment.
    #[cold]
    fn enter_in_a_moment(self, side: &Side, recover: impl FnOnce()) -> Result<(), Refusal> {
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

    /// With a lock whose last owner died: what it may have left undone.
    #[cold]
    fn take_over(self, recover: impl FnOnce()) {
        recover();
        self.retell();
    }

    #[inline]
    fn leave_producers(self) {
        self.ring.producers.leave(&self.ring.consumers, || self.has_room_to_share(), || true);
    }

    #[inline]
    fn leave_consumers(self) {
        self.ring.consumers.leave(&self.ring.producers, || self.has_data(), || self.is_roomy());
    }

    /// With the producers' lock: whether a record of this many words fits at the tail.
    #[inline]
    fn room(self, tail: Place, need: u32) -> Result<bool, Refusal> {
        let seen = Place::from(self.producer(SEEN_HEAD).load(Relaxed));
        if self.fits(tail, seen, need) == Some(true) {
            return Ok(true);
        }
        // ORDER: SeqCst, hence Acquire, pairs with the commit in `take`: the words before the head are read and may be written.
        let head = Place::load(self.consumer(HEAD));
        self.producer(SEEN_HEAD).store(head.word(), Relaxed);
        self.fits(tail, head, need).ok_or(Refusal::Corrupt)
    }

    /// `None`: head and tail contradict each other.
    #[inline]
    fn fits(self, tail: Place, head: Place, need: u32) -> Option<bool> {
        let (used, messages) = (tail.position.wrapping_sub(head.position), tail.count.wrapping_sub(head.count));
        // One word more, for the empty header behind the record.
        (used <= self.words && messages <= self.messages).then(|| messages < self.messages && need < self.words - used)
    }

    /// Without a lock, for a waiting producer: whether a record of this many words would fit now.
    fn has_room(self, need: u32) -> bool {
        for _ in 0..TRIES {
            let head = Place::load(self.consumer(HEAD));
            let tail = Place::load(self.producer(TAIL));
            if Place::load(self.consumer(HEAD)) == head {
                // A contradiction is for the one who gets the lock to report.
                return self.fits(tail, head, need) != Some(false);
            }
        }
        true
    }

    /// Whether there is room that some sleeping producer may be able to use, and that was not offered round already.
    fn has_room_to_share(self) -> bool {
        let least = u64::MAX - self.ring.producers.notes[LEAST].load(SeqCst);
        let passed = self.ring.producers.notes[PASSED].load(SeqCst);
        passed != self.consumer(HEAD).load(SeqCst) && u32::try_from(least).is_ok_and(|least| self.has_room(least))
    }

    /// With the producers' lock, having found too little room for this message: what there is may do for another, smaller one. All are woken, once for each
    /// head: one by one, the wake could end with one that it does not fit; more than once, they would keep each other awake for ever.
    #[cold]
    fn pass_on_room(self) {
        let head = self.consumer(HEAD).load(SeqCst);
        if self.has_room_to_share() {
            if self.ring.consumers.has_sleepers() {
                self.ring.consumers.wake_all_sleepers();
            }
            // CRASH: woken but not noted: they are woken once more.
            self.ring.producers.notes[PASSED].store(head, SeqCst);
        }
    }

    /// Whether those who wait briefly for room should be woken yet: a quarter is free.
    fn is_roomy(self) -> bool {
        let head = Place::load(self.consumer(HEAD));
        let tail = Place::load(self.producer(TAIL));
        let (used, messages) = (tail.position.wrapping_sub(head.position), tail.count.wrapping_sub(head.count));
        // A tail that a dead producer did not note may lie behind the head: then there is room.
        let (used, messages) = if used > self.words { (0, 0) } else { (used, messages) };
        used <= self.words - self.words / 4 && messages <= self.messages - self.messages.div_ceil(4)
    }

    /// Without a lock: the header at a head that did not move while we looked.
    fn has_data(self) -> bool {
        for _ in 0..TRIES {
            let head = self.consumer(HEAD).load(SeqCst);
            if self.at(Place::from(head).position).load(SeqCst) != 0 {
                return true;
            }
            if self.consumer(HEAD).load(SeqCst) == head {
                return false;
            }
        }
        true
    }

    #[inline]
    fn append(self, tail: Place, need: u32, message: &[u8]) {
        self.fetch_ahead(tail, need);
        self.copy_in(tail.position.wrapping_add(1), message);
        let next = tail.after(need);
        // ORDER: Relaxed: made visible by the commit.
        self.at(next.position).store(0, Relaxed);
        let header = (message.len() as u64 + 1) | u64::from(this_cpu()) << 32;
        // ORDER: Release pairs with the Acquire in `get`. CRASH: the commit: before it nothing, after it the whole message.
        self.at(tail.position).store(header, Release);
        // CRASH: `tail` is one record behind; `recover` walks over it.
        self.producer(TAIL).store(next.word(), Relaxed);
    }

    /// With the consumers' lock: copies the record out and moves the head.
    #[inline]
    fn take(self, head: Place, header: u64, message: &mut Vec<u8>) -> Result<Found, Refusal> {
        let length = length_of(header).filter(|length| *length <= self.longest()).ok_or(Refusal::Corrupt)?;
        let length = if zoo::planted(Bug::LengthReadTwice) {
            length_of(self.at(head.position).load(Acquire)).unwrap_or(0)
        } else {
            length
        };
        if message.capacity() < length {
            return Ok(Found::Longer(length));
        }
        message.clear();
        self.copy_out(head.position.wrapping_add(1), message.as_mut_ptr(), length);
        // SAFETY: the capacity was checked, and `copy_out` wrote `length` bytes.
        unsafe { message.set_len(length) };
        let cpus = self.consumer(CPUS).load(Relaxed);
        self.consumer(CPUS).store((cpus & 0xffff_ffff) | (header >> 32) << 32, Relaxed);
        let next = head.after(record_words(length).ok_or(Refusal::Corrupt)?);
        // ORDER: Release pairs with the load in `room`: the copy is done. CRASH: the commit: before it the message is there, after it it is ours.
        self.consumer(HEAD).store(next.word(), Release);
        Ok(Found::Taken)
    }

    #[inline]
    fn copy_in(self, position: u32, message: &[u8]) {
        let index = position & (self.words - 1);
        let straight = (self.words - index) as usize * copy::WORD;
        let (first, second) = message.split_at(message.len().min(straight));
        // SAFETY: `room` found the record's words free and inside the log; the first part ends at its end.
        unsafe { copy::store(self.log.wrapping_add(index as usize), first) };
        if !second.is_empty() {
            // SAFETY: as above: the rest, from the beginning of the log.
            unsafe { copy::store(self.log, second) };
        }
    }

    #[inline]
    fn copy_out(self, position: u32, target: *mut u8, length: usize) {
        let index = position & (self.words - 1);
        let straight = (self.words - index) as usize * copy::WORD;
        let first = length.min(straight);
        // SAFETY: the first part ends at the log's end, the target has `length` bytes.
        unsafe { copy::load(self.log.wrapping_add(index as usize), target, first) };
        if first < length {
            // SAFETY: as above: the rest (less than the log), from the beginning of the log.
            unsafe { copy::load(self.log, target.wrapping_add(first), length - first) };
        }
    }

    /// Fetches the lines that a later put will write, as far as they are known to be free.
    #[inline]
    fn fetch_ahead(self, tail: Place, need: u32) {
        let head = Place::from(self.producer(SEEN_HEAD).load(Relaxed));
        let end = tail.position.wrapping_add(AHEAD).wrapping_add(need);
        if end.wrapping_sub(head.position) >= self.words {
            return;
        }
        const LINE: u32 = 8;
        let mut position = tail.position.wrapping_add(AHEAD) & !(LINE - 1);
        // From the first line that the last put did not fetch.
        if position != tail.position.wrapping_add(AHEAD) {
            position = position.wrapping_add(LINE);
        }
        while end.wrapping_sub(position).wrapping_sub(1) < need {
            copy::prefetch_for_writing(self.at(position));
            position = position.wrapping_add(LINE);
        }
    }

    /// The last producer died: notes what it had committed.
    #[cold]
    fn recover(self) {
        let mut tail = Place::load(self.producer(TAIL));
        for _ in 0..self.words {
            let header = self.at(tail.position).load(Acquire);
            let Some(need) = length_of(header).filter(|length| *length <= self.longest()).and_then(record_words) else { break };
            tail = tail.after(need);
            // CRASH: killed here, the next walks on.
            self.producer(TAIL).store(tail.word(), Relaxed);
        }
    }

    /// With the consumers' lock, having found nothing at this head: how long to pause before the next look.
    fn next_pause(self, head: Place) -> u32 {
        let note = Place::from(self.consumer(PAUSE).load(Relaxed));
        let run = head.count.wrapping_sub(note.count);
        let pause =
            if run >= RUN { (note.position.clamp(SHORTEST_PAUSE, LONGEST_PAUSE) * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
        self.consumer(PAUSE).store(Place { position: pause, count: head.count }.word(), Relaxed);
        let cpus = self.consumer(CPUS).load(Relaxed);
        self.consumer(CPUS).store((cpus >> 32) << 32 | u64::from(this_cpu().wrapping_add(1)), Relaxed);
        pause
    }

    fn nothing(self) -> Refusal {
        if self.is_closed() && !self.has_data() { Refusal::Closed } else { Refusal::TimedOut }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_data(self, wait: &mut Wait, pause: u32, head: Place, deadline: Deadline) -> Result<(), Refusal> {
        if deadline == Deadline::NOW {
            return Err(self.nothing());
        }
        let ready =
            || self.at(head.position).load(Acquire) != 0 || self.consumer(HEAD).load(Relaxed) != head.word() || self.is_closed();
        if wait.may_spin() {
            let partner = if head.count == 0 { NO_CPU } else { Place::from(self.consumer(CPUS).load(Relaxed)).count };
            if spin(partner, pause, EAGER, ready) {
                return Ok(());
            }
        }
        let ready = || self.has_data() || self.is_closed();
        let woken = || self.retell();
        let awake = self.ring.producers.sleep(&self.ring.consumers, wait.is_first(), deadline, ready, woken);
        wait.sleeps += 1;
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_room(self, wait: &mut Wait, need: u32, deadline: Deadline) -> Result<(), Refusal> {
        if deadline == Deadline::NOW {
            return Err(Refusal::TimedOut);
        }
        let ready = || self.has_room(need) || self.is_closed();
        if wait.may_spin() {
            let partner = Place::from(self.consumer(CPUS).load(Relaxed)).position.wrapping_sub(1);
            if spin(partner, SELDOM, SELDOM, || self.is_roomy() || self.is_closed()) || ready() {
                return Ok(());
            }
        }
        self.ring.producers.notes[LEAST].fetch_max(u64::MAX - u64::from(need), SeqCst);
        let woken = || self.retell();
        let awake = self.ring.consumers.sleep(&self.ring.producers, wait.is_first(), deadline, ready, woken);
        wait.sleeps += 1;
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    /// Whoever closed it may have died before it told everybody.
    fn retell(self) {
        if self.is_closed() {
            self.tell_all();
        }
    }

    fn tell_all(self) {
        self.ring.producers.wake_all_sleepers();
        self.ring.consumers.wake_all_sleepers();
    }
}

/// What a consumer found under its lock.
enum Found {
    Taken,
    /// A message of this many bytes, for which the vector has too little room.
    Longer(usize),
    /// Nothing; and how many pauses to wait before the next look.
    Nothing(u32),
}

/// What one call remembers between its sleeps.
#[derive(Default)]
struct Wait {
    spins: u32,
    sleeps: u32,
}

impl Wait {
    fn may_spin(&mut self) -> bool {
        self.spins += 1;
        self.sleeps == 0 && self.spins <= SPINS
    }

    /// The first sleep of a wait is brief.
    fn is_first(&self) -> bool {
        self.sleeps == 0
    }
}

/// Words of a record with this payload; `None` if its length has no header.
#[inline]
fn record_words(length: usize) -> Option<u32> {
    u32::try_from(copy::words(length) + 1).ok().filter(|_| length < u32::MAX as usize)
}

/// The payload's length in a header; `None` for "nothing here yet".
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn length_of(header: u64) -> Option<usize> {
    (header as u32).checked_sub(1).map(|length| length as usize)
}
