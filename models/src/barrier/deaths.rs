//! Who finds a dead party, and what it does then; who has changed the state tells the others.

use super::{At, Barrier, Bug, Process, State, Word};
use crate::checker::{Kind, Step};

impl Barrier {
    /// `bury`, `break_if` and `wake_watchers`, from wherever: `back` says what comes next.
    pub(super) fn death_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mut kind = Kind::Own;
        let mut state = *before;
        let mut p = state.processes[me];
        let word = state.word;
        let what = match p.at {
            At::Look if p.done == self.all() => {
                (p.at, p.done, p.half, p.about) = (p.back, 0, false, 0);
                "finds nobody dead"
            }
            At::Look => {
                let at = p.done.trailing_ones() as usize;
                if self.is(Bug::DeathBeforeNote) {
                    (p.at, p.half) = (At::LookWord, state.robust.words[at].is_dead());
                    p.noter = state.robust.words[at].owner();
                } else if state.notes[at] != p.about {
                    p.done |= 1 << at;
                } else {
                    p.at = At::LookNoter;
                }
                "was it in this round?"
            }
            At::LookNoter => {
                (p.at, p.noter) = (At::LookWord, state.noters[p.done.trailing_ones() as usize]);
                "who has noted it?"
            }
            At::LookWord => {
                let at = p.done.trailing_ones() as usize;
                let low = state.robust.words[at];
                let other = state.robust.is_held(at) && low.owner() != p.noter && !self.is(Bug::TakerHides);
                let dead = if self.is(Bug::DeathBeforeNote) {
                    state.notes[at] == p.about && (p.half || (p.noter != 0 && p.noter != state.noters[at]))
                } else {
                    low.is_dead() || other
                };
                if dead {
                    self.found_dead(&mut state, me, &mut p);
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
                state.cause = p.about;
                (p.at, p.half) = (At::Break, false);
                "stores the cause"
            }
            At::Break => {
                let still = word.round + 1 == p.about && !word.broken;
                (p.at, p.about) = (p.back, 0);
                if still {
                    state.word = Word { broken: true, ..word.ended() };
                    if state.died & 1 << word.round == 0 {
                        state.wrong = Some("BROKEN FOR NOTHING");
                    }
                    let back = p.back;
                    self.tell(&mut p, word.sleepers, back);
                }
                "breaks: a death"
            }
            At::Tell => {
                if !self.is(Bug::NoWake) {
                    kind = state.robust.wake_all_others();
                }
                (p.at, p.back) = (p.back, At::Gone);
                "wakes all"
            }
            _ => return,
        };
        state.processes[me] = p;
        next.push(Step { who: me, what, kind, state });
    }

    /// After a change: wakes all if somebody may sleep.
    #[allow(clippy::unused_self, reason = "as its neighbours")]
    pub(super) fn tell(&self, p: &mut Process, sleepers: bool, back: At) {
        (p.at, p.back) = if sleepers { (At::Tell, back) } else { (back, At::Gone) };
    }

    /// A party of the round that it looks for is dead.
    #[allow(clippy::unused_self, reason = "as its neighbours")]
    fn found_dead(&self, state: &mut State, me: usize, p: &mut Process) {
        (p.at, p.done, p.half) = (At::Blame, 0, false);
        if p.back == At::Queue || p.back == At::Mark {
            // From a sleep's `ready`: it does not sleep, whatever `break_if` does.
            state.robust.wake_up(me);
            p.back = At::Mend;
        }
    }

    pub(super) fn all(&self) -> u8 {
        (1 << self.parties) - 1
    }
}
