//! What the processes can tell from the words, and what is true.

use super::state::{At, DEAD_LETTER, Job, PROCESSES, Process, S, Says, WORDS};
use super::{Bug, Lease, Role, State};
use crate::kernel::Run;

impl Run<Lease, PROCESSES, WORDS> {
    /// A job that came back, or one that a dead process has half moved.
    pub(super) fn is_back(&self, state: &State, lease: usize) -> bool {
        let says = state.own.jobs[lease].says;
        let back = says == Says::Leased || (says != Says::Free && !self.is(Bug::HalfMovedUnseen));
        back && !state.is_held(S + lease)
    }

    /// A process has died on the way into a lease.
    pub(super) fn is_half_moved(&self, state: &State) -> bool {
        let half = |lease: usize| {
            !matches!(state.own.jobs[lease].says, Says::Free | Says::Leased) && !state.is_held(S + lease)
        };
        !self.is(Bug::JoinerRecoversNothing) && state.own.used().any(half)
    }

    pub(super) fn has_job(&self, state: &State) -> bool {
        let back = || state.own.used().any(|lease| self.is_back(state, lease));
        (state.own.has_data() && self.model.has_lease(state)) || back()
    }
}

impl Lease {
    pub(super) fn joins(&self, me: usize) -> bool {
        self.roles.get(me) == Some(&Role::Joiner)
    }

    /// Consumers that sleep, as they are counted.
    pub(super) fn sleepers(&self, state: &State) -> bool {
        state.own.leaked[1] || (0..PROCESSES).any(|me| state.processes[me].counted && !self.joins(me))
    }

    pub(super) fn joiners(&self, state: &State) -> bool {
        state.own.leaked[2] || (0..PROCESSES).any(|me| state.processes[me].counted && self.joins(me))
    }

    pub(super) fn has_lease(&self, state: &State) -> bool {
        let free = |lease: usize| !state.is_held(S + lease) && state.own.jobs[lease].says == Says::Free;
        state.own.used < self.leases || state.own.used().any(free)
    }

    pub(super) fn all_done(&self, state: &State) -> bool {
        u32::from(state.own.puts) + u32::from(self.letter) == state.own.done.count_ones()
    }

    /// Nothing will ever come but what this process has itself.
    pub(super) fn is_over(&self, state: &State, me: usize) -> bool {
        let mine = |lease: usize| state.holds(me, S + lease) || state.own.jobs[lease].says == Says::Free;
        self.closed && !state.own.has_data() && state.own.used().all(mine)
    }

    /// Where a process begins.
    pub(super) fn begins(&self, me: usize) -> At {
        match self.roles[me] {
            Role::Producer { .. } => At::PStart,
            Role::Consumer { .. } | Role::Reviver => At::GStart,
            Role::Joiner => At::JStart,
        }
    }

    /// Where a process goes on that has left the consumers' side with this lease.
    pub(super) fn after_leaving(&self, me: usize, lease: u8) -> At {
        match (self.roles[me], lease) {
            (Role::Joiner, _) => At::JStart,
            (Role::Reviver, 0) => At::DDisarm,
            (Role::Reviver, _) => At::BCount,
            (_, 0) => At::Decide,
            _ => At::Held,
        }
    }

    /// A message that is nowhere, or twice.
    pub(super) fn astray(&self, state: &State) -> Option<&'static str> {
        let own = &state.own;
        let holders = |lease: usize| {
            let has =
                |p: &&Process| usize::from(p.lease) == lease + 1 && matches!(p.at, At::Held | At::DCount);
            state.processes.iter().filter(has).count()
        };
        for (me, p) in state.processes.iter().enumerate().filter(|(_, p)| p.at == At::Held) {
            let lease = usize::from(p.lease) - 1;
            if !state.holds(me, S + lease) || holders(lease) > 1 {
                return Some("LEASED TWICE");
            }
            if own.done & 1 << own.jobs[lease].number != 0 {
                return Some("DONE, AND LEASED AGAIN");
            }
        }
        for message in (0..own.puts).chain(self.letter.then_some(DEAD_LETTER)) {
            let lies = |job: &&Job, says| job.says == says && job.number == message;
            let leased = own.jobs.iter().filter(|job| lies(job, Says::Leased)).count();
            let moving = [Says::Taking, Says::Reviving, Says::DeadLettering];
            let moving = own.jobs.iter().any(|job| moving.iter().any(|says| lies(&job, *says)));
            let waits = usize::from(message >= own.head && message != DEAD_LETTER);
            let found = waits + leased + usize::from(own.done & 1 << message != 0);
            if found > 1 {
                return Some("ONE TOO MANY");
            }
            if found == 0 && !moving {
                return Some("LOST");
            }
        }
        None
    }

    /// Waiters for the consumers' lock, as they are counted.
    pub(super) fn waiters(state: &State) -> bool {
        state.own.leaked[0] || state.processes.iter().any(Process::waits_for_lock)
    }
}
