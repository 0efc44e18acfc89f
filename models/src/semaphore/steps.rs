//! What each process does next.

use super::{At, Bug, MUTEX, Process, Steps, Turn};
use crate::checker::{Kind, Step};
use crate::robust::{Come, Flaws};

impl Turn<'_> {
    /// The next step by itself.
    pub(super) fn own_step(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let outside = self.is(Bug::NoMutex) || (self.is(Bug::GathersOutside) && p.want > 1);
        // Whether it may do what is done in the mutex.
        let inside = state.holds(me, MUTEX) || outside;
        let what = match p.at {
            At::Gone => return,
            At::Idle if p.rounds == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::Idle => {
                p.scan();
                if p.want > 1 && !inside {
                    p.at = At::Enter;
                }
                "wants"
            }
            At::Look if p.looked == self.model.all() => {
                p.looked = 0;
                p.at = match (inside, p.late) {
                    (false, _) => At::Enter,
                    (true, true) => At::GiveBack,
                    (true, false) => At::Register,
                };
                "finds none"
            }
            At::Look => {
                for word in (0..self.model.permits).filter(|word| p.looked & 1 << word == 0) {
                    let mut p = p;
                    if state.is_held(word) {
                        p.looked |= 1 << word;
                    } else {
                        (p.at, p.target) = (At::Take, u8::try_from(word).unwrap_or(0));
                    }
                    self.go(next, "looks at one", state, p);
                }
                return;
            }
            At::Take => {
                let word = usize::from(p.target);
                let (what, come) = state.take_step(me, word);
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.target, p.looked) = (At::Look, 0, p.looked | 1 << word),
                    Come::Done(_) => {
                        p.got |= 1 << word;
                        p.scan();
                        if p.has_all() {
                            p.at = if inside { At::Out } else { At::Held };
                        }
                    }
                }
                what
            }
            At::Enter if p.late => {
                p.rest();
                "gives up at the mutex"
            }
            At::Enter if state.is_held(MUTEX) => return,
            At::Enter => {
                state.take(me, MUTEX);
                p.scan();
                "enters the mutex"
            }
            At::Register => {
                let left = |word: &usize| (p.looked | p.got) & 1 << word == 0;
                match (0..self.model.permits).find(left) {
                    Some(word) if !(self.is(Bug::WatchesOne) && p.looked != 0) => {
                        if !state.is_held(word) {
                            state.forget(me);
                            p.scan();
                            return self.go(next, "finds one free", state, p);
                        }
                        if self.is(Bug::NotRegistered) {
                            state.note(me, word);
                        } else {
                            state.register_if_held(me, word);
                        }
                        (p.looked, p.noted) = (p.looked | 1 << word, p.noted | 1 << word);
                        "registers with one"
                    }
                    _ => {
                        (p.looked, p.at) = (0, At::Queue);
                        "has registered with all"
                    }
                }
            }
            At::Queue => match p.noted & !p.looked {
                0 => {
                    (p.at, p.looked, p.noted) = (At::Asleep, 0, 0);
                    "sleeps"
                }
                left if state.queue_lock(me, left.trailing_zeros() as usize) => {
                    p.looked |= 1 << left.trailing_zeros();
                    "queues"
                }
                _ => {
                    p.scan();
                    "EAGAIN"
                }
            },
            At::Asleep if !self.hand().woken => return,
            At::Asleep => {
                state.forget(me);
                p.scan();
                "is awake"
            }
            At::Out => {
                state.leave_mutex(me, MUTEX);
                if p.has_all() {
                    p.at = At::Held;
                } else {
                    state.forget(me);
                    p.rest();
                }
                "leaves the mutex"
            }
            At::Held => {
                return self
                    .chance(next, None, "has been at work", |state| state.processes[me].at = At::Give);
            }
            At::GiveBack if p.got == 0 || self.is(Bug::KeepsTheRest) => {
                (p.at, p.got) = (At::Out, 0);
                "has given all back"
            }
            At::Give if p.got == 0 => {
                p.rest();
                "has given all"
            }
            At::Give | At::GiveBack => {
                let word = p.got.trailing_zeros() as usize;
                let (clear_ignores_epoch, no_wake) = (self.is(Bug::ClearIgnoresEpoch), self.is(Bug::NoWake));
                let flaws = Flaws { clear_ignores_epoch, no_wake };
                return state.give_step(me, word, true, flaws, |mut state, what, kind: Kind, done| {
                    state.processes[me].got &= !(u8::from(done) << word);
                    next.push(Step { process: me, what, kind, state });
                });
            }
        };
        self.go(next, what, state, p);
    }
}
