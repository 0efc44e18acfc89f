//! Jobs: messages that are out with somebody, and come back when he dies.
//!
//! # Slots
//!
//! A job that is out lies in a *slot*: a [`RobustLock`] that whoever has the job holds, taken [watched](RobustLock::take_watched), three words beside it, and an area for the job's bytes. The first word is its state:
//!
//! | lock | state | the slot is |
//! |---|---|---|
//! | free | `FREE` | free |
//! | held | `FREE` | about to be filled, or done a moment ago |
//! | held | `OUT` | a job that is out with the thread that holds it |
//! | free | `OUT` | a job that came back: its holder has died or has given it back. It is handed out before what is in the log |
//! | any | `TAKING`, n | to be filled with message n of the log: `OUT` if the head has passed n, else `FREE` |
//! | any | `BURYING`, n | to become dead letter n: `FREE` if there is such a dead letter, else `OUT` |
//! | any | `REVIVING`, n | to be filled with dead letter n: `OUT` if the head of the dead letters has passed n, else `FREE` |
//!
//! # Who moves what
//!
//! - **get**, holding the consumers' lock: take the lock of a free slot; copy the message there; `TAKING`, n; `head` (the commit); `OUT`. Or take the lock of a slot whose job came back, and count the delivery.
//! - **done**, without any other lock: `FREE` (the commit), then the slot's lock is given back.
//! - **gave back**: the slot's lock is given back, and nothing else.
//! - **too often delivered**, holding the consumers' lock: the slot's lock; `BURYING`, n; append to the dead letters (the commit); `FREE`.
//! - **dead letters taken or brought back to life**: with the consumers' lock, too; the locks of their own log are never taken.
//!
//! Nothing is counted: `unfinished` is what is in the log and what is in slots that are not `FREE`.
//!
//! # What a death leaves
//!
//! | killed | what is there | who mends it |
//! |---|---|---|
//! | in `get`, before `TAKING` | a free slot with rubbish in its area | nobody needs to |
//! | in `get`, between `TAKING` and `OUT` | as the table above says, and the consumers' lock marked by the kernel | whoever takes that lock next, before the head moves again, so n tells for sure |
//! | with a job | a job that came back | the kernel frees the slot's lock and wakes one of those who sleep for jobs, for all of them watch all slots |
//! | in `done`, before `FREE` | as with a job | |
//! | in `done`, after it | a free slot; those who wait for the last job may not have been told | the slot's lock is still its own, or its pending names it: one of those who watch is woken, and tells the others |
//! | while it buries or revives | as the table above says | as in `get` |
//!
//! A holder that is *stopped* keeps its job. What the kernel misses (a robust list cut short) is found by those who sleep, once a second.
//!
//! # Who sleeps, and who wakes
//!
//! A consumer sleeps as in any queue (`Side`), and watches the locks of all slots that were ever used, too. Whoever uses a slot for the first time wakes everybody. A thread that waits for the last job to be done (`join`) watches the same
//! locks, but has a word of its own to be woken by, so that it takes no wake of a consumer, save that of a death; so it passes that on. Whoever has made a job `FREE` looks, with its slot still watched: is it
//! the last, those who join are woken; is the queue closed and its log empty, consumers are; did somebody wait for a slot, likewise.
//!
//! "The last" is decided by: the log is empty at the head; each slot, its lock read before its state, is free; the log is still empty at the same head. The head has not moved, so nothing was put (a put that was taken moves it) and
//! nothing went from the log to a slot between the two looks; each slot's job was done when it was seen; so at the second look all was done.

#![allow(unsafe_code, reason = "takes slots, whose mapping the handle keeps")]

use std::cell::Cell;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

use multiproc_shm::{Acquired, Deadline, EAGER, NO_CPU, RobustLock, Sleep, bury, copy, spin};

use super::wait::Wait;
use super::{Appended, CPUS, Found, HEAD, Refusal, TAIL, View};
use crate::jobs::block::{Jobs, Leases, MORGUE_HOME, MOST_OUT, RECORD};
use crate::log::{Memory, Place, record_words};

/// The words beside a slot's lock.
const STATE: usize = 0;
const DELIVERIES: usize = 1;
const LENGTH: usize = 2;

/// States, in the low half; the number of a message in the high half.
const FREE: u64 = 0;
const OUT: u64 = 1;
const TAKING: u64 = 2;
const BURYING: u64 = 3;
const REVIVING: u64 = 4;

/// So many slots a busy get looks at for jobs that came back, others at the next. (Each may be another's cache line.) Who finds the log empty looks at all.
const LOOKS: u32 = 4;
/// Words for which a slot's area gets memory at a time, and words that it keeps between jobs.
const STEP: usize = 512;
const KEPT: u32 = 1 << 17;
/// Polls that find nothing between two looks for those whose death the kernel has missed.
const POLLS: u32 = 64;

/// A job that is out with this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leased {
    pub(crate) slot: usize,
    /// How often it was handed out, this time included.
    pub(crate) deliveries: u32,
    /// Who had it before.
    pub(crate) last: Option<Last>,
}

/// Who had a job, and whether he died with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    /// Process id << 32 | thread id; 0 if he died before he had signed.
    pub(crate) holder: u64,
    pub(crate) died: bool,
}

/// A job that nobody got done.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) deliveries: u32,
    pub(crate) last: Last,
    pub(crate) message: Vec<u8>,
}

/// What a consumer found under its lock.
enum Outcome {
    Leased(Leased),
    /// The same, from the log, whose head is here now.
    New(Leased, Place),
    /// A message of this many bytes, for which the vector has too little room.
    Longer(usize),
    Nothing,
    /// A message, and no slot for it.
    NoSlot,
}

impl<M: Jobs> View<'_, M> {
    /// Leases a job to this thread: one that came back, or the oldest message; its bytes replace those in `message`.
    pub(crate) fn lease(self, message: &mut Vec<u8>, deadline: Deadline) -> Result<Leased, Refusal> {
        if deadline == Deadline::NOW && !self.has_job() {
            self.poll_for_the_dead();
            return Err(if self.is_over() { Refusal::Closed } else { Refusal::TimedOut });
        }
        let mut wait = Wait::default();
        loop {
            self.enter(&self.ring().consumers, deadline, || self.recover_leases())?;
            let head = Place::load(self.consumer(HEAD));
            message.clear();
            let outcome = self.lease_one(head, message);
            let pause = if matches!(outcome, Ok(Outcome::Nothing)) { self.next_pause(head) } else { 0 };
            self.leave_consumers_of_jobs();
            match outcome? {
                Outcome::Leased(leased) => return Ok(leased),
                Outcome::New(leased, next) => {
                    self.tidy(head, next);
                    return Ok(leased);
                }
                // Memory is fetched without the lock: an allocator is somebody else's code.
                Outcome::Longer(length) => message.try_reserve(length).map_err(|_| Refusal::NoMemory(length))?,
                Outcome::Nothing => self.wait_for_job(&mut wait, pause, head, deadline)?,
                Outcome::NoSlot => {
                    self.leases().starved.store(1, SeqCst);
                    self.wait_for_job(&mut wait, 0, head, deadline)?;
                }
            }
        }
    }

    /// The job in this slot, which this thread holds, is done; false, and nothing done, when this thread does not hold it.
    pub(crate) fn finish(self, slot: usize) -> bool {
        let lock = self.slot(slot);
        let commit = || {
            self.shrink(slot);
            self.leases().notes[slot].taken.store(0, Relaxed);
            // ORDER: Release; who reads the lock's word after our release of it sees this too. CRASH: the commit: before it the job comes back.
            lock.beside[STATE].store(FREE, Release);
        };
        // CRASH: in `tell_done` the slot is still named by our pending: one of those who watch it is woken, and tells.
        lock.give_watched(commit, || self.tell_done())
    }

    /// Gives the job in this slot back; false, and nothing done, when this thread does not hold it.
    pub(crate) fn give_back_job(self, slot: usize) -> bool {
        self.slot(slot).give_watched(
            || self.leases().notes[slot].taken.store(0, Relaxed),
            || {
                if self.ring().producers.has_sleepers() {
                    self.ring().producers.wake_one_sleeper();
                }
            },
        )
    }

    /// Notes that the job in this slot is this thread's without anything that would give it back.
    pub(crate) fn note_taken(self, slot: usize) {
        let number = self.leases().taken.fetch_add(1, Relaxed) + 1;
        self.leases().notes[slot].taken.store(number, Relaxed);
    }

    /// The slot that this thread took first, of those that it has noted so.
    pub(crate) fn first_taken(self) -> Option<usize> {
        let taken = |slot: usize| self.leases().notes[slot].taken.load(Relaxed);
        let mine = (0..self.used()).filter(|slot| taken(*slot) != 0 && self.slot(*slot).is_held_by_this_thread());
        mine.min_by_key(|slot| taken(*slot))
    }

    /// Waits until all that was put is done.
    pub(crate) fn join(self, deadline: Deadline) -> Result<(), Refusal> {
        loop {
            if self.is_finished() {
                return Ok(());
            }
            let leases = self.leases();
            let how = Sleep { brief: false, deadline, watched: &leases.slots[..self.used()], bell: Some(&leases.joiners) };
            let ready = || self.is_finished();
            let sides = (&self.ring().producers, &self.ring().consumers);
            let awake = sides.0.sleep(sides.1, how, ready, || self.pass_on_job()).map_err(Refusal::Lock)?;
            if !awake {
                return Err(Refusal::TimedOut);
            }
        }
    }

    /// Jobs that were put and are not done: never fewer than there are.
    pub(crate) fn unfinished(self) -> usize {
        if self.is_finished() {
            return 0;
        }
        let head = Place::load(self.consumer(HEAD)).count;
        let out = self.states().filter(|state| *state != FREE && *state != (TAKING | u64::from(head) << 32)).count();
        (out + self.len()).max(1)
    }

    /// Jobs that are out now.
    pub(crate) fn out(self) -> usize {
        (0..self.used()).filter(|slot| self.slot(*slot).is_held_now() && self.state(*slot) != FREE).count()
    }

    /// No more puts. The mark comes first: who makes a job free sees it, or the queue is not closed yet.
    pub(crate) fn close_jobs(self) {
        self.leases().closing.store(1, SeqCst);
        self.close();
    }

    /// Dead letters, from the oldest on.
    pub(crate) fn letters(self, most: usize) -> Result<Vec<Letter>, Refusal> {
        self.in_morgue(|dead| {
            let mut next = Place::load(dead.consumer(HEAD));
            let mut letters = Vec::new();
            while letters.len() < most
                && let Some((letter, after)) = read_letter(dead, next)?
            {
                letters.push(letter);
                next = after;
            }
            Ok(letters)
        })
    }

    /// Takes the oldest dead letter out.
    pub(crate) fn take_letter(self) -> Result<Option<Letter>, Refusal> {
        self.in_morgue(|dead| {
            let head = Place::load(dead.consumer(HEAD));
            let Some((letter, next)) = read_letter(dead, head)? else { return Ok(None) };
            dead.move_head(next);
            dead.tidy(head, next);
            Ok(Some(letter))
        })
    }

    /// Makes the oldest dead letter a job again that nobody has had yet; false when there is none, or no slot for it.
    pub(crate) fn revive_letter(self) -> Result<bool, Refusal> {
        let revived = self.in_morgue(|dead| {
            let head = Place::load(dead.consumer(HEAD));
            let Some((letter, next)) = read_letter(dead, head)? else { return Ok(None) };
            let Some(slot) = self.claim()? else { return Ok(None) };
            if let Err(refusal) = self.fill_slot(slot, &letter.message, 0) {
                self.give_back_job(slot);
                return Err(refusal);
            }
            self.set_state(slot, REVIVING | u64::from(head.count) << 32);
            // CRASH: the commit.
            dead.move_head(next);
            self.set_state(slot, OUT);
            dead.tidy(head, next);
            Ok(Some(slot))
        })?;
        // CRASH: it comes back in any case.
        Ok(revived.is_some_and(|slot| self.give_back_job(slot)))
    }

    /// How many dead letters there are.
    pub(crate) fn letter_count(self) -> usize {
        let morgue = self.memory.morgue();
        View { memory: &morgue }.len()
    }

    /// With the lock of the consumers, as who alone may touch the dead letters.
    fn in_morgue<R>(self, work: impl FnOnce(View<'_, M::Morgue<'_>>) -> Result<R, Refusal>) -> Result<R, Refusal> {
        self.enter(&self.ring().consumers, Deadline::NEVER, || self.recover_leases())?;
        let morgue = self.memory.morgue();
        let result = if self.leases().morgue.load(Relaxed) == 0 { self.open_morgue() } else { Ok(()) };
        let result = result.and_then(|()| work(View { memory: &morgue }));
        self.leave_consumers_of_jobs();
        result
    }

    fn leases(&self) -> &Leases {
        self.memory.leases()
    }

    fn slot(&self, slot: usize) -> &RobustLock {
        &self.memory.leases().slots[slot]
    }

    fn used(self) -> usize {
        (self.leases().used.load(SeqCst) as usize).min(MOST_OUT)
    }

    fn state(self, slot: usize) -> u64 {
        self.slot(slot).beside[STATE].load(SeqCst)
    }

    fn set_state(self, slot: usize, state: u64) {
        self.slot(slot).beside[STATE].store(state, Release);
    }

    fn states(self) -> impl Iterator<Item = u64> {
        (0..self.used()).map(move |slot| self.state(slot))
    }

    /// With the consumers' lock.
    fn lease_one(self, head: Place, message: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        let looks = if self.log().at(head.position).load(SeqCst) == 0 { u32::MAX } else { LOOKS };
        // Each round hands one out or buries one; only a hostile peer has more of them than there are slots.
        for _ in 0..MOST_OUT {
            let Some(slot) = self.came_back(looks) else { break };
            match self.lease_again(slot, message)? {
                Outcome::Nothing => message.clear(),
                outcome => return Ok(outcome),
            }
        }
        let next = match self.take(head, message)? {
            (Found::Taken, next) => next,
            (Found::Longer(length), _) => return Ok(Outcome::Longer(length)),
            (Found::Nothing, _) => return Ok(Outcome::Nothing),
        };
        let Some(slot) = self.claim()? else { return Ok(Outcome::NoSlot) };
        // CRASH: until `TAKING` the slot is free, and its lock was ours.
        if let Err(refusal) = self.fill_slot(slot, message, 1) {
            self.give_back_job(slot);
            return Err(refusal);
        }
        self.set_state(slot, TAKING | u64::from(head.count) << 32);
        // CRASH: the commit. Before it the message is in the log; after it, in the slot; `recover_leases` tells which.
        self.move_head(next);
        self.set_state(slot, OUT);
        Ok(Outcome::New(Leased { slot, deliveries: 1, last: None }, next))
    }

    /// With the consumers' lock: a slot whose job came back.
    fn came_back(self, looks: u32) -> Option<usize> {
        let used = u32::try_from(self.used()).unwrap_or(0);
        let start = self.leases().next.load(Relaxed);
        let found = (0..looks.min(used)).map(|look| start.wrapping_add(look) % used).find(|slot| self.is_back(*slot as usize));
        let looked = found.unwrap_or_else(|| start.wrapping_add(looks.min(used)));
        if looks < used {
            self.leases().next.store(looked % used, Relaxed);
        }
        found.map(|slot| slot as usize)
    }

    /// Whether the job in this slot came back; without the consumers' lock it may be out again by now.
    fn is_back(self, slot: usize) -> bool {
        // ORDER: the lock first: who has done a job makes the slot free before it gives the lock back.
        !self.slot(slot).is_held_now() && self.state(slot) == OUT
    }

    /// With the consumers' lock: hands a job out once more, or buries it; `Nothing` then.
    fn lease_again(self, slot: usize, message: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        let lock = self.slot(slot);
        let deliveries = word(lock.beside[DELIVERIES].load(Relaxed));
        let length = word(lock.beside[LENGTH].load(Relaxed)) as usize;
        if copy::words(length) > self.slot_words(slot) {
            // Somebody has scribbled over it: there is no such job.
            self.set_state(slot, FREE);
            return Err(Refusal::Corrupt);
        }
        if message.capacity() < length {
            return Ok(Outcome::Longer(length));
        }
        let holder = lock.signature();
        // SAFETY: the handle keeps the mapping, also while this thread holds a lock in it.
        let taken = unsafe { lock.take_watched() }.map_err(Refusal::Lock)?;
        let last = match taken {
            None => return Ok(Outcome::Nothing),
            Some(Acquired::Clean) => Last { holder, died: false },
            Some(Acquired::OwnerDied(_)) => Last { holder, died: true },
        };
        // CRASH: as its last holder's death, until the delivery is counted.
        self.memory.read(slot, length, message);
        let most = self.memory.max_deliveries();
        if most != 0 && deliveries >= most && self.bury_job(slot, message, Letter { deliveries, last, message: Vec::new() }) {
            return Ok(Outcome::Nothing);
        }
        let deliveries = deliveries.saturating_add(1);
        lock.beside[DELIVERIES].store(u64::from(deliveries), Relaxed);
        // A letter that was brought back to life has no history.
        let last = (deliveries > 1).then_some(last);
        Ok(Outcome::Leased(Leased { slot, deliveries, last }))
    }

    /// With the consumers' lock and the slot's: makes the job a dead letter; false when there is no memory for it, and the slot is still held.
    #[cold]
    fn bury_job(self, slot: usize, message: &[u8], letter: Letter) -> bool {
        if self.leases().morgue.load(Relaxed) == 0 && self.open_morgue().is_err() {
            return false;
        }
        let morgue = self.memory.morgue();
        let dead = View { memory: &morgue };
        let record = written(&letter, message);
        let Some(need) = record_words(record.len()) else { return false };
        let tail = Place::load(dead.producer(TAIL));
        self.set_state(slot, BURYING | u64::from(tail.count) << 32);
        // CRASH: the commit is in `append`.
        if dead.append(&record, need, || true) != Ok(Appended::Yes) {
            self.set_state(slot, OUT);
            return false;
        }
        self.finish(slot)
    }

    /// With the consumers' lock: the dead letters' log gets its first memory.
    #[cold]
    fn open_morgue(self) -> Result<(), Refusal> {
        let morgue = self.memory.morgue();
        morgue.populate(0..MORGUE_HOME).map_err(|_| Refusal::NoSpace)?;
        // CRASH: memory, not noted: once more.
        self.leases().morgue.store(1, Relaxed);
        Ok(())
    }

    /// With the consumers' lock: takes the lock of a free slot; `None` if all are in use.
    fn claim(self) -> Result<Option<usize>, Refusal> {
        thread_local! {
            static LAST: Cell<usize> = const { Cell::new(0) };
        }
        let used = self.used();
        let last = LAST.get();
        for slot in (last < used).then_some(last).into_iter().chain(0..used) {
            let lock = self.slot(slot);
            if self.state(slot) != FREE || lock.is_held() {
                continue;
            }
            // SAFETY: as in `lease_again`.
            if unsafe { lock.take_watched() }.map_err(Refusal::Lock)?.is_some() {
                LAST.set(slot);
                return Ok(Some(slot));
            }
        }
        if used == MOST_OUT {
            return Ok(None);
        }
        self.leases().used.fetch_add(1, SeqCst);
        // Those who sleep do not watch this one. CRASH: counted, and nobody told: whoever takes the consumers' lock next tells them.
        self.tell_everybody();
        LAST.set(used);
        // SAFETY: as above.
        let taken = unsafe { self.slot(used).take_watched() }.map_err(Refusal::Lock)?;
        Ok(taken.map(|_| used))
    }

    /// With the slot's lock, and `FREE`: the job's bytes, and how often it was handed out.
    fn fill_slot(self, slot: usize, message: &[u8], deliveries: u32) -> Result<(), Refusal> {
        let (words, filled) = (copy::words(message.len()), self.slot_words(slot));
        if words > self.memory.area_words() {
            return Err(Refusal::Corrupt);
        }
        if words > filled {
            let wanted = words.next_multiple_of(STEP).min(self.memory.area_words());
            self.memory.populate_area(slot, half(filled)..half(wanted)).map_err(|_| Refusal::NoSpace)?;
            // CRASH: memory, not noted: once more.
            self.leases().notes[slot].filled.store(half(wanted), Relaxed);
        }
        self.memory.write(slot, message);
        let lock = self.slot(slot);
        lock.beside[LENGTH].store(message.len() as u64, Relaxed);
        lock.beside[DELIVERIES].store(u64::from(deliveries), Relaxed);
        Ok(())
    }

    fn slot_words(self, slot: usize) -> usize {
        (self.leases().notes[slot].filled.load(Relaxed) as usize).min(self.memory.area_words())
    }

    /// With the slot's lock: gives back what a long job has needed.
    fn shrink(self, slot: usize) {
        let filled = &self.leases().notes[slot].filled;
        let words = filled.load(Relaxed);
        if words > KEPT {
            // CRASH: noted as gone before it goes, so nobody counts on it.
            filled.store(KEPT, Relaxed);
            self.memory.give_back_area(slot, KEPT..words);
        }
    }

    /// With the consumers' lock, whose last owner has died: what became of the slot that it was about to fill or to empty.
    #[cold]
    fn recover_leases(self) {
        let morgue = self.memory.morgue();
        let dead = View { memory: &morgue };
        if self.leases().morgue.load(Relaxed) != 0 {
            dead.recover();
        }
        let head = Place::load(self.consumer(HEAD)).count;
        let (first, next) = (Place::load(dead.consumer(HEAD)).count, Place::load(dead.producer(TAIL)).count);
        for slot in 0..self.used() {
            let state = self.state(slot);
            let number = high(state);
            let now = match state & 0xffff_ffff {
                TAKING => {
                    if number == head {
                        FREE
                    } else {
                        OUT
                    }
                }
                REVIVING => {
                    if number == first {
                        FREE
                    } else {
                        OUT
                    }
                }
                BURYING => {
                    if number == next {
                        OUT
                    } else {
                        FREE
                    }
                }
                _ => continue,
            };
            // CRASH: as often as need be: nothing that this depends on moves before the lock is given back.
            self.set_state(slot, now);
        }
        self.tell_everybody();
    }

    /// Everybody who sleeps here looks again.
    fn tell_everybody(self) {
        if self.ring().producers.has_sleepers() {
            self.ring().producers.wake_all_sleepers();
        }
        if self.leases().joiners.has_sleepers() {
            self.leases().joiners.wake_all();
        }
    }

    /// A slot is free again: tells those who wait for that.
    fn tell_done(self) {
        let leases = self.leases();
        if leases.joiners.has_sleepers() && self.is_finished() {
            leases.joiners.wake_all();
        }
        let starved = leases.starved.load(SeqCst) != 0;
        if starved {
            leases.starved.store(0, SeqCst);
        }
        if starved || (leases.closing.load(SeqCst) != 0 && !self.has_data()) {
            self.ring().producers.wake_all_sleepers();
        }
    }

    /// Woken, perhaps by a death, and perhaps by one that others wait to hear of: what it may have left untold is told again. Only what is final, or those who are woken would wake each other for ever.
    fn retell_jobs(self) {
        self.retell();
        if (self.leases().joiners.has_sleepers() || self.is_closed()) && self.is_finished() {
            self.leases().joiners.wake_all();
            if self.is_closed() {
                self.ring().producers.wake_all_sleepers();
            }
        }
    }

    /// Of one who joins: it takes no job, so the wake of a death was another's.
    fn pass_on_job(self) {
        self.retell_jobs();
        if self.ring().producers.has_sleepers() && self.has_job() {
            self.ring().producers.wake_one_sleeper();
        }
    }

    fn leave_consumers_of_jobs(self) {
        self.ring().consumers.leave(&self.ring().producers, || self.has_job(), || self.is_roomy());
    }

    /// Without a lock: whether there is something to lease, and a slot for it.
    fn has_job(self) -> bool {
        (self.has_data() && self.has_slot()) || (0..self.used()).any(|slot| self.is_back(slot))
    }

    fn has_slot(self) -> bool {
        self.used() < MOST_OUT || (0..self.used()).any(|slot| !self.slot(slot).is_held_now() && self.state(slot) == FREE)
    }

    /// Whether all that was put is done; see the head of this file.
    fn is_finished(self) -> bool {
        let head = self.consumer(HEAD).load(SeqCst);
        let is_empty = || self.log().at(Place::from(head).position).load(SeqCst) == 0;
        is_empty() && (0..self.used()).all(|slot| self.is_free(slot)) && self.consumer(HEAD).load(SeqCst) == head && is_empty()
    }

    /// Whether there is no job in this slot, read in one order with what its holder does next.
    fn is_free(self, slot: usize) -> bool {
        // ORDER: the lock's word first, SeqCst: either this sees that the holder has released it, and with that its `FREE`, or the holder, who looks for those who wait after the release, sees us.
        let _ = self.slot(slot).is_held_now();
        self.state(slot) == FREE
    }

    /// Whether nothing will ever come: closed, nothing in the log, and what is out is out with this thread.
    fn is_over(self) -> bool {
        self.is_closed()
            && !self.has_data()
            && (0..self.used()).all(|slot| self.slot(slot).is_held_by_this_thread() || self.state(slot) == FREE)
            && !self.has_data()
    }

    #[cold]
    #[inline(never)]
    fn wait_for_job(self, wait: &mut Wait, pause: u32, head: Place, deadline: Deadline) -> Result<(), Refusal> {
        if self.is_over() {
            return Err(Refusal::Closed);
        }
        if deadline == Deadline::NOW {
            return Err(Refusal::TimedOut);
        }
        let moved = || self.log().at(head.position).load(SeqCst) != 0 || self.consumer(HEAD).load(Relaxed) != head.word();
        if pause != 0 && wait.may_spin() {
            let partner = if head.count == 0 { NO_CPU } else { Place::from(self.consumer(CPUS).load(Relaxed)).count };
            if spin(partner, pause, EAGER, moved) {
                return Ok(());
            }
        }
        let leases = self.leases();
        let how = Sleep { watched: &leases.slots[..self.used()], ..wait.sleep(deadline) };
        let ready = || self.has_job() || self.is_over();
        let awake = self.ring().producers.sleep(&self.ring().consumers, how, ready, || self.retell_jobs());
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    /// Who polls never sleeps, and must look for those whose death the kernel has missed now and then.
    #[cold]
    fn poll_for_the_dead(self) {
        thread_local! {
            static POLLED: Cell<u32> = const { Cell::new(0) };
        }
        POLLED.set(POLLED.get().wrapping_add(1));
        if POLLED.get().is_multiple_of(POLLS) {
            for slot in 0..self.used() {
                bury(self.slot(slot));
            }
        }
    }
}

/// A letter as it lies in the dead letters' log: deliveries and how it came back, who had it last, the job.
fn written(letter: &Letter, message: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD + message.len());
    let first = u64::from(letter.deliveries) | u64::from(letter.last.died) << 32;
    record.extend_from_slice(&first.to_ne_bytes());
    record.extend_from_slice(&letter.last.holder.to_ne_bytes());
    record.extend_from_slice(message);
    record
}

/// With the consumers' lock of the queue: the dead letter at this place, and where the next one is.
fn read_letter<D: Memory>(dead: View<'_, D>, place: Place) -> Result<Option<(Letter, Place)>, Refusal> {
    let mut record = Vec::new();
    loop {
        match dead.take(place, &mut record)? {
            (Found::Taken, next) => {
                let (first, holder, message) = parts(&record).ok_or(Refusal::Corrupt)?;
                let last = Last { holder, died: high(first) != 0 };
                return Ok(Some((Letter { deliveries: word(first), last, message: message.to_vec() }, next)));
            }
            (Found::Longer(length), _) => record.try_reserve(length).map_err(|_| Refusal::NoMemory(length))?,
            (Found::Nothing, _) => return Ok(None),
        }
    }
}

fn parts(record: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (first, rest) = record.split_first_chunk()?;
    let (second, message) = rest.split_first_chunk()?;
    Some((u64::from_ne_bytes(*first), u64::from_ne_bytes(*second), message))
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn word(word: u64) -> u32 {
    word as u32
}

fn high(whole: u64) -> u32 {
    word(whole >> 32)
}

/// Words of an area, which has fewer than 2^32.
fn half(words: usize) -> u32 {
    u32::try_from(words).unwrap_or(u32::MAX)
}
