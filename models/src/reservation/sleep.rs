//! A process sleeps for a message, for room, or for a lock; and what it does when it is woken.

use super::state::{At, C, For, Front, L, Process, S, WORDS, Wants};
use super::{Bug, Reservation, State, Steps, Turn};
use crate::kernel::Queued;

impl Turn<'_> {
    pub(super) fn sleep(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let [waits_for, own] = p.sides();
        let others = if own == C { Wants::Room } else { Wants::Data };
        let what = match p.at {
            At::Decide => {
                (p.watch, p.wants, p.at) = (state.own.used, Wants::Data, At::Arm);
                if self.is_over(&state) {
                    p.look(For::Ended);
                }
                "must wait, or is this the end?"
            }
            At::Arm => {
                state.set_pending(me, waits_for);
                (p.counted, p.at) = (true, At::Register);
                "pending, counts itself"
            }
            At::Register => {
                state.register(waits_for);
                state.note(me, waits_for);
                if p.wants != Wants::Lock {
                    state.hands[me].set_fresh(p.wants as usize, true);
                }
                p.at = At::Note;
                "registers"
            }
            At::Note => {
                for word in std::iter::once(own).chain(self.watched()) {
                    state.note(me, word);
                }
                if p.wants == Wants::Lock {
                    state.hands[me].set_fresh(Wants::Lock as usize, true);
                }
                p.at = At::Ready;
                "notes the words"
            }
            At::Ready => {
                match p.wants {
                    Wants::Data => p.look(For::Ready),
                    Wants::Room if state.own.closed || self.model.has_room(&state) => {
                        self.awake(&mut state, &mut p)
                    }
                    Wants::Lock if state.own.closed || Reservation::has_free(&state) => {
                        self.awake(&mut state, &mut p)
                    }
                    _ => p.at = At::Queue,
                }
                "looks"
            }
            At::ReadyEnd => {
                p.at = At::ReadyUsed;
                if self.is_over(&state) {
                    p.look(For::ReadyEnd);
                }
                "is this the end?"
            }
            At::ReadyUsed if state.own.used != p.watch && !self.is(Bug::LocksCountedOnce) => {
                self.awake(&mut state, &mut p);
                "one more lock"
            }
            At::ReadyUsed => {
                (p.index, p.at) = (0, At::Queue);
                "no more locks"
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
                p.at = At::PassOn;
                "leaves all queues"
            }
            At::PassOn => {
                p.at = At::NotifyAgain;
                if state.words[own].is_deserted() && Reservation::sleepers(&state, others) {
                    match others {
                        _ if self.is(Bug::PassesOnAlways) => p.at = At::PassAdvance,
                        Wants::Data => {
                            p.over = state.own.closed || self.model.is_disconnected(&state);
                            p.look(For::News);
                        }
                        _ if self.model.has_room(&state) => p.at = At::PassAdvance,
                        _ => {}
                    }
                }
                "passes on?"
            }
            At::PassAdvance => {
                state.advance(others as usize);
                p.at = At::PassWake;
                "passes on: A + 1"
            }
            At::PassWake => {
                return self.wake(next, others.futex(), "passes on", |p, _| p.at = At::NotifyAgain);
            }
            At::LPass => {
                p.at = At::HandOver;
                if Reservation::sleepers(&state, Wants::Data) && !self.is(Bug::WaiterKeepsWake) {
                    p.look(For::Pass);
                }
                "was the wake-up for another?"
            }
            At::LPassAdvance => {
                state.advance(Wants::Data as usize);
                p.at = At::LPassWake;
                "passes on: A + 1"
            }
            At::LPassWake => {
                return self.wake(next, Wants::Data.futex(), "passes on", |p, _| p.at = At::HandOver);
            }
            _ => {
                state.register(own);
                self.awake(&mut state, &mut p);
                "hand-over: registers"
            }
        };
        self.go(next, what, state, p);
    }

    /// Leaves the sleep, and looks with the lock.
    pub(super) fn awake(&self, state: &mut State, p: &mut Process) {
        state.forget(self.me);
        p.forget();
        if p.wants == Wants::Lock {
            state.clear_pending(self.me);
        }
        let at = if self.model.is_getter(self.me) { At::GStart } else { At::PStart };
        (p.counted, p.wants, p.at) = (false, Wants::Data, at);
    }

    fn is_over(&self, state: &State) -> bool {
        state.own.closed || (self.model.is_member(self.me) && self.model.is_disconnected(state))
    }

    fn watched(&self) -> impl Iterator<Item = usize> + use<> {
        let locks = if self.is(Bug::LocksUnwatched) { 0 } else { usize::from(self.p.watch) };
        (L..L + locks).chain(self.model.is_member(self.me).then_some(S))
    }

    /// The kernel compares one word and queues on it: the words that are only watched, the own side, the
    /// other, the epoch last.
    fn queue(&self, state: &mut State, p: &mut Process) -> &'static str {
        let [waits_for, own] = p.sides();
        let mut all = self.watched().chain([own, waits_for, p.wants.futex()]);
        let Some(futex) = all.nth(p.index.into()) else { return "sleeps" };
        let queued = match futex.checked_sub(WORDS) {
            Some(epoch) => state.queue(self.me, futex, self.hand().is_fresh(epoch)),
            None => state.queue_word(self.me, futex),
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
                state.hands[self.me].forget_epochs();
                (p.index, p.watch, p.at) = (0, 0, At::Asleep);
                "sleeps"
            }
        }
    }

    /// What a dead process may have left without a notification.
    pub(super) fn notify_again(&self, next: &mut Steps) {
        let (mut state, mut p) = (*self.before, self.p);
        let what = match p.at {
            At::NotifyAgain if self.is(Bug::WokenNotifiesNone) => {
                (p.at, p.over) = (self.after(), false);
                "notifies none"
            }
            At::NotifyAgain => {
                // With a lock, it notifies as a non-member.
                p.over = if p.counted { self.is_over(&state) } else { state.own.closed };
                p.at = At::RLook;
                if state.own.closed {
                    state.advance(Wants::Room as usize);
                    p.at = At::RRoom;
                }
                "is this the end?"
            }
            At::RRoom => {
                return self.wake_all(next, Wants::Room.futex(), "wakes all that wait for room", |p| {
                    p.at = At::RLook
                });
            }
            At::RLook => {
                p.at = At::RSeq;
                if p.over || self.model.is_disconnected(&state) {
                    p.look(For::NotifyAgain);
                }
                "is the end near?"
            }
            At::RAdvance => {
                state.advance(Wants::Data as usize);
                p.at = At::RWake;
                "notifies getters: A + 1"
            }
            At::RWake => {
                let mut state = *self.before;
                if !p.over && p.front == Front::Empty {
                    state.own.notified = p.head + 1;
                }
                let turn = Turn { before: &state, ..*self };
                return turn.wake_all(next, Wants::Data.futex(), "wakes getters", |p| p.notified(At::RSeq));
            }
            At::RSeq
                if Reservation::sleepers(&state, Wants::Lock)
                    && (state.own.closed || Reservation::has_free(&state)) =>
            {
                state.advance(Wants::Lock as usize);
                p.at = At::RSeqWake;
                "notifies waiters for a lock"
            }
            At::RSeq => {
                (p.at, p.over) = (self.after(), false);
                "no process waits for a lock"
            }
            _ => {
                let then = |p: &mut Process| (p.at, p.over) = (self.after(), false);
                return self.wake_all(next, Wants::Lock.futex(), "wakes waiters for a lock", then);
            }
        };
        self.go(next, what, state, p);
    }

    /// What is at the head, when the end is near.
    pub(super) fn looked_for_notice(&self, state: &State, p: &mut Process, front: Front) {
        let notifies = match front {
            _ if self.is(Bug::NotifiesAgainAlways) => true,
            Front::Filling => false,
            Front::Empty if !p.over => state.own.notified != p.head + 1 && !self.is(Bug::NonMemberForgets),
            Front::Empty | Front::Something => true,
        };
        (p.front, p.at) = (front, At::RAdvance);
        if !notifies {
            p.notified(At::RSeq);
        }
    }

    fn after(&self) -> At {
        match () {
            () if self.p.counted && self.p.wants == Wants::Lock => At::LPass,
            () if self.p.counted => At::HandOver,
            () if self.model.is_getter(self.me) => At::GHead,
            () => At::PBegin,
        }
    }
}

impl Process {
    fn notified(&mut self, at: At) {
        (self.at, self.over, self.head, self.front) = (at, false, 0, Front::Empty);
    }
}
