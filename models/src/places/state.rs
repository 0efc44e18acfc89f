//! Words, records, processes.

use crate::checker::Kind;
use crate::robust::Low;
use std::hash::{Hash, Hasher};

/// Most processes, locks of places, records, and the words that have an owner.
pub(super) const MOST: usize = 4;
pub(super) const LOCKS: usize = 2;
pub(super) const RECORDS: usize = 4;
pub(super) const WORDS: usize = 3 + LOCKS;
/// The producers' lock, the consumers', the seat of one who puts, and the first lock of a place.
pub(super) const P: usize = 0;
pub(super) const C: usize = 1;
pub(super) const S: usize = 2;
pub(super) const L: usize = 3;
/// Futex words beside them, one for each [`Nap`]: A of P, A of C, the word of those who wait for a lock.
pub(super) const BELLS: usize = WORDS;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum At {
    PStart,
    PTry,
    PRecover,
    PTell,
    PTellWake,
    PBegin,
    TPending,
    TTake,
    TTurn,
    TTouch,
    TUse,
    TUseBump,
    TUseWake,
    PAppend,
    UTouch,
    URelease,
    USeq,
    USeqWake,
    PHeader,
    PTail,
    KAlarm,
    KClose,
    KTell,
    KTellWake,
    PRelease,
    PBump,
    PWake,
    PChain,
    PChainWake,
    PClear,
    PDisarm,
    Fill,
    XCommit,
    XTouch,
    XRelease,
    XTell,
    XBump,
    XWake,
    XSeq,
    XSeqWake,
    XDisarm,
    HTouch,
    HRelease,
    HGone,
    HWake,
    HDisarm,
    GStart,
    GTry,
    GHead,
    GLock,
    GTurn,
    GAgain,
    GTake,
    GHole,
    CRelease,
    CBump,
    CWake,
    CChain,
    CChainBump,
    CChainWake,
    CClear,
    CDisarm,
    Decide,
    Arm,
    Announce,
    Note,
    Ready,
    ReadyEnd,
    ReadyUsed,
    Queue,
    Asleep,
    Woken,
    PassOn,
    PassBump,
    PassWake,
    LPass,
    LPassBump,
    LPassWake,
    Flight,
    Retell,
    RRoom,
    RLook,
    RBump,
    RWake,
    RSeq,
    RSeqWake,
    LHead,
    LHeader,
    LLock,
    LTurn,
    LSame,
    Dying,
    DyingWakes,
    Gone,
}

/// What a process sleeps for: a message, room, a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Nap {
    Data,
    Room,
    Lock,
}

/// What a look at the head is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum For {
    Nothing,
    Ended,
    Ready,
    ReadyEnd,
    Chain,
    Vain,
    Retell,
    Pass,
    News,
}

/// What it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Front {
    Empty,
    Filling,
    Something,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) at: At,
    pub(super) purpose: For,
    pub(super) nap: Nap,
    /// Futex words it is queued on; woken since.
    pub(super) queued: u8,
    pub(super) rung: bool,
    /// The pending word plus 1.
    pub(super) pending: u8,
    /// The words as noted, and which counts have not moved since.
    pub(super) seen: [Low; WORDS],
    pub(super) fresh: [bool; 3],
    /// In a release: W must stay. In a commit: all are told.
    pub(super) keep: bool,
    /// Counted as a sleeper.
    pub(super) napping: bool,
    /// The lock was left by a dead one.
    pub(super) heir: bool,
    /// It has come in vain; or, of a getter, it was a hole.
    pub(super) vain: bool,
    /// It is over for this one, as it has seen.
    pub(super) over: bool,
    pub(super) gives_up: bool,
    /// How many locks it watches; the word that it comes to next.
    pub(super) watch: u8,
    pub(super) index: u8,
    /// The lock that it takes or has, plus 1.
    pub(super) lock: u8,
    /// The record that it fills.
    pub(super) record: u8,
    /// The head, as noted, and what was there.
    pub(super) head: u8,
    pub(super) front: Front,
    /// Messages still to put, or to get.
    pub(super) left: u8,
}

impl Process {
    pub(super) const fn new(at: At, left: u8) -> Self {
        Self {
            at,
            purpose: For::Nothing,
            nap: Nap::Data,
            queued: 0,
            rung: false,
            pending: 0,
            seen: [Low(0); WORDS],
            fresh: [false; 3],
            keep: false,
            napping: false,
            heir: false,
            vain: false,
            over: false,
            gives_up: false,
            watch: 0,
            index: 0,
            lock: 0,
            record: 0,
            head: 0,
            front: Front::Empty,
            left,
        }
    }

    pub(super) const GONE: Self = Self::new(At::Gone, 0);

    pub(super) fn bytes(&self) -> ([u8; 8], [u8; 8]) {
        let one = [self.rung, self.keep, self.napping, self.heir, self.vain, self.over, self.gives_up];
        let one = one.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let two = self.fresh.iter().fold(0, |all, &flag| all << 1 | u8::from(flag)) << 2 | self.nap as u8;
        let places = self.watch << 6 | self.index << 3 | self.lock << 1;
        let records = self.record << 5 | self.head << 2 | self.front as u8;
        let seen = self.seen.map(|low| low.0);
        (
            [self.at as u8, self.queued, one, two, self.pending, places, records, self.left << 4 | self.purpose as u8],
            [seen[0], seen[1], seen[2], seen[3], seen[4], 0, 0, 0],
        )
    }

    /// Forgets what it has seen: it will look again.
    pub(super) fn forget(&mut self) {
        (self.queued, self.rung, self.keep, self.vain) = (0, false, false, false);
        (self.seen, self.fresh) = ([Low(0); WORDS], [false; 3]);
        (self.watch, self.index, self.head, self.front) = (0, 0, 0, Front::Empty);
        (self.over, self.purpose) = (false, For::Nothing);
    }

    /// Looks what is at the head, for this.
    pub(super) fn look(&mut self, purpose: For) {
        (self.at, self.purpose) = (At::LHead, purpose);
    }

    /// The futex word that it sleeps on, beside locks.
    pub(super) fn bell(&self) -> usize {
        BELLS + self.nap as usize
    }

    /// The side that it waits for, and its own.
    pub(super) fn sides(&self) -> [usize; 2] {
        if self.nap == Nap::Room { [C, P] } else { [P, C] }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Says {
    Empty,
    Message,
    Reserved,
}

/// A record: what its header says; the lock and the turn of its mark.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) says: Says,
    pub(super) lock: u8,
    pub(super) turn: u8,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(super) low: [Low; WORDS],
    pub(super) turns: [u8; LOCKS],
    pub(super) records: [Record; RECORDS],
    pub(super) head: u8,
    pub(super) tail: u8,
    /// Which records were got, as messages.
    pub(super) got: u8,
    /// Locks that were ever taken.
    pub(super) used: u8,
    pub(super) closed: bool,
    /// The head at which all were told again, plus 1.
    pub(super) told: u8,
    /// Counts that a dead one has left too high.
    pub(super) leaked: [bool; 3],
    /// Kills, time-outs, signals, places to be given up.
    pub(super) left: [u8; 4],
    pub(super) processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let flags = [self.closed, self.leaked[0], self.leaked[1], self.leaked[2]];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let records = self.records.map(|record| record.turn << 3 | record.lock << 2 | record.says as u8);
        let low = self.low.map(|low| low.0);
        hasher.write(&[low[0], low[1], low[2], low[3], low[4], flags, self.turns[0], self.turns[1]]);
        hasher.write(&[
            records[0],
            records[1],
            records[2],
            records[3],
            self.head << 4 | self.tail,
            self.got,
            self.used,
            self.told,
        ]);
        let [kills, timeouts, spurious, backs] = self.left;
        hasher.write(&[kills, timeouts, spurious, backs, 0, 0, 0, 0]);
        for process in &self.processes {
            let (one, two) = process.bytes();
            hasher.write_u64(u64::from_le_bytes(one));
            hasher.write_u64(u64::from_le_bytes(two));
        }
    }
}

pub(super) fn tid(me: usize) -> u8 {
    u8::try_from(me + 1).unwrap_or(Low::TID)
}

impl State {
    /// A+1 of a side, or the count of those who wait for a lock.
    pub(super) fn bump(&mut self, nap: Nap) {
        for process in &mut self.processes {
            process.fresh[nap as usize] = false;
        }
    }

    /// `W`, and A+1.
    pub(super) fn announce(&mut self, side: usize) {
        self.low[side].0 |= Low::W;
        self.bump(if side == P { Nap::Data } else { Nap::Room });
    }

    pub(super) fn is_held(&self, word: usize) -> bool {
        self.low[word].owner() != 0
    }

    pub(super) fn used(&self) -> std::ops::Range<usize> {
        L..L + usize::from(self.used)
    }

    pub(super) fn has_free(&self) -> bool {
        self.used().any(|lock| !self.is_held(lock))
    }

    pub(super) fn record(&self, at: u8) -> Record {
        self.records.get(usize::from(at)).copied().unwrap_or(Record { says: Says::Empty, lock: 0, turn: 0 })
    }

    /// Those who sleep, as they are counted.
    pub(super) fn sleepers(&self, nap: Nap) -> bool {
        self.leaked[nap as usize] || self.processes.iter().any(|p| p.napping && p.nap == nap)
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
