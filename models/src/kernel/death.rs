//! Death: the kernel walks the robust list of a dead process, then looks at its pending entry.
//!
//! The order of the list is left open; the pending entry comes last, and is skipped on the list. A word of
//! the dead process becomes `OD`, and keeps `W`; the kernel then wakes one process if there was a `W`. A
//! pending word without an owner is woken as well: the process may have died between its release and its
//! wake-up. Marking a word and waking through it are two steps, and all other processes go on in between.
//!
//! Two things are no steps of their own, because no other process could tell:
//!
//! - A process that is in no futex queue is killed together with what the kernel does first for it. Until
//!   then it is like a process that does not run. (A process in a queue leaves it when it is killed: that is
//!   a step.)
//! - The end, when nothing is left to do.

use super::{Hand, Low, Of, Protocol, Stage, State, Turn, tid};
use crate::checker::{Kind, Step};

impl<X: Copy, P: Copy, const N: usize, const W: usize> State<X, P, N, W> {
    /// Kills a process: the kernel has its robust list and its pending entry; nothing else of it is left.
    fn kill(&mut self, me: usize, rest: P) {
        let Hand { pending, linked, .. } = self.hands[me];
        self.hands[me] = Hand { stage: Stage::Dying, pending, linked, ..Hand::EMPTY };
        self.processes[me] = rest;
        self.end(me);
    }

    /// The end of a dead process, when nothing is left to do.
    fn end(&mut self, me: usize) {
        let hand = &mut self.hands[me];
        if hand.stage == Stage::Dying && hand.pending == 0 && hand.linked == 0 {
            *hand = Hand::EMPTY;
        }
    }

    /// The kernel leaves a word of a dead process, and says whether it wakes one process then.
    fn leave(&mut self, me: usize, word: usize, old_kernel: bool) -> bool {
        let low = self.words[word];
        if low.owner() == tid(me) {
            self.words[word] = Low(Low::OD | low.0 & Low::W);
            return low.has(Low::W);
        }
        low.is_free() && !(old_kernel && low != Low(0))
    }

    /// One step of the kernel for a dead process, for each order of its list.
    fn die_step(&self, me: usize, old_kernel: bool, mut found: impl FnMut(Self, &'static str, Kind)) {
        let hand = self.hands[me];
        if hand.stage == Stage::DyingWakes {
            return self.wake_one(hand.wakes.into(), |mut state, _, kind| {
                let hand = &mut state.hands[me];
                (hand.stage, hand.wakes) = (Stage::Dying, 0);
                state.end(me);
                found(state, "kernel wakes", kind);
            });
        }
        let pending = usize::from(hand.pending);
        let mut then = |word: usize, what| {
            let mut state = *self;
            state.unlink(me, word);
            if word + 1 == pending {
                state.clear_pending(me);
            }
            if state.leave(me, word, old_kernel) {
                let hand = &mut state.hands[me];
                (hand.stage, hand.wakes) = (Stage::DyingWakes, u8::try_from(word).unwrap_or(0));
            }
            state.end(me);
            found(state, what, Kind::Own);
        };
        let listed = (0..W).filter(|word| hand.linked & 1 << word != 0 && word + 1 != pending);
        if listed.clone().map(|word| then(word, "kernel: list")).count() == 0 {
            then(pending.saturating_sub(1), "kernel: pending");
        }
    }
}

impl<M: Protocol<N, W>, const N: usize, const W: usize> Turn<'_, M, N, W> {
    /// What the kernel does next for a dead process.
    pub(super) fn die(&self, next: &mut Vec<Step<Of<M, N, W>>>) {
        self.before.die_step(self.me, M::is_old_kernel(self.run), |mut state, what, kind| {
            M::marks(self.run, self.before, &mut state, self.me);
            next.push(Step { process: self.me, what, kind, state });
        });
    }

    /// The process is killed, if one may still be.
    pub(super) fn killed(&self, next: &mut Vec<Step<Of<M, N, W>>>) {
        let (me, mut state) = (self.me, *self.before);
        if state.left[0] == 0 {
            return;
        }
        state.left[0] -= 1;
        let was_queued = self.hand().queued != 0 || self.hand().woken;
        M::killed(self.run, &mut state, me);
        state.kill(me, M::Process::default());
        let first = next.len();
        if was_queued || !state.hands[me].is_dying() {
            next.push(Step { process: me, what: "is killed", kind: Kind::Chance, state });
        } else {
            Turn { before: &state, p: M::Process::default(), ..*self }.die(next);
        }
        for step in &mut next[first..] {
            (step.what, step.kind) = ("is killed", Kind::Chance);
        }
    }
}
