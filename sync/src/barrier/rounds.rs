//! How a round of a barrier ends: by a release, a break or a reset, and by deaths. The protocol is described
//! in `participants.rs`.
#![allow(unsafe_code, reason = "a lock whose mapping the handle keeps")]

use std::sync::atomic::Ordering::SeqCst;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Acquired, Deadline, Death, DeathWatch, RobustLock};

use super::Broken;
use super::block::{ARRIVED, BROKEN, MAY_SLEEP, Participants, broken, noted, reset, round, words};

impl<'a> Participants<'a> {
    pub(super) fn abort(self) {
        let _control = self.take_control_lock();
        self.end_round(|state| (state & BROKEN == 0).then(|| broken(state)));
    }

    pub(super) fn reset(self) {
        let _control = self.take_control_lock();
        self.end_round(|state| {
            // A participant that died before it was counted has noted its round: that round has to end.
            let used = state & (BROKEN | ARRIVED) != 0 || self.dead_participant(round(state)).is_some();
            used.then(|| reset(state))
        });
    }

    pub(super) fn is_broken(self) -> bool {
        let mut is_broken = false;
        // A round that ends during each of these looks is the work of a peer that writes nonsense.
        for _ in 0..1000 {
            let state = self.block.state.load(SeqCst);
            is_broken = state & BROKEN != 0 || self.dead_participant(round(state)).is_some();
            // Once a round is over, its participants leave and others take their locks, which looks like
            // deaths.
            if round(self.block.state.load(SeqCst)) == round(state) {
                break;
            }
        }
        is_broken
    }

    /// Moves the state to what `next` returns, and wakes the sleeping participants. Returns false if `next`
    /// returns `None`.
    pub(super) fn end_round(self, next: impl Fn(u64) -> Option<u64>) -> bool {
        let mut state = self.block.state.load(SeqCst);
        loop {
            let Some(changed) = next(state) else { return false };
            // ORDER: SeqCst pairs with `register_waiter`, and with the look of the participants that wait: a
            // participant that goes on sees what happened before.
            match self.block.state.compare_exchange(state, changed, SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // CRASH: changed, and no thread woken: the sleeping participants watch this thread's own lock, or the
        // control lock.
        if state & MAY_SLEEP != 0 {
            DeathWatch::wake_all(&self.block.state);
        }
        true
    }

    /// Notes that a participant may sleep; returns false if the round is over.
    pub(super) fn register_waiter(self, mine: u32) -> bool {
        let mut state = self.block.state.load(SeqCst);
        loop {
            if round(state) != mine || state & MAY_SLEEP != 0 {
                return round(state) == mine;
            }
            // ORDER: SeqCst pairs with `end_round`: one of the two comes first, and the other thread sees it.
            match self.block.state.compare_exchange(state, state | MAY_SLEEP, SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
    }

    /// Does, for each dead owner, what it may have left undone. For a participant that has slept: it may be
    /// the only one that the kernel woke, though the round of others is over and its own is not.
    pub(super) fn acknowledge_deaths(self) {
        for lock in self.locks {
            let in_round = || words(lock).in_round.load(SeqCst);
            lock.acknowledge_death(in_round, |death, in_round| {
                // CRASH: this thread's lock makes another participant do the same. (No round is noted in the
                // control lock's words.)
                self.break_noted_round(in_round, death);
                if !is_planted(Bug::DeathNotifiedToOne) {
                    DeathWatch::wake_all(&self.block.state);
                }
            });
        }
    }

    /// Breaks this round if one of its participants is dead; returns whether one is.
    pub(super) fn break_if_dead(self, mine: u32) -> bool {
        self.dead_participant(mine).map(|death| self.break_noted_round(noted(mine), death)).is_some()
    }

    /// Breaks this round if one of its participants died and the kernel missed it. For use after a sleep that
    /// the liveness poll may have ended.
    pub(super) fn break_if_missed_death(self, mine: u32) {
        let missed = self
            .participant_locks
            .iter()
            .filter(|lock| is_in_round(lock, mine))
            .find_map(RobustLock::missed_death);
        if let Some(death) = missed {
            self.break_noted_round(noted(mine), death);
        }
    }

    /// Returns the death of a participant of this round.
    fn dead_participant(self, mine: u32) -> Option<Death> {
        // The noted round first: a thread that takes the lock from a dead owner changes it last.
        self.participant_locks
            .iter()
            .filter(|lock| is_in_round(lock, mine))
            .find_map(|lock| lock.death().or_else(|| death_before_new_owner(lock)))
    }

    /// Breaks the round that is noted in the words of a dead owner's lock, if it is still the current one.
    pub(super) fn break_noted_round(self, in_round: u64, death: Death) {
        let state = self.block.state.load(SeqCst);
        if in_round != noted(round(state)) || state & BROKEN != 0 {
            return;
        }
        // Before the break, so that a thread that sees the break finds the cause. If another thread breaks
        // the round first, the cause is true all the same.
        let cause = u64::from(round(state)) << 32 | u64::from(death.pid().unwrap_or(0));
        self.block.cause.store(cause, SeqCst);
        self.end_round(|now| (round(now) == round(state) && now & BROKEN == 0).then(|| broken(now)));
    }

    /// Returns why the round `mine`, which was not released, has ended.
    pub(super) fn cause_of_end(self, mine: u32) -> Broken {
        let cause = self.block.cause.load(SeqCst);
        if cause != 0 && cause >> 32 == u64::from(mine) {
            return Broken::PartyDied(u32::try_from(cause & 0xffff_ffff).ok().filter(|pid| *pid != 0));
        }
        Broken::ByOther
    }

    /// Takes the control lock if it is free. Two threads that want it at once are rare, and the death of the
    /// one without it costs 1 s.
    pub(super) fn take_control_lock(self) -> Option<ControlGuard<'a>> {
        // SAFETY: in the mapping that the handle keeps; released by `ControlGuard`.
        let taken = unsafe { self.control_lock.acquire(Deadline::NOW) };
        if matches!(taken, Ok(Acquired::OwnerDied(_))) {
            DeathWatch::wake_all(&self.block.state);
        }
        taken.is_ok().then_some(ControlGuard(self.control_lock))
    }
}

/// The control lock, held by this thread until dropped.
pub(super) struct ControlGuard<'a>(&'a RobustLock);

impl Drop for ControlGuard<'_> {
    fn drop(&mut self) {
        // As with a claim, `W` stays and no watcher is woken: only a death concerns them.
        self.0.release_claim(|| (), || ());
    }
}

/// Returns the death of the thread that noted a round in this lock's words, if the lock has a new owner
/// already, which has not yet broken that round.
fn death_before_new_owner(lock: &RobustLock) -> Option<Death> {
    let noter = words(lock).noted_by.load(SeqCst);
    let owner = lock.owner()?;
    (u64::from(owner.tid) != noter & 0xffff_ffff).then(|| Death::of(noter))
}

fn is_in_round(lock: &RobustLock, round: u32) -> bool {
    words(lock).in_round.load(SeqCst) == noted(round)
}
