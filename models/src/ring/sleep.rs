//! Nothing found: a process sleeps on the other side, holding nothing; and what it does when it is woken.

use super::state::{At, WORDS, a};
use super::{Brief, Bug, State, Steps, Turn};
use crate::kernel::Queued;

impl Turn<'_> {
    pub(super) fn sleep(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let [mine, other] = self.sides();
        let recheck_first = self.is(Bug::RecheckBeforeRegister);
        let read_last = self.is(Bug::OwnLockReadAfterRecheck);
        let what = match p.at {
            At::Register => {
                state.register(other);
                state.note(me, other);
                state.hands[me].set_fresh(other, true);
                p.at = if read_last && !recheck_first { At::Recheck } else { At::ReadMine };
                "registers with the other side"
            }
            At::ReadMine => {
                state.note(me, mine);
                p.at = if recheck_first || read_last { self.wait_first() } else { At::Recheck };
                "reads my L"
            }
            At::Recheck if self.model.is_ready(&state, me) => {
                state.forget(me);
                p.forget();
                (p.brief, p.at) = (self.model.brief == Brief::Only, At::Start);
                "need not sleep"
            }
            At::Recheck => {
                p.at = match () {
                    () if recheck_first => At::Register,
                    () if read_last => At::ReadMine,
                    () => self.wait_first(),
                };
                "must sleep"
            }
            At::WaitA | At::WaitMine | At::WaitOther => {
                let queued = match p.at {
                    At::WaitA => {
                        let same = self.hand().is_fresh(other) || self.is(Bug::EpochNotCompared);
                        state.hands[me].set_fresh(other, false);
                        state.queue(me, a(other), same)
                    }
                    At::WaitMine => state.queue_word(me, mine),
                    _ => state.queue_word(me, other),
                };
                match queued {
                    Queued::Yes => {
                        p.at = self.wait_after();
                        if p.at == At::Asleep {
                            state.hands[me].seen = [Default::default(); WORDS];
                            state.hands[me].forget_epochs();
                        }
                        if p.at == At::Asleep { "sleeps" } else { "queues" }
                    }
                    Queued::Woken => {
                        // It queues on A last: a lock word has woken it.
                        (p.by_lock, p.at) = (self.is(Bug::DutyByLastIndex), At::Woken);
                        "woken while it queues"
                    }
                    Queued::Changed => {
                        p.forget();
                        p.at = if recheck_first { At::Recheck } else { At::Register };
                        "EAGAIN"
                    }
                }
            }
            At::Asleep if p.brief && self.model.brief == Brief::First => {
                state.forget(me);
                p.forget();
                (p.brief, p.at) = (false, At::Start);
                "brief sleep ends"
            }
            _ => return,
        };
        self.go(next, what, state, p);
    }

    /// Woken: duty first, then the hand-over.
    pub(super) fn wake_up(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let [mine, other] = self.sides();
        let what = match p.at {
            At::Asleep => {
                // The index that `futex_waitv` returns is the last one woken in the order of the list: with A
                // last, a lock word is seen only if A was not woken too.
                p.by_lock = self.is(Bug::DutyByLastIndex) && self.hand().is_queued(a(other));
                p.at = At::Woken;
                "wakes up"
            }
            At::Woken => {
                let duty = match () {
                    () if self.is(Bug::NoDuty) => false,
                    () if self.is(Bug::DutyByLastIndex) => p.by_lock,
                    () => true,
                };
                state.forget(me);
                p.forget();
                p.brief = self.model.brief == Brief::Only;
                p.at = if duty { At::DutyOther } else { self.run.after_duty(&state) };
                "leaves all queues"
            }
            At::DutyOther | At::DutyMine => {
                let (side, then) =
                    if p.at == At::DutyOther { (other, At::DutyMine) } else { (mine, At::DutyAdvance) };
                if state.words[side].is_deserted() && self.model.nwait(&state, side) {
                    return self
                        .wake(next, self.lock_futex(side), "duty: wakes a waiter", |p, _| p.at = then);
                }
                p.at = then;
                "duty: the lock is well"
            }
            At::DutyAdvance if self.has_duty_on_a(&state) => {
                state.advance(mine);
                p.at = At::DutyA;
                "duty: my A + 1"
            }
            At::DutyAdvance => {
                p.at = self.run.after_duty(&state);
                "duty: no process sleeps"
            }
            At::DutyA => {
                let then = self.run.after_duty(&state);
                return self.wake(next, a(mine), "duty: wakes one on my A", |p, _| p.at = then);
            }
            _ => {
                if !self.is(Bug::NoHandOverRegister) {
                    state.register(mine);
                }
                state.forget(me);
                p.forget();
                p.at = At::Start;
                "hand-over: registers"
            }
        };
        self.go(next, what, state, p);
    }

    fn has_duty_on_a(&self, state: &State) -> bool {
        let [mine, _] = self.sides();
        let sleeps = state.words[mine].is_deserted() && self.model.nother(state, mine);
        sleeps && self.run.has_new_work(state, mine)
    }
}
