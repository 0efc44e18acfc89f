//! Done, and given back.

use super::{A, At, Bug, C, FP, FSEQ, For, Low, S, Says, State, Turn, tid};
use crate::checker::Step;

impl Turn<'_> {
    pub(super) fn done(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let lease = self.lease;
        let slot = usize::from(p.slot).saturating_sub(1);
        let late = lease.is(Bug::FreeAfterRelease);
        let what = match p.at {
            At::DCount => {
                if lease.joiners(&state) && !lease.is(Bug::CountStays) {
                    state.bump(FSEQ);
                }
                if lease.sleepers(&state) && !lease.is(Bug::DoneStays) {
                    state.bump(FP);
                }
                p = state.processes[self.me];
                p.at = if late { At::DRelease } else { At::DFree };
                "done: both counts + 1"
            }
            At::DFree => {
                state.slots[slot].says = Says::Free;
                state.done |= 1 << state.slots[slot].number;
                p.at = if late { At::DTell } else { At::DRelease };
                "FREE"
            }
            At::DRelease => {
                state.low[S + slot] = Low(Low::W);
                p.pending = if lease.is(Bug::ToldUnarmed) { 0 } else { tid(S + slot) };
                p.at = if late { At::DFree } else { At::DTell };
                "releases the slot"
            }
            At::DTell => {
                p.at = At::DStarved;
                if lease.joiners(&state) {
                    p.scan(For::Done);
                }
                "does anybody join?"
            }
            At::DStarved => {
                let ended = lease.closed && !state.has_data();
                p.keep = ended || (state.starved && lease.is(Bug::StarvedForgotten));
                let tells = (state.starved || ended) && lease.sleepers(&state);
                state.starved &= !lease.is(Bug::StarvedForgotten);
                p.at = if tells { At::DBump } else { At::DDisarm };
                "does anybody wait for a slot?"
            }
            At::DBump | At::BBump => {
                let gives_back = p.at == At::BBump;
                if gives_back && !lease.sleepers(&state) {
                    p.at = At::DDisarm;
                } else {
                    state.bump(FP);
                    p = state.processes[self.me];
                    p.at = if gives_back { At::BWake } else { At::DWake };
                }
                "A+1, if anybody sleeps"
            }
            At::DWake if p.keep => return self.wake_all(next, A, "wakes all", At::DDisarm),
            At::DWake | At::BWake => return self.wake(next, A, "wakes one", |p, _| p.at = At::DDisarm),
            At::DDisarm => {
                p.rest(state.low[C].owner() == tid(self.me));
                "pending = 0"
            }
            At::BCount => {
                if lease.sleepers(&state) && !lease.is(Bug::BackStays) {
                    state.bump(FP);
                }
                p = state.processes[self.me];
                p.at = At::BRelease;
                "gives back: A+1"
            }
            _ => {
                state.low[S + slot] = Low(Low::W);
                (p.pending, p.at, p.left) = (tid(S + slot), At::BBump, 0);
                "gives it back"
            }
        };
        self.go(next, what, state, p);
    }
}
