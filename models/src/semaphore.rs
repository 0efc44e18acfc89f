//! The semaphore: permits that are robust locks, the gate before them, and death at every step.
//!
//! The gate's own protocol is the lock's (see [`mod@crate::lock`]): it is entered in one step when it is free, and the kernel frees a dead one's. The permits are modelled word by word
//! (see [`mod@crate::robust`]).
//!
//! # The steps
//!
//! | [`At`] | the semaphore's line |
//! |---|---|
//! | `Idle` | `take`, or `take_many` when more than one is wanted: that begins at the gate |
//! | `Look`, `Take` | `take_free`: any permit not looked at yet, then the lock's own steps |
//! | `Gate` | waits for the gate, and enters it |
//! | `Mark`, `Queue`, `Asleep` | `doze`: marks each word, then the kernel compares and queues each, then sleeps |
//! | `Out` | leaves the gate |
//! | `Held`, `Give`, `GiveBack` | has them; gives one after the other back; the same for what was gathered in vain |
//!
//! Chance: death, a time-out at the gate or in it, a wake-up for no reason; at the gate that is the look once a second, for a permit that needs no gate.
//!
//! # The properties
//!
//! - Who has a permit is named in its word: nobody else has it, and nobody robs him.
//! - When nobody can move by himself (who has his permits may keep them for ever): each permit is free or had by a living one; in the gate nobody sleeps for whom enough are free; if all have given
//!   theirs back nobody waits, so there is no deadlock either.
//! - Nobody waits for ever (`live`).

mod steps;

use crate::{
    checker::{Model, Step},
    robust::{Flaws, MOST, Robust, tid},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Semaphore {
    pub(crate) permits: usize,
    /// How many each process wants; 0: there is no such process.
    pub(crate) wants: [u8; MOST],
    pub(crate) rounds: u8,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    pub(crate) bug: Option<Bug>,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Everybody sleeps on the permits.
    NoGate,
    /// The permits are slept on, but not marked.
    NoMark,
    /// Only the first of the permits that others hold is slept on.
    WatchesOne,
    /// A release's clear compares the low half only.
    ClearIgnoresAnnounce,
    /// A release wakes nobody.
    NoWake,
    /// Who wanted many and is too late keeps what it has got.
    KeepsTheRest,
    /// Several are gathered without the gate.
    GathersOutside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum At {
    Gone,
    Idle,
    Look,
    Take,
    Gate,
    Mark,
    Queue,
    Asleep,
    Out,
    Held,
    Give,
    GiveBack,
    Dying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    want: u8,
    rounds: u8,
    late: bool,
    /// Which permits it has, has looked at (or marked, or queued on), and noted.
    got: u8,
    looked: u8,
    noted: u8,
    target: u8,
}

impl Process {
    const GONE: Self = Self { at: At::Gone, want: 0, rounds: 0, late: false, got: 0, looked: 0, noted: 0, target: 0 };

    fn bits(&self) -> u64 {
        let flags = self.want << 4 | self.rounds << 1 | u8::from(self.late);
        u64::from_be_bytes([self.at as u8, flags, self.got, self.looked, self.noted, self.target, 0, 0])
    }

    fn scan(&mut self) {
        (self.at, self.looked, self.noted, self.target) = (At::Look, 0, 0, 0);
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    /// Who is in the gate.
    gate: u8,
    left: [u8; 3],
    robust: Robust,
    processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&[self.gate, self.left[0], self.left[1], self.left[2]]);
        self.robust.hash(hasher);
        for process in &self.processes {
            hasher.write_u64(process.bits());
        }
    }
}

impl State {
    /// The same with these words.
    fn with(&self, robust: Robust) -> Self {
        let mut state = *self;
        state.robust = robust;
        state
    }
}

impl Semaphore {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn flaws(&self) -> Flaws {
        Flaws { clear_ignores_announce: self.is(Bug::ClearIgnoresAnnounce), no_wake: self.is(Bug::NoWake) }
    }

    fn all(&self) -> u8 {
        (1 << self.permits) - 1
    }

    /// Whether `me` may do what is done in the gate.
    fn is_inside(&self, state: &State, me: usize) -> bool {
        let outside = self.is(Bug::NoGate) || (self.is(Bug::GathersOutside) && state.processes[me].want > 1);
        state.gate == tid(me) || outside
    }
}

impl fmt::Display for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wants: Vec<String> = self.wants.iter().filter(|want| **want > 0).map(u8::to_string).collect();
        write!(f, "{} permits, wanted {} × {}", self.permits, wants.join("+"), self.rounds)
    }
}

impl Model for Semaphore {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::GONE; MOST];
        for (process, want) in processes.iter_mut().zip(self.wants).filter(|(_, want)| *want > 0) {
            *process = Process { at: At::Idle, want, rounds: self.rounds, ..Process::GONE };
        }
        State { gate: 0, left: [self.kills, self.timeouts, self.spurious], robust: Robust::START, processes }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..MOST {
            self.own_step(state, me, next);
            Self::mishaps(state, me, next);
        }
    }

    /// Processes are alike but for what they want, which goes with them.
    fn canonical(&self, state: &mut State) {
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        order.sort_by_cached_key(|&me| {
            let in_gate = u8::from(state.gate == tid(me));
            (state.processes[me].bits(), state.robust.hands[me].key(), state.robust.held(me), in_gate)
        });
        let old = *state;
        state.robust.rename(&order, |me| old.processes[me].at == At::Gone);
        for (new, from) in order.into_iter().enumerate() {
            state.processes[new] = old.processes[from];
            if old.gate == tid(from) {
                state.gate = tid(new);
            }
        }
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        for (me, p) in state.processes.iter().enumerate() {
            if p.at == At::Held && (0..self.permits).any(|word| p.got & 1 << word != 0 && !state.robust.holds(me, word)) {
                return Some("NOT HIS PERMIT");
            }
        }
        if !quiet {
            return None;
        }
        let count = |at: At| state.processes.iter().filter(|p| p.at == at).count();
        let held: u32 = state.processes.iter().map(|p| p.got.count_ones()).sum();
        let taken = (0..self.permits).filter(|word| state.robust.is_held(*word)).count();
        if u32::try_from(taken) != Ok(held) {
            return Some("LOST PERMIT");
        }
        if count(At::Held) == 0 && count(At::Asleep) + count(At::Gate) > 0 {
            return Some("WAITS FOR EVER");
        }
        let enough =
            |p: &Process| usize::try_from(u32::from(p.want) - p.got.count_ones()).is_ok_and(|more| taken + more <= self.permits);
        state.processes.iter().any(|p| p.at == At::Asleep && enough(p)).then_some("SLEEPS BESIDE A FREE PERMIT")
    }

    fn show(&self, state: &State) -> String {
        let words: Vec<String> = state.robust.words[..self.permits].iter().map(|low| low.show()).collect();
        let all: Vec<String> = (0..MOST)
            .filter(|me| self.wants[*me] > 0)
            .map(|me| format!("{:?}/{:?}{}", state.processes[me].at, state.robust.hands[me].stage, state.processes[me].got))
            .collect();
        format!("gate {} [{}] {}", state.gate, words.join(" "), all.join("  "))
    }
}
