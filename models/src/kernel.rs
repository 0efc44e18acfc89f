//! The kernel under all models: words with an owner, robust lists, futex queues, wake-ups and deaths.
//!
//! A [`State`] has `W` words with an owner and `N` processes. A [`Hand`] is the part of a process that the
//! kernel, or another process, can see: its pending entry, its robust list, its place in the futex queues,
//! and what it has read of the words. The rest of a process, and the words that have no owner, belong to the
//! model ([`Protocol`]).
//!
//! # Words and epochs
//!
//! [`Low`] is the low half of a word. The high half is the **epoch**: it advances whenever a process is about
//! to sleep, and whenever the word is taken with `W` or `OD` set. Only equality with an earlier value is ever
//! asked of an epoch. So the models keep, for each process and epoch, whether the epoch is still what the
//! process saw ([`Hand::is_fresh`]). That is the counter without its numbers. That an epoch advances 2³²
//! times between two steps of one process is not modelled.
//!
//! # Sleep
//!
//! The kernel compares and queues **one word after the other** ([`State::queue`]). A process that finds one
//! word changed leaves all queues. A wake-up that reached it meanwhile is lost with it. A process that was
//! woken through one word stays in the queues of the others until it runs, and swallows their wake-ups. Which
//! process a wake-up reaches is left open ([`State::wake_one`]).
//!
//! # Death
//!
//! See [`mod@death`]. [`mod@run`] makes a model for the checker of all this.

mod death;
mod run;

use crate::checker::Kind;
pub(crate) use run::{Of, Protocol, Run, Turn, steps};
use std::hash::{Hash, Hasher};

/// The low half of a word: TID in the low three bits, `W`, `OD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Low(pub(crate) u8);

impl Low {
    pub(crate) const TID: u8 = 7;
    pub(crate) const W: u8 = 8;
    pub(crate) const OD: u8 = 16;
    /// All names as they are.
    const NAMES: Names = [0, 1, 2, 3, 4, 5, 6, Self::TID];

    pub(crate) fn owner(self) -> u8 {
        self.0 & Self::TID
    }

    pub(crate) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub(crate) fn is_free(self) -> bool {
        self.owner() == 0
    }

    /// Free, and no process has taken it since its owner died.
    pub(crate) fn is_dead(self) -> bool {
        self.is_free() && self.has(Self::OD)
    }

    /// Free, and a process may be waiting for it.
    pub(crate) fn is_deserted(self) -> bool {
        self.is_free() && self.has(Self::W)
    }

    /// For traces.
    pub(crate) fn show(self) -> String {
        let bits =
            [(Self::OD, "OD|"), (Self::W, "W|")].map(|(bit, name)| if self.has(bit) { name } else { "" });
        format!("{}{}", bits.concat(), self.owner())
    }

    fn rename(self, names: &Names) -> Self {
        Self(self.0 & !Self::TID | names[usize::from(self.owner())])
    }
}

/// The new names of the processes in the words, by the old ones.
pub(crate) type Names = [u8; 8];

/// The name of a process in the words, and of a word as a pending entry.
pub(crate) fn tid(me: usize) -> u8 {
    u8::try_from(me + 1).unwrap_or(Low::TID)
}

/// How far a process is in an operation of [`mod@crate::robust`], or in its death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Stage {
    Rest,
    Take,
    Link,
    Unlink,
    Sub,
    Wake,
    Clear,
    Disarm,
    Dying,
    DyingWakes,
}

/// What the kernel and other processes can see of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hand<const W: usize> {
    pub(crate) stage: Stage,
    /// The pending entry (`list_op_pending`): the word plus 1.
    pending: u8,
    /// The words on the robust list.
    linked: u8,
    /// The futex queues that the process is in: the words, then the model's other futexes.
    queued: u8,
    /// The epochs that have not advanced since the process read them.
    fresh: u8,
    /// Woken since it began to queue.
    pub(crate) woken: bool,
    /// The owner of the word that it takes had died.
    pub(crate) died: bool,
    /// Of a dead process: the word through which the kernel wakes.
    wakes: u8,
    /// The words as the process has read them, where it will compare them.
    pub(crate) seen: [Low; W],
}

/// As one number: this is done for each hand of each state.
impl<const W: usize> Hash for Hand<W> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        const { assert!(W <= 5, "five words of five bits, beside 37 other bits") };
        let bytes =
            u32::from_le_bytes([self.pending << 4 | self.stage as u8, self.linked, self.queued, self.fresh]);
        let rest = self.wakes << 2 | u8::from(self.died) << 1 | u8::from(self.woken);
        let seen = self.seen.iter().fold(u64::from(rest), |all, low| all << 5 | u64::from(low.0));
        hasher.write_u64(seen << 32 | u64::from(bytes));
    }
}

impl<const W: usize> Hand<W> {
    pub(crate) const EMPTY: Self = Self {
        stage: Stage::Rest,
        pending: 0,
        linked: 0,
        queued: 0,
        fresh: 0,
        woken: false,
        died: false,
        wakes: 0,
        seen: [Low(0); W],
    };

    pub(crate) fn is_dying(&self) -> bool {
        self.stage >= Stage::Dying
    }

    pub(crate) fn is_queued(&self, futex: usize) -> bool {
        self.queued & 1 << futex != 0
    }

    pub(crate) fn is_fresh(&self, epoch: usize) -> bool {
        self.fresh & 1 << epoch != 0
    }

    pub(crate) fn set_fresh(&mut self, epoch: usize, fresh: bool) {
        self.fresh = self.fresh & !(1 << epoch) | u8::from(fresh) << epoch;
    }

    /// Enters one more queue.
    pub(crate) fn enter(&mut self, futex: usize) {
        self.queued |= 1 << futex;
    }

    /// Is in these queues, and in no other; not woken.
    pub(crate) fn requeue(&mut self, futexes: std::ops::Range<usize>) {
        (self.queued, self.woken) = (futexes.fold(0, |all, futex| all | 1 << futex), false);
    }

    /// Forgets every epoch that it has read.
    pub(crate) fn forget_epochs(&mut self) {
        self.fresh = 0;
    }

    /// For traces: the pending entry.
    pub(crate) fn show(&self) -> String {
        if self.pending == 0 { String::new() } else { format!("*{}", self.pending - 1) }
    }

    /// The same without names: for the order of interchangeable processes.
    fn key(mut self) -> Self {
        self.seen = self.seen.map(|low| Low(low.0 & !Low::TID | u8::from(!low.is_free())));
        self
    }
}

/// One state: the words, the model's own shared memory `X`, and each process, of which `P` is the model's own
/// part.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct State<X, P, const N: usize, const W: usize> {
    pub(crate) words: [Low; W],
    /// What may still happen: kills, time-outs, spurious wake-ups, and one thing of the model's own.
    pub(crate) left: [u8; 4],
    pub(crate) own: X,
    pub(crate) hands: [Hand<W>; N],
    pub(crate) processes: [P; N],
}

/// What became of the comparison of one word in `futex_waitv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    /// The process is in the queue.
    Yes,
    /// The word has changed, and a wake-up through another word has reached the process before: it has to
    /// leave the queues.
    Woken,
    /// The word has changed: the process has left all queues.
    Changed,
}

impl<X: Copy, P: Copy, const N: usize, const W: usize> State<X, P, N, W> {
    pub(crate) fn holds(&self, me: usize, word: usize) -> bool {
        self.words[word].owner() == tid(me)
    }

    pub(crate) fn is_held(&self, word: usize) -> bool {
        !self.words[word].is_free()
    }

    /// Advances an epoch: what any process has read of it is old now.
    pub(crate) fn advance(&mut self, epoch: usize) {
        for hand in &mut self.hands {
            hand.fresh &= !(1 << epoch);
        }
    }

    /// Registers a waiter: sets `W`, advances the word's epoch.
    pub(crate) fn register(&mut self, word: usize) {
        self.words[word].0 |= Low::W;
        self.advance(word);
    }

    pub(crate) fn set_pending(&mut self, me: usize, word: usize) {
        self.hands[me].pending = tid(word);
    }

    pub(crate) fn clear_pending(&mut self, me: usize) {
        self.hands[me].pending = 0;
    }

    /// Reads a word that will be compared.
    pub(crate) fn note(&mut self, me: usize, word: usize) {
        self.hands[me].seen[word] = self.words[word];
    }

    /// Takes a free word, in one step with the link and the end of its pending entry. Returns whether the
    /// owner had died.
    pub(crate) fn take(&mut self, me: usize, word: usize) -> bool {
        let died = self.swap_in(me, word);
        self.link(me, word);
        self.clear_pending(me);
        died
    }

    /// The compare-and-swap of a take: keeps `W`, drops `OD`, advances the epoch if either was set. Returns
    /// whether the owner had died.
    pub(crate) fn swap_in(&mut self, me: usize, word: usize) -> bool {
        let low = self.words[word];
        self.words[word] = Low(tid(me) | low.0 & Low::W);
        if low != Low(0) {
            self.advance(word);
        }
        low.has(Low::OD)
    }

    /// Links a word: it is on the robust list.
    pub(crate) fn link(&mut self, me: usize, word: usize) {
        self.hands[me].linked |= 1 << word;
    }

    pub(crate) fn unlink(&mut self, me: usize, word: usize) {
        self.hands[me].linked &= !(1 << word);
    }

    /// Takes a free word that other processes only watch: in one step, with `W`. Returns whether the owner
    /// had died.
    pub(crate) fn take_watched(&mut self, me: usize, word: usize) -> bool {
        let died = self.words[word].has(Low::OD);
        self.words[word] = Low(tid(me) | Low::W);
        self.link(me, word);
        self.clear_pending(me);
        died
    }

    /// Unlinks a word and releases it: keeps `W`, which it returns, and remembers the epoch. The word is the
    /// pending entry from here on.
    pub(crate) fn release(&mut self, me: usize, word: usize) -> bool {
        let waiters = self.words[word].has(Low::W);
        self.release_watched(me, word);
        self.hands[me].set_fresh(word, waiters);
        waiters
    }

    /// The same for a word that other processes only watch: its `W` is never cleared.
    pub(crate) fn release_watched(&mut self, me: usize, word: usize) {
        self.words[word] = Low(self.words[word].0 & Low::W);
        self.unlink(me, word);
        self.set_pending(me, word);
    }

    /// Leaves a mutex that is entered in one step, if the process is inside: no process sleeps for it.
    pub(crate) fn leave_mutex(&mut self, me: usize, word: usize) {
        if self.holds(me, word) {
            self.words[word] = Low(0);
            self.unlink(me, word);
        }
        self.clear_pending(me);
    }

    /// Advances the epoch of a word that was released. Returns whether the word had changed before: then `W`
    /// must stay.
    pub(crate) fn advance_released(&mut self, me: usize, word: usize) -> bool {
        let changed = !self.is_mere_w(me, word);
        self.advance(word);
        self.hands[me].set_fresh(word, true);
        changed
    }

    /// Whether a word is `W` alone, in the epoch that the process saw.
    pub(crate) fn is_mere_w(&self, me: usize, word: usize) -> bool {
        self.words[word] == Low(Low::W) && self.hands[me].is_fresh(word)
    }

    /// Clears `W` of a word that was released, if nothing has changed since and `W` need not stay; forgets
    /// the epochs.
    pub(crate) fn clear_w(&mut self, me: usize, word: usize, keep: bool) {
        if !keep && self.is_mere_w(me, word) {
            self.words[word] = Low(0);
        }
        self.hands[me].forget_epochs();
    }

    /// The kernel compares one futex, says whether it is the `same`, and queues the process.
    pub(crate) fn queue(&mut self, me: usize, futex: usize, same: bool) -> Queued {
        if same {
            let hand = &mut self.hands[me];
            hand.enter(futex);
            if let Some(seen) = hand.seen.get_mut(futex) {
                // Compared, and not needed any more.
                *seen = Low(0);
            }
            return Queued::Yes;
        }
        if self.hands[me].woken {
            return Queued::Woken;
        }
        self.forget(me);
        Queued::Changed
    }

    /// The same for a word with an owner, which must be what the process has read.
    pub(crate) fn queue_word(&mut self, me: usize, word: usize) -> Queued {
        self.queue(me, word, self.hands[me].seen[word] == self.words[word])
    }

    /// Leaves all queues, and forgets every word and epoch that the process has read.
    pub(crate) fn forget(&mut self, me: usize) {
        let hand = &mut self.hands[me];
        (hand.queued, hand.woken, hand.fresh, hand.seen) = (0, false, 0, [Low(0); W]);
    }

    /// `FUTEX_WAKE` of one process: each process that it may reach, or none. Says whether it reached one.
    pub(crate) fn wake_one(&self, futex: usize, mut found: impl FnMut(Self, bool, Kind)) {
        let mut none = true;
        for sleeper in (0..N).filter(|sleeper| self.hands[*sleeper].is_queued(futex)) {
            none = false;
            let mut state = *self;
            let kind = state.wake(sleeper, futex);
            found(state, true, kind);
        }
        if none {
            found(*self, false, Kind::Own);
        }
    }

    /// `FUTEX_WAKE` of all.
    pub(crate) fn wake_all(&mut self, futex: usize) -> Kind {
        let mut kind = Kind::Own;
        for sleeper in 0..N {
            if self.hands[sleeper].is_queued(futex) && self.wake(sleeper, futex) == Kind::Wakes {
                kind = Kind::Wakes;
            }
        }
        kind
    }

    /// Wakes a process that is in this queue. It ends a sleep only if no other wake-up has done so before.
    fn wake(&mut self, sleeper: usize, futex: usize) -> Kind {
        let hand = &mut self.hands[sleeper];
        hand.queued &= !(1 << futex);
        if std::mem::replace(&mut hand.woken, true) { Kind::Own } else { Kind::Wakes }
    }

    /// The words that a process owns, as a set.
    fn owned(&self, me: usize) -> u8 {
        (0..W).filter(|word| self.holds(me, *word)).fold(0, |all, word| all | 1 << word)
    }
}
