//! What a consumer does with its lock.

use super::{A, At, Bug, C, COUNTS, FC, FP, FREVIVED, FSEQ, KB, LETTER, Process, Role, S, SEQ, Says, Slot, State, Turn, tid};
use crate::checker::Step;
use crate::robust::Low;

impl Turn<'_> {
    /// A consumer enters, and sees to what a dead one left.
    pub(super) fn enter(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[C]);
        let what = match p.at {
            At::GStart if p.left == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::GStart => {
                (p.pending, p.at) = (tid(C), At::GTry);
                "pending = C"
            }
            At::GTry if low.owner() == 0 => {
                state.low[C] = Low(tid(self.me) | low.0 & Low::W);
                if low != Low(0) {
                    state.bump(FC);
                }
                p.forget();
                (p.pending, p.heir) = (0, low.has(Low::OD));
                p.at = if p.heir && !self.lease.is(Bug::RecoverLate) { At::Recover } else { At::Look };
                "takes C"
            }
            At::GTry => {
                state.announce(C);
                // Its own count may have moved with it.
                p = state.processes[self.me];
                (p.seen[C], p.at) = (state.low[C], At::WaitKb);
                "announces to C"
            }
            At::WaitKb => {
                (p.queued, p.at) = (p.queued | 1 << KB, At::WaitLock);
                "queues on kb"
            }
            At::WaitLock if low == p.seen[C] => {
                (p.queued, p.seen[C], p.at) = (p.queued | 1 << C, Low(0), At::Contending);
                "sleeps for C"
            }
            At::Contending if !p.rung => return,
            At::WaitLock | At::Contending => {
                p.forget();
                p.at = At::GTry;
                "wakes for C"
            }
            At::Recover => {
                let (head, letters, done) = (state.head, state.letters, state.done);
                for slot in &mut state.slots {
                    slot.says = match slot.says {
                        Says::Taking if slot.number == head => Says::Free,
                        Says::Reviving if letters > 0 => Says::Free,
                        Says::Burying if done & 1 << slot.number != 0 => Says::Free,
                        Says::Taking | Says::Reviving | Says::Burying => Says::Out,
                        other => other,
                    };
                }
                (p.heir, p.at) = (false, At::TellA);
                "recovers"
            }
            At::TellA if self.lease.sleepers(&state) => {
                state.bump(FP);
                p = state.processes[self.me];
                p.at = At::TellAWake;
                "tells: A+1"
            }
            At::TellA => {
                p.at = At::TellSeq;
                "nobody sleeps"
            }
            At::TellAWake => return self.wake_all(next, A, "tells all", At::TellSeq),
            At::TellSeq if self.lease.joiners(&state) => {
                state.bump(FSEQ);
                p = state.processes[self.me];
                p.at = At::TellSeqWake;
                "tells: joiners + 1"
            }
            At::TellSeq => {
                p.at = self.after_telling();
                "nobody joins"
            }
            _ => return self.wake_all(next, SEQ, "tells who joins", self.after_telling()),
        };
        self.go(next, what, state, p);
    }

    fn after_telling(&self) -> At {
        match self.p.slot {
            _ if self.lease.is(Bug::RecoverLate) && self.before.low[C].owner() == tid(self.me) && self.p.back => At::CRelease,
            0 => At::Look,
            _ => At::SlotPending,
        }
    }

    /// With the lock: a job that came back, or a message and a slot.
    pub(super) fn take(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let lease = self.lease;
        let slot = usize::from(p.slot).saturating_sub(1);
        let what = match p.at {
            At::Look => return self.look(next),
            At::LockOfBack => {
                p.at = At::SlotPending;
                if state.is_held(slot) {
                    (p.slot, p.back, p.at) = (0, false, At::Look);
                    p.index += 1;
                }
                "now the lock"
            }
            At::UseNew => {
                state.used += 1;
                p.slot = state.used;
                p.at = if lease.is(Bug::FirstUseTellsNobody) { At::SlotPending } else { At::TellA };
                "uses a slot first"
            }
            At::SlotPending => {
                (p.pending, p.at) = (p.slot + tid(C), At::SlotTake);
                "pending = slot"
            }
            At::SlotTake => {
                let heir = state.low[S + slot].has(Low::OD) && !lease.is(Bug::HeirStays);
                state.low[S + slot] = Low(tid(self.me) | Low::W);
                (p.pending, p.at) = (0, if heir { At::SlotMoves } else { self.after_slot() });
                "takes the slot"
            }
            At::SlotMoves => {
                if lease.sleepers(&state) {
                    state.bump(FP);
                }
                p = state.processes[self.me];
                p.at = self.after_slot();
                "a dead one's: A+1"
            }
            At::Bury => {
                if !lease.is(Bug::NoBurying) {
                    state.slots[slot].says = Says::Burying;
                }
                p.at = At::Letter;
                "BURYING"
            }
            At::Letter => {
                state.done |= 1 << state.slots[slot].number;
                p.at = At::DCount;
                "the tail of the letters"
            }
            At::Count => {
                if !lease.is(Bug::RevivedUncounted) {
                    state.bump(FREVIVED);
                }
                p = state.processes[self.me];
                p.at = if lease.is(Bug::CountedFirst) { At::Taking } else { At::Head };
                "counts it"
            }
            At::Taking if self.revives() => {
                state.slots[slot] = Slot { says: Says::Reviving, number: LETTER };
                p.at = if lease.is(Bug::CountedFirst) { At::Head } else { At::Count };
                "REVIVING"
            }
            At::Taking => {
                let says = match () {
                    () if lease.is(Bug::OutBeforeHead) => Says::Out,
                    () if lease.is(Bug::HeadBeforeOut) => Says::Free,
                    () => Says::Taking,
                };
                (state.slots[slot].says, state.slots[slot].number) = (says, state.head);
                p.at = At::Head;
                "TAKING"
            }
            At::Head if self.revives() => {
                (state.letters, state.done) = (0, state.done & !(1 << LETTER));
                p.at = At::Out;
                "the head of the letters"
            }
            At::Head => {
                state.head += 1;
                p.at = At::Out;
                "the head"
            }
            _ => {
                state.slots[slot].says = Says::Out;
                p.at = if p.heir { At::Recover } else { At::CRelease };
                p.back = p.heir;
                "OUT"
            }
        };
        self.go(next, what, state, p);
    }

    fn after_slot(&self) -> At {
        match () {
            () if self.p.back && self.lease.poison => At::Bury,
            () if self.p.back => At::CRelease,
            () if self.revives() && self.lease.is(Bug::CountedFirst) => At::Count,
            () => At::Taking,
        }
    }

    fn revives(&self) -> bool {
        self.lease.roles[self.me] == Role::Reviver
    }

    fn look(&self, next: &mut Vec<Step<State>>) {
        let (before, lease, p) = (self.before, self.lease, self.p);
        if lease.joins(self.me) {
            return self.go(next, "wants none", *before, Process { at: At::CRelease, left: 0, ..p });
        }
        let split = lease.is(Bug::StateBeforeLock);
        let is_back = |slot: &usize| {
            let back = before.slots[*slot].says == Says::Out;
            back && if split { *slot >= usize::from(p.index) } else { !before.is_held(*slot) }
        };
        let mut found = false;
        for slot in before.used().filter(is_back).filter(|_| !self.revives()) {
            found = true;
            let at = if split { At::LockOfBack } else { At::SlotPending };
            self.go(next, "one came back", *before, Process { at, slot: tid(slot), back: true, ..p });
        }
        if found {
            return;
        }
        let mut state = *before;
        let stay = Process { index: 0, ..p };
        if if self.revives() { before.letters == 0 } else { !before.has_data() } {
            // Nobody waits for a slot.
            state.starved &= self.revives();
            return self.go(next, "nothing", state, Process { at: At::CRelease, ..stay });
        }
        let free = |slot: &usize| before.slots[*slot].says == Says::Free && !before.is_held(*slot);
        for slot in before.used().filter(free) {
            found = true;
            self.go(next, "a slot", *before, Process { at: At::SlotPending, slot: tid(slot), ..stay });
        }
        if !found && before.used < lease.slots {
            return self.go(next, "all are in use", state, Process { at: At::UseNew, ..stay });
        }
        if !found {
            self.go(next, "no slot", state, Process { at: At::CRelease, ..stay });
        }
    }

    /// Leaves, and wakes others.
    pub(super) fn leave(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p, low) = (*self.before, self.p, self.before.low[C]);
        let what = match p.at {
            At::CRelease => {
                state.low[C].0 &= Low::W;
                let settles = low.has(Low::W);
                (p.pending, p.fresh[FC], p.at) = (tid(C), settles, if settles { At::WakeKb } else { At::Disarm });
                (p.back, p.heir) = (false, false);
                "releases C"
            }
            At::WakeKb if state.contenders() => {
                return self.wake(next, KB, "wakes a contender", |p, woke| (p.keep, p.at) = (p.keep | woke, At::Chain));
            }
            At::WakeKb => {
                p.at = At::Chain;
                "nobody contends"
            }
            At::Chain if self.lease.sleepers(&state) && self.lease.has_job(&state) && !self.lease.is(Bug::NoChain) => {
                state.bump(FP);
                p = state.processes[self.me];
                p.at = At::ChainWake;
                "chains: A+1"
            }
            At::Chain => {
                p.at = At::Clear;
                "nothing to chain"
            }
            At::ChainWake => return self.wake(next, A, "chains", |p, _| p.at = At::Clear),
            At::Clear => {
                if low == Low(Low::W) && p.fresh[FC] && !p.keep {
                    state.low[C] = Low(0);
                }
                (p.fresh, p.keep, p.at) = ([false; COUNTS], false, At::Disarm);
                "clears W, if it is still its"
            }
            _ => {
                (p.pending, p.at) = (0, self.lease.after_leaving(self.me, p.slot));
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}
