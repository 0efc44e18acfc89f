//! The shared bytes of a [`Condition`](super::Condition).
#![allow(unsafe_code, reason = "promises the layout of its block")]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use multiproc_robust::{ClaimSet, RobustLock, Side, shared_words};
use multiproc_shm::Object;

use super::Condition;

/// The shared bytes of a [`Condition`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ConditionBlock {
    /// A mutex: every operation holds its lock for a short time. No thread ever waits on it as on a side.
    pub(super) mutex: Side,
    /// Claims, each a `WaitSlot`.
    slots: [RobustLock; Condition::MOST],
}

const _: () = assert!(size_of::<ConditionBlock>() == 128 + 64 * Condition::MOST);

shared_words! {
    /// The notes of the mutex.
    pub(super) struct ConditionNotes {
        /// The last ticket that was given out.
        pub(super) last_ticket: AtomicU64,
        /// The highest ticket that has been notified.
        pub(super) notified_up_to: AtomicU64,
        /// How many slots, from the first on, every sleeping waiter watches: 4, 16, 64 or 120.
        used: AtomicU64,
        /// The CPU of the last notifier, plus 1; 0: none.
        pub(super) notifier_cpu: AtomicU64,
        reserved: [AtomicU64; 3],
    }
}

// SAFETY: `repr(C)`, atomics only, always the same size; `locks` and `more_locks` name all its locks.
unsafe impl Object for ConditionBlock {
    const KIND: &'static str = "condition";
    const LAYOUT: u32 = 1;
    type Params = ();

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(self.mutex.lock()), None]
    }

    unsafe fn more_locks(&self, _: *const AtomicU64, _: [u64; 2]) -> &[RobustLock] {
        &self.slots
    }
}

impl ConditionBlock {
    pub(super) fn notes(&self) -> &ConditionNotes {
        self.mutex.notes_as()
    }

    /// Returns the slots. The used ones are those that were ever occupied, and a few more.
    pub(super) fn slots(&self) -> ClaimSet<'_, AtomicU64> {
        ClaimSet::new(&self.slots, &self.notes().used)
    }

    /// Returns whether the waiter with this ticket has been notified.
    pub(super) fn is_notified(&self, ticket: u64) -> bool {
        ticket <= self.notes().notified_up_to.load(SeqCst)
    }

    /// Returns the CPU of the last notifier. It often still has the user's lock when the waiter wakes; if
    /// both have one CPU, it can release that lock only while the waiter sleeps.
    pub(super) fn notifier_cpu(&self) -> u32 {
        u32::try_from(self.notes().notifier_cpu.load(SeqCst)).unwrap_or(0).wrapping_sub(1)
    }
}
