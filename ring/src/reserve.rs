//! Reservations: records that are filled without a lock.
//!
//! # What a reservation is
//!
//! A record at the tail, appended like any other, whose header says `Reserved`: its length, and the *mark* of
//! the producer that fills it. The mark is the number of one of [`MAX_RESERVATIONS`] claims,
//! [claimed](RobustLock::claim) by that producer, and the claim's *generation* (the first word that the claim
//! guards). So the record has its place in the order, and counts against the capacity, before anything is in
//! it. The claims lie in the [side table](crate::words::SideTable).
//!
//! | header | claim of the mark | generation | the record is |
//! |---|---|---|---|
//! | `Message` | any | any | a message like others |
//! | `Reserved` | held | the mark's | being filled: for a consumer, nothing yet |
//! | `Reserved` | free, or its owner died | the mark's | aborted: its producer has died |
//! | `Reserved` | any | another | aborted: given up, or its producer has died [1] |
//!
//! 1. If the producer has died, the claim belongs to another reservation by now.
//!
//! The claim and the generation are read after the header, and the header once more after them. It may have
//! become a message in between; if it has not by then, it never will.
//!
//! # Who moves what
//!
//! - **reserve**, holding the producers' lock: take a free claim; its generation + 1; append the record.
//! - **fill**, holding that claim: words of the payload. No other thread touches them: the head stays before
//!   the record, so the words are neither used again nor given back.
//! - **commit**: the header becomes that of a message (the commit); the claim is released; waiting threads
//!   are notified.
//! - **give up**: the generation + 1 (the commit); the rest as above.
//! - **get**, holding the consumers' lock, finding an aborted record: the head moves over it, and it is
//!   counted as if it had been taken.
//!
//! # What a death leaves
//!
//! | killed | what is there | repaired by |
//! |---|---|---|
//! | in `reserve`, before the header | nothing; a claim that the kernel frees | nothing to repair |
//! | in `reserve`, between header and `tail` | an aborted record that `tail` does not count | the next producer, as after any put |
//! | while it fills | an aborted record | the consumer that gets next [2] |
//! | in `commit`, after the header | a message; waiting threads perhaps not notified | one that the kernel wakes [3] |
//! | in `give up`, after the generation | an aborted record; the same | the same |
//! | in `reserve` without room, releasing the claim | a free claim | as after any put: it holds the producers' lock |
//! | in the first `reserve` with a claim [4] | a free claim | the next owner of the producers' lock |
//!
//! 2. All threads that are parked for messages or for a claim watch all claims that were ever used. The
//!    kernel wakes one of them; the consumer that gets next moves the head over the record.
//! 3. The claim is still held, or the pending entry names it.
//! 4. The claim is noted as used, but parked threads, which do not watch it yet, are not notified. The thread
//!    that takes over the producers' lock notifies them, before any thread can reserve.
//!
//! A producer that is *stopped* keeps its reservation, and what comes behind it waits: the order is kept.
//!
//! # Why no wake-up is lost
//!
//! As with the leases of jobs (`lease.rs`): a thread that is about to sleep notes all these claims, then
//! looks; and what it compares last is the epoch of the producers' side. A thread that takes or releases a
//! claim [advances](multiproc_robust::Side::advance) that epoch, so a claim that was taken and freed in
//! between, and looks the same, is found out. (For a consumer this is more than is needed: a claim is taken
//! only with the producers' lock, and taking that lock advances the epoch, too. A thread that waits for a
//! free claim compares another word last, and needs it.)
//!
//! Between the taking of a dead owner's claim and its new generation, an aborted record looks as if it were
//! being filled. The thread that takes the claim holds the producers' lock, and wakes a consumer that parked
//! because of that when it leaves. If it dies before, the kernel wakes a watcher of the producers' lock.
//!
//! A put behind a reservation wakes a consumer that finds nothing and parks again. So the consumer that takes
//! the reserved message, or moves the head over an aborted record, passes the wake-up on, as every get does.
//!
//! A thread that waits for a free claim is a third kind of waiter. It has a word of its own (`waiters`), and
//! passes on the wake-ups of the kernel that it gets.
//!
//! Members park also when all producers have disconnected, as long as a record is being filled. The producer
//! that fills it notifies all. If that producer has died, the kernel wakes one thread. That thread may be no
//! member, and another may have skipped the aborted record already. It notifies all the same; and where
//! nothing is there any more, once for each head (`end_notified`), or threads that are no members would wake
//! each other for ever.
//!
//! # Why no thread is kept awake
//!
//! A queue may be full although no consumer can get: its first record is still being filled. Then threads are
//! parked on both sides, and each that wakes, looks and leaves would wake one of the other side, for ever. So
//! a thread without progress, and a thread that passes on what may have been a dead thread's wake-up, first
//! looks whether there is new work for the other side
//! ([`leave_without_progress`](multiproc_robust::Side::leave_without_progress)).
//!
//! *Modelled* (`models/src/reservation.rs`). The last two sections were otherwise before the model was there
//! (`ci/models.sh --deep NonMemberForgets`; `ci/models.sh NoProgressWakes`, `ci/models.sh PassesOnAlways`).
#![allow(unsafe_code, reason = "takes claims, whose mapping the handle keeps")]

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use multiproc_robust::{Acquired, Deadline, Park, RobustLock, Waiter, low, this_cpu};
use multiproc_shm::copy;

use crate::guard::ProducerEnd;
use crate::header::{Header, Mark};
use crate::log::Log;
use crate::memory::Memory;
use crate::notify::has_free;
use crate::payload::Payload;
use crate::presence::{generation_of, raise_used};
use crate::record::{Appended, Content};
use crate::view::{Refusal, View};
use crate::wait::{Wait, mark_dead_owners_now_and_then};

/// A record in the log that this thread fills.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    /// The number of its claim.
    claim: usize,
    /// Of its header.
    position: u32,
    length: u32,
}

/// A record of which only the header is written.
#[derive(Clone, Copy)]
struct Blank {
    length: u32,
    mark: Mark,
}

impl Content for Blank {
    fn length(self) -> usize {
        self.length as usize
    }

    fn header(self) -> u64 {
        Header::Reserved { length: self.length, mark: self.mark }.word()
    }

    /// The bytes that fill up the last word are zeros.
    #[allow(clippy::cast_possible_truncation, reason = "`reserve` found it short enough")]
    fn write(self, log: Log<'_>, position: u32) {
        if let Some(last) = copy::words(self.length as usize).checked_sub(1) {
            log.at(position.wrapping_add(last as u32)).store(0, Relaxed);
        }
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// Reserves the next record for a message of `length` bytes.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn reserve(self, length: usize, deadline: Deadline) -> Result<Reservation, Refusal> {
        let need = self.words_for_length(length)?;
        let length = u32::try_from(length).map_err(|_| Refusal::TooLarge)?;
        let mut wait = Wait::default();
        loop {
            let guard = self.enter_producers(deadline)?;
            let begun = guard.end().begin(length);
            let mut done = Ok(Appended::NoRoom);
            if let Ok(Some((claim, blank))) = begun {
                done = guard.end().append(blank, need, || wait.may_grow || deadline == Deadline::NOW);
                if done == Ok(Appended::Yes) {
                    let position = self.tail().position.wrapping_sub(need);
                    guard.leave();
                    return Ok(Reservation { claim, position, length });
                }
                // CRASH: a claim that no mark names: no consumer needs to hear of it.
                self.release(claim, |_| (), || ());
                guard.end().pass_on_room();
            }
            guard.leave_without_progress();
            match begun? {
                Some(_) => self.wait_to_append(done?, &mut wait, need, None, deadline)?,
                None => self.wait_for_claim(deadline)?,
            }
        }
    }

    /// Returns where the payload goes, if this thread may write it: not in a forked child.
    pub fn payload_of(self, reservation: Reservation) -> Option<Payload<'a>> {
        let Reservation { claim, position, length } = reservation;
        let mine = self.reservations().get(claim).is_some_and(RobustLock::is_held_by_this_thread);
        mine.then(|| Payload::new(self.log(), position.wrapping_add(1), length as usize))
    }

    /// Makes a message of it. False, and nothing done, if it is not this thread's.
    pub fn commit(self, reservation: Reservation) -> bool {
        let Reservation { claim, position, length } = reservation;
        let header = Header::Message { length, cpu: this_cpu() }.word();
        // ORDER: SeqCst, hence Release, pairs with the Acquire in `take`; and either a parking consumer's
        // look sees it, or this thread sees that consumer.
        // CRASH: the commit: before it an aborted record, after it the whole message.
        self.release(claim, |_| self.log().at(position).store(header, SeqCst), || self.notify_consumers())
    }

    /// Leaves an aborted record. False, and nothing done, if it is not this thread's.
    pub fn give_up(self, reservation: Reservation) -> bool {
        let commit = |claim: &RobustLock| {
            let generation = generation_of(claim);
            // ORDER: SeqCst, hence Release, pairs with the load in `is_being_filled`.
            // CRASH: the commit; before it, the record is aborted by the claim alone.
            generation.store(generation.load(Relaxed).wrapping_add(1), SeqCst);
        };
        self.release(reservation.claim, commit, || self.notify_consumers())
    }

    fn release(self, claim: usize, commit: impl FnOnce(&RobustLock), notify: impl FnOnce()) -> bool {
        let (Some(claim), Some(waiters)) = (self.reservations().get(claim), self.claim_waiters()) else {
            return false;
        };
        let last = || {
            commit(claim);
            // A thread that is about to sleep may have noted the claim as it will be: see the head of this
            // file.
            self.producers().advance();
            waiters.advance();
        };
        // CRASH: while it notifies, its pending entry still names the claim: the kernel wakes a watcher,
        // which notifies the others (`notify_again`).
        claim.release_claim(last, || {
            notify();
            if waiters.has_waiters() {
                waiters.wake_all();
            }
        })
    }

    fn notify_consumers(self) {
        if self.producers().has_waiters() {
            if self.is_ending() {
                // For the members for which this was all that could still come.
                self.producers().notify_all();
            } else {
                self.producers().notify_one();
            }
        }
    }

    #[cold]
    fn wait_for_claim(self, deadline: Deadline) -> Result<(), Refusal> {
        let all = self.reservations().used();
        // (None of them is used, if a peer lies.)
        let all_mine = all.iter().all(RobustLock::is_held_by_this_thread);
        let Some(waiters) = self.claim_waiters().filter(|_| deadline != Deadline::NOW && !all_mine) else {
            mark_dead_owners_now_and_then([all, &[]]);
            return Err(Refusal::Busy);
        };
        let how = Park { watched: [all, &[]], event: Some(waiters), ..Park::new(false, deadline) };
        if self.producers().park(self.consumers(), how, &ForClaim(self)).map_err(Refusal::Lock)? {
            Ok(())
        } else {
            Err(Refusal::Busy)
        }
    }

    /// Writes rubbish to what a peer can write, but for the claims themselves.
    #[cfg(test)]
    pub(crate) fn scribble_on_reservation(self, number: usize, rubbish: u64) {
        if let Some(claim) = self.reservations().all().get(number) {
            generation_of(claim).store(rubbish, SeqCst);
        }
    }
}

impl<M: Memory> ProducerEnd<'_, M> {
    /// Takes a claim, and returns what the header is to say; `None` if all are taken.
    #[allow(clippy::cast_possible_truncation, reason = "a claim's number is small")]
    fn begin(self, length: u32) -> Result<Option<(usize, Blank)>, Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        self.populate_side_table().map_err(|_| Refusal::NoSpace)?;
        let claims = self.reservations();
        for (number, claim) in claims.all().iter().enumerate().filter(|(_, claim)| !claim.is_held_now()) {
            // SAFETY: the handle keeps the mapping, also while this thread holds a claim in it.
            let Some(how) = unsafe { claim.claim() }.map_err(Refusal::Lock)? else { continue };
            let generation = generation_of(claim).load(Relaxed).wrapping_add(1);
            // ORDER: Release pairs with the load in `is_being_filled`: a consumer that sees this generation
            // finds what the last holder has committed.
            generation_of(claim).store(generation, Release);
            self.producers().advance();
            if let (Acquired::OwnerDied(_), Some(waiters)) = (how, self.claim_waiters()) {
                // A thread that is about to sleep for a claim may have noted it as the dead owner left it,
                // and as it will be again if this process dies, too.
                waiters.advance();
            }
            if raise_used(claims, number + 1) {
                // Parked threads do not watch it.
                // CRASH: noted, but no thread is notified: `recover` notifies them.
                self.producers().notify_all();
            }
            return Ok(Some((number, Blank { length, mark: Mark::new(number as u32, low(generation)) })));
        }
        Ok(None)
    }
}

/// A producer that waits for a free claim.
struct ForClaim<'a, M>(View<'a, M>);

impl<M: Memory> Waiter for ForClaim<'_, M> {
    fn ready(&self) -> bool {
        has_free(self.0.reservations()) || self.0.is_closed()
    }

    fn news(&self) -> bool {
        self.0.has_room_for_some()
    }

    fn woken(&self) {
        self.0.notify_again(None);
        // It takes no message, so a death's wake-up was meant for another, too.
        if self.0.producers().has_waiters() && self.0.has_data() {
            self.0.producers().notify_one();
        }
    }
}
