//! Names that [`DeathWatch`] replaces. To be deleted when nothing uses them.
#![allow(missing_docs, reason = "old names, on their way out")]

use std::sync::atomic::AtomicU64;

use crate::deadline::Deadline;
use crate::death_watch::DeathWatch;
use crate::lock::RobustLock;
use crate::wait_slot::WaitSlot;

pub fn sleep_watching(
    word: &AtomicU64,
    count: u32,
    locks: &[RobustLock],
    deadline: Deadline,
    ready: impl FnOnce() -> bool,
) {
    let mut watch = DeathWatch::new();
    if !watch.mark_and_watch(locks) && !ready() {
        watch.watch_count(word, count);
        watch.wait(deadline);
    }
}

pub fn wake_watchers(word: &AtomicU64) {
    DeathWatch::wake_all(word);
}

#[derive(Debug)]
pub struct Watch(DeathWatch);

impl Watch {
    pub fn of(slot: WaitSlot<'_>) -> Self {
        let mut watch = DeathWatch::new();
        watch.watch_slot(slot);
        Self(watch)
    }

    pub fn lock(&mut self, lock: &RobustLock) -> bool {
        self.0.watch_lock(lock)
    }

    pub fn sleep(&self, deadline: Deadline) -> bool {
        self.0.wait(deadline)
    }
}
