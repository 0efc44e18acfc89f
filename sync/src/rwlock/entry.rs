//! How readers and writers come in. The protocol is described in `rwlock.rs`.
#![allow(unsafe_code, reason = "entry lock and reader locks are held only while a handle is borrowed")]

use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst, compiler_fence, fence};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Deadline, RobustLock, spread};

use super::block::EntryWords;
use super::{ReadGuard, RwLock, WriteGuard};

impl RwLock {
    #[inline(always)]
    pub(super) fn read_until(&self, deadline: Deadline) -> Result<ReadGuard<'_>, AcquireError> {
        match self.read_at_once()? {
            Some(guard) => Ok(guard),
            None => self.read_through_entry_lock(deadline),
        }
    }

    /// Takes a reader lock that was used before, if no thread holds the entry lock.
    #[inline(always)]
    fn read_at_once(&self) -> Result<Option<ReadGuard<'_>>, AcquireError> {
        let reader_locks = self.shared.used();
        let (before, after) = reader_locks.split_at(spread(reader_locks.len()));
        let free = after.iter().chain(before).find(|lock| !lock.is_held());
        let Some(reader_lock) = free.filter(|_| !self.shared.entry_lock.is_held()) else { return Ok(None) };
        // Whether its last owner died does not matter: a dead reader has left nothing to repair.
        // SAFETY: the guard borrows this handle, so the mapping outlives the guard.
        match unsafe { reader_lock.acquire(Deadline::NOW) } {
            Ok(_) => {}
            Err(AcquireError::TimedOut | AcquireError::AlreadyHeld) => return Ok(None),
            Err(error) => return Err(error),
        }
        // CRASH: a reader lock is held, and its reader is not in: the kernel wakes the writer that waits for
        // it.
        full_fence_after_acquire();
        if self.shared.entry_lock.is_held() {
            reader_lock.release();
            return Ok(None);
        }
        // ORDER: Acquire pairs with the last writer's release of the entry lock, which the look above has
        // read. What is guarded is read after this fence, and is what that writer wrote.
        fence(Acquire);
        Ok(Some(ReadGuard::new(self, reader_lock, self.shared.dead_writer())))
    }

    #[cold]
    #[inline(never)]
    fn read_through_entry_lock(&self, deadline: Deadline) -> Result<ReadGuard<'_>, AcquireError> {
        let entry = self.take_entry_lock(deadline)?;
        let died = self.shared.dead_writer();
        let used = self.shared.used().len();
        for (number, reader_lock) in
            self.shared.reader_locks.iter().enumerate().filter(|(_, lock)| !lock.is_held())
        {
            if number >= used {
                // ORDER: Relaxed: a writer reads the word with the entry lock held, which orders it after
                // this store; for a reader it is a hint.
                // CRASH: later threads look at one reader lock more than was ever taken.
                self.shared.words().used.store(number as u64 + 1, Relaxed);
            }
            // SAFETY: the guard borrows this handle, so the mapping outlives the guard.
            match unsafe { reader_lock.acquire(Deadline::NOW) } {
                Ok(_) => {
                    drop(entry);
                    return Ok(ReadGuard::new(self, reader_lock, died));
                }
                // Another reader has it for a moment, and looks whether the entry lock is free.
                Err(AcquireError::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Err(AcquireError::NoFreeSlot)
    }

    #[inline(always)]
    pub(super) fn write_until(&self, deadline: Deadline) -> Result<WriteGuard<'_>, AcquireError> {
        // Before it waits for the entry lock: the owner of that may be waiting for this very thread.
        if self.shared.used().iter().any(RobustLock::is_held) && self.is_read_by_this_thread() {
            return Err(AcquireError::AlreadyHeld);
        }
        let entry = self.take_entry_lock(deadline)?;
        full_fence_after_acquire();
        let died = self.shared.dead_writer();
        if is_planted(Bug::SignedTooEarly) {
            sign(entry.0, entry.0.last_owner());
        }
        if let Some(reading) = self.shared.used().iter().position(RobustLock::is_held) {
            self.wait_for_readers(reading, deadline)?;
        }
        // ORDER: Acquire pairs with the readers' releases of the reader locks that were found free. What is
        // guarded is written after the readers have read it.
        fence(Acquire);
        // CRASH: if this thread dies from here on, the next threads learn of it.
        sign(entry.0, entry.0.last_owner());
        Ok(WriteGuard::new(self, entry.into_guard(), died))
    }

    #[cold]
    #[inline(never)]
    fn is_read_by_this_thread(&self) -> bool {
        self.shared.used().iter().any(RobustLock::is_held_by_this_thread)
    }

    /// Waits until each reader lock, from number `first` on, was free once. The caller holds the entry lock.
    #[cold]
    #[inline(never)]
    fn wait_for_readers(&self, first: usize, deadline: Deadline) -> Result<(), AcquireError> {
        for reader_lock in self.shared.used().iter().skip(first).filter(|lock| lock.is_held()) {
            // CRASH: killed while it waits, the writer has written nothing: the entry lock is free again.
            // SAFETY: released in the next line.
            let _ = unsafe { reader_lock.acquire(deadline) }?;
            reader_lock.release();
        }
        Ok(())
    }

    #[inline(always)]
    fn take_entry_lock(&self, deadline: Deadline) -> Result<EntryGuard<'_>, AcquireError> {
        // SAFETY: `EntryGuard` borrows this handle, so the mapping outlives it.
        let _ = unsafe { self.shared.entry_lock.acquire(deadline) }?;
        Ok(EntryGuard(&self.shared.entry_lock))
    }
}

/// Notes which thread writes; 0: none.
#[inline(always)]
pub(super) fn sign(entry_lock: &RobustLock, signature: u64) {
    // ORDER: Relaxed: a thread that reads the signature comes in after this one, by the entry lock's release
    // or by the kernel's store at a death. The fences keep what is guarded on its side of the signature: a
    // process is killed between two instructions, so only the compiler must keep the order.
    compiler_fence(SeqCst);
    entry_lock.guarded_as::<EntryWords>().signature.store(signature, Relaxed);
    compiler_fence(SeqCst);
}

/// Orders the take of a thread's own lock before its look at the other lock.
#[inline(always)]
fn full_fence_after_acquire() {
    // ORDER: SeqCst pairs with the same fence of the other role. On x86-64 the locked instruction of the take
    // is one.
    if cfg!(target_arch = "x86_64") { compiler_fence(SeqCst) } else { fence(SeqCst) }
}

/// The entry lock, held by this thread.
struct EntryGuard<'a>(&'a RobustLock);

impl<'a> EntryGuard<'a> {
    /// Returns the lock, still held, for a guard that will release it.
    #[inline(always)]
    fn into_guard(self) -> &'a RobustLock {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for EntryGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.release();
    }
}
