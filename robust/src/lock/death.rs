//! Deaths of a [`RobustLock`]'s owner: what its word says about them, and what the kernel missed.
//!
//! The kernel misses a death in rare cases; [`lock.rs`](crate::RobustLock) lists them. The functions below
//! that ask the system whether a thread has ended read `/proc`, so they belong into a liveness poll, not on a
//! fast path.
//!
//! Each of them reads the word first, then asks, then compares and swaps the whole word, epoch included. So
//! none takes the lock from a thread that took it meanwhile.

use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

use super::RobustLock;
use crate::outcome::Death;
use crate::planted_bugs::{Bug, is_planted};
use crate::thread::{self, ThisThread};
use crate::word::{ONE_EPOCH, OWNER_DIED, TID, WAITERS, low};

impl RobustLock {
    /// Returns which owner died, if no thread has taken the lock since.
    #[inline]
    pub fn death(&self) -> Option<Death> {
        // ORDER: SeqCst pairs with the kernel's `OWNER_DIED` store: what the dead owner wrote before is seen.
        let word = self.word().load(SeqCst);
        (word & TID == 0 && word & OWNER_DIED != 0).then(|| self.dead_owner())
    }

    /// Runs `read` and `deal`, and then makes the lock an ordinary free lock, if its owner died and no thread
    /// has taken it since. Returns false, with no `deal`, otherwise.
    ///
    /// `read` reads what the dead owner left. A new owner may overwrite that at any time, so the lock's word
    /// is looked at once more after it: what `deal` gets was written by the owner that died. `deal` must do
    /// all that the death asks for, since no thread finds the death afterwards. It may run in several threads
    /// at once, and again if this thread dies.
    pub fn acknowledge_death<N>(&self, read: impl FnOnce() -> N, deal: impl FnOnce(Death, N)) -> bool {
        let seen = self.word().load(SeqCst);
        if seen & TID != 0 || seen & OWNER_DIED == 0 {
            return false;
        }
        let (death, left) = (self.dead_owner(), read());
        // ORDER: SeqCst, after `read`; pairs with a new owner, which takes the word (and advances the epoch)
        // before it writes anything else. The same word twice: no thread has written in between.
        if self.word().load(SeqCst) != seen {
            return false;
        }
        deal(death, left);
        // CRASH: dealt with, not acknowledged: another thread deals with it again. The epoch is part of the
        // comparison: if another thread took the lock meanwhile and died, that is another death.
        let _ =
            self.word().compare_exchange(seen, (seen & !OWNER_DIED).wrapping_add(ONE_EPOCH), SeqCst, Relaxed);
        true
    }

    /// Returns which owner has ended while it held the lock, without the kernel having marked the word. Asks
    /// the system, so call it now and then only.
    pub fn missed_death(&self) -> Option<Death> {
        let tid = low(self.word().load(SeqCst) & TID);
        (tid != 0 && thread::has_ended(tid)).then(|| self.dead_owner())
    }

    /// Marks the word of an owner whose death the kernel missed, as the kernel would have marked it. Returns
    /// whether it did. Asks the system, so call it now and then only.
    #[cold]
    pub fn mark_dead_owner(&self) -> bool {
        let seen = self.word().load(SeqCst);
        let freed = ((seen & !TID) | OWNER_DIED).wrapping_add(ONE_EPOCH);
        seen & TID != 0
            && thread::has_ended(low(seen & TID))
            && self.word().compare_exchange(seen, freed, SeqCst, Relaxed).is_ok()
    }

    /// Marks the word as the kernel marks that of a dead owner, if there is an owner. Only for a lock that no
    /// process uses, such as one in a file after a restart: its owner's thread id means nothing any more.
    pub fn mark_abandoned(&self) {
        let seen = self.word().load(Relaxed);
        if seen & TID != 0 {
            self.word().store((seen & !TID) | OWNER_DIED, SeqCst);
        }
        self.parked_waiters.store(0, SeqCst);
    }

    /// Takes the lock from an owner whose death the kernel missed. Returns whether it did.
    #[cold]
    pub(super) fn take_from_dead_owner(&self, me: ThisThread) -> bool {
        let seen = self.word().load(Relaxed);
        if seen & TID == 0 || is_planted(Bug::NoLivenessPoll) || !thread::has_ended(low(seen & TID)) {
            return false;
        }
        let next = (seen & !(TID | OWNER_DIED)).wrapping_add(ONE_EPOCH) | WAITERS | me.tid();
        // ORDER: Acquire, as in `acquire_as`.
        self.word().compare_exchange(seen, next, Acquire, Relaxed).is_ok()
    }

    /// Returns the dead owner, by the last owner that the lock names. If that thread lives, the dead one was
    /// killed before it wrote its name, and is not known.
    #[cold]
    pub(crate) fn dead_owner(&self) -> Death {
        let last = self.last_owner();
        Death::of(if thread::has_ended(low(last)) { last } else { 0 })
    }
}
