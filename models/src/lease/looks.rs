//! What the processes can tell from the words, and what is true.

use super::state::Process;
use super::{At, Bug, LETTER, Lease, MOST, Role, S, Says, Slot, State, tid};

impl Lease {
    pub(super) fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(super) fn joins(&self, me: usize) -> bool {
        self.roles.get(me) == Some(&Role::Joiner)
    }

    /// Consumers that sleep, as they are counted.
    pub(super) fn sleepers(&self, state: &State) -> bool {
        state.leaked[1] || (0..MOST).any(|me| state.processes[me].napping && !self.joins(me))
    }

    pub(super) fn joiners(&self, state: &State) -> bool {
        state.leaked[2] || (0..MOST).any(|me| state.processes[me].napping && self.joins(me))
    }

    pub(super) fn has_slot(&self, state: &State) -> bool {
        state.used < self.slots || state.used().any(|slot| !state.is_held(slot) && state.slots[slot].says == Says::Free)
    }

    /// A job that came back, or one that a dead one has half moved.
    pub(super) fn is_back(&self, state: &State, slot: usize) -> bool {
        let says = state.slots[slot].says;
        !state.is_held(slot) && (says == Says::Out || (says != Says::Free && !self.is(Bug::HalfMovedUnseen)))
    }

    /// Somebody has died on the way into a slot.
    pub(super) fn is_half_moved(&self, state: &State) -> bool {
        let half = |slot: usize| !matches!(state.slots[slot].says, Says::Free | Says::Out) && !state.is_held(slot);
        !self.is(Bug::JoinerRecoversNothing) && state.used().any(half)
    }

    pub(super) fn has_job(&self, state: &State) -> bool {
        (state.has_data() && self.has_slot(state)) || state.used().any(|slot| self.is_back(state, slot))
    }

    pub(super) fn all_done(&self, state: &State) -> bool {
        u32::from(state.puts) + u32::from(self.letter) == state.done.count_ones()
    }

    /// Nothing will ever come but what this one has itself.
    pub(super) fn is_over(&self, state: &State, me: usize) -> bool {
        let mine = |slot: usize| state.low[S + slot].owner() == tid(me);
        self.closed && !state.has_data() && state.used().all(|slot| mine(slot) || state.slots[slot].says == Says::Free)
    }

    /// A process that has done its part.
    pub(super) fn start(&self, me: usize) -> At {
        match self.roles[me] {
            Role::Producer { .. } => At::PStart,
            Role::Consumer { .. } => At::GStart,
            Role::Joiner => At::JStart,
            Role::Reviver => At::GStart,
        }
    }

    /// Somebody who ought not to sleep, when nobody moves.
    pub(super) fn stuck(&self, state: &State) -> Option<(usize, &'static str)> {
        let right = Self { bug: None, ..self.clone() };
        let wrong = |me: usize, p: &Process| match p.at {
            At::Contending => Some("LOST LOCK WAKE"),
            At::Asleep if self.joins(me) => self.all_done(state).then_some("JOINS THOUGH ALL IS DONE"),
            At::Asleep if right.has_job(state) => Some("SLEEPS BESIDE A JOB"),
            At::Asleep if right.is_over(state, me) => Some("SLEEPS THROUGH THE END"),
            _ => None,
        };
        state.processes.iter().enumerate().find_map(|(me, p)| Some((me, wrong(me, p)?)))
    }

    /// A message that is nowhere, or twice.
    pub(super) fn astray(&self, state: &State) -> Option<&'static str> {
        let holder = |slot: usize| {
            let has = |p: &Process| usize::from(p.slot) == slot + 1 && matches!(p.at, At::Held | At::DCount);
            state.processes.iter().filter(|p| has(p)).count()
        };
        for (me, p) in state.processes.iter().enumerate().filter(|(_, p)| p.at == At::Held) {
            let slot = usize::from(p.slot) - 1;
            if state.low[S + slot].owner() != tid(me) || holder(slot) > 1 {
                return Some("OUT TWICE");
            }
            if state.done & 1 << state.slots[slot].number != 0 {
                return Some("DONE, AND OUT AGAIN");
            }
        }
        for message in (0..state.puts).chain(self.letter.then_some(LETTER)) {
            let lies = |slot: &Slot, says| slot.says == says && slot.number == message;
            let out = state.slots.iter().filter(|slot| lies(slot, Says::Out)).count();
            let moving = [Says::Taking, Says::Reviving, Says::Burying];
            let moving = state.slots.iter().any(|slot| moving.iter().any(|says| lies(slot, *says)));
            let waits = usize::from(message >= state.head && message != LETTER);
            let done = usize::from(state.done & 1 << message != 0);
            if waits + out + done > 1 {
                return Some("ONE TOO MANY");
            }
            if waits + out + done == 0 && !moving {
                return Some("LOST");
            }
        }
        None
    }
}
