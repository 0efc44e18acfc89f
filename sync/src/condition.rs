//! [`Condition`]: a condition variable between processes.
//!
//! # State
//!
//! A mutex (the lock of a [`Side`](multiproc_robust::Side), which every operation holds for a short time) and
//! 120 [`WaitSlot`]s. A waiter holds a slot with a *ticket* in it: 1, 2, 3, … in the order of coming. One
//! word, **notified-up-to**, says which waiters have been notified: all whose ticket is not above it.
//!
//! | Slot | Ticket | The slot's waiter |
//! |---|---|---|
//! | held | above notified-up-to | waits |
//! | held | up to notified-up-to | has been notified (note 1) |
//! | free, ticket left | above notified-up-to | died waiting; is forgotten |
//! | free, ticket left | up to notified-up-to | died notified (note 2) |
//!
//! 1. It wakes, takes the user's lock again, and vacates the slot.
//! 2. One more waiter is notified in its place. Then the dead waiter is forgotten.
//!
//! # Steps
//!
//! - **wait**: takes the mutex, occupies a free slot with the next ticket, releases the mutex. Releases the
//!   user's lock; sleeps; takes the user's lock again; vacates the slot.
//! - **notify(n)**: takes the mutex. Forgets the waiters that died waiting. Counts living waiters, oldest
//!   first: `n`, and one more for each waiter that died notified. Moves notified-up-to to the last of their
//!   tickets, which is the one store that notifies them all. Wakes them.
//! - **time-out**: takes the mutex. A waiter that finds that it has been notified meanwhile was notified.
//!   Another waiter clears its ticket there, so that no notifier counts it. If the mutex's owner stands still
//!   (stopped, not dead), the waiter abandons its slot as a dead waiter does: with the ticket in it. Other
//!   waiters find that within 1 s.
//!
//! # Why exactly so many wake
//!
//! Only the owner of the mutex moves notified-up-to, and it counts only slots that it saw held, with tickets
//! above notified-up-to. If a waiter dies later, it had been counted, and its slot is found free, with a
//! ticket up to notified-up-to: one more waiter is notified in its place. A waiter that was dead before is
//! forgotten before notified-up-to passes its ticket. A waiter whose time is over looks once more, with the
//! mutex held. So a notification has one living receiver, as long as one thread waits. (If the thread that
//! passes a notification on is killed as well, after notified-up-to has moved and before the dead waiter is
//! forgotten, the notification is passed on twice. That is one wake-up too many, never one too few.)
//!
//! # Why no notification is lost
//!
//! A sleeping waiter watches its own slot's count of notifications, the mutex's owner word and the owner
//! words of the other slots, as they were before it looked at notified-up-to.
//!
//! - A notifier may be killed between the move of notified-up-to and the wake-ups. The mutex is then marked
//!   "owner died". It has `W`, which the notifier sets before the move. So the kernel wakes one thread that
//!   sleeps or waits for the mutex, and the next thread that takes the mutex wakes all waiters.
//! - A notified waiter may be killed, awake or not, also while it takes the user's lock. The kernel wakes one
//!   watcher of its slot, which takes the mutex and notifies another waiter.
//! - A thread that was woken, for whatever reason, looks for deaths before anything else. If it dies before
//!   it has done so, the kernel wakes the next watcher.
//! - Deaths that the kernel does not report are found by the liveness poll, once a second.
//!
//! The first 5 ms of a sleep watch the slot's count of notifications only. That is cheaper, and enough while
//! no process is killed.
//!
//! No thread holds the mutex for longer than a look at the slots, and no notifier ever waits for a waiter.
//! `models/src/condition.rs` walks through all this, with deaths, and shows what each line is for.
#![allow(unsafe_code, reason = "the mutex and a slot are held only while a handle is borrowed")]

mod block;
mod locked;
mod waiter;

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline, LockError, WaitSlot, this_cpu, without_spinning};
use multiproc_shm::{Shared, Suspend};
use serde::{Deserialize, Serialize};

use self::locked::{LAST_WAIT, Locked};
use self::waiter::Waiter;

pub use block::ConditionBlock;

/// A condition variable between processes (Python's `Condition`, [`std::sync::Condvar`]), found by name or
/// sent as a handle in an argument or message.
///
/// To wait takes the guard of a [`Lock`](crate::Lock), an [`RLock`](crate::RLock), a
/// [`Value`](multiproc_shm::Value) or an [`Array`](multiproc_shm::Array). It releases that lock (an `RLock`
/// with all its levels) while it waits, and takes it again before it returns. Change what is waited for under
/// that lock; then notify, with or without the lock. Waiters are notified in the order in which they came. As
/// many as [`MOST`](Self::MOST) may wait at a time.
///
/// # When a process dies
///
/// A killed waiter takes no notification with it, neither asleep nor notified and on its way back: another
/// waiter is notified in its place. A killed notifier has notified all the waiters that it meant to notify,
/// or none; and it never waits for a waiter. If an owner of the lock has died, the guard that comes back says
/// so, as for any `lock`. A stopped waiter that has been notified keeps its notification.
///
/// ```
/// use multiproc_shm::Value;
/// use multiproc_sync::Condition;
///
/// let (changed, number) = (Condition::new()?, Value::new(0_u32)?);
/// std::thread::scope(|s| {
///     s.spawn(|| {
///         number.set(7).unwrap();
///         changed.notify_all().unwrap();
///     });
///     let guard = changed.wait_while(number.lock().unwrap(), |guard| **guard == 0).unwrap();
///     assert_eq!(*guard, 7);
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With an `RLock` (Python's default):
///
/// ```
/// use multiproc_sync::{Condition, RLock};
/// use std::time::Duration;
///
/// let (changed, lock) = (Condition::new()?, RLock::new()?);
/// let outer = lock.lock()?;
/// let (inner, notified) = changed.wait_timeout(lock.lock()?, Duration::from_millis(10))?; // free meanwhile
/// assert!(!notified && lock.depth() == 2);
/// # drop((outer, inner));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Condition {
    shared: Shared<ConditionBlock>,
}

multiproc_shm::verbs! { impl[] Condition { shared: ConditionBlock }; "condition"; new() => (); }

impl Condition {
    /// How many threads may wait at a time. One more gets [`AcquireError::NoFreeSlot`].
    pub const MOST: usize = 120;

    /// Releases the guard's lock, waits until notified, as long as necessary, and takes the lock again.
    ///
    /// In rare cases it returns without a notification: look again, or use [`wait_while`](Self::wait_while).
    ///
    /// # Errors
    ///
    /// Returns [`LockError`], with the lock released, if [`MOST`](Self::MOST) threads wait or this thread
    /// holds too many locks. For an array it may also return `Err(OwnerDied)`, with the guard inside.
    pub fn wait<G: Suspend>(&self, guard: G) -> Result<G, G::Error> {
        self.wait_until(guard, Deadline::NEVER).map(|(guard, _)| guard)
    }

    /// Waits while `waiting` returns true.
    ///
    /// `waiting` is called with the lock held, for the first time before any waiting.
    ///
    /// # Errors
    ///
    /// Returns an error as [`wait`](Self::wait) does.
    pub fn wait_while<G: Suspend>(
        &self,
        mut guard: G,
        mut waiting: impl FnMut(&mut G) -> bool,
    ) -> Result<G, G::Error> {
        while waiting(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits as [`wait`](Self::wait) does, but at most `timeout`; returns false if this thread was not
    /// notified by then.
    ///
    /// The lock is taken again in either case, however long that takes.
    ///
    /// # Errors
    ///
    /// Returns an error as [`wait`](Self::wait) does.
    pub fn wait_timeout<G: Suspend>(&self, guard: G, timeout: Duration) -> Result<(G, bool), G::Error> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// Waits as [`wait_while`](Self::wait_while) does, but at most `timeout` in all; returns false if
    /// `waiting` was still true in the end.
    ///
    /// # Errors
    ///
    /// Returns an error as [`wait`](Self::wait) does.
    pub fn wait_timeout_while<G: Suspend>(
        &self,
        mut guard: G,
        timeout: Duration,
        mut waiting: impl FnMut(&mut G) -> bool,
    ) -> Result<(G, bool), G::Error> {
        let deadline = Deadline::after(timeout);
        while waiting(&mut guard) {
            if deadline.has_passed() {
                return Ok((guard, false));
            }
            guard = self.wait_until(guard, deadline)?.0;
        }
        Ok((guard, true))
    }

    /// Notifies the thread that has waited longest. Returns 1, or 0 if no thread waits.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds too many locks.
    pub fn notify_one(&self) -> Result<usize, LockError> {
        self.notify(1)
    }

    /// Notifies the `count` threads that have waited longest, or all if there are fewer. Returns how many
    /// there were.
    ///
    /// Threads that come later are not notified.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds too many locks.
    pub fn notify(&self, count: usize) -> Result<usize, LockError> {
        // ORDER: SeqCst pairs with the store of a ticket in `occupy_slot`. A waiter that released the lock
        // which this thread holds, or held, had taken its ticket before. Without the lock it may come before
        // or after this look.
        let notes = self.shared.notes();
        if count == 0 || notes.last_ticket.load(SeqCst) <= notes.notified_up_to.load(SeqCst) {
            return Ok(0);
        }
        let locked = self.lock_mutex(Deadline::NEVER).map_err(|cause| self.error(cause))?;
        notes.notifier_cpu.store(u64::from(this_cpu().wrapping_add(1)), SeqCst);
        Ok(locked.notify_oldest(count))
    }

    /// Notifies all waiting threads. Returns how many there were.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds too many locks.
    pub fn notify_all(&self) -> Result<usize, LockError> {
        self.notify(usize::MAX)
    }

    /// Returns how many threads wait now and have not been notified.
    pub fn waiters(&self) -> usize {
        let notified_up_to = self.shared.notes().notified_up_to.load(SeqCst);
        let occupants = self.shared.slots().used().iter().filter_map(|lock| WaitSlot(lock).occupant());
        occupants.filter(|ticket| *ticket > notified_up_to).count()
    }

    fn wait_until<G: Suspend>(&self, guard: G, deadline: Deadline) -> Result<(G, bool), G::Error> {
        let waiter = match self.occupy_slot(deadline) {
            Ok(waiter) => waiter,
            // The owner of the mutex stands still.
            Err(AcquireError::TimedOut) => return Ok((guard, false)),
            Err(cause) => Err(self.error(cause))?,
        };
        let held = guard.suspend()?;
        let notified = waiter.wait(deadline);
        // A waiter that was not notified has no notification to pass on. It vacates its slot before it waits
        // for the user's lock.
        let waiter = notified.then_some(waiter);
        // CRASH: notified, and not back with the lock: one more waiter is notified in this one's place.
        let guard = if self.shared.notifier_cpu() == this_cpu() {
            without_spinning(|| G::resume(held))
        } else {
            G::resume(held)
        }?;
        drop(waiter);
        Ok((guard, notified))
    }

    /// Occupies a slot. From here on notifiers count this thread.
    fn occupy_slot(&self, deadline: Deadline) -> Result<Waiter<'_>, AcquireError> {
        let locked =
            self.lock_mutex(if deadline.has_passed() { Deadline::after(LAST_WAIT) } else { deadline })?;
        // First, so that the notifications of dead waiters do not go to waiters that come later.
        locked.replace_dead_waiters();
        let last_ticket = &self.shared.notes().last_ticket;
        let ticket = last_ticket.load(SeqCst).wrapping_add(1);
        last_ticket.store(ticket, SeqCst);
        let slots = self.shared.slots();
        for (number, slot) in slots.all().iter().map(WaitSlot).enumerate() {
            if number >= slots.used().len() && slot.is_free() {
                locked.use_more_slots();
            }
            // SAFETY: the waiter borrows this handle, so the mapping outlives it; this thread holds the
            // mutex.
            if unsafe { slot.occupy(ticket) }? {
                return Ok(Waiter { condition: self, slot, ticket });
            }
        }
        Err(AcquireError::NoFreeSlot)
    }

    fn lock_mutex(&self, deadline: Deadline) -> Result<Locked<'_>, AcquireError> {
        // SAFETY: `Locked` borrows this handle, so the mapping outlives it.
        let how = unsafe { self.shared.mutex.enter(deadline) }?;
        Ok(Locked::new(&self.shared, how))
    }

    #[cold]
    fn error(&self, cause: AcquireError) -> LockError {
        LockError::new(self.shared.describe(), cause)
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("object", &self.shared).field("waiters", &self.waiters()).finish()
    }
}

#[cfg(test)]
mod tests;
