//! What each process does next.

use super::{At, Bug, Condition, For, MUTEX, Process, SLOT, State, Steps, Turn};
use crate::checker::{Kind, Step};
use crate::kernel::Low;

impl Turn<'_> {
    /// The next step by itself.
    pub(super) fn own_step(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::Gone | At::Asleep => return,
            At::Ask => {
                p = if state.own.tickets <= state.own.upto {
                    Process::default()
                } else {
                    Process { at: At::Enter, ..p }
                };
                "asks whether any process waits"
            }
            At::Enter if p.purpose == For::GivingUp && self.is(Bug::GiveUpOutside) => {
                (state.own.ticket[me], p.at) = (0, At::Rise);
                "gives up outside"
            }
            At::Enter if state.is_held(MUTEX) => return,
            At::Enter => {
                (p.recovers, p.at) = (state.take(me, MUTEX), At::Count);
                "enters"
            }
            At::Count => {
                self.count(&mut state, &mut p);
                "counts"
            }
            At::SetW => {
                if !self.is(Bug::NoWaitersBit) {
                    state.words[MUTEX].0 |= Low::W;
                }
                p.at = if self.is(Bug::ForgetFirst) && p.forget != 0 { At::Forget } else { At::Advance };
                "sets W"
            }
            At::Advance => {
                self.advance_upto(&mut state, &mut p);
                "advances the notified-up-to ticket"
            }
            At::Forget if p.forget != 0 => {
                state.own.ticket[p.forget.trailing_zeros() as usize] = 0;
                p.forget &= p.forget - 1;
                "forgets one"
            }
            At::Forget => {
                if p.recovers && !self.is(Bug::RecovererNotifiesNone) {
                    let waiting = (0..self.model.waiters).filter(|slot| state.own.ticket[*slot] != 0);
                    p.wake = waiting.fold(p.wake, |all, slot| all | 1 << slot);
                }
                p.at = if p.target > state.own.upto { At::Advance } else { At::Call };
                "has forgotten"
            }
            At::Call if p.wake != 0 => {
                let slot = p.wake.trailing_zeros() as usize;
                p.wake &= p.wake - 1;
                state.processes[me] = p;
                let sleeper = &mut state.processes[slot];
                sleeper.called = true;
                let mut kind = Kind::Own;
                if sleeper.at == At::Asleep {
                    (sleeper.at, kind) = (At::Note, Kind::Wakes);
                }
                return next.push(Step { process: me, what: "wakes one", kind, state });
            }
            At::Call => {
                p.target = 0;
                p.at = match p.purpose {
                    For::Sitting => At::Sit,
                    For::GivingUp => At::GiveUp,
                    For::Mending | For::Notifying => At::Out,
                };
                "has woken all"
            }
            At::Sit => {
                state.own.tickets += 1;
                state.own.ticket[me] = state.own.tickets;
                state.take_watched(me, SLOT + me);
                p.at = At::Out;
                "takes its wait slot"
            }
            At::GiveUp => {
                if state.own.ticket[me] > state.own.upto {
                    state.own.ticket[me] = 0;
                }
                p.at = At::Out;
                "gives up"
            }
            At::Out => {
                state.leave_mutex(me, MUTEX);
                p.recovers = false;
                match p.purpose {
                    For::Notifying => p = Process::default(),
                    For::GivingUp if state.own.ticket[me] == 0 => p.at = At::Rise,
                    For::GivingUp => p.at = At::Resume,
                    For::Sitting | For::Mending => p.at = At::Note,
                }
                "leaves the mutex"
            }
            At::Note
                if self.is(Bug::NotifiedDoesNotLook)
                    && p.called
                    && state.own.ticket[me] <= state.own.upto =>
            {
                p.at = At::Resume;
                "is notified"
            }
            At::Note => {
                state.hands[me].seen = watched(&state);
                let died = |slot: usize| !state.is_held(SLOT + slot) && state.own.ticket[slot] != 0;
                let deaths = !self.is(Bug::SlotsNotWatched) && (0..self.model.waiters).any(died);
                (p.called, p.death) = (false, state.words[MUTEX].is_dead() || deaths);
                p.at = if self.is(Bug::LookBeforeNote) { At::Sleep } else { At::Look };
                "notes the words"
            }
            At::Look if p.death => {
                (p.at, p.purpose, p.death) = (At::Enter, For::Mending, false);
                "sees a death"
            }
            At::Look if state.own.ticket[me] <= state.own.upto => {
                p.at = At::Resume;
                "is notified"
            }
            At::Look if p.late => {
                (p.at, p.purpose) = (At::Enter, For::GivingUp);
                "is too late"
            }
            At::Look => {
                p.at = if self.is(Bug::LookBeforeNote) { At::Note } else { At::Sleep };
                "is not notified"
            }
            At::Sleep => {
                let (seen, now) = (self.hand().seen, watched(&state));
                let words = if self.is(Bug::SlotsNotWatched) { SLOT } else { now.len() };
                let same = seen[..words] == now[..words] && !p.called && !p.late;
                let first = if self.is(Bug::LookBeforeNote) { At::Look } else { At::Note };
                p.at = if same { At::Asleep } else { first };
                if same { "sleeps" } else { "EAGAIN" }
            }
            At::Resume => {
                // CRASH: before this its notification is another waiter's.
                state.own.ticket[me] = 0;
                state.own.received += 1;
                p.at = At::Rise;
                "has the lock"
            }
            At::Rise => {
                state.leave_mutex(me, SLOT + me);
                p = Process::default();
                "leaves its wait slot"
            }
        };
        self.go(next, what, state, p);
    }

    /// Counts debts and waiters, and decides how far to notify.
    fn count(&self, state: &mut State, p: &mut Process) {
        let (mut debts, mut tickets) = (0, Vec::new());
        (p.forget, p.wake) = (0, 0);
        for slot in 0..self.model.waiters {
            if Condition::owes(state, slot) {
                debts += u8::from(!self.is(Bug::NoDebts));
                p.forget |= 1 << slot;
            } else if !state.is_held(SLOT + slot) && !self.is(Bug::DeadPassed) {
                state.own.ticket[slot] = 0;
            } else if Condition::waits(state, slot) {
                tickets.push(state.own.ticket[slot]);
            }
        }
        tickets.sort_unstable();
        let called = usize::from(self.notifies(p) + debts).min(tickets.len());
        p.target = if called > 0 { tickets[called - 1] } else { 0 };
        p.at = if called > 0 { At::SetW } else { At::Forget };
        if called == 0 {
            // No process is there to inherit the debts.
            state.own.dropped += debts;
        }
    }

    fn advance_upto(&self, state: &mut State, p: &mut Process) {
        let (old, mut living, mut called) = (state.own.upto, 0, 0);
        for slot in 0..self.model.waiters {
            let waits = state.own.ticket[slot] > old;
            living += u8::from(waits);
            if waits && state.own.ticket[slot] <= p.target {
                called += 1;
                p.wake |= 1 << slot;
            }
        }
        state.own.upto = p.target;
        let new = self.notifies(p).min(living);
        let debts = u8::try_from(p.forget.count_ones()).unwrap_or(0);
        state.own.made += new;
        state.own.dropped += (debts + new).saturating_sub(called);
        p.at = At::Forget;
    }

    fn notifies(&self, p: &Process) -> u8 {
        if p.purpose == For::Notifying { self.model.notifies(self.me) } else { 0 }
    }
}

/// The words as a sleeper compares them: `W` of the mutex aside, which is set before each notification.
fn watched(state: &State) -> [Low; super::WORDS] {
    let mut words = state.words;
    words[MUTEX].0 &= !Low::W;
    words
}
