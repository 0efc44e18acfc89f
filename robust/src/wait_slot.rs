//! [`WaitSlot`]: a slot in which one thread waits to be notified. The other waiters learn of its death there.
//!
//! A slot is a [`RobustLock`] that its waiter holds while it waits (a [claim](RobustLock::claim)). So the
//! kernel marks the slot when the waiter dies. Two of the three words that the lock guards belong to the
//! slot:
//!
//! | word | content |
//! |---|---|
//! | `guarded[0]` | the waiter's ticket; 0: no waiter |
//! | `guarded[1]`, low half | 1 while the waiter may sleep |
//! | `guarded[1]`, high half | count of notifications: the futex word of the waiter's sleep |
//!
//! | owner word | ticket | the slot |
//! |---|---|---|
//! | free | 0 | is free |
//! | held | 0 | is being occupied or vacated |
//! | held | not 0 | is occupied by a living waiter |
//! | free | not 0 | has a dead waiter, not yet dealt with (note 1) |
//!
//! 1. A living waiter clears the ticket first and then releases the lock. So this state has no other meaning,
//!    if the owner word is read before the ticket. The exception is deliberate: a waiter may
//!    [abandon](WaitSlot::abandon) its slot, and is then taken for dead.
//!
//! # How a death is noticed
//!
//! The owner word of a slot has `W` while it is held, and living threads wake no thread on it. Each waiter
//! that sleeps watches the owner words of all slots (with a [`DeathWatch`](crate::DeathWatch)). So a death
//! wakes one waiter, and that waiter looks for deaths before anything else. If it dies on the way, its own
//! slot wakes the next waiter. A death between the look and the sleep changes a word that the kernel
//! compares.
//!
//! A waiter that still [parks briefly](WaitSlot::park_briefly) does not notice deaths. It looks for them
//! within 5 ms.
#![allow(unsafe_code, reason = "a lock whose mapping the caller keeps")]

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::lock::RobustLock;
use crate::outcome::AcquireError;
use crate::sys;
use crate::wait_set::{BRIEF, Watched};
use crate::word::{TID, high};

/// A robust lock in which one thread waits. All zeros is a free slot.
///
/// ```
/// use multiproc_robust::{RobustLock, WaitSlot};
///
/// let lock = Box::new(RobustLock::new()); // in earnest: inside an object in shared memory
/// let slot = WaitSlot(&lock);
/// // SAFETY: the box outlives the time in the slot.
/// assert!(unsafe { slot.occupy(7) }?);
/// assert_eq!(slot.occupant(), Some(7));
/// slot.vacate();
/// assert!(slot.is_free());
/// # Ok::<(), multiproc_robust::AcquireError>(())
/// ```
#[derive(Clone, Copy)]
pub struct WaitSlot<'a>(pub &'a RobustLock);

impl WaitSlot<'_> {
    const ONE_NOTIFICATION: u64 = 1 << 32;
    const MAY_SLEEP: u64 = 1;

    /// Occupies the slot with a ticket that is not 0. Returns false if the slot is not free.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: this thread holds too many locks.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until this thread has [vacated](Self::vacate) the slot.
    /// - Only one thread at a time occupies a slot of the object.
    pub unsafe fn occupy(self, ticket: u64) -> Result<bool, AcquireError> {
        if !self.is_free() {
            return Ok(false);
        }
        // The outcome does not matter: a death in this slot was dealt with, for there is no ticket.
        // SAFETY: the caller's promise.
        if unsafe { self.0.claim() }?.is_none() {
            return Ok(false);
        }
        self.notifications().store(0, SeqCst);
        // CRASH: before this store there was no waiter; after it, a waiter has died in the slot.
        self.ticket().store(ticket, SeqCst);
        Ok(true)
    }

    /// Clears the ticket and releases the slot. Wakes no thread.
    pub fn vacate(self) {
        // CRASH: after this store the waiter has left.
        self.0.release_claim(|| self.ticket().store(0, SeqCst), || ());
    }

    /// Releases the slot with the ticket in it, as if its waiter had died. A thread that looks for deaths
    /// finds it, but no thread is woken for it.
    pub fn abandon(self) {
        self.0.release_claim(|| (), || ());
    }

    /// Returns the ticket of the living waiter in the slot.
    pub fn occupant(self) -> Option<u64> {
        let held = self.owner_word() & TID != 0;
        let ticket = self.ticket().load(SeqCst);
        (held && ticket != 0).then_some(ticket)
    }

    /// Returns the ticket of the waiter that died in the slot.
    pub fn dead_occupant(self) -> Option<u64> {
        // ORDER: the owner word first; pairs with `vacate`, where a living waiter clears the ticket before
        // the word.
        let free = self.owner_word() & TID == 0;
        let ticket = self.ticket().load(SeqCst);
        (free && ticket != 0).then_some(ticket)
    }

    /// Returns whether the slot has no waiter, neither a living nor a dead one.
    pub fn is_free(self) -> bool {
        self.owner_word() & TID == 0 && self.ticket().load(SeqCst) == 0
    }

    /// Clears the ticket of a waiter that died in the slot.
    pub fn clear(self) {
        self.ticket().store(0, SeqCst);
    }

    /// Sleeps for at most 5 ms, unless `ready`. For the waiter in this slot, as its first sleep: a
    /// notification ends it, a death does not. It costs a third of a sleep with a
    /// [`DeathWatch`](crate::DeathWatch), and most waits are no longer.
    pub fn park_briefly(self, deadline: Deadline, ready: impl FnOnce() -> bool) {
        let (word, seen) = self.watched();
        // ORDER: the read-modify-write in `watched` pairs with that in `notify`: a later notification finds
        // that this thread may sleep, and changes the word that the kernel compares.
        if !ready() {
            sys::futex_wait(word, seen, deadline.within(BRIEF).timespec());
        }
    }

    /// Wakes the waiter in the slot.
    pub fn notify(self) {
        // ORDER: a read-modify-write, as in `watched`: either the waiter sees this notification, or this sees
        // that the waiter may sleep.
        if self.notifications().fetch_add(Self::ONE_NOTIFICATION, SeqCst) & Self::MAY_SLEEP != 0 {
            sys::futex_wake(self.notifications_word(), 1);
        }
    }

    /// Notes that the waiter may sleep from here on. Returns the word to sleep on, and what it says now.
    pub(crate) fn watched(self) -> Watched {
        (self.notifications_word(), high(self.notifications().fetch_or(Self::MAY_SLEEP, SeqCst)))
    }

    fn ticket(&self) -> &AtomicU64 {
        &self.0.guarded[0]
    }

    fn notifications(&self) -> &AtomicU64 {
        &self.0.guarded[1]
    }

    fn notifications_word(&self) -> *const AtomicU32 {
        self.notifications().as_ptr().cast::<AtomicU32>().cast_const().wrapping_add(1)
    }

    fn owner_word(&self) -> u64 {
        self.0.word().load(SeqCst)
    }
}

impl fmt::Debug for WaitSlot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSlot")
            .field("lock", self.0)
            .field("ticket", &self.ticket().load(Relaxed))
            .finish()
    }
}
