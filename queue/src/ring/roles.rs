//! Who is there: so that nobody waits for those who will never come.
//!
//! # Seats
//!
//! A process that says "I put" or "I get" (a *role*) takes one of 60 *seats* of that role, and has it until it lets go of it, or dies. A seat is a robust lock, taken [watched](RobustLock::take_watched) and
//! [kept](RobustLock::keep) for the process: so the kernel frees it, and wakes one of those who watch it, at whatever end of the process. The lock alone says that somebody is there; nothing is counted.
//! `used` says how many seats, from the first on, were ever taken: those are looked at, and watched.
//!
//! | `used` | seats before it | they |
//! |---|---|---|
//! | 0 | | have not come yet: they are waited for |
//! | more | one is held | are there |
//! | more | all are free | **are gone**, until another comes |
//!
//! Who waits with a role gets "closed" when the other role is gone; a consumer only if the queue is empty, too. "Gone" is read first and "empty" after it: what the last producer put before it let go of its seat is seen then.
//! Whoever uses the queue without a role is not waited for, and waits as ever.
//!
//! # Who sleeps, and who wakes
//!
//! Who sleeps with a role watches the used seats of the other role beside the words of both sides. A seat that is used for the first time is not among them; so its taker raises `used` with the lock held, and then wakes everybody, once for each seat.
//!
//! | killed | what is there | who mends it |
//! |---|---|---|
//! | taking a seat, before `used` covers it | a free lock that nobody looks at | nobody needs to |
//! | after that, before everybody is woken | a free seat. Those who sleep do not watch it, but another seat that is or was held | if it was the last one there, that other's end woke one of them, who found this one there and watches both; so this death wakes it |
//! | with a seat | a free seat | the kernel wakes one of those who watch it, who tells the others if all are gone |
//! | letting go, before the lock is free | the same | |
//! | after it, before everybody is told | the same: to free the lock wakes one of those who watch | that one tells the others |
//! | the one who was woken, before it has told | | its pending names the side on which it sleeps, as in every sleep there: the kernel wakes the next, who looks, too; if that is one without a role, the others find out within a second (two deaths) |
//!
//! What the kernel misses is found by those who sleep, once a second, and by every 61st futile poll. The first, brief sleep of a wait watches no seats, and lasts 5 ms.
#![allow(unsafe_code, reason = "takes seats, whose mapping the handle keeps")]

use multiproc_shm::{AcquireError, Acquired, Error, Kept, RobustLock};

use super::View;
use super::annex::Locks;
use crate::log::Memory;

/// What a process says that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    Consumer,
}

/// Seats of each role.
pub(crate) const SEATS: usize = 60;

impl<'a, M: Memory> View<'a, M> {
    /// Whether there were such, and are no more.
    #[inline]
    pub(crate) fn are_gone(self, role: Role) -> bool {
        let seats = self.used_locks(Locks::Seats(role));
        // ORDER: SeqCst pairs with the release of a seat: what its holder did before is seen by whoever finds it free.
        !seats.is_empty() && !seats.iter().any(RobustLock::is_held_now)
    }

    /// How many are there.
    pub(crate) fn present(self, role: Role) -> usize {
        self.used_locks(Locks::Seats(role)).iter().filter(|seat| seat.is_held_now()).count()
    }

    /// All seats of this role. The first time they get memory.
    pub(crate) fn all_seats(self, role: Role) -> Result<&'a [RobustLock], Error> {
        self.all(Locks::Seats(role))
    }

    /// Takes a seat among all of this role, for this process; which, and who keeps it.
    pub(crate) fn take_seat(self, role: Role, seats: &[RobustLock]) -> Result<(usize, Kept), AcquireError> {
        Kept::ready()?;
        for (at, seat) in seats.iter().enumerate() {
            // SAFETY: whoever keeps it keeps a handle, also if that is leaked.
            let Some(how) = unsafe { seat.take_watched() }? else { continue };
            if how != Acquired::Clean {
                // As in `leave_seat`: should we die like that one, the seat looks as it did before.
                self.touch_both();
            }
            // CRASH: this thread's until it is its process's, which die together.
            // SAFETY: as above.
            let kept = match unsafe { seat.keep() } {
                Ok(kept) => kept,
                Err(error) => {
                    seat.give_watched(|| (), || ());
                    return Err(error);
                }
            };
            if self.use_up_to(Locks::Seats(role), at + 1) {
                // Those who sleep do not watch it yet.
                self.tell_all();
            }
            return Ok((at, kept));
        }
        Err(AcquireError::NoPlace)
    }

    /// Lets go of a seat of this process.
    pub(crate) fn leave_seat(self, role: Role, at: usize, kept: Kept) {
        // One who is about to sleep may have noted this seat before it was taken, and would find it unchanged once it is free, and we are dead: what it compares last is another one.
        self.touch_both();
        // CRASH: to free it wakes one of those who watch it, who tells the others.
        if self.every(Locks::Seats(role)).get(at).is_some_and(|seat| seat.release_kept(kept)) && self.are_gone(role) {
            self.tell_all();
        }
    }

    fn touch_both(self) {
        self.ring().producers.touch();
        self.ring().consumers.touch();
    }
}
