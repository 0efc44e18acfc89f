//! Words, futexes and processes.

use crate::kernel::steps;

/// Most processes in one run, and the words that have an owner.
pub(crate) const PROCESSES: usize = 5;
pub(crate) const WORDS: usize = 2;
/// The producers' side, and the consumers': the lock L of each, and its epoch A.
pub(super) const P: usize = 0;
pub(super) const C: usize = 1;

/// The futex of a side's waiters for the lock.
pub(super) const fn kb(side: usize) -> usize {
    WORDS + side
}

/// The futex A of a side.
pub(super) const fn a(side: usize) -> usize {
    2 * WORDS + side
}

steps! {
    /// Where a process stands: the name of the step it takes next.
    pub(super) enum At {
        Start Disarm Arm
        Try WaitKb WaitLock Contending
        Look PassAdvance PassWake PassMark
        CloseRegister Close NotifyP NotifyPWake NotifyC NotifyCWake
        Release WakeKb Advance WakeA Chain ChainWake Clear
        Register ReadMine Recheck WaitA WaitMine WaitOther Asleep
        Woken DutyOther DutyMine DutyAdvance DutyA HandOver
        Gone
    }
}

/// How an operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub(super) enum End {
    /// Not yet known.
    #[default]
    Open,
    /// Done: a message moved.
    Done,
    /// The ring is closed.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    pub(super) at: At,
    /// The index that `futex_waitv` returns is a lock word's; only [`super::Bug::DutyByLastIndex`] looks.
    pub(super) by_lock: bool,
    /// In a release: a process was woken, or `W` must stay for another reason.
    pub(super) keep: bool,
    pub(super) end: End,
    /// Messages still to put.
    pub(super) messages: u8,
    /// The next sleep is brief.
    pub(super) brief: bool,
    /// The deadline has passed.
    pub(super) late: bool,
}

impl Process {
    /// Forgets what it has seen: it will look again.
    pub(super) fn forget(&mut self) {
        (self.by_lock, self.keep) = (false, false);
    }

    /// Counted in `nwait` of its side.
    pub(super) fn waits_for_lock(&self) -> bool {
        matches!(self.at, At::WaitKb | At::WaitLock | At::Contending)
    }

    /// Counted in `nother` of the other side: about to sleep, or asleep, on its A.
    pub(super) fn is_parking(&self) -> bool {
        (At::Register..=At::HandOver).contains(&self.at)
    }
}

#[derive(Debug, Clone, Copy, Hash, Default)]
pub(crate) struct Shared {
    /// Messages in the ring, oldest in the lowest bit; a set bit is a message of two units.
    pub(super) count: u8,
    pub(super) big: u8,
    pub(super) closed: bool,
    /// `passed == head`.
    pub(super) passed: bool,
    /// The smallest size any producer ever slept for; 0: none yet.
    pub(super) least: u8,
    /// A dead process has left `nwait` or `nother` of a side too high.
    pub(super) leaked_nwait: [bool; 2],
    pub(super) leaked_nother: [bool; 2],
}

impl Shared {
    pub(super) fn used(&self) -> u8 {
        self.count + u8::try_from(self.big.count_ones()).unwrap_or(0)
    }
}
