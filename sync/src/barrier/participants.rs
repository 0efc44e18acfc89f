//! The participants of a barrier: how they take part in a round.
//!
//! # Words
//!
//! One 64-bit word is the state. Its high half is the **round**, which moves at each end of a round, and is
//! the futex word of the participants that wait. Its low half:
//!
//! | Bits | Content |
//! |---|---|
//! | 0..7 | how many participants have arrived in this round |
//! | 8 | broken: no thread can arrive until a reset |
//! | 9 | flips at each release (note 1) |
//! | 10 | a participant may sleep |
//!
//! 1. So a participant of a round can tell its release from a break.
//!
//! | From | To | By |
//! |---|---|---|
//! | `n` arrived, `n + 1 < parties` | `n + 1` arrived | a participant that arrives |
//! | `parties - 1` arrived | `parties` arrived: the action runs | the last participant (note 2) |
//! | `parties` arrived | round + 1, none arrived, bit 9 flipped: **released** | the last participant, after the action |
//! | any, not broken | round + 1, none arrived, **broken** | note 3 |
//! | broken, or any arrived | round + 1, none arrived | reset |
//!
//! 2. If it finds no dead participant.
//! 3. A time-out, an abort, a panic in the action, or a thread that finds a dead participant.
//!
//! Each transition is one compare-and-swap of the whole word. It is the commit: all or nothing, whichever
//! process dies at that instant.
//!
//! Every participant holds one of `parties` robust locks, from before it arrives until it has left. In the
//! lock's words it notes which thread it is, then its round. A round is broken by a lock whose owner died if
//! the current round is noted there. It is also broken by a lock whose owner is not the thread that noted the
//! round: that thread has died, and the lock's new owner is about to break the round.
//!
//! A thread that changes the state without a participant's lock (abort, reset) holds one more lock, the
//! **control lock**, so that its death is noticed as well.
//!
//! # Why no wake-up is lost
//!
//! A participant that is about to sleep sets bit 10, in a compare-and-swap of the word that a release or
//! break must change. So one of the two comes first, and the other thread sees it. It sleeps on the round, on
//! every other participant's lock and on the control lock.
//!
//! A thread that is killed after its compare-and-swap, and before it has woken the others, holds such a lock.
//! The kernel wakes one sleeping watcher, any of them. That may be a participant that came later, and whose
//! round goes on. So each participant that has slept, or was about to, does the following for each lock that
//! a dead owner has left:
//!
//! 1. It breaks the round that is noted there, if that is still the current one.
//! 2. It wakes *all* sleeping participants.
//! 3. It acknowledges the death, so that it is reported once.
//!
//! Only then does it look at its own round. If it is killed, it holds a lock as well, and another participant
//! finds the same. A thread that takes the lock of a dead participant for itself does the same.
//!
//! The participants' locks are on the kernel's robust list throughout: nothing depends on the one pending
//! entry of a thread. `models/src/barrier.rs` checks the protocol; the model has found what is said here of
//! later rounds and of new owners.
//!
//! # Why a slow participant knows its verdict
//!
//! While a participant holds its lock, only `parties - 1` other threads can take part. So no *later* round
//! than its own can be released. If bit 9 has flipped since it arrived, its own round was released. If not,
//! its round was broken or reset, however often after. For the same reason a fast participant cannot lap a
//! slow one.
//!
//! # More threads than participants
//!
//! If there are more threads than `parties`, or a death is not found yet, a thread finds no free lock. It
//! looks again every 5 ms, and whenever a participant leaves.
#![allow(unsafe_code, reason = "locks whose mapping the handle keeps")]

use std::cell::Cell;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Acquired, BRIEF, Deadline, DeathWatch, EAGER, NO_CPU, spin, this_cpu};

use super::Broken;
use super::block::{BROKEN, Participants, RELEASE_PARITY, arrived, broken, noted, released, round, words};

/// A participant's lock, held by this thread until dropped.
struct HeldLock<'a> {
    participants: Participants<'a>,
    at: usize,
}

/// What a participant has learnt when it arrived.
struct Arrival {
    index: usize,
    state: u64,
}

impl<'a> Participants<'a> {
    /// Takes part in a round; returns this participant's number in the order of arrival.
    pub(super) fn wait(self, deadline: Deadline, action: impl FnOnce()) -> Result<usize, Broken> {
        let held = self.take_lock(deadline)?;
        let arrival = self.arrive(&held)?;
        let outcome = if arrival.index + 1 == self.len() {
            self.release_round(&arrival, action)
        } else {
            self.await_release(&held, &arrival, deadline)
        };
        // CRASH: the verdict is in the state: from here on a death breaks no round.
        drop(held);
        outcome.map(|()| arrival.index)
    }

    /// Takes a participant's lock: the one that this thread had last, or any other.
    fn take_lock(self, deadline: Deadline) -> Result<HeldLock<'a>, Broken> {
        thread_local! {
            /// Which barrier and lock this thread had last, so that threads that come again find the same
            /// neighbours.
            static LAST: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
        }
        let barrier = std::ptr::from_ref(self.block).addr();
        let mut attempt = 0_u32;
        loop {
            attempt = attempt.wrapping_add(1);
            let state = self.block.state.load(SeqCst);
            if state & BROKEN != 0 {
                return Err(self.cause_of_end(round(state).wrapping_sub(1)));
            }
            let (known, last) = LAST.get();
            let first = if known == barrier { last } else { arrived(state) };
            for at in (0..self.len()).map(|step| (first + step) % self.len()) {
                if self.participant_locks[at].is_held_by_this_thread() {
                    return Err(AcquireError::AlreadyHeld.into());
                }
                if !self.participant_locks[at].is_held() && self.take_lock_at(at, Deadline::NOW)? {
                    LAST.set((barrier, at));
                    return Ok(HeldLock { participants: self, at });
                }
            }
            if deadline.has_passed() {
                let _control = self.take_control_lock();
                self.end_round(|now| (round(now) == round(state) && now & BROKEN == 0).then(|| broken(now)));
                return Err(Broken::TimedOut);
            }
            self.block.waiting_for_lock.fetch_add(1, SeqCst);
            self.block.lock_freed.wait_until(deadline.within(BRIEF), || {
                self.block.state.load(SeqCst) != state
                    || self.participant_locks.iter().any(|lock| !lock.is_held())
            });
            self.block.waiting_for_lock.fetch_sub(1, SeqCst);
            // The liveness poll: a lock whose owner's death the kernel missed is given back by no other
            // thread.
            let missed = |at: &usize| {
                attempt.is_multiple_of(128) && self.participant_locks[*at].missed_death().is_some()
            };
            for at in (0..self.len()).filter(missed) {
                if self.take_lock_at(at, Deadline::after(Duration::from_millis(1)))? {
                    return Ok(HeldLock { participants: self, at });
                }
            }
        }
    }

    /// Takes this participant's lock. If its owner died, does what the owner may have left undone.
    fn take_lock_at(self, at: usize, deadline: Deadline) -> Result<bool, Broken> {
        let lock = &self.participant_locks[at];
        // SAFETY: the lock is in the mapping that the handle keeps, and is released before `wait` returns.
        let death = match unsafe { lock.acquire(deadline) } {
            Ok(Acquired::Clean) => return Ok(true),
            Ok(Acquired::OwnerDied(death)) => death,
            Err(AcquireError::TimedOut) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // CRASH: the dead owner's round is still noted in the lock's words: if this thread dies as well, the
        // next one finds the same.
        self.break_noted_round(words(lock).in_round.load(SeqCst), death);
        // The dead owner may have ended a round and woken no participant.
        DeathWatch::wake_all(&self.block.state);
        Ok(true)
    }

    fn arrive(self, held: &HeldLock<'_>) -> Result<Arrival, Broken> {
        let lock = &self.participant_locks[held.at];
        let words = words(lock);
        // Before the round, so that a thread that finds the round finds whose it is.
        let me = lock.owner().map_or(0, |me| u64::from(me.pid.unwrap_or(0)) << 32 | u64::from(me.tid));
        words.noted_by.store(me, SeqCst);
        words.cpu.store(u64::from(this_cpu()) + 1, Relaxed);
        let mut state = self.block.state.load(SeqCst);
        loop {
            if state & BROKEN != 0 {
                return Err(self.cause_of_end(round(state).wrapping_sub(1)));
            }
            let note_round = || words.in_round.store(noted(round(state)), SeqCst);
            if !is_planted(Bug::CountedBeforeSigned) {
                note_round();
            }
            // CRASH: noted, not counted: for the others it is a participant that died, though it had not
            // quite arrived.
            if arrived(state) + 1 >= self.len() {
                // The last participant looks whether the others live.
                self.break_if_dead(round(state));
                let now = self.block.state.load(SeqCst);
                if now != state {
                    state = now;
                    continue;
                }
            }
            match self.block.state.compare_exchange(state, state + 1, SeqCst, SeqCst) {
                Ok(_) => {
                    if is_planted(Bug::CountedBeforeSigned) {
                        note_round();
                    }
                    return Ok(Arrival { index: arrived(state), state });
                }
                Err(now) => state = now,
            }
        }
    }

    /// Runs the action and releases all participants. For the last one to arrive.
    fn release_round(self, arrival: &Arrival, action: impl FnOnce()) -> Result<(), Broken> {
        struct BreakOnPanic<'a>(Participants<'a>, u32);
        impl Drop for BreakOnPanic<'_> {
            fn drop(&mut self) {
                self.0.end_round(|state| {
                    (round(state) == self.1 && state & BROKEN == 0).then(|| broken(state))
                });
            }
        }
        let mine = round(arrival.state);
        // CRASH: all have arrived, none is released: the lock of this thread breaks the round.
        let on_panic = BreakOnPanic(self, mine);
        action();
        std::mem::forget(on_panic);
        // CRASH: after this the round is over for every participant; this thread's lock wakes those that
        // sleep.
        let is_released = self.end_round(|state| (round(state) == mine).then(|| released(state)));
        if is_released { Ok(()) } else { Err(self.cause_of_end(mine)) }
    }

    fn await_release(self, held: &HeldLock<'_>, arrival: &Arrival, deadline: Deadline) -> Result<(), Broken> {
        let mine = round(arrival.state);
        let over = || round(self.block.state.load(SeqCst)) != mine;
        let mut timed_out = false;
        if deadline == Deadline::NOW || !spin(self.cpu_of_absent(held.at, mine), 1, EAGER, over) {
            let mut slept = false;
            while !over() {
                if deadline.has_passed() {
                    timed_out = self.end_round(|state| {
                        (round(state) == mine && state & BROKEN == 0).then(|| broken(state))
                    });
                    continue;
                }
                if !self.register_waiter(mine) {
                    continue;
                }
                if slept {
                    self.break_if_missed_death(mine);
                }
                // CRASH: asleep, or woken: this thread's lock wakes another participant.
                let mut watch = DeathWatch::new();
                if !watch.mark_and_watch(self.locks) && !over() && !self.break_if_dead(mine) {
                    watch.watch_count(&self.block.state, mine);
                    watch.wait(deadline);
                }
                slept = true;
                self.acknowledge_deaths();
            }
        }
        if (self.block.state.load(SeqCst) ^ arrival.state) & RELEASE_PARITY != 0 {
            return Ok(());
        }
        Err(if timed_out { Broken::TimedOut } else { self.cause_of_end(mine) })
    }

    /// Returns the CPU of a participant that has not come yet: this thread's own CPU if any of them was seen
    /// there.
    fn cpu_of_absent(self, mine: usize, round: u32) -> u32 {
        let here = u64::from(this_cpu()) + 1;
        let others = self.participant_locks.iter().enumerate().filter(|(at, _)| *at != mine);
        let absent =
            others.map(|(_, lock)| words(lock)).filter(|words| words.in_round.load(SeqCst) != noted(round));
        let seen = absent.map(|words| words.cpu.load(Relaxed)).filter(|cpu| *cpu != 0);
        let known = seen.reduce(|one, other| if one == here { one } else { other });
        known.and_then(|cpu| u32::try_from(cpu - 1).ok()).unwrap_or(NO_CPU)
    }
}

impl Drop for HeldLock<'_> {
    fn drop(&mut self) {
        // As with a claim, `W` stays and no watcher is woken: only a death concerns them.
        self.participants.participant_locks[self.at].release_claim(|| (), || ());
        // CRASH: free, and no thread notified: threads that wait for a lock look again within 5 ms.
        if self.participants.block.waiting_for_lock.load(SeqCst) != 0 {
            self.participants.block.lock_freed.wake_all();
        }
    }
}
