//! Waiting for jobs, and for the last of them to be done: without any lock. And the wake-ups of such threads.

use std::sync::atomic::Ordering::SeqCst;

use multiproc_ring::{Cursor, Refusal, Wait, mark_dead_owners_now_and_then};
use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Deadline, Park, RobustLock, Waiter};

use super::JobView;
use crate::jobs::block::Jobs;

impl<'a, M: Jobs> JobView<'a, M> {
    /// Waits until all that was put is done.
    pub(crate) fn join(self, deadline: Deadline) -> Result<(), Refusal> {
        loop {
            // There may be no other thread that would ever find out.
            if self.is_half_moved() {
                let guard = match self.enter(deadline) {
                    Err(Refusal::Busy) => return Err(Refusal::TimedOut),
                    entered => entered?,
                };
                if self.is_half_moved() {
                    // No owner has died: a peer has scribbled.
                    guard.end().recover_leases();
                }
                guard.leave(true);
            }
            if self.is_finished() {
                return Ok(());
            }
            // Whatever it looks like: a peer that has scribbled may have made it look as if there were always
            // something to do.
            if deadline.has_passed() {
                return Err(Refusal::TimedOut);
            }
            let used = self.used();
            let how = Park {
                watched: [self.first_claims(used), &[]],
                event: Some(&self.leases().joiners),
                ..Park::new(false, deadline)
            };
            let ring = self.ring();
            if !ring
                .producers()
                .park(ring.consumers(), how, &ForTheLast { jobs: self, used })
                .map_err(Refusal::Lock)?
            {
                return Err(Refusal::TimedOut);
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn wait_for_job(
        self,
        wait: &mut Wait,
        pause: u32,
        head: Cursor,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        if self.is_over() {
            return Err(Refusal::Closed);
        }
        // Also if there seems to be something: that may be the work of a peer that scribbles.
        if deadline.has_passed() {
            return Err(Refusal::TimedOut);
        }
        let moved = || !self.is_empty_at(head.position) || self.head() != head;
        if pause != 0 && self.spin_for_data(wait, pause, head, moved) {
            return Ok(());
        }
        self.count_get_sleep();
        let used = self.used();
        let watched = if is_planted(Bug::LeasesUnwatched) { &[] } else { self.first_claims(used) };
        let how = Park { watched: [watched, &[]], ..wait.how(deadline) };
        let ring = self.ring();
        let awake = ring.producers().park(ring.consumers(), how, &ForJob { jobs: self, used });
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    fn first_claims(self, used: usize) -> &'a [RobustLock] {
        &self.claims().all()[..used]
    }

    /// Wakes all threads that are parked here: they look again.
    pub(super) fn notify_everyone_of_jobs(self) {
        if self.ring().producers().has_waiters() {
            self.ring().producers().notify_all();
        }
        if self.leases().joiners.has_waiters() {
            self.leases().joiners.wake_all();
        }
    }

    /// A lease is free again: notifies the threads that wait for that.
    pub(super) fn notify_done(self) {
        let leases = self.leases();
        if leases.joiners.has_waiters() && self.is_finished() {
            leases.joiners.wake_all();
        }
        if leases.closing.load(SeqCst) != 0 && self.is_closed() && !self.has_data() {
            self.ring().producers().notify_all();
        } else if leases.starved.load(SeqCst) != 0 {
            // One lease is for one consumer; the consumer that takes it passes on what else there is.
            self.ring().producers().notify_one();
        }
    }

    /// Notifies again what a thread that died may have left unsaid. Called after a wake-up, perhaps by a
    /// death of which others wait to hear. Only threads for which it is final are woken: others would wake
    /// each other for ever.
    fn notify_jobs_again(self) {
        if self.is_closed() {
            self.ring().consumers().notify_all();
        }
        if (self.leases().joiners.has_waiters() || self.is_closed()) && self.is_finished() {
            self.leases().joiners.wake_all();
            if self.is_closed() {
                self.ring().producers().notify_all();
            }
        }
    }

    /// Marks, now and then, holders whose death the kernel missed: for a thread that polls.
    pub(super) fn mark_dead_owners_now_and_then(self) {
        mark_dead_owners_now_and_then([self.claims().used(), &[]]);
    }

    /// Closes the queue: no more puts. The mark comes first: a thread that makes a lease free sees it, or the
    /// queue is not closed yet.
    pub(crate) fn close_jobs(self) {
        // ORDER: SeqCst pairs with the look in `notify_done`.
        // CRASH: marked, not closed: some threads look once more than need be.
        self.leases().closing.store(1, SeqCst);
        self.close();
    }
}

/// A consumer that waits for a job.
struct ForJob<'a, M> {
    jobs: JobView<'a, M>,
    /// How many leases it watches.
    used: usize,
}

impl<M: Jobs> Waiter for ForJob<'_, M> {
    fn ready(&self) -> bool {
        // ORDER: as in `ForTheLast`.
        self.jobs.used() != self.used || self.jobs.has_job_or_starves() || self.jobs.is_over()
    }

    fn news(&self) -> bool {
        self.jobs.has_room_for_some()
    }

    fn woken(&self) {
        self.jobs.notify_jobs_again();
    }
}

/// A thread that waits for the last job to be done.
struct ForTheLast<'a, M> {
    jobs: JobView<'a, M>,
    /// How many leases it watches.
    used: usize,
}

impl<M: Jobs> Waiter for ForTheLast<'_, M> {
    fn ready(&self) -> bool {
        // ORDER: SeqCst in `UsedCount` pairs with a consumer that uses a lease for the first time: it raises
        // the count before it looks for parked threads. Either it finds this one, or this one finds that
        // there is one lease more to be watched.
        self.jobs.used() != self.used || self.jobs.is_half_moved() || self.jobs.is_finished()
    }

    fn news(&self) -> bool {
        self.jobs.has_room_for_some()
    }

    fn woken(&self) {
        self.jobs.notify_jobs_again();
        // It takes no job, so a death's wake-up was meant for a consumer.
        if self.jobs.ring().producers().has_waiters() && self.jobs.has_job() {
            self.jobs.ring().producers().notify_one();
        }
    }
}
