//! Waiting for data, and for room: without any lock.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Deadline, EAGER, NO_CPU, RobustLock, Sleep, spin, this_cpu};
use multiproc_shm::copy;

use crate::counts::{GET_SLEEPS, PUT_SLEEPS};
use crate::log::{Cursor, Header, UNBOUNDED, UNLIMITED};
use crate::members::Peer;
use crate::memory::Memory;
use crate::side_table::Locks;
use crate::view::{Appended, CPUS, HEAD, LEAST, LINE, PASSED, PAUSE, Refusal, SELDOM, TAIL, TRIES, View};

/// Pauses before a consumer that found nothing looks again: the longer it lets a busy producer build a run, the fewer cache lines go back and forth.
const SHORTEST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 192;
/// A run of this many messages doubles the pause; a shorter one resets it.
const RUN: u32 = 3;
/// How often one call spins before it sleeps, when others are always faster.
const SPINS: u32 = 4;

/// A note of the consumers' side: the head when one of those who waited briefly for room was last woken.
const WOKE: usize = 6;
/// Polls that find nothing between two looks for those whose death the kernel has missed: a prime, so that who polls several queues in turn looks at each of them.
const POLLS: u32 = 61;

/// Who polls, or waits but briefly, never sleeps with an eye on them, and must look for those whose death the kernel has missed now and then.
#[cold]
pub fn bury_now_and_then(locks: [&[RobustLock]; 2]) {
    thread_local! {
        static POLLED: Cell<u32> = const { Cell::new(0) };
    }
    POLLED.set(POLLED.get().wrapping_add(1));
    if POLLED.get().is_multiple_of(POLLS) {
        locks.into_iter().flatten().for_each(|lock| _ = lock.mark_dead_owner());
    }
}

/// How often a producer sleeps briefly for room before it sleeps for long: who does that is to be woken for any room.
const BRIEFLY: u32 = 16;

/// What is at the head.
pub enum Front {
    /// Nothing, at this head.
    Empty(u64),
    /// A place that somebody fills: for a consumer, nothing yet.
    Filling,
    /// A message, or a hole to be got over.
    Something,
}

/// What one call remembers between its sleeps.
#[derive(Default)]
pub struct Wait {
    pub may_grow: bool,
    /// Moved the head over so many.
    pub holes: u32,
    spins: u32,
    sleeps: u32,
}

impl Wait {
    pub fn may_spin(&mut self) -> bool {
        self.spins += 1;
        self.sleeps == 0 && self.spins <= SPINS
    }

    pub fn slept(&mut self) {
        self.sleeps += 1;
    }

    /// The first sleep of a wait is brief.
    pub fn sleep(&self, deadline: Deadline) -> Sleep<'static> {
        Sleep::new(self.sleeps == 0, deadline)
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// With the consumers' lock, having found nothing at this head: how long to pause before the next look.
    pub fn next_pause(self, head: Cursor) -> u32 {
        let note = Cursor::from(self.consumer(PAUSE).load(Relaxed));
        let run = head.count.wrapping_sub(note.count);
        let pause =
            if run >= RUN { (note.position.clamp(SHORTEST_PAUSE, LONGEST_PAUSE) * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
        self.consumer(PAUSE).store(Cursor { position: pause, count: head.count }.word(), Relaxed);
        self.say_where();
        pause
    }

    /// With the consumers' lock: producers that wait for room ask where consumers are. Who finds nothing says so, too; those who always find something never would, and a producer that is bound to one CPU takes them
    /// to be there, and does not wait until there is more room than for one.
    #[cold]
    pub fn say_where(self) {
        let producer = Cursor::from(self.consumer(CPUS).load(Relaxed)).count;
        self.consumer(CPUS).store(Cursor { position: this_cpu().wrapping_add(1), count: producer }.word(), Relaxed);
    }

    #[cold]
    pub fn nothing(self, others: Option<Peer>) -> Refusal {
        bury_now_and_then([self.watched_seats(others), self.used_locks(Locks::Reservations)]);
        if self.has_ended(others) { Refusal::Closed } else { Refusal::TimedOut }
    }

    /// Whether, when what is there is taken, nothing will come for those who have a role at least.
    pub fn is_ending(self) -> bool {
        self.is_closed() || self.seem_gone(Peer::Producer)
    }

    /// Whether nothing is there and nothing will come: what is reserved may.
    fn has_ended(self, others: Option<Peer>) -> bool {
        (self.is_closed() && !self.has_record())
            || others.is_some_and(|others| self.are_gone_while(others, || !self.has_record()))
    }

    /// The same at a glance: whether it is worth it to look in earnest.
    fn seems_ended(self, others: Option<Peer>) -> bool {
        (self.is_closed() || others.is_some_and(|others| self.seem_gone(others))) && !self.has_record()
    }

    /// Having found nothing: waits for something, unless there will be nothing.
    #[cold]
    #[inline(never)]
    pub fn wait_or_end(
        self,
        wait: &mut Wait,
        pause: u32,
        head: Cursor,
        others: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let why = self.nothing(others);
        if why == Refusal::Closed || deadline == Deadline::NOW {
            return Err(why);
        }
        // Not whether it was closed: that word lies beside the producers' lock, and each look would take the line from the next producer. Who is told so late is about to sleep, and looks then.
        let (position, seen) = self.front(head);
        let ready = || self.log().at(position).load(Acquire) != seen || self.consumer(HEAD).load(Relaxed) != head.word();
        if wait.may_spin() {
            let partner = if head.count == 0 { NO_CPU } else { Cursor::from(self.consumer(CPUS).load(Relaxed)).count };
            if spin(partner, pause, EAGER, ready) {
                // The line behind the header's is as far away, and comes while we take the lock.
                copy::prefetch(self.log().at(head.position.wrapping_add(LINE)));
                return Ok(());
            }
        }
        self.count(GET_SLEEPS);
        let how = Sleep { watched: [self.watched_seats(others), self.used_locks(Locks::Reservations)], ..wait.sleep(deadline) };
        // ORDER: whoever uses a lock for the first time counts it before it looks for those who sleep: either it finds us, or we find that there is one more.
        let watched_all =
            || how.watched.map(<[_]>::len) == [self.watched_seats(others), self.used_locks(Locks::Reservations)].map(<[_]>::len);
        let ready = || self.has_data() || self.seems_ended(others) || !watched_all();
        let woken = || self.retell_of(others, how);
        let news = || self.has_room_for_some();
        let awake = self.ring().producers.sleep(&self.ring().consumers, how, ready, news, woken);
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    pub fn wait_to_append(
        self,
        why: Appended,
        wait: &mut Wait,
        need: u32,
        others: Option<Peer>,
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
    fn wait_for_room(self, wait: &mut Wait, need: u32, others: Option<Peer>, deadline: Deadline) -> Result<(), Refusal> {
        if let Some(others) = others {
            bury_now_and_then([self.used_locks(Locks::Members(others)), &[]]);
            if self.are_gone(others) {
                return Err(Refusal::Closed);
            }
        }
        if deadline == Deadline::NOW {
            return Err(Refusal::TimedOut);
        }
        let how = Sleep { brief: wait.sleeps < BRIEFLY, watched: [self.watched_seats(others), &[]], ..wait.sleep(deadline) };
        // ORDER: as in `wait_or_end`.
        let seems_ended = || self.is_closed() || others.is_some_and(|others| self.seem_gone(others));
        let ready = || self.has_room(need) || seems_ended() || how.watched[0].len() != self.watched_seats(others).len();
        if wait.may_spin() {
            let partner = Cursor::from(self.consumer(CPUS).load(Relaxed)).position.wrapping_sub(1);
            if spin(partner, SELDOM, SELDOM, || self.is_roomy() || self.is_closed()) || ready() {
                return Ok(());
            }
        }
        self.count(PUT_SLEEPS);
        self.ring().producers.notes[LEAST].fetch_max(u64::MAX - u64::from(need), SeqCst);
        let woken = || self.retell_of(others, how);
        let news = || self.has_news();
        let awake = self.ring().consumers.sleep(&self.ring().producers, how, ready, news, woken);
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    /// With the producers' lock, having found too little room for this message: what there is may do for another, smaller one. All are woken, once for each
    /// head: one by one, the wake could end with one that it does not fit; more than once, they would keep each other awake for ever.
    #[cold]
    pub fn pass_on_room(self) {
        let head = self.consumer(HEAD).load(SeqCst);
        if self.has_room_to_share() {
            if self.ring().consumers.has_waiters() {
                self.ring().consumers.notify_all();
            }
            // CRASH: woken but not noted: they are woken once more.
            self.ring().producers.notes[PASSED].store(head, SeqCst);
        }
    }

    /// Whether another producer, perhaps one who sleeps but briefly, is to be woken by one who leaves.
    pub fn has_more_room(self, brief: bool) -> bool {
        (!brief || self.is_spacious()) && self.has_room_to_share()
    }

    /// Whether there is room that some sleeping producer may be able to use, and that was not offered round already.
    pub fn has_room_to_share(self) -> bool {
        let passed = self.ring().producers.notes[PASSED].load(SeqCst);
        passed != self.consumer(HEAD).load(SeqCst) && self.has_room_for_some()
    }

    /// Without a lock, for a waiting producer: whether a record of this many words would fit now.
    pub fn has_room(self, need: u32) -> bool {
        for _ in 0..TRIES {
            let head = Cursor::load(self.consumer(HEAD));
            let tail = Cursor::load(self.producer(TAIL));
            if Cursor::load(self.consumer(HEAD)) == head {
                // A contradiction is for the one who gets the lock to report.
                return self.spot(tail, head, need) != Ok(None);
            }
        }
        true
    }

    /// Whether one of those who wait briefly for room should be woken: a quarter is free, and since the last wake a quarter has become free. So of many, one fills the queue while the others sleep on: else each
    /// would be woken for a few messages. When hardly anything is left, all of them can do something. What is told is noted.
    pub fn offers_room(self) -> bool {
        let note = &self.ring().consumers.notes[WOKE];
        let head = Cursor::load(self.consumer(HEAD));
        let woke = Cursor::from(note.load(Relaxed));
        let sizes = self.log().sizes;
        let freed = Cursor { position: head.position.wrapping_sub(woke.position), count: head.count.wrapping_sub(woke.count) };
        let enough = freed.count >= sizes.messages.div_ceil(4) || freed.position >= sizes.limit / 4;
        let worth = self.has_quarters(1) && (enough || self.is_spacious());
        if worth {
            // ORDER: Relaxed, both: a hint. Who is faster may note something older: one wake more.
            note.store(head.word(), Relaxed);
        }
        worth
    }

    /// Whether a quarter is free.
    pub fn is_roomy(self) -> bool {
        self.has_quarters(1)
    }

    /// Whether three quarters are free.
    pub fn is_spacious(self) -> bool {
        self.has_quarters(3)
    }

    /// Whether so many quarters are.
    fn has_quarters(self, quarters: u32) -> bool {
        let head = Cursor::load(self.consumer(HEAD));
        let tail = Cursor::load(self.producer(TAIL));
        let sizes = self.log().sizes;
        // A tail that a dead producer did not note may lie behind the head: then there is room.
        let used = sizes.used(tail, head, self.jumped()).unwrap_or(0);
        let messages = tail.count.wrapping_sub(head.count).cast_signed().max(0).cast_unsigned();
        let most = |of: u32| of - of.div_ceil(4).saturating_mul(quarters).min(of);
        (sizes.limit == UNLIMITED || used <= most(sizes.limit))
            && (sizes.messages == UNBOUNDED || messages <= most(sizes.messages))
    }

    /// Without a lock: what is at the head, of which we looked whether it moved meanwhile.
    pub fn at_front(self) -> Front {
        for _ in 0..TRIES {
            let head = self.consumer(HEAD).load(SeqCst);
            let front = match Header::from(self.log().at(Cursor::from(head).position).load(SeqCst)) {
                Header::Empty => Front::Empty(head),
                Header::Message { .. } => return Front::Something,
                header if self.is_something(Cursor::from(head), header) => return Front::Something,
                _ => Front::Filling,
            };
            if self.consumer(HEAD).load(SeqCst) == head {
                return front;
            }
        }
        Front::Something
    }

    pub fn has_data(self) -> bool {
        matches!(self.at_front(), Front::Something)
    }

    /// Whether there is something, or a place that is being filled.
    pub fn has_record(self) -> bool {
        !matches!(self.at_front(), Front::Empty(_))
    }

    /// Of one who has put nothing: whether those who sleep for messages should look all the same.
    pub fn has_news(self) -> bool {
        // Who sleeps for jobs has other reasons, too; and nobody fills places there.
        if self.memory.side_table().is_none() {
            return true;
        }
        let ending = self.is_ending();
        match self.at_front() {
            Front::Something => true,
            Front::Empty(_) => ending,
            Front::Filling => false,
        }
    }

    /// Of one who has taken nothing: whether there is room that some sleeping producer may be able to use.
    pub fn has_room_for_some(self) -> bool {
        let least = u64::MAX - self.ring().producers.notes[LEAST].load(SeqCst);
        u32::try_from(least).is_ok_and(|least| self.has_room(least))
    }

    /// Woken, perhaps by a death: what it may have left untold is told again, as far as they then do not sleep again: they would wake each other for ever.
    pub fn retell(self, others: Option<Peer>) {
        let tells = !is_planted(Bug::DisconnectNotNotified);
        let is_over = |role| self.is_closed() || (tells && others == Some(role) && self.seem_gone(role));
        if is_over(Peer::Consumer) {
            self.ring().consumers.notify_all();
        }
        // In this order, as in `has_ended`; and one look: what is there at a first one may be gone at a second.
        let over = is_over(Peer::Producer);
        if over || (tells && self.is_ending()) {
            self.retell_the_end(over);
        }
        self.retell_waiters();
    }

    /// The same, and that there are more seats than were watched: whoever used one first may have died before it told.
    fn retell_of(self, others: Option<Peer>, how: Sleep<'_>) {
        if how.watched[0].len() == self.watched_seats(others).len() {
            self.retell(others);
        } else {
            self.tell_all();
        }
    }

    /// Those who wait for what is being filled are told by whoever fills it; or, if he has died, by one who may himself have no role, or finds that another has got over it.
    #[cold]
    fn retell_the_end(self, over: bool) {
        let producers = &self.ring().producers;
        match self.at_front() {
            Front::Filling => {}
            Front::Empty(head) if !over => {
                // Who has no role sleeps again, so they would wake each other for ever; and nobody comes to wait here who has a role, unless something is put. (Where nobody ever had a role, nobody is gone.)
                if let Some(told) = self.told().filter(|told| told.load(SeqCst) != !head) {
                    producers.notify_all();
                    // ORDER: SeqCst, in one order with the look at the head above: who finds this head noted comes after the wake. CRASH: woken but not noted: they are woken once more.
                    told.store(!head, SeqCst);
                }
            }
            Front::Empty(_) | Front::Something => producers.notify_all(),
        }
    }

    pub fn tell_all(self) {
        self.ring().producers.notify_all();
        self.ring().consumers.notify_all();
        self.retell_waiters();
    }
}
