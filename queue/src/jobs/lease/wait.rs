//! Waiting for jobs, and for the last of them to be done: without any lock.

use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Deadline, EAGER, NO_CPU, Sleep, spin};

use super::{FREE, JobView, TAKING};
use crate::jobs::block::Jobs;
use multiproc_ring::{CPUS, Cursor, GET_SLEEPS, HEAD, Refusal, Wait, bury_now_and_then};

/// Leases between two looks for one of them.
const LEASES: u32 = 256;

impl<M: Jobs> JobView<'_, M> {
    /// Waits until all that was put is done.
    pub(crate) fn join(self, deadline: Deadline) -> Result<(), Refusal> {
        loop {
            // Nobody else may ever come who would find out.
            if self.is_half_moved() {
                match self.enter(&self.ring().consumers, deadline, || self.recover_leases()) {
                    Ok(()) => {}
                    Err(Refusal::Busy) => return Err(Refusal::TimedOut),
                    Err(refusal) => return Err(refusal),
                }
                if self.is_half_moved() {
                    // Nobody has died: somebody has scribbled.
                    self.recover_leases();
                }
                self.leave_consumers_of_jobs(false);
            }
            if self.is_finished() {
                return Ok(());
            }
            // Whatever it looks like: who has scribbled may have seen to it that it looks as if there were always something to do.
            if deadline.has_passed() {
                return Err(Refusal::TimedOut);
            }
            let leases = self.leases();
            let used = self.used();
            let how = Sleep { brief: false, deadline, watched: [&leases.slots[..used], &[]], bell: Some(&leases.joiners) };
            // ORDER: whoever uses a slot for the first time counts it before it looks for those who sleep: either it finds us, or we find that there is one more to be watched.
            let ready = || self.used() != used || self.is_half_moved() || self.is_finished();
            let sides = (&self.ring().producers, &self.ring().consumers);
            let awake =
                sides.0.sleep(sides.1, how, ready, || self.has_room_for_some(), || self.pass_on_job()).map_err(Refusal::Lock)?;
            if !awake {
                return Err(Refusal::TimedOut);
            }
        }
    }

    /// Jobs that were put and are not done: never fewer than there are.
    pub(crate) fn unfinished(self) -> usize {
        if self.is_finished() {
            return 0;
        }
        let head = Cursor::load(self.consumer(HEAD)).count;
        let out = self.states().filter(|state| *state != FREE && *state != (TAKING | u64::from(head) << 32)).count();
        (out + self.len()).max(1)
    }

    /// Whether all that was put is done; see the head of `lease.rs`.
    pub(super) fn is_finished(self) -> bool {
        let head = self.consumer(HEAD).load(SeqCst);
        let revived = self.leases().revived.load(SeqCst);
        // What is read at a head that has moved meanwhile is not a header.
        let is_here = || self.consumer(HEAD).load(SeqCst) == head && self.leases().revived.load(SeqCst) == revived;
        let is_empty = || self.log().at(Cursor::from(head).position).load(SeqCst) == 0;
        is_empty() && (0..self.used()).all(|slot| self.is_free(slot)) && is_here() && is_empty() && is_here()
    }

    /// As `has_job`; a message without a slot for it is noted, so that whoever makes one free tells.
    fn has_job_or_starves(self) -> bool {
        self.has_job() || {
            let starves = self.has_data();
            if starves {
                // ORDER: SeqCst: whoever has made a slot free before this we see now; who does so later sees this.
                self.leases().starved.store(1, SeqCst);
            }
            starves && self.has_job()
        }
    }

    /// Whether nothing will ever come: closed, nothing in the log, and what is out is out with this thread.
    pub(super) fn is_over(self) -> bool {
        self.is_closed()
            && !self.has_data()
            && (0..self.used()).all(|slot| self.is_free(slot) || self.slot(slot).is_held_by_this_thread())
            && !self.has_data()
    }

    /// Without a lock: whether there is something to lease, and a slot for it.
    pub(super) fn has_job(self) -> bool {
        (self.has_data() && self.has_slot()) || (0..self.used()).any(|slot| self.is_back(slot))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn wait_for_job(self, wait: &mut Wait, pause: u32, head: Cursor, deadline: Deadline) -> Result<(), Refusal> {
        if self.is_over() {
            return Err(Refusal::Closed);
        }
        // Also if there seems to be something: that may be the work of somebody who scribbles.
        if deadline.has_passed() {
            return Err(Refusal::TimedOut);
        }
        let moved = || self.log().at(head.position).load(SeqCst) != 0 || self.consumer(HEAD).load(Relaxed) != head.word();
        if pause != 0 && wait.may_spin() {
            let partner = if head.count == 0 { NO_CPU } else { Cursor::from(self.consumer(CPUS).load(Relaxed)).count };
            if spin(partner, pause, EAGER, moved) {
                return Ok(());
            }
        }
        self.count(GET_SLEEPS);
        let leases = self.leases();
        let used = self.used();
        let watched: &[_] = if is_planted(Bug::LeasesUnwatched) { &[] } else { &leases.slots[..used] };
        let how = Sleep { watched: [watched, &[]], ..wait.sleep(deadline) };
        // As in `join`.
        let ready = || self.used() != used || self.has_job_or_starves() || self.is_over();
        let news = || self.has_room_for_some();
        let awake = self.ring().producers.sleep(&self.ring().consumers, how, ready, news, || self.retell_jobs());
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    /// Everybody who sleeps here looks again.
    pub(super) fn tell_everybody(self) {
        if self.ring().producers.has_waiters() {
            self.ring().producers.notify_all();
        }
        if self.leases().joiners.has_waiters() {
            self.leases().joiners.wake_all();
        }
    }

    /// A slot is free again: tells those who wait for that.
    pub(super) fn tell_done(self) {
        let leases = self.leases();
        if leases.joiners.has_waiters() && self.is_finished() {
            leases.joiners.wake_all();
        }
        if leases.closing.load(SeqCst) != 0 && self.is_closed() && !self.has_data() {
            self.ring().producers.notify_all();
        } else if leases.starved.load(SeqCst) != 0 {
            // One slot is for one of them; whoever takes it passes on what else there is.
            self.ring().producers.notify_one();
        }
    }

    /// Woken, perhaps by a death, and perhaps by one that others wait to hear of: what it may have left untold is told again. Only to those for whom it is final, or those who are woken would wake each other for ever.
    pub(super) fn retell_jobs(self) {
        if self.is_closed() {
            self.ring().consumers.notify_all();
        }
        if (self.leases().joiners.has_waiters() || self.is_closed()) && self.is_finished() {
            self.leases().joiners.wake_all();
            if self.is_closed() {
                self.ring().producers.notify_all();
            }
        }
    }

    /// Of one who joins: it takes no job, so the wake of a death was another's.
    pub(super) fn pass_on_job(self) {
        self.retell_jobs();
        if self.ring().producers.has_waiters() && self.has_job() {
            self.ring().producers.notify_one();
        }
    }

    /// With the consumers' lock: consumers that always find something never sleep, and must look for those whose death the kernel has missed now and then.
    pub(super) fn look_for_one_of_the_dead(self) {
        let number = self.leases().leased.load(Relaxed);
        self.leases().leased.store(number.wrapping_add(1), Relaxed);
        if number % LEASES == LEASES - 1 {
            self.bury_in(number / LEASES);
        }
    }

    #[cold]
    fn bury_in(self, turn: u32) {
        let used = self.used();
        if let Some(slot) = (turn as usize).checked_rem(used) {
            self.slot(slot).mark_dead_owner();
        }
    }

    pub(super) fn poll_for_the_dead(self) {
        bury_now_and_then([&self.memory.leases().slots[..self.used()], &[]]);
    }

    /// `in_vain`: the head was not moved.
    pub(super) fn leave_consumers_of_jobs(self, in_vain: bool) {
        let (producers, consumers) = (&self.ring().producers, &self.ring().consumers);
        if in_vain {
            consumers.leave_without_progress(producers, |_| self.has_job(), || self.has_room_for_some());
        } else {
            consumers.leave(producers, |_| self.has_job(), || self.offers_room());
        }
    }

    /// No more puts. The mark comes first: who makes a job free sees it, or the queue is not closed yet.
    pub(crate) fn close_jobs(self) {
        // ORDER: SeqCst; pairs with the look in `tell_done`. CRASH: marked, not closed: some look once more than need be.
        self.leases().closing.store(1, SeqCst);
        self.close();
    }
}
