//! Acquire; what is done under the lock; close.

use super::state::{At, C, End, P, Process, a, kb};
use super::{ALL, Bug, Role, Steps, Turn};
use crate::checker::{Kind, Step};
use crate::kernel::{Low, tid};

impl Turn<'_> {
    pub(super) fn acquire(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let [mine, _] = self.sides();
        let low = state.words[mine];
        let what = match p.at {
            At::Try if low.is_free() => {
                let died = low.has(Low::OD);
                state.forget(me);
                p.forget();
                if self.is(Bug::SlowTakeKeepsEpoch) {
                    state.words[mine] = Low(tid(me) | low.0 & Low::W);
                    state.link(me, mine);
                    state.clear_pending(me);
                } else {
                    state.take(me, mine);
                }
                p.at = At::Look;
                if died && state.own.closed && !self.is(Bug::CloseNotRepeatedByTaker) {
                    p.at = At::NotifyP;
                }
                "takes, pending = 0"
            }
            At::Try if p.late => {
                p = Process::default();
                "gives up"
            }
            At::Try => {
                state.register(mine);
                state.note(me, mine);
                p.at = At::WaitKb;
                "registers"
            }
            At::WaitKb => {
                state.hands[me].enter(self.lock_futex(mine));
                p.at = At::WaitLock;
                "queues on kb"
            }
            At::WaitLock if low == self.hand().seen[mine] => {
                state.queue_word(me, mine);
                p.at = At::Contending;
                "sleeps"
            }
            At::Contending if !self.hand().woken => return,
            _ => {
                state.forget(me);
                p.forget();
                p.at = At::Try;
                "looks again"
            }
        };
        self.go(next, what, state, p);
    }

    /// The futex through which living processes wake waiters for the lock.
    pub(super) fn lock_futex(&self, side: usize) -> usize {
        if self.is(Bug::WakersUseLockWord) { side } else { kb(side) }
    }

    /// Under the lock: looks, commits, passes on.
    pub(super) fn inside(&self, next: &mut Steps) {
        let (mut state, mut p) = (*self.before, self.p);
        let early = self.is(Bug::PassMarkedBeforeWaking);
        let what = match p.at {
            At::Look => match self.model.roles[self.me] {
                Role::Producer { .. } | Role::Closer if state.own.closed => {
                    (p.end, p.at) = (End::Closed, At::Release);
                    "closed"
                }
                Role::Closer => {
                    p.at = if self.is(Bug::CloserDoesNotRegister) { At::Close } else { At::CloseRegister };
                    "will close"
                }
                Role::Producer { size, .. } if self.model.room(&state) >= size => {
                    state.own.big |= u8::from(size == 2) << state.own.count;
                    state.own.count += 1;
                    (p.messages, p.end, p.at) = (p.messages - 1, End::Done, At::Release);
                    "commits"
                }
                Role::Producer { .. } => {
                    p.at = match self.run.has_room_to_pass(&state) && !self.is(Bug::NoPassOn) {
                        false => At::Release,
                        true if self.model.nother(&state, C) => At::PassAdvance,
                        true => At::PassMark,
                    };
                    "full"
                }
                Role::Consumer { .. } if state.own.count > 0 => {
                    (state.own.big, state.own.count) = (state.own.big >> 1, state.own.count - 1);
                    state.own.passed = false;
                    p.messages = p.messages.saturating_sub(u8::from(p.messages != ALL));
                    (p.end, p.at) = (End::Done, At::Release);
                    "commits"
                }
                Role::Consumer { .. } => {
                    p.at = At::Release;
                    if state.own.closed {
                        p.end = End::Closed;
                    }
                    "empty"
                }
            },
            At::PassAdvance => {
                state.advance(C);
                p.at = if early { At::PassMark } else { At::PassWake };
                "passes on: A + 1"
            }
            At::PassWake => {
                let then = if early { At::Release } else { At::PassMark };
                if self.is(Bug::PassOnToOne) {
                    return self.wake(next, a(C), "passes on to one", |p, _| p.at = then);
                }
                return self.wake_all(next, a(C), "passes on to all", |p| p.at = then);
            }
            _ => {
                state.own.passed = true;
                p.at = if early { At::PassWake } else { At::Release };
                "passed = head"
            }
        };
        self.go(next, what, state, p);
    }

    /// Close, and its repetition.
    pub(super) fn close(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let [mine, _] = self.sides();
        let mut kind = Kind::Own;
        let what = match p.at {
            At::CloseRegister => {
                state.register(mine);
                p.at = At::Close;
                "registers with itself"
            }
            At::Close => {
                state.own.closed = true;
                let late = self.is(Bug::CloseWakesAfterRelease) || self.is(Bug::CloseWakesAfterReleaseArmed);
                (p.end, p.at) = (End::Closed, if late { At::Release } else { At::NotifyP });
                "closed = true"
            }
            At::NotifyP => {
                state.advance(P);
                p.at = At::NotifyPWake;
                "notifies: A of P + 1"
            }
            At::NotifyPWake => {
                kind = state.wake_all(a(P));
                p.at = At::NotifyC;
                "wakes all on A of P"
            }
            At::NotifyC => {
                state.advance(C);
                p.at = At::NotifyCWake;
                "notifies: A of C + 1"
            }
            _ => {
                kind = state.wake_all(a(C));
                match state.holds(me, mine) {
                    true => p.at = if p.end == End::Closed { At::Release } else { At::Look },
                    false if self.model.roles[me] == Role::Closer => p = Process::default(),
                    false => p.at = At::HandOver,
                }
                "wakes all on A of C"
            }
        };
        state.processes[me] = p;
        next.push(Step { process: me, what, kind, state });
    }
}
