//! A process reserves, puts, or closes: what it does with the producers' lock.

use super::state::{At, For, L, P, Process, RECORDS, Record, S, Says, Wants};
use super::{Bug, Reservation, Role, State, Steps, Turn, number};

impl Turn<'_> {
    fn only_puts(&self) -> bool {
        matches!(self.model.roles[self.me], Role::Putter { .. })
    }

    pub(super) fn put(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let lock = usize::from(p.lock).saturating_sub(1);
        let what = match p.at {
            At::PStart if p.left == 0 && state.holds(me, S) => {
                p.at = At::HEpoch;
                "leaves its membership"
            }
            At::PStart if p.left == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::PStart => {
                state.set_pending(me, P);
                p.at = At::PTry;
                "pending = P"
            }
            At::PTry if state.is_held(P) => return,
            At::PTry => {
                p.recovers = state.take(me, P);
                state.forget(me);
                p.forget();
                p.at = if p.recovers { At::PRecover } else { At::PBegin };
                "takes P"
            }
            At::PRecover => {
                while state.own.record(state.own.tail).says != Says::Empty {
                    state.own.tail += 1;
                }
                p.at = if state.own.used > 0 { At::PNotify } else { At::NotifyAgain };
                "recovers"
            }
            At::PNotify => {
                state.advance(P);
                p.at = At::PNotifyWake;
                "recovers: A + 1"
            }
            At::PNotifyWake => {
                return self
                    .wake_all(next, Wants::Data.futex(), "recovers: wakes all", |p| p.at = At::NotifyAgain);
            }
            At::PBegin => {
                p.recovers = false;
                self.begin(&mut state, &mut p)
            }
            At::TPending => {
                state.set_pending(me, L + lock);
                p.at = At::TTake;
                "pending = lock"
            }
            At::TTake => {
                (p.recovers, p.at) = (state.take_watched(me, L + lock), At::TGeneration);
                "takes a lock"
            }
            At::TGeneration => {
                state.own.generations[lock] += 1;
                p.at = At::TEpoch;
                "generation + 1"
            }
            At::TEpoch => {
                let wants = if p.recovers { &[Wants::Data, Wants::Lock][..] } else { &[Wants::Data] };
                if !self.is(Bug::RecovererKeepsEpoch) {
                    advance_if_slept(&mut state, wants);
                }
                (p.at, p.recovers) = (At::TUse, false);
                "the epochs + 1"
            }
            At::TUse => {
                let first = state.own.used < p.lock && !self.is(Bug::FirstUseNotNotified);
                state.own.used = state.own.used.max(p.lock);
                p.at = if first { At::TUseAdvance } else { At::PAppend };
                "uses it"
            }
            At::TUseAdvance => {
                state.advance(P);
                p.at = At::TUseWake;
                "for the first time: A + 1"
            }
            At::TUseWake => {
                return self.wake_all(next, Wants::Data.futex(), "wakes all", |p| p.at = At::PAppend);
            }
            At::PAppend if self.model.has_room(&state) => {
                p.at = At::PHeader;
                "there is room"
            }
            At::PAppend => {
                (p.wants, p.no_progress) = (Wants::Room, true);
                p.at = if self.only_puts() { At::PRelease } else { At::UEpoch };
                "no room"
            }
            At::UEpoch => {
                self.advance_both(&mut state);
                p.at = At::URelease;
                "gives it back: both epochs + 1"
            }
            At::URelease => {
                state.release_watched(me, L + lock);
                (p.lock, p.at) = (0, At::USeq);
                "releases the lock"
            }
            At::USeq => {
                p.at = notify_waiters(&mut state, At::USeqWake, At::PRelease);
                "does any process wait for it?"
            }
            At::USeqWake => {
                return self.wake_all(next, Wants::Lock.futex(), "wakes them", |p| p.at = At::PRelease);
            }
            At::PHeader => {
                let record = match self.only_puts() {
                    true => Record { says: Says::Message, ..Record::EMPTY },
                    false => Record {
                        says: Says::Reserved,
                        lock: p.lock.saturating_sub(1),
                        generation: state.own.generations[lock],
                    },
                };
                state.own.records[usize::from(state.own.tail)] = record;
                (p.record, p.at) = (state.own.tail, At::PTail);
                if self.only_puts() {
                    p.done_one();
                }
                "the header"
            }
            _ => {
                state.own.tail += 1;
                p.at = At::PRelease;
                "the tail"
            }
        };
        self.go(next, what, state, p);
    }

    fn begin(&self, state: &mut State, p: &mut Process) -> &'static str {
        if self.model.roles[self.me] == Role::Closer {
            p.at = At::KRegister;
            return "is to close";
        }
        if state.own.closed || usize::from(state.own.tail) == RECORDS {
            (p.at, p.left, p.no_progress) = (At::PRelease, 0, true);
            return "no more";
        }
        if self.only_puts() {
            p.at = At::PAppend;
            return "puts";
        }
        if let Some(lock) = (0..usize::from(self.model.locks)).find(|lock| !state.is_held(L + lock)) {
            (p.lock, p.at) = (number(lock), At::TPending);
            return "a lock is free";
        }
        (p.wants, p.no_progress, p.at) = (Wants::Lock, true, At::PRelease);
        "no lock is free"
    }

    /// A process that has noted words, and does not sleep yet, looks again.
    pub(super) fn advance_both(&self, state: &mut State) {
        if !self.is(Bug::BackKeepsEpoch) {
            advance_if_slept(state, &[Wants::Data, Wants::Lock]);
        }
    }

    /// Closes; leaves, and wakes others.
    pub(super) fn leave_producers(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::KRegister => {
                state.register(P);
                (p.at, p.left) = (At::KClose, 0);
                "registers with P"
            }
            At::KClose => {
                (state.own.closed, p.at, p.wants) = (true, At::KNotify, Wants::Data);
                "closes"
            }
            At::KNotify => {
                state.advance(p.wants as usize);
                p.at = At::KNotifyWake;
                "notifies all of a kind: their epoch + 1"
            }
            At::KNotifyWake => {
                return self.wake_all(next, p.wants.futex(), "wakes all", |p| {
                    (p.wants, p.at) = match p.wants {
                        Wants::Data => (Wants::Room, At::KNotify),
                        Wants::Room => (Wants::Lock, At::KNotify),
                        Wants::Lock => (Wants::Data, At::PRelease),
                    }
                });
            }
            At::PRelease => {
                let waiters = state.release(me, P);
                p.at = if waiters { At::PAdvance } else { At::PDisarm };
                let sleepers = Reservation::sleepers(&state, Wants::Data);
                if waiters && p.no_progress && sleepers && !self.is(Bug::NoProgressWakes) {
                    p.over = state.own.closed || self.model.is_disconnected(&state);
                    p.look(For::NoProgress);
                }
                "releases P"
            }
            At::PAdvance if Reservation::sleepers(&state, Wants::Data) => {
                (p.keep, p.at) = (p.keep | state.advance_released(me, P), At::PWake);
                "A + 1"
            }
            At::PAdvance => {
                p.at = At::PChain;
                "no process sleeps"
            }
            At::PWake => {
                let then = |p: &mut Process, woke| (p.keep, p.at) = (p.keep | woke, At::PChain);
                return self.wake(next, Wants::Data.futex(), "wakes one", then);
            }
            At::PChain if Reservation::sleepers(&state, Wants::Room) && self.model.has_room(&state) => {
                state.advance(Wants::Room as usize);
                p.at = At::PChainWake;
                "there is more room: A of C + 1"
            }
            At::PChain => {
                p.at = At::PClear;
                "no more room"
            }
            At::PChainWake => {
                return self.wake(next, Wants::Room.futex(), "chains", |p, _| p.at = At::PClear);
            }
            At::PClear => {
                state.clear_w(me, P, p.keep);
                (p.keep, p.at) = (false, At::PDisarm);
                "clears W, if nothing has changed"
            }
            _ => {
                state.clear_pending(me);
                p.rest(state.own.used);
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}

/// Advances these epochs, where a process sleeps for them.
pub(super) fn advance_if_slept(state: &mut State, all: &[Wants]) {
    for wants in all {
        if Reservation::sleepers(state, *wants) {
            state.advance(*wants as usize);
        }
    }
}

/// Where a process goes on that has given a lock back: it notifies waiters for the lock, if there are any.
pub(super) fn notify_waiters(state: &mut State, notified: At, none: At) -> At {
    if !Reservation::sleepers(state, Wants::Lock) {
        return none;
    }
    state.advance(Wants::Lock as usize);
    notified
}
