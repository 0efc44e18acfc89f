//! [`WaitSet`]: sleeps on several words at once.
//!
//! # The rule
//!
//! The kernel compares and queues the words **one after the other**, in the order in which they were pushed.
//! A word that changed and changed back before the kernel came to it looks as if nothing had happened. So:
//!
//! 1. Push the word that every change moves, and that never moves back, **last**: it is compared last.
//! 2. Note all words first, then look whether there is a reason not to sleep, then wait. What happens after
//!    the look changes a word that the kernel still has to compare, or wakes this thread.
//!
//! # Where the kernel has no `futex_waitv`
//!
//! `futex_waitv` came with Linux 5.16, and a seccomp filter may forbid it. Then the wait is a slice of 5 ms
//! on one word: the last one, or that of [`push_main`](WaitSet::push_main). Every caller looks again after a
//! slice.
//!
//! For one word, [`wait`](WaitSet::wait) makes the plain futex call: a `futex_waitv` of one word costs twice
//! as much.
#![allow(unsafe_code, reason = "an array that is initialised as far as it was pushed to")]

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::sys::{self, MAX_WORDS, WaitWord, Woken};

/// A word, and what it holds while the wait should go on.
pub(crate) type Watched = (*const AtomicU32, u32);

/// The interval of the liveness poll. A sleep lasts no longer; after it, the thread looks for deaths that the
/// kernel missed.
pub(crate) const LIVENESS_POLL: Duration = Duration::from_secs(1);

/// How long the first sleep of a wait lasts at most. It watches one word and notices no deaths.
pub const BRIEF: Duration = Duration::from_millis(5);

/// How long a wait lasts where the kernel cannot watch several words.
const FALLBACK_SLICE: Duration = Duration::from_millis(5);

/// How many words one sleep can watch: the kernel's `FUTEX_WAITV_MAX`.
pub const MAX_WATCHED_WORDS: usize = MAX_WORDS;

/// Words to sleep on, each with what it holds. See the module's docs for their order.
pub(crate) struct WaitSet {
    words: [MaybeUninit<WaitWord>; MAX_WORDS],
    count: usize,
    /// The word for the fallback; the last one if nothing is said.
    main: Option<Watched>,
    last: Watched,
}

impl WaitSet {
    /// How many words fit.
    pub(crate) const CAPACITY: usize = MAX_WATCHED_WORDS;

    /// Returns a set of no words.
    #[inline]
    pub(crate) const fn new() -> Self {
        let words = [const { MaybeUninit::uninit() }; MAX_WORDS];
        Self { words, count: 0, main: None, last: (std::ptr::null(), 0) }
    }

    /// Adds a word. Returns false, with nothing done, if the set is full.
    #[inline]
    pub(crate) fn push(&mut self, watched: Watched) -> bool {
        let Some(entry) = self.words.get_mut(self.count) else { return false };
        entry.write(WaitWord::new(watched));
        self.count += 1;
        self.last = watched;
        true
    }

    /// Adds a word, and makes it the one to sleep on where the kernel cannot watch several.
    #[inline]
    pub(crate) fn push_main(&mut self, watched: Watched) -> bool {
        self.main = Some(watched);
        self.push(watched)
    }

    /// Returns how many words fit beside those that were added.
    #[inline]
    pub(crate) const fn room(&self) -> usize {
        Self::CAPACITY - self.count
    }

    /// Returns whether no word was added.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sleeps until a word changes or is woken, or until the deadline. May return for no reason.
    pub(crate) fn wait(&self, deadline: Deadline) -> Woken {
        if self.count == 1 {
            return sys::futex_wait(self.last.0, self.last.1, deadline.timespec());
        }
        // SAFETY: `push` has initialised the first `count` words.
        let words = unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.count) };
        match sys::futex_waitv(words, deadline.timespec()) {
            Woken::Unsupported => {
                let (word, value) = self.main.unwrap_or(self.last);
                sys::futex_wait(word, value, deadline.within(FALLBACK_SLICE).timespec())
            }
            woken => woken,
        }
    }
}

impl Default for WaitSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet").field("words", &self.count).finish()
    }
}
