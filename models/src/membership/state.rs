//! Words and processes.

use super::{Membership, State};
use crate::kernel::steps;

/// Most processes, most memberships, and the words that have an owner.
pub(crate) const PROCESSES: usize = 4;
pub(super) const MEMBERSHIPS: usize = 2;
pub(crate) const WORDS: usize = 2 + MEMBERSHIPS;
/// The producers' lock, the consumers', and the first membership. Each word has its epoch.
pub(super) const P: usize = 0;
pub(super) const C: usize = 1;
pub(super) const S: usize = 2;
/// Futexes beside the words: `A` of P, the waiters for the consumers' lock.
pub(super) const A: usize = WORDS;
pub(super) const KB: usize = WORDS + 1;

steps! {
    pub(super) enum At {
        TStart TEpoch TPending TRaiseFirst TTake TRaise TNotify TNotifyWake
        Held
        PStart PTry PCommit PRelease PAdvance PWake PClear PDisarm
        LEpoch LPending LRelease LWake LClear LDisarm LLook LNotify LNotifyWake
        GStart GTry WaitKb WaitLock Contending Look
        CRelease WakeKb Chain ChainWake Clear Disarm
        Decide Once Empty AgainUsed Again
        Wait Arm Register Note Ready ReadyMember ReadyUsed
        Queue Asleep Woken DutyKb
        NotifyAgain AgainMember NotifyAgainUsed RNotify RNotifyWake HandOver
        Early Gone
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    pub(super) at: At,
    /// In a release: `W` must stay.
    pub(super) keep: bool,
    /// Counted as a sleeper.
    pub(super) counted: bool,
    /// How many memberships were used when it decided to wait, or when it began to look; the one that it
    /// looks at.
    pub(super) used: u8,
    pub(super) index: u8,
    /// The membership that it takes or has, plus 1.
    pub(super) member: u8,
    /// Messages still to put, or to get.
    pub(super) left: u8,
    /// How often it will still come.
    pub(super) visits: u8,
    /// It has got a message under the lock.
    pub(super) got: bool,
    /// For the properties: at some instant since it began to look, no member was there, and the queue was
    /// empty.
    pub(super) instant: bool,
}

impl Process {
    /// Forgets what it has seen: it will look again.
    pub(super) fn forget(&mut self) {
        (self.keep, self.used, self.index, self.instant) = (false, 0, 0, false);
    }

    pub(super) fn waits_for_lock(&self) -> bool {
        matches!(self.at, At::WaitKb | At::WaitLock | At::Contending)
    }

    /// Its call has returned with a membership, and it has not begun to leave.
    pub(super) fn is_there(&self) -> bool {
        (At::Held..=At::PDisarm).contains(&self.at)
    }

    /// It decides whether all have disconnected.
    pub(super) fn decides(&self) -> bool {
        (At::Once..=At::Again).contains(&self.at)
    }
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Shared {
    pub(super) used: u8,
    /// For the properties: there was a member.
    pub(super) came: bool,
    pub(super) puts: u8,
    pub(super) head: u8,
    /// Counts that a dead process has left too high: waiters for the lock, sleepers.
    pub(super) leaked: [bool; 2],
}

impl Shared {
    pub(super) fn has_data(&self) -> bool {
        self.puts > self.head
    }
}

impl Membership {
    pub(super) fn is_taken(state: &State, membership: u8) -> bool {
        state.is_held(S + usize::from(membership))
    }

    /// Consumers that sleep, as they are counted.
    pub(super) fn sleepers(state: &State) -> bool {
        state.own.leaked[1] || state.processes.iter().any(|p| p.counted)
    }

    /// Waiters for the consumers' lock, as they are counted.
    pub(super) fn waiters(state: &State) -> bool {
        state.own.leaked[0] || state.processes.iter().any(Process::waits_for_lock)
    }

    /// There were producers, and none is there.
    pub(super) fn all_disconnected(state: &State) -> bool {
        state.own.used > 0 && !state.processes.iter().any(Process::is_there)
    }

    /// Takes the private steps of a process at once.
    pub(super) fn hurry(state: &mut State, me: usize) {
        let p = &mut state.processes[me];
        loop {
            p.at = match p.at {
                At::PDisarm => At::Held,
                At::PStart => At::PTry,
                At::GStart if p.left > 0 => At::GTry,
                At::LPending => At::LRelease,
                At::GStart => {
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
