//! Who sleeps: for a message, for room, for a lock; and what each does when he is woken.

use super::state::{At, BELLS, C, For, Front, L, Nap, P, Process, S, State, tid};
use super::{Bug, Turn};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    pub(super) fn sleep(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let [waits_for, own] = p.sides();
        let what = match p.at {
            At::Decide => {
                (p.watch, p.nap) = (state.used, Nap::Data);
                p.at = At::Arm;
                if self.is_over(&state) {
                    p.look(For::Ended);
                }
                "must wait, or is it over?"
            }
            At::Arm => {
                (p.pending, p.napping, p.at) = (tid(waits_for), true, At::Announce);
                "pending, counts itself"
            }
            At::Announce => {
                state.announce(waits_for);
                p = state.processes[self.me];
                p.seen[waits_for] = state.low[waits_for];
                if p.nap != Nap::Lock {
                    p.fresh[p.nap as usize] = true;
                }
                p.at = At::Note;
                "announces"
            }
            At::Note => {
                p.seen[own] = state.low[own];
                for word in self.watched() {
                    p.seen[word] = state.low[word];
                }
                if p.nap == Nap::Lock {
                    p.fresh[Nap::Lock as usize] = true;
                }
                p.at = At::Ready;
                "notes the words"
            }
            At::Ready => {
                match p.nap {
                    Nap::Data => p.look(For::Ready),
                    Nap::Room if state.closed || self.places.has_room(&state) => self.awake(&mut p),
                    Nap::Lock if state.closed || state.has_free() => self.awake(&mut p),
                    _ => p.at = At::Queue,
                }
                "looks"
            }
            At::ReadyEnd => {
                p.at = At::ReadyUsed;
                if self.is_over(&state) {
                    p.look(For::ReadyEnd);
                }
                "is it over?"
            }
            At::ReadyUsed if state.used != p.watch && !self.is(Bug::LocksCountedOnce) => {
                self.awake(&mut p);
                "one more lock"
            }
            At::ReadyUsed => {
                (p.index, p.at) = (0, At::Queue);
                "no more locks"
            }
            At::Queue => self.queue(&state, &mut p),
            At::Asleep if !p.rung => return,
            At::Asleep => {
                p.at = At::Woken;
                "wakes up"
            }
            At::Woken => {
                p.forget();
                p.at = At::PassOn;
                "unqueues"
            }
            At::PassOn => {
                let others = if own == C { Nap::Room } else { Nap::Data };
                p.at = At::Retell;
                if !state.is_held(own) && state.low[own].has(Low::W) && state.sleepers(others) {
                    match others {
                        _ if self.is(Bug::PassesOnAlways) => p.at = At::PassBump,
                        Nap::Data => {
                            p.over = state.closed || self.places.is_gone(&state);
                            p.look(For::News);
                        }
                        _ if self.places.has_room(&state) => p.at = At::PassBump,
                        _ => {}
                    }
                }
                "passes on?"
            }
            At::PassBump => {
                state.bump(if own == C { Nap::Room } else { Nap::Data });
                p.at = At::PassWake;
                "passes on: A+1"
            }
            At::PassWake => {
                let others = if own == C { Nap::Room } else { Nap::Data };
                return self.wake(next, others.bell(), "passes on", |p, _| p.at = At::Retell);
            }
            At::LPass => {
                p.at = At::Flight;
                if state.sleepers(Nap::Data) && !self.is(Bug::WaiterKeepsWake) {
                    p.look(For::Pass);
                }
                "was it another's wake?"
            }
            At::LPassBump => {
                state.bump(Nap::Data);
                p.at = At::LPassWake;
                "passes on: A+1"
            }
            At::LPassWake => return self.wake(next, Nap::Data.bell(), "passes on", |p, _| p.at = At::Flight),
            _ => {
                state.announce(own);
                p = state.processes[self.me];
                self.awake(&mut p);
                "flight: announces"
            }
        };
        self.go(next, what, state, p);
    }

    /// Leaves the sleep, and looks in earnest.
    pub(super) fn awake(&self, p: &mut Process) {
        p.forget();
        if p.nap == Nap::Lock {
            p.pending = 0;
        }
        let at = if self.places.is_getter(self.me) { At::GStart } else { At::PStart };
        (p.napping, p.nap, p.at) = (false, Nap::Data, at);
    }

    fn is_over(&self, state: &State) -> bool {
        state.closed || (self.has_role() && self.places.is_gone(state))
    }

    fn watched(&self) -> impl Iterator<Item = usize> + use<> {
        let locks = if self.is(Bug::LocksUnwatched) { 0 } else { usize::from(self.p.watch) };
        (L..L + locks).chain(self.has_role().then_some(S))
    }

    /// The kernel compares one word and queues on it: those that are only watched, the own side, the other, the bell.
    fn queue(&self, state: &State, p: &mut Process) -> &'static str {
        let [waits_for, own] = p.sides();
        let Some(word) = self.watched().chain([own, waits_for, p.bell()]).nth(p.index.into()) else { return "sleeps" };
        let same = if word >= BELLS { p.fresh[word - BELLS] } else { p.seen[word] == state.low[word] };
        if !same && p.rung {
            p.at = At::Woken;
            return "rung while queueing";
        }
        if !same {
            let (watch, nap) = (p.watch, p.nap);
            p.forget();
            (p.watch, p.nap, p.at) = (watch, nap, At::Announce);
            return "EAGAIN";
        }
        (p.queued, p.index) = (p.queued | 1 << word, p.index + 1);
        if word < BELLS {
            p.seen[word] = Low(0);
            return "queues";
        }
        (p.fresh, p.index, p.watch, p.at) = ([false; 3], 0, 0, At::Asleep);
        "sleeps"
    }

    /// What a dead one may have left untold.
    pub(super) fn retell(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let what = match p.at {
            At::Retell if self.is(Bug::WokenTellsNobody) => {
                self.after_retelling(&mut p);
                "tells nobody"
            }
            At::Retell => {
                // Who holds a lock retells as one without a role.
                p.over = state.closed || (p.napping && self.has_role() && self.places.is_gone(&state));
                p.at = if state.closed { At::RRoom } else { At::RLook };
                if state.closed {
                    state.bump(Nap::Room);
                    p.fresh = state.processes[self.me].fresh;
                }
                "is it over?"
            }
            At::RRoom => return self.wake_all(next, Nap::Room, "wakes all who wait for room", |p| p.at = At::RLook),
            At::RLook => {
                p.at = At::RSeq;
                if p.over || self.places.is_gone(&state) {
                    p.look(For::Retell);
                }
                "is it ending?"
            }
            At::RBump => {
                state.bump(Nap::Data);
                p = Process { at: At::RWake, ..state.processes[self.me] };
                "tells getters: A+1"
            }
            At::RWake => {
                let mut state = *self.before;
                if !p.over && p.front == Front::Empty {
                    state.told = p.head + 1;
                }
                let turn = Turn { before: &state, ..*self };
                return turn.wake_all(next, Nap::Data, "tells getters", |p| {
                    (p.at, p.over, p.head, p.front) = (At::RSeq, false, 0, Front::Empty);
                });
            }
            At::RSeq if state.sleepers(Nap::Lock) && (state.closed || state.has_free()) => {
                state.bump(Nap::Lock);
                p = Process { at: At::RSeqWake, ..state.processes[self.me] };
                "tells waiters"
            }
            At::RSeq => {
                self.after_retelling(&mut p);
                "nobody waits"
            }
            _ => {
                let after = self.after();
                return self.wake_all(next, Nap::Lock, "tells waiters", |p| (p.at, p.over) = (after, false));
            }
        };
        self.go(next, what, state, p);
    }

    /// What is at the head, when it is ending.
    pub(super) fn retold(&self, state: &State, p: &mut Process, front: Front) {
        let tells = match front {
            _ if self.is(Bug::RetellsAlways) => true,
            Front::Filling => false,
            Front::Empty if !p.over => state.told != p.head + 1 && !self.is(Bug::RolelessForgets),
            Front::Empty | Front::Something => true,
        };
        p.front = front;
        p.at = At::RBump;
        if !tells {
            (p.at, p.over, p.head, p.front) = (At::RSeq, false, 0, Front::Empty);
        }
    }

    fn after(&self) -> At {
        match () {
            () if self.p.napping && self.p.nap == Nap::Lock => At::LPass,
            () if self.p.napping => At::Flight,
            () if self.places.is_getter(self.me) => At::GHead,
            () => At::PBegin,
        }
    }

    fn after_retelling(&self, p: &mut Process) {
        (p.at, p.over) = (self.after(), false);
    }
}

impl Nap {
    pub(super) fn bell(self) -> usize {
        BELLS + self as usize
    }
}

const _: () = assert!(P == 0 && C == 1);
