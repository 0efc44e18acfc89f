//! The shared bytes of a [`RwLock`](super::RwLock).
#![allow(unsafe_code, reason = "promises the layout of its block")]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc_robust::{Death, RobustLock, shared_words};
use multiproc_shm::Object;

use super::RwLock;

/// The shared bytes of a [`RwLock`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RwLockBlock {
    pub(super) entry_lock: RobustLock,
    /// Not a `ClaimSet`: a writer waits for these locks, so their release wakes it. Nor is
    /// [`EntryWords::used`] a `UsedCount`, whose reads are SeqCst: these were measured.
    pub(super) reader_locks: [RobustLock; RwLock::READERS],
}

const _: () = assert!(size_of::<RwLockBlock>() == 64 * (1 + RwLock::READERS));

shared_words! {
    /// The words that the entry lock guards.
    pub(super) struct EntryWords {
        /// Process id << 32 | thread id of the thread that writes, or died writing; 0: none.
        pub(super) signature: AtomicU64,
        /// How many reader locks, from the first on, were ever taken.
        pub(super) used: AtomicU64,
        reserved: AtomicU64,
    }
}

// SAFETY: `repr(C)`, atomics only, always the same size; `locks` and `more_locks` name all its locks.
unsafe impl Object for RwLockBlock {
    const KIND: &'static str = "rwlock";
    const LAYOUT: u32 = 1;
    type Params = ();

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.entry_lock), None]
    }

    unsafe fn more_locks(&self, _: *const AtomicU64, _: [u64; 2]) -> &[RobustLock] {
        &self.reader_locks
    }
}

impl RwLockBlock {
    #[inline(always)]
    pub(super) fn words(&self) -> &EntryWords {
        self.entry_lock.guarded_as()
    }

    /// Returns the reader locks that were ever taken.
    #[inline]
    pub(super) fn used(&self) -> &[RobustLock] {
        let used = usize::try_from(self.words().used.load(Relaxed)).unwrap_or(usize::MAX);
        &self.reader_locks[..used.min(RwLock::READERS)]
    }

    /// Returns the death of the writer that signed and did not finish.
    ///
    /// The caller holds the entry lock, or a reader lock that it took while the entry lock was free.
    pub(super) fn dead_writer(&self) -> Option<Death> {
        let signature = self.words().signature.load(Relaxed);
        (signature != 0).then(|| Death::of(signature))
    }
}
