//! [`Condition`]: to sleep until somebody says that something has changed.
//!
//! # State
//!
//! A gate (a [`Side`], whose lock everybody takes for a moment) and 120 [`WaitSlot`]s. Whoever waits holds a seat, with a *ticket* in it: 1, 2, 3, … in the order of coming.
//! One word, the **horizon**, says who has been called: everybody whose ticket is not above it.
//!
//! | seat | ticket | its waiter |
//! |---|---|---|
//! | held | above the horizon | waits |
//! | held | up to the horizon | has been called: it wakes, takes the user's lock again, and leaves |
//! | free, ticket left | above the horizon | died waiting: forgotten |
//! | free, ticket left | up to the horizon | died with a call: one more is called in its place, then it is forgotten |
//!
//! # Steps
//!
//! - **wait**: through the gate to a free seat, with the next ticket; give the user's lock back; sleep; take the user's lock again; leave the seat.
//! - **notify(n)**: through the gate; forget who died waiting; count, oldest first, as many living waiters as there are calls and calls of the dead; move the horizon up to the last of
//!   them, which is the one store that calls them all; wake them.
//! - **time-out**: through the gate; whoever finds that it has been called meanwhile was called; the others clear their tickets there, so that nobody counts them. If somebody stands still in the gate
//!   (stopped, not dead), leave the seat as the dead do: with the ticket in it. It is found within a second.
//!
//! # Why exactly so many wake
//!
//! Only the gate's holder moves the horizon, and it counts only seats that it saw held, with tickets above it. Who dies later had been counted, and its seat is found free, with a ticket up to
//! the horizon: one is called in its place. Who was dead before is forgotten before the horizon passes it. Who times out asks at the gate. So a call has one living receiver, as long as there is one
//! that waits. (If the one who passes a call on is killed, too, after the horizon and before the dead one is forgotten, the call is passed on twice: a wake-up for nothing, never one too few.)
//!
//! # Why no call is lost
//!
//! Who sleeps watches its seat's calls, the gate's owner word and the owner words of the other seats, as they were before it looked at the horizon. Killed between the horizon and the wakes, a notifier
//! leaves the gate "owner died": with `W` set, which it does before the horizon, that wakes one of those who sleep or stand at the gate, and whoever goes through it next wakes everybody seated.
//! Killed with a call, awake or not, in the middle of taking the user's lock: its seat wakes one, which goes through the gate and calls another. Whoever was woken, for whatever reason, looks for deaths
//! before anything else, and as long as it has not its own death is heard by the next. Deaths that the kernel does not tell are looked for once a second.
//! The first 5 ms of a sleep watch the seat's calls only, which is cheaper, and enough while nobody is killed.
//!
//! Nobody holds the gate for longer than a look at the seats, and no notifier ever waits for a sleeper. `models/src/condition.rs` walks through all this, with deaths, and shows what each line is for.
#![allow(unsafe_code, reason = "promises the layout of its block; the gate and a seat are held only while a handle is borrowed")]

mod inside;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use multiproc_robust::{AcquireError, Acquired, Deadline, LockError, RobustLock, Side, WaitSlot, this_cpu, without_spinning};
use multiproc_shm::{Guarded, Object, Shared};
use serde::{Deserialize, Serialize};

use self::inside::{Inside, MOMENT, Place};
use crate::verbs::verbs;

/// A condition that processes wait for (Python's `Condition`, [`std::sync::Condvar`] between processes), by name or as a handle in an argument or message.
///
/// Waiting takes the guard of a [`Lock`](crate::Lock), an [`RLock`](crate::RLock), a [`Value`](multiproc_shm::Value) or an [`Array`](multiproc_shm::Array), gives that lock back (an `RLock` with all its levels) while it waits, and takes it again before it
/// returns. Change what is waited for under that lock; then notify, with or without it. Waiters are called in the order in which they came. As many as [`MOST`](Self::MOST) may wait at a time.
///
/// # When a process dies
///
/// A waiter that is killed takes no call with it, neither asleep nor called and on its way: another one is called in its place. A notifier that is killed has called all that it meant to, or nobody;
/// and it never waits for a waiter. What a dead owner of the lock has left, the guard says that comes back, as for any `lock`. A stopped waiter that has been called keeps its call.
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
/// let (inner, called) = changed.wait_timeout(lock.lock()?, Duration::from_millis(10))?; // others can take it meanwhile
/// assert!(!called && lock.depth() == 2);
/// # drop((outer, inner));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Condition {
    shared: Shared<ConditionBlock>,
}

/// The shared part of a [`Condition`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ConditionBlock {
    gate: Side,
    seats: [RobustLock; Condition::MOST],
}

const _: () = assert!(size_of::<ConditionBlock>() == 128 + 64 * Condition::MOST);

// SAFETY: `repr(C)`, atomics only, always the same size; the gate's lock and the seats.
unsafe impl Object for ConditionBlock {
    const KIND: &'static str = "condition";
    const LAYOUT: u32 = 1;
    type Params = ();

    fn extents((): &()) -> Result<[u64; 2], String> {
        Ok([0, 0])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        (extents == [0, 0]).then_some(size_of::<Self>())
    }

    unsafe fn init(&self, _: *const AtomicU64, (): ()) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(self.gate.lock()), None]
    }

    unsafe fn more_locks(&self, _: *const AtomicU64, _: [u64; 2]) -> &[RobustLock] {
        &self.seats
    }
}

verbs!(Condition, ConditionBlock, "condition");

impl Condition {
    /// So many threads can wait at a time; the next gets [`AcquireError::NoFreeSlot`].
    pub const MOST: usize = 120;

    /// Gives the guard's lock back, waits until notified, as long as it takes, and takes the lock again. It may, rarely, return for nothing: look again, or use [`wait_while`](Self::wait_while).
    ///
    /// # Errors
    ///
    /// [`LockError`], the lock given back: as many wait as there are places, or this thread holds too many locks. Of an array also `Err(OwnerDied)`, with the guard inside.
    pub fn wait<G: Guarded>(&self, guard: G) -> Result<G, G::Error> {
        self.wait_until(guard, Deadline::NEVER).map(|(guard, _)| guard)
    }

    /// Waits as long as `waiting` says so, which is asked with the lock held, at first before any waiting.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_while<G: Guarded>(&self, mut guard: G, mut waiting: impl FnMut(&mut G) -> bool) -> Result<G, G::Error> {
        while waiting(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait`](Self::wait), but at most this long; false when nobody had notified by then. The lock is taken again in any case, however long that takes.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout<G: Guarded>(&self, guard: G, timeout: Duration) -> Result<(G, bool), G::Error> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// As [`wait_while`](Self::wait_while), but waits at most this long in all; false when `waiting` still said so in the end.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout_while<G: Guarded>(
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

    /// Calls the one that has waited longest; how many that were: 1, or 0 when nobody waits.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread holds too many locks.
    pub fn notify_one(&self) -> Result<usize, LockError> {
        self.notify(1)
    }

    /// Calls the `count` that have waited longest, or all if there are fewer; how many that were. Whoever comes later is not meant.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread holds too many locks.
    pub fn notify(&self, count: usize) -> Result<usize, LockError> {
        // ORDER: who waits under the lock that this thread holds, or held, took its ticket before; without the lock this may be before or after.
        if count == 0 || self.tickets().load(SeqCst) <= self.horizon().load(SeqCst) {
            return Ok(0);
        }
        let inside = self.enter(Deadline::NEVER).map_err(|cause| self.error(cause))?;
        self.cpu().store(u64::from(this_cpu().wrapping_add(1)), SeqCst);
        Ok(inside.advance(count))
    }

    /// Calls all who wait; how many that were.
    ///
    /// # Errors
    ///
    /// [`LockError`]: this thread holds too many locks.
    pub fn notify_all(&self) -> Result<usize, LockError> {
        self.notify(usize::MAX)
    }

    /// How many wait now, and have not been called.
    pub fn waiters(&self) -> usize {
        let horizon = self.horizon().load(SeqCst);
        self.watched().iter().filter(|lock| WaitSlot(lock).occupant().is_some_and(|ticket| ticket > horizon)).count()
    }

    fn wait_until<G: Guarded>(&self, guard: G, deadline: Deadline) -> Result<(G, bool), G::Error> {
        let place = match self.sit(deadline) {
            Ok(place) => place,
            // Somebody stands still in the gate.
            Err(AcquireError::TimedOut) => return Ok((guard, false)),
            Err(cause) => Err(self.error(cause))?,
        };
        let held = guard.suspend()?;
        let called = place.wait(deadline);
        // Whoever was not called has nothing to pass on, and leaves before it waits for the lock.
        let place = called.then_some(place);
        // CRASH: called and not there yet: another one is called in our place.
        let guard = if self.notifier() == this_cpu() { without_spinning(|| G::resume(held)) } else { G::resume(held) }?;
        drop(place);
        Ok((guard, called))
    }

    /// Takes a place; from here on we are counted.
    fn sit(&self, deadline: Deadline) -> Result<Place<'_>, AcquireError> {
        let inside = self.enter(if deadline.has_passed() { Deadline::after(MOMENT) } else { deadline })?;
        // First, so that what the dead had to pass on is not for those who come later.
        inside.advance(0);
        let ticket = self.tickets().load(SeqCst).wrapping_add(1);
        self.tickets().store(ticket, SeqCst);
        for (number, lock) in self.shared.seats.iter().enumerate() {
            if number >= self.watched().len() && WaitSlot(lock).is_free() {
                inside.watch_more();
            }
            // SAFETY: the place borrows this handle, so the mapping outlives it; this thread is inside the gate.
            if unsafe { WaitSlot(lock).occupy(ticket) }? {
                return Ok(Place { condition: self, seat: WaitSlot(lock), ticket });
            }
        }
        Err(AcquireError::NoFreeSlot)
    }

    fn enter(&self, deadline: Deadline) -> Result<Inside<'_>, AcquireError> {
        // SAFETY: `Inside` borrows this handle, so the mapping outlives it.
        let how = unsafe { self.shared.gate.enter(deadline) }?;
        let inside = Inside { condition: self };
        if how != Acquired::Clean {
            // It may have died between the horizon and the wakes, or before all had heard that there are more seats to watch.
            inside.advance(0);
            inside.call_all();
        }
        Ok(inside)
    }

    /// Who was told that it is called, once it has looked for deaths.
    fn is_called(&self, ticket: u64) -> bool {
        ticket <= self.horizon().load(SeqCst)
    }

    /// The seats that have ever been used, and a few more: those that everybody watches who sleeps.
    fn watched(&self) -> &[RobustLock] {
        let count = usize::try_from(self.shared.gate.notes[2].load(SeqCst)).unwrap_or(usize::MAX);
        &self.shared.seats[..count.min(Self::MOST)]
    }

    /// The last ticket that was given out.
    fn tickets(&self) -> &AtomicU64 {
        &self.shared.gate.notes[0]
    }

    fn horizon(&self) -> &AtomicU64 {
        &self.shared.gate.notes[1]
    }

    /// The CPU of the last notifier, plus 1.
    fn cpu(&self) -> &AtomicU64 {
        &self.shared.gate.notes[3]
    }

    /// Where the last notifier ran. It often still has the user's lock when we are called; on our own CPU it can give that back only while we sleep.
    fn notifier(&self) -> u32 {
        u32::try_from(self.cpu().load(SeqCst)).unwrap_or(0).wrapping_sub(1)
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
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::Lock;

    #[test]
    fn a_gate_that_stays_shut_holds_up_no_time_out() -> Result<(), Box<dyn std::error::Error>> {
        let (condition, lock) = (&Condition::new()?, &Lock::new()?);
        let (shut, is_shut) = mpsc::channel();
        let (open, opened) = mpsc::channel::<()>();
        std::thread::scope(|s| {
            let sleeper = s.spawn(|| {
                let guard = lock.lock().expect("the lock");
                condition.wait_timeout(guard, Duration::from_millis(100)).expect("no error").1
            });
            while condition.waiters() == 0 {
                std::thread::yield_now();
            }
            s.spawn(move || {
                let gate = condition.enter(Deadline::NEVER).expect("the gate");
                shut.send(()).expect("somebody");
                let _ = opened.recv();
                drop(gate);
            });
            is_shut.recv().expect("the gate's holder");
            assert!(!sleeper.join().expect("no panic"), "nobody has called it");
            // Nor does it hold up one who comes.
            let (guard, called) = condition.wait_timeout(lock.lock().expect("the lock"), Duration::ZERO).expect("no error");
            drop(guard);
            assert!(!called);
            drop(open);
        });
        // Who has left so is not counted, and takes no call.
        assert_eq!(condition.waiters(), 0);
        assert_eq!(condition.notify_one()?, 0);
        std::thread::scope(|s| {
            let sleeper = s.spawn(|| condition.wait_timeout(lock.lock().expect("the lock"), Duration::MAX).expect("no error").1);
            while condition.waiters() == 0 {
                std::thread::yield_now();
            }
            assert_eq!(condition.notify_one().expect("no error"), 1);
            assert!(sleeper.join().expect("no panic"));
        });
        assert!(condition.watched().iter().all(|lock| WaitSlot(lock).is_free()));
        Ok(())
    }
}
