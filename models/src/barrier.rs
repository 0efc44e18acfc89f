//! The barrier: a state word, seats whose owners' deaths are heard, the helm, and death at every step.
//!
//! Seats and helm are robust locks, modelled word by word (see [`mod@crate::robust`]); nobody waits to take one, so a release wakes nobody. The steps are in [`mod@steps`] and [`mod@deaths`].
//!
//! # The roles
//!
//! Parties come so many times each, and when the barrier is broken they come all the same. A *closer* calls `abort`, a *mender* `reset`, once each. There may be more threads than parties.
//!
//! # The properties
//!
//! - Who was in a round that was released is told so, whoever comes in or resets meanwhile, and nobody else is. A round that somebody was found dead in before the last one counted is not released.
//! - Who is named as dead, or broke a round by its death, has died in that round.
//! - When nobody can move by himself: who sleeps sleeps in the round that is, all of whose parties live. So nobody sleeps through a release, a break, a reset or a death.
//! - Nobody is kept busy for ever (`live`).
//!
//! The product's looks at the clock (once a second for deaths that the kernel has missed, every 5 ms for a seat) are not there, but as a wake-up for no reason; who finds no seat goes on when there is one.

mod deaths;
mod steps;

use crate::{
    checker::{Model, Step},
    robust::{MOST, Robust, WORDS, tid},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Barrier {
    /// Seats.
    pub(crate) parties: usize,
    /// Threads that come, and how often each.
    pub(crate) threads: usize,
    pub(crate) rounds: u8,
    pub(crate) closers: usize,
    pub(crate) menders: usize,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    pub(crate) bug: Option<Bug>,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A sleeper watches the round only.
    SeatsNotWatched,
    /// A sleeper looks whether it should go on, and then marks the seats. **Not a bug**, since it does not sleep on a word that says that its owner died.
    LookBeforeNote,
    /// Who was woken by a death tells nobody.
    WokenTellsNobody,
    /// Who was woken by a death tells the others if its own round is over, and else only looks for the dead of its round. (As it was until the model was there.)
    TellsWhenOver,
    /// A sleeper sleeps on a word that says that its owner died. (The same.)
    SleepsOnDeath,
    /// That the owner of a seat is not who noted a round beside it is not looked at. (The same.)
    TakerHides,
    /// Who takes the seat of a dead one breaks nothing.
    TakerBreaksNothing,
    /// The last one counts without looking whether the others live.
    CountsWithoutLook,
    /// A party is counted before it has noted its round beside its seat.
    CountsBeforeNote,
    /// A seat's owner word is looked at before what is noted beside it.
    DeathBeforeNote,
    /// Whether it was released tells a party by the state: it is not broken.
    NoTurn,
    /// `abort` without the helm.
    NoHelm,
    /// A change wakes nobody.
    NoWake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum At {
    Gone,
    Idle,
    // A seat.
    Come,
    Scan,
    Take,
    Outside,
    TellHeirs,
    // Arriving.
    Load,
    Note,
    Reload,
    Count,
    // The last one.
    Act,
    Release,
    // The others.
    Watch,
    Late,
    Announce,
    Mark,
    Ready,
    Queue,
    Asleep,
    Mend,
    TellOthers,
    Settle,
    Verdict,
    Rise,
    // Whoever finds a dead party, and where it goes then.
    Look,
    LookNoter,
    LookWord,
    Blame,
    Break,
    // After each change.
    Tell,
    // Those without a seat.
    Helm,
    TellHelm,
    Change,
    GiveHelm,
    Dying,
}

/// What a process without a seat wants with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Role {
    Party,
    Closer,
    Mender,
}

/// The state word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Word {
    round: u8,
    arrived: u8,
    broken: bool,
    turn: bool,
    sleepers: bool,
}

impl Word {
    fn bits(self) -> u16 {
        let flags = u16::from(self.broken) << 2 | u16::from(self.turn) << 1 | u16::from(self.sleepers);
        u16::from(self.round) << 8 | u16::from(self.arrived) << 4 | flags
    }

    fn ended(self) -> Self {
        Self { round: self.round + 1, arrived: 0, sleepers: false, ..self }
    }
}

const NO_SEAT: u8 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    /// Where it goes on after a look, a change, or the release of what it has.
    back: At,
    role: Role,
    rounds: u8,
    seat: u8,
    /// The state as it arrived, or as it was seen.
    seen: Word,
    late: bool,
    /// The round that is looked for, or to be broken, plus 1; who noted it.
    about: u8,
    noter: u8,
    /// Has been dealt with: seats looked at, marked or queued on.
    done: u8,
    target: u8,
    /// What was found at `target`: its note, or its word, is of a dead one of this round.
    half: bool,
    /// For the properties: somebody was dead in this round when it began to look.
    doomed: bool,
}

impl Process {
    const GONE: Self = Self {
        at: At::Gone,
        back: At::Gone,
        role: Role::Party,
        rounds: 0,
        seat: NO_SEAT,
        seen: Word { round: 0, arrived: 0, broken: false, turn: false, sleepers: false },
        late: false,
        about: 0,
        noter: 0,
        done: 0,
        target: 0,
        half: false,
        doomed: false,
    };

    fn bits(&self) -> [u64; 2] {
        let flags = [self.late, self.half, self.doomed].into_iter().fold(0, |all, flag| all << 1 | u8::from(flag));
        let [high, low] = self.seen.bits().to_be_bytes();
        let first = [self.at as u8, self.back as u8, self.role as u8, self.rounds, self.seat, high, low, flags];
        [u64::from_be_bytes(first), u64::from_be_bytes([self.done, self.target, self.about, 0, 0, 0, 0, self.noter])]
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    word: Word,
    /// Whose death broke which round: the round plus 1. (Who it was is not modelled.)
    cause: u8,
    /// Beside each seat: the round plus 1, and who noted it.
    notes: [u8; WORDS],
    noters: [u8; WORDS],
    left: [u8; 3],
    robust: Robust,
    processes: [Process; MOST],
    /// For the properties, a bit for each round: it was released; somebody was killed in it, and the kernel has said so.
    released: u16,
    died: u16,
    marked: u16,
    /// A property that does not hold any more.
    wrong: Option<&'static str>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let [high, low] = self.word.bits().to_be_bytes();
        hasher.write(&[high, low, self.cause, self.left[0], self.left[1], self.left[2], u8::from(self.wrong.is_some()), 0]);
        hasher.write(&self.notes);
        hasher.write(&self.noters);
        hasher.write_u64(u64::from(self.released) << 32 | u64::from(self.marked) << 16 | u64::from(self.died));
        self.robust.hash(hasher);
        for process in &self.processes {
            for word in process.bits() {
                hasher.write_u64(word);
            }
        }
    }
}

impl State {
    /// A party of this round that is dead, all of it seen at once: for the properties, and for `reset`.
    fn somebody_died(&self, round: u8, parties: usize) -> bool {
        (0..parties).any(|seat| self.notes[seat] == round + 1 && self.robust.words[seat].is_dead())
    }

    /// The same with these words.
    fn with(&self, robust: Robust) -> Self {
        let mut state = *self;
        state.robust = robust;
        state
    }
}

impl Barrier {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The helm comes after the seats.
    fn helm(&self) -> usize {
        self.parties
    }

    fn roles(&self) -> usize {
        self.threads + self.closers + self.menders
    }
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parties, {} threads × {}", self.parties, self.threads, self.rounds)?;
        if self.closers > 0 {
            write!(f, ", {} closers", self.closers)?;
        }
        if self.menders > 0 {
            write!(f, ", {} menders", self.menders)?;
        }
        Ok(())
    }
}

impl Model for Barrier {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::GONE; MOST];
        for (number, process) in processes.iter_mut().enumerate().take(self.roles()) {
            let role = match number {
                _ if number < self.threads => Role::Party,
                _ if number < self.threads + self.closers => Role::Closer,
                _ => Role::Mender,
            };
            let rounds = if role == Role::Party { self.rounds } else { 1 };
            *process = Process { at: At::Idle, role, rounds, ..Process::GONE };
        }
        State {
            word: Word::default(),
            cause: 0,
            notes: [0; WORDS],
            noters: [0; WORDS],
            left: [self.kills, self.timeouts, self.spurious],
            robust: Robust::START,
            processes,
            released: 0,
            died: 0,
            marked: 0,
            wrong: None,
        }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..self.roles() {
            self.own_step(state, me, next);
            self.mishaps(state, me, next);
        }
    }

    /// Threads are alike. Of rounds that are over everything is forgotten that nobody will ask for.
    fn canonical(&self, state: &mut State) {
        let word = state.word;
        for seat in 0..self.parties {
            if state.notes[seat] <= word.round {
                // Who is there may have said who it is, and will note its round.
                let signed = state.robust.is_held(seat) && state.robust.words[seat].owner() == state.noters[seat];
                (state.notes[seat], state.noters[seat]) = (0, if signed { state.noters[seat] } else { 0 });
            }
        }
        let asked = state.processes.iter().filter(|p| p.at > At::Idle && p.at != At::Dying);
        let asked = asked.fold(1 << word.round, |all, p| all | 1 << p.seen.round);
        (state.released, state.died, state.marked) = (state.released & asked, state.died & asked, state.marked & asked);
        if state.cause != 0 && asked & 1 << (state.cause - 1) == 0 {
            state.cause = 0;
        }
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        order.sort_by_cached_key(|&me| {
            let [first, second] = state.processes[me].bits();
            let noted = (0..self.parties).filter(|seat| state.noters[*seat] == tid(me)).fold(0_u8, |all, seat| all | 1 << seat);
            let noter = second & 0xff != 0;
            (me >= self.roles(), first, second & !0xff, noter, state.robust.hands[me].key(), state.robust.held(me), noted)
        });
        let old = *state;
        let names = state.robust.rename(&order, |me| old.processes[me].at == At::Gone);
        for (process, from) in state.processes.iter_mut().zip(order) {
            *process = old.processes[from];
            process.noter = names[usize::from(process.noter)];
        }
        state.noters = old.noters.map(|noter| names[usize::from(noter)]);
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        if state.wrong.is_some() || !quiet {
            return state.wrong;
        }
        let asleep = || state.processes.iter().filter(|p| p.at == At::Asleep);
        if asleep().any(|p| p.seen.round != state.word.round) {
            return Some("SLEEPS THROUGH THE END");
        }
        // Who has been counted sleeps, or has died.
        if asleep().next().is_some() && asleep().count() != state.word.arrived.into() {
            return Some("DEATH NOT HEARD");
        }
        let outside = state.processes.iter().any(|p| p.at == At::Outside);
        if outside && (0..self.parties).any(|seat| !state.robust.is_held(seat)) {
            return Some("NO SEAT BESIDE A FREE ONE");
        }
        // Who sits and does not sleep, is dead or has gone.
        let living = |me: usize| state.processes[me].at != At::Gone && state.processes[me].at != At::Dying;
        let lost = (0..=self.parties).any(|word| (0..MOST).any(|me| state.robust.words[word].owner() == tid(me) && !living(me)));
        lost.then_some("LOST SEAT")
    }

    fn show(&self, state: &State) -> String {
        let words: Vec<String> = (0..=self.parties)
            .map(|word| format!("{}r{}", state.robust.words[word].show(), i16::from(state.notes[word]) - 1))
            .collect();
        let all: Vec<String> = (0..self.roles())
            .map(|me| {
                let (p, hand) = (&state.processes[me], &state.robust.hands[me]);
                format!("{:?}/{:?}r{}", p.at, hand.stage, p.seen.round)
            })
            .collect();
        let Word { round, arrived, broken, turn, sleepers } = state.word;
        let flags = [(broken, "B"), (turn, "T"), (sleepers, "S")].map(|(is, name)| if is { name } else { "" }).concat();
        format!("r{round} {arrived}{flags} [{}] {}", words.join(" "), all.join("  "))
    }
}
