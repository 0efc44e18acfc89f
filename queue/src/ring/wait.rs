//! Waiting for data, and for room: without any lock.

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use multiproc_shm::zoo::{self, Bug};
use multiproc_shm::{Deadline, EAGER, NO_CPU, Sleep, copy, spin, this_cpu};

use super::counts::{GET_SLEEPS, PUT_SLEEPS};
use super::roles::Role;
use super::{Appended, CPUS, HEAD, LEAST, LINE, PASSED, PAUSE, Refusal, SELDOM, TAIL, TRIES, View};
use crate::log::{Memory, Place, UNBOUNDED, UNLIMITED};

/// Pauses before a consumer that found nothing looks again: the longer it lets a busy producer build a run, the fewer cache lines go back and forth.
const SHORTEST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 192;
/// A run of this many messages doubles the pause; a shorter one resets it.
const RUN: u32 = 3;
/// How often one call spins before it sleeps, when others are always faster.
const SPINS: u32 = 4;

/// What one call remembers between its sleeps.
#[derive(Default)]
pub(super) struct Wait {
    pub(super) may_grow: bool,
    spins: u32,
    sleeps: u32,
}

impl Wait {
    pub(super) fn may_spin(&mut self) -> bool {
        self.spins += 1;
        self.sleeps == 0 && self.spins <= SPINS
    }

    pub(super) fn slept(&mut self) {
        self.sleeps += 1;
    }

    /// The first sleep of a wait is brief.
    pub(super) fn sleep(&self, deadline: Deadline) -> Sleep<'static> {
        Sleep::new(self.sleeps == 0, deadline)
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// With the consumers' lock, having found nothing at this head: how long to pause before the next look.
    pub(super) fn next_pause(self, head: Place) -> u32 {
        let note = Place::from(self.consumer(PAUSE).load(Relaxed));
        let run = head.count.wrapping_sub(note.count);
        let pause =
            if run >= RUN { (note.position.clamp(SHORTEST_PAUSE, LONGEST_PAUSE) * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
        self.consumer(PAUSE).store(Place { position: pause, count: head.count }.word(), Relaxed);
        let cpus = self.consumer(CPUS).load(Relaxed);
        self.consumer(CPUS).store((cpus >> 32) << 32 | u64::from(this_cpu().wrapping_add(1)), Relaxed);
        pause
    }

    #[cold]
    pub(super) fn nothing(self, others: Option<Role>) -> Refusal {
        if self.has_ended(others) { Refusal::Closed } else { Refusal::TimedOut }
    }

    /// Whether nothing is there and nothing will come.
    fn has_ended(self, others: Option<Role>) -> bool {
        if let Some(others) = others {
            self.poll_for_gone(others);
        }
        (self.is_closed() && !self.has_data()) || others.is_some_and(|others| self.are_gone_while(others, || !self.has_data()))
    }

    /// Having found nothing: waits for something, unless there will be nothing.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_or_end(
        self,
        wait: &mut Wait,
        pause: u32,
        head: Place,
        others: Option<Role>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        if deadline == Deadline::NOW {
            return Err(self.nothing(others));
        }
        if self.has_ended(others) {
            return Err(Refusal::Closed);
        }
        // Not whether it was closed: that word lies beside the producers' lock, and each look would take the line from the next producer. Who is told so late is about to sleep, and looks then.
        let ready = || self.log().at(head.position).load(Acquire) != 0 || self.consumer(HEAD).load(Relaxed) != head.word();
        if wait.may_spin() {
            let partner = if head.count == 0 { NO_CPU } else { Place::from(self.consumer(CPUS).load(Relaxed)).count };
            if spin(partner, pause, EAGER, ready) {
                // The line behind the header's is as far away, and comes while we take the lock.
                copy::prefetch(self.log().at(head.position.wrapping_add(LINE)));
                return Ok(());
            }
        }
        self.count(GET_SLEEPS);
        let how = self.watching(others, wait, deadline);
        let ready = || self.has_data() || self.is_closed() || self.is_news(others, how);
        let woken = || self.retell_of(others, how);
        let awake = self.ring().producers.sleep(&self.ring().consumers, how, ready, woken);
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    pub(super) fn wait_to_append(
        self,
        why: Appended,
        wait: &mut Wait,
        need: u32,
        others: Option<Role>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        if why == Appended::WouldGrow {
            self.wait_before_growing(need);
            wait.may_grow = true;
            return Ok(());
        }
        self.wait_for_room(wait, need, others, deadline)
    }

    #[cold]
    #[inline(never)]
    fn wait_for_room(self, wait: &mut Wait, need: u32, others: Option<Role>, deadline: Deadline) -> Result<(), Refusal> {
        if let Some(others) = others {
            self.poll_for_gone(others);
            if self.are_gone(others) {
                return Err(Refusal::Closed);
            }
        }
        if deadline == Deadline::NOW {
            return Err(Refusal::TimedOut);
        }
        let how = self.watching(others, wait, deadline);
        let ready = || self.has_room(need) || self.is_closed() || self.is_news(others, how);
        if wait.may_spin() {
            let partner = Place::from(self.consumer(CPUS).load(Relaxed)).position.wrapping_sub(1);
            if spin(partner, SELDOM, SELDOM, || self.is_roomy() || self.is_closed()) || ready() {
                return Ok(());
            }
        }
        self.count(PUT_SLEEPS);
        self.ring().producers.notes[LEAST].fetch_max(u64::MAX - u64::from(need), SeqCst);
        let woken = || self.retell_of(others, how);
        let awake = self.ring().consumers.sleep(&self.ring().producers, how, ready, woken);
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    /// How to sleep for these.
    fn watching(self, others: Option<Role>, wait: &Wait, deadline: Deadline) -> Sleep<'a> {
        Sleep { watched: others.map_or(&[], |others| self.watched_seats(others)), ..wait.sleep(deadline) }
    }

    /// Whether there is something new of these: all are gone, or there is one more seat to be watched.
    fn is_news(self, others: Option<Role>, how: Sleep<'_>) -> bool {
        // ORDER: whoever uses a seat for the first time counts it before it looks for those who sleep: either it finds us, or we find that there is one more.
        others.is_some_and(|others| self.seem_gone(others) || self.watched_seats(others).len() != how.watched.len())
    }

    /// Woken, perhaps by a death: what it may have left untold is told again.
    fn retell_of(self, others: Option<Role>, how: Sleep<'_>) {
        if self.is_closed() || (self.is_news(others, how) && !zoo::planted(Bug::GoneToldToNobody)) {
            self.tell_all();
        }
    }

    /// With the producers' lock, having found too little room for this message: what there is may do for another, smaller one. All are woken, once for each
    /// head: one by one, the wake could end with one that it does not fit; more than once, they would keep each other awake for ever.
    #[cold]
    pub(super) fn pass_on_room(self) {
        let head = self.consumer(HEAD).load(SeqCst);
        if self.has_room_to_share() {
            if self.ring().consumers.has_sleepers() {
                self.ring().consumers.wake_all_sleepers();
            }
            // CRASH: woken but not noted: they are woken once more.
            self.ring().producers.notes[PASSED].store(head, SeqCst);
        }
    }

    /// Whether there is room that some sleeping producer may be able to use, and that was not offered round already.
    pub(super) fn has_room_to_share(self) -> bool {
        let least = u64::MAX - self.ring().producers.notes[LEAST].load(SeqCst);
        let passed = self.ring().producers.notes[PASSED].load(SeqCst);
        passed != self.consumer(HEAD).load(SeqCst) && u32::try_from(least).is_ok_and(|least| self.has_room(least))
    }

    /// Without a lock, for a waiting producer: whether a record of this many words would fit now.
    pub(super) fn has_room(self, need: u32) -> bool {
        for _ in 0..TRIES {
            let head = Place::load(self.consumer(HEAD));
            let tail = Place::load(self.producer(TAIL));
            if Place::load(self.consumer(HEAD)) == head {
                // A contradiction is for the one who gets the lock to report.
                return self.spot(tail, head, need) != Ok(None);
            }
        }
        true
    }

    /// Whether those who wait briefly for room should be woken yet: a quarter is free.
    pub(super) fn is_roomy(self) -> bool {
        let head = Place::load(self.consumer(HEAD));
        let tail = Place::load(self.producer(TAIL));
        let sizes = self.log().sizes;
        // A tail that a dead producer did not note may lie behind the head: then there is room.
        let used = sizes.used(tail, head, self.jumped()).unwrap_or(0);
        let messages = tail.count.wrapping_sub(head.count).cast_signed().max(0).cast_unsigned();
        (sizes.limit == UNLIMITED || used <= sizes.limit - sizes.limit / 4)
            && (sizes.messages == UNBOUNDED || messages <= sizes.messages - sizes.messages.div_ceil(4))
    }

    /// Without a lock: the header at a head that did not move while we looked.
    pub(super) fn has_data(self) -> bool {
        for _ in 0..TRIES {
            let head = self.consumer(HEAD).load(SeqCst);
            if self.log().at(Place::from(head).position).load(SeqCst) != 0 {
                return true;
            }
            if self.consumer(HEAD).load(SeqCst) == head {
                return false;
            }
        }
        true
    }

    /// Whoever closed it may have died before it told everybody.
    pub(super) fn retell(self) {
        if self.is_closed() {
            self.tell_all();
        }
    }

    pub(super) fn tell_all(self) {
        self.ring().producers.wake_all_sleepers();
        self.ring().consumers.wake_all_sleepers();
    }
}
