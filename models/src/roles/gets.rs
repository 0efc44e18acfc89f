//! A consumer: the lock, a message, or the question whether all are gone.

use super::{A, At, Bug, C, FC, FP, KB, Process, S, State, Turn, tid};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    /// With the lock: a message, if there is one; and one wake for the next.
    pub(super) fn get(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[C]);
        let what = match p.at {
            At::GStart if p.left == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::GStart => {
                (p.pending, p.at) = (tid(C), At::GTry);
                "pending = C"
            }
            At::GTry if low.owner() == 0 => {
                state.low[C] = Low(tid(self.me) | low.0 & Low::W);
                if low != Low(0) {
                    state.bump(FC);
                }
                p.forget();
                (p.pending, p.at) = (0, At::Look);
                "takes C"
            }
            At::GTry => {
                state.announce(C);
                // Its own count may have moved with it.
                p = state.processes[self.me];
                (p.seen[C], p.at) = (state.low[C], At::WaitKb);
                "announces to C"
            }
            At::WaitKb => {
                (p.queued, p.at) = (p.queued | 1 << KB, At::WaitLock);
                "queues on kb"
            }
            At::WaitLock if low == p.seen[C] => {
                (p.queued, p.seen[C], p.at) = (p.queued | 1 << C, Low(0), At::Contending);
                "sleeps for C"
            }
            At::Contending if !p.rung => return,
            At::WaitLock | At::Contending => {
                p.forget();
                p.at = At::GTry;
                "wakes for C"
            }
            At::Look => {
                if state.has_data() {
                    (state.head, p.got) = (state.head + 1, true);
                }
                p.at = At::CRelease;
                "looks"
            }
            At::CRelease => {
                state.low[C].0 &= Low::W;
                let settles = low.has(Low::W);
                (p.pending, p.fresh[FC], p.at) = (tid(C), settles, if settles { At::WakeKb } else { At::Disarm });
                "releases C"
            }
            At::WakeKb if state.contenders() => {
                return self.wake(next, KB, "wakes a contender", |p, woke| (p.keep, p.at) = (p.keep | woke, At::Chain));
            }
            At::WakeKb => {
                p.at = At::Chain;
                "nobody contends"
            }
            At::Chain if state.sleepers() && state.has_data() => {
                self.bump(&mut state, &mut p, FP);
                p.at = At::ChainWake;
                "chains: A+1"
            }
            At::Chain => {
                p.at = At::Clear;
                "nothing to chain"
            }
            At::ChainWake => return self.wake(next, A, "chains", |p, _| p.at = At::Clear),
            At::Clear => {
                if low == Low(Low::W) && p.fresh[FC] && !p.keep {
                    state.low[C] = Low(0);
                }
                (p.fresh[FC], p.keep, p.at) = (false, false, At::Disarm);
                "clears W, if it is still its"
            }
            _ => {
                (p.pending, p.at) = (0, self.roles.after_leaving(p.got));
                if p.got && p.left != super::ALL {
                    p.left -= 1;
                }
                p.got = false;
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }

    /// `has_ended`: nobody is there, nothing is there, and nobody has come meanwhile.
    pub(super) fn decide(&self, next: &mut Vec<Step<State>>) {
        let (state, mut p) = (*self.before, self.p);
        let roles = self.roles;
        let seat = S + usize::from(p.index);
        let what = match p.at {
            At::Decide if state.used == 0 || roles.is_guest(self.me) => {
                p.at = At::Wait;
                "none has come"
            }
            At::Decide => {
                (p.used, p.at) = (state.used, if roles.is(Bug::EmptyFirst) { At::Empty } else { At::Once });
                "are they gone?"
            }
            At::Once if p.index >= p.used => {
                (p.index, p.at) = (0, if roles.is(Bug::EmptyFirst) { At::AgainUsed } else { At::Empty });
                "all are free"
            }
            At::Once if state.is_held(p.index) => self.must_wait(&mut p),
            At::Once => {
                (p.fresh[seat], p.index) = (true, p.index + 1);
                "one is free"
            }
            At::Empty if state.has_data() => self.must_wait(&mut p),
            At::Empty if roles.is(Bug::OneLook) => self.closed(&mut p),
            At::Empty => {
                p.at = if roles.is(Bug::EmptyFirst) { At::Once } else { At::AgainUsed };
                "it is empty"
            }
            At::AgainUsed if state.used != p.used => self.must_wait(&mut p),
            At::AgainUsed => {
                p.at = At::Again;
                "as many as before"
            }
            At::Again if p.index >= p.used => self.closed(&mut p),
            At::Again if state.is_held(p.index) || !p.fresh[seat] => self.must_wait(&mut p),
            _ => {
                (p.fresh[seat], p.index) = (false, p.index + 1);
                "nobody has come"
            }
        };
        self.go(next, what, state, p);
    }

    fn must_wait(&self, p: &mut Process) -> &'static str {
        p.forget();
        p.at = At::Wait;
        "must wait"
    }

    fn closed(&self, p: &mut Process) -> &'static str {
        *p = Process { at: if p.instant { At::Gone } else { At::Early }, ..Process::GONE };
        "closed"
    }
}
