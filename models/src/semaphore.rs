//! The semaphore: permits that are robust locks, the mutex before them, and death at every step.
//!
//! The mutex has the lock's own protocol (see [`mod@crate::lock`]). Here it is a word that is entered in one
//! step when it is free. The permits are modelled word by word (see [`mod@crate::robust`]).
//!
//! # The steps
//!
//! | [`At`] | the semaphore's line |
//! |---|---|
//! | `Idle` | `take`, or `take_many`, which begins at the mutex |
//! | `Look`, `Take` | `take_free`: any permit not looked at yet, then the lock's own steps |
//! | `Enter` | waits for the mutex, and enters it |
//! | `Register`, `Queue`, `Asleep` | parks: registers with each word; the kernel compares and queues each; sleeps |
//! | `Out` | leaves the mutex |
//! | `Held`, `Give` | has its permits; gives one after the other back |
//! | `GiveBack` | gives back what it gathered without success |
//!
//! Chance: death, a time-out at the mutex or in it, a wake-up for no reason. At the mutex that is also the
//! liveness poll, for a permit that needs no mutex.
//!
//! # The properties
//!
//! - The word of a permit names its holder: no other process has it, and none takes it away.
//! - When no process can move by itself (the holders of permits may keep them for ever): each permit is free
//!   or held by a living process. No process sleeps in the mutex for which enough permits are free. If all
//!   have given theirs back, none waits, so there is no deadlock either.
//! - No process waits for ever (`live`).

mod steps;

use crate::checker::Step;
use crate::kernel::{self, Low, Of, Protocol, Run, steps};
use crate::robust::{PROCESSES, WORDS};
use std::fmt;

type State = Of<Semaphore, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Semaphore, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// The mutex comes after the permits.
const MUTEX: usize = WORDS - 1;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Semaphore {
    pub(crate) permits: usize,
    /// How many each process wants; 0: there is no such process.
    pub(crate) wants: [u8; PROCESSES],
    pub(crate) rounds: u8,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// All processes sleep on the permits.
    NoMutex,
    /// The permits are slept on, without registration.
    NotRegistered,
    /// A process sleeps only on the first of the permits that others hold.
    WatchesOne,
    /// A release's clear compares the low half only.
    ClearIgnoresEpoch,
    /// A release wakes no process.
    NoWake,
    /// A process that wanted several permits and is too late keeps what it has got.
    KeepsTheRest,
    /// Several are gathered without the mutex.
    GathersOutside,
}

steps! {
    enum At {
        Gone Idle Look Take Enter Register Queue Asleep Out Held Give GiveBack
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    at: At,
    want: u8,
    rounds: u8,
    late: bool,
    /// Which permits it has, has looked at (or registered with, or queued on), and noted.
    got: u8,
    looked: u8,
    noted: u8,
    target: u8,
}

impl Process {
    fn scan(&mut self) {
        (self.at, self.looked, self.noted, self.target) = (At::Look, 0, 0, 0);
    }

    fn has_all(&self) -> bool {
        self.got.count_ones() == u32::from(self.want)
    }

    /// The end of a round, with or without success.
    fn rest(&mut self) {
        *self = Self { at: At::Idle, want: self.want, rounds: self.rounds - 1, ..Self::default() };
    }
}

impl Semaphore {
    fn all(&self) -> u8 {
        (1 << self.permits) - 1
    }
}

impl fmt::Display for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wants: Vec<String> = self.wants[..self.processes()].iter().map(u8::to_string).collect();
        write!(f, "{} permits, wanted {} × {}", self.permits, wants.join("+"), self.rounds)
    }
}

impl Protocol<PROCESSES, WORDS> for Semaphore {
    const NAME: &'static str = "semaphore";
    type Bug = Bug;
    type Shared = ();
    type Process = Process;

    fn processes(&self) -> usize {
        self.wants.iter().filter(|want| **want > 0).count()
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let mut processes = [Process::default(); PROCESSES];
        for (process, want) in processes.iter_mut().zip(run.model.wants).filter(|(_, want)| *want > 0) {
            *process = Process { at: At::Idle, want, rounds: run.model.rounds, ..Process::default() };
        }
        run.begin((), processes, 0)
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        turn.own_step(next);
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p) = (turn.me, turn.p);
        let rises = |state: &mut State| {
            if p.at == At::Asleep {
                state.forget(me);
                state.processes[me].scan();
            }
        };
        let inside = p.at == At::Look && turn.before.holds(me, MUTEX);
        if (matches!(p.at, At::Asleep | At::Enter) || inside) && !p.late {
            turn.chance(next, Turn::LATE, "is late", |state| {
                state.processes[me].late = true;
                rises(state);
            });
        }
        if p.at == At::Asleep {
            turn.chance(next, Turn::SPURIOUS, "wakes for nothing", rises);
        }
        if p.at == At::Enter && p.want == 1 {
            turn.chance(next, Turn::SPURIOUS, "liveness poll", |state| state.processes[me].scan());
        }
    }

    fn is_mortal(turn: &Turn<'_>) -> bool {
        turn.p.at != At::Idle
    }

    /// Processes are alike but for what they want, which goes with them.
    fn alike(&self, _one: usize, _other: usize) -> bool {
        true
    }

    /// No process asks whether the mutex was left by a dead owner.
    fn forget(_run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        state.words[MUTEX].0 &= !Low::OD;
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        let permits = run.model.permits;
        for (me, p) in state.processes.iter().enumerate().filter(|(_, p)| p.at == At::Held) {
            if (0..permits).any(|word| p.got & 1 << word != 0 && !state.holds(me, word)) {
                return Some("NOT ITS PERMIT");
            }
        }
        if !quiet {
            return None;
        }
        let count = |at: At| state.processes.iter().filter(|p| p.at == at).count();
        let held: u32 = state.processes.iter().map(|p| p.got.count_ones()).sum();
        let taken = (0..permits).filter(|word| state.is_held(*word)).count();
        if u32::try_from(taken) != Ok(held) {
            return Some("LOST PERMIT");
        }
        if count(At::Held) == 0 && count(At::Asleep) + count(At::Enter) > 0 {
            return Some("WAITS FOR EVER");
        }
        let more = |p: &Process| usize::try_from(u32::from(p.want) - p.got.count_ones()).unwrap_or(permits);
        let beside = state.processes.iter().any(|p| p.at == At::Asleep && taken + more(p) <= permits);
        beside.then_some("SLEEPS BESIDE A FREE PERMIT")
    }

    fn show(&self, state: &State) -> String {
        let words: Vec<String> = state.words[..self.permits].iter().map(|low| low.show()).collect();
        let all: Vec<String> = (0..self.processes())
            .map(|me| {
                format!("{:?}/{:?}{}", state.processes[me].at, state.hands[me].stage, state.processes[me].got)
            })
            .collect();
        format!("mutex {} [{}] {}", state.words[MUTEX].show(), words.join(" "), all.join("  "))
    }
}
