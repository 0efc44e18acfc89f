//! Words, slots, processes.

use crate::checker::Kind;
use crate::robust::Low;
use std::hash::{Hash, Hasher};

/// Most processes, most slots, and the words that have an owner.
pub(super) const MOST: usize = 4;
pub(super) const SLOTS: usize = 2;
pub(super) const WORDS: usize = 2 + SLOTS;
/// The producers' lock, the consumers', and the first slot's.
pub(super) const P: usize = 0;
pub(super) const C: usize = 1;
pub(super) const S: usize = 2;
/// Futex words beside them: A of P, the consumers' contenders, the joiners' count.
pub(super) const A: usize = WORDS;
pub(super) const KB: usize = WORDS + 1;
pub(super) const SEQ: usize = WORDS + 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum At {
    PStart,
    PTry,
    PCommit,
    PRelease,
    PBump,
    PWake,
    PClear,
    PDisarm,
    GStart,
    GTry,
    WaitKb,
    WaitLock,
    Contending,
    Recover,
    TellA,
    TellAWake,
    TellSeq,
    TellSeqWake,
    Look,
    LockOfBack,
    UseNew,
    SlotPending,
    SlotTake,
    SlotMoves,
    Bury,
    Letter,
    Count,
    Taking,
    Head,
    Out,
    CRelease,
    WakeKb,
    Chain,
    ChainWake,
    Clear,
    Disarm,
    Held,
    Decide,
    Arm,
    Announce,
    Note,
    Ready,
    ReadyStarved,
    ReadyBack,
    Queue,
    Asleep,
    Woken,
    DutyKb,
    Retell,
    PassOn,
    PassWake,
    Flight,
    JStart,
    FHead,
    FSlot,
    FSame,
    FEmpty,
    SeqBump,
    SeqWake,
    EndBump,
    EndWake,
    DCount,
    DFree,
    DRelease,
    DTell,
    DStarved,
    DBump,
    DWake,
    DDisarm,
    BCount,
    BRelease,
    BBump,
    BWake,
    Dying,
    DyingWakes,
    Early,
    Gone,
}

/// What a look at all slots is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum For {
    Join,
    Ready,
    Done,
    Retell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) at: At,
    pub(super) purpose: For,
    /// Futex words it is queued on; woken since.
    pub(super) queued: u8,
    pub(super) rung: bool,
    /// The pending word plus 1.
    pub(super) pending: u8,
    /// The words as noted, and which counts have not moved since: of P (A), of C, the joiners', of letters that became jobs.
    pub(super) seen: [Low; WORDS],
    pub(super) fresh: [bool; COUNTS],
    /// In a release: W must stay.
    pub(super) keep: bool,
    /// Counted as a sleeper.
    pub(super) napping: bool,
    /// The lock was left by a dead one, and that is to be seen to.
    pub(super) heir: bool,
    /// How many slots it watches; the one that it looks at.
    pub(super) watch: u8,
    pub(super) index: u8,
    /// The slot that it takes or has, plus 1.
    pub(super) slot: u8,
    /// That slot's job came back.
    pub(super) back: bool,
    /// The head, as noted.
    pub(super) head: u8,
    /// Messages still to put, jobs still to do.
    pub(super) left: u8,
    /// For the properties: all was done at some instant of this look.
    pub(super) instant: bool,
}

pub(super) const FP: usize = 0;
pub(super) const FC: usize = 1;
pub(super) const FSEQ: usize = 2;
pub(super) const FREVIVED: usize = 3;
pub(super) const COUNTS: usize = 4;
/// The number of the dead letter.
pub(super) const LETTER: u8 = 5;

impl Process {
    pub(super) const fn new(at: At, left: u8) -> Self {
        Self {
            at,
            purpose: For::Join,
            queued: 0,
            rung: false,
            pending: 0,
            seen: [Low(0); WORDS],
            fresh: [false; COUNTS],
            keep: false,
            napping: false,
            heir: false,
            watch: 0,
            index: 0,
            slot: 0,
            back: false,
            head: 0,
            left,
            instant: false,
        }
    }

    pub(super) const GONE: Self = Self::new(At::Gone, 0);

    pub(super) fn bytes(&self) -> ([u8; 8], [u8; 8]) {
        let flags =
            [self.rung, self.fresh[FP], self.fresh[FC], self.fresh[FSEQ], self.keep, self.napping, self.heir, self.instant];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let places = self.watch << 6 | self.index << 3 | self.slot << 1 | u8::from(self.back);
        let counts = self.head << 4 | self.left;
        (
            [self.at as u8, self.purpose as u8, self.queued, flags, self.pending, places, counts, self.fresh[FREVIVED].into()],
            [self.seen[0].0, self.seen[1].0, self.seen[2].0, self.seen[3].0, 0, 0, 0, 0],
        )
    }

    /// Forgets what it has seen: it will look again.
    pub(super) fn forget(&mut self) {
        (self.queued, self.rung, self.keep) = (0, false, false);
        (self.seen, self.fresh) = ([Low(0); WORDS], [false; COUNTS]);
        (self.watch, self.index, self.head) = (0, 0, 0);
    }

    /// Looks whether all is done, for this.
    pub(super) fn scan(&mut self, purpose: For) {
        (self.at, self.purpose, self.instant) = (At::FHead, purpose, false);
    }

    pub(super) fn asleep(&self) -> bool {
        matches!(self.at, At::Asleep | At::Contending) && !self.rung
    }
}

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Says {
    Free,
    Out,
    Taking,
    Reviving,
    Burying,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) says: Says,
    /// The message that it is to be filled with, and has in it.
    pub(super) number: u8,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(super) low: [Low; WORDS],
    pub(super) slots: [Slot; SLOTS],
    pub(super) puts: u8,
    pub(super) head: u8,
    /// Dead letters.
    pub(super) letters: u8,
    pub(super) used: u8,
    pub(super) starved: bool,
    /// Counts that a dead one has left too high: contenders, sleepers, joiners.
    pub(super) leaked: [bool; 3],
    /// For the properties: what was done.
    pub(super) done: u8,
    /// Kills, time-outs, signals, jobs to be given back.
    pub(super) left: [u8; 4],
    pub(super) processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let flags = [self.starved, self.leaked[0], self.leaked[1], self.leaked[2]];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let [one, two] = self.slots.map(|slot| slot.number << 3 | slot.says as u8);
        hasher.write(&[self.low[0].0, self.low[1].0, self.low[2].0, self.low[3].0, one, two, self.done, flags]);
        let [kills, timeouts, spurious, backs] = self.left;
        hasher.write(&[self.puts, self.head, self.used, kills, timeouts, spurious, backs, self.letters]);
        for process in &self.processes {
            let (one, two) = process.bytes();
            hasher.write_u64(u64::from_le_bytes(one) ^ u64::from_le_bytes(two) << 56);
            hasher.write_u64(u64::from_le_bytes(two));
        }
    }
}

pub(super) fn tid(me: usize) -> u8 {
    u8::try_from(me + 1).unwrap_or(Low::TID)
}

impl State {
    /// A+1 of a side, or the joiners' count.
    pub(super) fn bump(&mut self, count: usize) {
        for process in &mut self.processes {
            process.fresh[count] = false;
        }
    }

    /// `W`, and A+1.
    pub(super) fn announce(&mut self, side: usize) {
        self.low[side].0 |= Low::W;
        self.bump(side);
    }

    pub(super) fn is_held(&self, slot: usize) -> bool {
        self.low[S + slot].owner() != 0
    }

    pub(super) fn used(&self) -> std::ops::Range<usize> {
        0..usize::from(self.used)
    }

    pub(super) fn has_data(&self) -> bool {
        self.puts > self.head
    }

    pub(super) fn contenders(&self) -> bool {
        let contends = |p: &Process| matches!(p.at, At::WaitKb | At::WaitLock | At::Contending);
        self.leaked[0] || self.processes.iter().any(contends)
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
