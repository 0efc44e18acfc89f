//! A place becomes a message, or is given up; and who puts no more lets go of his seat.

use super::state::{At, L, Nap, Process, S, Says, State, tid};
use super::{Bug, Turn};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    pub(super) fn commit(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let word = L + usize::from(p.lock).saturating_sub(1);
        let late = self.is(Bug::GivenFirst);
        let what = match p.at {
            At::XCommit if p.gives_up => {
                state.turns[word - L] += 1;
                p.at = if late { At::XTell } else { At::XTouch };
                "gives up: turn + 1"
            }
            At::XCommit => {
                state.records[usize::from(p.record)].says = Says::Message;
                p.at = if late { At::XTell } else { At::XTouch };
                "commits"
            }
            At::XTouch => {
                self.touch(&mut state, &mut p);
                p.at = At::XRelease;
                "both counts + 1"
            }
            At::XRelease => {
                state.low[word] = Low(Low::W);
                p.pending = if self.is(Bug::ToldUnarmed) { 0 } else { p.lock + tid(S) };
                p.at = if late { At::XCommit } else { At::XTell };
                "releases the lock"
            }
            At::XTell => {
                p.keep = (state.closed || self.places.is_gone(&state)) && !self.is(Bug::EndWakesOne);
                p.at = if state.sleepers(Nap::Data) { At::XBump } else { At::XSeq };
                "does anybody sleep?"
            }
            At::XBump => {
                state.bump(Nap::Data);
                p = Process { at: At::XWake, ..state.processes[self.me] };
                "A+1"
            }
            At::XWake if p.keep => return self.wake_all(next, Nap::Data, "wakes all", |p| p.at = At::XSeq),
            At::XWake => return self.wake(next, Nap::Data.bell(), "wakes one", |p, _| p.at = At::XSeq),
            At::XSeq => {
                self.tell_waiters(&mut state, &mut p, At::XSeqWake, At::XDisarm);
                "does anybody wait for the lock?"
            }
            At::XSeqWake => return self.wake_all(next, Nap::Lock, "tells them", |p| p.at = At::XDisarm),
            At::XDisarm => {
                p.disarm(state.used);
                "pending = 0"
            }
            At::HTouch => {
                for nap in [Nap::Data, Nap::Room] {
                    if state.sleepers(nap) {
                        state.bump(nap);
                    }
                }
                p.at = At::HRelease;
                "both sides: A+1"
            }
            At::HRelease => {
                state.low[S] = Low(Low::W);
                (p.pending, p.at) = (tid(S), At::HGone);
                "releases the seat"
            }
            At::HGone => {
                state.bump(Nap::Data);
                p.at = At::HWake;
                "all are gone: A+1"
            }
            At::HWake => return self.wake_all(next, Nap::Data, "tells all", |p| p.at = At::HDisarm),
            _ => {
                p = Process::GONE;
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}
