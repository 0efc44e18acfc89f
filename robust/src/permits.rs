//! [`Permits`]: several robust locks of which a thread takes any, and how it waits for one of them.
//!
//! Each permit is a [`RobustLock`], so the kernel releases it when its holder dies. A thread that finds a
//! free permit takes it. A thread that finds none takes the *entry lock*, one more robust lock. Only the
//! holder of the entry lock sleeps on the permits, on all of them at once (`futex_waitv`). The other threads
//! sleep on the entry lock, as on any lock.
//!
//! # Why no wake-up is lost
//!
//! The holder of the entry lock sets `W` on every held permit, then sleeps while each word is what it was
//! then. A release or a death before that changes the word; after that, it finds `W` and wakes. Only one
//! thread ever sleeps on a permit's word, so a wake-up cannot go to the wrong thread. That thread takes a
//! free permit, which may be another one, and releases the entry lock. The next holder of the entry lock
//! looks at all permits before it sleeps. So if a permit is free while a thread sleeps, the holder of the
//! entry lock finds it, or the next holder does. (`models/src/semaphore.rs`.)
//!
//! # What a death leaves
//!
//! - **A holder of permits**: its permits are free, marked `OWNER_DIED`.
//! - **The holder of the entry lock**, asleep, or woken and not yet at a permit: the entry lock goes to the
//!   next thread, which looks at all permits.
//! - **A thread that has gathered some of many permits**: all of them are free.
//!
//! The holder of the entry lock finds what the kernel missed, by a liveness poll once a second. If the holder
//! of the entry lock is *stopped*, it keeps that lock; the threads that wait for it look for a free permit
//! once a second.
//!
//! # Why threads that take several permits do not deadlock
//!
//! A thread that wants several permits gathers them while it holds the entry lock, hence alone. No other
//! thread gathers while it keeps some. So the missing permits are held by threads that wait for nothing here,
//! or that held them before they came.
#![allow(unsafe_code, reason = "locks whose mapping the caller keeps")]

use crate::deadline::Deadline;
use crate::lock::{RobustLock, WaitOn};
use crate::outcome::{AcquireError, Acquired};
use crate::planted_bugs::{Bug, is_planted};
use crate::spin::LONGEST_PAUSE;
use crate::sys::Woken;
use crate::thread::ThisThread;
use crate::wait_set::{LIVENESS_POLL, WaitSet};

/// The most permits that there can be: as many words as the kernel watches at a time, less one.
pub const MAX_PERMITS: usize = WaitSet::CAPACITY - 1;

/// Locks of which a thread takes any, and the entry lock under which one thread waits for them. A view, made
/// for each call.
#[derive(Clone, Copy, Debug)]
pub struct Permits<'a> {
    entry_lock: &'a RobustLock,
    permits: &'a [RobustLock],
}

/// A permit that was taken: its index, and the outcome.
pub type Taken = (usize, Acquired);

impl<'a> Permits<'a> {
    /// Returns these permits behind this entry lock. Of more than [`MAX_PERMITS`], uses the first.
    #[inline]
    pub fn new(entry_lock: &'a RobustLock, permits: &'a [RobustLock]) -> Self {
        Self { entry_lock, permits: permits.get(..MAX_PERMITS).unwrap_or(permits) }
    }

    /// Takes one permit.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; nothing is taken then. [`AlreadyHeld`](AcquireError::AlreadyHeld): this thread holds
    /// all permits.
    ///
    /// # Safety
    ///
    /// - The entry lock and the permits stay mapped at their addresses until this thread has
    ///   [released](RobustLock::release) what it took.
    #[inline(always)]
    pub unsafe fn take(&self, deadline: Deadline) -> Result<Taken, AcquireError> {
        let me = ThisThread::current()?;
        match self.take_free(me)? {
            Some(taken) => Ok(taken),
            None => self.wait_for_one(me, deadline),
        }
    }

    /// Takes `count` permits, or none.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take); [`TooMany`](AcquireError::TooMany): there are fewer permits.
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

    /// Returns how many threads wait: the holder of the entry lock, and the threads that sleep on that lock.
    pub fn waiters(&self) -> usize {
        usize::from(self.entry_lock.is_held()) + self.entry_lock.waiters()
    }

    /// Takes the first free permit. Each thread begins to look at an index of its own.
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

    /// Takes any free permit; `first` is the index that was tried already.
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
                // Another thread was faster.
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
            // A thread that polls never sleeps, and must look at the holders now and then.
            if me.fails_again(self.entry_lock.node(), 0) && self.mark_dead_owners() {
                return self.take_free(me)?.ok_or(AcquireError::TimedOut);
            }
            return Err(AcquireError::TimedOut);
        }
        self.gather(me, 1, deadline)?.pop().ok_or(AcquireError::TimedOut)
    }

    /// Takes the entry lock, and under it all `count` permits.
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
        // CRASH: killed here, with permits and the entry lock: the kernel releases all of them. Killed after
        // it: as a holder.
        self.entry_lock.release();
        result.map(|()| taken)
    }

    /// Takes the entry lock. Returns false if it is not needed any more, because the one permit was found.
    fn enter(
        &self,
        me: ThisThread,
        count: usize,
        deadline: Deadline,
        taken: &mut Vec<Taken>,
    ) -> Result<bool, AcquireError> {
        loop {
            match self.entry_lock.acquire_as(me, deadline.within(LIVENESS_POLL), WaitOn::OwnerWord) {
                // A holder that died there left nothing that matters: this thread looks at all permits.
                Ok(_) => return Ok(true),
                Err(AcquireError::TimedOut) if !deadline.has_passed() => {}
                Err(error) => return Err(error),
            }
            // The holder of the entry lock may be stopped.
            if count == 1
                && !is_planted(Bug::MutexWithoutLook)
                && let Some(one) = self.take_free(me)?
            {
                taken.push(one);
                return Ok(false);
            }
        }
    }

    /// Takes free permits, and sleeps while there are too few. Only with the entry lock held.
    fn fill(
        &self,
        me: ThisThread,
        count: usize,
        deadline: Deadline,
        taken: &mut Vec<Taken>,
    ) -> Result<(), AcquireError> {
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
            } else if self.sleep(me, deadline)? == Woken::TimedOut
                && !is_planted(Bug::PermitsWithoutLivenessPoll)
            {
                self.mark_dead_owners();
            }
        }
    }

    /// Sleeps once on all permits that other threads hold.
    fn sleep(&self, me: ThisThread, deadline: Deadline) -> Result<Woken, AcquireError> {
        let mut words = WaitSet::new();
        for permit in self.permits.iter().filter(|permit| !permit.is_owned_by(me)) {
            let Some(registered) = permit.register_waiter() else { return Ok(Woken::Changed) };
            words.push((permit.futex_word(), registered));
        }
        if words.is_empty() {
            // It was not so when this thread came: a peer overwrote a word.
            return Err(AcquireError::AlreadyHeld);
        }
        // ORDER: each registration above pairs with the fetch_sub of a release: either that sees `W`, or the
        // kernel finds another word.
        Ok(words.wait(deadline.within(LIVENESS_POLL)))
    }

    /// Marks the permits of holders whose death the kernel missed. Returns whether there were any.
    #[cold]
    fn mark_dead_owners(&self) -> bool {
        self.permits.iter().filter(|permit| permit.is_held() && permit.mark_dead_owner()).count() != 0
    }
}

/// Returns the index, among `count`, where this thread begins to look, so that threads begin at different
/// indices. 0 if `count` is 0.
#[inline]
pub fn spread(count: usize) -> usize {
    if count <= 1 { 0 } else { ThisThread::current().map_or(0, |me| spread_of(me, count)) }
}

#[inline(always)]
fn spread_of(me: ThisThread, count: usize) -> usize {
    let hashed = (me.tid() & 0xffff_ffff).wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
    usize::try_from((hashed * count as u64) >> 32).unwrap_or(0)
}
