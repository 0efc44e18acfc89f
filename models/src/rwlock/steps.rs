//! What each process does next, and what may happen to it.

use super::{At, Bug, Process, RwLock, State};
use crate::{
    checker::{Kind, Step},
    robust::{Come, Flaws, tid},
};

impl RwLock {
    /// The one thing `me` does next by itself.
    pub(super) fn own_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mut state = *before;
        let mut p = state.processes[me];
        let place = usize::from(p.place);
        let what = match p.at {
            At::Gone => return,
            At::Idle if p.rounds == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::Idle => {
                p.at = match p.writer {
                    true if self.is(Bug::LooksOutside) => At::Look,
                    true => At::Enter,
                    false => At::Glance,
                };
                "wants"
            }
            At::Glance => {
                let free = (0..state.used).filter(|place| state.turnstile == 0 && !state.robust.is_held((*place).into()));
                for place in free {
                    (p.at, p.place) = (At::Grab, place);
                    state.processes[me] = p;
                    next.push(Step { who: me, what: "finds a place, and nobody in the turnstile", kind: Kind::Own, state });
                }
                if p.at == At::Grab {
                    return;
                }
                p.at = At::Enter;
                "has to go through the turnstile"
            }
            At::Grab => {
                let (robust, what, kind, come) = state.robust.take_step(me, place);
                state.robust = robust;
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.place) = (At::Enter, 0),
                    Come::Done(_) if self.is(Bug::ChecksFirst) => p.at = At::AskIn,
                    Come::Done(_) => p.at = At::Check,
                }
                state.processes[me] = p;
                next.push(Step { who: me, what, kind, state });
                return;
            }
            At::Check => {
                p.at = if state.turnstile == 0 { At::AskIn } else { At::Back };
                "looks at the turnstile"
            }
            At::AskIn => {
                (p.told, p.has, p.at) = (state.signature != 0, true, At::Read);
                "asks for a signature"
            }
            At::Enter if p.late => {
                p = p.rest();
                "gives up"
            }
            At::Enter if state.turnstile != 0 => return,
            At::Enter => {
                state.turnstile = tid(me);
                p.told = std::mem::take(&mut state.marked) && self.is(Bug::KernelsMark);
                state.robust.set_pending(me, None);
                p.at = At::Ask;
                "enters"
            }
            At::Ask => {
                if !self.is(Bug::KernelsMark) {
                    p.told = state.signature != 0;
                }
                p.at = match p.writer {
                    false if self.is(Bug::SitsOutside) => At::Leave,
                    false => At::Find,
                    true if self.is(Bug::SignsFirst) => At::Sign,
                    true => At::Look,
                };
                "asks for a signature"
            }
            At::Find if place == self.places => {
                p.at = At::Leave;
                "finds no place"
            }
            At::Find => {
                if state.robust.is_held(place) {
                    p.place += 1;
                } else if p.place < state.used || self.is(Bug::WidensOutside) {
                    p.at = At::Sit;
                } else {
                    p.at = At::Widen;
                }
                "looks at a place"
            }
            At::Widen => {
                state.used = state.used.max(p.place + 1);
                p.at = if p.has { At::Read } else { At::Sit };
                "notes that it is used"
            }
            At::Sit => {
                let (robust, what, kind, come) = state.robust.take_step(me, place);
                state.robust = robust;
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.place) = (At::Find, p.place + 1),
                    Come::Done(_) => (p.at, p.has) = (if self.is(Bug::SitsOutside) { At::Read } else { At::Leave }, true),
                }
                state.processes[me] = p;
                next.push(Step { who: me, what, kind, state });
                return;
            }
            At::Leave => {
                (state.turnstile, state.marked) = (0, false);
                state.robust.set_pending(me, None);
                p.at = match (p.writer, p.has) {
                    (false, true) if self.is(Bug::WidensOutside) => At::Widen,
                    (false, true) => At::Read,
                    (false, false) if self.is(Bug::SitsOutside) => At::Find,
                    (true, true) if self.is(Bug::TurnstileOpens) => At::Begin,
                    (true, true) if self.is(Bug::ClearsOutside) => At::Unsign,
                    _ => At::Idle,
                };
                if p.at == At::Idle {
                    p = p.rest();
                }
                "leaves the turnstile"
            }
            At::Read => {
                state.processes[me].at = At::Rise;
                next.push(Step { who: me, what: "has read", kind: Kind::Chance, state });
                return;
            }
            At::Look if place == if self.is(Bug::LooksOutside) { self.places } else { state.used.into() } => {
                (p.at, p.place) = match (state.turnstile == tid(me), self.is(Bug::SignsFirst)) {
                    (false, _) => (At::Enter, 0),
                    (true, true) => (At::Begin, p.place),
                    (true, false) => (At::Sign, p.place),
                };
                "has looked at all"
            }
            At::Look if self.is(Bug::LooksOutside) => {
                if state.turnstile != tid(me) {
                    p.noted |= u8::from(state.robust.is_held(place)) << place;
                    p.place += 1;
                } else if p.noted & 1 << place != 0 {
                    p.at = At::Wait;
                } else {
                    p.place += 1;
                }
                "looks at a place"
            }
            At::Look => {
                if state.robust.is_held(place) {
                    p.at = At::Wait;
                } else {
                    p.place += 1;
                }
                "looks at a place"
            }
            At::Wait => {
                let (robust, what, kind, come) = state.robust.take_step(me, place);
                state.robust = robust;
                match come {
                    Come::On => {}
                    Come::Not if p.late => p.at = At::Leave,
                    Come::Not => {
                        state.robust.set_pending(me, Some(place));
                        p.at = At::Announce;
                    }
                    Come::Done(_) => p.at = At::Pass,
                }
                state.processes[me] = p;
                next.push(Step { who: me, what, kind, state });
                return;
            }
            At::Announce => {
                p.at = if state.robust.mark(me, place) { At::Queue } else { At::Wait };
                "announces"
            }
            At::Queue => {
                p.at = if state.robust.queue(me, place) { At::Asleep } else { At::Wait };
                if p.at == At::Asleep { "sleeps" } else { "EAGAIN" }
            }
            At::Asleep if !state.robust.is_woken(me) => return,
            At::Asleep => {
                state.robust.wake_up(me);
                p.at = At::Wait;
                "is awake"
            }
            At::Sign => {
                state.signature = tid(me);
                (p.at, p.place) = if self.is(Bug::SignsFirst) { (At::Look, 0) } else { (At::Begin, 0) };
                if self.is(Bug::TurnstileOpens) {
                    (p.at, p.has) = (At::Leave, true);
                }
                "signs"
            }
            At::Begin => {
                (state.torn, p.at, p.has, p.place) = (true, At::Write, true, 0);
                "begins to write"
            }
            At::Write => {
                state.torn = false;
                state.processes[me].at = if self.is(Bug::ClearsOutside) { At::Leave } else { At::Unsign };
                next.push(Step { who: me, what: "has written", kind: Kind::Chance, state });
                return;
            }
            At::Unsign => {
                (state.signature, state.unfinished) = (0, false);
                p.at = At::Leave;
                p.has = false;
                if self.is(Bug::ClearsOutside) {
                    p = p.rest();
                }
                "clears the signature"
            }
            At::Rise | At::Pass | At::Back => {
                let flaws = Flaws { no_wake: self.is(Bug::NoWake), clear_ignores_announce: self.is(Bug::ClearIgnoresAnnounce) };
                state.robust.give_step(me, place, true, flaws, |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    if let Come::Done(_) = come {
                        let p = &mut state.processes[me];
                        match p.at {
                            At::Rise => *p = p.rest(),
                            At::Back => (p.at, p.place) = (At::Enter, 0),
                            _ => (p.at, p.place) = (At::Look, p.place + 1),
                        }
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
            At::Dying => {
                let freed = |mut state: State| {
                    if state.turnstile == tid(me) {
                        (state.turnstile, state.marked) = (0, true);
                    }
                    state
                };
                if state.turnstile == tid(me) {
                    next.push(Step { who: me, what: "kernel: turnstile", kind: Kind::Own, state: freed(state) });
                }
                state.robust.die_step(me, |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    if let Come::Done(_) = come {
                        state = freed(state);
                        state.processes[me] = Process::GONE;
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
        };
        state.processes[me] = p;
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// What may happen to `me`.
    pub(super) fn mishaps(before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let p = before.processes[me];
        let mut push = |which: usize, what, edit: &dyn Fn(&mut State)| {
            if before.left[which] > 0 {
                let mut state = *before;
                state.left[which] -= 1;
                edit(&mut state);
                next.push(Step { who: me, what, kind: Kind::Chance, state });
            }
        };
        if !matches!(p.at, At::Gone | At::Idle | At::Dying) {
            push(0, "is killed", &|state| {
                state.robust.kill(me);
                // Who has signed when the readers had left: from there on the next one is to be told.
                state.unfinished |= state.signature == tid(me) && matches!(p.at, At::Begin | At::Write | At::Unsign);
                state.processes[me] = Process { at: At::Dying, ..Process::GONE };
            });
        }
        let rises = |state: &mut State| {
            if p.at == At::Asleep {
                state.robust.wake_up(me);
                state.processes[me].at = At::Wait;
            }
        };
        if matches!(p.at, At::Asleep | At::Enter) && !p.late {
            push(1, "is late", &|state| {
                state.processes[me].late = true;
                rises(state);
            });
        }
        if p.at == At::Asleep {
            push(2, "wakes for nothing", &rises);
        }
    }
}
