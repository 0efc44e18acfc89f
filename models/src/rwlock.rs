//! The rwlock: an entry lock, reader locks that are robust, a signature, and death at every step.
//!
//! The entry lock has the lock's own protocol (see [`mod@crate::lock`]). Here it is a word that is entered in
//! one step when it is free. The reader locks are modelled word by word (see [`mod@crate::robust`]).
//!
//! # The steps
//!
//! | [`At`] | the rwlock's line |
//! |---|---|
//! | `Glance`, `Grab`, `Check`, `AskIn`, `Back` | reader, at first ¹ |
//! | `Enter`, `Ask` | the entry lock; whether there is a signature |
//! | `Find`, `Widen`, `Sit`, `Leave` | reader, through the entry lock ² |
//! | `Read`, `Rise` | its guard; gives the reader lock back |
//! | `Look`, `Wait`, `Register`, `Queue`, `Asleep`, `Pass` | writer, for each reader lock ³ |
//! | `Sign`, `Begin`, `Write`, `Unsign`, `Leave` | writer ⁴ |
//!
//! 1. It finds a used reader lock free, and the entry lock as well. It takes the reader lock, and looks at
//!    the entry lock again. Then it asks for a signature, or goes back.
//! 2. It looks for a free reader lock, notes that this is used, takes it, and gives the entry lock back.
//! 3. Whether it is held; takes it as any lock; gives it back.
//! 4. It signs, begins and ends a change, clears the signature, and gives the entry lock back.
//!
//! Chance: death, a time-out at the entry lock or asleep, a wake-up for no reason (the liveness poll is one
//! of these).
//!
//! # The properties
//!
//! - No process reads or writes beside a writer.
//! - A process that reads or writes what a dead writer has left half changed has been warned so. It is warned
//!   so only if a writer has died with its signature.
//! - When no process can move by itself (a reader or writer may go on for ever): each reader lock is free or
//!   held by a living reader. No writer sleeps at a free one. If no process reads or writes, none waits.
//! - No process waits for ever (`live`).

mod steps;

use crate::checker::Step;
use crate::kernel::{self, Low, Names, Of, Protocol, Run, steps, tid};
use crate::robust::{PROCESSES, WORDS};
use std::fmt;

type State = Of<RwLock, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, RwLock, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// The entry lock comes after the reader locks.
const ENTRY: usize = WORDS - 1;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RwLock {
    pub(crate) locks: usize,
    pub(crate) readers: usize,
    pub(crate) writers: usize,
    pub(crate) rounds: u8,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A writer gives the entry lock back before it writes.
    EntryLockOpens,
    /// A writer looks at the reader locks before it has the entry lock.
    LooksOutside,
    /// A reader looks at the entry lock, and takes its reader lock then.
    ChecksFirst,
    /// A reader notes that its reader lock is used when the entry lock has been given back.
    WidensOutside,
    /// A reader gives the entry lock back before it has its reader lock.
    SitsOutside,
    /// The signature is cleared when the entry lock has been given back.
    ClearsOutside,
    /// A writer signs before the readers have left.
    SignsFirst,
    /// A death is reported by the kernel's mark, to the process that took the entry lock from a dead owner.
    KernelsMark,
    /// A reader that leaves wakes no process.
    NoWake,
    /// The clear of a reader that leaves compares the low half only. **Not a bug** here, where one writer at
    /// a time waits, and no other process can take the reader lock.
    ClearIgnoresEpoch,
}

steps! {
    enum At {
        Gone Idle Glance Grab Check AskIn Back
        Enter Ask Find Widen Sit Leave Read Rise
        Look Wait Register Queue Asleep Pass
        Sign Begin Write Unsign
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    at: At,
    writer: bool,
    rounds: u8,
    late: bool,
    /// It has been warned that a writer died.
    warned: bool,
    /// Has what it came for, or has had it.
    has: bool,
    /// The reader lock that it is at.
    lock: u8,
    /// For [`Bug::LooksOutside`]: the reader locks that were held.
    noted: u8,
}

impl Process {
    fn rest(self) -> Self {
        Self { at: At::Idle, writer: self.writer, rounds: self.rounds - 1, ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Shared {
    signature: u8,
    /// Reader locks that were ever taken.
    used: u8,
    /// For the properties: half of a change is there; a process died with its signature.
    torn: bool,
    unfinished: bool,
}

impl fmt::Display for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}R {}W × {}, {} locks", self.readers, self.writers, self.rounds, self.locks)
    }
}

impl Protocol<PROCESSES, WORDS> for RwLock {
    const NAME: &'static str = "rwlock";
    type Bug = Bug;
    type Shared = Shared;
    type Process = Process;

    fn processes(&self) -> usize {
        self.readers + self.writers
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let model = run.model;
        let mut processes = [Process::default(); PROCESSES];
        for (number, process) in processes.iter_mut().enumerate().take(model.processes()) {
            *process = Process {
                at: At::Idle,
                writer: number >= model.readers,
                rounds: model.rounds,
                ..Process::default()
            };
        }
        run.begin(Shared { signature: 0, used: 0, torn: false, unfinished: false }, processes, 0)
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        turn.own_step(next);
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p) = (turn.me, turn.p);
        let rises = |state: &mut State| {
            if p.at == At::Asleep {
                state.forget(me);
                state.processes[me].at = At::Wait;
            }
        };
        if matches!(p.at, At::Asleep | At::Enter) && !p.late {
            turn.chance(next, Turn::LATE, "is late", |state| {
                state.processes[me].late = true;
                rises(state);
            });
        }
        if p.at == At::Asleep {
            turn.chance(next, Turn::SPURIOUS, "wakes for nothing", rises);
        }
    }

    fn is_mortal(turn: &Turn<'_>) -> bool {
        turn.p.at != At::Idle
    }

    /// A writer has signed when the readers had left: from there on the next process is to be warned of its
    /// death.
    fn killed(_run: &Run<Self, PROCESSES, WORDS>, state: &mut State, me: usize) {
        let writes = matches!(state.processes[me].at, At::Begin | At::Write | At::Unsign);
        state.own.unfinished |= state.own.signature == tid(me) && writes;
    }

    /// Readers are alike, and so are writers.
    fn alike(&self, one: usize, other: usize) -> bool {
        (one < self.readers) == (other < self.readers)
    }

    /// No process asks whether the entry lock was left by a dead owner, but for [`Bug::KernelsMark`].
    fn forget(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        if !run.is(Bug::KernelsMark) {
            state.words[ENTRY].0 &= !Low::OD;
        }
    }

    fn nameless(state: &State, me: usize) -> (Process, u8) {
        (state.processes[me], u8::from(state.own.signature == tid(me)))
    }

    /// Of a signature matters only that there is one, and whether its owner lives.
    fn rename(state: &mut State, names: &Names) {
        state.own.signature = names[usize::from(state.own.signature)];
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        let unsigns = |p: &Process| p.at == At::Unsign && !run.is(Bug::ClearsOutside);
        let writes = |p: &&Process| matches!(p.at, At::Begin | At::Write) || unsigns(p);
        let writers = state.processes.iter().filter(writes).count();
        let readers = state.processes.iter().filter(|p| p.at == At::Read).count();
        if writers > 1 || (writers == 1 && readers > 0) {
            return Some("BESIDE A WRITER");
        }
        for p in state.processes.iter().filter(|p| matches!(p.at, At::Read | At::Begin)) {
            if state.own.torn && !p.warned {
                return Some("NOT WARNED");
            }
            if p.warned && !state.own.unfinished {
                return Some("WARNED FOR NOTHING");
            }
        }
        if !quiet {
            return None;
        }
        let count = |at: At| state.processes.iter().filter(|p| p.at == at).count();
        if (0..run.model.locks).filter(|lock| state.is_held(*lock)).count() != readers {
            return Some("LOST READER LOCK");
        }
        if readers + writers == 0 && count(At::Asleep) + count(At::Enter) > 0 {
            return Some("WAITS FOR EVER");
        }
        let beside = |p: &Process| p.at == At::Asleep && !state.is_held(p.lock.into());
        state.processes.iter().any(beside).then_some("SLEEPS AT A FREE LOCK")
    }

    fn show(&self, state: &State) -> String {
        let words: Vec<String> = state.words[..self.locks].iter().map(|low| low.show()).collect();
        let process = |me: usize| {
            let p = &state.processes[me];
            format!("{:?}/{:?}{}", p.at, state.hands[me].stage, if p.warned { "!" } else { "" })
        };
        let all: Vec<String> = (0..self.processes()).map(process).collect();
        let (torn, signature) = (if state.own.torn { " torn" } else { "" }, state.own.signature);
        let entry = state.words[ENTRY].show();
        format!("entry {entry} signed {signature}{torn} [{}] {}", words.join(" "), all.join("  "))
    }
}
