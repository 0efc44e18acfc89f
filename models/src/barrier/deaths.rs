//! A process finds a dead participant, and what it does then; a process that has changed the state notifies
//! the others.

use super::{At, Bug, Process, State, Steps, Turn, Word};
use crate::checker::{Kind, Step};
use crate::robust::OTHER;

impl Turn<'_> {
    /// A look for dead participants, `break_if`, and the wake-up of watchers; `back` says what comes next.
    pub(super) fn death_step(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let mut kind = Kind::Own;
        let word = state.own.word;
        let what = match p.at {
            At::Look if p.done == self.model.all() => {
                (p.at, p.done, p.half, p.about) = (p.back, 0, false, 0);
                "finds no dead process"
            }
            At::Look => {
                let at = p.done.trailing_ones() as usize;
                if self.is(Bug::DeathBeforeNote) {
                    (p.at, p.half) = (At::LookWord, state.words[at].is_dead());
                    p.noter = state.words[at].owner();
                } else if state.own.notes[at] != p.about {
                    p.done |= 1 << at;
                } else {
                    p.at = At::LookNoter;
                }
                "was it in this round?"
            }
            At::LookNoter => {
                (p.at, p.noter) = (At::LookWord, state.own.noters[p.done.trailing_ones() as usize]);
                "which process has noted it?"
            }
            At::LookWord => {
                let at = p.done.trailing_ones() as usize;
                let low = state.words[at];
                let other = state.is_held(at) && low.owner() != p.noter && !self.is(Bug::TakerHides);
                let dead = if self.is(Bug::DeathBeforeNote) {
                    state.own.notes[at] == p.about
                        && (p.half || (p.noter != 0 && p.noter != state.own.noters[at]))
                } else {
                    low.is_dead() || other
                };
                if dead {
                    found_dead(&mut state, me, &mut p);
                } else {
                    (p.at, p.done, p.half) = (At::Look, p.done | 1 << at, false);
                }
                p.noter = 0;
                "is its owner dead?"
            }
            At::Blame if !p.half => {
                p.half = true;
                if word.round + 1 != p.about || word.broken {
                    (p.at, p.half, p.about) = (p.back, false, 0);
                }
                "is it still that round?"
            }
            At::Blame => {
                state.own.cause = p.about;
                (p.at, p.half) = (At::Break, false);
                "stores the cause"
            }
            At::Break => {
                let still = word.round + 1 == p.about && !word.broken;
                (p.at, p.about) = (p.back, 0);
                if still {
                    state.own.word = Word { broken: true, ..word.ended() };
                    if state.own.died & 1 << word.round == 0 {
                        state.own.wrong = Some("BROKEN FOR NOTHING");
                    }
                    let back = p.back;
                    notify(&mut p, word.sleepers, back);
                }
                "breaks: a death"
            }
            At::Notify => {
                if !self.is(Bug::NoWake) {
                    kind = state.wake_all(OTHER);
                }
                (p.at, p.back) = (p.back, At::Gone);
                "wakes all"
            }
            _ => return,
        };
        state.processes[me] = p;
        next.push(Step { process: me, what, kind, state });
    }
}

/// A participant of the round that it looks for is dead.
fn found_dead(state: &mut State, me: usize, p: &mut Process) {
    (p.at, p.done, p.half) = (At::Blame, 0, false);
    if p.back == At::Queue || p.back == At::Mark {
        // From a sleep's `ready`: it does not sleep, whatever `break_if` does.
        state.forget(me);
        p.back = At::Mend;
    }
}

/// After a change: wakes all if a process may sleep.
pub(super) fn notify(p: &mut Process, sleepers: bool, back: At) {
    (p.at, p.back) = if sleepers { (At::Notify, back) } else { (back, At::Gone) };
}
