//! What a getter does with its lock, and every look at the head without it.

use super::state::{At, C, For, Front, L, Process, Says, Wants};
use super::{Bug, Reservation, State, Steps, Turn};

impl Turn<'_> {
    pub(super) fn get(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let record = state.own.record(state.own.head);
        let lock = usize::from(record.lock);
        let what = match p.at {
            At::GStart if p.left == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::GStart => {
                state.set_pending(me, C);
                p.at = At::GTry;
                "pending = C"
            }
            At::GTry if state.is_held(C) => return,
            At::GTry => {
                p.recovers = state.take(me, C);
                state.forget(me);
                p.forget();
                p.at = if p.recovers { At::NotifyAgain } else { At::GHead };
                "takes C"
            }
            At::GHead => {
                p.recovers = false;
                p.at = match record.says {
                    Says::Message => At::GTake,
                    Says::Reserved => At::GLock,
                    Says::Empty => At::CRelease,
                };
                p.no_progress = record.says == Says::Empty;
                "reads the header"
            }
            At::GLock if state.is_held(L + lock) => {
                p.at = At::GGeneration;
                "the lock is held"
            }
            At::GGeneration
                if state.own.generations[lock] == record.generation || self.is(Bug::NoGeneration) =>
            {
                (p.at, p.no_progress) = (At::CRelease, true);
                "it is being filled"
            }
            At::GLock | At::GGeneration => {
                p.at = if self.is(Bug::HeaderReadOnce) { At::GAborted } else { At::GAgain };
                "it is not being filled"
            }
            At::GAgain => {
                p.at = if record.says == Says::Message { At::GTake } else { At::GAborted };
                "reads the header again"
            }
            At::GTake => {
                state.own.got |= 1 << state.own.head;
                state.own.head += 1;
                p.done_one();
                p.at = At::CRelease;
                "takes it"
            }
            At::GAborted => {
                state.own.head += 1;
                p.at = At::CRelease;
                "skips an aborted record"
            }
            At::CRelease => {
                p.at = if state.release(me, C) { At::CAdvance } else { At::CDisarm };
                "releases C"
            }
            At::CAdvance if !Reservation::sleepers(&state, Wants::Room) => {
                p.at = At::CChain;
                "no process waits for room"
            }
            At::CAdvance
                if p.no_progress && !self.model.has_room(&state) && !self.is(Bug::NoProgressWakes) =>
            {
                (p.keep, p.at) = (true, At::CChain);
                "has no new work for them"
            }
            At::CAdvance => {
                (p.keep, p.at) = (p.keep | state.advance_released(me, C), At::CWake);
                "A of C + 1"
            }
            At::CWake => {
                let then = |p: &mut Process, woke| (p.keep, p.at) = (p.keep | woke, At::CChain);
                return self.wake(next, Wants::Room.futex(), "wakes one", then);
            }
            At::CChain if Reservation::sleepers(&state, Wants::Data) && !self.is(Bug::NoChain) => {
                p.look(For::Chain);
                "does another sleep?"
            }
            At::CChain => {
                p.at = At::CClear;
                "no other sleeps"
            }
            At::CChainAdvance => {
                state.advance(Wants::Data as usize);
                p.at = At::CChainWake;
                "chains: A + 1"
            }
            At::CChainWake => {
                return self.wake(next, Wants::Data.futex(), "chains", |p, _| p.at = At::CClear);
            }
            At::CClear => {
                state.clear_w(me, C, p.keep);
                (p.keep, p.at) = (false, At::CDisarm);
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

    /// `at_front`, word by word.
    pub(super) fn look(&self, next: &mut Steps) {
        let (mut state, mut p) = (*self.before, self.p);
        let record = state.own.record(p.head);
        let lock = usize::from(record.lock);
        let what = match p.at {
            At::LHead => {
                (p.head, p.at) = (state.own.head, At::LHeader);
                "looks at the head"
            }
            At::LHeader => {
                match record.says {
                    Says::Message => self.found(&mut state, &mut p, Front::Something),
                    Says::Reserved => p.at = At::LLock,
                    Says::Empty => (p.front, p.at) = (Front::Empty, At::LSame),
                }
                "reads the header"
            }
            At::LLock if state.is_held(L + lock) => {
                p.at = At::LGeneration;
                "the lock is held"
            }
            At::LGeneration
                if state.own.generations[lock] == record.generation || self.is(Bug::NoGeneration) =>
            {
                (p.front, p.at) = (Front::Filling, At::LSame);
                "it is being filled"
            }
            At::LLock | At::LGeneration => {
                self.found(&mut state, &mut p, Front::Something);
                "it is not being filled"
            }
            _ if state.own.head != p.head => {
                p.at = At::LHead;
                "the head has moved"
            }
            _ => {
                let front = p.front;
                self.found(&mut state, &mut p, front);
                "the same head"
            }
        };
        self.go(next, what, state, p);
    }

    /// What the look was for.
    fn found(&self, state: &mut State, p: &mut Process, front: Front) {
        let purpose = std::mem::replace(&mut p.purpose, For::Nothing);
        let something = front == Front::Something;
        let new_work = something || (front == Front::Empty && p.over);
        p.at = match purpose {
            For::Ended if front == Front::Empty => {
                *p = Process::default();
                return;
            }
            For::Ended => At::Arm,
            For::Ready if something => return self.awake(state, p),
            For::Ready => At::ReadyEnd,
            For::ReadyEnd if front == Front::Empty => return self.awake(state, p),
            For::ReadyEnd => At::ReadyUsed,
            For::Chain if something => At::CChainAdvance,
            For::Chain => At::CClear,
            For::NoProgress if new_work => At::PAdvance,
            For::NoProgress => {
                p.keep = true;
                At::PChain
            }
            For::News if new_work => At::PassAdvance,
            For::News => At::NotifyAgain,
            For::NotifyAgain => return self.looked_for_notice(state, p, front),
            For::Pass if something => At::LPassAdvance,
            For::Pass | For::Nothing => At::HandOver,
        };
        (p.head, p.front, p.over) = (0, Front::Empty, false);
    }
}
