//! Handing jobs out, and taking them back: done, or to be handed out again. The states are in `lease.rs`.

use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

use multiproc_ring::{Cursor, Found, Refusal, View, Wait};
use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Acquired, Deadline, high, low};
use multiproc_shm::copy;

use super::areas::{MAX_DELIVERIES, counted, deliveries_of};
use super::{FREE, FROM_LETTERS, JobEnd, JobView, LEASED, Last, Leased, Letter, TAKING, TO_LETTERS, claim};
use crate::jobs::block::Jobs;
use crate::jobs::words::MAX_LEASES;

/// At so many leases a busy get looks for jobs that came back; the next get looks at others. (Each may be
/// another processor's cache line.) A consumer that finds the log empty looks at all.
const LOOKS: u32 = 4;
/// Leases between two looks for an owner whose death the kernel missed.
const LEASES_PER_LOOK: u32 = 256;

/// What a consumer found with the lock held.
enum Outcome {
    Leased(Leased),
    /// The same, from the log, whose head is here now.
    New(Leased, Cursor),
    /// A message of this many bytes, for which the vector has too little room.
    Longer(usize),
    Nothing,
    /// A message, and no free lease.
    NoLease,
}

impl<M: Jobs> JobView<'_, M> {
    /// Leases a job to this thread: one that came back, or the oldest message. Its bytes replace those in
    /// `message`.
    pub(crate) fn lease(self, message: &mut Vec<u8>, deadline: Deadline) -> Result<Leased, Refusal> {
        if deadline == Deadline::NOW && !self.has_job() {
            self.mark_dead_owners_now_and_then();
            return Err(if self.is_over() { Refusal::Closed } else { Refusal::TimedOut });
        }
        // Not the loop of the ring's gets: this one repairs, leaves and waits by other rules.
        let mut wait = Wait::default();
        loop {
            let guard = self.enter(deadline)?;
            let head = self.head();
            message.clear();
            let outcome = guard.end().lease_one(head, message);
            let pause = if matches!(outcome, Ok(Outcome::Nothing)) {
                guard.end().ring_end().next_pause(head)
            } else {
                0
            };
            guard.leave(!matches!(outcome, Ok(Outcome::Nothing | Outcome::NoLease)));
            match outcome? {
                Outcome::Leased(leased) => return Ok(leased),
                Outcome::New(leased, next) => {
                    self.tidy(head, next);
                    return Ok(leased);
                }
                // Memory is fetched without the lock: an allocator is other people's code.
                Outcome::Longer(length) => {
                    message.try_reserve(length).map_err(|_| Refusal::NoMemory(length))?
                }
                Outcome::Nothing => self.wait_for_job(&mut wait, pause, head, deadline)?,
                Outcome::NoLease => self.wait_for_job(&mut wait, 0, head, deadline)?,
            }
        }
    }

    /// Notes that the job in this lease is done. False, and nothing done, if this thread does not hold it.
    pub(crate) fn finish(self, number: usize) -> bool {
        let commit = || {
            self.notes(number).taken.store(0, Relaxed);
            // A thread that is about to sleep may have noted this claim before the lease was filled, and
            // would find it unchanged once this thread has released it, and died: what that thread compares
            // last has advanced.
            self.leases().joiners.advance();
            self.ring().producers().advance();
            // ORDER: Release pairs with the load in `state`: a thread that reads the claim's word after its
            // release sees this, too.
            // CRASH: the commit: before it the job comes back.
            self.words(number).state.store(FREE, Release);
            // No thread fills the lease before this one has released the claim.
            self.shrink(number);
        };
        // CRASH: in `notify_done` the pending entry still names the claim: the kernel wakes a watcher, which
        // notifies the others.
        self.lock(number).release_claim(commit, || self.notify_done())
    }

    /// Gives the job in this lease back. False, and nothing done, if this thread does not hold it.
    pub(crate) fn give_back_job(self, number: usize) -> bool {
        let producers = self.ring().producers();
        let last = || {
            self.notes(number).taken.store(0, Relaxed);
            // As in `finish`.
            producers.advance();
        };
        self.lock(number).release_claim(last, || {
            if producers.has_waiters() {
                producers.notify_one();
            }
        })
    }
}

impl<M: Jobs> JobEnd<'_, M> {
    fn lease_one(self, head: Cursor, message: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        self.look_for_a_dead_owner();
        let looks = if self.is_empty_at(head.position) { u32::MAX } else { LOOKS };
        // Each round hands a job out, or makes a dead letter of it; only a hostile peer has more of them than
        // there are leases.
        for _ in 0..MAX_LEASES {
            let Some(number) = self.came_back(looks) else { break };
            match self.lease_again(number, message)? {
                Outcome::Nothing => message.clear(),
                outcome => return Ok(outcome),
            }
        }
        let next = match self.ring_end().take(head, message)? {
            (Found::Taken, next) => next,
            (Found::Longer(length), _) => return Ok(Outcome::Longer(length)),
            // There are no reservations here.
            (Found::Aborted, _) => return Err(Refusal::Corrupt),
            (Found::Nothing, _) => {
                // No consumer waits for a free lease where there is nothing to put in it.
                if self.leases().starved.load(Relaxed) != 0 {
                    self.leases().starved.store(0, SeqCst);
                }
                return Ok(Outcome::Nothing);
            }
        };
        let Some(number) = self.claim_free()? else { return Ok(Outcome::NoLease) };
        // CRASH: until `TAKING` the lease is free, though this thread had its claim.
        if let Err(refusal) = self.fill(number, message, 1) {
            self.give_back_job(number);
            return Err(refusal);
        }
        let taking =
            if is_planted(Bug::LeasedBeforeHead) { LEASED } else { TAKING | u64::from(head.count) << 32 };
        self.set_state(number, taking);
        // CRASH: the commit. Before it the message is in the log, after it in the lease; `recover_leases`
        // tells which.
        self.ring_end().move_head(next);
        self.set_state(number, LEASED);
        Ok(Outcome::New(Leased { number, deliveries: 1, last: None }, next))
    }

    /// A lease whose job came back.
    fn came_back(self, looks: u32) -> Option<usize> {
        let used = u32::try_from(self.used()).unwrap_or(0);
        // A division would take as long as the looks.
        let round = |number: u32| if number < used { number } else { number - used };
        // From another lease on each time: otherwise some would never be looked at.
        let start = Some(self.leases().next.load(Relaxed)).filter(|next| *next < used).unwrap_or(0);
        let found = (0..looks.min(used))
            .map(|look| round(start + look))
            .find(|number| self.is_back(*number as usize));
        if looks < used {
            self.leases().next.store(found.unwrap_or(round(start + looks)), Relaxed);
        }
        found.map(|number| number as usize)
    }

    /// Hands a job out once more, or makes a dead letter of it: `Nothing` then.
    fn lease_again(self, number: usize, message: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        let words = self.words(number);
        let before = words.deliveries.load(Relaxed);
        let deliveries = deliveries_of(before);
        let length = low(words.length.load(Relaxed)) as usize;
        if copy::words(length) > self.words_with_memory(number) {
            // A peer has scribbled over it: there is no such job.
            self.set_state(number, FREE);
            return Err(Refusal::Corrupt);
        }
        if message.capacity() < length {
            return Ok(Outcome::Longer(length));
        }
        let holder = self.lock(number).last_owner();
        let last = match claim(self.lock(number))? {
            None => return Ok(Outcome::Nothing),
            Some(Acquired::Clean) => Last { holder, died: false },
            Some(Acquired::OwnerDied(_)) => {
                // As in `finish`: if this thread dies like that holder, the claim looks as it did before.
                self.ring().producers().advance();
                Last { holder, died: true }
            }
        };
        // CRASH: as the death of its last holder, until the delivery is counted.
        self.notes(number).taken.store(0, Relaxed);
        self.memory.read(number, length, message);
        let most = self.memory.max_deliveries();
        if most != 0
            && deliveries >= most
            && self.make_dead_letter(number, message, &Letter { deliveries, last, message: Vec::new() })
        {
            return Ok(Outcome::Nothing);
        }
        let deliveries_now = (deliveries + 1).min(MAX_DELIVERIES);
        words.deliveries.store(counted(before, u64::from(deliveries != 0), deliveries_now), Relaxed);
        // A replayed dead letter has no history.
        let last = (deliveries_now > 1).then_some(last);
        Ok(Outcome::Leased(Leased { number, deliveries: deliveries_now, last }))
    }

    /// The last owner of the consumers' lock died: repairs the lease that it was about to fill or to empty.
    #[cold]
    pub(super) fn recover_leases(self) {
        let dead_letters = self.memory.dead_letters();
        let letters = View::new(&dead_letters);
        if self.has_letters() {
            letters.ends_guarded_elsewhere().0.recover();
        }
        let head = self.head().count;
        let (first, next) = (letters.head().count, letters.tail().count);
        for lease in 0..self.used() {
            let state = self.state(lease);
            let number = high(state);
            let is_leased = match u64::from(low(state)) {
                FREE | LEASED if number == 0 => continue,
                LEASED => true,
                TAKING => number != head,
                FROM_LETTERS => number != first,
                TO_LETTERS => number == next,
                // There is no such state.
                _ => false,
            };
            // CRASH: as often as need be: nothing that this depends on moves before the lock is released.
            self.set_state(lease, if is_leased { LEASED } else { FREE });
        }
        self.notify_everyone_of_jobs();
    }

    /// Consumers that always find something never park. So they look, now and then, for an owner whose death
    /// the kernel missed.
    fn look_for_a_dead_owner(self) {
        let number = self.leases().leased.load(Relaxed);
        self.leases().leased.store(number.wrapping_add(1), Relaxed);
        if number % LEASES_PER_LOOK == LEASES_PER_LOOK - 1 {
            self.mark_dead_owner_of(number / LEASES_PER_LOOK);
        }
    }

    #[cold]
    fn mark_dead_owner_of(self, turn: u32) {
        if let Some(number) = (turn as usize).checked_rem(self.used()) {
            self.lock(number).mark_dead_owner();
        }
    }
}
