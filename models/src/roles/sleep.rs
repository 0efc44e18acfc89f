//! Who sleeps for a message, and hears of the end of all producers; and what each does when he is woken.

use super::{A, At, Bug, C, FP, KB, P, Process, S, State, Turn, WORDS, tid};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    pub(super) fn sleep(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let (roles, guest) = (self.roles, self.roles.is_guest(self.me));
        let what = match p.at {
            At::Wait => {
                (p.used, p.at) = (if guest { 0 } else { state.used }, At::Arm);
                "what is to be watched"
            }
            At::Arm => {
                (p.pending, p.napping, p.at) = (tid(P), true, At::Announce);
                "pending = P, counts itself"
            }
            At::Announce => {
                state.announce(P);
                p = state.processes[self.me];
                (p.seen[P], p.fresh[FP], p.at) = (state.low[P], true, At::Note);
                "announces to P"
            }
            At::Note => {
                p.seen[C] = state.low[C];
                for seat in 0..self.watched() {
                    p.seen[S + seat] = state.low[S + seat];
                }
                p.at = At::Ready;
                "notes the words"
            }
            At::Ready if state.has_data() => self.awake(&mut p),
            At::Ready => {
                p.at = if guest { At::Queue } else { At::ReadySeat };
                "nothing there"
            }
            At::ReadySeat if p.index >= p.used && p.used > 0 => self.awake(&mut p),
            At::ReadySeat if p.index >= p.used || state.is_held(p.index) => {
                (p.index, p.at) = (0, if roles.is(Bug::NoSecondLook) { At::Queue } else { At::ReadyUsed });
                "they are not gone"
            }
            At::ReadySeat => {
                p.index += 1;
                "one is free"
            }
            At::ReadyUsed if state.used != p.used => self.awake(&mut p),
            At::ReadyUsed => {
                p.at = At::Queue;
                "must sleep"
            }
            At::Queue => self.queue(&state, &mut p),
            At::Asleep if !p.rung => return,
            At::Asleep => {
                p.at = At::Woken;
                "wakes up"
            }
            At::Woken => {
                let used = p.used;
                p.forget();
                (p.used, p.at) = (used, At::DutyKb);
                "unqueues"
            }
            At::DutyKb => {
                let low = state.low[C];
                if low.owner() == 0 && low.has(Low::W) && state.contenders() {
                    return self.wake(next, KB, "duty: C's kb", |p, _| p.at = At::Retell);
                }
                p.at = At::Retell;
                "duty: C is well"
            }
            At::Retell if guest => {
                p.at = At::Flight;
                "tells nobody"
            }
            At::Retell if state.used != p.used => self.news(&mut p),
            At::Retell => {
                p.at = At::RetellSeat;
                "are they gone?"
            }
            At::RetellSeat if p.index < p.used && !state.is_held(p.index) => {
                p.index += 1;
                "one is free"
            }
            At::RetellSeat if p.index >= p.used && p.used > 0 && !roles.is(Bug::WokenTellsNobody) => {
                p.at = At::RTell;
                "all are gone"
            }
            At::RetellSeat => {
                p.at = At::RetellUsed;
                "they are not gone"
            }
            At::RetellUsed if state.used != p.used => self.news(&mut p),
            At::RetellUsed => {
                p.at = At::Flight;
                "as many as before"
            }
            At::RTell => {
                self.bump(&mut state, &mut p, FP);
                p.at = At::RTellWake;
                "tells: A+1"
            }
            At::RTellWake => return self.wake_all(next, A, "tells all", At::Flight),
            _ => {
                state.announce(C);
                p = state.processes[self.me];
                self.awake(&mut p);
                "flight: announces to C"
            }
        };
        self.go(next, what, state, p);
    }

    /// There are more seats than it watched.
    fn news(&self, p: &mut Process) -> &'static str {
        p.at = if self.roles.is(Bug::FirstUseNotRetold) { At::Flight } else { At::RTell };
        "there is one more"
    }

    /// The kernel compares one word and queues on it: the seats, C, P, the bell.
    fn queue(&self, state: &State, p: &mut Process) -> &'static str {
        let watched = self.watched();
        let word = match usize::from(p.index).checked_sub(watched) {
            None => S + usize::from(p.index),
            Some(0) => C,
            Some(1) => P,
            _ => A,
        };
        let same = if word == A { p.fresh[FP] } else { p.seen[word] == state.low[word] };
        if !same && p.rung {
            p.at = At::Woken;
            return "rung while queueing";
        }
        if !same {
            let used = p.used;
            p.forget();
            (p.used, p.at) = (used, At::Announce);
            return "EAGAIN";
        }
        (p.queued, p.index) = (p.queued | 1 << word, p.index + 1);
        if word < WORDS {
            p.seen[word] = Low(0);
            return "queues";
        }
        (p.fresh[FP], p.index, p.at) = (false, 0, At::Asleep);
        "sleeps"
    }

    /// The seats that were ever taken, and the next.
    fn watched(&self) -> usize {
        let roles = self.roles;
        let next = u8::from(!roles.is(Bug::NextUnwatched));
        if roles.is_guest(self.me) || roles.is(Bug::WatchesNoSeats) { 0 } else { (self.p.used + next).min(roles.seats).into() }
    }

    /// After a second, asleep: looks again.
    pub(super) fn belt(&self, next: &mut Vec<Step<State>>) {
        let mut p = self.p;
        if p.at == At::Contending {
            p.forget();
            p.at = At::GTry;
        } else {
            self.awake(&mut p);
        }
        self.go(next, "belt", *self.before, p);
    }

    /// Leaves the sleep, and looks in earnest.
    fn awake(&self, p: &mut Process) -> &'static str {
        p.forget();
        (p.napping, p.at) = (false, At::GStart);
        "need not sleep"
    }
}
