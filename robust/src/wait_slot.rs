//! [`WaitSlot`]: a place where one thread waits to be called, and whose death there everybody else hears; [`Watch`]: to sleep on one's own seat and hear all that.
//!
//! A seat is a [`RobustLock`] that its waiter holds while it waits, so that the kernel marks it when the waiter dies. Two of the words beside the lock are the seat's:
//!
//! | word | means |
//! |---|---|
//! | `beside[0]` | the ticket of who waits; 0: nobody |
//! | `beside[1]` | low half: 1 while its waiter may sleep; high half: how often it was called, the futex word of that sleep |
//!
//! | owner word | ticket | the seat is |
//! |---|---|---|
//! | free | 0 | free |
//! | held | 0 | about to be taken, or about to be left |
//! | held | not 0 | taken by a living waiter |
//! | free | not 0 | its waiter has died in it (or abandoned it), and nobody has noticed yet |
//!
//! Living waiters clear the ticket first and give the lock back then, so the last line has no other meaning, if the owner word is read before the ticket; or they [abandon](WaitSlot::abandon) the seat, to be taken for dead.
//!
//! # Who hears a death
//!
//! The owner word of a seat always has `W` while it is held, and nobody alive ever wakes there. Whoever sleeps in another seat watches it. So a death wakes one of those who sleep, and that
//! one, before anything else, looks for deaths. Should it die on the way, its own seat wakes the next. What changes between the look and the sleep, the kernel finds when it compares.
//! Who still [parks briefly](WaitSlot::park_briefly) hears nothing of it, and looks for deaths within 5 ms.
#![allow(unsafe_code, reason = "a lock whose mapping the caller keeps, and a pointer to one half of a word")]

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::lock::RobustLock;
use crate::outcome::AcquireError;
use crate::sys::{self, Woken};
use crate::wait_set::{BRIEF, LIVENESS_POLL, WaitSet};
use crate::word::{OWNER_DIED, TID, high, low};

/// A robust lock, used as a place to wait in. All zeros is a free seat.
///
/// ```
/// use multiproc_robust::{RobustLock, WaitSlot};
///
/// let lock = Box::new(RobustLock::new()); // in earnest: inside an object in shared memory
/// let seat = WaitSlot(&lock);
/// // SAFETY: the box outlives the time in the seat.
/// assert!(unsafe { seat.occupy(7) }?);
/// assert_eq!(seat.occupant(), Some(7));
/// seat.vacate();
/// assert!(seat.is_free());
/// # Ok::<(), multiproc_robust::AcquireError>(())
/// ```
#[derive(Clone, Copy)]
pub struct WaitSlot<'a>(pub &'a RobustLock);

impl WaitSlot<'_> {
    const CALL: u64 = 1 << 32;
    const ASLEEP: u64 = 1;

    /// Takes the seat with a ticket that is not 0; false when it is not free.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: this thread holds too many locks.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until this thread has [left](Self::vacate) it.
    /// - Only one thread at a time sits down anywhere in the object.
    pub unsafe fn occupy(self, ticket: u64) -> Result<bool, AcquireError> {
        if !self.is_free() {
            return Ok(false);
        }
        // SAFETY: the caller's promise. (Who died in it was noticed before: there is no ticket.)
        if unsafe { self.0.claim() }?.is_none() {
            return Ok(false);
        }
        self.calls().store(0, SeqCst);
        // CRASH: before this store nobody had come; after it, one has died waiting.
        self.tickets().store(ticket, SeqCst);
        Ok(true)
    }

    /// Forgets the ticket, and gives the seat back without waking anybody.
    pub fn vacate(self) {
        // CRASH: after this store it has been left.
        self.0.release_claim(|| self.tickets().store(0, SeqCst), || ());
    }

    /// Gives the seat back with the ticket in it, as if its waiter had died: whoever looks for deaths finds it, but nobody is woken for it.
    pub fn abandon(self) {
        self.0.release_claim(|| (), || ());
    }

    /// The ticket of the living waiter in it.
    pub fn occupant(self) -> Option<u64> {
        let held = self.word() & TID != 0;
        let ticket = self.tickets().load(SeqCst);
        (held && ticket != 0).then_some(ticket)
    }

    /// The ticket of the waiter that has died in it.
    pub fn dead_occupant(self) -> Option<u64> {
        // ORDER: the owner word first: a living waiter clears the ticket before the word.
        let free = self.word() & TID == 0;
        let ticket = self.tickets().load(SeqCst);
        (free && ticket != 0).then_some(ticket)
    }

    /// Whether nobody has it.
    pub fn is_free(self) -> bool {
        self.word() & TID == 0 && self.tickets().load(SeqCst) == 0
    }

    /// Forgets a waiter that has died in it.
    pub fn clear(self) {
        self.tickets().store(0, SeqCst);
    }

    /// A first, brief sleep (at most 5 ms) of who has this seat, unless `ready`: ended by a call, and deaf to deaths. It costs a third of a [`Watch`], and most waits are no longer.
    pub fn park_briefly(self, deadline: Deadline, ready: impl FnOnce() -> bool) {
        let call = high(self.calls().fetch_or(Self::ASLEEP, SeqCst));
        // ORDER: a call after the read-modify-write above finds that we may sleep, and changes the word that the kernel compares.
        if !ready() {
            sys::futex_wait(self.call_word(), call, deadline.within(BRIEF));
        }
    }

    /// Wakes its waiter.
    pub fn notify(self) {
        // ORDER: a read-modify-write, as is the sleeper's: either it sees this call, or this sees that it may sleep.
        if self.calls().fetch_add(Self::CALL, SeqCst) & Self::ASLEEP != 0 {
            sys::futex_wake(self.call_word(), 1);
        }
    }

    fn tickets(&self) -> &AtomicU64 {
        &self.0.guarded[0]
    }

    fn calls(&self) -> &AtomicU64 {
        &self.0.guarded[1]
    }

    fn call_word(&self) -> *const AtomicU32 {
        self.calls().as_ptr().cast::<AtomicU32>().cast_const().wrapping_add(1)
    }

    fn word(&self) -> u64 {
        self.0.word().load(SeqCst)
    }
}

impl fmt::Debug for WaitSlot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSlot").field("lock", self.0).field("ticket", &self.tickets().load(Relaxed)).finish()
    }
}

/// What one sleep watches: the calls of one's own slot, and the deaths of those who hold some locks. First note everything, then look whether there is a reason not to sleep, then sleep.
#[derive(Debug)]
pub struct Watch(WaitSet);

impl Watch {
    /// To be called in this slot, which this thread holds.
    pub fn of(slot: WaitSlot<'_>) -> Self {
        let call = high(slot.calls().fetch_or(WaitSlot::ASLEEP, SeqCst));
        let mut words = WaitSet::new();
        words.push_main((slot.call_word(), call));
        Self(words)
    }

    /// Notes a lock, and tells whether its owner has died and nobody has taken it since. As many as fit into a [`WaitSet`] are watched.
    pub fn lock(&mut self, lock: &RobustLock) -> bool {
        let word = low(lock.word().load(SeqCst));
        self.0.push((lock.futex_word(), word));
        u64::from(word) & OWNER_DIED != 0
    }

    /// Sleeps until called, or one of the locks has another owner or a dead one, or for a second; true when nothing of this happened: then look for deaths that the kernel has missed.
    /// May wake for nothing.
    pub fn sleep(&self, deadline: Deadline) -> bool {
        self.0.wait(deadline.within(LIVENESS_POLL)) == Woken::TimedOut
    }
}
