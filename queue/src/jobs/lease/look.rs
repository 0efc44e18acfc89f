//! Looks at leases without a lock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

use multiproc_ring::Counters;
use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{ClaimSet, RobustLock};

use super::areas::again_of;
use super::{FREE, JobView, LEASED, TAKING};
use crate::counters::JobCounters;
use crate::jobs::block::Jobs;
use crate::jobs::words::{LeaseNotes, LeaseWords, Leases, MAX_LEASES};

impl<'a, M: Jobs> JobView<'a, M> {
    #[inline]
    pub(super) fn leases(self) -> &'a Leases {
        self.memory.leases()
    }

    #[inline]
    pub(super) fn lock(self, number: usize) -> &'a RobustLock {
        &self.leases().claims[number]
    }

    #[inline]
    pub(super) fn words(self, number: usize) -> &'a LeaseWords {
        self.lock(number).guarded_as()
    }

    #[inline]
    pub(super) fn notes(self, number: usize) -> &'a LeaseNotes {
        &self.leases().notes[number]
    }

    /// The claims of all leases.
    #[inline]
    pub(super) fn claims(self) -> ClaimSet<'a, AtomicU32> {
        let leases = self.leases();
        ClaimSet::new(&leases.claims, &leases.used)
    }

    /// How many leases were ever used.
    pub(super) fn used(self) -> usize {
        self.claims().used().len()
    }

    pub(super) fn state(self, number: usize) -> u64 {
        self.words(number).state.load(SeqCst)
    }

    pub(super) fn set_state(self, number: usize, state: u64) {
        // ORDER: Release pairs with the load in `state`: a thread that finds a job leased, or back, finds its
        // bytes, its length and its deliveries.
        self.words(number).state.store(state, Release);
    }

    /// Whether the job in this lease came back. Without the consumers' lock it may be leased again by now. A
    /// death on the way into the lease or out of it counts, too: the next owner of the consumers' lock finds
    /// out.
    pub(super) fn is_back(self, number: usize) -> bool {
        // ORDER: SeqCst pairs with `finish`: the claim first, since a thread that has done a job makes the
        // lease free before it releases the claim.
        !self.lock(number).is_held_now()
            && match self.state(number) {
                FREE => false,
                LEASED => true,
                _ => !is_planted(Bug::HalfMovedUnseen),
            }
    }

    /// Whether a process has died on the way into a lease or out of it, and no thread has found out yet.
    pub(super) fn is_half_moved(self) -> bool {
        (0..self.used()).any(|number| self.is_back(number) && self.state(number) > LEASED)
    }

    /// Whether there is no job in this lease, read in one order with what its holder does next.
    fn is_free(self, number: usize) -> bool {
        // ORDER: SeqCst pairs with the release of the claim; the claim's word first. Either this sees that
        // the holder has released it, and with that its `FREE`; or the holder, which looks for waiting
        // threads after the release, sees this thread.
        let _ = self.lock(number).is_held_now();
        self.state(number) == FREE
    }

    fn has_free_lease(self) -> bool {
        self.used() < MAX_LEASES
            || (0..self.used()).any(|number| !self.lock(number).is_held_now() && self.state(number) == FREE)
    }

    /// Whether there is something to lease, and a lease for it.
    pub(super) fn has_job(self) -> bool {
        (self.has_data() && self.has_free_lease()) || (0..self.used()).any(|number| self.is_back(number))
    }

    /// The same; and if there is a message without a lease for it, notes that, so that a thread that makes a
    /// lease free notifies.
    pub(super) fn has_job_or_starves(self) -> bool {
        self.has_job() || {
            let starves = self.has_data();
            if starves {
                // ORDER: SeqCst pairs with the look in `notify_done`: a lease that was made free before this
                // is seen now; a thread that makes one free later sees this.
                self.leases().starved.store(1, SeqCst);
            }
            starves && self.has_job()
        }
    }

    /// Whether nothing will ever come: closed, nothing in the log, and all leased jobs are this thread's.
    pub(super) fn is_over(self) -> bool {
        self.is_closed()
            && !self.has_data()
            && (0..self.used())
                .all(|number| self.is_free(number) || self.lock(number).is_held_by_this_thread())
            && !self.has_data()
    }

    /// Whether all that was put is done; see the head of `lease.rs`.
    pub(super) fn is_finished(self) -> bool {
        let head = self.head();
        let replayed = self.leases().replayed.load(SeqCst);
        // What is read at a head that has moved meanwhile is not a header.
        let is_here = || self.head() == head && self.leases().replayed.load(SeqCst) == replayed;
        let is_empty = || self.is_empty_at(head.position);
        is_empty()
            && (0..self.used()).all(|number| self.is_free(number))
            && is_here()
            && is_empty()
            && is_here()
    }

    /// Returns how many jobs were put and are not done: never fewer than there are.
    pub(crate) fn unfinished(self) -> usize {
        if self.is_finished() {
            return 0;
        }
        let head = self.head().count;
        let states = (0..self.used()).map(|number| self.state(number));
        let leased =
            states.filter(|state| *state != FREE && *state != (TAKING | u64::from(head) << 32)).count();
        (leased + self.len()).max(1)
    }

    /// Returns how many jobs are leased now.
    pub(crate) fn leased(self) -> usize {
        (0..self.used())
            .filter(|number| self.lock(*number).is_held_now() && self.state(*number) != FREE)
            .count()
    }

    /// Notes that the job in this lease is this thread's, with no [`Job`](crate::Job) that would give it
    /// back.
    pub(crate) fn note_taken(self, number: usize) {
        let take = self.leases().taken.fetch_add(1, Relaxed) + 1;
        self.notes(number).taken.store(take, Relaxed);
    }

    /// Returns the lease that this thread took first, of those that it has noted so.
    pub(crate) fn first_taken(self) -> Option<usize> {
        let taken = |number: usize| self.notes(number).taken.load(Relaxed);
        let mine = (0..self.used())
            .filter(|number| taken(*number) != 0 && self.lock(*number).is_held_by_this_thread());
        mine.min_by_key(|number| taken(*number))
    }

    /// Returns what has gone through.
    pub(crate) fn job_counters(self) -> JobCounters {
        let Counters { puts, gets, bytes, put_sleeps, get_sleeps, deaths, .. } = self.counters();
        let again = |number: usize| again_of(self.words(number).deliveries.load(Relaxed));
        let redelivered = (0..self.used()).map(again).fold(0, u64::wrapping_add);
        let dead_lettered = self.dead_lettered();
        JobCounters { puts, gets, redelivered, dead_lettered, bytes, put_sleeps, get_sleeps, deaths }
    }
}
