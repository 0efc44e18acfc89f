//! Who is there: so that nobody waits for those who will never come.
//!
//! # Seats
//!
//! A process that says "I put" or "I get" (a *role*) takes one of 60 *seats* of that role, and has it until it lets go of it, or dies. A seat is a robust lock, taken [watched](RobustLock::claim) and
//! [kept](RobustLock::transfer_to_process) for the process: so the kernel frees it, and wakes one of those who watch it, at whatever end of the process. The lock alone says that somebody is there; nothing is counted.
//! How many seats, from the first on, were ever taken (`used`) is noted: those are looked at.
//!
//! | `used` | seats before it | they |
//! |---|---|---|
//! | 0 | | have not come yet: they are waited for |
//! | more | one is held | are there |
//! | more | all are free, at one instant | **are gone**, until another comes |
//!
//! Who waits with a role gets "closed" when there was an instant, while it looked, at which the other role was gone; a consumer only if the queue was empty then, too. Seats are read one after the other, so they are read twice: if all
//! were free both times, and none was taken meanwhile (each take counts), all were free in between; and in between a consumer looks whether the queue is empty. One look would not do: who hands over to another
//! that has come already may have been met neither here nor there. What the last producer put before it let go of its seat is seen by whoever finds that free.
//! Whoever uses the queue without a role is not waited for, and waits as ever.
//!
//! # Who sleeps, and who wakes
//!
//! Who sleeps with a role watches, beside the words of both sides, the used seats of the other role and the next one: so who takes that for the first time is watched before it is there. Its taker raises `used` with the lock
//! held, and then wakes everybody, once for each seat: they go on to watch one more. Whoever is woken, by whatever, looks for both kinds of news, that all are gone and that there is one more seat, and tells all.
//!
//! | killed | what is there | who mends it |
//! |---|---|---|
//! | taking a seat, before `used` covers it | a free lock that nobody looks at | nobody needs to |
//! | after that, before everybody is woken | a free seat, which all who sleep watch | the kernel wakes one of them, who tells the others if all are gone |
//! | the same, and another has the seat before, but had not noted it | a free seat that nobody watches | that other is there, and watched: whoever is woken by its end finds one seat more, and tells all |
//! | with a seat | a free seat | the kernel wakes one of those who watch it, who tells the others if all are gone |
//! | letting go, before the lock is free | the same | |
//! | after it, before everybody is told | the same: to free the lock wakes one of those who watch | whoever is woken tells the others |
//! | the one who was woken, before it has told | | whoever let go tells all; if that one was killed, too: what is pending names the side on which the woken one sleeps, as in every sleep there, and the kernel wakes the next, who looks, too; if that is one without a role, or does not quite sleep yet, the others find out within a second (two deaths) |
//!
//! What the kernel misses is found by those who sleep, once a second, by every 61st futile look of those who do not, and by who finds no seat. The first, brief sleeps of a wait watch no seats, and last 5 ms each.
//!
//! *Modelled* (`models/src/roles.rs`), and each of these was otherwise before the model was there: that the next seat is watched (`ci/models.sh NextUnwatched`), that one seat more is told again
//! (`ci/models.sh --deep FirstUseNotRetold`), the second look (`ci/models.sh OneLook`), and that a death in a seat is settled before that is taken (`ci/models.sh HeirStays`).
#![allow(unsafe_code, reason = "takes seats, whose mapping the handle keeps")]

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, ProcessOwned, RobustLock};
use multiproc_shm::Error;

use crate::memory::Memory;
use crate::side_table::Locks;
use crate::view::View;

/// What a process says that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Producer,
    Consumer,
}

/// Seats of each role.
pub const SEATS: usize = 60;

impl<'a, M: Memory> View<'a, M> {
    /// Whether there were such, and are no more.
    #[inline]
    pub fn are_gone(self, role: Peer) -> bool {
        self.seem_gone(role) && self.are_gone_while(role, || true)
    }

    /// Whether there was an instant at which this was so, and there had been such, and were no more.
    #[cold]
    pub fn are_gone_while(self, role: Peer, so: impl FnOnce() -> bool) -> bool {
        let before = self.absence(role);
        before.is_some() && so() && self.absence(role) == before
    }

    /// The same, seat by seat: while one hands over to another, both may be missed.
    #[inline]
    pub fn seem_gone(self, role: Peer) -> bool {
        let seats = self.seats(role);
        // ORDER: SeqCst pairs with the release of a seat: what its holder did before is seen by whoever finds it free.
        !seats.is_empty() && !seats.iter().any(RobustLock::is_held_now)
    }

    /// If there were such, and none was met: how many seats were used, and how often they had been taken.
    fn absence(self, role: Peer) -> Option<(usize, u64)> {
        let seats = self.seats(role);
        // ORDER: as above; and `used` first: who has come before this is looked for. Counts only grow, so two sums are the same only if all of their parts are.
        let takes: u64 = seats.iter().map(|seat| seat.free_since().map(u64::from)).sum::<Option<_>>()?;
        (!seats.is_empty()).then_some((seats.len(), takes))
    }

    /// How many are there.
    pub fn present(self, role: Peer) -> usize {
        self.seats(role).iter().filter(|seat| seat.is_held_now()).count()
    }

    /// Those that were ever taken.
    #[inline]
    fn seats(self, role: Peer) -> &'a [RobustLock] {
        self.used_locks(Locks::Members(role))
    }

    /// Those, and the next: what is watched by one who waits for these, and has a role, and therefore memory for them.
    pub fn watched_seats(self, others: Option<Peer>) -> &'a [RobustLock] {
        let Some(role) = others else { return &[] };
        let (every, next) = (self.every(Locks::Members(role)), usize::from(!is_planted(Bug::NextMemberUnwatched)));
        &every[..(self.seats(role).len() + next).min(every.len())]
    }

    /// All seats of this role. The first time they get memory.
    pub fn all_seats(self, role: Peer) -> Result<&'a [RobustLock], Error> {
        self.all(Locks::Members(role))
    }

    /// Takes a seat among all of this role, for this process; which, and who keeps it.
    pub fn take_seat(self, role: Peer, seats: &[RobustLock]) -> Result<(usize, ProcessOwned), AcquireError> {
        ProcessOwned::ready()?;
        loop {
            for (at, seat) in seats.iter().enumerate() {
                if let Some(kept) = self.take_this_seat(role, at, seat)? {
                    return Ok((at, kept));
                }
            }
            // Of all 60, some may be of the dead, and nobody has noticed.
            if seats.iter().filter(|seat| seat.mark_dead_owner()).count() == 0 {
                return Err(AcquireError::NoFreeSlot);
            }
        }
    }

    /// `None`: somebody has it.
    fn take_this_seat(self, role: Peer, at: usize, seat: &RobustLock) -> Result<Option<ProcessOwned>, AcquireError> {
        // CRASH: a free seat, which looks to one who noted it before, and is about to sleep, as it did not then. Should we die in it ourselves, it looks as it did, but by then what he compares last is another one.
        if seat.acknowledge_death(|_| ()) {
            self.touch_both();
        }
        // SAFETY: whoever keeps it keeps a handle, also if that is leaked.
        if unsafe { seat.claim() }?.is_none() {
            return Ok(None);
        }
        // CRASH: this thread's until it is its process's, which die together.
        // SAFETY: as above.
        let kept = match unsafe { seat.transfer_to_process() } {
            Ok(kept) => kept,
            Err(error) => {
                // Somebody may have seen it held.
                seat.release_claim(|| self.touch_both(), || self.tell_if_gone(role));
                return Err(error);
            }
        };
        // CRASH: from here on it is looked at; and who sleeps watches it, as the next one.
        if self.use_up_to(Locks::Members(role), at + 1) {
            // They are to watch the next one.
            self.tell_all();
        }
        Ok(Some(kept))
    }

    /// Lets go of a seat of this process.
    pub fn leave_seat(self, role: Peer, at: usize, kept: ProcessOwned) {
        // One who is about to sleep may have noted this seat before it was taken, and would find it unchanged once it is free, and we are dead: what it compares last is another one.
        self.touch_both();
        // CRASH: to free it wakes one of those who watch it, who tells the others.
        if self.every(Locks::Members(role)).get(at).is_some_and(|seat| seat.release_process_owned(kept)) {
            self.tell_if_gone(role);
        }
    }

    fn touch_both(self) {
        self.ring().producers.advance();
        self.ring().consumers.advance();
    }

    /// Tells everybody who sleeps, if all of this role are gone, or seem to be: they look themselves.
    fn tell_if_gone(self, role: Peer) {
        if self.seem_gone(role) {
            self.tell_all();
        }
    }
}
