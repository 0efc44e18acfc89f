//! Waiting for data, and for room: without any lock. First a thread spins, then it parks briefly, then it
//! parks.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use multiproc_robust::{Deadline, EAGER, NO_CPU, Park, RobustLock, Waiter, spin};
use multiproc_shm::copy;

use crate::header::Cursor;
use crate::log::Spot;
use crate::memory::Memory;
use crate::record::{Appended, CACHE_LINE};
use crate::view::{Refusal, View};
use crate::words::Peer;

/// How many pauses a producer that waits for room makes between two looks: each look takes the consumers'
/// cache line away from them, and more room is worth waiting for.
const SELDOM: u32 = 128;
/// How often one call spins before it parks, if other threads are always faster.
const MAX_SPINS: u32 = 4;
/// How often a producer parks briefly for room before it parks for long: after that it is to be woken for any
/// room.
const MAX_BRIEF_PARKS: u32 = 16;
/// So many polls find nothing between two looks for members whose death the kernel missed. A prime, so that a
/// thread that polls several queues in turn looks at each of them.
const POLLS_PER_LOOK: u32 = 61;

/// Marks, now and then, owners whose death the kernel missed. A thread that polls, or waits only briefly,
/// never parks with an eye on them, so it looks here.
#[cold]
pub fn mark_dead_owners_now_and_then(locks: [&[RobustLock]; 2]) {
    thread_local! {
        static POLLS: Cell<u32> = const { Cell::new(0) };
    }
    POLLS.set(POLLS.get().wrapping_add(1));
    if POLLS.get().is_multiple_of(POLLS_PER_LOOK) {
        locks.into_iter().flatten().for_each(|lock| _ = lock.mark_dead_owner());
    }
}

/// What one call remembers between its sleeps.
#[derive(Debug, Default)]
pub struct Wait {
    /// Memory may be set aside, now that waiting for room at the beginning of the log did not help.
    pub(crate) may_grow: bool,
    /// How many aborted records this call has skipped.
    pub(crate) skipped: u32,
    spins: u32,
    sleeps: u32,
}

impl Wait {
    /// Returns how to park until `deadline`: the first sleep of a wait is brief.
    pub fn how(&self, deadline: Deadline) -> Park<'static> {
        Park::new(self.sleeps == 0, deadline)
    }

    /// Notes that the call has slept.
    pub fn slept(&mut self) {
        self.sleeps += 1;
    }

    fn may_spin(&mut self) -> bool {
        self.spins += 1;
        self.sleeps == 0 && self.spins <= MAX_SPINS
    }
}

impl<M: Memory> View<'_, M> {
    /// Returns why nothing was taken: the end has come, or not yet.
    #[cold]
    pub(crate) fn nothing(self, others: Option<Peer>) -> Refusal {
        mark_dead_owners_now_and_then([self.watched_members(others), self.reservations().used()]);
        if self.has_ended(others) { Refusal::Closed } else { Refusal::TimedOut }
    }

    /// Returns whether something came to the head while this thread spun for it. `pause` is what
    /// [`next_pause`](crate::ConsumerEnd::next_pause) returned.
    pub fn spin_for_data(self, wait: &mut Wait, pause: u32, head: Cursor, ready: impl Fn() -> bool) -> bool {
        wait.may_spin() && {
            let producer = if head.count == 0 {
                NO_CPU
            } else {
                Cursor::from(self.consumer_words().cpus.load(Relaxed)).count
            };
            spin(producer, pause, EAGER, ready)
        }
    }

    /// Having found nothing: waits for something, unless nothing will come.
    #[cold]
    #[inline(never)]
    pub(crate) fn wait_or_end(
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
        // Not whether the ring was closed: that word lies beside the producers' lock, and each look would
        // take the cache line from the next producer. A consumer that learns of it so late is about to park,
        // and looks then.
        let (position, seen) = self.front(head);
        // ORDER: Acquire pairs with the commit; what follows takes the lock, or looks again.
        let moved = || {
            self.log().at(position).load(Acquire) != seen
                || self.consumer_words().head.load(Relaxed) != head.word()
        };
        if self.spin_for_data(wait, pause, head, moved) {
            // The cache line behind the header's is as far away, and comes while the lock is taken.
            copy::prefetch(self.log().at(head.position.wrapping_add(CACHE_LINE)));
            return Ok(());
        }
        self.count_get_sleep();
        let how = Park {
            watched: [self.watched_members(others), self.reservations().used()],
            ..wait.how(deadline)
        };
        let awake = self.producers().park(self.consumers(), how, &ForData { view: self, others, how });
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    /// Having appended nothing: waits until another try is worth it.
    pub(crate) fn wait_to_append(
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
    fn wait_for_room(
        self,
        wait: &mut Wait,
        need: u32,
        others: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        if let Some(others) = others {
            mark_dead_owners_now_and_then([self.members(others).used(), &[]]);
            if self.are_disconnected(others) {
                return Err(Refusal::Closed);
            }
        }
        if deadline == Deadline::NOW {
            return Err(Refusal::TimedOut);
        }
        let brief = wait.sleeps < MAX_BRIEF_PARKS;
        let how = Park { brief, watched: [self.watched_members(others), &[]], ..wait.how(deadline) };
        let waiter = ForRoom { view: self, need, others, how };
        if wait.may_spin() {
            let roomy = || self.has_free_quarters(1) || self.is_closed();
            if spin(self.consumer_cpu(), SELDOM, SELDOM, roomy) || waiter.ready() {
                return Ok(());
            }
        }
        self.count_put_sleep();
        // ORDER: SeqCst pairs with the load in `has_room_for_some`: a consumer that leaves sees this record's
        // size, or this producer's last look sees the room.
        self.producer_notes().least.fetch_max(u64::MAX - u64::from(need), SeqCst);
        let awake = self.consumers().park(self.producers(), how, &waiter);
        wait.slept();
        if awake.map_err(Refusal::Lock)? { Ok(()) } else { Err(Refusal::TimedOut) }
    }

    /// Waits a moment for room at the beginning of the log. A producer that is a little faster than its
    /// consumers would otherwise take memory, and more of it, for nothing.
    #[cold]
    #[inline(never)]
    fn wait_before_growing(self, need: u32) {
        let sizes = self.log().sizes;
        let much = |head: Cursor| sizes.index(head.position) > need.max(sizes.initial / 4);
        let ready = || {
            let (head, tail) = (self.head(), self.tail());
            head == tail || (much(head) && matches!(self.spot(tail, head, need), Ok(Some(Spot::Jump(0)))))
        };
        // A consumer that has never taken anything is not about to.
        if self.head().count != 0 {
            spin(self.consumer_cpu(), SELDOM, SELDOM, ready);
        }
    }

    /// The CPU of a consumer.
    fn consumer_cpu(self) -> u32 {
        Cursor::from(self.consumer_words().cpus.load(Relaxed)).position.wrapping_sub(1)
    }
}

/// A consumer that waits for a message.
struct ForData<'a, M> {
    view: View<'a, M>,
    others: Option<Peer>,
    how: Park<'a>,
}

impl<M: Memory> Waiter for ForData<'_, M> {
    fn ready(&self) -> bool {
        let Self { view, others, how } = *self;
        // ORDER: SeqCst in `UsedCount` pairs with a thread that uses a claim for the first time: it raises
        // the count before it looks for parked threads. Either it finds this one, or this one finds that
        // there is one claim more.
        let watches_all = || {
            how.watched.map(<[_]>::len)
                == [view.watched_members(others), view.reservations().used()].map(<[_]>::len)
        };
        view.has_data() || view.seems_ended(others) || !watches_all()
    }

    fn news(&self) -> bool {
        self.view.has_room_for_some()
    }

    fn woken(&self) {
        self.view.notify_again_after(self.others, self.how);
    }
}

/// A producer that waits for room.
struct ForRoom<'a, M> {
    view: View<'a, M>,
    need: u32,
    others: Option<Peer>,
    how: Park<'a>,
}

impl<M: Memory> Waiter for ForRoom<'_, M> {
    fn ready(&self) -> bool {
        let Self { view, need, others, how } = *self;
        // ORDER: the count of used claims as in `ForData`.
        view.has_room(need)
            || view.seems_closed(others)
            || how.watched[0].len() != view.watched_members(others).len()
    }

    fn news(&self) -> bool {
        self.view.has_news()
    }

    fn woken(&self) {
        self.view.notify_again_after(self.others, self.how);
    }
}
