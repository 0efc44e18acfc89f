//! The barrier: a state word, slots whose owners' deaths are noticed, the control lock, and death at every
//! step.
//!
//! Slots and control lock are robust locks, modelled word by word (see [`mod@crate::robust`]). No process
//! waits to take one, so a release wakes none. The steps are in [`mod@steps`] and [`mod@deaths`].
//!
//! # The roles
//!
//! Participants come so many times each; when the barrier is broken they come all the same. A *closer* calls
//! `abort`, a *mender* `reset`, once each. There may be more threads than participants.
//!
//! # The properties
//!
//! - A participant of a round that was released learns that, whatever other processes do meanwhile (arrive,
//!   reset), and no other process does. A round in which a dead participant was found before the last one
//!   counted is not released.
//! - A process that is named as dead, or broke a round by its death, has died in that round.
//! - When no process can move by itself, each that sleeps does so in the present round, all of whose
//!   participants live. So none sleeps through a release, a break, a reset or a death.
//! - No process is kept busy for ever (`live`).
//!
//! The product also looks at the clock: once a second for deaths that the kernel has missed, and every 5 ms
//! for a slot. The model has a wake-up for no reason instead; a process that finds no slot goes on when there
//! is one.

mod deaths;
mod steps;

use crate::checker::Step;
use crate::kernel::{self, Names, Of, Protocol, Run, steps, tid};
use crate::robust::{PROCESSES, WORDS};
use std::fmt;

type State = Of<Barrier, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Barrier, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Barrier {
    /// Participants: there are as many slots.
    pub(crate) parties: usize,
    /// Threads that come, and how often each.
    pub(crate) threads: usize,
    pub(crate) rounds: u8,
    pub(crate) closers: usize,
    pub(crate) menders: usize,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A sleeper watches the round only.
    SlotsNotWatched,
    /// A sleeper looks whether it should go on, and then marks the slots. **Not a bug**, since it does not
    /// sleep on a word that says that its owner died.
    LookBeforeNote,
    /// A process that is woken by a death notifies none.
    WokenNotifiesNone,
    /// A process that is woken by a death notifies the others if its own round is over; else it looks only
    /// for the dead of its round. (As it was until the model was there.)
    NotifiesWhenOver,
    /// A sleeper sleeps on a word that says that its owner died. (The same.)
    SleepsOnDeath,
    /// No process checks that the owner of a slot is the process that noted a round beside it. (The same.)
    TakerHides,
    /// A process that takes the slot of a dead one breaks nothing.
    TakerBreaksNothing,
    /// The last participant counts itself without a look whether the others live.
    CountsWithoutLook,
    /// A participant is counted before it has noted its round beside its slot.
    CountsBeforeNote,
    /// A slot's owner word is looked at before what is noted beside it.
    DeathBeforeNote,
    /// A process that finds a death reads what is noted beside the slot, and does not look whether the slot
    /// has a new owner by then. (As it was until a sweep under load had found it.)
    NoteOfANewOwner,
    /// A participant decides by the state whether it was released: it is not broken.
    NoSense,
    /// `abort` without the control lock.
    NoControlLock,
    /// A change wakes no process.
    NoWake,
}

steps! {
    enum At {
        Gone Idle
        // A slot.
        Come Scan Take Outside NotifyTaken
        // Arriving.
        Load Note Reload Count
        // The last participant.
        Act Release
        // The others.
        Watch Late Register Mark Ready Queue Asleep
        Mend MendNote MendCheck NotifyOthers ClearDeath Verdict Rise
        // A process that finds a dead participant.
        Look LookNoter LookWord Blame Break
        // After each change.
        Notify
        // Processes without a slot.
        Control NotifyControl Change GiveControl
    }
}

/// What a process without a slot wants with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
enum Role {
    Participant,
    Closer,
    Mender,
}

/// The state word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Word {
    round: u8,
    arrived: u8,
    broken: bool,
    sense: bool,
    sleepers: bool,
}

impl Word {
    fn ended(self) -> Self {
        Self { round: self.round + 1, arrived: 0, sleepers: false, ..self }
    }
}

const NO_SLOT: u8 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process {
    at: At,
    /// Where it goes on after a look or a change.
    back: At,
    role: Role,
    rounds: u8,
    slot: u8,
    /// The state as it arrived, or as it was seen.
    seen: Word,
    late: bool,
    /// The round that is looked for, or to be broken, plus 1; the process that noted it.
    about: u8,
    noter: u8,
    /// What has been dealt with: slots looked at, marked or queued on.
    done: u8,
    target: u8,
    /// A look or a break is half done.
    half: bool,
    /// For the properties: a participant was dead in this round when it began to look.
    doomed: bool,
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Shared {
    word: Word,
    /// Whose death broke which round: the round plus 1. (Which process it was is not modelled.)
    cause: u8,
    /// Beside each slot: the round plus 1, and the process that noted it.
    notes: [u8; WORDS],
    noters: [u8; WORDS],
    /// For the properties, a bit for each round: it was released; a process was killed in it, and the kernel
    /// has said so.
    released: u16,
    died: u16,
    marked: u16,
    /// A property that does not hold any more.
    wrong: Option<&'static str>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            at: At::Gone,
            back: At::Gone,
            role: Role::Participant,
            rounds: 0,
            slot: NO_SLOT,
            seen: Word::default(),
            late: false,
            about: 0,
            noter: 0,
            done: 0,
            target: 0,
            half: false,
            doomed: false,
        }
    }
}

impl Barrier {
    fn all(&self) -> u8 {
        (1 << self.parties) - 1
    }

    /// The control lock comes after the slots.
    fn control(&self) -> usize {
        self.parties
    }

    /// A participant of this round that is dead, all of it seen at once: for the properties, and for `reset`.
    fn has_died(&self, state: &State, round: u8) -> bool {
        (0..self.parties).any(|slot| state.own.notes[slot] == round + 1 && state.words[slot].is_dead())
    }

    /// The rounds that a process has noted beside a slot that is its own, as a set.
    fn noted_by(&self, state: &State, me: usize) -> u16 {
        let mine = (0..self.parties).filter(|slot| state.holds(me, *slot) && state.own.notes[*slot] != 0);
        mine.fold(0, |all, slot| all | 1 << (state.own.notes[slot] - 1))
    }
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parties, {} threads × {}", self.parties, self.threads, self.rounds)?;
        if self.closers > 0 {
            write!(f, ", {} closers", self.closers)?;
        }
        if self.menders > 0 { write!(f, ", {} menders", self.menders) } else { Ok(()) }
    }
}

impl Protocol<PROCESSES, WORDS> for Barrier {
    const NAME: &'static str = "barrier";
    type Bug = Bug;
    type Shared = Shared;
    type Process = Process;

    fn processes(&self) -> usize {
        self.threads + self.closers + self.menders
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let model = run.model;
        let mut processes = [Process::default(); PROCESSES];
        for (number, process) in processes.iter_mut().enumerate().take(model.processes()) {
            let (role, rounds) = match number {
                _ if number < model.threads => (Role::Participant, model.rounds),
                _ if number < model.threads + model.closers => (Role::Closer, 1),
                _ => (Role::Mender, 1),
            };
            *process = Process { at: At::Idle, role, rounds, ..Process::default() };
        }
        let own = Shared {
            word: Word::default(),
            cause: 0,
            notes: [0; WORDS],
            noters: [0; WORDS],
            released: 0,
            died: 0,
            marked: 0,
            wrong: None,
        };
        run.begin(own, processes, 0)
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        turn.own_step(next);
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p) = (turn.me, turn.p);
        let rises = |state: &mut State| {
            if p.at == At::Asleep {
                state.forget(me);
                state.processes[me].at = At::Mend;
            } else if p.at == At::Outside {
                state.processes[me].at = At::Come;
            }
        };
        if matches!(p.at, At::Asleep | At::Register | At::Outside) && !p.late {
            turn.chance(next, Turn::LATE, "is late", |state| {
                state.processes[me].late = true;
                rises(state);
            });
        }
        if p.at == At::Act {
            turn.chance(next, Turn::LATE, "panics", |state| state.processes[me].at = At::Late);
        }
        if p.at == At::Asleep {
            turn.chance(next, Turn::SPURIOUS, "wakes for nothing", rises);
        }
    }

    fn is_mortal(turn: &Turn<'_>) -> bool {
        turn.p.at != At::Idle
    }

    /// It has died in the round that it has noted beside a slot that is still its own.
    fn killed(run: &Run<Self, PROCESSES, WORDS>, state: &mut State, me: usize) {
        state.own.died |= run.model.noted_by(state, me);
    }

    /// The kernel has marked a slot: its participant's death can be noticed.
    fn marks(run: &Run<Self, PROCESSES, WORDS>, before: &State, state: &mut State, me: usize) {
        state.own.marked |= run.model.noted_by(before, me) & !run.model.noted_by(state, me);
    }

    /// Threads are alike.
    fn alike(&self, _one: usize, _other: usize) -> bool {
        true
    }

    /// Of rounds that are over everything is forgotten that no process will ask for.
    fn forget(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        let (own, words) = (&mut state.own, &state.words);
        for (slot, low) in words.iter().enumerate().take(run.model.parties) {
            if own.notes[slot] <= own.word.round {
                // A participant that is there may have noted its name, and will note its round.
                let signed = !low.is_free() && low.owner() == own.noters[slot];
                (own.notes[slot], own.noters[slot]) = (0, if signed { own.noters[slot] } else { 0 });
            }
        }
        let asked = state.processes.iter().filter(|p| p.at > At::Idle);
        let asked = asked.fold(1 << own.word.round, |all, p| all | 1 << p.seen.round);
        (own.released, own.died, own.marked) = (own.released & asked, own.died & asked, own.marked & asked);
        if own.cause != 0 && asked & 1 << (own.cause - 1) == 0 {
            own.cause = 0;
        }
    }

    fn nameless(state: &State, me: usize) -> (Process, u8) {
        let p = state.processes[me];
        let noters = state.own.noters.iter().enumerate().filter(|(_, noter)| **noter == tid(me));
        let noted = noters.fold(0, |all, (slot, _)| all | 1 << slot);
        (Process { noter: u8::from(p.noter != 0), ..p }, noted)
    }

    fn rename(state: &mut State, names: &Names) {
        for noter in state.processes.iter_mut().map(|p| &mut p.noter).chain(&mut state.own.noters) {
            *noter = names[usize::from(*noter)];
        }
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        let (word, parties) = (state.own.word, run.model.parties);
        if state.own.wrong.is_some() || !quiet {
            return state.own.wrong;
        }
        let asleep = || state.processes.iter().filter(|p| p.at == At::Asleep);
        if asleep().any(|p| p.seen.round != word.round) {
            return Some("SLEEPS THROUGH THE END");
        }
        // A participant that has been counted sleeps, or has died.
        if asleep().next().is_some() && asleep().count() != word.arrived.into() {
            return Some("DEATH NOT NOTICED");
        }
        let outside = state.processes.iter().any(|p| p.at == At::Outside);
        if outside && (0..parties).any(|slot| !state.is_held(slot)) {
            return Some("NO SLOT BESIDE A FREE ONE");
        }
        let gone = |me: &usize| state.processes[*me].at == At::Gone;
        let lost = (0..=parties).any(|word| (0..PROCESSES).filter(gone).any(|me| state.holds(me, word)));
        lost.then_some("LOST SLOT")
    }

    fn show(&self, state: &State) -> String {
        let word =
            |word: usize| format!("{}r{}", state.words[word].show(), i16::from(state.own.notes[word]) - 1);
        let process = |me: usize| {
            let p = &state.processes[me];
            format!("{:?}/{:?}r{}", p.at, state.hands[me].stage, p.seen.round)
        };
        let words: Vec<String> = (0..=self.parties).map(word).collect();
        let all: Vec<String> = (0..self.processes()).map(process).collect();
        let Word { round, arrived, broken, sense, sleepers } = state.own.word;
        let flags =
            [(broken, "B"), (sense, "T"), (sleepers, "S")].map(|(is, name)| if is { name } else { "" });
        format!("r{round} {arrived}{} [{}] {}", flags.concat(), words.join(" "), all.join("  "))
    }
}
