//! Several robust locks, as they are held, watched and left by the dead: what the models of semaphore, rwlock and barrier stand on.
//!
//! The lock itself is modelled in [`mod@crate::lock`]; here is the same word, of which a process may hold several and sleep on several at once. A [`Hand`] is one process's part: its pending
//! pointer, its list, its place in the kernel's queues. Each `…_step` is one shared access.
//!
//! A compare-and-swap of all 64 bits that is tried until it succeeds counts as one step. The announce count is again only the question whether it is what a releaser saw (`fresh`).
//!
//! *Sleep*: the kernel compares and queues **one word after the other**; who finds one changed leaves all queues, and a wake that it has got meanwhile is lost with it. Who was woken by one word is in the
//! queues of the others until it runs, and swallows their wakes. Which sleeper a wake reaches is left open, and so is the order in which the kernel walks a dead one's list; what is pending comes last.

mod kernel;

use crate::checker::Kind;
use kernel::kind;
use std::hash::{Hash, Hasher};

/// Most processes, and most words, in one run.
pub(crate) const MOST: usize = 4;
pub(crate) const WORDS: usize = 4;

/// The queue of a word that is no lock (the barrier's round).
pub(crate) const OTHER: u8 = 1 << 7;

/// The low half of a word: TID in the low three bits, `W`, `OD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Low(pub(crate) u8);

impl Low {
    pub(crate) const TID: u8 = 7;
    pub(crate) const W: u8 = 8;
    pub(crate) const OD: u8 = 16;

    pub(crate) fn owner(self) -> u8 {
        self.0 & Self::TID
    }

    pub(crate) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Free, and nobody has taken it since its owner died.
    pub(crate) fn is_dead(self) -> bool {
        self.owner() == 0 && self.has(Self::OD)
    }

    /// For traces.
    pub(crate) fn show(self) -> String {
        let bits = [(Self::OD, "OD|"), (Self::W, "W|")].map(|(bit, name)| if self.has(bit) { name } else { "" });
        format!("{}{}", bits.concat(), self.owner())
    }
}

impl Hash for Low {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0.into());
    }
}

/// How the words may be used wrongly.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flaws {
    /// The clear compares the low half only.
    pub(crate) clear_ignores_announce: bool,
    /// A release wakes nobody.
    pub(crate) no_wake: bool,
}

/// Where a process is in taking, giving or dying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    Dead,
}

/// What one process has to do with the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hand {
    pub(crate) stage: Stage,
    /// The pending word plus 1.
    pending: u8,
    /// The words on the list.
    linked: u8,
    /// The announce count of the pending word is what the release saw; or, while it is taken: its owner had died.
    fresh: bool,
    died: bool,
    /// What the words were, those that are to be slept on.
    noted: [Low; WORDS],
    /// The queues it is in.
    queued: u8,
    /// The word plus 1 that it has looked at, and whose count is still the same.
    looked: u8,
    /// It has been woken.
    woken: bool,
}

impl Hand {
    const EMPTY: Self = Self {
        stage: Stage::Rest,
        pending: 0,
        linked: 0,
        fresh: false,
        died: false,
        noted: [Low(0); WORDS],
        queued: 0,
        looked: 0,
        woken: false,
    };

    /// For the order of interchangeable processes: without names.
    pub(crate) fn key(&self) -> u64 {
        let mut all = [self.pending << 4 | self.stage as u8, self.linked | self.looked << 4, self.queued, 0, 0, 0, 0, 0];
        all[3] = u8::from(self.fresh) | u8::from(self.died) << 1 | u8::from(self.woken) << 2;
        for (place, noted) in all[4..].iter_mut().zip(self.noted) {
            *place = noted.0 & !Low::TID | u8::from(noted.owner() != 0);
        }
        u64::from_be_bytes(all)
    }
}

impl Hash for Hand {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let flags = u8::from(self.fresh) | u8::from(self.died) << 1 | u8::from(self.woken) << 2;
        let noted = self.noted.map(|low| low.0);
        hasher.write(&[
            self.pending << 4 | self.stage as u8,
            self.linked | self.looked << 4,
            flags,
            self.queued,
            noted[0],
            noted[1],
            noted[2],
            noted[3],
        ]);
    }
}

/// How far an operation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Come {
    /// There are more steps.
    On,
    /// To its end; of a take: whether its owner had died.
    Done(bool),
    /// It was not to be had, or has changed.
    Not,
}

/// All words, and all hands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Robust {
    pub(crate) words: [Low; WORDS],
    pub(crate) hands: [Hand; MOST],
}

impl Hash for Robust {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.words.map(|low| low.0));
        for hand in &self.hands {
            hand.hash(hasher);
        }
    }
}

/// The name of a process in the words.
pub(crate) fn tid(me: usize) -> u8 {
    u8::try_from(me + 1).unwrap_or(Low::TID)
}

/// What follows a step: who it was for is known; the words, what it was, its kind, how far it has come.
pub(crate) type Next = (Robust, &'static str, Kind, Come);

impl Robust {
    pub(crate) const START: Self = Self { words: [Low(0); WORDS], hands: [Hand::EMPTY; MOST] };

    pub(crate) fn holds(&self, me: usize, word: usize) -> bool {
        self.words[word].owner() == tid(me)
    }

    pub(crate) fn is_held(&self, word: usize) -> bool {
        self.words[word].owner() != 0
    }

    /// A+1 of this word: what a releaser saw is old now.
    fn announce(&mut self, word: usize) {
        for hand in self.hands.iter_mut().filter(|hand| usize::from(hand.pending) == word + 1) {
            hand.fresh = false;
        }
        for hand in self.hands.iter_mut().filter(|hand| usize::from(hand.looked) == word + 1) {
            hand.looked = 0;
        }
    }

    /// Loads a word that is to be changed if it is still the same.
    pub(crate) fn look_at(&mut self, me: usize, word: usize) {
        self.hands[me].looked = tid(word);
    }

    /// Forgets that its owner died, if it is still the word that was looked at.
    pub(crate) fn settle(&mut self, me: usize, word: usize) {
        if std::mem::take(&mut self.hands[me].looked) == tid(word) && self.words[word].is_dead() {
            self.announce(word);
            self.words[word].0 &= !Low::OD;
        }
    }

    /// `acquire(Deadline::NOW)`: pending, the compare-and-swap, the link.
    pub(crate) fn take_step(mut self, me: usize, word: usize) -> Next {
        let low = self.words[word];
        let hand = &mut self.hands[me];
        let (what, come) = match hand.stage {
            Stage::Take if low.owner() != 0 => {
                (hand.stage, hand.pending) = (Stage::Rest, 0);
                ("takes: too late", Come::Not)
            }
            Stage::Take => {
                (hand.stage, hand.died) = (Stage::Link, low.has(Low::OD));
                self.words[word] = Low(tid(me) | low.0 & Low::W);
                if low != Low(0) {
                    self.announce(word);
                }
                ("takes", Come::On)
            }
            Stage::Link => {
                let died = std::mem::take(&mut hand.died);
                hand.stage = Stage::Rest;
                hand.linked |= 1 << word;
                ("links", Come::Done(died))
            }
            _ => {
                (hand.stage, hand.pending) = (Stage::Take, tid(word));
                ("pending = node", Come::On)
            }
        };
        (self, what, Kind::Own, come)
    }

    /// `release`, or `vacate`, which wakes nobody.
    pub(crate) fn give_step(mut self, me: usize, word: usize, wakes: bool, flaws: Flaws, mut found: impl FnMut(Next)) {
        let low = self.words[word];
        let hand = &mut self.hands[me];
        let what = match hand.stage {
            Stage::Unlink => {
                hand.stage = Stage::Sub;
                hand.linked &= !(1 << word);
                "unlinks"
            }
            Stage::Sub => {
                let wakes = wakes && low.has(Low::W) && !flaws.no_wake;
                (hand.stage, hand.fresh) = (if wakes { Stage::Wake } else { Stage::Disarm }, wakes);
                self.words[word] = Low(low.0 & Low::W);
                "releases"
            }
            Stage::Wake => {
                self.wake_one(word, |mut next, woke| {
                    let hand = &mut next.hands[me];
                    hand.stage = if woke.is_some() { Stage::Disarm } else { Stage::Clear };
                    hand.fresh &= woke.is_none();
                    found((next, if woke.is_some() { "wakes one" } else { "wakes nobody" }, kind(woke), Come::On));
                });
                return;
            }
            Stage::Clear => {
                let same = low == Low(Low::W) && (hand.fresh || flaws.clear_ignores_announce);
                (hand.stage, hand.fresh) = (Stage::Disarm, false);
                if same {
                    self.words[word] = Low(0);
                }
                if same { "clears W" } else { "clears W: too late" }
            }
            Stage::Disarm => {
                (hand.stage, hand.pending) = (Stage::Rest, 0);
                found((self, "pending = 0", Kind::Own, Come::Done(false)));
                return;
            }
            _ => {
                (hand.stage, hand.pending) = (Stage::Unlink, tid(word));
                "pending = node"
            }
        };
        found((self, what, Kind::Own, Come::On));
    }

    /// Pending, for somebody who waits for a word or has given up waiting.
    pub(crate) fn set_pending(&mut self, me: usize, word: Option<usize>) {
        self.hands[me].pending = word.map_or(0, tid);
    }

    /// Announces that `me` is about to sleep on a word that is held; false when it is free.
    pub(crate) fn mark(&mut self, me: usize, word: usize) -> bool {
        if !self.is_held(word) {
            return false;
        }
        self.announce(word);
        self.watch(me, word);
        true
    }

    /// Sets `W`, held or free, and notes the word; the count stays.
    pub(crate) fn watch(&mut self, me: usize, word: usize) {
        self.words[word].0 |= Low::W;
        self.hands[me].noted[word] = self.words[word];
    }

    /// Notes the word as it is.
    pub(crate) fn note(&mut self, me: usize, word: usize) {
        self.hands[me].noted[word] = self.words[word];
    }

    /// Gives the processes new names, and tells them: `order[new]` is the old one. Those that have gone, and are only noted, become one.
    pub(crate) fn rename(&mut self, order: &[usize; MOST], has_gone: impl Fn(usize) -> bool) -> [u8; 8] {
        let mut names = [0_u8; 8];
        names[usize::from(Low::TID)] = Low::TID;
        for (new, &old) in order.iter().enumerate() {
            names[usize::from(tid(old))] = if has_gone(old) { Low::TID } else { tid(new) };
        }
        let old = *self;
        let renamed = |low: Low| Low(low.0 & !Low::TID | names[usize::from(low.owner())]);
        self.words = old.words.map(renamed);
        for (hand, from) in self.hands.iter_mut().zip(order) {
            *hand = old.hands[*from];
            if hand.stage != Stage::DyingWakes {
                hand.noted = hand.noted.map(renamed);
            }
        }
        names
    }

    /// What a process holds, as a number, for the order of interchangeable ones.
    pub(crate) fn held(&self, me: usize) -> u8 {
        (0..WORDS).filter(|word| self.holds(me, *word)).fold(0, |all, word| all | 1 << word)
    }
}
