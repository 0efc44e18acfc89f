//! [`Locked`]: what the holder of a condition's mutex does. The protocol is described in `condition.rs`.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Acquired, WaitSlot};

use super::Condition;
use super::block::ConditionBlock;

/// How long a waiter whose time is over waits for the mutex. Other threads hold it for some microseconds.
pub(super) const LAST_WAIT: Duration = Duration::from_millis(20);

/// A condition whose mutex this thread holds.
pub(super) struct Locked<'a>(&'a ConditionBlock);

impl<'a> Locked<'a> {
    /// Returns the condition, whose mutex this thread has just taken. Does what a dead owner of the mutex may
    /// have left undone.
    pub(super) fn new(block: &'a ConditionBlock, how: Acquired) -> Self {
        let locked = Self(block);
        if how != Acquired::Clean {
            // The dead owner may have moved notified-up-to and not woken the waiters, or raised the number of
            // used slots and not notified every waiter.
            locked.replace_dead_waiters();
            locked.wake_all();
        }
        locked
    }

    /// Forgets the dead waiters, and notifies one living waiter for each that died notified.
    pub(super) fn replace_dead_waiters(&self) {
        self.notify_oldest(0);
    }

    /// Notifies `count` waiters, the oldest first, and one more for each waiter that died notified. Forgets
    /// the dead waiters. Returns how many of the `count` there were.
    pub(super) fn notify_oldest(&self, count: usize) -> usize {
        let notes = self.0.notes();
        let notified_up_to = notes.notified_up_to.load(SeqCst);
        let (mut waiting, mut living) = ([0; Condition::MOST], 0);
        let (mut died_notified, mut debts) = ([None; Condition::MOST], 0);
        for slot in self.0.slots().used().iter().map(WaitSlot) {
            match slot.dead_occupant() {
                Some(ticket) if ticket <= notified_up_to => {
                    died_notified[debts] = Some(slot);
                    debts += 1;
                }
                // Died waiting: forgotten before notified-up-to passes its ticket.
                Some(_) => slot.clear(),
                None => {
                    if let Some(ticket) = slot.occupant().filter(|ticket| *ticket > notified_up_to) {
                        waiting[living] = ticket;
                        living += 1;
                    }
                }
            }
        }
        let waiting = &mut waiting[..living];
        waiting.sort_unstable();
        let owed = if is_planted(Bug::DeadNotificationForgotten) { 0 } else { debts };
        let notified = count.saturating_add(owed).min(living);
        if notified > 0 {
            // CRASH: if this thread dies from here on, the kernel wakes one thread, which takes the mutex and
            // wakes the others.
            if !is_planted(Bug::NotifiedUpToWithoutWaitersBit) {
                self.0.mutex.set_waiters_bit();
            }
            // CRASH: before this store no waiter is notified, after it all of them are.
            notes.notified_up_to.store(waiting[notified - 1], SeqCst);
        }
        // CRASH: if this thread dies before all are forgotten, some notifications are passed on once more:
        // too many, not too few.
        died_notified.iter().flatten().for_each(|slot| slot.clear());
        if notified > 0 {
            let just_notified = notified_up_to.saturating_add(1)..=waiting[notified - 1];
            for slot in self.0.slots().used().iter().map(WaitSlot) {
                if slot.occupant().is_some_and(|ticket| just_notified.contains(&ticket)) {
                    slot.notify();
                }
            }
        }
        count.min(living)
    }

    /// Wakes every waiter, so that it looks at everything again.
    fn wake_all(&self) {
        self.0
            .slots()
            .used()
            .iter()
            .map(WaitSlot)
            .filter(|slot| slot.occupant().is_some())
            .for_each(WaitSlot::notify);
    }

    /// Raises the number of used slots, and notifies every waiter, which has to watch them. Unlike other
    /// claims, a slot is taken only after that: the mutex is held throughout.
    pub(super) fn use_more_slots(&self) {
        let slots = self.0.slots();
        let next = (slots.used().len() * 4).clamp(4, Condition::MOST);
        self.0.mutex.set_waiters_bit();
        // CRASH: some waiters may not watch the new slots yet; the next thread that takes the mutex wakes all
        // waiters.
        slots.raise_used(next);
        self.wake_all();
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let mutex = &self.0.mutex;
        mutex.leave_without_peer();
    }
}
