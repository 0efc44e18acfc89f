//! What the processes can tell from the words; and the steps that no other process could notice.

use super::state::{At, C, End, P, PROCESSES, Process, WORDS};
use super::{Brief, Bug, Ring, Role, State, Turn};
use crate::kernel::{Hand, Run};

impl Ring {
    /// The side whose lock a process takes.
    pub(super) fn side(&self, me: usize) -> usize {
        usize::from(matches!(self.roles[me], Role::Consumer { .. }))
    }

    pub(super) fn room(&self, state: &State) -> u8 {
        self.slots - state.own.used()
    }

    /// A process need not sleep.
    pub(super) fn is_ready(&self, state: &State, me: usize) -> bool {
        match self.roles[me] {
            _ if state.own.closed => true,
            Role::Producer { size, .. } => self.room(state) >= size,
            Role::Consumer { .. } => state.own.count > 0,
            Role::Closer => true,
        }
    }

    /// `nwait` of a side is not 0.
    pub(super) fn nwait(&self, state: &State, side: usize) -> bool {
        state.own.leaked_nwait[side] || self.any(state, side, Process::waits_for_lock)
    }

    /// `nother` of a side is not 0: a process of the other role is about to sleep, or sleeps, on its A.
    pub(super) fn nother(&self, state: &State, side: usize) -> bool {
        state.own.leaked_nother[side] || self.any(state, 1 - side, Process::is_parking)
    }

    fn any(&self, state: &State, side: usize, counted: impl Fn(&Process) -> bool) -> bool {
        (0..self.roles.len()).any(|me| self.side(me) == side && counted(&state.processes[me]))
    }
}

impl Run<Ring, PROCESSES, WORDS> {
    /// A step that no process but the kernel could notice.
    pub(super) fn private_step(&self, state: &mut State, me: usize) -> &'static str {
        let role = self.model.roles[me];
        let mine = self.model.side(me);
        let armed = self.is(Bug::CloseWakesAfterReleaseArmed);
        let notifies_late = role == Role::Closer && (self.is(Bug::CloseWakesAfterRelease) || armed);
        let mut p = state.processes[me];
        let what = match p.at {
            At::Start if role != Role::Closer && p.messages == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::Start => {
                state.set_pending(me, mine);
                p.at = At::Try;
                "pending = mine"
            }
            At::Disarm => {
                state.forget(me);
                p.forget();
                if !(notifies_late && armed) {
                    state.clear_pending(me);
                }
                match p.end {
                    End::Closed if notifies_late => p.at = At::NotifyP,
                    End::Done => {
                        let brief = self.model.brief != Brief::Never;
                        p = Process { at: At::Start, messages: p.messages, brief, ..Process::default() };
                    }
                    End::Open if !p.late => p.at = At::Arm,
                    End::Closed | End::Open => p = Process::default(),
                }
                "pending = 0"
            }
            _ => {
                if self.is(Bug::NotArmedAsleep) {
                    state.clear_pending(me);
                } else {
                    state.set_pending(me, 1 - mine);
                }
                p.at = if self.is(Bug::RecheckBeforeRegister) { At::Recheck } else { At::Register };
                if let Role::Producer { size, .. } = role {
                    state.own.least = if state.own.least == 0 { size } else { state.own.least.min(size) };
                }
                "pending = other"
            }
        };
        state.processes[me] = p;
        if p == Process::default() {
            state.hands[me] = Hand::EMPTY;
        }
        what
    }

    /// There is room that a sleeping producer might use and has not been notified of.
    pub(super) fn has_room_to_pass(&self, state: &State) -> bool {
        self.has_room(state) && (!state.own.passed || self.is(Bug::PassOnAlways))
    }

    fn has_room(&self, state: &State) -> bool {
        state.own.least != 0 && self.model.room(state) >= state.own.least
    }

    /// A process made no progress: it did not do what the sleepers on its side wait for.
    pub(super) fn has_no_progress(&self, state: &State, me: usize) -> bool {
        state.processes[me].end != End::Done && self.model.roles[me] != Role::Closer
    }

    /// There is new work for the sleepers on this side, whichever process has not notified them.
    pub(super) fn has_new_work(&self, state: &State, side: usize) -> bool {
        let some = match side {
            P => state.own.count > 0 || state.own.closed,
            _ => self.has_room(state),
        };
        some && !self.is(Bug::NoNewWork)
    }

    /// The release of a process passes something on to the other side's sleepers.
    pub(super) fn chains(&self, state: &State, me: usize) -> bool {
        let side = self.model.side(me);
        if self.is(Bug::NoChain) || !self.model.nother(state, 1 - side) {
            return false;
        }
        match side {
            P if self.is(Bug::NoPassOn) && state.processes[me].end != End::Done => false,
            P => self.has_room_to_pass(state),
            _ => state.own.count > 0,
        }
    }

    /// A sleeper that has done its duty repeats the broadcast of a closed ring, and hands over.
    pub(super) fn after_duty(&self, state: &State) -> At {
        let repeats = !self.is(Bug::CloseNotRepeatedBySleeper);
        if state.own.closed && repeats { At::NotifyP } else { At::HandOver }
    }
}

impl Turn<'_> {
    /// The process's side, and the other.
    pub(super) fn sides(&self) -> [usize; 2] {
        let mine = self.model.side(self.me);
        [mine, P + C - mine]
    }

    /// The words of the precise sleep, in the order in which the kernel compares and queues them.
    fn words(&self) -> impl Iterator<Item = At> {
        let order = if self.is(Bug::EpochComparedFirst) {
            [At::WaitA, At::WaitMine, At::WaitOther]
        } else {
            [At::WaitMine, At::WaitOther, At::WaitA]
        };
        order.into_iter().filter(|at| match at {
            At::WaitMine => !self.is(Bug::OwnLockNotWatched),
            At::WaitOther => !self.is(Bug::OtherLockNotWatched),
            _ => true,
        })
    }

    pub(super) fn wait_first(&self) -> At {
        if self.p.brief { At::WaitA } else { self.words().next().unwrap_or(At::WaitA) }
    }

    pub(super) fn wait_after(&self) -> At {
        let after = || self.words().skip_while(|&word| word != self.p.at).nth(1).unwrap_or(At::Asleep);
        if self.p.brief { At::Asleep } else { after() }
    }

    /// Leaves its sleep for no wake-up, and looks again.
    pub(super) fn again(&self, state: &mut State) {
        state.forget(self.me);
        let p = &mut state.processes[self.me];
        p.forget();
        p.at = if p.at == At::Asleep { At::Start } else { At::Try };
    }
}
