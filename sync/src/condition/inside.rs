//! Inside of a condition: at its gate, and in one of its seats. The protocol is told in `condition.rs`.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Deadline, EAGER, WaitSlot, Watch, spin};

use super::Condition;

/// For how long one whose time-out has come waits for the gate, which others pass in some microseconds.
pub(super) const MOMENT: Duration = Duration::from_millis(20);

/// The gate, held.
pub(super) struct Inside<'a> {
    pub(super) condition: &'a Condition,
}

impl Inside<'_> {
    /// Calls so many, the oldest first, and one for each that has died with a call; forgets the dead. How many of the `count` were there.
    pub(super) fn advance(&self, count: usize) -> usize {
        let condition = self.condition;
        let horizon = condition.horizon().load(SeqCst);
        let (mut waiting, mut living) = ([0; Condition::MOST], 0);
        let (mut owing, mut debts) = ([None; Condition::MOST], 0);
        for seat in condition.watched().iter().map(WaitSlot) {
            match seat.dead_occupant() {
                Some(ticket) if ticket <= horizon => {
                    owing[debts] = Some(seat);
                    debts += 1;
                }
                // Before the horizon passes it.
                Some(_) => seat.clear(),
                None => {
                    if let Some(ticket) = seat.occupant().filter(|ticket| *ticket > horizon) {
                        waiting[living] = ticket;
                        living += 1;
                    }
                }
            }
        }
        let waiting = &mut waiting[..living];
        waiting.sort_unstable();
        let owed = if is_planted(Bug::DeadNotificationForgotten) { 0 } else { debts };
        let called = count.saturating_add(owed).min(living);
        if called > 0 {
            // CRASH: from here on our death wakes one, who goes through the gate and wakes the others.
            if !is_planted(Bug::NotifiedUpToWithoutWaitersBit) {
                condition.shared.gate.set_waiters_bit();
            }
            // CRASH: nobody is called before this store, and all are after it.
            condition.horizon().store(waiting[called - 1], SeqCst);
        }
        // CRASH: killed before all are forgotten, some calls are passed on once more: for nothing, not too few.
        owing.iter().flatten().for_each(|seat| seat.clear());
        if called > 0 {
            let just_called = horizon.saturating_add(1)..=waiting[called - 1];
            for seat in condition.watched().iter().map(WaitSlot) {
                if seat.occupant().is_some_and(|ticket| just_called.contains(&ticket)) {
                    seat.notify();
                }
            }
        }
        count.min(living)
    }

    /// Wakes everybody seated, to look at everything again.
    pub(super) fn call_all(&self) {
        self.condition.watched().iter().map(WaitSlot).filter(|seat| seat.occupant().is_some()).for_each(WaitSlot::notify);
    }

    /// More seats, of which everybody who sleeps must hear.
    pub(super) fn watch_more(&self) {
        let next = (self.condition.watched().len() * 4).clamp(4, Condition::MOST);
        self.condition.shared.gate.set_waiters_bit();
        // CRASH: some may not watch the new ones yet; whoever comes through the gate next wakes everybody.
        self.condition.shared.gate.notes[2].store(next as u64, SeqCst);
        self.call_all();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let gate = &self.condition.shared.gate;
        gate.leave_without_peer();
    }
}

/// A seat, taken by this thread.
pub(super) struct Place<'a> {
    pub(super) condition: &'a Condition,
    pub(super) seat: WaitSlot<'a>,
    pub(super) ticket: u64,
}

impl Place<'_> {
    /// Sleeps until called; false when the deadline came first.
    pub(super) fn wait(&self, deadline: Deadline) -> bool {
        let condition = self.condition;
        if deadline != Deadline::NOW && spin(condition.notifier(), 1, EAGER, || condition.is_called(self.ticket)) {
            return true;
        }
        // What a death leaves meanwhile is found below, within 5 ms.
        self.seat.park_briefly(deadline, || condition.is_called(self.ticket));
        if condition.is_called(self.ticket) {
            return true;
        }
        let mut slept_long = false;
        loop {
            let mut watch = Watch::of(self.seat);
            let gate = condition.shared.gate.lock();
            // ORDER: noted before the look at the horizon: what happens after that look changes one of the words.
            let mut death = watch.lock(gate);
            for lock in condition.watched() {
                watch.lock(lock);
                death |= WaitSlot(lock).dead_occupant().is_some();
            }
            if slept_long {
                death |=
                    gate.mark_dead_owner() | condition.watched().iter().fold(false, |any, lock| lock.mark_dead_owner() | any);
            }
            // CRASH: woken, perhaps by the one wake-up that a death is worth, and killed before this: our seat wakes the next one.
            if death && condition.enter(deadline).map(|inside| inside.advance(0)).is_ok() {
                slept_long = false;
                continue;
            }
            if condition.is_called(self.ticket) {
                return true;
            }
            if deadline.has_passed() {
                return self.give_up();
            }
            slept_long = watch.sleep(deadline);
        }
    }

    /// At the time-out: whether somebody has called us in the last moment; if not, nobody counts us any more.
    fn give_up(&self) -> bool {
        let inside = self.condition.enter(Deadline::after(MOMENT));
        let called = self.condition.is_called(self.ticket);
        match inside {
            _ if called => {}
            Ok(_) => self.seat.clear(),
            // Somebody stands still in the gate. A call that comes from now on is passed on.
            Err(_) => self.seat.abandon(),
        }
        called
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.seat.vacate();
    }
}
