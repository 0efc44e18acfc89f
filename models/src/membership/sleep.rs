//! A consumer sleeps for a message, or until all producers have disconnected; and what it does when it is
//! woken.

use super::state::{A, At, C, KB, P, Process, S, WORDS};
use super::{Bug, Membership, State, Steps, Turn};
use crate::kernel::Queued;

impl Turn<'_> {
    pub(super) fn sleep(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let (guest, used) = (self.model.is_guest(me), state.own.used);
        let what = match p.at {
            At::Wait => {
                (p.used, p.at) = (if guest { 0 } else { used }, At::Arm);
                "decides what to watch"
            }
            At::Arm => {
                state.set_pending(me, P);
                (p.counted, p.at) = (true, At::Register);
                "pending = P, counts itself"
            }
            At::Register => {
                state.register(P);
                state.note(me, P);
                state.hands[me].set_fresh(P, true);
                p.at = At::Note;
                "registers with P"
            }
            At::Note => {
                for word in std::iter::once(C).chain(S..S + self.watched()) {
                    state.note(me, word);
                }
                p.at = At::Ready;
                "notes the words"
            }
            At::Ready if state.own.has_data() => self.awake(&mut state, &mut p),
            At::Ready => {
                p.at = if guest { At::Queue } else { At::ReadyMember };
                "nothing there"
            }
            At::ReadyMember if p.index >= p.used && p.used > 0 => self.awake(&mut state, &mut p),
            At::ReadyMember if p.index >= p.used || Membership::is_taken(&state, p.index) => {
                (p.index, p.at) = (0, if self.is(Bug::NoSecondLook) { At::Queue } else { At::ReadyUsed });
                "a member is there"
            }
            At::ReadyMember => {
                p.index += 1;
                "it is free"
            }
            At::ReadyUsed if used != p.used => self.awake(&mut state, &mut p),
            At::ReadyUsed => {
                p.at = At::Queue;
                "must sleep"
            }
            At::Queue => self.queue(&mut state, &mut p),
            At::Asleep if !self.hand().woken => return,
            At::Asleep => {
                p.at = At::Woken;
                "wakes up"
            }
            At::Woken => {
                state.forget(me);
                p.forget();
                (p.used, p.at) = (self.p.used, At::DutyKb);
                "leaves all queues"
            }
            At::DutyKb => {
                if state.words[C].is_deserted() && Membership::waiters(&state) {
                    return self.wake(next, KB, "duty: wakes a waiter for C", |p, _| p.at = At::NotifyAgain);
                }
                p.at = At::NotifyAgain;
                "duty: C is well"
            }
            At::NotifyAgain if guest => {
                p.at = At::HandOver;
                "notifies none"
            }
            At::NotifyAgain if used != p.used => self.one_more(&mut p),
            At::NotifyAgain => {
                p.at = At::AgainMember;
                "have all disconnected?"
            }
            At::AgainMember if p.index < p.used && !Membership::is_taken(&state, p.index) => {
                p.index += 1;
                "it is free"
            }
            At::AgainMember if p.index >= p.used && p.used > 0 && !self.is(Bug::WokenNotifiesNone) => {
                p.at = At::RNotify;
                "all have disconnected"
            }
            At::AgainMember => {
                p.at = At::NotifyAgainUsed;
                "a member is there"
            }
            At::NotifyAgainUsed if used != p.used => self.one_more(&mut p),
            At::NotifyAgainUsed => {
                p.at = At::HandOver;
                "as many as before"
            }
            At::RNotify => {
                state.advance(P);
                p.at = At::RNotifyWake;
                "notifies: A + 1"
            }
            At::RNotifyWake => return self.wake_all(next, A, "wakes all", |p| p.at = At::HandOver),
            _ => {
                state.register(C);
                self.awake(&mut state, &mut p);
                "hand-over: registers with C"
            }
        };
        self.go(next, what, state, p);
    }

    /// There are more memberships than it watched.
    fn one_more(&self, p: &mut Process) -> &'static str {
        p.at = if self.is(Bug::FirstUseNotNotifiedAgain) { At::HandOver } else { At::RNotify };
        "there is one more"
    }

    /// The kernel compares one word and queues on it: the memberships, C, P, the epoch last.
    fn queue(&self, state: &mut State, p: &mut Process) -> &'static str {
        let watched = self.watched();
        let futex = match usize::from(p.index).checked_sub(watched) {
            None => S + usize::from(p.index),
            Some(0) => C,
            Some(1) => P,
            _ => A,
        };
        let queued = match futex {
            A => state.queue(self.me, A, self.hand().is_fresh(P)),
            word => state.queue_word(self.me, word),
        };
        match queued {
            Queued::Woken => {
                p.at = At::Woken;
                "woken while it queues"
            }
            Queued::Changed => {
                let used = p.used;
                p.forget();
                (p.used, p.at) = (used, At::Register);
                "EAGAIN"
            }
            Queued::Yes if futex < WORDS => {
                p.index += 1;
                "queues"
            }
            Queued::Yes => {
                state.hands[self.me].forget_epochs();
                (p.index, p.at) = (0, At::Asleep);
                "sleeps"
            }
        }
    }

    /// The memberships that were ever taken, and the next.
    fn watched(&self) -> usize {
        let next = u8::from(!self.is(Bug::NextUnwatched));
        match self.model.is_guest(self.me) || self.is(Bug::MembershipsUnwatched) {
            true => 0,
            false => (self.p.used + next).min(self.model.memberships).into(),
        }
    }

    /// Leaves the sleep, and looks with the lock.
    pub(super) fn awake(&self, state: &mut State, p: &mut Process) -> &'static str {
        state.forget(self.me);
        p.forget();
        (p.counted, p.at) = (false, At::GStart);
        "need not sleep"
    }
}
