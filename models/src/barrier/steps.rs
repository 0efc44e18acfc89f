//! What each process does next, and what may happen to it.
//!
//! | [`At`] | the barrier's line |
//! |---|---|
//! | `Come`, `Scan`, `Take`, `Outside` | `sit`: loads the state; a seat that is not held, in any order; the lock's own steps; finds none |
//! | `TellHeirs` | has taken a dead one's seat, and done `break_if` for its note: wakes all |
//! | `Load`, `Note`, `Reload`, `Count` | `arrive`: loads the state; notes who it is, then the round; (the last one, after `bury`:) is the state the same; compare-and-swap |
//! | `Act`, `Release` | `lead`: the action; round + 1, turned over |
//! | `Watch`, `Late`, `Announce` | `await_release`: is it over; the time-out's break; sets `SLEEPERS` |
//! | `Mark`, `Ready`, `Queue`, `Asleep` | `sleep_watching`: `W` on each lock; is it over, then `bury`; the kernel compares and queues, the round last |
//! | `Mend`, `TellOthers`, `Settle` | after each sleep, for each lock: is it left by a dead one; `break_if` for its note, wakes all; compare-and-swap |
//! | `Verdict`, `Rise` | the turn; leaves the seat, which wakes nobody |
//! | `Look`, `LookNoter`, `LookWord`, `Blame`, `Break` | `bury`: what is noted beside a seat, by whom, its word; `break_if`: loads and compares, stores the cause; compare-and-swap |
//! | `Tell` | after a change that found `SLEEPERS`: wakes all |
//! | `Helm`, `TellHelm`, `Change`, `GiveHelm` | `abort`, `reset`, and a time-out without a seat |

use super::{At, Barrier, Bug, NO_SEAT, Process, Role, State, Word};
use crate::{
    checker::{Kind, Step},
    robust::{Come, Flaws, tid},
};

impl Barrier {
    /// The one thing `me` does next by itself.
    pub(super) fn own_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mut kind = Kind::Own;
        let mut state = *before;
        let mut p = state.processes[me];
        let word = state.word;
        let seat = usize::from(p.seat);
        let over = word.round != p.seen.round;
        let what = match p.at {
            At::Gone => return,
            At::Idle if p.rounds == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::Idle => {
                p.at = match p.role {
                    Role::Party => At::Come,
                    Role::Closer if self.is(Bug::NoHelm) => At::Change,
                    Role::Closer | Role::Mender => At::Helm,
                };
                "comes"
            }

            // ---- sit
            At::Come => {
                (p.seen, p.done) = (word, 0);
                p.at = At::Scan;
                if word.broken {
                    p = rest(p);
                }
                "loads the state"
            }
            At::Scan if p.done == self.all() => {
                (p.done, p.at) = (0, if p.late { At::Helm } else { At::Outside });
                "finds no seat"
            }
            At::Scan => {
                for seat in (0..self.parties).filter(|seat| p.done & 1 << seat == 0) {
                    let mut state = state;
                    let p = &mut state.processes[me];
                    if state.robust.is_held(seat) {
                        p.done |= 1 << seat;
                    } else {
                        (p.at, p.target) = (At::Take, u8::try_from(seat).unwrap_or(0));
                    }
                    next.push(Step { who: me, what: "looks at a seat", kind: Kind::Own, state });
                }
                return;
            }
            At::Take => {
                let (robust, what, _, come) = state.robust.take_step(me, p.target.into());
                state.robust = robust;
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.done, p.target) = (At::Scan, p.done | 1 << p.target, 0),
                    Come::Done(died) => {
                        (p.seat, p.done, p.target) = (p.target, 0, 0);
                        (p.at, p.back) = (At::Load, At::Gone);
                        if died {
                            // The note beside the seat says which round it is about.
                            (p.at, p.back) = (At::Blame, At::TellHeirs);
                            p.about = state.notes[usize::from(p.seat)];
                            if self.is(Bug::TakerBreaksNothing) {
                                p.at = At::TellHeirs;
                            }
                        }
                    }
                }
                what
            }
            At::Outside => {
                if word == p.seen && (0..self.parties).all(|seat| state.robust.is_held(seat)) {
                    return;
                }
                p.at = At::Come;
                "looks again"
            }
            At::TellHeirs => {
                kind = state.robust.wake_all_others();
                p.at = At::Load;
                "wakes all: a dead one's seat"
            }

            // ---- arrive
            At::Load => {
                (p.seen, p.at) = (word, At::Note);
                p.doomed = state.marked & 1 << word.round != 0;
                if word.broken {
                    p.at = At::Rise;
                }
                "loads the state"
            }
            At::Note if state.noters[seat] != tid(me) => {
                state.noters[seat] = tid(me);
                "signs"
            }
            At::Note => {
                let last = usize::from(p.seen.arrived) + 1 >= self.parties && !self.is(Bug::CountsWithoutLook);
                if !self.is(Bug::CountsBeforeNote) {
                    state.notes[seat] = p.seen.round + 1;
                }
                (p.at, p.back) = if last { (At::Look, At::Reload) } else { (At::Count, At::Gone) };
                p.about = if last { p.seen.round + 1 } else { 0 };
                "notes the round"
            }
            At::Reload => {
                p.doomed &= word == p.seen;
                (p.at, p.back) = (if word == p.seen { At::Count } else { At::Note }, At::Gone);
                p.seen = word;
                if word.broken {
                    (p.at, p.back) = (At::Rise, At::Gone);
                }
                "is the state the same?"
            }
            At::Count if word != p.seen => {
                (p.seen, p.doomed) = (word, state.marked & 1 << word.round != 0);
                p.at = if word.broken { At::Rise } else { At::Note };
                "counts itself: too late"
            }
            At::Count => {
                state.word.arrived += 1;
                (p.seen.arrived, p.seen.sleepers) = (0, false);
                p.at = if usize::from(state.word.arrived) == self.parties { At::Act } else { At::Watch };
                if self.is(Bug::CountsBeforeNote) {
                    p.back = p.at;
                    p.at = At::TellHelm;
                }
                "counts itself"
            }

            // ---- the last one
            At::Act => {
                p.at = At::Release;
                "acts"
            }
            At::Release => {
                p.at = At::Verdict;
                if !over {
                    state.word = word.ended();
                    state.word.turn = !word.turn;
                    state.released |= 1 << word.round;
                    if p.doomed {
                        state.wrong = Some("RELEASED WITH A DEAD PARTY");
                    }
                    self.tell(&mut p, word.sleepers, At::Verdict);
                }
                "releases"
            }

            // ---- the others
            At::Watch => {
                (p.done, p.target, p.half, p.about, p.back) = (0, 0, false, 0, At::Gone);
                p.at = match (over, p.late) {
                    (true, _) => At::Verdict,
                    (false, true) => At::Late,
                    (false, false) => At::Announce,
                };
                "is it over?"
            }
            At::Late => {
                p.at = At::Watch;
                if !over && !word.broken {
                    state.word = Word { broken: true, ..word.ended() };
                    self.tell(&mut p, word.sleepers, At::Watch);
                }
                "breaks: too late"
            }
            At::Announce => {
                p.at = At::Watch;
                if !over {
                    state.word.sleepers = true;
                    p.at = if self.is(Bug::LookBeforeNote) { At::Ready } else { At::Mark };
                }
                "announces"
            }
            At::Mark => {
                let mine = p.seat;
                let left = (0..=self.parties).find(|word| p.done & 1 << word == 0 && *word != usize::from(mine));
                if let Some(lock) = left
                    && !self.is(Bug::SeatsNotWatched)
                {
                    state.robust.watch(me, lock);
                    p.done |= 1 << lock;
                    let may = [Bug::SleepsOnDeath, Bug::TellsWhenOver, Bug::WokenTellsNobody].map(|bug| self.is(bug));
                    if state.robust.words[lock].is_dead() && may == [false; 3] {
                        state.robust.wake_up(me);
                        (p.at, p.done) = (At::Mend, 0);
                    }
                    "marks one"
                } else {
                    (p.done, p.at) = (0, if self.is(Bug::LookBeforeNote) { At::Queue } else { At::Ready });
                    "has marked all"
                }
            }
            At::Ready => {
                (p.at, p.back) = (At::Look, if self.is(Bug::LookBeforeNote) { At::Mark } else { At::Queue });
                p.about = p.seen.round + 1;
                if over {
                    state.robust.wake_up(me);
                    (p.at, p.back, p.about) = (At::Mend, At::Gone, 0);
                }
                "is it over?"
            }
            At::Queue => {
                p.back = At::Gone;
                let left = (0..=self.parties).find(|word| p.done & 1 << word == 0 && *word != seat);
                let same = match left {
                    Some(lock) if !self.is(Bug::SeatsNotWatched) => {
                        p.done |= 1 << lock;
                        state.robust.queue(me, lock)
                    }
                    _ => {
                        (p.at, p.done) = (At::Asleep, 0);
                        state.robust.queue_other(me, !over)
                    }
                };
                if !same {
                    (p.at, p.done) = (At::Mend, 0);
                }
                if same { "queues" } else { "EAGAIN" }
            }
            At::Asleep if !state.robust.is_woken(me) => return,
            At::Asleep => {
                state.robust.wake_up(me);
                p.at = At::Mend;
                "is awake"
            }
            At::Mend if p.done > self.all() || self.is(Bug::WokenTellsNobody) || (self.is(Bug::TellsWhenOver) && !over) => {
                (p.at, p.done) = (At::Watch, 0);
                "has mended all"
            }
            At::Mend => {
                let lock = p.done.trailing_ones() as usize;
                if lock != seat && state.robust.words[lock].is_dead() {
                    state.robust.look_at(me, lock);
                    (p.at, p.target) = (At::TellOthers, u8::try_from(lock).unwrap_or(0));
                    if lock != self.helm() {
                        (p.at, p.back, p.about) = (At::Blame, At::TellOthers, state.notes[lock]);
                    }
                } else {
                    p.done |= 1 << lock;
                }
                "is one left by a dead one?"
            }
            At::TellOthers => {
                kind = state.robust.wake_all_others();
                (p.at, p.back, p.about) = (At::Settle, At::Gone, 0);
                "wakes all: found a death"
            }
            At::Settle => {
                state.robust.settle(me, p.target.into());
                (p.at, p.done, p.target) = (At::Mend, p.done | 1 << p.target, 0);
                "settles the death"
            }
            At::Verdict => {
                let mine = p.seen.round;
                let released = if self.is(Bug::NoTurn) { !word.broken } else { word.turn != p.seen.turn };
                if released != (state.released & 1 << mine != 0) {
                    state.wrong = Some("WRONG VERDICT");
                }
                if !released && state.cause == mine + 1 && state.died & 1 << mine == 0 {
                    state.wrong = Some("BLAMED FOR NOTHING");
                }
                (p.at, p.seen) = (At::Rise, Word::default());
                "learns its verdict"
            }

            At::Look | At::LookNoter | At::LookWord | At::Blame | At::Break | At::Tell => {
                return self.death_step(before, me, next);
            }

            // ---- without a seat
            At::Helm => {
                let (robust, what, _, come) = state.robust.take_step(me, self.helm());
                state.robust = robust;
                p.at = match come {
                    Come::On => At::Helm,
                    Come::Done(true) => At::TellHelm,
                    Come::Not | Come::Done(false) => At::Change,
                };
                what
            }
            At::TellHelm if self.is(Bug::CountsBeforeNote) && p.seat != NO_SEAT => {
                state.notes[seat] = p.seen.round + 1;
                (p.at, p.back) = (p.back, At::Gone);
                "notes the round"
            }
            At::TellHelm => {
                kind = state.robust.wake_all_others();
                p.at = At::Change;
                "wakes all: a dead one's helm"
            }
            At::Change => {
                let changed = match p.role {
                    Role::Party => !over && !word.broken,
                    Role::Closer => !word.broken,
                    Role::Mender => word.broken || word.arrived > 0 || state.somebody_died(word.round, self.parties),
                };
                p.at = At::GiveHelm;
                if changed {
                    state.word = Word { broken: p.role != Role::Mender, ..word.ended() };
                    self.tell(&mut p, word.sleepers, At::GiveHelm);
                }
                "changes the state"
            }
            At::GiveHelm if !state.robust.holds(me, self.helm()) && state.robust.is_idle(me) => {
                p = rest(p);
                "has no helm"
            }
            At::Rise | At::GiveHelm => {
                let lock = if p.at == At::Rise { seat } else { self.helm() };
                state.robust.give_step(me, lock, false, Flaws::default(), |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    if let Come::Done(_) = come {
                        state.processes[me] = rest(p);
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
            At::Dying => {
                state.robust.die_step(me, |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    for seat in (0..self.parties).filter(|seat| before.robust.holds(me, *seat) && before.notes[*seat] != 0) {
                        if state.robust.words[seat].is_dead() {
                            state.marked |= 1 << (before.notes[seat] - 1);
                        }
                    }
                    if let Come::Done(_) = come {
                        state.processes[me] = Process::GONE;
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
        };
        state.processes[me] = p;
        next.push(Step { who: me, what, kind, state });
    }

    /// What may happen to `me`.
    pub(super) fn mishaps(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
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
                // It has died in the round that it has noted beside a seat that is still its own.
                for seat in (0..self.parties).filter(|seat| before.robust.holds(me, *seat) && before.notes[*seat] != 0) {
                    state.died |= 1 << (before.notes[seat] - 1);
                }
                state.robust.kill(me);
                state.processes[me] = Process { at: At::Dying, ..Process::GONE };
            });
        }
        let rises = |state: &mut State| {
            if p.at == At::Asleep {
                state.robust.wake_up(me);
                state.processes[me].at = At::Mend;
            } else if p.at == At::Outside {
                state.processes[me].at = At::Come;
            }
        };
        if matches!(p.at, At::Asleep | At::Announce | At::Outside) && !p.late {
            push(1, "is late", &|state| {
                state.processes[me].late = true;
                rises(state);
            });
        }
        if p.at == At::Act {
            push(1, "panics", &|state| state.processes[me].at = At::Late);
        }
        if p.at == At::Asleep {
            push(2, "wakes for nothing", &rises);
        }
    }
}

/// The end of one call.
fn rest(p: Process) -> Process {
    Process { at: At::Idle, role: p.role, rounds: p.rounds - 1, ..Process::GONE }
}
