//! The parties of a barrier, and what holds them together.
//!
//! # Words
//!
//! One 64-bit word is the state. The high half is the **round**, which moves at each end of a round, and is the futex word of those who wait; the low half:
//!
//! | bits | says |
//! |---|---|
//! | 0..7 | how many have arrived in this round |
//! | 8 | broken: nobody can arrive until a reset |
//! | 9 | turns over at each release, so that who was in a round can tell a release from a break |
//! | 10 | somebody may sleep |
//!
//! | from | to | by |
//! |---|---|---|
//! | `n` arrived, `n + 1 < parties` | `n + 1` | a party that arrives |
//! | `parties - 1` arrived | `parties` arrived: the action runs | the last one, if it finds nobody dead |
//! | `parties` arrived | round + 1, none arrived, turned over: **released** | the same, after the action |
//! | any, not broken | round + 1, none arrived, **broken** | time-out, abort, panic in the action, whoever finds a dead party |
//! | broken, or any arrived | round + 1, none arrived | reset |
//!
//! Each is one compare-and-swap of the whole word: it is the commit, all or nothing, whoever dies beside it.
//!
//! Every party holds a **seat**, one of `parties` robust locks, from before it arrives until it has left, and notes beside it who it is, then its round. A seat whose owner died with the round that still is
//! has broken it; so has one whose owner is not who noted the round, since that one has died, and its heir is about to break the round.
//! One more lock, the **helm**, is held by those who change the state without a seat (abort, reset), so that their death is noticed, too.
//!
//! # Why no wake is lost
//!
//! Who is about to sleep sets bit 10 in a compare-and-swap of the word that a release or break must change, so one of the two comes first and the other one sees it. It sleeps on the round and on every seat and the helm: who is
//! killed after its compare-and-swap and before it has woken the others has its seat, or the helm, and the kernel wakes one of those who sleep, whom it likes: it may be one who came later, and whose round goes on. So
//! whoever has slept, or was about to, breaks for each lock that a dead one has left the round that is noted there, if it still is, wakes *all*, settles the death so that it is told once, and only then looks at its own
//! round. If it is killed, it has a seat as well, and another one finds the same. Who takes a dead one's seat to sit in it does the same. The seats' owners are on the kernel's list throughout: nothing depends on the one
//! pending word of a thread. (`models/src/barrier.rs`; the model has found what is said here of later rounds and of heirs.)
//!
//! # Why a slow one knows its verdict
//!
//! While a party has its seat only `parties - 1` others can sit, so no *later* round than its own can be released. If bit 9 has turned over since it arrived, it was its own round
//! that was released; if not, its round was broken, or reset, however often after. For the same reason a fast one cannot lap a slow one.
//!
//! # More parties than seats
//!
//! If there are more threads than parties, or a dead one is not found yet, somebody finds no seat. It looks again every 5 ms, and when somebody leaves.
#![allow(unsafe_code, reason = "locks whose mapping the handle keeps")]

use std::cell::Cell;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::watch::{sleep_watching, wake_watchers};
use multiproc_robust::{AcquireError, Acquired, BRIEF, Deadline, Death, EAGER, NO_CPU, RobustLock, spin, this_cpu};
use multiproc_shm::{Object, Shared};

use super::Broken;
use super::block::{ARRIVED, BROKEN, BarrierBlock, CPU, IN_ROUND, MARK, NOTED_BY, ROUND, SLEEPERS, TURN, arrived, broken, round};

/// A barrier's words, as a party sees them.
#[derive(Clone, Copy)]
pub(super) struct Parties<'a> {
    block: &'a BarrierBlock,
    locks: &'a [RobustLock],
    seats: &'a [RobustLock],
    helm: &'a RobustLock,
}

/// A seat of this thread; given back when dropped.
struct Seat<'a> {
    parties: Parties<'a>,
    at: usize,
}

/// What a party has learnt when it arrived.
struct Arrival {
    index: usize,
    state: u64,
}

impl<'a> Parties<'a> {
    /// Of this barrier.
    pub(super) fn of(shared: &'a Shared<BarrierBlock>) -> Self {
        let block: &BarrierBlock = shared;
        // SAFETY: the two parts of one object, whose extents were checked when it was found.
        let locks = unsafe { block.more_locks(shared.tail(), shared.extents()) };
        // There is always one.
        let (seats, helm) = locks.split_at(locks.len() - 1);
        Self { block, locks, seats, helm: &helm[0] }
    }

    pub(super) fn len(self) -> usize {
        self.seats.len()
    }

    /// Arrives, waits, leaves; this party's place in the order of arrival.
    pub(super) fn wait(self, deadline: Deadline, action: impl FnOnce()) -> Result<usize, Broken> {
        let seat = self.sit(deadline)?;
        let arrival = self.arrive(&seat)?;
        let released = if arrival.index + 1 == self.len() {
            self.lead(&arrival, action)
        } else {
            self.await_release(&seat, &arrival, deadline)
        };
        // CRASH: the verdict is in the state; a dead one's seat is nobody's loss.
        drop(seat);
        released.map(|()| arrival.index)
    }

    pub(super) fn abort(self) {
        let _helm = self.take_helm();
        self.change(|state| (state & BROKEN == 0).then(|| broken(state)));
    }

    pub(super) fn reset(self) {
        let _helm = self.take_helm();
        self.change(|state| {
            // A party that died before it was counted has noted its round: this one has to end.
            let used = state & (BROKEN | ARRIVED) != 0 || self.dead(round(state)).is_some();
            used.then(|| state.wrapping_add(ROUND) & !(BROKEN | ARRIVED | SLEEPERS))
        });
    }

    pub(super) fn is_broken(self) -> bool {
        let state = self.block.state.load(SeqCst);
        state & BROKEN != 0 || self.dead(round(state)).is_some()
    }

    /// Takes a seat: the one where this thread sat last, else any.
    fn sit(self, deadline: Deadline) -> Result<Seat<'a>, Broken> {
        thread_local! {
            /// Where this thread sat last, so that those who come again find the same neighbours.
            static LAST: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
        }
        let barrier = std::ptr::from_ref(self.block).addr();
        let mut turn = 0_u32;
        loop {
            turn = turn.wrapping_add(1);
            let state = self.block.state.load(SeqCst);
            if state & BROKEN != 0 {
                return Err(self.verdict_of(round(state).wrapping_sub(1)));
            }
            let (known, last) = LAST.get();
            let first = if known == barrier { last } else { arrived(state) };
            for at in (0..self.len()).map(|step| (first + step) % self.len()) {
                if self.seats[at].is_held_by_this_thread() {
                    return Err(AcquireError::AlreadyHeld.into());
                }
                if !self.seats[at].is_held() && self.take(at, Deadline::NOW)? {
                    LAST.set((barrier, at));
                    return Ok(Seat { parties: self, at });
                }
            }
            if deadline.has_passed() {
                let _helm = self.take_helm();
                self.change(|now| (round(now) == round(state) && now & BROKEN == 0).then(|| broken(now)));
                return Err(Broken::TimedOut);
            }
            self.block.outside.fetch_add(1, SeqCst);
            self.block.left.wait_until(deadline.within(BRIEF), || {
                self.block.state.load(SeqCst) != state || self.seats.iter().any(|seat| !seat.is_held())
            });
            self.block.outside.fetch_sub(1, SeqCst);
            // The belt: what the kernel has missed, nobody else would ever give back.
            for at in (0..self.len()).filter(|at| turn.is_multiple_of(128) && self.seats[*at].missed_death().is_some()) {
                if self.take(at, Deadline::after(Duration::from_millis(1)))? {
                    return Ok(Seat { parties: self, at });
                }
            }
        }
    }

    /// Takes this seat. If its owner died, what it may have left undone is done here.
    fn take(self, at: usize, deadline: Deadline) -> Result<bool, Broken> {
        let seat = &self.seats[at];
        // SAFETY: the seat is in the mapping that the handle keeps, and is given back before `wait` returns.
        let death = match unsafe { seat.acquire(deadline) } {
            Ok(Acquired::Clean) => return Ok(true),
            Ok(Acquired::OwnerDied(death)) => death,
            Err(AcquireError::TimedOut) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // CRASH: the dead one's round is still noted beside the seat: if we die, too, the next one finds the same.
        self.break_if(seat.guarded[IN_ROUND].load(SeqCst), death);
        // The dead one may have moved the round and told nobody.
        wake_watchers(&self.block.state);
        Ok(true)
    }

    fn arrive(self, seat: &Seat<'_>) -> Result<Arrival, Broken> {
        let lock = &self.seats[seat.at];
        let beside = &lock.guarded;
        // Before the round: who finds that finds whose it is.
        let me = lock.owner().map_or(0, |me| u64::from(me.pid.unwrap_or(0)) << 32 | u64::from(me.tid));
        beside[NOTED_BY].store(me, SeqCst);
        beside[CPU].store(u64::from(this_cpu()) + 1, Relaxed);
        let mut state = self.block.state.load(SeqCst);
        loop {
            if state & BROKEN != 0 {
                return Err(self.verdict_of(round(state).wrapping_sub(1)));
            }
            let sign = || beside[IN_ROUND].store(MARK | u64::from(round(state)), SeqCst);
            if !is_planted(Bug::CountedBeforeSigned) {
                sign();
            }
            // CRASH: noted, not counted: for the others a party that died. It was one of them, though it had not quite arrived.
            if arrived(state) + 1 >= self.len() {
                // Everybody is there: are they alive?
                self.bury(round(state));
                let now = self.block.state.load(SeqCst);
                if now != state {
                    state = now;
                    continue;
                }
            }
            match self.block.state.compare_exchange(state, state + 1, SeqCst, SeqCst) {
                Ok(_) => {
                    if is_planted(Bug::CountedBeforeSigned) {
                        sign();
                    }
                    return Ok(Arrival { index: arrived(state), state });
                }
                Err(now) => state = now,
            }
        }
    }

    /// Everybody is there, and waits for this one.
    fn lead(self, arrival: &Arrival, action: impl FnOnce()) -> Result<(), Broken> {
        struct Panicked<'a>(Parties<'a>, u32);
        impl Drop for Panicked<'_> {
            fn drop(&mut self) {
                self.0.change(|state| (round(state) == self.1 && state & BROKEN == 0).then(|| broken(state)));
            }
        }
        let mine = round(arrival.state);
        // CRASH: all have arrived, nobody is released: our seat breaks the round.
        let panicked = Panicked(self, mine);
        action();
        std::mem::forget(panicked);
        // CRASH: after this the round is over, for everybody; those who sleep are told by our seat.
        let released =
            self.change(|state| (round(state) == mine).then(|| (state.wrapping_add(ROUND) ^ TURN) & !(ARRIVED | SLEEPERS)));
        if released { Ok(()) } else { Err(self.verdict_of(mine)) }
    }

    fn await_release(self, seat: &Seat<'_>, arrival: &Arrival, deadline: Deadline) -> Result<(), Broken> {
        let mine = round(arrival.state);
        let over = || round(self.block.state.load(SeqCst)) != mine;
        let mut timed_out = false;
        if deadline == Deadline::NOW || !spin(self.partner(seat.at, mine), 1, EAGER, over) {
            let mut slept = false;
            while !over() {
                if deadline.has_passed() {
                    timed_out = self.change(|state| (round(state) == mine && state & BROKEN == 0).then(|| broken(state)));
                    continue;
                }
                if !self.announce(mine) {
                    continue;
                }
                if slept {
                    self.bury_missed(mine);
                }
                // CRASH: asleep, or woken: our seat wakes another one.
                sleep_watching(&self.block.state, mine, self.locks, deadline, || over() || self.bury(mine));
                slept = true;
                self.mend();
            }
        }
        if (self.block.state.load(SeqCst) ^ arrival.state) & TURN != 0 {
            return Ok(());
        }
        Err(if timed_out { Broken::TimedOut } else { self.verdict_of(mine) })
    }

    /// After a sleep: does for each dead one what it may have left undone. Of those who slept perhaps only this one was told of it, though others' rounds are over and its own is not.
    fn mend(self) {
        for lock in self.locks {
            lock.acknowledge_death(|death| {
                // CRASH: our seat is another one's reason to do the same. (Nothing is noted beside the helm.)
                self.break_if(lock.guarded[IN_ROUND].load(SeqCst), death);
                if !is_planted(Bug::DeathNotifiedToOne) {
                    wake_watchers(&self.block.state);
                }
            });
        }
    }

    /// Says that somebody may sleep; false when the round is over.
    fn announce(self, mine: u32) -> bool {
        let mut state = self.block.state.load(SeqCst);
        loop {
            if round(state) != mine || state & SLEEPERS != 0 {
                return round(state) == mine;
            }
            // ORDER: SeqCst pairs with `change`: one of the two comes first, and the other one sees it.
            match self.block.state.compare_exchange(state, state | SLEEPERS, SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
    }

    /// Breaks this round if one of its parties is dead; whether there is one.
    fn bury(self, mine: u32) -> bool {
        self.dead(mine).map(|death| self.break_if(MARK | u64::from(mine), death)).is_some()
    }

    /// The same for deaths that the kernel has not told: after a sleep that may have ended by the belt.
    fn bury_missed(self, mine: u32) {
        let missed = self.seats.iter().filter(|seat| in_round(seat, mine)).find_map(RobustLock::missed_death);
        if let Some(death) = missed {
            self.break_if(MARK | u64::from(mine), death);
        }
    }

    /// A party of this round that is dead.
    fn dead(self, mine: u32) -> Option<Death> {
        // The mark first: who takes the seat from the dead one changes it last.
        self.seats.iter().filter(|seat| in_round(seat, mine)).find_map(|seat| seat.death().or_else(|| followed(seat)))
    }

    /// Breaks the round that is marked beside a dead one's seat, if it still is.
    fn break_if(self, mark: u64, death: Death) {
        let state = self.block.state.load(SeqCst);
        if mark != MARK | u64::from(round(state)) || state & BROKEN != 0 {
            return;
        }
        // Before the break, so that whoever sees that finds the cause; if others break it first, it is true all the same.
        self.block.cause.store(u64::from(round(state)) << 32 | u64::from(death.pid().unwrap_or(0)), SeqCst);
        self.change(|now| (round(now) == round(state) && now & BROKEN == 0).then(|| broken(now)));
    }

    /// Why the round `mine`, which was not released, has ended.
    fn verdict_of(self, mine: u32) -> Broken {
        let cause = self.block.cause.load(SeqCst);
        if cause != 0 && cause >> 32 == u64::from(mine) {
            return Broken::PartyDied(u32::try_from(cause & 0xffff_ffff).ok().filter(|pid| *pid != 0));
        }
        Broken::ByOther
    }

    /// Ends a round, and tells those who sleep; false when `next` does not want to.
    fn change(self, next: impl Fn(u64) -> Option<u64>) -> bool {
        let mut state = self.block.state.load(SeqCst);
        loop {
            let Some(changed) = next(state) else { return false };
            // ORDER: SeqCst pairs with `announce`, and with the look of those who wait: what happened before is seen by whoever goes on.
            match self.block.state.compare_exchange(state, changed, SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // CRASH: changed, nobody told: our seat, or the helm, is watched by those who sleep.
        if state & SLEEPERS != 0 {
            wake_watchers(&self.block.state);
        }
        true
    }

    /// Holds the helm, if nobody else does: two at once are rare, and what the one without it would lose by dying is a second.
    fn take_helm(self) -> Option<Helm<'a>> {
        // SAFETY: in the mapping that the handle keeps; given back by `Helm`.
        let taken = unsafe { self.helm.acquire(Deadline::NOW) };
        if matches!(taken, Ok(Acquired::OwnerDied(_))) {
            wake_watchers(&self.block.state);
        }
        taken.is_ok().then_some(Helm(self.helm))
    }

    /// Where those are who have not come yet: on our own CPU, if any is.
    fn partner(self, mine: usize, round: u32) -> u32 {
        let here = u64::from(this_cpu()) + 1;
        let absent = self.seats.iter().enumerate().filter(|(at, seat)| *at != mine && !in_round(seat, round));
        let seen = absent.map(|(_, seat)| seat.guarded[CPU].load(Relaxed)).filter(|cpu| *cpu != 0);
        let known = seen.reduce(|one, other| if one == here { one } else { other });
        known.and_then(|cpu| u32::try_from(cpu - 1).ok()).unwrap_or(NO_CPU)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.parties.seats[self.at].release_claim(|| (), || ());
        // CRASH: free, nobody told: those outside look again within 5 ms.
        if self.parties.block.outside.load(SeqCst) != 0 {
            self.parties.block.left.wake_all();
        }
    }
}

/// The helm, held by this thread; given back when dropped.
struct Helm<'a>(&'a RobustLock);

impl Drop for Helm<'_> {
    fn drop(&mut self) {
        self.0.release_claim(|| (), || ());
    }
}

/// Who died in a seat that has a new owner already, which has not yet broken the round that is noted there.
fn followed(seat: &RobustLock) -> Option<Death> {
    let noter = seat.guarded[NOTED_BY].load(SeqCst);
    let owner = seat.owner()?;
    (u64::from(owner.tid) != noter & 0xffff_ffff).then(|| Death::of(noter))
}

fn in_round(seat: &RobustLock, round: u32) -> bool {
    seat.guarded[IN_ROUND].load(SeqCst) == MARK | u64::from(round)
}
