//! [`ReadGuard`] and [`WriteGuard`]: a read-write lock, held.

use std::fmt;
use std::marker::PhantomData;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Death, RobustLock};

use super::RwLock;
use super::entry::sign;

/// An [`RwLock`], held by this thread for reading until the guard is dropped.
///
/// A guard that `fork` has copied owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct ReadGuard<'a> {
    lock: &'a RwLock,
    reader_lock: &'a RobustLock,
    died: Option<Death>,
    /// Makes the guard not `Send`: the kernel gives the reader lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl<'a> ReadGuard<'a> {
    #[inline(always)]
    pub(super) fn new(lock: &'a RwLock, reader_lock: &'a RobustLock, died: Option<Death>) -> Self {
        Self { lock, reader_lock, died, here: PhantomData }
    }
}

impl ReadGuard<'_> {
    /// Returns the death of the last writer, if it died and no writer has finished since.
    ///
    /// What the lock guards may then be half changed.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

impl Drop for ReadGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.reader_lock.release();
    }
}

impl fmt::Debug for ReadGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadGuard")
            .field("lock", &self.lock.shared)
            .field("previous_owner_died", &self.died)
            .finish()
    }
}

/// An [`RwLock`], held by this thread for writing until the guard is dropped.
///
/// A guard that `fork` has copied owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the lock is released at once"]
pub struct WriteGuard<'a> {
    lock: &'a RwLock,
    entry_lock: &'a RobustLock,
    died: Option<Death>,
    /// Makes the guard not `Send`: the kernel gives the entry lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl<'a> WriteGuard<'a> {
    #[inline(always)]
    pub(super) fn new(lock: &'a RwLock, entry_lock: &'a RobustLock, died: Option<Death>) -> Self {
        Self { lock, entry_lock, died, here: PhantomData }
    }
}

impl WriteGuard<'_> {
    /// Returns the death of the writer before, if it died and no writer has finished since.
    ///
    /// What the lock guards may then be half changed. It counts as repaired when this guard is dropped.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

impl Drop for WriteGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let entry_lock = self.entry_lock;
        if is_planted(Bug::SignatureClearedLate) {
            if entry_lock.release() {
                sign(entry_lock, 0);
            }
            return;
        }
        // CRASH: killed before the store of the 0, this thread is reported to the next threads as a dead
        // writer; after the store it had finished.
        entry_lock.release_after(|| sign(entry_lock, 0));
    }
}

impl fmt::Debug for WriteGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard")
            .field("lock", &self.lock.shared)
            .field("previous_owner_died", &self.died)
            .finish()
    }
}
