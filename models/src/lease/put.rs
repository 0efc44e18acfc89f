//! Put.

use super::{A, At, COUNTS, FP, P, Process, State, Turn, tid};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    /// A producer: the lock, the commit, one wake.
    pub(super) fn put(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[P]);
        let what = match p.at {
            At::PStart if p.left == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::PStart => {
                (p.pending, p.at) = (tid(P), At::PTry);
                "pending = P"
            }
            At::PTry if low.owner() != 0 => return,
            At::PTry => {
                state.low[P] = Low(tid(self.me) | low.0 & Low::W);
                if low != Low(0) {
                    state.bump(FP);
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
            At::PBump if !self.lease.sleepers(&state) => {
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
                (p.fresh, p.keep, p.at) = ([false; COUNTS], false, At::PDisarm);
                "clears W, if it is still its"
            }
            _ => {
                (p.pending, p.at) = (0, At::PStart);
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}
