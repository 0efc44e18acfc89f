//! Consumers sleep for a job, joiners for the last one to be done; and what each does when it is woken.

use super::state::{A, At, C, For, JOINERS, KB, P, Process, REVIVED, S, SEQ, Says, WORDS};
use super::{Bug, Lease, State, Steps, Turn};
use crate::kernel::Queued;

impl Turn<'_> {
    pub(super) fn sleep(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let (model, joins) = (self.model, self.model.joins(me));
        let what = match p.at {
            At::Decide if !joins && model.is_over(&state, me) => {
                p = Process::default();
                "the end"
            }
            At::Decide => {
                (p.watch, p.at) = (state.own.used, At::Arm);
                let starved = state.own.has_data() && !model.has_lease(&state);
                state.own.starved |= self.is(Bug::StarvedForgotten) && starved;
                "must wait"
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
                state.hands[me].set_fresh(JOINERS, joins);
                p.at = At::Ready;
                "notes the words"
            }
            At::Ready => self.ready(&mut state, &mut p, joins),
            At::ReadyStarved if model.has_lease(&state) => self.awake(&mut state, &mut p),
            At::ReadyStarved => {
                p.at = At::ReadyBack;
                "no lease"
            }
            At::ReadyBack if p.index >= state.own.used => {
                (p.index, p.at) = (0, At::Queue);
                "must sleep"
            }
            At::ReadyBack if self.run.is_back(&state, p.index.into()) => self.awake(&mut state, &mut p),
            At::ReadyBack => {
                p.index += 1;
                "is not back"
            }
            At::Queue => self.queue(&mut state, &mut p, joins),
            At::Asleep if !self.hand().woken => return,
            At::Asleep => {
                p.at = At::Woken;
                "wakes up"
            }
            At::Woken => {
                state.forget(me);
                p.forget();
                p.at = At::DutyKb;
                "leaves all queues"
            }
            At::DutyKb => {
                if state.words[C].is_deserted() && Lease::waiters(&state) {
                    return self.wake(next, KB, "duty: wakes a waiter for C", |p, _| p.at = At::NotifyAgain);
                }
                p.at = At::NotifyAgain;
                "duty: C is well"
            }
            At::NotifyAgain => {
                let notifies = joins || !self.is(Bug::WokenNotifiesNone);
                if model.closed && self.is(Bug::WokenNotifiesAll) {
                    p.at = At::EndAdvance;
                } else if (model.joiners(&state) || model.closed) && notifies {
                    p.scan(For::NotifyAgain);
                } else {
                    p.at = self.after_notifying_again();
                }
                "is there anything to notify again?"
            }
            At::PassOn if model.sleepers(&state) && self.run.has_job(&state) => {
                state.advance(P);
                p.at = At::PassWake;
                "passes on: A + 1"
            }
            At::PassOn => {
                p.at = At::HandOver;
                "nothing to pass on"
            }
            At::PassWake => return self.wake(next, A, "passes on", |p, _| p.at = At::HandOver),
            _ => {
                state.register(C);
                self.awake(&mut state, &mut p);
                "hand-over: registers with C"
            }
        };
        self.go(next, what, state, p);
    }

    /// Looks without a lock: what the process waits for may have come.
    fn ready(&self, state: &mut State, p: &mut Process, joins: bool) -> &'static str {
        let (model, used) = (self.model, state.own.used);
        let one_more = p.watch != used && !self.is(Bug::LeasesCountedOnce);
        if one_more || (joins && self.run.is_half_moved(state)) {
            return self.awake(state, p);
        }
        if joins {
            p.scan(For::Ready);
            return "is all done?";
        }
        if (state.own.has_data() && model.has_lease(state)) || model.is_over(state, self.me) {
            return self.awake(state, p);
        }
        p.at = At::ReadyBack;
        if state.own.has_data() && !self.is(Bug::StarvedForgotten) {
            (state.own.starved, p.at) = (true, At::ReadyStarved);
        }
        "nothing new"
    }

    /// The kernel compares one word and queues on it: the leases, C, P, the epoch last.
    fn queue(&self, state: &mut State, p: &mut Process, joins: bool) -> &'static str {
        let (me, watched) = (self.me, self.watched());
        let (futex, epoch) = match usize::from(p.index).checked_sub(watched) {
            None => (S + usize::from(p.index), None),
            Some(0) => (C, None),
            Some(1) => (P, None),
            _ if joins => (SEQ, Some(JOINERS)),
            _ => (A, Some(P)),
        };
        let queued = match epoch {
            None => state.queue_word(me, futex),
            Some(epoch) => state.queue(me, futex, self.hand().is_fresh(epoch)),
        };
        match queued {
            Queued::Woken => {
                p.at = At::Woken;
                "woken while it queues"
            }
            Queued::Changed => {
                let watch = p.watch;
                p.forget();
                (p.watch, p.at) = (watch, At::Register);
                "EAGAIN"
            }
            Queued::Yes if futex < WORDS => {
                p.index += 1;
                "queues"
            }
            Queued::Yes => {
                state.hands[me].forget_epochs();
                (p.index, p.watch, p.at) = (0, 0, At::Asleep);
                "sleeps"
            }
        }
    }

    fn watched(&self) -> usize {
        if self.is(Bug::LeasesUnwatched) { 0 } else { self.p.watch.into() }
    }

    /// Leaves the sleep, and looks with the lock.
    pub(super) fn awake(&self, state: &mut State, p: &mut Process) -> &'static str {
        state.forget(self.me);
        p.forget();
        (p.counted, p.at) = (false, self.model.begins(self.me));
        "need not sleep"
    }

    fn after_notifying_again(&self) -> At {
        let passes = self.model.joins(self.me) && !self.is(Bug::JoinerKeepsWake);
        if passes { At::PassOn } else { At::HandOver }
    }

    /// `is_finished`, for whatever asks it; and whom it notifies.
    pub(super) fn finished(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::JStart if self.run.is_half_moved(&state) => {
                (p.at, p.left) = (At::GStart, 1);
                "a lease is half moved"
            }
            At::JStart => {
                p.scan(For::Join);
                "is all done?"
            }
            At::FHead if state.own.has_data() => self.found(&mut state, &mut p, false),
            At::FHead => {
                (p.head, p.index, p.at) = (state.own.head, 0, At::FLease);
                state.hands[me].set_fresh(REVIVED, self.model.letter);
                "the log is empty"
            }
            At::FLease if p.index >= state.own.used => {
                p.at = At::FSame;
                "all are free"
            }
            At::FLease if state.own.jobs[usize::from(p.index)].says != Says::Free => {
                self.found(&mut state, &mut p, false)
            }
            At::FLease => {
                p.index += 1;
                "it is free"
            }
            At::FSame if self.is(Bug::FinishedWithoutSecondLook) => self.found(&mut state, &mut p, true),
            At::FSame if state.own.head != p.head || self.hand().is_fresh(REVIVED) != self.model.letter => {
                self.found(&mut state, &mut p, false)
            }
            At::FSame => {
                p.at = At::FEmpty;
                "the same head"
            }
            At::FEmpty => {
                let empty = state.own.puts <= p.head;
                self.found(&mut state, &mut p, empty)
            }
            At::SeqAdvance => {
                state.advance(JOINERS);
                p.at = At::SeqWake;
                "all is done: the joiners' epoch + 1"
            }
            At::SeqWake => {
                return self.wake_all(next, SEQ, "wakes joiners", |p| p.at = self.after_joiners());
            }
            At::EndAdvance => {
                state.advance(P);
                p.at = At::EndWake;
                "the end: A + 1"
            }
            _ => return self.wake_all(next, A, "wakes consumers", |p| p.at = self.after_notifying_again()),
        };
        self.go(next, what, state, p);
    }

    fn after_joiners(&self) -> At {
        match self.p.purpose {
            For::Done => At::DStarved,
            _ if self.model.closed => At::EndAdvance,
            _ => self.after_notifying_again(),
        }
    }

    /// What the look was for.
    fn found(&self, state: &mut State, p: &mut Process, finished: bool) -> &'static str {
        (p.head, p.index) = (0, 0);
        state.hands[self.me].set_fresh(REVIVED, false);
        match (p.purpose, finished) {
            (For::Join, true) if p.instant => *p = Process::default(),
            (For::Join, true) => *p = Process { at: At::Early, ..Process::default() },
            (For::Join, false) => p.at = At::Decide,
            (For::Ready, true) => {
                self.awake(state, p);
            }
            (For::Ready, false) => p.at = At::Queue,
            (_, true) => p.at = At::SeqAdvance,
            (For::Done, false) => p.at = At::DStarved,
            (For::NotifyAgain, false) => p.at = self.after_notifying_again(),
        }
        if !matches!(p.at, At::FHead | At::SeqAdvance) {
            (p.purpose, p.instant) = (For::Join, false);
        }
        if finished { "all is done" } else { "not all is done" }
    }
}
