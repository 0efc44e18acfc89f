//! What a getter does with its lock, and every look at the head without it.

use super::state::{At, C, For, Front, L, Nap, Process, Says, State, tid};
use super::{Bug, Turn};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    pub(super) fn get(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[C]);
        let record = state.record(state.head);
        let what = match p.at {
            At::GStart if p.left == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::GStart => {
                (p.pending, p.at) = (tid(C), At::GTry);
                "pending = C"
            }
            At::GTry if low.owner() != 0 => return,
            At::GTry => {
                state.low[C] = Low(tid(self.me) | low.0 & Low::W);
                if low != Low(0) {
                    state.bump(Nap::Room);
                }
                p.forget();
                (p.pending, p.heir) = (0, low.has(Low::OD));
                p.at = if p.heir { At::Retell } else { At::GHead };
                "takes C"
            }
            At::GHead => {
                p.heir = false;
                p.at = match record.says {
                    Says::Message => At::GTake,
                    Says::Reserved => At::GLock,
                    Says::Empty => At::CRelease,
                };
                p.vain = record.says == Says::Empty;
                "reads the header"
            }
            At::GLock if state.is_held(L + usize::from(record.lock)) => {
                p.at = At::GTurn;
                "the lock is held"
            }
            At::GTurn if state.turns[usize::from(record.lock)] == record.turn || self.is(Bug::NoTurn) => {
                (p.at, p.vain) = (At::CRelease, true);
                "it is being filled"
            }
            At::GLock | At::GTurn => {
                p.at = if self.is(Bug::HeaderReadOnce) { At::GHole } else { At::GAgain };
                "it is not being filled"
            }
            At::GAgain => {
                p.at = if record.says == Says::Message { At::GTake } else { At::GHole };
                "reads the header again"
            }
            At::GTake => {
                state.got |= 1 << state.head;
                state.head += 1;
                p.done_one();
                p.at = At::CRelease;
                "takes it"
            }
            At::GHole => {
                state.head += 1;
                p.at = At::CRelease;
                "gets over a hole"
            }
            At::CRelease => {
                state.low[C].0 &= Low::W;
                let settles = low.has(Low::W);
                (p.pending, p.fresh[1], p.at) = (tid(C), settles, if settles { At::CBump } else { At::CDisarm });
                "releases C"
            }
            At::CBump if !state.sleepers(Nap::Room) => {
                p.at = At::CChain;
                "nobody waits for room"
            }
            At::CBump if p.vain && !self.places.has_room(&state) && !self.is(Bug::VainWakes) => {
                (p.keep, p.at) = (true, At::CChain);
                "has no news for them"
            }
            At::CBump => {
                p.keep |= !(p.fresh[1] && low == Low(Low::W));
                state.bump(Nap::Room);
                (p.fresh, p.at) = ([false, true, false], At::CWake);
                "A+1"
            }
            At::CWake => {
                return self.wake(next, Nap::Room.bell(), "wakes one", |p, woke| (p.keep, p.at) = (p.keep | woke, At::CChain));
            }
            At::CChain if state.sleepers(Nap::Data) && !self.is(Bug::NoChain) => {
                p.look(For::Chain);
                "does another sleep?"
            }
            At::CChain => {
                p.at = At::CClear;
                "no other sleeps"
            }
            At::CChainBump => {
                state.bump(Nap::Data);
                p.at = At::CChainWake;
                "chains: A+1"
            }
            At::CChainWake => return self.wake(next, Nap::Data.bell(), "chains", |p, _| p.at = At::CClear),
            At::CClear => {
                if low == Low(Low::W) && p.fresh[1] && !p.keep {
                    state.low[C] = Low(0);
                }
                (p.fresh, p.keep, p.at) = ([false; 3], false, At::CDisarm);
                "clears W, if it is still its"
            }
            _ => {
                p.disarm(state.used);
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }

    /// `at_front`, word by word.
    pub(super) fn look(&self, next: &mut Vec<Step<State>>) {
        let (state, mut p) = (*self.before, self.p);
        let record = state.record(p.head);
        let what = match p.at {
            At::LHead => {
                (p.head, p.at) = (state.head, At::LHeader);
                "looks at the head"
            }
            At::LHeader => {
                match record.says {
                    Says::Message => self.found(&state, &mut p, Front::Something),
                    Says::Reserved => p.at = At::LLock,
                    Says::Empty => (p.front, p.at) = (Front::Empty, At::LSame),
                }
                "reads the header"
            }
            At::LLock if state.is_held(L + usize::from(record.lock)) => {
                p.at = At::LTurn;
                "the lock is held"
            }
            At::LTurn if state.turns[usize::from(record.lock)] == record.turn || self.is(Bug::NoTurn) => {
                (p.front, p.at) = (Front::Filling, At::LSame);
                "it is being filled"
            }
            At::LLock | At::LTurn => {
                self.found(&state, &mut p, Front::Something);
                "it is not being filled"
            }
            _ if state.head != p.head => {
                p.at = At::LHead;
                "the head has moved"
            }
            _ => {
                let front = p.front;
                self.found(&state, &mut p, front);
                "the same head"
            }
        };
        self.go(next, what, state, p);
    }

    /// What the look was for.
    fn found(&self, state: &State, p: &mut Process, front: Front) {
        let purpose = std::mem::replace(&mut p.purpose, For::Nothing);
        let something = front == Front::Something;
        p.at = match purpose {
            For::Ended if front == Front::Empty => {
                *p = Process::GONE;
                return;
            }
            For::Ended => At::Arm,
            For::Ready if something => return self.awake(p),
            For::Ready => At::ReadyEnd,
            For::ReadyEnd if front == Front::Empty => return self.awake(p),
            For::ReadyEnd => At::ReadyUsed,
            For::Chain if something => At::CChainBump,
            For::Chain => At::CClear,
            For::Vain if something || (front == Front::Empty && p.over) => At::PBump,
            For::Vain => {
                p.keep = true;
                At::PChain
            }
            For::News if something || (front == Front::Empty && p.over) => At::PassBump,
            For::News => At::Retell,
            For::Retell => return self.retold(state, p, front),
            For::Pass if something => At::LPassBump,
            For::Pass | For::Nothing => At::Flight,
        };
        (p.head, p.front, p.over) = (0, Front::Empty, false);
    }
}
