//! Wake-ups that concern all: a thread that closes, connects or disconnects notifies all parked threads, and
//! a thread that takes over from a dead one notifies again.

use std::sync::atomic::Ordering::SeqCst;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{ClaimSet, Park, RobustLock, UsedCount};

use crate::look::Front;
use crate::memory::Memory;
use crate::view::View;
use crate::words::Peer;

impl<M: Memory> View<'_, M> {
    /// Wakes all parked threads.
    pub(crate) fn notify_everyone(self) {
        self.producers().notify_all();
        self.consumers().notify_all();
        self.notify_claim_waiters();
    }

    /// Advances the epochs of both sides: a thread that is about to sleep looks again.
    pub(crate) fn advance_both(self) {
        self.producers().advance();
        self.consumers().advance();
    }

    /// Wakes the threads that wait for a claim of a reservation, if one is free: a thread that died may not
    /// have notified them.
    pub(crate) fn notify_claim_waiters(self) {
        if let Some(waiters) = self.claim_waiters()
            && waiters.has_waiters()
            && (self.is_closed() || has_free(self.reservations()))
        {
            waiters.wake_all();
        }
    }

    /// Notifies again what a thread that died may have left unsaid. Called after a wake-up, perhaps by a
    /// death. Only threads that will not park again are woken: others would wake each other for ever.
    pub(crate) fn notify_again(self, others: Option<Peer>) {
        let notifies = !is_planted(Bug::DisconnectNotNotified);
        let is_over =
            |peer| self.is_closed() || (notifies && others == Some(peer) && self.seem_disconnected(peer));
        if is_over(Peer::Consumer) {
            self.consumers().notify_all();
        }
        // In this order, as in `has_ended`; and one look: what is there at a first look may be gone at a
        // second.
        let over = is_over(Peer::Producer);
        if over || (notifies && self.is_ending()) {
            self.notify_end_again(over);
        }
        self.notify_claim_waiters();
    }

    /// The same; and if there are more members than the thread watched, all are woken: the new member may
    /// have died before it notified them.
    pub(crate) fn notify_again_after(self, others: Option<Peer>, how: Park<'_>) {
        if how.watched[0].len() == self.watched_members(others).len() {
            self.notify_again(others);
        } else {
            self.notify_everyone();
        }
    }

    /// Wakes the threads that wait for messages although none will come. Those that wait for a reservation
    /// are woken by the producer that fills it. If that producer has died, they are woken by a thread that
    /// may itself be no member, or that finds the aborted record already skipped.
    #[cold]
    fn notify_end_again(self, over: bool) {
        match self.at_front() {
            Front::Filling => {}
            Front::Empty(head) if !over => {
                // A thread that is no member parks again, so such threads would wake each other for ever; and
                // no member comes to wait here unless something is put. (Where there never was a member, none
                // has disconnected.)
                if let Some(noted) = self.end_notified().filter(|noted| noted.load(SeqCst) != !head) {
                    self.producers().notify_all();
                    // ORDER: SeqCst, in one order with the look at the head above, its partner: a thread that
                    // finds this head noted comes after the wake-up.
                    // CRASH: woken but not noted: they are woken once more.
                    noted.store(!head, SeqCst);
                }
            }
            Front::Empty(_) | Front::Something => self.producers().notify_all(),
        }
    }
}

/// Whether one of the claims that were ever taken is free.
pub(crate) fn has_free(claims: ClaimSet<'_, impl UsedCount>) -> bool {
    claims.used().iter().any(|lock: &RobustLock| !lock.is_held_now())
}
