//! Permits: several robust locks of which any will do, and how to wait for one of them.
//!
//! Each permit is a [`RobustLock`]: the kernel gives it back when its holder dies. Whoever finds one free takes it. Whoever finds none goes through the *gate*, one more robust lock:
//! only the one in the gate sleeps on the permits, on all at once (`futex_waitv`); the others sleep at the gate, as at any lock.
//!
//! # Why no wake is lost
//!
//! The one in the gate marks every held permit with `W`, then sleeps while each word is what it was when marked: a release or a death before that changes the word, one after that finds `W` and wakes.
//! Only one thread ever sleeps on a permit's word, so a wake cannot go to the wrong one. That thread takes what is free, which may be another permit, and leaves the gate; the next one in the gate looks at
//! all permits before it sleeps. So a permit that is free while somebody sleeps is found by whoever is in the gate, or by who comes next. (`models/src/semaphore.rs`.)
//!
//! # What a death leaves
//!
//! A holder: its permits are free, marked `OWNER_DIED`. One in the gate, asleep, or woken and not there yet: the gate goes to the next, which looks at all permits. One that has gathered some of many: all of
//! them are free. What the kernel misses, the one in the gate finds by its look at the holders, once a second. One in the gate that is *stopped* keeps the gate; those behind it look for a permit once a second.
//!
//! # Why gatherers of many do not deadlock
//!
//! Who wants several gathers them in the gate, hence alone. Nobody else waits while it keeps some, so those that are missing are held by threads that wait for nothing here, or that held them before they came.
#![allow(unsafe_code, reason = "locks whose mapping the caller keeps")]

use crate::deadline::Deadline;
use crate::lock::{RobustLock, WaitOn};
use crate::outcome::{AcquireError, Acquired};
use crate::planted_bugs::{Bug, is_planted};
use crate::sys::Woken;
use crate::thread::ThisThread;
use crate::wait_set::{LIVENESS_POLL, WaitSet};

/// How many permits there can be: as many words as the kernel watches at a time, less one.
pub const MAX_PERMITS: usize = WaitSet::CAPACITY - 1;

/// Locks of which any will do, and the gate in which one waits for them. A view, to be made for each call.
#[derive(Clone, Copy, Debug)]
pub struct Permits<'a> {
    gate: &'a RobustLock,
    permits: &'a [RobustLock],
}

/// A permit that was taken: its place, and how it came.
pub type Taken = (usize, Acquired);

impl<'a> Permits<'a> {
    /// These permits behind this gate; of more than [`MAX_PERMITS`] the first.
    #[inline]
    pub fn new(gate: &'a RobustLock, permits: &'a [RobustLock]) -> Self {
        Self { gate, permits: permits.get(..MAX_PERMITS).unwrap_or(permits) }
    }

    /// Takes one.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; nothing is taken then. [`AlreadyHeld`](AcquireError::AlreadyHeld): this thread holds all of them.
    ///
    /// # Safety
    ///
    /// - Gate and permits stay mapped at their addresses until this thread has [released](RobustLock::release) what it took.
    #[inline(always)]
    pub unsafe fn take(&self, deadline: Deadline) -> Result<Taken, AcquireError> {
        let me = ThisThread::current()?;
        match self.take_free(me)? {
            Some(taken) => Ok(taken),
            None => self.wait_for_one(me, deadline),
        }
    }

    /// Takes so many, or none.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take); [`TooMany`](AcquireError::TooMany): there are not so many.
    ///
    /// # Safety
    ///
    /// As for [`take`](Self::take).
    pub unsafe fn take_many(&self, count: usize, deadline: Deadline) -> Result<Vec<Taken>, AcquireError> {
        if count > self.permits.len() {
            return Err(AcquireError::TooMany);
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        self.gather(ThisThread::current()?, count, deadline)
    }

    /// How many wait now: whoever is in the gate, and who sleeps before it.
    pub fn waiters(&self) -> usize {
        usize::from(self.gate.is_held()) + self.gate.waiters()
    }

    /// Takes the first that is free. Each thread begins at a place of its own.
    #[inline(always)]
    fn take_free(&self, me: ThisThread) -> Result<Option<Taken>, AcquireError> {
        let first = if self.permits.len() == 1 { 0 } else { spread_of(me, self.permits.len()) };
        if let Some(permit) = self.permits.get(first)
            && let Some(how) = permit.try_acquire_free(me)
        {
            return Ok(Some((first, how)));
        }
        self.take_another(me, first)
    }

    #[cold]
    #[inline(never)]
    fn take_another(&self, me: ThisThread, first: usize) -> Result<Option<Taken>, AcquireError> {
        let (before, after) = self.permits.split_at(first);
        for (at, permit) in after.iter().chain(before).enumerate() {
            if permit.is_held() {
                continue;
            }
            match permit.acquire_as(me, Deadline::NOW, WaitOn::OwnerWord) {
                Ok(how) => return Ok(Some(((first + at) % self.permits.len(), how))),
                // Somebody was faster.
                Err(AcquireError::TimedOut | AcquireError::AlreadyHeld) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    #[cold]
    #[inline(never)]
    fn wait_for_one(&self, me: ThisThread, deadline: Deadline) -> Result<Taken, AcquireError> {
        if deadline == Deadline::NOW {
            // Whoever polls never sleeps, and must look at the holders now and then.
            if me.fails_again(self.gate.node(), 0) && self.bury_the_dead() {
                return self.take_free(me)?.ok_or(AcquireError::TimedOut);
            }
            return Err(AcquireError::TimedOut);
        }
        self.gather(me, 1, deadline)?.pop().ok_or(AcquireError::TimedOut)
    }

    /// Through the gate, and all of them in it.
    fn gather(&self, me: ThisThread, count: usize, deadline: Deadline) -> Result<Vec<Taken>, AcquireError> {
        let mine = self.permits.iter().filter(|permit| permit.is_owned_by(me)).count();
        if deadline != Deadline::NOW && mine + count > self.permits.len() {
            return Err(AcquireError::AlreadyHeld);
        }
        let mut taken = Vec::with_capacity(count);
        if !self.enter(me, count, deadline, &mut taken)? {
            return Ok(taken);
        }
        let result = self.fill(me, count, deadline, &mut taken);
        if result.is_err() {
            for (at, _) in taken.drain(..) {
                self.permits[at].release();
            }
        }
        // CRASH: here with permits and the gate: all of them are given back. After it: as a holder.
        self.gate.release();
        result.map(|()| taken)
    }

    /// Takes the gate; false when it was not needed any more, since a single permit was found.
    fn enter(&self, me: ThisThread, count: usize, deadline: Deadline, taken: &mut Vec<Taken>) -> Result<bool, AcquireError> {
        loop {
            match self.gate.acquire_as(me, deadline.within(LIVENESS_POLL), WaitOn::OwnerWord) {
                // Whoever died there has left nothing that matters: permits are looked at afresh.
                Ok(_) => return Ok(true),
                Err(AcquireError::TimedOut) if !deadline.has_passed() => {}
                Err(error) => return Err(error),
            }
            // Whoever is in the gate may be stopped.
            if count == 1
                && !is_planted(Bug::MutexWithoutLook)
                && let Some(one) = self.take_free(me)?
            {
                taken.push(one);
                return Ok(false);
            }
        }
    }

    /// Takes what is free, and sleeps while that is not enough. Only with the gate.
    fn fill(&self, me: ThisThread, count: usize, deadline: Deadline, taken: &mut Vec<Taken>) -> Result<(), AcquireError> {
        let mut pauses = 2_u32;
        loop {
            while taken.len() < count {
                match self.take_free(me)? {
                    Some(one) => taken.push(one),
                    None => break,
                }
            }
            if taken.len() == count {
                return Ok(());
            }
            if deadline.has_passed() {
                return Err(AcquireError::TimedOut);
            }
            if pauses <= LONGEST_PAUSE {
                (0..pauses).for_each(|_| std::hint::spin_loop());
                pauses *= 2;
            } else if self.doze(me, deadline)? == Woken::TimedOut && !is_planted(Bug::PermitsWithoutLivenessPoll) {
                self.bury_the_dead();
            }
        }
    }

    /// Sleeps once on all that others hold.
    fn doze(&self, me: ThisThread, deadline: Deadline) -> Result<Woken, AcquireError> {
        let mut words = WaitSet::new();
        for permit in self.permits.iter().filter(|permit| !permit.is_owned_by(me)) {
            let Some(marked) = permit.register_waiter() else { return Ok(Woken::Changed) };
            words.push((permit.futex_word(), marked));
        }
        if words.is_empty() {
            // Not so when we came; a peer has scribbled.
            return Err(AcquireError::AlreadyHeld);
        }
        // ORDER: each mark above pairs with the release's fetch_sub: either that sees `W`, or the kernel finds another word.
        Ok(words.wait(deadline.within(LIVENESS_POLL)))
    }

    /// Frees what is held by threads that have ended, which the kernel has missed; true if there was any.
    #[cold]
    fn bury_the_dead(&self) -> bool {
        self.permits.iter().filter(|permit| permit.is_held() && permit.mark_dead_owner()).count() != 0
    }
}

/// As in the lock itself.
const LONGEST_PAUSE: u32 = 256;

/// Where among so many this thread begins to look: other threads begin elsewhere. 0 of none.
#[inline]
pub fn spread(count: usize) -> usize {
    if count <= 1 { 0 } else { ThisThread::current().map_or(0, |me| spread_of(me, count)) }
}

#[inline(always)]
fn spread_of(me: ThisThread, count: usize) -> usize {
    let hashed = (me.tid() & 0xffff_ffff).wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
    usize::try_from((hashed * count as u64) >> 32).unwrap_or(0)
}
