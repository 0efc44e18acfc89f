//! Places in the log that are filled without a lock: reservations.
//!
//! # What a reservation is
//!
//! A record at the tail, appended like any other, whose header says `Reserved`: how long it is, and the *mark* of whoever fills it, which is one of [`MOST`] locks, taken
//! [watched](RobustLock::claim), and the turn, as which the lock's holder has taken it (the first word beside the lock, the *turn word*). So it has its place in the order, and counts against the capacity,
//! before anything is in it. The locks lie in the [`side_table`](super::side_table).
//!
//! | header | lock of the mark | turn word | the record is |
//! |---|---|---|---|
//! | `Message` | any | any | a message like others |
//! | `Reserved` | held | the mark's | being filled: for a consumer, as if nothing were there yet |
//! | `Reserved` | free, or its owner died | the mark's | a hole: its producer has died |
//! | `Reserved` | any | another | a hole: its producer has given it up, or has died, and the lock is another's |
//!
//! The lock and the turn are read after the header, and the header once more after them: it may have become a message in between, and if it has not by then it never will.
//!
//! # Who moves what
//!
//! - **reserve**, holding the producers' lock: take a free lock; its turn word + 1; append the record.
//! - **fill**, holding that lock: words of the payload. Nobody else touches them: the head stays before the record, so the words are neither used again nor given back.
//! - **commit**: the header becomes that of a message (the commit); the lock is given back; those who wait are told.
//! - **give up**: the turn word + 1 (the commit); the rest as above.
//! - **get**, holding the consumers' lock, finding a hole: the head moves over it, and it is counted as if it had been taken.
//!
//! # What a death leaves
//!
//! | killed | what is there | who mends it |
//! |---|---|---|
//! | in `reserve`, before the header | nothing; a lock that the kernel frees | nobody needs to |
//! | in `reserve`, between header and `tail` | a hole that `tail` does not count | the next producer, as after any put |
//! | while it fills | a hole | the kernel wakes one of those who sleep for messages or for a lock, for all of them watch all these locks that were ever used; whoever gets next moves the head over it |
//! | in `commit`, after the header | a message; those who wait may not have been told | the lock is still its own, or its pending names it: the kernel wakes one of those who watch |
//! | in `give up`, after the turn word | a hole, and the same | the same |
//! | in `reserve`, having found no room, when the lock is given back | a free lock | it holds the producers' lock, too: as after any put |
//! | in the first `reserve` with a lock, when it is noted as used and the sleepers, who do not watch it yet, have not been told | a free lock | who takes over the producers' lock tells them, before anybody can reserve |
//!
//! A producer that is *stopped* keeps its place, and what comes behind it waits: the order is kept.
//!
//! # Why no wake is lost
//!
//! As with the slots of jobs (`lease.rs`): who is about to sleep notes all these locks, then looks, and what it compares last is the announce word of the producers' side. Whoever takes such a lock or gives it back moves that
//! ([`touch`](multiproc_robust::Side::advance)), so a lock that was taken and freed in between, and looks the same, is found out. (For a getter this is more than is needed, since nobody takes such a lock without the producers', whose
//! taking moves that word, too; who waits for a lock compares another last, and needs it.) Between the taking of a dead owner's lock and its turn word a hole looks as if it were being filled: who takes it has the producers' lock, and
//! wakes whoever went to sleep for that when it leaves; dies it before, the producers' lock tells. A put behind a reservation wakes somebody who finds nothing and sleeps again; so whoever takes the reserved message, or moves the head
//! over a hole, passes the wake on, as every get does.
//!
//! Who waits for a free lock is of a third role: it has a word of its own (`waiters`), and passes on what wakes of the kernel it gets.
//!
//! Those who have a role sleep also when all producers are gone, as long as a place is being filled. Whoever fills it tells all; has he died, one is woken, perhaps one without a role, and perhaps when another has got over the hole
//! already: he tells all, too, and where nothing is there any more once for each head (`TOLD`), or those without a role would wake each other for ever.
//!
//! # Why nobody is kept awake
//!
//! A queue may be full although nobody can get: its first place is being filled. Then there are sleepers on both sides, and each who wakes, looks and leaves would wake one of the other side, for ever. So who comes in vain, and who
//! passes on what may have been a dead one's wake, first looks whether there is something for the other side ([`leave_without_progress`](multiproc_robust::Side::leave_without_progress)).
//!
//! *Modelled* (`models/src/places.rs`); the last two paragraphs were not so before the model was there (`ci/models.sh --deep RolelessForgets`; `ci/models.sh VainWakes`, `ci/models.sh PassesOnAlways`).
#![allow(unsafe_code, reason = "takes locks, whose mapping the handle keeps")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use multiproc_robust::{AcquireError, Acquired, Deadline, RobustLock, Sleep, this_cpu};
use multiproc_shm::copy;

use crate::log::record_words;
use crate::log::{Cursor, Header, Log, Mark, Payload};
use crate::memory::Memory;
use crate::record::Content;
use crate::side_table::Locks;
use crate::sink::{InPlace, Sink};
use crate::view::{Appended, Found, HEAD, Refusal, TAIL, TRIES, View};
use crate::wait::{Wait, bury_now_and_then};

/// So many places may be reserved at once.
pub const MOST: usize = 8;
/// The word beside a lock that counts how often it was taken or given up.
const TURN: usize = 0;
/// A place in the log that this thread fills.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    lock: usize,
    /// Of its header.
    position: u32,
    length: u32,
}

/// A record of which only the header is written.
#[derive(Clone, Copy)]
struct Blank {
    length: u32,
    mark: Mark,
}

impl Content for Blank {
    fn length(self) -> usize {
        self.length as usize
    }

    fn header(self) -> u64 {
        Header::Reserved { length: self.length, mark: self.mark }.word()
    }

    /// What fills the last word up is zeros.
    #[allow(clippy::cast_possible_truncation, reason = "`reserve` found it short enough")]
    fn write(self, log: Log<'_>, position: u32) {
        if let Some(last) = copy::words(self.length as usize).checked_sub(1) {
            log.at(position.wrapping_add(last as u32)).store(0, Relaxed);
        }
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// Reserves the next place for a message of `length` bytes.
    pub fn reserve(self, length: usize, deadline: Deadline) -> Result<Reservation, Refusal> {
        let need = record_words(length).filter(|_| length <= self.log().sizes.longest()).ok_or(Refusal::TooLarge)?;
        let length = u32::try_from(length).map_err(|_| Refusal::TooLarge)?;
        let mut wait = Wait::default();
        loop {
            self.enter(&self.ring().producers, deadline, || self.recover())?;
            let begun = self.begin(length);
            let mut done = Ok(Appended::NoRoom);
            if let Ok(Some((lock, blank))) = begun {
                done = self.append(blank, need, || wait.may_grow || deadline == Deadline::NOW);
                if done == Ok(Appended::Yes) {
                    let position = Cursor::load(self.producer(TAIL)).position.wrapping_sub(need);
                    self.leave_producers();
                    return Ok(Reservation { lock, position, length });
                }
                // CRASH: a lock that nobody has made a mark with: no getter needs to hear of it.
                self.give_back_lock(lock, |_| (), || ());
                self.pass_on_room();
            }
            self.leave_producers_without_progress();
            match begun? {
                Some(_) => self.wait_to_append(done?, &mut wait, need, None, deadline)?,
                None => self.wait_for_lock(deadline)?,
            }
        }
    }

    /// Where the payload goes, if this thread may write it: not in a forked child.
    pub fn payload_of(self, reservation: Reservation) -> Option<Payload<'a>> {
        let Reservation { lock, position, length } = reservation;
        let mine = self.places().get(lock).is_some_and(RobustLock::is_held_by_this_thread);
        mine.then(|| Payload::new(self.log(), position.wrapping_add(1), length as usize))
    }

    /// Makes a message of it; false, and nothing done, when it is not this thread's.
    pub fn commit(self, reservation: Reservation) -> bool {
        let Reservation { lock, position, length } = reservation;
        let header = Header::Message { length, cpu: this_cpu() }.word();
        // ORDER: SeqCst, hence Release, pairs with the Acquire in `take`; and either a sleeper's look sees it, or we see the sleeper. CRASH: the commit: before it a hole, after it the whole message.
        self.give_back_lock(lock, |_| self.log().at(position).store(header, SeqCst), || self.tell_getters())
    }

    /// Leaves a hole; false, and nothing done, when it is not this thread's.
    pub fn give_up(self, reservation: Reservation) -> bool {
        let commit = |lock: &RobustLock| {
            // ORDER: SeqCst, hence Release, pairs with the loads in `is_being_filled`. CRASH: the commit; before it, a hole by the lock alone.
            lock.guarded[TURN].store(lock.guarded[TURN].load(Relaxed).wrapping_add(1), SeqCst);
        };
        self.give_back_lock(reservation.lock, commit, || self.tell_getters())
    }

    fn give_back_lock(self, lock: usize, commit: impl FnOnce(&RobustLock), tell: impl FnOnce()) -> bool {
        let (Some(lock), Some(waiters)) = (self.places().get(lock), self.waiters()) else { return false };
        let producers = &self.ring().producers;
        let last = || {
            commit(lock);
            // Who is about to sleep may have noted the lock as it will be: see the head of this file.
            producers.advance();
            waiters.advance();
        };
        // CRASH: while it tells, the lock is still named by our pending: one of those who watch it is woken, and tells the others (`retell`).
        lock.release_claim(last, || {
            tell();
            if waiters.has_waiters() {
                waiters.wake_all();
            }
        })
    }

    fn tell_getters(self) {
        let producers = &self.ring().producers;
        if producers.has_waiters() {
            if self.is_ending() {
                // For those to whom this was all that could still come.
                producers.notify_all();
            } else {
                producers.notify_one();
            }
        }
    }

    /// With the producers' lock: takes a lock, and tells what the header is to say; `None` if all are taken.
    #[allow(clippy::cast_possible_truncation, reason = "a lock's number, and of a turn the lower bits are wanted")]
    fn begin(self, length: u32) -> Result<Option<(usize, Blank)>, Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        let all = self.all(Locks::Reservations).map_err(|_| Refusal::NoSpace)?;
        let producers = &self.ring().producers;
        for (number, lock) in all.iter().enumerate().filter(|(_, lock)| !lock.is_held_now()) {
            // SAFETY: the handle keeps the mapping, also while this thread holds a lock in it.
            let Some(how) = unsafe { lock.claim() }.map_err(Refusal::Lock)? else { continue };
            let turn = lock.guarded[TURN].load(Relaxed).wrapping_add(1);
            // ORDER: Release pairs with the load in `is_being_filled`: who sees this turn finds what the last one has committed.
            lock.guarded[TURN].store(turn, Release);
            producers.advance();
            if let (Acquired::OwnerDied(_), Some(waiters)) = (how, self.waiters()) {
                // Who is about to sleep for a lock may have noted it as the dead one left it, and as it will be again if we die, too.
                waiters.advance();
            }
            if self.use_up_to(Locks::Reservations, number + 1) {
                // Those who sleep do not watch it. CRASH: noted, nobody told: `recover` tells them.
                producers.notify_all();
            }
            return Ok(Some((number, Blank { length, mark: Mark::new(number as u32, turn as u32) })));
        }
        Ok(None)
    }

    #[cold]
    fn wait_for_lock(self, deadline: Deadline) -> Result<(), Refusal> {
        let all = self.places();
        // (None of them is used, if a peer lies.)
        let all_mine = all.iter().all(RobustLock::is_held_by_this_thread);
        let Some(waiters) = self.waiters().filter(|_| deadline != Deadline::NOW && !all_mine) else {
            bury_now_and_then([all, &[]]);
            return Err(Refusal::Busy);
        };
        let how = Sleep { watched: [all, &[]], bell: Some(waiters), ..Sleep::new(false, deadline) };
        let ready = || has_free(all) || self.is_closed();
        let (producers, consumers) = (&self.ring().producers, &self.ring().consumers);
        let woken = || {
            self.retell(None);
            // It takes no message, so the wake of a death was another's, too.
            if producers.has_waiters() && self.has_data() {
                producers.notify_one();
            }
        };
        let news = || self.has_room_for_some();
        let awake = producers.sleep(consumers, how, ready, news, woken).map_err(Refusal::Lock)?;
        if awake { Ok(()) } else { Err(Refusal::Busy) }
    }

    /// Rubbish in what a peer can write, but for the locks.
    #[cfg(test)]
    pub fn scribble_on_place(self, number: usize, rubbish: u64) {
        if let Some(lock) = self.every(Locks::Reservations).get(number) {
            lock.guarded[TURN].store(rubbish, SeqCst);
        }
    }

    /// The locks that were ever taken.
    fn places(self) -> &'a [RobustLock] {
        self.used_locks(Locks::Reservations)
    }

    /// Whoever waits for a free lock may not have been told by one who died.
    pub fn retell_waiters(self) {
        if let Some(waiters) = self.waiters()
            && waiters.has_waiters()
            && (self.is_closed() || has_free(self.places()))
        {
            waiters.wake_all();
        }
    }

    /// Whether somebody still fills what lies behind this mark, which was read before; `None`: there is no such lock.
    fn is_being_filled(self, mark: Mark) -> Option<bool> {
        let lock = self.places().get(mark.lock())?;
        // ORDER: Acquire, both: what its holder has committed before it gave the lock back, or before another took it, is seen after this.
        Some(lock.is_held_now() && mark.is_of(turn(lock)))
    }

    /// With the consumers' lock: takes what may have been reserved when its header was read.
    #[cold]
    #[inline(never)]
    pub fn take_reserved(self, head: Cursor, header: Header, message: &mut impl Sink) -> Result<(Found, Cursor), Refusal> {
        let Header::Reserved { length, mark } = header else { return Ok((Found::Nothing, head)) };
        if self.is_being_filled(mark).ok_or(Refusal::Corrupt)? {
            return Ok((Found::Nothing, head));
        }
        match Header::from(self.log().at(head.position).load(Acquire)) {
            Header::Message { length, cpu } => self.take_found(head, length, cpu, message),
            same if same == header && self.may_be(head, length as usize) => {
                let need = record_words(length as usize).ok_or(Refusal::Corrupt)?;
                Ok((Found::Hole, head.after(need)))
            }
            _ => Err(Refusal::Corrupt),
        }
    }

    /// Without a lock, of a header at the head that is not empty: whether there is something to be done about it.
    #[cold]
    #[inline(never)]
    pub fn is_something(self, head: Cursor, mut header: Header) -> bool {
        if let Header::Jump(index) = header {
            header = Header::from(self.log().at(self.log().sizes.onward(head.position, index)).load(SeqCst));
        }
        // A contradiction is for whoever gets the lock to report.
        let Header::Reserved { mark, .. } = header else { return true };
        self.is_being_filled(mark) != Some(true)
    }

    /// Without a lock: the position of the oldest record's header, and what it is as long as there is nothing to be taken.
    pub fn front(self, head: Cursor) -> (u32, u64) {
        let mut position = head.position;
        let mut word = self.log().at(position).load(Acquire);
        if let Header::Jump(index) = Header::from(word) {
            position = self.log().sizes.onward(position, index);
            word = self.log().at(position).load(Acquire);
        }
        if matches!(Header::from(word), Header::Reserved { .. }) { (position, word) } else { (head.position, 0) }
    }

    /// Having moved the head over a hole: only a hostile log has many of them, and there a call that must not wait ends all the same.
    pub fn go_on_after_hole(self, wait: &mut Wait, deadline: Deadline) -> Result<(), Refusal> {
        wait.holes += 1;
        if wait.holes > TRIES && deadline.has_passed() { Err(Refusal::Busy) } else { Ok(()) }
    }

    /// Shows the oldest message where it lies, with the consumers' lock, and takes it.
    pub fn get_with<R>(self, deadline: Deadline, read: impl FnOnce(Payload<'a>) -> R) -> Result<R, Refusal> {
        if deadline == Deadline::NOW && !self.has_data() {
            return Err(self.nothing(None));
        }
        let mut wait = Wait::default();
        loop {
            self.enter(&self.ring().consumers, deadline, || ())?;
            let mut left = Leave { view: self, moved: false };
            let head = Cursor::load(self.consumer(HEAD));
            let mut message = InPlace::default();
            let pause = match self.take(head, &mut message)? {
                (Found::Taken, next) => {
                    let start = next.position.wrapping_sub(record_words(message.length).ok_or(Refusal::Corrupt)? - 1);
                    // CRASH: the message is still there. (A panic unwinds to `Leave`, and it is still there, too.)
                    let result = read(Payload::new(self.log(), start, message.length));
                    if !self.ring().consumers.lock().is_held_by_this_thread() {
                        return Err(Refusal::Lock(AcquireError::NotHeld));
                    }
                    self.move_head(next);
                    left.moved = true;
                    drop(left);
                    self.tidy(head, next);
                    return Ok(result);
                }
                (Found::Hole, next) => {
                    self.move_head(next);
                    left.moved = true;
                    drop(left);
                    self.tidy(head, next);
                    self.go_on_after_hole(&mut wait, deadline)?;
                    continue;
                }
                (Found::Longer(_), _) => return Err(Refusal::Corrupt),
                (Found::Nothing, _) => self.next_pause(head),
            };
            drop(left);
            self.wait_or_end(&mut wait, pause, head, None, deadline)?;
        }
    }
}

/// Leaves the consumers' side, also when a closure panics.
struct Leave<'a, M: Memory> {
    view: View<'a, M>,
    moved: bool,
}

impl<M: Memory> Drop for Leave<'_, M> {
    fn drop(&mut self) {
        self.view.leave_consumers_after(self.moved);
    }
}

fn has_free(locks: &[RobustLock]) -> bool {
    locks.iter().any(|lock| !lock.is_held_now())
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn turn(lock: &RobustLock) -> u32 {
    lock.guarded[TURN].load(Acquire) as u32
}
