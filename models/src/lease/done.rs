//! Done, and given back.

use super::state::{A, At, C, For, JOINERS, P, S, Says};
use super::{Bug, Steps, Turn};

impl Turn<'_> {
    pub(super) fn done(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let lease = usize::from(p.lease).saturating_sub(1);
        let late = self.is(Bug::FreeAfterRelease);
        let (sleepers, joiners) = (self.model.sleepers(&state), self.model.joiners(&state));
        let what = match p.at {
            At::DCount => {
                if joiners && !self.is(Bug::DoneKeepsJoinersEpoch) {
                    state.advance(JOINERS);
                }
                if sleepers && !self.is(Bug::DoneKeepsEpoch) {
                    state.advance(P);
                }
                p.at = if late { At::DRelease } else { At::DFree };
                "done: both epochs + 1"
            }
            At::DFree => {
                state.own.jobs[lease].says = Says::Free;
                state.own.done |= 1 << state.own.jobs[lease].number;
                p.at = if late { At::DNotify } else { At::DRelease };
                "FREE"
            }
            At::DRelease => {
                state.release_watched(me, S + lease);
                if self.is(Bug::NotifiesUnarmed) {
                    state.clear_pending(me);
                }
                p.at = if late { At::DFree } else { At::DNotify };
                "releases the lease"
            }
            At::DNotify => {
                p.at = At::DStarved;
                if joiners {
                    p.scan(For::Done);
                }
                "does any process join?"
            }
            At::DStarved => {
                let ended = self.model.closed && !state.own.has_data();
                let starved = state.own.starved;
                p.keep = ended || (starved && self.is(Bug::StarvedForgotten));
                state.own.starved &= !self.is(Bug::StarvedForgotten);
                p.at = if (starved || ended) && sleepers { At::DAdvance } else { At::DDisarm };
                "does any process wait for a lease?"
            }
            At::BAdvance if !sleepers => {
                p.at = At::DDisarm;
                "no consumer sleeps"
            }
            At::DAdvance | At::BAdvance => {
                state.advance(P);
                p.at = if p.at == At::BAdvance { At::BWake } else { At::DWake };
                "A + 1"
            }
            At::DWake if p.keep => return self.wake_all(next, A, "wakes all", |p| p.at = At::DDisarm),
            At::DWake | At::BWake => return self.wake(next, A, "wakes one", |p, _| p.at = At::DDisarm),
            At::DDisarm => {
                state.clear_pending(me);
                p.rest(state.holds(me, C));
                "pending = 0"
            }
            At::BCount => {
                if sleepers && !self.is(Bug::BackKeepsEpoch) {
                    state.advance(P);
                }
                p.at = At::BRelease;
                "gives back: A + 1"
            }
            _ => {
                state.release_watched(me, S + lease);
                (p.at, p.left) = (At::BAdvance, 0);
                "releases the lease"
            }
        };
        self.go(next, what, state, p);
    }
}
