//! Words, records, processes.

use super::{ALL, Reservation, State};
use crate::kernel::steps;

/// Most processes, locks of reservations, records, and the words that have an owner.
pub(crate) const PROCESSES: usize = 4;
pub(super) const LOCKS: usize = 2;
pub(super) const RECORDS: usize = 4;
pub(crate) const WORDS: usize = 3 + LOCKS;
/// The producers' lock, the consumers', the producers' membership, and the first lock of a reservation.
pub(super) const P: usize = 0;
pub(super) const C: usize = 1;
pub(super) const S: usize = 2;
pub(super) const L: usize = 3;

steps! {
    pub(super) enum At {
        PStart PTry PRecover PNotify PNotifyWake
        PBegin TPending TTake TGeneration TEpoch TUse TUseAdvance TUseWake
        PAppend UEpoch URelease USeq USeqWake
        PHeader PTail
        KRegister KClose KNotify KNotifyWake
        PRelease PAdvance PWake PChain PChainWake PClear PDisarm
        Fill XCommit XEpoch XRelease XNotify XAdvance XWake XSeq XSeqWake XDisarm
        HEpoch HRelease HNotify HWake HDisarm
        GStart GTry GHead GLock GGeneration GAgain GTake GAborted
        CRelease CAdvance CWake CChain CChainAdvance CChainWake CClear CDisarm
        Decide Arm Register Note Ready ReadyEnd ReadyUsed Queue
        Asleep Woken PassOn PassAdvance PassWake LPass LPassAdvance LPassWake HandOver
        NotifyAgain RRoom RLook RAdvance RWake RSeq RSeqWake
        LHead LHeader LLock LGeneration LSame
        Gone
    }
}

/// What a process sleeps for: a message, room, a lock. Each has an epoch; the first two are those of P and C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub(super) enum Wants {
    #[default]
    Data,
    Room,
    Lock,
}

impl Wants {
    /// The futex of this epoch.
    pub(super) fn futex(self) -> usize {
        WORDS + self as usize
    }
}

/// What a look at the head is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub(super) enum For {
    #[default]
    Nothing,
    Ended,
    Ready,
    ReadyEnd,
    Chain,
    NoProgress,
    NotifyAgain,
    Pass,
    News,
}

/// What it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub(super) enum Front {
    #[default]
    Empty,
    Filling,
    Something,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    pub(super) at: At,
    pub(super) purpose: For,
    pub(super) wants: Wants,
    /// In a release: `W` must stay.
    pub(super) keep: bool,
    /// Counted as a sleeper.
    pub(super) counted: bool,
    /// The lock was left by a dead owner.
    pub(super) recovers: bool,
    /// It has made no progress.
    pub(super) no_progress: bool,
    /// The end has come for this process, as it has seen.
    pub(super) over: bool,
    pub(super) aborts: bool,
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
    /// Forgets what it has seen: it will look again.
    pub(super) fn forget(&mut self) {
        (self.keep, self.no_progress, self.over, self.purpose) = (false, false, false, For::Nothing);
        (self.watch, self.index, self.head, self.front) = (0, 0, 0, Front::Empty);
    }

    /// Looks what is at the head, for this.
    pub(super) fn look(&mut self, purpose: For) {
        (self.at, self.purpose) = (At::LHead, purpose);
    }

    /// The side that it waits for, and its own.
    pub(super) fn sides(&self) -> [usize; 2] {
        if self.wants == Wants::Room { [C, P] } else { [P, C] }
    }

    pub(super) fn done_one(&mut self) {
        if self.left != ALL {
            self.left = self.left.saturating_sub(1);
        }
    }

    /// The pending entry is 0: an operation has ended.
    pub(super) fn rest(&mut self, used: u8) {
        let (no_progress, left, ended) = (self.no_progress, self.left, self.at);
        (self.over, self.front, self.no_progress) = (false, Front::Empty, false);
        self.at = match ended {
            At::CDisarm if no_progress => At::Decide,
            At::CDisarm => At::GStart,
            At::PDisarm if self.lock != 0 => At::Fill,
            At::PDisarm if no_progress && left > 0 => At::Arm,
            _ => At::PStart,
        };
        match self.at {
            At::Arm => self.watch = if self.wants == Wants::Lock { used } else { 0 },
            At::PStart => {
                *self = Self { left, ..Self::default() };
                self.at = At::PStart;
                if ended == At::XDisarm {
                    self.done_one();
                }
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Says {
    Empty,
    Message,
    Reserved,
}

/// A record: what its header says; the lock and the generation of its mark.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Record {
    pub(super) says: Says,
    pub(super) lock: u8,
    pub(super) generation: u8,
}

impl Record {
    pub(super) const EMPTY: Self = Self { says: Says::Empty, lock: 0, generation: 0 };
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Shared {
    pub(super) generations: [u8; LOCKS],
    pub(super) records: [Record; RECORDS],
    pub(super) head: u8,
    pub(super) tail: u8,
    /// Which records were received, as messages.
    pub(super) got: u8,
    /// Locks that were ever taken.
    pub(super) used: u8,
    pub(super) closed: bool,
    /// The head at which all were notified again, plus 1.
    pub(super) notified: u8,
    /// Counts that a dead process has left too high.
    pub(super) leaked: [bool; 3],
}

impl Shared {
    pub(super) fn record(&self, at: u8) -> Record {
        self.records.get(usize::from(at)).copied().unwrap_or(Record::EMPTY)
    }
}

impl Reservation {
    pub(super) fn has_free(state: &State) -> bool {
        (L..L + usize::from(state.own.used)).any(|lock| !state.is_held(lock))
    }

    /// Processes that sleep for this, as they are counted.
    pub(super) fn sleepers(state: &State, wants: Wants) -> bool {
        state.own.leaked[wants as usize] || state.processes.iter().any(|p| p.counted && p.wants == wants)
    }

    /// Takes the private steps of a process at once.
    pub(super) fn hurry(state: &mut State, me: usize) {
        let (used, member) = (state.own.used, state.holds(me, S));
        let p = &mut state.processes[me];
        loop {
            match p.at {
                At::PDisarm | At::XDisarm | At::CDisarm => p.rest(used),
                At::PStart if p.left > 0 => p.at = At::PTry,
                At::GStart if p.left > 0 => p.at = At::GTry,
                At::TPending => p.at = At::TTake,
                At::PStart if member => p.at = At::HEpoch,
                At::PStart | At::GStart | At::HDisarm => *p = Process::default(),
                _ => break,
            }
        }
        if !state.hands[me].is_dying() {
            state.clear_pending(me);
        }
    }
}
