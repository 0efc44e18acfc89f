//! A producer: takes a seat, puts, lets go of it.

use super::{A, At, Bug, FP, P, Process, S, State, Turn, tid};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    /// `take_seat`.
    pub(super) fn come(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let roles = self.roles;
        let seat = usize::from(p.index);
        let what = match p.at {
            At::TStart if p.visits == 0 || p.index >= roles.seats => {
                p = Process::GONE;
                "leaves for good"
            }
            At::TStart if state.low[S + seat].is_dead() && !roles.is(Bug::HeirStays) => {
                state.low[S + seat].0 &= !Low::OD;
                self.bump(&mut state, &mut p, S + seat);
                p.at = if roles.is(Bug::SettledUnheard) { At::TPending } else { At::TTouch };
                "settles a death"
            }
            At::TTouch => {
                self.touch(&mut state, &mut p);
                p.at = At::TPending;
                "A+1, if somebody sleeps"
            }
            At::TStart | At::TPending => {
                p.pending = tid(S + seat);
                p.at = if roles.is(Bug::RaisesFirst) { At::TRaiseFirst } else { At::TTake };
                "pending = seat"
            }
            At::TTake | At::TRaiseFirst if state.is_held(p.index) => {
                (p.pending, p.index, p.at) = (0, p.index + 1, At::TStart);
                "it is taken"
            }
            At::TRaiseFirst => {
                state.used = state.used.max(p.index + 1);
                p.at = At::TTake;
                "used, too early"
            }
            At::TTake => {
                state.low[S + seat] = Low(tid(self.me) | Low::W);
                self.bump(&mut state, &mut p, S + seat);
                // On the list, and soon the keeper's: to the kernel it is all the same.
                (p.pending, p.seat, p.at) = (0, p.index + 1, At::TRaise);
                (p.index, state.came) = (0, true);
                "takes the seat"
            }
            At::TRaise => {
                let first = state.used < p.seat || roles.is(Bug::RaisesFirst);
                state.used = state.used.max(p.seat);
                p.at = if first { At::TTell } else { At::Held };
                "used"
            }
            At::TTell => {
                self.bump(&mut state, &mut p, FP);
                p.at = At::TTellWake;
                "tells: A+1"
            }
            _ => return self.wake_all(next, A, "tells all", At::Held),
        };
        self.go(next, what, state, p);
    }

    /// The lock, the commit, one wake.
    pub(super) fn put(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[P]);
        let what = match p.at {
            At::PStart => {
                (p.pending, p.at) = (tid(P), At::PTry);
                "pending = P"
            }
            At::PTry if low.owner() != 0 => return,
            At::PTry => {
                state.low[P] = Low(tid(self.me) | low.0 & Low::W);
                if low != Low(0) {
                    self.bump(&mut state, &mut p, FP);
                }
                (p.pending, p.at) = (0, At::PCommit);
                "takes P"
            }
            At::PCommit => {
                state.puts += 1;
                (p.left, p.at) = (p.left - 1, At::PRelease);
                "puts"
            }
            At::PRelease => {
                state.low[P].0 &= Low::W;
                let settles = low.has(Low::W);
                (p.pending, p.fresh[FP], p.at) = (tid(P), settles, if settles { At::PBump } else { At::PDisarm });
                "releases P"
            }
            At::PBump if !state.sleepers() => {
                p.at = At::PClear;
                "nobody sleeps"
            }
            At::PBump => {
                p.keep |= !(p.fresh[FP] && low == Low(Low::W));
                state.bump(FP);
                (p.fresh[FP], p.at) = (true, At::PWake);
                "A+1"
            }
            At::PWake => {
                return self.wake(next, A, "wakes one", |p, woke| (p.keep, p.at) = (p.keep | woke, At::PClear));
            }
            At::PClear => {
                if low == Low(Low::W) && p.fresh[FP] && !p.keep {
                    state.low[P] = Low(0);
                }
                (p.fresh[FP], p.keep, p.at) = (false, false, At::PDisarm);
                "clears W, if it is still its"
            }
            _ => {
                (p.pending, p.at) = (0, At::Held);
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }

    /// `leave_seat`.
    pub(super) fn leave(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let roles = self.roles;
        let word = S + usize::from(p.seat).saturating_sub(1);
        let what = match p.at {
            At::LTouch => {
                if !roles.is(Bug::LeaverTouchesNothing) {
                    self.touch(&mut state, &mut p);
                }
                p.at = At::LPending;
                "A+1, if somebody sleeps"
            }
            At::LPending => {
                p.pending = tid(word);
                p.at = At::LRelease;
                "pending = seat"
            }
            At::LRelease => {
                state.low[word].0 &= Low::W;
                (p.fresh[word], p.at) = (true, At::LWake);
                if roles.is(Bug::DisarmedBeforeWake) {
                    p.pending = 0;
                }
                "frees the seat"
            }
            At::LWake if roles.is(Bug::FreedUnheard) => {
                p.at = At::LDisarm;
                "wakes nobody"
            }
            At::LWake => {
                let then = |p: &mut Process, woke| p.at = if woke { At::LDisarm } else { At::LClear };
                return self.wake(next, word, "wakes one who watches", then);
            }
            At::LClear => {
                if state.low[word] == Low(Low::W) && p.fresh[word] {
                    state.low[word] = Low(0);
                }
                p.at = At::LDisarm;
                "clears W, if it is still its"
            }
            At::LDisarm => {
                (p.pending, p.fresh[word], p.at) = (0, false, At::LLook);
                if roles.is(Bug::LeaverTellsNobody) {
                    self.is_out(&mut p);
                }
                "pending = 0"
            }
            At::LLook if p.index < state.used && state.is_held(p.index) => {
                self.is_out(&mut p);
                "somebody is there"
            }
            At::LLook if p.index < state.used => {
                p.index += 1;
                "one is free"
            }
            At::LLook => {
                p.at = At::LTell;
                "all are gone"
            }
            At::LTell => {
                self.bump(&mut state, &mut p, FP);
                p.at = At::LTellWake;
                "tells: A+1"
            }
            _ => {
                let kind = state.wake_all(A);
                // Its own life goes on from the beginning.
                p = state.processes[self.me];
                self.is_out(&mut p);
                state.processes[self.me] = p;
                next.push(Step { who: self.me, what: "tells all", kind, state });
                return;
            }
        };
        self.go(next, what, state, p);
    }

    fn is_out(&self, p: &mut Process) {
        *p = Process::new(At::TStart, p.left, p.visits.saturating_sub(1));
    }

    fn touch(&self, state: &mut State, p: &mut Process) {
        if state.sleepers() {
            self.bump(state, p, FP);
        }
    }
}
