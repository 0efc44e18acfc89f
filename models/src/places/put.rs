//! Who reserves, puts, or closes: what is done with the producers' lock.

use super::state::{At, For, L, Nap, P, Process, RECORDS, Record, S, Says, State, tid};
use super::{Bug, Role, Turn};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    pub(super) fn put(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[P]);
        let word = L + usize::from(p.lock).saturating_sub(1);
        let what = match p.at {
            At::PStart if p.left == 0 && low_is_mine(&state, S, self.me) => {
                p.at = At::HTouch;
                "lets go of its seat"
            }
            At::PStart if p.left == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::PStart => {
                (p.pending, p.at) = (tid(P), At::PTry);
                "pending = P"
            }
            At::PTry if low.owner() != 0 => return,
            At::PTry => {
                state.low[P] = Low(tid(self.me) | low.0 & Low::W);
                if low != Low(0) {
                    state.bump(Nap::Data);
                }
                p.forget();
                (p.pending, p.heir) = (0, low.has(Low::OD));
                p.at = if p.heir { At::PRecover } else { At::PBegin };
                "takes P"
            }
            At::PRecover => {
                while state.record(state.tail).says != Says::Empty {
                    state.tail += 1;
                }
                p.at = if state.used > 0 { At::PTell } else { At::Retell };
                "recovers"
            }
            At::PTell => {
                state.bump(Nap::Data);
                p = Process { at: At::PTellWake, ..state.processes[self.me] };
                "recovers: A+1"
            }
            At::PTellWake => return self.wake_all(next, Nap::Data, "recovers: wakes all", |p| p.at = At::Retell),
            At::PBegin => {
                p.heir = false;
                self.begin(&mut state, &mut p)
            }
            At::TPending => {
                (p.pending, p.at) = (p.lock + tid(S), At::TTake);
                "pending = lock"
            }
            At::TTake => {
                p.heir = state.low[word].has(Low::OD);
                state.low[word] = Low(tid(self.me) | Low::W);
                (p.pending, p.at) = (0, At::TTurn);
                "takes a lock"
            }
            At::TTurn => {
                state.turns[word - L] += 1;
                p.at = At::TTouch;
                "turn + 1"
            }
            At::TTouch => {
                if state.sleepers(Nap::Data) && !self.is(Bug::HeirStays) {
                    state.bump(Nap::Data);
                }
                if p.heir && state.sleepers(Nap::Lock) && !self.is(Bug::HeirStays) {
                    state.bump(Nap::Lock);
                }
                p = Process { at: At::TUse, heir: false, ..state.processes[self.me] };
                "both counts + 1"
            }
            At::TUse => {
                let first = state.used < p.lock;
                state.used = state.used.max(p.lock);
                p.at = if first && !self.is(Bug::FirstUseTellsNobody) { At::TUseBump } else { At::PAppend };
                "uses it"
            }
            At::TUseBump => {
                state.bump(Nap::Data);
                p = Process { at: At::TUseWake, ..state.processes[self.me] };
                "for the first time: A+1"
            }
            At::TUseWake => return self.wake_all(next, Nap::Data, "wakes all", |p| p.at = At::PAppend),
            At::PAppend if self.places.has_room(&state) => {
                p.at = At::PHeader;
                "there is room"
            }
            At::PAppend => {
                (p.nap, p.vain) = (Nap::Room, true);
                p.at = if self.plain() { At::PRelease } else { At::UTouch };
                "no room"
            }
            At::UTouch => {
                self.touch(&mut state, &mut p);
                p.at = At::URelease;
                "gives it back: both counts + 1"
            }
            At::URelease => {
                state.low[word] = Low(Low::W);
                (p.pending, p.lock, p.at) = (p.lock + tid(S), 0, At::USeq);
                "releases the lock"
            }
            At::USeq => {
                self.tell_waiters(&mut state, &mut p, At::USeqWake, At::PRelease);
                "does anybody wait for it?"
            }
            At::USeqWake => return self.wake_all(next, Nap::Lock, "tells them", |p| p.at = At::PRelease),
            At::PHeader => {
                let says = if self.plain() { Says::Message } else { Says::Reserved };
                let lock = p.lock.saturating_sub(1);
                let turn = if self.plain() { 0 } else { state.turns[usize::from(lock)] };
                state.records[usize::from(state.tail)] = Record { says, lock, turn };
                (p.record, p.at) = (state.tail, At::PTail);
                if self.plain() {
                    p.done_one();
                }
                "the header"
            }
            _ => {
                state.tail += 1;
                p.at = At::PRelease;
                "the tail"
            }
        };
        self.go(next, what, state, p);
    }

    fn begin(&self, state: &mut State, p: &mut Process) -> &'static str {
        if self.places.roles[self.me] == Role::Closer {
            p.at = At::KAlarm;
            return "is to close";
        }
        if state.closed || usize::from(state.tail) == RECORDS {
            (p.at, p.left, p.vain) = (At::PRelease, 0, true);
            return "no more";
        }
        if self.plain() {
            p.at = At::PAppend;
            return "puts";
        }
        if let Some(lock) = (0..usize::from(self.places.locks)).find(|lock| !state.is_held(L + lock)) {
            (p.lock, p.at) = (tid(lock), At::TPending);
            return "a lock is free";
        }
        (p.nap, p.vain, p.at) = (Nap::Lock, true, At::PRelease);
        "no lock is free"
    }

    /// Who has noted words, and does not sleep yet, looks again.
    pub(super) fn touch(&self, state: &mut State, p: &mut Process) {
        for nap in [Nap::Data, Nap::Lock] {
            if state.sleepers(nap) && !self.is(Bug::BackStays) {
                state.bump(nap);
            }
        }
        p.fresh = state.processes[self.me].fresh;
    }

    pub(super) fn tell_waiters(&self, state: &mut State, p: &mut Process, told: At, nobody: At) {
        p.at = nobody;
        if state.sleepers(Nap::Lock) {
            state.bump(Nap::Lock);
            p.fresh = state.processes[self.me].fresh;
            p.at = told;
        }
    }

    /// Closes; leaves, and wakes others.
    pub(super) fn leave_producers(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[P]);
        let what = match p.at {
            At::KAlarm => {
                state.announce(P);
                p = Process { at: At::KClose, left: 0, ..state.processes[self.me] };
                "announces to P"
            }
            At::KClose => {
                (state.closed, p.at, p.nap) = (true, At::KTell, Nap::Data);
                "closes"
            }
            At::KTell => {
                state.bump(p.nap);
                p = Process { at: At::KTellWake, ..state.processes[self.me] };
                "tells all of a kind: their word + 1"
            }
            At::KTellWake => {
                return self.wake_all(next, p.nap, "wakes all", |p| {
                    (p.nap, p.at) = match p.nap {
                        Nap::Data => (Nap::Room, At::KTell),
                        Nap::Room => (Nap::Lock, At::KTell),
                        Nap::Lock => (Nap::Data, At::PRelease),
                    }
                });
            }
            At::PRelease => {
                state.low[P].0 &= Low::W;
                let settles = low.has(Low::W);
                (p.pending, p.fresh[0], p.at) = (tid(P), settles, if settles { At::PBump } else { At::PDisarm });
                if settles && p.vain && state.sleepers(Nap::Data) && !self.is(Bug::VainWakes) {
                    p.over = state.closed || self.places.is_gone(&state);
                    p.look(For::Vain);
                }
                "releases P"
            }
            At::PBump if state.sleepers(Nap::Data) => {
                p.keep |= !(p.fresh[0] && low == Low(Low::W));
                state.bump(Nap::Data);
                p.fresh = [true, false, false];
                p.at = At::PWake;
                "A+1"
            }
            At::PBump => {
                p.at = At::PChain;
                "nobody sleeps"
            }
            At::PWake => {
                return self.wake(next, Nap::Data.bell(), "wakes one", |p, woke| (p.keep, p.at) = (p.keep | woke, At::PChain));
            }
            At::PChain if state.sleepers(Nap::Room) && self.places.has_room(&state) => {
                state.bump(Nap::Room);
                p.at = At::PChainWake;
                "there is more room: A of C + 1"
            }
            At::PChain => {
                p.at = At::PClear;
                "no more room"
            }
            At::PChainWake => return self.wake(next, Nap::Room.bell(), "chains", |p, _| p.at = At::PClear),
            At::PClear => {
                if low == Low(Low::W) && p.fresh[0] && !p.keep {
                    state.low[P] = Low(0);
                }
                (p.fresh, p.keep, p.at) = ([false; 3], false, At::PDisarm);
                "clears W, if it is still its"
            }
            _ => {
                p.disarm(state.used);
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}

fn low_is_mine(state: &State, word: usize, me: usize) -> bool {
    state.low[word].owner() == tid(me)
}
