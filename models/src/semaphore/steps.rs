//! What each process does next, and what may happen to it.

use super::{At, Bug, Process, Semaphore, State};
use crate::{
    checker::{Kind, Step},
    robust::{Come, tid},
};

impl Semaphore {
    /// The one thing `me` does next by itself.
    pub(super) fn own_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mut state = *before;
        let inside = self.is_inside(before, me);
        let mut p = state.processes[me];
        let what = match p.at {
            At::Gone => return,
            At::Idle if p.rounds == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::Idle => {
                p.scan();
                if p.want > 1 && !inside {
                    p.at = At::Gate;
                }
                "wants"
            }
            At::Look if p.looked == self.all() => {
                p.looked = 0;
                p.at = match (inside, p.late) {
                    (false, _) => At::Gate,
                    (true, true) => At::GiveBack,
                    (true, false) => At::Mark,
                };
                "finds none"
            }
            At::Look => {
                for word in (0..self.permits).filter(|word| p.looked & 1 << word == 0) {
                    let mut state = state;
                    let p = &mut state.processes[me];
                    if state.robust.is_held(word) {
                        p.looked |= 1 << word;
                    } else {
                        (p.at, p.target) = (At::Take, u8::try_from(word).unwrap_or(0));
                    }
                    next.push(Step { who: me, what: "looks at one", kind: Kind::Own, state });
                }
                return;
            }
            At::Take => {
                let word = usize::from(p.target);
                let (robust, what, kind, come) = state.robust.take_step(me, word);
                state.robust = robust;
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.target, p.looked) = (At::Look, 0, p.looked | 1 << word),
                    Come::Done(_) => {
                        p.got |= 1 << word;
                        p.scan();
                        if p.got.count_ones() == u32::from(p.want) {
                            p.at = if inside { At::Out } else { At::Held };
                        }
                    }
                }
                state.processes[me] = p;
                next.push(Step { who: me, what, kind, state });
                return;
            }
            At::Gate if p.late => {
                self.give_up(&mut state, me, &mut p);
                "gives up at the gate"
            }
            At::Gate if state.gate != 0 => return,
            At::Gate => {
                state.gate = tid(me);
                state.robust.set_pending(me, None);
                p.scan();
                "enters the gate"
            }
            At::Mark => {
                let mine = p.got;
                let word = (0..self.permits).find(|word| p.looked & 1 << word == 0 && mine & 1 << word == 0);
                let last = word.is_none() || (self.is(Bug::WatchesOne) && p.looked != 0);
                if last {
                    (p.looked, p.at) = (0, At::Queue);
                    "has marked them"
                } else if let Some(word) = word
                    && state.robust.is_held(word)
                {
                    if self.is(Bug::NoMark) {
                        state.robust.note(me, word);
                    } else {
                        state.robust.mark(me, word);
                    }
                    (p.looked, p.noted) = (p.looked | 1 << word, p.noted | 1 << word);
                    "marks one"
                } else {
                    state.robust.wake_up(me);
                    p.scan();
                    "finds one free"
                }
            }
            At::Queue => {
                let left = p.noted & !p.looked;
                if left == 0 {
                    (p.at, p.looked, p.noted) = (At::Asleep, 0, 0);
                    "sleeps"
                } else {
                    let word = left.trailing_zeros() as usize;
                    if state.robust.queue(me, word) {
                        p.looked |= 1 << word;
                        "queues"
                    } else {
                        p.scan();
                        "EAGAIN"
                    }
                }
            }
            At::Asleep if !state.robust.is_woken(me) => return,
            At::Asleep => {
                state.robust.wake_up(me);
                p.scan();
                "is awake"
            }
            At::Out => {
                if state.gate == tid(me) {
                    state.gate = 0;
                }
                state.robust.set_pending(me, None);
                if p.got.count_ones() == u32::from(p.want) {
                    p.at = At::Held;
                } else {
                    self.give_up(&mut state, me, &mut p);
                }
                "leaves the gate"
            }
            At::Held => {
                state.processes[me].at = At::Give;
                next.push(Step { who: me, what: "has been at work", kind: Kind::Chance, state });
                return;
            }
            At::Give | At::GiveBack if p.got == 0 || (p.at == At::GiveBack && self.is(Bug::KeepsTheRest)) => {
                if p.at == At::GiveBack {
                    (p.at, p.got) = (At::Out, 0);
                } else {
                    self.give_up(&mut state, me, &mut p);
                }
                "has given all"
            }
            At::Give | At::GiveBack => {
                let word = p.got.trailing_zeros() as usize;
                state.robust.give_step(me, word, true, self.flaws(), |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    if let Come::Done(_) = come {
                        state.processes[me].got &= !(1 << word);
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
            At::Dying => {
                if state.gate == tid(me) {
                    let mut state = *before;
                    state.gate = 0;
                    next.push(Step { who: me, what: "kernel: gate", kind: Kind::Own, state });
                }
                state.robust.die_step(me, |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    if let Come::Done(_) = come {
                        state.processes[me] = Process::GONE;
                        if state.gate == tid(me) {
                            state.gate = 0;
                        }
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
        };
        state.processes[me] = p;
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// The end of a round, with or without success.
    #[allow(clippy::unused_self, reason = "as its neighbours")]
    fn give_up(&self, state: &mut State, me: usize, p: &mut Process) {
        state.robust.wake_up(me);
        *p = Process { at: At::Idle, want: p.want, rounds: p.rounds - 1, ..Process::GONE };
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
                state.processes[me] = Process { at: At::Dying, ..Process::GONE };
            });
        }
        let rises = |state: &mut State| {
            if p.at == At::Asleep {
                state.robust.wake_up(me);
                state.processes[me].scan();
            }
        };
        if (matches!(p.at, At::Asleep | At::Gate) || (p.at == At::Look && before.gate == tid(me))) && !p.late {
            push(1, "is late", &|state| {
                state.processes[me].late = true;
                rises(state);
            });
        }
        if p.at == At::Asleep {
            push(2, "wakes for nothing", &rises);
        }
        if p.at == At::Gate && p.want == 1 {
            push(2, "looks once a second", &|state| state.processes[me].scan());
        }
    }
}
