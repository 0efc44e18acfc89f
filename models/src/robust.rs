//! Robust locks that a process takes, gives back and sleeps on, one shared access a step: what the models of
//! semaphore, rwlock and barrier stand on, over [`mod@crate::kernel`].
//!
//! The lock itself is modelled in [`mod@crate::lock`]. Here a process may hold several such locks, and sleep
//! on several at once. A compare-and-swap of all 64 bits that is tried until it succeeds counts as one step.

use crate::checker::Kind;
use crate::kernel::{Low, Queued, Stage, State};

/// The most processes in one run, and the most words: the locks, and one mutex that is entered in one step.
pub(crate) const PROCESSES: usize = 4;
pub(crate) const WORDS: usize = 4;

/// The futex that is no lock (the barrier's round).
pub(crate) const OTHER: usize = 7;

/// How the words may be used wrongly.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flaws {
    /// The clear compares the low half only.
    pub(crate) clear_ignores_epoch: bool,
    /// A release wakes no process.
    pub(crate) no_wake: bool,
}

/// How far a take has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Come {
    /// There are more steps.
    On,
    /// To its end, and whether the owner had died.
    Done(bool),
    /// The lock was not to be had.
    Not,
}

impl<X: Copy, P: Copy, const N: usize, const W: usize> State<X, P, N, W> {
    /// `acquire(Deadline::NOW)`: the pending entry, the compare-and-swap, the link.
    pub(crate) fn take_step(&mut self, me: usize, word: usize) -> (&'static str, Come) {
        match self.hands[me].stage {
            Stage::Take if self.is_held(word) => {
                self.hands[me].stage = Stage::Rest;
                self.clear_pending(me);
                ("takes: too late", Come::Not)
            }
            Stage::Take => {
                let died = self.swap_in(me, word);
                let hand = &mut self.hands[me];
                (hand.stage, hand.died) = (Stage::Link, died);
                ("takes", Come::On)
            }
            Stage::Link => {
                self.link(me, word);
                let hand = &mut self.hands[me];
                hand.stage = Stage::Rest;
                ("links", Come::Done(std::mem::take(&mut hand.died)))
            }
            _ => {
                self.hands[me].stage = Stage::Take;
                self.set_pending(me, word);
                ("pending = node", Come::On)
            }
        }
    }

    /// `release`, or `vacate`, which wakes no process. Says at each step whether it was the last.
    pub(crate) fn give_step(
        mut self,
        me: usize,
        word: usize,
        wakes: bool,
        flaws: Flaws,
        mut found: impl FnMut(Self, &'static str, Kind, bool),
    ) {
        let what = match self.hands[me].stage {
            Stage::Unlink => {
                self.unlink(me, word);
                self.hands[me].stage = Stage::Sub;
                "unlinks"
            }
            Stage::Sub => {
                let wakes = self.release(me, word) && wakes && !flaws.no_wake;
                let hand = &mut self.hands[me];
                hand.set_fresh(word, wakes);
                hand.stage = if wakes { Stage::Wake } else { Stage::Disarm };
                "releases"
            }
            Stage::Wake => {
                return self.wake_one(word, |mut state, woke, kind| {
                    let hand = &mut state.hands[me];
                    hand.stage = if woke { Stage::Disarm } else { Stage::Clear };
                    hand.set_fresh(word, hand.is_fresh(word) && !woke);
                    found(state, if woke { "wakes one" } else { "wakes none" }, kind, false);
                });
            }
            Stage::Clear => {
                let same = self.words[word] == Low(Low::W);
                let same = same && (self.hands[me].is_fresh(word) || flaws.clear_ignores_epoch);
                self.hands[me].stage = Stage::Disarm;
                self.hands[me].set_fresh(word, false);
                if same {
                    self.words[word] = Low(0);
                }
                if same { "clears W" } else { "clears W: too late" }
            }
            Stage::Disarm => {
                self.hands[me].stage = Stage::Rest;
                self.clear_pending(me);
                return found(self, "pending = 0", Kind::Own, true);
            }
            _ => {
                self.hands[me].stage = Stage::Unlink;
                self.set_pending(me, word);
                "pending = node"
            }
        };
        found(self, what, Kind::Own, false);
    }

    /// Whether a process is neither taking nor giving.
    pub(crate) fn is_idle(&self, me: usize) -> bool {
        self.hands[me].stage == Stage::Rest
    }

    /// Reads a word that is to be changed if it is still the same.
    pub(crate) fn look_at(&mut self, me: usize, word: usize) {
        self.hands[me].set_fresh(word, true);
    }

    /// Whether a word that a dead process has left is as it was when it was looked at.
    pub(crate) fn is_as_looked_at(&self, me: usize, word: usize) -> bool {
        self.hands[me].is_fresh(word) && self.words[word].is_dead()
    }

    /// Clears the death of a word's owner (`OD`), if it is still the word that was looked at.
    pub(crate) fn clear_death(&mut self, me: usize, word: usize) {
        if self.is_as_looked_at(me, word) {
            self.advance(word);
            self.words[word].0 &= !Low::OD;
        }
        self.hands[me].set_fresh(word, false);
    }

    /// Registers as a waiter for a word that is held; false when it is free.
    pub(crate) fn register_if_held(&mut self, me: usize, word: usize) -> bool {
        if self.is_held(word) {
            self.register(word);
            self.note(me, word);
        }
        self.is_held(word)
    }

    /// Sets `W`, held or free, and notes the word; the epoch stays.
    pub(crate) fn watch(&mut self, me: usize, word: usize) {
        self.words[word].0 |= Low::W;
        self.note(me, word);
    }

    /// The kernel compares a futex and queues the process; false when it has changed: then it has left all
    /// queues.
    pub(crate) fn queue_or_leave(&mut self, me: usize, futex: usize, same: bool) -> bool {
        let queued = self.queue(me, futex, same) == Queued::Yes;
        if !queued {
            self.forget(me);
        }
        queued
    }

    /// The same for a lock, which must be what the process has read.
    pub(crate) fn queue_lock(&mut self, me: usize, word: usize) -> bool {
        self.queue_or_leave(me, word, self.hands[me].seen[word] == self.words[word])
    }
}
