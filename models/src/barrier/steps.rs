//! What each process does next.
//!
//! | [`At`] | the barrier's line |
//! |---|---|
//! | `Come`, `Scan`, `Take`, `Outside` | `sit`: loads the state; a slot that is free ¹ |
//! | `NotifyTaken` | has taken a dead process's slot, and done `break_if`: wakes all |
//! | `Load`, `Note`, `Reload`, `Count` | `arrive` ² |
//! | `Act`, `Release` | `lead`: the action; round + 1, the sense reversed |
//! | `Watch`, `Late`, `Register` | `await_release`: is it over; the time-out's break; sets `SLEEPERS` |
//! | `Mark`, `Ready`, `Queue`, `Asleep` | `sleep_watching` ³ |
//! | `Mend`, `MendNote`, `MendCheck`, `NotifyOthers`, `ClearDeath` | after each sleep, for each lock ⁴ |
//! | `Verdict`, `Rise` | the sense; leaves the slot, which wakes no process |
//! | `Look`, `LookNoter`, `LookWord` | for each slot: what is noted, by which process, its word |
//! | `Blame`, `Break` | `break_if`: loads and compares, stores the cause; compare-and-swap |
//! | `Notify` | after a change that found `SLEEPERS`: wakes all |
//! | `Control`, `NotifyControl`, `Change`, `GiveControl` | `abort`, `reset`, and a time-out without a slot |
//!
//! 1. In any order; the lock's own steps; or it finds none.
//! 2. It loads the state, and notes its name, then the round. The last participant looks for dead ones, and
//!    whether the state is the same. Compare-and-swap.
//! 3. `W` on each lock. Is it over? A look for dead participants. Then the kernel compares and queues, the
//!    round last.
//! 4. Was it left by a dead process? Which round did that note? Is the lock as it was? `break_if` for the
//!    note, wakes all; compare-and-swap.

use super::deaths::notify;
use super::{At, Bug, NO_SLOT, Process, Role, Steps, Turn, Word};
use crate::checker::{Kind, Step};
use crate::kernel::tid;
use crate::robust::{Come, Flaws, OTHER};

impl Turn<'_> {
    /// The next step by itself.
    pub(super) fn own_step(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let mut kind = Kind::Own;
        let word = state.own.word;
        let slot = usize::from(p.slot);
        let over = word.round != p.seen.round;
        let what = match p.at {
            At::Gone => return,
            At::Idle if p.rounds == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::Idle => {
                p.at = match p.role {
                    Role::Participant => At::Come,
                    Role::Closer if self.is(Bug::NoControlLock) => At::Change,
                    Role::Closer | Role::Mender => At::Control,
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
            At::Scan if p.done == self.model.all() => {
                (p.done, p.at) = (0, if p.late { At::Control } else { At::Outside });
                "finds no slot"
            }
            At::Scan => {
                for slot in (0..self.model.parties).filter(|slot| p.done & 1 << slot == 0) {
                    let mut p = p;
                    if state.is_held(slot) {
                        p.done |= 1 << slot;
                    } else {
                        (p.at, p.target) = (At::Take, u8::try_from(slot).unwrap_or(0));
                    }
                    self.go(next, "looks at a slot", state, p);
                }
                return;
            }
            At::Take => {
                let (what, come) = state.take_step(me, p.target.into());
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.done, p.target) = (At::Scan, p.done | 1 << p.target, 0),
                    Come::Done(died) => {
                        (p.slot, p.done, p.target) = (p.target, 0, 0);
                        (p.at, p.back) = (At::Load, At::Gone);
                        if died {
                            // The note beside the slot says which round it is about.
                            (p.at, p.back) = (At::Blame, At::NotifyTaken);
                            p.about = state.own.notes[usize::from(p.slot)];
                            if self.is(Bug::TakerBreaksNothing) {
                                p.at = At::NotifyTaken;
                            }
                        }
                    }
                }
                what
            }
            At::Outside => {
                if word == p.seen && (0..self.model.parties).all(|slot| state.is_held(slot)) {
                    return;
                }
                p.at = At::Come;
                "looks again"
            }
            At::NotifyTaken => {
                kind = state.wake_all(OTHER);
                p.at = At::Load;
                "wakes all: a dead process had the slot"
            }

            // ---- arrive
            At::Load => {
                (p.seen, p.at) = (word, At::Note);
                p.doomed = state.own.marked & 1 << word.round != 0;
                if word.broken {
                    p.at = At::Rise;
                }
                "loads the state"
            }
            At::Note if state.own.noters[slot] != tid(me) => {
                state.own.noters[slot] = tid(me);
                "signs"
            }
            At::Note => {
                let last =
                    usize::from(p.seen.arrived) + 1 >= self.model.parties && !self.is(Bug::CountsWithoutLook);
                if !self.is(Bug::CountsBeforeNote) {
                    state.own.notes[slot] = p.seen.round + 1;
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
                (p.seen, p.doomed) = (word, state.own.marked & 1 << word.round != 0);
                p.at = if word.broken { At::Rise } else { At::Note };
                "counts itself: too late"
            }
            At::Count => {
                state.own.word.arrived += 1;
                (p.seen.arrived, p.seen.sleepers) = (0, false);
                p.at = if usize::from(state.own.word.arrived) == self.model.parties {
                    At::Act
                } else {
                    At::Watch
                };
                if self.is(Bug::CountsBeforeNote) {
                    p.back = p.at;
                    p.at = At::NotifyControl;
                }
                "counts itself"
            }

            // ---- the last participant
            At::Act => {
                p.at = At::Release;
                "acts"
            }
            At::Release => {
                p.at = At::Verdict;
                if !over {
                    state.own.word = word.ended();
                    state.own.word.sense = !word.sense;
                    state.own.released |= 1 << word.round;
                    if p.doomed {
                        state.own.wrong = Some("RELEASED WITH A DEAD PARTICIPANT");
                    }
                    notify(&mut p, word.sleepers, At::Verdict);
                }
                "releases"
            }

            // ---- the others
            At::Watch => {
                (p.done, p.target, p.half, p.about, p.back) = (0, 0, false, 0, At::Gone);
                p.at = match (over, p.late) {
                    (true, _) => At::Verdict,
                    (false, true) => At::Late,
                    (false, false) => At::Register,
                };
                "is it over?"
            }
            At::Late => {
                p.at = At::Watch;
                if !over && !word.broken {
                    state.own.word = Word { broken: true, ..word.ended() };
                    notify(&mut p, word.sleepers, At::Watch);
                }
                "breaks: too late"
            }
            At::Register => {
                p.at = At::Watch;
                if !over {
                    state.own.word.sleepers = true;
                    p.at = if self.is(Bug::LookBeforeNote) { At::Ready } else { At::Mark };
                }
                "registers"
            }
            At::Mark => {
                let mine = p.slot;
                let left = (0..=self.model.parties)
                    .find(|word| p.done & 1 << word == 0 && *word != usize::from(mine));
                if let Some(lock) = left
                    && !self.is(Bug::SlotsNotWatched)
                {
                    state.watch(me, lock);
                    p.done |= 1 << lock;
                    let may = [Bug::SleepsOnDeath, Bug::NotifiesWhenOver, Bug::WokenNotifiesNone]
                        .map(|bug| self.is(bug));
                    if state.words[lock].is_dead() && may == [false; 3] {
                        state.forget(me);
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
                    state.forget(me);
                    (p.at, p.back, p.about) = (At::Mend, At::Gone, 0);
                }
                "is it over?"
            }
            At::Queue => {
                p.back = At::Gone;
                let left = (0..=self.model.parties).find(|word| p.done & 1 << word == 0 && *word != slot);
                let same = match left {
                    Some(lock) if !self.is(Bug::SlotsNotWatched) => {
                        p.done |= 1 << lock;
                        state.queue_lock(me, lock)
                    }
                    _ => {
                        (p.at, p.done) = (At::Asleep, 0);
                        state.queue_or_leave(me, OTHER, !over)
                    }
                };
                if !same {
                    (p.at, p.done) = (At::Mend, 0);
                }
                if same { "queues" } else { "EAGAIN" }
            }
            At::Asleep if !self.hand().woken => return,
            At::Asleep => {
                state.forget(me);
                p.at = At::Mend;
                "is awake"
            }
            At::Mend
                if p.done > self.model.all()
                    || self.is(Bug::WokenNotifiesNone)
                    || (self.is(Bug::NotifiesWhenOver) && !over) =>
            {
                (p.at, p.done) = (At::Watch, 0);
                "has mended all"
            }
            At::Mend => {
                let lock = p.done.trailing_ones() as usize;
                if lock != slot && state.words[lock].is_dead() {
                    state.look_at(me, lock);
                    let reads = if lock == self.model.control() { At::NotifyOthers } else { At::MendNote };
                    (p.at, p.target) = (reads, u8::try_from(lock).unwrap_or(0));
                } else {
                    p.done |= 1 << lock;
                }
                "was a lock left by a dead process?"
            }
            At::MendNote => {
                p.about = state.own.notes[usize::from(p.target)];
                (p.at, p.back) = (At::MendCheck, At::NotifyOthers);
                if self.is(Bug::NoteOfANewOwner) {
                    p.at = At::Blame;
                }
                "which round did it note?"
            }
            At::MendCheck => {
                p.at = At::Blame;
                if !state.is_as_looked_at(me, p.target.into()) {
                    state.clear_death(me, p.target.into());
                    (p.at, p.back, p.about) = (At::Mend, At::Gone, 0);
                    (p.done, p.target) = (p.done | 1 << p.target, 0);
                }
                "is the lock as it was?"
            }
            At::NotifyOthers => {
                kind = state.wake_all(OTHER);
                (p.at, p.back, p.about) = (At::ClearDeath, At::Gone, 0);
                "wakes all: found a death"
            }
            At::ClearDeath => {
                state.clear_death(me, p.target.into());
                (p.at, p.done, p.target) = (At::Mend, p.done | 1 << p.target, 0);
                "clears the death"
            }
            At::Verdict => {
                let mine = p.seen.round;
                let released = if self.is(Bug::NoSense) { !word.broken } else { word.sense != p.seen.sense };
                if released != (state.own.released & 1 << mine != 0) {
                    state.own.wrong = Some("WRONG VERDICT");
                }
                if !released && state.own.cause == mine + 1 && state.own.died & 1 << mine == 0 {
                    state.own.wrong = Some("BLAMED FOR NOTHING");
                }
                (p.at, p.seen) = (At::Rise, Word::default());
                "learns its verdict"
            }

            At::Look | At::LookNoter | At::LookWord | At::Blame | At::Break | At::Notify => {
                return self.death_step(next);
            }

            // ---- without a slot
            At::Control => {
                let (what, come) = state.take_step(me, self.model.control());
                p.at = match come {
                    Come::On => At::Control,
                    Come::Done(true) => At::NotifyControl,
                    Come::Not | Come::Done(false) => At::Change,
                };
                what
            }
            At::NotifyControl if self.is(Bug::CountsBeforeNote) && p.slot != NO_SLOT => {
                state.own.notes[slot] = p.seen.round + 1;
                (p.at, p.back) = (p.back, At::Gone);
                "notes the round"
            }
            At::NotifyControl => {
                kind = state.wake_all(OTHER);
                p.at = At::Change;
                "wakes all: a dead process had the control lock"
            }
            At::Change => {
                let changed = match p.role {
                    Role::Participant => !over && !word.broken,
                    Role::Closer => !word.broken,
                    Role::Mender => {
                        word.broken || word.arrived > 0 || self.model.has_died(&state, word.round)
                    }
                };
                p.at = At::GiveControl;
                if changed {
                    state.own.word = Word { broken: p.role != Role::Mender, ..word.ended() };
                    notify(&mut p, word.sleepers, At::GiveControl);
                }
                "changes the state"
            }
            At::GiveControl if !state.holds(me, self.model.control()) && state.is_idle(me) => {
                p = rest(p);
                "does not hold the control lock"
            }
            At::Rise | At::GiveControl => {
                let lock = if p.at == At::Rise { slot } else { self.model.control() };
                return state.give_step(me, lock, false, Flaws::default(), |mut state, what, kind, done| {
                    if done {
                        state.processes[me] = rest(p);
                    }
                    next.push(Step { process: me, what, kind, state });
                });
            }
        };
        state.processes[me] = p;
        next.push(Step { process: me, what, kind, state });
    }
}

/// The end of one call.
fn rest(p: Process) -> Process {
    Process { at: At::Idle, role: p.role, rounds: p.rounds - 1, ..Process::default() }
}
