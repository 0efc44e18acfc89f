//! Words and processes.

use crate::checker::Kind;
use crate::robust::Low;
use std::hash::{Hash, Hasher};

/// Most processes, most seats, and the words that have an owner.
pub(super) const MOST: usize = 4;
pub(super) const SEATS: usize = 2;
pub(super) const WORDS: usize = 2 + SEATS;
/// The producers' lock, the consumers', and the first producers' seat.
pub(super) const P: usize = 0;
pub(super) const C: usize = 1;
pub(super) const S: usize = 2;
/// Futex words beside them: A of P, the consumers' contenders.
pub(super) const A: usize = WORDS;
pub(super) const KB: usize = WORDS + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum At {
    TStart,
    TTouch,
    TPending,
    TRaiseFirst,
    TTake,
    TRaise,
    TTell,
    TTellWake,
    Held,
    PStart,
    PTry,
    PCommit,
    PRelease,
    PBump,
    PWake,
    PClear,
    PDisarm,
    LTouch,
    LPending,
    LRelease,
    LWake,
    LClear,
    LDisarm,
    LLook,
    LTell,
    LTellWake,
    GStart,
    GTry,
    WaitKb,
    WaitLock,
    Contending,
    Look,
    CRelease,
    WakeKb,
    Chain,
    ChainWake,
    Clear,
    Disarm,
    Decide,
    Once,
    Empty,
    AgainUsed,
    Again,
    Wait,
    Arm,
    Announce,
    Note,
    Ready,
    ReadySeat,
    ReadyUsed,
    Queue,
    Asleep,
    Woken,
    DutyKb,
    Retell,
    RetellSeat,
    RetellUsed,
    RTell,
    RTellWake,
    Flight,
    Dying,
    DyingWakes,
    Early,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) at: At,
    /// Futex words it is queued on; woken since.
    pub(super) queued: u8,
    pub(super) rung: bool,
    /// The pending word plus 1.
    pub(super) pending: u8,
    /// The words as noted, and which counts have not moved since: of P (A), of C, of each seat.
    pub(super) seen: [Low; WORDS],
    pub(super) fresh: [bool; WORDS],
    /// In a release: W must stay.
    pub(super) keep: bool,
    /// Counted as a sleeper.
    pub(super) napping: bool,
    /// How many seats were used when it decided to wait, or when it began to look; the seat that it looks at.
    pub(super) used: u8,
    pub(super) index: u8,
    /// The seat that it takes or has, plus 1.
    pub(super) seat: u8,
    /// Messages still to put, or to get.
    pub(super) left: u8,
    /// How often it will still come.
    pub(super) visits: u8,
    /// It has got a message under the lock.
    pub(super) got: bool,
    /// For the properties: at some instant since it began to look, nobody was there, and the queue was empty.
    pub(super) instant: bool,
}

pub(super) const FP: usize = 0;
pub(super) const FC: usize = 1;

impl Process {
    pub(super) const fn new(at: At, left: u8, visits: u8) -> Self {
        Self {
            at,
            queued: 0,
            rung: false,
            pending: 0,
            seen: [Low(0); WORDS],
            fresh: [false; WORDS],
            keep: false,
            napping: false,
            used: 0,
            index: 0,
            seat: 0,
            left,
            visits,
            got: false,
            instant: false,
        }
    }

    pub(super) const GONE: Self = Self::new(At::Gone, 0, 0);

    pub(super) fn bytes(&self) -> [u8; 12] {
        let [p, c, one, two] = self.fresh;
        let flags = [self.rung, p, c, one, two, self.keep, self.napping, self.got];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let places = self.used << 6 | self.index << 4 | self.seat << 2 | u8::from(self.instant);
        let counts = self.left << 4 | self.visits;
        let seen = self.seen.map(|low| low.0);
        [self.at as u8, self.queued, flags, self.pending, places, counts, seen[0], seen[1], seen[2], seen[3], 0, 0]
    }

    /// Forgets what it has seen: it will look again.
    pub(super) fn forget(&mut self) {
        (self.queued, self.rung, self.keep) = (0, false, false);
        (self.seen, self.fresh) = ([Low(0); WORDS], [false; WORDS]);
        (self.used, self.index, self.instant) = (0, 0, false);
    }

    pub(super) fn asleep(&self) -> bool {
        matches!(self.at, At::Asleep | At::Contending) && !self.rung
    }

    /// Its call has come back with a role, and it has not begun to let go of it.
    pub(super) fn is_there(&self) -> bool {
        (At::Held..=At::PDisarm).contains(&self.at)
    }

    /// It decides whether all are gone.
    pub(super) fn decides(&self) -> bool {
        (At::Once..=At::Again).contains(&self.at)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(super) low: [Low; WORDS],
    pub(super) used: u8,
    /// For the properties: somebody has had a seat.
    pub(super) came: bool,
    pub(super) puts: u8,
    pub(super) head: u8,
    /// Counts that a dead one has left too high: contenders, sleepers.
    pub(super) leaked: [bool; 2],
    /// Kills, time-outs, signals.
    pub(super) left: [u8; 3],
    pub(super) processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let [kills, timeouts, spurious] = self.left;
        let [p, c, one, two] = self.low.map(|low| low.0);
        let counts = [self.used, self.puts << 4 | self.head, kills << 4 | timeouts << 2 | spurious];
        let leaked = [self.came, self.leaked[0], self.leaked[1]].iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        hasher.write(&[p, c, one, two, counts[0], counts[1], counts[2], leaked]);
        for pair in self.processes.chunks(2) {
            let (one, two) = (pair[0].bytes(), pair[1].bytes());
            hasher.write(&one);
            hasher.write(&two);
        }
    }
}

pub(super) fn tid(me: usize) -> u8 {
    u8::try_from(me + 1).unwrap_or(Low::TID)
}

impl State {
    /// The count of a word moves.
    pub(super) fn bump(&mut self, word: usize) {
        for process in &mut self.processes {
            process.fresh[word] = false;
        }
    }

    /// `W`, and the count.
    pub(super) fn announce(&mut self, word: usize) {
        self.low[word].0 |= Low::W;
        self.bump(word);
    }

    pub(super) fn is_held(&self, seat: u8) -> bool {
        self.low[S + usize::from(seat)].owner() != 0
    }

    pub(super) fn has_data(&self) -> bool {
        self.puts > self.head
    }

    /// Consumers that sleep, as they are counted.
    pub(super) fn sleepers(&self) -> bool {
        self.leaked[1] || self.processes.iter().any(|p| p.napping)
    }

    pub(super) fn contenders(&self) -> bool {
        let contends = |p: &Process| matches!(p.at, At::WaitKb | At::WaitLock | At::Contending);
        self.leaked[0] || self.processes.iter().any(contends)
    }

    /// There were producers, and none is there.
    pub(super) fn nobody_is_there(&self) -> bool {
        self.used > 0 && !self.processes.iter().any(Process::is_there)
    }

    /// FUTEX_WAKE of one: whomever it may reach, or nobody.
    pub(super) fn wake_one(&self, word: usize, mut found: impl FnMut(Self, bool)) {
        let mut nobody = true;
        for sleeper in (0..MOST).filter(|i| self.processes[*i].queued & 1 << word != 0) {
            nobody = false;
            let mut state = *self;
            let p = &mut state.processes[sleeper];
            (p.queued, p.rung) = (p.queued & !(1 << word), true);
            found(state, true);
        }
        if nobody {
            found(*self, false);
        }
    }

    pub(super) fn wake_all(&mut self, word: usize) -> Kind {
        let mut kind = Kind::Own;
        for p in self.processes.iter_mut().filter(|p| p.queued & 1 << word != 0) {
            (p.queued, p.rung, kind) = (p.queued & !(1 << word), true, Kind::Wakes);
        }
        kind
    }
}
