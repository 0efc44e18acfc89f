//! Jobs: messages that are out with somebody, and come back when he dies.
//!
//! # Slots
//!
//! A job that is out lies in a *slot*: a [`RobustLock`] that whoever has the job holds, taken [watched](RobustLock::claim), three words beside it, and an area for the job's bytes. The first word is its state:
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
//! - **gave back**: `A` of the producers' side is moved, if somebody may sleep; the slot's lock is given back.
//! - **too often delivered**, holding the consumers' lock: the slot's lock; `BURYING`, n; append to the dead letters (the commit); `FREE`.
//! - **dead letters taken or brought back to life**: with the consumers' lock, too; of the locks of their own log only the producers' is ever taken, if it is to be had at once, to give memory back.
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
//! A slot's word is the same before a job was in it and after. One who noted it before, looked while the job was out, and compares it after it came back, would sleep beside it if whoever gave it back is killed before the wake. So who gives back,
//! and who takes a slot from the dead, first moves the word that consumers compare last (`A`), and who has done a job moves it, too, for those who wait for a slot, and the one that joiners compare last.
//!
//! "The last" is decided by: the log is empty at the head; each slot, its lock read before its state, is free; the log is still empty at the same head. The head has not moved, so nothing was put (a put that was taken moves it) and
//! nothing went from the log to a slot between the two looks; each slot's job was done when it was seen; so at the second look all was done.

#![allow(unsafe_code, reason = "takes slots, whose mapping the handle keeps")]

use std::ops::Deref;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Acquired, Deadline};
use multiproc_shm::copy;

use crate::jobs::block::{Jobs, MAX_LEASES};
use multiproc_ring::{Cursor, Found, HEAD, Refusal, TAIL, View, Wait};

mod areas;
mod dead_letters;
mod wait;

/// A queue of jobs as this process sees it: its ring, and the leases beside it.
pub(crate) struct JobView<'a, M>(View<'a, M>);

impl<'a, M: Jobs> JobView<'a, M> {
    #[inline(always)]
    pub(crate) fn new(memory: &'a M) -> Self {
        Self(View { memory })
    }
}

impl<M> Clone for JobView<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for JobView<'_, M> {}

impl<'a, M> Deref for JobView<'a, M> {
    type Target = View<'a, M>;

    #[inline(always)]
    fn deref(&self) -> &View<'a, M> {
        &self.0
    }
}

/// The words beside a slot's lock.
const STATE: usize = 0;
/// How often the job that is in the slot was handed out, in the low bits; above them, how often any job was handed out again from this slot. So one store counts both.
const DELIVERIES: usize = 1;
const LENGTH: usize = 2;
/// Where the second of these begins.
const AGAIN: u32 = 24;
const MOST_DELIVERIES: u32 = (1 << AGAIN) - 1;

/// States, in the low half; the number of a message in the high half.
const FREE: u64 = 0;
const OUT: u64 = 1;
const TAKING: u64 = 2;
const BURYING: u64 = 3;
const REVIVING: u64 = 4;

/// So many slots a busy get looks at for jobs that came back, others at the next. (Each may be another's cache line.) Who finds the log empty looks at all.
const LOOKS: u32 = 4;

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
    New(Leased, Cursor),
    /// A message of this many bytes, for which the vector has too little room.
    Longer(usize),
    Nothing,
    /// A message, and no slot for it.
    NoSlot,
}

impl<M: Jobs> JobView<'_, M> {
    /// Leases a job to this thread: one that came back, or the oldest message; its bytes replace those in `message`.
    pub(crate) fn lease(self, message: &mut Vec<u8>, deadline: Deadline) -> Result<Leased, Refusal> {
        if deadline == Deadline::NOW && !self.has_job() {
            self.poll_for_the_dead();
            return Err(if self.is_over() { Refusal::Closed } else { Refusal::TimedOut });
        }
        let mut wait = Wait::default();
        loop {
            self.enter(&self.ring().consumers, deadline, || self.recover_leases())?;
            let head = Cursor::load(self.consumer(HEAD));
            message.clear();
            let outcome = self.lease_one(head, message);
            let pause = if matches!(outcome, Ok(Outcome::Nothing)) { self.next_pause(head) } else { 0 };
            self.leave_consumers_of_jobs(matches!(outcome, Ok(Outcome::Nothing | Outcome::NoSlot)));
            match outcome? {
                Outcome::Leased(leased) => return Ok(leased),
                Outcome::New(leased, next) => {
                    self.tidy(head, next);
                    return Ok(leased);
                }
                // Memory is fetched without the lock: an allocator is somebody else's code.
                Outcome::Longer(length) => message.try_reserve(length).map_err(|_| Refusal::NoMemory(length))?,
                Outcome::Nothing => self.wait_for_job(&mut wait, pause, head, deadline)?,
                Outcome::NoSlot => self.wait_for_job(&mut wait, 0, head, deadline)?,
            }
        }
    }

    /// The job in this slot, which this thread holds, is done; false, and nothing done, when this thread does not hold it.
    pub(crate) fn finish(self, slot: usize) -> bool {
        let lock = self.slot(slot);
        let commit = || {
            self.leases().notes[slot].taken.store(0, Relaxed);
            // One who is about to sleep may have noted this slot before it was filled, and would find it unchanged once we have left it, and died: what it compares last is another one.
            self.leases().joiners.advance();
            self.ring().producers.advance();
            // ORDER: Release; who reads the lock's word after our release of it sees this too. CRASH: the commit: before it the job comes back.
            lock.guarded[STATE].store(FREE, Release);
            // Nobody fills the slot before we have given its lock back.
            self.shrink(slot);
        };
        // CRASH: in `tell_done` the slot is still named by our pending: one of those who watch it is woken, and tells.
        lock.release_claim(commit, || self.tell_done())
    }

    /// Gives the job in this slot back; false, and nothing done, when this thread does not hold it.
    pub(crate) fn give_back_job(self, slot: usize) -> bool {
        let producers = &self.ring().producers;
        let last = || {
            self.leases().notes[slot].taken.store(0, Relaxed);
            // One who is about to sleep may have noted this slot before it was ours, and would find it unchanged once we have left it, and died: what it compares last is another one.
            producers.advance();
        };
        self.slot(slot).release_claim(last, || {
            if producers.has_waiters() {
                producers.notify_one();
            }
        })
    }

    /// With the consumers' lock.
    fn lease_one(self, head: Cursor, message: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        self.look_for_one_of_the_dead();
        let looks = if self.log().at(head.position).load(SeqCst) == 0 { u32::MAX } else { LOOKS };
        // Each round hands one out or buries one; only a hostile peer has more of them than there are slots.
        for _ in 0..MAX_LEASES {
            let Some(slot) = self.came_back(looks) else { break };
            match self.lease_again(slot, message)? {
                Outcome::Nothing => message.clear(),
                outcome => return Ok(outcome),
            }
        }
        let next = match self.take(head, message)? {
            (Found::Taken, next) => next,
            (Found::Longer(length), _) => return Ok(Outcome::Longer(length)),
            // Nobody can reserve here.
            (Found::Hole, _) => return Err(Refusal::Corrupt),
            (Found::Nothing, _) => {
                // Nobody waits for a slot where there is nothing to put in it.
                if self.leases().starved.load(Relaxed) != 0 {
                    self.leases().starved.store(0, SeqCst);
                }
                return Ok(Outcome::Nothing);
            }
        };
        let Some(slot) = self.claim()? else { return Ok(Outcome::NoSlot) };
        // CRASH: until `TAKING` the slot is free, and its lock was ours.
        if let Err(refusal) = self.fill_slot(slot, message, 1) {
            self.give_back_job(slot);
            return Err(refusal);
        }
        let taking = if is_planted(Bug::LeasedBeforeHead) { OUT } else { TAKING | u64::from(head.count) << 32 };
        self.set_state(slot, taking);
        // CRASH: the commit. Before it the message is in the log; after it, in the slot; `recover_leases` tells which.
        self.move_head(next);
        self.set_state(slot, OUT);
        Ok(Outcome::New(Leased { slot, deliveries: 1, last: None }, next))
    }

    /// With the consumers' lock: a slot whose job came back.
    fn came_back(self, looks: u32) -> Option<usize> {
        let used = u32::try_from(self.used()).unwrap_or(0);
        // One of them, whatever is there: else some slot would never be looked at.
        // A division would take as long as the looks.
        let round = |slot: u32| if slot < used { slot } else { slot - used };
        let start = Some(self.leases().next.load(Relaxed)).filter(|next| *next < used).unwrap_or(0);
        let found = (0..looks.min(used)).map(|look| round(start + look)).find(|slot| self.is_back(*slot as usize));
        if looks < used {
            self.leases().next.store(found.unwrap_or(round(start + looks)), Relaxed);
        }
        found.map(|slot| slot as usize)
    }

    /// With the consumers' lock: hands a job out once more, or buries it; `Nothing` then.
    fn lease_again(self, slot: usize, message: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        let lock = self.slot(slot);
        let counted = lock.guarded[DELIVERIES].load(Relaxed);
        let deliveries = word(counted) & MOST_DELIVERIES;
        let length = word(lock.guarded[LENGTH].load(Relaxed)) as usize;
        if copy::words(length) > self.slot_words(slot) {
            // Somebody has scribbled over it: there is no such job.
            self.set_state(slot, FREE);
            return Err(Refusal::Corrupt);
        }
        if message.capacity() < length {
            return Ok(Outcome::Longer(length));
        }
        let holder = lock.last_owner();
        // SAFETY: the handle keeps the mapping, also while this thread holds a lock in it.
        let taken = unsafe { lock.claim() }.map_err(Refusal::Lock)?;
        let last = match taken {
            None => return Ok(Outcome::Nothing),
            Some(Acquired::Clean) => Last { holder, died: false },
            Some(Acquired::OwnerDied(_)) => {
                // As in `give_back_job`: should we die like that one, the slot looks as it did before.
                self.ring().producers.advance();
                Last { holder, died: true }
            }
        };
        // CRASH: as its last holder's death, until the delivery is counted.
        self.leases().notes[slot].taken.store(0, Relaxed);
        self.memory.read(slot, length, message);
        let most = self.memory.max_deliveries();
        if most != 0 && deliveries >= most && self.bury_job(slot, message, Letter { deliveries, last, message: Vec::new() }) {
            return Ok(Outcome::Nothing);
        }
        let again = (counted >> AGAIN) + u64::from(deliveries != 0);
        let deliveries = (deliveries + 1).min(MOST_DELIVERIES);
        lock.guarded[DELIVERIES].store(again << AGAIN | u64::from(deliveries), Relaxed);
        // A letter that was brought back to life has no history.
        let last = (deliveries > 1).then_some(last);
        Ok(Outcome::Leased(Leased { slot, deliveries, last }))
    }

    /// With the consumers' lock, whose last owner has died: what became of the slot that it was about to fill or to empty.
    #[cold]
    pub(super) fn recover_leases(self) {
        let morgue = self.memory.morgue();
        let dead = View { memory: &morgue };
        if self.leases().morgue.load(Relaxed) != 0 {
            dead.recover();
        }
        let head = Cursor::load(self.consumer(HEAD)).count;
        let (first, next) = (Cursor::load(dead.consumer(HEAD)).count, Cursor::load(dead.producer(TAIL)).count);
        for slot in 0..self.used() {
            let state = self.state(slot);
            let number = high(state);
            let is_out = match state & 0xffff_ffff {
                FREE | OUT if number == 0 => continue,
                OUT => true,
                TAKING => number != head,
                REVIVING => number != first,
                BURYING => number == next,
                // No such state.
                _ => false,
            };
            // CRASH: as often as need be: nothing that this depends on moves before the lock is given back.
            self.set_state(slot, if is_out { OUT } else { FREE });
        }
        self.tell_everybody();
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn word(word: u64) -> u32 {
    word as u32
}

fn high(whole: u64) -> u32 {
    word(whole >> 32)
}
