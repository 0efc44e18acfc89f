//! One side of a two-sided object: a lock for those who do the same, and a place to sleep for those who wait for them.
//!
//! A ring has two sides: producers share one lock, consumers the other. Producers wait for consumers to make room, consumers for producers to bring data. The rule that makes
//! a killed waiter harmless is: **nobody sleeps holding a side's lock, and nobody spins holding it either.** Whoever finds nothing to do leaves, waits without anything, and enters again.
//!
//! # Words
//!
//! Each side has a [`RobustLock`]; its announce count `A` (the high half of the lock's word) is also the futex word on which the *other* role sleeps.
//! `L` is the low half, which on ring sides only the kernel ever wakes; living wakers use `A` for sleepers and the lock's bell for contenders, so that no class takes another's wake.
//!
//! # Going to sleep (`mine` is the sleeper's own side, `other` the one it waits for)
//!
//! 1. pending = `other`'s node; count itself as a sleeper of `other`; announce there (one CAS: `W` and A + 1).
//! 2. Read `L` of mine; then look again, without a lock: what was waited for may have come.
//! 3. `futex_waitv` on `L` of mine, `L` of other, `A` of other, in this order: each wake, each death on either side, ends it. The kernel compares and queues them one after the other, so a ring can fall
//!    between two; `A`, moved by every take of a word with `W`, comes last and catches it.
//! 4. After any wake, still armed: the kernel's single wake for a death may have been meant for others, so, for each lock that is free with `W`, wake a contender, and one of those who sleep on `mine`, if what they wait for
//!    is there. (The index that the kernel returns cannot tell: `A` hides an `L`.)
//! 5. Still armed, announce on `mine` ("flight"): then either my lock is free, and my death in flight rings `L` of mine, which all sleepers of my role watch, or its holder sees `W` and passes the wake on when it leaves.
//!
//! # Leaving
//!
//! The `fetch_sub` of the word is the only fence. If `W` was set: wake one contender if any sleeps; if the other role sleeps here, A + 1 (if `A` had moved since the release, do not clear) and wake one;
//! if the other side has sleepers and what my own role waits for is still there, wake one of them (the chain); clear `W` only if nobody was woken, and nobody left asleep. Pending is cleared last.
//! Who has brought nothing wakes those who sleep here only if what they wait for is there all the same: a full queue whose first place is still being filled has sleepers on both sides, and each would wake the other.
//!
//! # Why no wake is lost
//!
//! A sleeper's announce and a leaver's `fetch_sub` are read-modify-writes of the same word: in their order one comes first. If the announce does, the leaver sees `W` and wakes. If the `fetch_sub` does, the announce reads
//! from it, so the look in step 2 sees what was committed before it. This needs no store-load fence, on any machine. The count of sleepers was raised before the announce, so a leaver that sees `W` sees it.
//! The models in `models/` walk every interleaving of this protocol with kills, time-outs and spurious wakes, and show that each line is needed.
//!
//! # Brief sleeps
//!
//! The first sleep of a wait lasts at most 5 ms and watches only `A`: cheaper (0.4 us) where two processes take turns on one CPU. It is exact with nobody killed; after a kill it ends within 5 ms.
//! A leaver may skip brief sleepers (`worth_it` false; of its own role, `more(true)` false), for it knows that they look again by themselves.
#![allow(unsafe_code, reason = "a lock whose mapping the caller keeps")]

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::event_count::EventCount;
use crate::lock::{RobustLock, WaitOn};
use crate::outcome::{AcquireError, Acquired};
use crate::planted_bugs::{Bug, is_planted};
use crate::sys::{self, Woken};
use crate::thread::ThisThread;
use crate::wait_set::{BRIEF, LIVENESS_POLL, WaitSet};
use crate::word::{ONE_EPOCH, TID, WAITERS, high, low};

/// One side of a two-sided object in shared memory. All zeros is a free side on which nobody sleeps.
#[repr(C, align(64))]
pub struct Side {
    lock: RobustLock,
    /// Members of the other role that sleep here, watching everything.
    sleepers: AtomicU32,
    /// Those in their first, brief sleep. Deaths may leave both counts too high, never too low.
    brief: AtomicU32,
    /// Seven words for what the side is about, off the lock's cache line. The side never touches them.
    pub notes: [AtomicU64; 7],
}

const _: () = assert!(size_of::<Side>() == 128);

/// So many locks can be watched in one sleep, beside both sides.
const MOST_WATCHED_BESIDE: usize = WaitSet::CAPACITY - 3;

/// How to sleep on a [`Side`].
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "to be filled in by the caller")]
pub struct Sleep<'a> {
    /// For at most 5 ms, and deaf to deaths: the first sleep of a wait. Nothing below counts then.
    pub brief: bool,
    /// Until when.
    pub deadline: Deadline,
    /// Locks whose holders' deaths end the sleep, of one of those who watch them, if they were taken [watched](RobustLock::claim); of more than 125 the first.
    pub watched: [&'a [RobustLock]; 2],
    /// What to be woken by instead of the side: for a third role, that must not take the wakes of the others.
    pub bell: Option<&'a EventCount>,
}

impl Sleep<'_> {
    /// Watching both sides and nothing else.
    pub const fn new(brief: bool, deadline: Deadline) -> Self {
        Self { brief, deadline, watched: [&[], &[]], bell: None }
    }
}

impl Side {
    /// A free side.
    pub const fn new() -> Self {
        Self {
            lock: RobustLock::new(),
            sleepers: AtomicU32::new(0),
            brief: AtomicU32::new(0),
            notes: [const { AtomicU64::new(0) }; 7],
        }
    }

    /// Takes this side's lock.
    ///
    /// # Errors
    ///
    /// [`AcquireError`].
    ///
    /// # Safety
    ///
    /// - The side stays mapped at this address until this thread has [left](Self::leave) it.
    #[inline(always)]
    pub unsafe fn enter(&self, deadline: Deadline) -> Result<Acquired, AcquireError> {
        self.lock.acquire_as(ThisThread::current()?, deadline, WaitOn::WaiterWord)
    }

    /// Gives this side's lock back. `other` is the opposite side; `more` tells, without a lock, whether what this role waits for is still there (for one of those who sleep, and, with true, for one who
    /// sleeps only briefly, and need not be woken); `worth_it` tells whether those who sleep briefly on this side should be woken.
    #[inline(always)]
    pub fn leave(&self, other: &Self, more: impl FnOnce(bool) -> bool, worth_it: impl FnOnce() -> bool) -> bool {
        let Ok(me) = ThisThread::current() else { return false };
        self.lock.release_and_then(me, |after| self.settle(other, after, more, |precise| precise || worth_it()))
    }

    /// The same, having brought nothing to those who sleep on this side: one of them is woken only if there is `news`, which another may have brought and not told. Else two who wait for each other's
    /// doings would wake each other for ever.
    pub fn leave_without_progress(&self, other: &Self, more: impl FnOnce(bool) -> bool, news: impl FnOnce() -> bool) -> bool {
        let Ok(me) = ThisThread::current() else { return false };
        self.lock.release_and_then(me, |after| self.settle(other, after, more, |_| news()))
    }

    #[cold]
    #[inline(never)]
    fn settle(&self, other: &Self, mut after: u64, more: impl FnOnce(bool) -> bool, wakes: impl FnOnce(bool) -> bool) {
        if is_planted(Bug::MissingWake) {
            return;
        }
        let mut woken = 0;
        if self.lock.parked_waiters.load(SeqCst) != 0 {
            woken += sys::futex_wake(&raw const self.lock.waiter_word, 1);
        }
        // CRASH: pending still names this side: the kernel rings L, one watcher does the rest (step 4).
        let (sleepers, brief) = (self.sleepers.load(SeqCst), self.brief.load(SeqCst));
        let sleeps = sleepers != 0 || brief != 0;
        if sleeps && wakes(sleepers != 0) {
            let seen = self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
            if seen != after {
                woken += 1;
            }
            after = seen.wrapping_add(ONE_EPOCH);
            woken += sys::futex_wake(self.lock.epoch_word(), 1);
        } else if sleeps {
            woken += 1;
        }
        if other.has_waiters() && more(other.sleepers.load(SeqCst) == 0) {
            other.notify_one();
        }
        if woken == 0 {
            self.lock.clear_waiters_bit(after);
        }
    }

    /// Sleeps once, holding nothing, until `self` may have what this thread waits for; `mine` is its own side. Tells false when the deadline has passed and `ready` is still false.
    /// `ready` looks without a lock; `woken` runs after a wake-up, while our death would still be noticed: what a dead waker may have left undone (a broadcast) is done again there. `news` tells whether
    /// those who sleep on `mine` should look, who may not have been told by a dead one: as of [`leave_without_progress`](Self::leave_without_progress).
    /// After a true the caller enters its own side, and looks again.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Unsupported`] when this thread has no robust list.
    pub fn sleep(
        &self,
        mine: &Self,
        how: Sleep<'_>,
        ready: impl Fn() -> bool,
        news: impl Fn() -> bool,
        woken: impl Fn(),
    ) -> Result<bool, AcquireError> {
        let me = ThisThread::current()?;
        let Sleep { brief, deadline, .. } = how;
        let count = match how.bell {
            Some(bell) => bell.waiter_count(),
            None if brief => &self.brief,
            None => &self.sleepers,
        };
        // CRASH: armed: our death, at any point of this sleep, rings L of the side we wait for.
        me.set_pending(self.lock.node());
        count.fetch_add(1, SeqCst);
        let slice = if brief { BRIEF } else { LIVENESS_POLL };
        let awake = loop {
            if deadline.has_passed() {
                break ready();
            }
            let announced = self.announce();
            // ORDER: before the look at what we wait for: a death on my own side after this load changes the word that the kernel compares.
            let own = mine.lock.word().load(SeqCst);
            let mut words = WaitSet::new();
            self.watch(&mut words, own, announced, mine, how);
            // ORDER: the announce above acquired every release of this side that came before it.
            if ready() {
                break true;
            }
            match words.wait(deadline.within(slice)) {
                Woken::Changed => continue,
                Woken::TimedOut => {
                    // What the kernel has missed: one who died holding a lock that is watched.
                    for lock in how.watched.into_iter().flatten().filter(|_| !brief) {
                        lock.mark_dead_owner();
                    }
                    break !deadline.has_passed() || ready();
                }
                Woken::Unsupported => break true,
                Woken::Woken => {
                    // Always: the kernel tells the last word that was rung, and A, the last, hides an L.
                    self.pass_on(mine, &news);
                    woken();
                    // CRASH: still armed; from here a death is seen by whoever holds `mine`, or rings its L.
                    mine.announce();
                    break true;
                }
            }
        };
        count.fetch_sub(1, SeqCst);
        // Whoever goes on to take its own side's lock is armed until then.
        if !awake || how.bell.is_some() {
            me.clear_pending();
        }
        Ok(awake)
    }

    /// Adds what a sleep watches, as it is now.
    fn watch(&self, words: &mut WaitSet, own: u64, announced: u64, mine: &Self, how: Sleep<'_>) {
        let announce = (self.lock.epoch_word(), high(announced));
        if how.brief {
            words.push(announce);
            return;
        }
        for lock in how.watched.into_iter().flatten().take(MOST_WATCHED_BESIDE) {
            words.push((lock.futex_word(), low(lock.word().load(SeqCst))));
        }
        words.push((mine.lock.futex_word(), low(own)));
        words.push((self.lock.futex_word(), low(announced)));
        // The kernel compares and queues one word after the other. A comes last: whoever takes a lock with `W` moves its A, so a word L that was changed and
        // changed back before it was queued, with the ring lost in between, is found out by A.
        words.push(how.bell.map_or(announce, EventCount::watched));
    }

    /// Marks this side, whose lock this thread holds, so that the kernel wakes one of those who watch it if this thread dies from here on.
    pub fn set_waiters_bit(&self) {
        self.announce();
    }

    /// Wakes one of those who sleep here: something that any one of them may have has come, otherwise than by this side's lock.
    pub fn notify_one(&self) {
        // ORDER: SeqCst pairs with the sleeper's announce: its count is an older one, or the kernel finds the word changed.
        self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
        sys::futex_wake(self.lock.epoch_word(), 1);
    }

    /// If somebody may sleep here, moves the word that all of them compare last, and wakes nobody: who has noted it and does not sleep yet looks again.
    pub fn advance(&self) {
        if self.has_waiters() {
            self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
        }
    }

    /// Wakes everybody who sleeps here: something that concerns all of them has changed.
    pub fn notify_all(&self) {
        self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
        sys::futex_wake(self.lock.epoch_word(), i32::MAX);
    }

    /// Whether somebody sleeps here, as far as can be told without a lock (never falsely no).
    #[inline]
    pub fn has_waiters(&self) -> bool {
        self.sleepers.load(SeqCst) != 0 || self.brief.load(SeqCst) != 0
    }

    /// The lock of this side, to be looked at; and three [words beside it](RobustLock::guarded).
    #[inline]
    pub const fn lock(&self) -> &RobustLock {
        &self.lock
    }

    /// Sets `W` and moves `A` in one step; the new word.
    fn announce(&self) -> u64 {
        let word = self.lock.word();
        let mut seen = word.load(Relaxed);
        loop {
            let announced = (seen | WAITERS).wrapping_add(ONE_EPOCH);
            match word.compare_exchange_weak(seen, announced, SeqCst, Relaxed) {
                Ok(_) => return announced,
                Err(now) => seen = now,
            }
        }
    }

    /// If a death rang an L we may have got the only wake: what it was for, others may have to do.
    fn pass_on(&self, mine: &Self, news: impl Fn() -> bool) {
        let idle = |side: &Self| {
            let word = side.lock.word().load(SeqCst);
            word & TID == 0 && word & WAITERS != 0
        };
        if idle(self) && self.lock.parked_waiters.load(SeqCst) != 0 {
            sys::futex_wake(&raw const self.lock.waiter_word, 1);
        }
        if idle(mine) {
            if mine.lock.parked_waiters.load(SeqCst) != 0 {
                sys::futex_wake(&raw const mine.lock.waiter_word, 1);
            }
            if mine.has_waiters() && news() {
                mine.notify_one();
            }
        }
    }
}

impl Default for Side {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side")
            .field("lock", &self.lock)
            .field("sleepers", &self.sleepers.load(Relaxed))
            .field("brief", &self.brief.load(Relaxed))
            .finish()
    }
}
