//! Release, and the hand-over of wake-ups.

use super::state::{At, Process, a};
use super::{Bug, Steps, Turn};
use crate::kernel::Low;

impl Turn<'_> {
    pub(super) fn release(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let [mine, other] = self.sides();
        let what = match p.at {
            At::Release => {
                p.at = if state.release(me, mine) { At::WakeKb } else { At::Disarm };
                if self.is(Bug::PendingClearedBeforeWakes) {
                    state.clear_pending(me);
                }
                "releases"
            }
            At::WakeKb if self.model.nwait(&state, mine) => {
                let then = |p: &mut Process, woke| (p.keep, p.at) = (p.keep | woke, At::Advance);
                return self.wake(next, self.lock_futex(mine), "wakes a waiter for the lock", then);
            }
            At::WakeKb => {
                p.at = At::Advance;
                "no process waits for the lock"
            }
            At::Advance if !self.model.nother(&state, mine) => {
                p.at = At::Chain;
                "no process sleeps"
            }
            At::Advance if self.run.has_no_progress(&state, me) && !self.run.has_new_work(&state, mine) => {
                (p.keep, p.at) = (true, At::Chain);
                "made no progress: lets them sleep"
            }
            At::Advance if self.is(Bug::NoAdvanceAtRelease) => {
                p.at = At::WakeA;
                "does not advance A"
            }
            At::Advance => {
                let changed = state.advance_released(me, mine);
                p.keep |= changed && !self.is(Bug::AdvanceOverwritesSnapshot);
                p.at = At::WakeA;
                "A + 1"
            }
            At::WakeA => {
                let then = |p: &mut Process, woke| (p.keep, p.at) = (p.keep | woke, At::Chain);
                return self.wake(next, a(mine), "wakes one on my A", then);
            }
            At::Chain if self.run.chains(&state, me) => {
                state.advance(other);
                p.at = At::ChainWake;
                "chains: other A + 1"
            }
            At::Chain => {
                p.at = At::Clear;
                "nothing to chain"
            }
            At::ChainWake => return self.wake(next, a(other), "chains", |p, _| p.at = At::Clear),
            _ => {
                let same = self.hand().is_fresh(mine) || self.is(Bug::ClearIgnoresEpoch);
                let clears = state.words[mine] == Low(Low::W) && same && !p.keep;
                if clears {
                    state.words[mine] = Low(0);
                }
                p.at = At::Disarm;
                if clears { "clears W" } else { "leaves W" }
            }
        };
        self.go(next, what, state, p);
    }
}
