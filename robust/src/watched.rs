//! Locks whose holders' deaths others sleep for: taken with `W` already set, they are never contended, only watched.
//!
//! A lock that is taken *watched* says something about its holder: it lives. What it stands for (a job, a role) is claimed under another lock, so nobody ever waits to take it; but many may sleep
//! on its word, beside other words, to hear that its holder has died. Therefore:
//!
//! - `W` is set in the same step that takes it, and never cleared: the kernel wakes one of those who watch at every death.
//! - Giving it back wakes nobody. What is to be told then, the holder tells by other words, before its operation is over: until then its pending names the lock, so its death wakes one as well.
//! - Whoever is woken looks for everything that a death may have left, for it may have taken a wake that was meant for another.
#![allow(unsafe_code, reason = "a lock whose mapping the caller keeps")]

use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

use crate::lock::RobustLock;
use crate::outcome::{AcquireError, Acquired};
use crate::thread::ThisThread;
use crate::word::{ANNOUNCE, OWNER_DIED, TID, WAITERS, high};

impl RobustLock {
    /// Takes the lock if nobody holds it (`None` if somebody does), so that the kernel wakes one of those who watch its word ([`Sleep::watched`](crate::Sleep)) when its holder dies.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: this thread can hold no more, or has no robust list.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until this thread has [given it back](Self::give_watched).
    pub unsafe fn take_watched(&self) -> Result<Option<Acquired>, AcquireError> {
        let me = ThisThread::current()?;
        if me.is_full() {
            return Err(AcquireError::TooManyHeld);
        }
        self.begin_to_take(me);
        let mut seen = self.word().load(Relaxed);
        while seen & TID == 0 {
            let next = (seen & !OWNER_DIED).wrapping_add(ANNOUNCE) | WAITERS | me.tid();
            // ORDER: SeqCst, hence Acquire, pairs with the release in `give`; and with one who counts himself as a sleeper and then notes this word: what we look at next we look at after it.
            // CRASH: after it the word is ours, and pending names it.
            match self.word().compare_exchange(seen, next, SeqCst, Relaxed) {
                Ok(_) => return Ok(Some(self.taken(me, seen & OWNER_DIED != 0))),
                Err(now) => seen = now,
            }
        }
        me.end();
        Ok(None)
    }

    /// Runs `last`, gives the lock back, and runs `then`, while the death of this thread would still wake one of those who watch; false, and nothing done, when this thread does not hold it (in a
    /// forked child: what its parent holds).
    pub fn give_watched(&self, last: impl FnOnce(), then: impl FnOnce()) -> bool {
        let Ok(me) = ThisThread::current() else { return false };
        if !me.holds(self.node()) {
            return false;
        }
        last();
        // CRASH: the word has `W`, so `then` always runs, with pending on this lock: one of those who watch it is woken, and does what `then` does.
        self.give(me, |_| then())
    }

    /// Whether it is held, read in one order with what others have written: for those who look without a lock.
    pub fn is_held_now(&self) -> bool {
        self.free_since().is_none()
    }

    /// How often it was taken so far (modulo 2^32; there are other reasons to count, too), if nobody holds it; read as above. Who reads the same number twice knows that nobody has taken it meanwhile.
    pub fn free_since(&self) -> Option<u32> {
        let word = self.word().load(SeqCst);
        (word & TID == 0).then(|| high(word))
    }
}
