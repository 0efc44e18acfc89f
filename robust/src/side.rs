//! A two-sided object's [`Side`]: a lock for the threads that do the same, and a place to park for the
//! threads of the other side.
//!
//! A ring has two sides. All producers share the lock of one, all consumers that of the other. A consumer
//! that finds no message parks on the producers' side; a producer that finds no room parks on the consumers'
//! side.
//!
//! **No thread parks or spins while it holds a side's lock.** A thread that finds nothing to do leaves, waits
//! without any lock, and enters again. So a waiting thread that is killed or stopped delays no other thread.
//!
//! # The words of a side
//!
//! | word | a thread sleeps on it while it | woken by |
//! |---|---|---|
//! | `L`, the low half of the lock's word | watches the side for deaths | the kernel alone, at a death |
//! | `E`, the high half: the epoch | is parked here, for what this side brings | a thread that leaves this side |
//! | the lock's waiter word | waits for this side's lock | a thread that leaves this side |
//!
//! Three words, so that no kind of waiter takes the wake-up of another. `parked` and `parked_briefly` count
//! the threads on `E`. A death may leave a count too high, never too low.
//!
//! # How a thread parks
//!
//! `mine` is the thread's own side, `other` is the side that it waits for.
//!
//! 1. It names the lock of `other` as its pending entry, and adds itself to the count of `other`. Then it
//!    registers as a waiter there: one compare-and-exchange sets `W` and advances `E`.
//! 2. It reads `L` of `mine`. Then it looks, without a lock, whether what it waits for has come.
//! 3. It sleeps in `futex_waitv` on `L` of `mine`, `L` of `other` and `E` of `other`, in this order. Each
//!    wake-up and each death on either side ends the sleep. The kernel compares and queues one word after the
//!    other, so the kernel may wake a word that is not queued yet. `E` catches that: it is compared last, and
//!    each acquisition of a word with `W` advances it.
//! 4. After each wake-up, it passes on what may have been meant for another thread, with the pending entry
//!    still set. For a death the kernel wakes one thread only. So, for each of the two locks that is free
//!    with `W`, it wakes a waiter for that lock. If `mine` is such a lock, it also wakes one thread that is
//!    parked on `mine`, if there is new work for that thread. (The index that the kernel returns cannot tell
//!    which word was woken: `E` hides an `L`.)
//! 5. With the pending entry still set, it registers as a waiter on `mine`: the hand-over. If the lock of
//!    `mine` is held, its holder sees `W` and passes the wake-up on when it leaves. If the lock is free and
//!    the thread dies during the hand-over, the kernel wakes `L` of `mine`, which all parked threads of the
//!    same side watch.
//!
//! # How a thread leaves
//!
//! The `fetch_sub` that releases the word is the only fence. If `W` was set, the thread then does this, and
//! clears its pending entry last:
//!
//! 1. It wakes one waiter for the lock, if any sleeps.
//! 2. If threads are parked here, it advances `E` and wakes one of them. If `E` had advanced since the
//!    release, it does not clear `W`.
//! 3. If threads of its own side are parked on the other side, and what they wait for is still there, it
//!    wakes one of them: wake-ups form a chain.
//! 4. It clears `W`, but only if it woke no thread and left no thread parked.
//!
//! A thread that leaves without progress wakes a parked thread only if there is new work for that thread all
//! the same. A full queue whose first record is still being filled has parked threads on both sides: without
//! this rule each would wake the other, for ever.
//!
//! # Why no wake-up is lost
//!
//! A parking thread's registration and a leaving thread's `fetch_sub` are read-modify-writes of the same
//! word, so one comes first.
//!
//! - The registration comes first: the leaving thread sees `W`, and wakes. The count of parked threads was
//!   raised before the registration, so a thread that sees `W` sees the count.
//! - The `fetch_sub` comes first: the registration reads from it, so the look of step 2 sees what was
//!   committed before the release.
//!
//! This needs no store-load fence on any machine. The models in `models/` walk every interleaving of this
//! protocol with kills, time-outs and spurious wake-ups, and show that each line is needed.
//!
//! # Brief parking
//!
//! The first sleep of a wait lasts at most 5 ms and watches only `E`. That is cheaper (0.4 us) where two
//! processes take turns on one CPU. It loses nothing while no thread is killed; after a kill it ends within 5
//! ms. A leaving thread may skip threads that are parked briefly ([`SidePeer::worth_it`],
//! [`SidePeer::more`]), because they look again by themselves.
#![allow(unsafe_code, reason = "a lock whose mapping the caller keeps")]

mod waiter;

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

use waiter::NoPeer;
pub use waiter::{Park, SidePeer, Waiter};

/// One side of a two-sided object in shared memory. All zeros is a free side on which no thread is parked.
#[repr(C, align(64))]
pub struct Side {
    lock: RobustLock,
    /// How many threads of the other side are parked here and watch everything.
    parked: AtomicU32,
    /// How many are in their first, brief sleep. A death may leave either count too high, never too low.
    parked_briefly: AtomicU32,
    /// Seven words for what the side is about, off the lock's cache line. The side never touches them.
    pub notes: [AtomicU64; 7],
}

const _: () = assert!(size_of::<Side>() == 128);

/// How many locks one sleep can watch, beside the words of both sides.
const MAX_WATCHED_LOCKS: usize = WaitSet::CAPACITY - 3;

impl Side {
    /// Returns a free side.
    pub const fn new() -> Self {
        Self {
            lock: RobustLock::new(),
            parked: AtomicU32::new(0),
            parked_briefly: AtomicU32::new(0),
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

    /// Releases this side's lock after progress, and wakes the threads that can go on. `other` is the
    /// opposite side. False, and nothing done, if this thread does not hold the lock.
    #[inline(always)]
    pub fn leave(&self, other: &Self, peer: impl SidePeer) -> bool {
        let Ok(me) = ThisThread::current() else { return false };
        self.lock.release_and_then(me, |after| self.hand_over::<true>(other, after, peer))
    }

    /// Releases this side's lock without progress: wakes a parked thread only if there is [new
    /// work](SidePeer::news) for it. Otherwise threads of the two sides could wake each other for ever.
    pub fn leave_without_progress(&self, other: &Self, peer: impl SidePeer) -> bool {
        let Ok(me) = ThisThread::current() else { return false };
        self.lock.release_and_then(me, |after| self.hand_over::<false>(other, after, peer))
    }

    /// Releases the lock of a side on which no thread is ever parked, and wakes a waiter for the lock.
    pub fn leave_without_peer(&self) -> bool {
        self.leave(self, NoPeer)
    }

    #[cold]
    #[inline(never)]
    fn hand_over<const PROGRESS: bool>(&self, other: &Self, mut after: u64, peer: impl SidePeer) {
        if is_planted(Bug::MissingWake) {
            return;
        }
        let mut woken = 0;
        if self.lock.parked_waiters.load(SeqCst) != 0 {
            woken += sys::futex_wake(&raw const self.lock.waiter_word, 1);
        }
        // CRASH: the pending entry still names this side: the kernel wakes L, and the thread that watched it
        // does the rest (step 4).
        let (parked, parked_briefly) = (self.parked.load(SeqCst), self.parked_briefly.load(SeqCst));
        let is_parked_on = parked != 0 || parked_briefly != 0;
        if is_parked_on && if PROGRESS { parked != 0 || peer.worth_it() } else { peer.news() } {
            let seen = self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
            if seen != after {
                woken += 1;
            }
            after = seen.wrapping_add(ONE_EPOCH);
            woken += sys::futex_wake(self.lock.epoch_word(), 1);
        } else if is_parked_on {
            woken += 1;
        }
        if other.has_waiters() && peer.more(other.parked.load(SeqCst) == 0) {
            other.notify_one();
        }
        if woken == 0 {
            self.lock.clear_waiters_bit(after);
        }
    }

    /// Parks on this side until it may have what this thread waits for; the thread holds nothing. `mine` is
    /// its own side. Returns false if the deadline has passed and the waiter is still not ready. After true,
    /// the caller enters `mine` and looks again.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Unsupported`]: this thread has no robust list.
    pub fn park(&self, mine: &Self, how: Park<'_>, waiter: &impl Waiter) -> Result<bool, AcquireError> {
        let me = ThisThread::current()?;
        let Park { brief, deadline, .. } = how;
        let count = match how.event {
            Some(event) => event.waiter_count(),
            None if brief => &self.parked_briefly,
            None => &self.parked,
        };
        // CRASH: from here on the death of this thread, at any point of the sleep, makes the kernel wake L of
        // the side it waits for.
        me.set_pending(self.lock.node());
        count.fetch_add(1, SeqCst);
        let slice = if brief { BRIEF } else { LIVENESS_POLL };
        let awake = loop {
            if deadline.has_passed() {
                break waiter.ready();
            }
            let registered = self.register_waiter();
            // ORDER: before the look of the waiter; the partner is the kernel. A death on the thread's own
            // side after this load changes the word that the kernel compares.
            let own = mine.lock.word().load(SeqCst);
            let mut words = WaitSet::new();
            self.watch(&mut words, own, registered, mine, how);
            // ORDER: pairs with `leave`: the registration above has acquired every earlier release of this
            // side.
            if waiter.ready() {
                break true;
            }
            match words.wait(deadline.within(slice)) {
                Woken::Changed => continue,
                Woken::TimedOut => {
                    // The kernel may have missed the death of a thread that held one of the claims.
                    for lock in how.watched.into_iter().flatten().filter(|_| !brief) {
                        lock.mark_dead_owner();
                    }
                    break !deadline.has_passed() || waiter.ready();
                }
                Woken::Unsupported => break true,
                Woken::Woken => {
                    // Always: the kernel returns the last word that was woken, and E, the last, hides an L.
                    self.pass_on(mine, waiter);
                    waiter.woken();
                    // CRASH: the pending entry is still set; from here on the holder of `mine` sees a death,
                    // or the kernel wakes L of `mine`.
                    mine.register_waiter();
                    break true;
                }
            }
        };
        count.fetch_sub(1, SeqCst);
        // A thread that goes on to take the lock of its own side keeps the pending entry until then.
        if !awake || how.event.is_some() {
            me.clear_pending();
        }
        Ok(awake)
    }

    /// Adds the words that a sleep watches, as they are now.
    fn watch(&self, words: &mut WaitSet, own: u64, registered: u64, mine: &Self, how: Park<'_>) {
        let epoch = (self.lock.epoch_word(), high(registered));
        if how.brief {
            words.push(epoch);
            return;
        }
        for lock in how.watched.into_iter().flatten().take(MAX_WATCHED_LOCKS) {
            words.push((lock.futex_word(), low(lock.word().load(SeqCst))));
        }
        words.push((mine.lock.futex_word(), low(own)));
        words.push((self.lock.futex_word(), low(registered)));
        // E comes last: each acquisition of a lock with `W` advances its E. So E shows that a word L was
        // changed, and changed back, before the kernel queued it, and that the wake-up in between was lost.
        words.push(how.event.map_or(epoch, EventCount::watched));
    }

    /// Marks this side, whose lock this thread holds: from here on the death of this thread makes the kernel
    /// wake one thread that watches the side.
    pub fn set_waiters_bit(&self) {
        self.register_waiter();
    }

    /// Wakes one thread that is parked here: something for any one of them has come, though not by this
    /// side's lock.
    pub fn notify_one(&self) {
        // ORDER: SeqCst pairs with the registration of a parking thread: that came before this, or the kernel
        // finds the word changed.
        self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
        sys::futex_wake(self.lock.epoch_word(), 1);
    }

    /// Advances the epoch if a thread may be parked here, and wakes none: a thread that is about to sleep
    /// looks again.
    pub fn advance(&self) {
        if self.has_waiters() {
            self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
        }
    }

    /// Wakes all threads that are parked here: something that concerns all of them has changed.
    pub fn notify_all(&self) {
        self.lock.word().fetch_add(ONE_EPOCH, SeqCst);
        sys::futex_wake(self.lock.epoch_word(), i32::MAX);
    }

    /// Returns whether a thread may be parked here: never a wrong no.
    #[inline]
    pub fn has_waiters(&self) -> bool {
        self.parked.load(SeqCst) != 0 || self.parked_briefly.load(SeqCst) != 0
    }

    /// Returns the lock of this side, to be looked at.
    #[inline]
    pub const fn lock(&self) -> &RobustLock {
        &self.lock
    }

    /// Sets `W` and advances the epoch in one step, and returns the new word.
    fn register_waiter(&self) -> u64 {
        let word = self.lock.word();
        let mut seen = word.load(Relaxed);
        loop {
            let registered = (seen | WAITERS).wrapping_add(ONE_EPOCH);
            match word.compare_exchange_weak(seen, registered, SeqCst, Relaxed) {
                Ok(_) => return registered,
                Err(now) => seen = now,
            }
        }
    }

    /// Passes a wake-up on: if a death woke an L, this thread may have got the only wake-up, and it may have
    /// been meant for another.
    fn pass_on(&self, mine: &Self, waiter: &impl Waiter) {
        let is_free_with_waiters = |side: &Self| {
            let word = side.lock.word().load(SeqCst);
            word & TID == 0 && word & WAITERS != 0
        };
        if is_free_with_waiters(self) && self.lock.parked_waiters.load(SeqCst) != 0 {
            sys::futex_wake(&raw const self.lock.waiter_word, 1);
        }
        if is_free_with_waiters(mine) {
            if mine.lock.parked_waiters.load(SeqCst) != 0 {
                sys::futex_wake(&raw const mine.lock.waiter_word, 1);
            }
            if mine.has_waiters() && waiter.news() {
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
            .field("parked", &self.parked.load(Relaxed))
            .field("parked_briefly", &self.parked_briefly.load(Relaxed))
            .finish()
    }
}
