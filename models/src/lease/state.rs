//! Words, leases, processes.

use super::Lease;
use crate::kernel::steps;

/// Most processes, most leases, and the words that have an owner.
pub(crate) const PROCESSES: usize = 4;
pub(super) const LEASES: usize = 2;
pub(crate) const WORDS: usize = 2 + LEASES;
/// The producers' lock, the consumers', and the first lease's; the first two are also their epochs.
pub(super) const P: usize = 0;
pub(super) const C: usize = 1;
pub(super) const S: usize = 2;
/// The joiners' epoch, and that of dead letters that became jobs.
pub(super) const JOINERS: usize = 2;
pub(super) const REVIVED: usize = 3;
/// Futexes beside the words: `A` of P, the waiters for the consumers' lock, the joiners' epoch.
pub(super) const A: usize = WORDS;
pub(super) const KB: usize = WORDS + 1;
pub(super) const SEQ: usize = WORDS + 2;
/// The number of the dead letter.
pub(super) const DEAD_LETTER: u8 = 5;

steps! {
    pub(super) enum At {
        PStart PTry PCommit PRelease PAdvance PWake PClear PDisarm
        GStart GTry WaitKb WaitLock Contending
        Recover Notify NotifyWake NotifyJoiners NotifyJoinersWake
        Look LockOfBack UseNew
        LeasePending LeaseTake LeaseAdvance DeadLetter DeadLetterTail Count Taking Head Leased
        CRelease WakeKb Chain ChainWake Clear Disarm
        Held Decide Arm
        Register Note Ready ReadyStarved ReadyBack Queue
        Asleep Woken DutyKb NotifyAgain PassOn PassWake HandOver
        JStart FHead FLease FSame FEmpty SeqAdvance SeqWake EndAdvance EndWake
        DCount DFree DRelease DNotify DStarved DAdvance DWake DDisarm
        BCount BRelease BAdvance BWake
        Early Gone
    }
}

/// What a look at all leases is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub(super) enum For {
    #[default]
    Join,
    Ready,
    Done,
    NotifyAgain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    pub(super) at: At,
    pub(super) purpose: For,
    /// In a release: `W` must stay.
    pub(super) keep: bool,
    /// Counted as a sleeper.
    pub(super) counted: bool,
    /// The lock was left by a dead owner, and this process has to recover.
    pub(super) recovers: bool,
    /// How many leases it watches; the lease that it looks at.
    pub(super) watch: u8,
    pub(super) index: u8,
    /// The lease that it takes or has, plus 1.
    pub(super) lease: u8,
    /// That lease's job came back.
    pub(super) back: bool,
    /// The head, as noted.
    pub(super) head: u8,
    /// Messages still to put, jobs still to do.
    pub(super) left: u8,
    /// For the properties: all was done at some instant of this look.
    pub(super) instant: bool,
}

impl Process {
    /// Forgets what it has seen: it will look again.
    pub(super) fn forget(&mut self) {
        (self.keep, self.watch, self.index, self.head) = (false, 0, 0, 0);
    }

    /// Looks whether all is done, for this.
    pub(super) fn scan(&mut self, purpose: For) {
        (self.at, self.purpose, self.instant) = (At::FHead, purpose, false);
    }

    pub(super) fn waits_for_lock(&self) -> bool {
        matches!(self.at, At::WaitKb | At::WaitLock | At::Contending)
    }

    /// The end of an operation with a job. A process that has dead-lettered one holds the consumers' lock
    /// (`inside`), and looks for another.
    pub(super) fn rest(&mut self, inside: bool) {
        let left = if self.left == super::ALL || inside { self.left } else { self.left.saturating_sub(1) };
        *self = Self { at: if inside { At::Look } else { At::GStart }, left, ..Self::default() };
    }
}

/// What a lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Says {
    Free,
    Leased,
    Taking,
    Reviving,
    DeadLettering,
}

#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Job {
    pub(super) says: Says,
    /// The message that the lease is to be filled with, or has in it.
    pub(super) number: u8,
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Shared {
    pub(super) jobs: [Job; LEASES],
    pub(super) puts: u8,
    pub(super) head: u8,
    /// Dead letters.
    pub(super) letters: u8,
    pub(super) used: u8,
    pub(super) starved: bool,
    /// Counts that a dead process has left too high: waiters for the lock, sleepers, joiners.
    pub(super) leaked: [bool; 3],
    /// For the properties: what was done.
    pub(super) done: u8,
}

impl Shared {
    pub(super) fn used(&self) -> std::ops::Range<usize> {
        0..usize::from(self.used)
    }

    pub(super) fn has_data(&self) -> bool {
        self.puts > self.head
    }
}

impl Lease {
    /// Takes the private steps of a process at once.
    pub(super) fn hurry(&self, state: &mut super::State, me: usize) {
        let inside = state.holds(me, C);
        let p = &mut state.processes[me];
        loop {
            p.at = match p.at {
                At::PDisarm => At::PStart,
                At::PStart if p.left > 0 => At::PTry,
                At::GStart if p.left > 0 => At::GTry,
                At::LeasePending => At::LeaseTake,
                At::Disarm => self.after_leaving(me, p.lease),
                At::DDisarm => {
                    p.rest(inside);
                    p.at
                }
                At::PStart | At::GStart => {
                    *p = Process::default();
                    At::Gone
                }
                _ => break,
            };
        }
        if !state.hands[me].is_dying() {
            state.clear_pending(me);
        }
    }
}
