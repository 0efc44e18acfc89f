//! What a consumer does with its lock.

use super::state::{A, At, C, DEAD_LETTER, JOINERS, Job, KB, P, Process, REVIVED, S, SEQ, Says};
use super::{Bug, Lease, Role, Steps, Turn, number};

impl Turn<'_> {
    /// A consumer enters, and recovers what a dead process left.
    pub(super) fn enter(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::GStart if p.left == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::GStart => {
                state.set_pending(me, C);
                p.at = At::GTry;
                "pending = C"
            }
            At::GTry if !state.is_held(C) => {
                p.recovers = state.take(me, C);
                state.forget(me);
                p.forget();
                p.at = if p.recovers && !self.is(Bug::RecoverLate) { At::Recover } else { At::Look };
                "takes C"
            }
            At::GTry => {
                state.register(C);
                state.note(me, C);
                p.at = At::WaitKb;
                "registers as a waiter"
            }
            At::WaitKb => {
                state.queue(me, KB, true);
                p.at = At::WaitLock;
                "queues for C"
            }
            At::WaitLock if state.words[C] == self.hand().seen[C] => {
                state.queue_word(me, C);
                p.at = At::Contending;
                "sleeps for C"
            }
            At::Contending if !self.hand().woken => return,
            At::WaitLock | At::Contending => {
                state.forget(me);
                p.forget();
                p.at = At::GTry;
                "wakes for C"
            }
            At::Recover => {
                let own = state.own;
                for job in &mut state.own.jobs {
                    job.says = match job.says {
                        Says::Taking if job.number == own.head => Says::Free,
                        Says::Reviving if own.letters > 0 => Says::Free,
                        Says::DeadLettering if own.done & 1 << job.number != 0 => Says::Free,
                        Says::Taking | Says::Reviving | Says::DeadLettering => Says::Leased,
                        other => other,
                    };
                }
                (p.recovers, p.at) = (false, At::Notify);
                "recovers"
            }
            At::Notify if self.model.sleepers(&state) => {
                state.advance(P);
                p.at = At::NotifyWake;
                "notifies: A + 1"
            }
            At::Notify => {
                p.at = At::NotifyJoiners;
                "no consumer sleeps"
            }
            At::NotifyWake => return self.wake_all(next, A, "wakes all", |p| p.at = At::NotifyJoiners),
            At::NotifyJoiners if self.model.joiners(&state) => {
                state.advance(JOINERS);
                p.at = At::NotifyJoinersWake;
                "notifies joiners: their epoch + 1"
            }
            At::NotifyJoiners => {
                p.at = self.after_notifying();
                "no process joins"
            }
            _ => return self.wake_all(next, SEQ, "wakes joiners", |p| p.at = self.after_notifying()),
        };
        self.go(next, what, state, p);
    }

    fn after_notifying(&self) -> At {
        match self.p.lease {
            _ if self.is(Bug::RecoverLate) && self.before.holds(self.me, C) && self.p.back => At::CRelease,
            0 => At::Look,
            _ => At::LeasePending,
        }
    }

    /// With the lock: a job that came back, or a message and a lease.
    pub(super) fn take(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let lease = usize::from(p.lease).saturating_sub(1);
        let what = match p.at {
            At::Look => return self.look(next),
            At::LockOfBack => {
                p.at = At::LeasePending;
                if state.is_held(S + lease) {
                    (p.lease, p.back, p.at) = (0, false, At::Look);
                    p.index += 1;
                }
                "reads the lock after the state"
            }
            At::UseNew => {
                state.own.used += 1;
                p.lease = state.own.used;
                p.at = if self.is(Bug::FirstUseNotNotified) { At::LeasePending } else { At::Notify };
                "uses a lease for the first time"
            }
            At::LeasePending => {
                state.set_pending(me, S + lease);
                p.at = At::LeaseTake;
                "pending = lease"
            }
            At::LeaseTake => {
                let died = state.take_watched(me, S + lease) && !self.is(Bug::RecovererKeepsEpoch);
                p.at = if died { At::LeaseAdvance } else { self.after_lease() };
                "takes the lease"
            }
            At::LeaseAdvance => {
                if self.model.sleepers(&state) {
                    state.advance(P);
                }
                p.at = self.after_lease();
                "its owner had died: A + 1"
            }
            At::DeadLetter => {
                if !self.is(Bug::NoDeadLettering) {
                    state.own.jobs[lease].says = Says::DeadLettering;
                }
                p.at = At::DeadLetterTail;
                "DEAD_LETTERING"
            }
            At::DeadLetterTail => {
                state.own.done |= 1 << state.own.jobs[lease].number;
                p.at = At::DCount;
                "the tail of the dead-letter log"
            }
            At::Count => {
                if !self.is(Bug::RevivedUncounted) {
                    state.advance(REVIVED);
                }
                p.at = if self.is(Bug::CountedFirst) { At::Taking } else { At::Head };
                "counts it"
            }
            At::Taking if self.revives() => {
                state.own.jobs[lease] = Job { says: Says::Reviving, number: DEAD_LETTER };
                p.at = if self.is(Bug::CountedFirst) { At::Head } else { At::Count };
                "REVIVING"
            }
            At::Taking => {
                let says = match () {
                    () if self.is(Bug::LeasedBeforeHead) => Says::Leased,
                    () if self.is(Bug::HeadBeforeLeased) => Says::Free,
                    () => Says::Taking,
                };
                state.own.jobs[lease] = Job { says, number: state.own.head };
                p.at = At::Head;
                "TAKING"
            }
            At::Head if self.revives() => {
                (state.own.letters, state.own.done) = (0, state.own.done & !(1 << DEAD_LETTER));
                p.at = At::Leased;
                "the head of the dead-letter log"
            }
            At::Head => {
                state.own.head += 1;
                p.at = At::Leased;
                "the head"
            }
            _ => {
                state.own.jobs[lease].says = Says::Leased;
                p.at = if p.recovers { At::Recover } else { At::CRelease };
                p.back = p.recovers;
                "LEASED"
            }
        };
        self.go(next, what, state, p);
    }

    fn after_lease(&self) -> At {
        match () {
            () if self.p.back && self.model.poison => At::DeadLetter,
            () if self.p.back => At::CRelease,
            () if self.revives() && self.is(Bug::CountedFirst) => At::Count,
            () => At::Taking,
        }
    }

    fn revives(&self) -> bool {
        self.model.roles[self.me] == Role::Reviver
    }

    fn look(&self, next: &mut Steps) {
        let (before, model, p) = (self.before, self.model, self.p);
        let own = &before.own;
        if model.joins(self.me) {
            return self.go(next, "wants none", *before, Process { at: At::CRelease, left: 0, ..p });
        }
        let split = self.is(Bug::StateBeforeLock);
        let is_back = |lease: &usize| {
            let back = own.jobs[*lease].says == Says::Leased;
            back && if split { *lease >= usize::from(p.index) } else { !before.is_held(S + *lease) }
        };
        let mut found = false;
        for lease in own.used().filter(is_back).filter(|_| !self.revives()) {
            found = true;
            let at = if split { At::LockOfBack } else { At::LeasePending };
            self.go(next, "a job came back", *before, Process { at, lease: number(lease), back: true, ..p });
        }
        if found {
            return;
        }
        let mut state = *before;
        let stay = Process { index: 0, ..p };
        if if self.revives() { own.letters == 0 } else { !own.has_data() } {
            // No consumer waits for a lease.
            state.own.starved &= self.revives();
            return self.go(next, "nothing", state, Process { at: At::CRelease, ..stay });
        }
        let free = |lease: &usize| own.jobs[*lease].says == Says::Free && !before.is_held(S + *lease);
        for lease in own.used().filter(free) {
            found = true;
            self.go(next, "a lease", *before, Process { at: At::LeasePending, lease: number(lease), ..stay });
        }
        match found {
            true => {}
            false if own.used < model.leases => {
                self.go(next, "all are in use", state, Process { at: At::UseNew, ..stay });
            }
            false => self.go(next, "no lease", state, Process { at: At::CRelease, ..stay }),
        }
    }

    /// Leaves, and wakes others.
    pub(super) fn leave(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::CRelease => {
                p.at = if state.release(me, C) { At::WakeKb } else { At::Disarm };
                (p.back, p.recovers) = (false, false);
                "releases C"
            }
            At::WakeKb if Lease::waiters(&state) => {
                let then = |p: &mut Process, woke| (p.keep, p.at) = (p.keep | woke, At::Chain);
                return self.wake(next, KB, "wakes a waiter for C", then);
            }
            At::WakeKb => {
                p.at = At::Chain;
                "no process waits for C"
            }
            At::Chain
                if self.model.sleepers(&state) && self.run.has_job(&state) && !self.is(Bug::NoChain) =>
            {
                state.advance(P);
                p.at = At::ChainWake;
                "chains: A + 1"
            }
            At::Chain => {
                p.at = At::Clear;
                "nothing to chain"
            }
            At::ChainWake => return self.wake(next, A, "chains", |p, _| p.at = At::Clear),
            At::Clear => {
                state.clear_w(me, C, p.keep);
                (p.keep, p.at) = (false, At::Disarm);
                "clears W, if nothing has changed"
            }
            _ => {
                state.clear_pending(me);
                p.at = self.model.after_leaving(me, p.lease);
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}
