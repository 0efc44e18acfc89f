//! The rwlock: a turnstile, places that are robust locks, a signature, and death at every step.
//!
//! The turnstile's own protocol is the lock's (see [`mod@crate::lock`]): it is entered in one step when it is free, and the kernel frees a dead one's. The places are modelled word by word
//! (see [`mod@crate::robust`]).
//!
//! # The steps
//!
//! | [`At`] | the rwlock's line |
//! |---|---|
//! | `Glance`, `Grab`, `Check`, `AskIn`, `Back` | reader, at first: finds a used place free and the turnstile, too; takes the place; looks at the turnstile again; asks for a signature, or goes back |
//! | `Enter`, `Ask` | the turnstile; whether there is a signature |
//! | `Find`, `Widen`, `Sit`, `Leave` | reader: looks for a free place, notes that it is used, takes it, gives the turnstile back |
//! | `Read`, `Rise` | its guard; gives the place back |
//! | `Look`, `Wait`, `Announce`, `Queue`, `Asleep`, `Pass` | writer, for each place: whether it is held; takes it as any lock; gives it back |
//! | `Sign`, `Begin`, `Write`, `Unsign`, `Leave` | signs; begins and ends a change; clears the signature; gives the turnstile back |
//!
//! Chance: death, a time-out at the turnstile or asleep, a wake-up for no reason (the look once a second is one, too).
//!
//! # The properties
//!
//! - Nobody reads or writes beside a writer.
//! - Who reads or writes what a dead writer has left half changed has been told. Nobody is told when no writer has died with its signature.
//! - When nobody can move by himself (who reads or writes may do so for ever): each place is free or had by a living reader; no writer sleeps at a free one; if nobody reads or writes nobody waits.
//! - Nobody waits for ever (`live`).

mod steps;

use crate::{
    checker::{Model, Step},
    robust::{MOST, Robust, tid},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RwLock {
    pub(crate) places: usize,
    pub(crate) readers: usize,
    pub(crate) writers: usize,
    pub(crate) rounds: u8,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    pub(crate) bug: Option<Bug>,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A writer gives the turnstile back before it writes.
    TurnstileOpens,
    /// A writer looks at the places before it has the turnstile.
    LooksOutside,
    /// A reader looks at the turnstile, and takes its place then.
    ChecksFirst,
    /// A reader notes that its place is used when the turnstile has been given back.
    WidensOutside,
    /// A reader gives the turnstile back before it has its place.
    SitsOutside,
    /// The signature is cleared when the turnstile has been given back.
    ClearsOutside,
    /// A writer signs before the readers have left.
    SignsFirst,
    /// Told is who got the turnstile from a dead one, by the kernel's mark.
    KernelsMark,
    /// A reader that leaves wakes nobody.
    NoWake,
    /// The clear of a reader that leaves compares the low half only. **Not a bug** here, where one writer at a time waits, and nobody else can take the place.
    ClearIgnoresAnnounce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum At {
    Gone,
    Idle,
    Glance,
    Grab,
    Check,
    AskIn,
    Back,
    Enter,
    Ask,
    Find,
    Widen,
    Sit,
    Leave,
    Read,
    Rise,
    Look,
    Wait,
    Announce,
    Queue,
    Asleep,
    Pass,
    Sign,
    Begin,
    Write,
    Unsign,
    Dying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    writer: bool,
    rounds: u8,
    late: bool,
    told: bool,
    /// Has what it came for, or has had it.
    has: bool,
    /// The place it is at.
    place: u8,
    /// For [`Bug::LooksOutside`]: the places that were held.
    noted: u8,
}

impl Process {
    const GONE: Self = Self { at: At::Gone, writer: false, rounds: 0, late: false, told: false, has: false, place: 0, noted: 0 };

    fn bits(&self) -> u64 {
        let flags = [self.writer, self.late, self.told, self.has].into_iter().fold(0, |all, flag| all << 1 | u8::from(flag));
        u64::from_be_bytes([self.at as u8, flags, self.rounds, self.place, self.noted, 0, 0, 0])
    }

    fn rest(self) -> Self {
        Self { at: At::Idle, writer: self.writer, rounds: self.rounds - 1, ..Self::GONE }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    turnstile: u8,
    /// Its last owner died in it; only [`Bug::KernelsMark`] looks.
    marked: bool,
    signature: u8,
    /// Places that were ever taken.
    used: u8,
    /// For the properties: half of a change is there; somebody died with his signature.
    torn: bool,
    unfinished: bool,
    left: [u8; 3],
    robust: Robust,
    processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let flags = u8::from(self.torn) | u8::from(self.unfinished) << 1 | u8::from(self.marked) << 2;
        hasher.write(&[self.turnstile, self.signature, self.used, flags, self.left[0], self.left[1], self.left[2]]);
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

impl RwLock {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

impl fmt::Display for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}R {}W × {}, {} places", self.readers, self.writers, self.rounds, self.places)
    }
}

impl Model for RwLock {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::GONE; MOST];
        for (number, process) in processes.iter_mut().enumerate().take(self.readers + self.writers) {
            *process = Process { at: At::Idle, writer: number >= self.readers, rounds: self.rounds, ..Process::GONE };
        }
        State {
            turnstile: 0,
            marked: false,
            signature: 0,
            used: 0,
            torn: false,
            unfinished: false,
            left: [self.kills, self.timeouts, self.spurious],
            robust: Robust::START,
            processes,
        }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..MOST {
            self.own_step(state, me, next);
            Self::mishaps(state, me, next);
        }
    }

    /// Readers are alike, and so are writers. Of the signature matters only that there is one, and whether its owner lives: it keeps the name.
    fn canonical(&self, state: &mut State) {
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        order.sort_by_cached_key(|&me| {
            let named = u8::from(state.turnstile == tid(me)) | u8::from(state.signature == tid(me)) << 1;
            (state.processes[me].bits(), state.robust.hands[me].key(), state.robust.held(me), named)
        });
        let old = *state;
        state.robust.rename(&order, |me| old.processes[me].at == At::Gone);
        for (new, from) in order.into_iter().enumerate() {
            state.processes[new] = old.processes[from];
            if old.turnstile == tid(from) {
                state.turnstile = tid(new);
            }
            if old.signature == tid(from) {
                state.signature = tid(new);
            }
        }
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        let writes = |p: &Process| {
            matches!(p.at, At::Begin | At::Write | At::Unsign) && !self.is(Bug::ClearsOutside)
                || matches!(p.at, At::Begin | At::Write)
        };
        let writers = state.processes.iter().filter(|p| writes(p)).count();
        let readers = state.processes.iter().filter(|p| p.at == At::Read).count();
        if writers > 1 || (writers == 1 && readers > 0) {
            return Some("BESIDE A WRITER");
        }
        for p in &state.processes {
            let enters = matches!(p.at, At::Read | At::Begin);
            if enters && state.torn && !p.told {
                return Some("NOT TOLD");
            }
            if enters && p.told && !state.unfinished {
                return Some("TOLD FOR NOTHING");
            }
        }
        if !quiet {
            return None;
        }
        let count = |at: At| state.processes.iter().filter(|p| p.at == at).count();
        if (0..self.places).filter(|place| state.robust.is_held(*place)).count() != readers {
            return Some("LOST PLACE");
        }
        if readers + writers == 0 && count(At::Asleep) + count(At::Enter) > 0 {
            return Some("WAITS FOR EVER");
        }
        let sleeper = |p: &Process| p.at == At::Asleep && !state.robust.is_held(p.place.into());
        state.processes.iter().any(sleeper).then_some("SLEEPS AT A FREE PLACE")
    }

    fn show(&self, state: &State) -> String {
        let words: Vec<String> = state.robust.words[..self.places].iter().map(|low| low.show()).collect();
        let all: Vec<String> = (0..self.readers + self.writers)
            .map(|me| {
                let (p, hand) = (&state.processes[me], &state.robust.hands[me]);
                format!("{:?}/{:?}{}", p.at, hand.stage, if p.told { "!" } else { "" })
            })
            .collect();
        let (torn, signature) = (if state.torn { " torn" } else { "" }, state.signature);
        format!("turnstile {} signed {signature}{torn} [{}] {}", state.turnstile, words.join(" "), all.join("  "))
    }
}
