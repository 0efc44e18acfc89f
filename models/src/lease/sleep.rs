//! Who sleeps for a job, or for the last one to be done; and what each does when he is woken.

use super::{A, At, Bug, C, COUNTS, FP, FREVIVED, FSEQ, For, KB, Low, P, Process, S, SEQ, Says, State, Turn, WORDS, tid};
use crate::checker::Step;

impl Turn<'_> {
    pub(super) fn sleep(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let (lease, joins) = (self.lease, self.lease.joins(self.me));
        let what = match p.at {
            At::Decide if !joins && lease.is_over(&state, self.me) => {
                p = Process::GONE;
                "it is over"
            }
            At::Decide => {
                (p.watch, p.at) = (state.used, At::Arm);
                state.starved |= lease.is(Bug::StarvedForgotten) && state.has_data() && !lease.has_slot(&state);
                "must wait"
            }
            At::Arm => {
                (p.pending, p.napping, p.at) = (tid(P), true, At::Announce);
                "pending = P, counts itself"
            }
            At::Announce => {
                state.announce(P);
                p = state.processes[self.me];
                (p.seen[P], p.fresh[FP], p.at) = (state.low[P], true, At::Note);
                "announces to P"
            }
            At::Note => {
                p.seen[C] = state.low[C];
                for slot in 0..self.watched() {
                    p.seen[S + slot] = state.low[S + slot];
                }
                (p.fresh[FSEQ], p.at) = (joins, At::Ready);
                "notes the words"
            }
            At::Ready => self.ready(&mut state, &mut p, joins),
            At::ReadyStarved if lease.has_slot(&state) => self.awake(&mut p),
            At::ReadyStarved => {
                p.at = At::ReadyBack;
                "no slot"
            }
            At::ReadyBack if p.index >= state.used => {
                (p.index, p.at) = (0, At::Queue);
                "must sleep"
            }
            At::ReadyBack if lease.is_back(&state, p.index.into()) => self.awake(&mut p),
            At::ReadyBack => {
                p.index += 1;
                "is not back"
            }
            At::Queue => self.queue(&state, &mut p, joins),
            At::Asleep if !p.rung => return,
            At::Asleep => {
                p.at = At::Woken;
                "wakes up"
            }
            At::Woken => {
                p.forget();
                p.at = At::DutyKb;
                "unqueues"
            }
            At::DutyKb => {
                let low = state.low[C];
                if low.owner() == 0 && low.has(Low::W) && state.contenders() {
                    return self.wake(next, KB, "duty: C's kb", |p, _| p.at = At::Retell);
                }
                p.at = At::Retell;
                "duty: C is well"
            }
            At::Retell => {
                let tells = (lease.joiners(&state) || lease.closed) && (joins || !lease.is(Bug::WokenTellsNobody));
                if lease.closed && lease.is(Bug::WokenTellsAll) {
                    p.at = At::EndBump;
                } else if tells {
                    p.scan(For::Retell);
                } else {
                    p.at = self.after_retelling();
                }
                "retells?"
            }
            At::PassOn if lease.sleepers(&state) && lease.has_job(&state) => {
                state.bump(FP);
                p = state.processes[self.me];
                p.at = At::PassWake;
                "passes on: A+1"
            }
            At::PassOn => {
                p.at = At::Flight;
                "nothing to pass on"
            }
            At::PassWake => return self.wake(next, A, "passes on", |p, _| p.at = At::Flight),
            _ => {
                state.announce(C);
                p = state.processes[self.me];
                self.awake(&mut p);
                "flight: announces to C"
            }
        };
        self.go(next, what, state, p);
    }

    /// Looks without a lock: what was waited for may have come.
    fn ready(&self, state: &mut State, p: &mut Process, joins: bool) -> &'static str {
        let lease = self.lease;
        if (p.watch != state.used && !lease.is(Bug::SlotsCountedOnce)) || (joins && lease.is_half_moved(state)) {
            return self.awake(p);
        }
        if joins {
            p.scan(For::Ready);
            return "is it all done?";
        }
        if (state.has_data() && lease.has_slot(state)) || lease.is_over(state, self.me) {
            return self.awake(p);
        }
        p.at = At::ReadyBack;
        if state.has_data() && !lease.is(Bug::StarvedForgotten) {
            (state.starved, p.at) = (true, At::ReadyStarved);
        }
        "nothing new"
    }

    /// The kernel compares one word and queues on it: the slots, C, P, the bell.
    fn queue(&self, state: &State, p: &mut Process, joins: bool) -> &'static str {
        let watched = self.watched();
        let word = match usize::from(p.index).checked_sub(watched) {
            None => S + usize::from(p.index),
            Some(0) => C,
            Some(1) => P,
            _ if joins => SEQ,
            _ => A,
        };
        let same = match word {
            SEQ => p.fresh[FSEQ],
            A => p.fresh[FP],
            _ => p.seen[word] == state.low[word],
        };
        if !same && p.rung {
            p.at = At::Woken;
            return "rung while queueing";
        }
        if !same {
            let watch = p.watch;
            p.forget();
            (p.watch, p.at) = (watch, At::Announce);
            return "EAGAIN";
        }
        (p.queued, p.index) = (p.queued | 1 << word, p.index + 1);
        if word < WORDS {
            p.seen[word] = Low(0);
            return "queues";
        }
        (p.fresh, p.index, p.watch, p.at) = ([false; COUNTS], 0, 0, At::Asleep);
        "sleeps"
    }

    fn watched(&self) -> usize {
        if self.lease.is(Bug::WatchesNoSlots) { 0 } else { self.p.watch.into() }
    }

    /// After a second, asleep: looks again.
    pub(super) fn belt(&self, next: &mut Vec<Step<State>>) {
        let mut p = self.p;
        if p.at == At::Contending {
            p.forget();
            p.at = At::GTry;
        } else {
            self.awake(&mut p);
        }
        self.go(next, "belt", *self.before, p);
    }

    /// Leaves the sleep, and looks in earnest.
    pub(super) fn awake(&self, p: &mut Process) -> &'static str {
        p.forget();
        (p.napping, p.at) = (false, self.lease.start(self.me));
        "need not sleep"
    }

    pub(super) fn after_retelling(&self) -> At {
        let passes = self.lease.joins(self.me) && !self.lease.is(Bug::JoinerKeepsWake);
        if passes { At::PassOn } else { At::Flight }
    }

    /// `is_finished`, for whatever it is asked; and who is told.
    pub(super) fn finished(&self, next: &mut Vec<Step<State>>) {
        let (mut state, mut p) = (*self.before, self.p);
        let what = match p.at {
            At::JStart if self.lease.is_half_moved(&state) => {
                (p.at, p.left) = (At::GStart, 1);
                "one has died half way"
            }
            At::JStart => {
                p.scan(For::Join);
                "is it all done?"
            }
            At::FHead if state.has_data() => self.found(&mut p, false),
            At::FHead => {
                (p.head, p.index, p.at) = (state.head, 0, At::FSlot);
                p.fresh[FREVIVED] = self.lease.letter;
                "the log is empty"
            }
            At::FSlot if p.index >= state.used => {
                p.at = At::FSame;
                "all are free"
            }
            At::FSlot if state.slots[usize::from(p.index)].says != Says::Free => self.found(&mut p, false),
            At::FSlot => {
                p.index += 1;
                "one is free"
            }
            At::FSame if self.lease.is(Bug::FinishedWithoutSecondLook) => self.found(&mut p, true),
            At::FSame if state.head != p.head || p.fresh[FREVIVED] != self.lease.letter => self.found(&mut p, false),
            At::FSame => {
                p.at = At::FEmpty;
                "the same head"
            }
            At::FEmpty => {
                let empty = state.puts <= p.head;
                self.found(&mut p, empty)
            }
            At::SeqBump => {
                state.bump(FSEQ);
                p = state.processes[self.me];
                p.at = At::SeqWake;
                "all is done: joiners + 1"
            }
            At::SeqWake => return self.wake_all(next, SEQ, "tells who joins", self.after_telling_joiners()),
            At::EndBump => {
                state.bump(FP);
                p = state.processes[self.me];
                p.at = At::EndWake;
                "it is over: A+1"
            }
            _ => return self.wake_all(next, A, "tells consumers", self.after_retelling()),
        };
        self.go(next, what, state, p);
    }

    fn after_telling_joiners(&self) -> At {
        match self.p.purpose {
            For::Done => At::DStarved,
            _ if self.lease.closed => At::EndBump,
            _ => self.after_retelling(),
        }
    }

    /// What the look was for.
    fn found(&self, p: &mut Process, finished: bool) -> &'static str {
        (p.head, p.index, p.fresh[FREVIVED]) = (0, 0, false);
        match (p.purpose, finished) {
            (For::Join, true) => *p = Process { at: if p.instant { At::Gone } else { At::Early }, ..Process::GONE },
            (For::Join, false) => p.at = At::Decide,
            (For::Ready, true) => {
                self.awake(p);
            }
            (For::Ready, false) => p.at = At::Queue,
            (_, true) => p.at = At::SeqBump,
            (For::Done, false) => p.at = At::DStarved,
            (For::Retell, false) => p.at = self.after_retelling(),
        }
        if !matches!(p.at, At::FHead | At::SeqBump) {
            (p.purpose, p.instant) = (For::Join, false);
        }
        if finished { "all is done" } else { "not all is done" }
    }
}
