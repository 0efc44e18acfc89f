//! The kernel: queues, wakes, and what it does for the dead.

use super::{Come, Hand, Low, MOST, Next, OTHER, Robust, Stage, WORDS, tid};
use crate::checker::Kind;

impl Robust {
    /// The kernel compares this word and queues; false when it has changed.
    pub(crate) fn queue(&mut self, me: usize, word: usize) -> bool {
        if self.hands[me].noted[word] != self.words[word] {
            self.wake_up(me);
            return false;
        }
        self.hands[me].queued |= 1 << word;
        self.hands[me].noted[word] = Low(0);
        true
    }

    /// The same for the word that is no lock.
    pub(crate) fn queue_other(&mut self, me: usize, same: bool) -> bool {
        if same {
            self.hands[me].queued |= OTHER;
        } else {
            self.wake_up(me);
        }
        same
    }

    /// Leaves all queues.
    pub(crate) fn wake_up(&mut self, me: usize) {
        let hand = &mut self.hands[me];
        (hand.noted, hand.queued, hand.woken) = ([Low(0); WORDS], 0, false);
    }

    /// Whether it is neither taking nor giving.
    pub(crate) fn is_idle(&self, me: usize) -> bool {
        self.hands[me].stage == Stage::Rest
    }

    pub(crate) fn is_woken(&self, me: usize) -> bool {
        self.hands[me].woken
    }

    /// FUTEX_WAKE of one: everybody it may reach, or nobody; whether that one slept, if there was one.
    pub(super) fn wake_one(&self, word: usize, mut found: impl FnMut(Self, Option<bool>)) {
        let mut nobody = true;
        for sleeper in 0..MOST {
            if self.hands[sleeper].queued & 1 << word != 0 {
                nobody = false;
                let mut next = *self;
                let hand = &mut next.hands[sleeper];
                hand.queued &= !(1 << word);
                let slept = !std::mem::replace(&mut hand.woken, true);
                found(next, Some(slept));
            }
        }
        if nobody {
            found(*self, None);
        }
    }

    /// FUTEX_WAKE of all who sleep on the word that is no lock; whether there were any.
    pub(crate) fn wake_all_others(&mut self) -> Kind {
        let mut kind = Kind::Own;
        for hand in self.hands.iter_mut().filter(|hand| hand.queued & OTHER != 0) {
            if !hand.woken {
                kind = Kind::Wakes;
            }
            (hand.queued, hand.woken) = (hand.queued & !OTHER, true);
        }
        kind
    }

    /// Killed: out of all queues, the kernel has its list.
    pub(crate) fn kill(&mut self, me: usize) {
        self.wake_up(me);
        let hand = &mut self.hands[me];
        (hand.stage, hand.fresh, hand.died, hand.looked) = (Stage::Dying, false, false, 0);
    }

    /// The kernel for a dead one, one word at a time; [`Come::Done`] when nothing is left.
    pub(crate) fn die_step(&self, me: usize, mut found: impl FnMut(Next)) {
        let hand = self.hands[me];
        if hand.stage == Stage::DyingWakes {
            // See `after_leaving`.
            let word = usize::from(hand.noted[0].0);
            self.wake_one(word, |mut next, woke| {
                let hand = &mut next.hands[me];
                (hand.stage, hand.noted[0]) = (Stage::Dying, Low(0));
                found((next, "kernel wakes", kind(woke), Come::On));
            });
            return;
        }
        let pending = usize::from(hand.pending);
        let mut listed = false;
        for word in (0..WORDS).filter(|word| hand.linked & 1 << word != 0 && word + 1 != pending) {
            listed = true;
            let mut next = *self;
            next.hands[me].linked &= !(1 << word);
            let wakes = next.leave(me, word);
            next.after_leaving(me, word, wakes);
            found((next, "kernel: list", Kind::Own, Come::On));
        }
        if listed {
            return;
        }
        let mut next = *self;
        (next.hands[me].linked, next.hands[me].pending) = (0, 0);
        let Some(word) = pending.checked_sub(1) else {
            next.hands[me] = Hand { stage: Stage::Dead, ..Hand::EMPTY };
            found((next, "kernel: gone", Kind::Own, Come::Done(false)));
            return;
        };
        let wakes = next.leave(me, word) || self.words[word].owner() == 0;
        next.after_leaving(me, word, wakes);
        found((next, "kernel: pending", Kind::Own, Come::On));
    }

    /// What the kernel does to a word of a dead one; whether it wakes.
    fn leave(&mut self, me: usize, word: usize) -> bool {
        let low = self.words[word];
        if low.owner() != tid(me) {
            return false;
        }
        self.words[word] = Low(Low::OD | low.0 & Low::W);
        low.has(Low::W)
    }

    fn after_leaving(&mut self, me: usize, word: usize, wakes: bool) {
        if wakes {
            // A dead one has nothing noted: the place is free for the word to be woken.
            self.hands[me].stage = Stage::DyingWakes;
            self.hands[me].noted[0] = Low(u8::try_from(word).unwrap_or(0));
        }
    }
}

/// What kind of step a wake is.
pub(super) fn kind(woke: Option<bool>) -> Kind {
    if woke == Some(true) { Kind::Wakes } else { Kind::Own }
}
