//! [`Waiter`]: how a thread waits in its slot. The protocol is described in `condition.rs`.

use multiproc_robust::{Deadline, DeathWatch, EAGER, WaitSlot, spin};

use super::Condition;
use super::locked::LAST_WAIT;

/// A slot of a condition, occupied by this thread with a ticket.
pub(super) struct Waiter<'a> {
    pub(super) condition: &'a Condition,
    pub(super) slot: WaitSlot<'a>,
    pub(super) ticket: u64,
}

impl Waiter<'_> {
    /// Sleeps until notified; returns false if the deadline came first.
    pub(super) fn wait(&self, deadline: Deadline) -> bool {
        let block = &*self.condition.shared;
        let is_notified = || block.is_notified(self.ticket);
        if deadline != Deadline::NOW && spin(block.notifier_cpu(), 1, EAGER, is_notified) {
            return true;
        }
        // A death meanwhile ends no sleep here; the loop below finds it within 5 ms.
        self.slot.park_briefly(deadline, is_notified);
        if is_notified() {
            return true;
        }
        let (mutex, slots) = (block.mutex.lock(), block.slots());
        let mut slept_long = false;
        loop {
            let mut watch = DeathWatch::new();
            watch.watch_slot(self.slot);
            // ORDER: all words are noted before the look at notified-up-to: what happens after that look
            // changes one of them. The SeqCst notes pair with the notifier's store and wake-up, and with the
            // kernel's mark of a death.
            let mut death = watch.watch_lock(mutex);
            for lock in slots.used() {
                watch.watch_lock(lock);
                death |= WaitSlot(lock).dead_occupant().is_some();
            }
            if slept_long {
                death |= mutex.mark_dead_owner() | (slots.mark_dead_owners() > 0);
            }
            // CRASH: woken, perhaps by the one wake-up of a death, and killed before this: the kernel wakes
            // the next watcher of this thread's slot.
            if death
                && self.condition.lock_mutex(deadline).map(|locked| locked.replace_dead_waiters()).is_ok()
            {
                slept_long = false;
                continue;
            }
            if is_notified() {
                return true;
            }
            if deadline.has_passed() {
                return self.give_up();
            }
            slept_long = watch.wait(deadline);
        }
    }

    /// Ends the wait at its time-out: returns whether a notifier came in the last moment. If none did, no
    /// later notifier counts this waiter.
    fn give_up(&self) -> bool {
        let locked = self.condition.lock_mutex(Deadline::after(LAST_WAIT));
        let notified = self.condition.shared.is_notified(self.ticket);
        match locked {
            _ if notified => {}
            Ok(_) => self.slot.clear(),
            // The owner of the mutex stands still. A notification that comes from now on is passed on.
            Err(_) => self.slot.abandon(),
        }
        notified
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.slot.vacate();
    }
}
