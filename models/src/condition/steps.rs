//! What each process does next, and what may happen to it.

use super::{At, Bug, Condition, FREE, For, HELD, LEFT, OWNER_DIED, Process, State};
use crate::checker::{Kind, Step};

impl Condition {
    /// The one thing `me` does next by itself.
    pub(super) fn own_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mut state = *before;
        let is_waiter = me < self.waiters;
        let name = u8::try_from(me + 1).unwrap_or(0);
        let mut p = state.processes[me];
        let what = match p.at {
            At::Gone | At::Asleep => return,
            At::Ask => {
                p.at = if state.tickets <= state.horizon { At::Gone } else { At::Enter };
                "asks whether anybody waits"
            }
            At::Enter if p.purpose == For::GivingUp && self.is(Bug::GiveUpOutside) => {
                state.ticket[me] = 0;
                p.at = At::Rise;
                "gives up outside"
            }
            At::Enter => {
                if state.gate != 0 && state.gate != OWNER_DIED {
                    return;
                }
                p.heir = state.gate == OWNER_DIED;
                state.alarm &= p.heir;
                state.gate = name;
                p.at = At::Count;
                "enters"
            }
            At::Count => {
                let calls = if p.purpose == For::Calling { self.notifiers[me - self.waiters] } else { 0 };
                let (mut debts, mut tickets) = (0, Vec::new());
                (p.forget, p.wake) = (0, 0);
                for seat in 0..self.waiters {
                    if state.owes(seat) {
                        debts += u8::from(!self.is(Bug::NoDebts));
                        p.forget |= 1 << seat;
                    } else if state.seats[seat] != HELD && !self.is(Bug::DeadPassed) {
                        state.ticket[seat] = 0;
                    } else if state.waiting(seat) {
                        tickets.push(state.ticket[seat]);
                    }
                }
                tickets.sort_unstable();
                let living = u8::try_from(tickets.len()).unwrap_or(0);
                let called = (calls + debts).min(living);
                p.target = if called > 0 { tickets[usize::from(called) - 1] } else { 0 };
                p.at = if called > 0 { At::Alarm } else { At::Forget };
                if called == 0 {
                    // Nobody is there whose turn it would be.
                    state.dropped += debts;
                }
                "counts"
            }
            At::Alarm => {
                state.alarm |= !self.is(Bug::NoAlarm);
                p.at = if self.is(Bug::ForgetFirst) && p.forget != 0 { At::Forget } else { At::Horizon };
                "alarms"
            }
            At::Horizon => {
                let calls = if p.purpose == For::Calling { self.notifiers[me - self.waiters] } else { 0 };
                let (old, mut living, mut called) = (state.horizon, 0, 0);
                for seat in 0..self.waiters {
                    living += u8::from(state.ticket[seat] > old);
                    if state.ticket[seat] > old && state.ticket[seat] <= p.target {
                        called += 1;
                        p.wake |= 1 << seat;
                    }
                }
                state.horizon = p.target;
                let new = calls.min(living);
                let debts = u8::try_from(p.forget.count_ones()).unwrap_or(0);
                state.made += new;
                state.dropped += (debts + new).saturating_sub(called);
                p.at = At::Forget;
                "moves the horizon"
            }
            At::Forget if p.forget != 0 => {
                let seat = p.forget.trailing_zeros();
                p.forget &= p.forget - 1;
                state.ticket[seat as usize] = 0;
                "forgets one"
            }
            At::Forget => {
                if p.heir && !self.is(Bug::TakerCallsNobody) {
                    p.wake = (0..self.waiters).filter(|seat| state.ticket[*seat] != 0).fold(p.wake, |all, seat| all | 1 << seat);
                }
                p.at = if p.target > state.horizon { At::Horizon } else { At::Call };
                "has forgotten"
            }
            At::Call if p.wake != 0 => {
                let seat = p.wake.trailing_zeros() as usize;
                p.wake &= p.wake - 1;
                state.processes[me] = p;
                let sleeper = &mut state.processes[seat];
                sleeper.called = true;
                let woken = sleeper.at == At::Asleep;
                if woken {
                    sleeper.at = At::Note;
                }
                let kind = if woken { Kind::Wakes } else { Kind::Own };
                next.push(Step { who: me, what: "calls one", kind, state });
                return;
            }
            At::Call => {
                p.target = 0;
                p.at = match p.purpose {
                    For::Sitting => At::Sit,
                    For::GivingUp => At::GiveUp,
                    For::Mending | For::Calling => At::Out,
                };
                "has called"
            }
            At::Sit => {
                state.tickets += 1;
                state.seats[me] = HELD;
                state.ticket[me] = state.tickets;
                p.at = At::Out;
                "sits"
            }
            At::GiveUp => {
                if state.ticket[me] > state.horizon {
                    state.ticket[me] = 0;
                }
                p.at = At::Out;
                "gives up"
            }
            At::Out => {
                (state.gate, state.alarm, p.heir) = (0, false, false);
                p.at = match p.purpose {
                    For::Calling => At::Gone,
                    For::GivingUp if state.ticket[me] == 0 => At::Rise,
                    For::GivingUp => At::Resume,
                    For::Sitting | For::Mending => At::Note,
                };
                "leaves the gate"
            }
            At::Note if self.is(Bug::CalledDoesNotLook) && p.called && state.ticket[me] <= state.horizon => {
                p.at = At::Resume;
                "is called"
            }
            At::Note => {
                (p.gate, p.seats, p.called) = (state.gate, state.seats, false);
                p.death = state.gate == OWNER_DIED
                    || (0..self.waiters)
                        .any(|seat| state.seats[seat] != HELD && state.ticket[seat] != 0 && !self.is(Bug::SeatsNotWatched));
                p.at = if self.is(Bug::LookBeforeNote) { At::Sleep } else { At::Look };
                "notes the words"
            }
            At::Look if p.death => {
                (p.at, p.purpose, p.death) = (At::Enter, For::Mending, false);
                "sees a death"
            }
            At::Look if state.ticket[me] <= state.horizon => {
                p.at = At::Resume;
                "is called"
            }
            At::Look if p.late => {
                (p.at, p.purpose) = (At::Enter, For::GivingUp);
                "is too late"
            }
            At::Look => {
                p.at = if self.is(Bug::LookBeforeNote) { At::Note } else { At::Sleep };
                "is not called"
            }
            At::Sleep => {
                let seats = self.is(Bug::SeatsNotWatched) || p.seats == state.seats;
                let same = p.gate == state.gate && seats && !p.called && !p.late;
                let first = if self.is(Bug::LookBeforeNote) { At::Look } else { At::Note };
                p.at = if same { At::Asleep } else { first };
                if same { "sleeps" } else { "EAGAIN" }
            }
            At::Resume => {
                // CRASH: before this its call is another one's.
                state.ticket[me] = 0;
                state.received += 1;
                p.at = At::Rise;
                "has the lock"
            }
            At::Rise => {
                state.seats[me] = FREE;
                p.at = At::Gone;
                "rises"
            }
            At::DyingGate => {
                let mine = state.gate == name;
                if mine {
                    state.gate = OWNER_DIED;
                }
                p.at = if mine && state.alarm { At::DyingGateWakes } else { At::DyingSeat };
                "kernel: gate"
            }
            At::DyingSeat => {
                let mine = is_waiter && state.seats[me] == HELD;
                if mine {
                    state.seats[me] = LEFT;
                }
                p.at = if mine { At::DyingSeatWakes } else { At::DyingPending };
                "kernel: seat"
            }
            At::DyingSeatWakes if self.is(Bug::SeatsNotWatched) => {
                p.at = At::DyingPending;
                "kernel wakes nobody"
            }
            At::DyingPending if !p.pending || (state.gate != 0 && state.gate != OWNER_DIED) => {
                p.at = At::Gone;
                "kernel: gone"
            }
            At::DyingGateWakes | At::DyingSeatWakes | At::DyingPending => {
                let (at_gate, after) = match p.at {
                    At::DyingGateWakes => (true, At::DyingSeat),
                    At::DyingSeatWakes => (false, At::DyingPending),
                    _ => (true, At::Gone),
                };
                before.wake_one(me, at_gate, |mut state, woken| {
                    state.processes[me].at = after;
                    let kind = if woken { Kind::Wakes } else { Kind::Own };
                    next.push(Step { who: me, what: "kernel wakes one", kind, state });
                });
                return;
            }
        };
        state.processes[me] = p;
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// What may happen to `me`.
    pub(super) fn mishaps(before: &State, me: usize, is_waiter: bool, next: &mut Vec<Step<State>>) {
        let p = before.processes[me];
        if before.kills > 0 && (p.at as u8) < At::Gone as u8 {
            let mut state = *before;
            state.kills -= 1;
            state.processes[me] = Process { at: At::DyingGate, pending: p.at == At::Enter, ..Process::gone() };
            next.push(Step { who: me, what: "is killed", kind: Kind::Chance, state });
        }
        if before.timeouts > 0 && is_waiter && !p.late && matches!(p.at, At::Asleep | At::Look) {
            let mut state = *before;
            state.timeouts -= 1;
            state.processes[me].late = true;
            if p.at == At::Asleep {
                state.processes[me].at = At::Note;
            }
            next.push(Step { who: me, what: "is late", kind: Kind::Chance, state });
        }
    }
}
