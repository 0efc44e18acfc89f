//! Leases: jobs that are handed out, and come back if their holder dies.
//!
//! # Leases
//!
//! A job that is handed out lies in a *lease*: a [`RobustLock`](multiproc_robust::RobustLock) that its holder
//! has [claimed](multiproc_robust::RobustLock::claim), three words that the claim guards, and an area for the
//! job's bytes. The first word is its state:
//!
//! | claim | state | the lease is |
//! |---|---|---|
//! | free | `FREE` | free |
//! | held | `FREE` | about to be filled, or done a moment ago |
//! | held | `LEASED` | a job that its holder has |
//! | free | `LEASED` | a job that came back [1] |
//! | any | `TAKING`, n | to be filled with message n of the log [2] |
//! | any | `TO_LETTERS`, n | to become dead letter n [3] |
//! | any | `FROM_LETTERS`, n | to be filled with dead letter n [4] |
//!
//! 1. Its holder has died, or has given it back. It is handed out before what is in the log.
//! 2. `LEASED` if the head has passed n, else `FREE`.
//! 3. `FREE` if there is such a dead letter, else `LEASED`.
//! 4. `LEASED` if the head of the dead-letter log has passed n, else `FREE`.
//!
//! # Who moves what
//!
//! - **get**, holding the consumers' lock: take the claim of a free lease; copy the message there; `TAKING`,
//!   n; `head` (the commit); `LEASED`. Or take the claim of a lease whose job came back, and count the
//!   delivery.
//! - **done**, without any other lock: `FREE` (the commit), then the claim is released.
//! - **give back**: the epoch of the producers' side is advanced if a thread may be parked there; the claim
//!   is released.
//! - **leased too often**, holding the consumers' lock: the claim; `TO_LETTERS`, n; append to the dead-letter
//!   log (the commit); `FREE`.
//! - **dead letters taken or replayed**: with the consumers' lock, too. Of the locks of their own log only
//!   the producers' is ever taken, if it is to be had at once, to give memory back.
//!
//! Nothing is counted: the unfinished jobs are the jobs in the log, and the jobs in leases that are not
//! `FREE`.
//!
//! # What a death leaves
//!
//! | killed | what is there | repaired by |
//! |---|---|---|
//! | in `get`, before `TAKING` | a free lease with rubbish in its area | nothing to repair |
//! | in `get`, between `TAKING` and `LEASED` | as the table above says; the consumers' lock says owner died | the next owner of that lock [5] |
//! | with a job | a job that came back | one that the kernel wakes [6] |
//! | in `done`, before `FREE` | as with a job | the same |
//! | in `done`, after `FREE` | a free lease; waiting threads perhaps not notified | one that the kernel wakes [7] |
//! | while a job becomes a dead letter, or a dead letter a job | as the table above says | as in `get` |
//!
//! 5. It repairs the lease before the head moves again, so n decides.
//! 6. The kernel frees the claim and wakes one of the threads that are parked for jobs: all of them watch all
//!    leases.
//! 7. The claim is still held, or the pending entry names it. The woken thread notifies the others.
//!
//! A holder that is *stopped* keeps its job. What the kernel misses (a robust list cut short) is found by
//! parked threads, once a second.
//!
//! # Which words a parked thread watches, and which thread wakes it
//!
//! A consumer parks as in any queue (`Side`), and also watches the claims of all leases that were ever used.
//! A consumer that uses a lease for the first time wakes all. A thread that waits for the last job to be done
//! (`join`) watches the same claims, but has a word of its own to be woken by. So it takes no wake-up of a
//! consumer, except that of a death, and passes that on. A thread that has made a lease `FREE` looks, with
//! the claim still watched. If it was the last, it wakes the joining threads. If the queue is closed and its
//! log empty, it wakes the consumers. If a consumer waits for a free lease, it wakes one.
//!
//! A claim's word is the same before a job was in the lease and after. So a thread could note the word
//! before, look while the job was leased, compare the word after the job came back, and sleep; and the holder
//! could be killed before its wake-up. Therefore a thread that gives a job back, or takes a claim from a dead
//! holder, first advances the epoch that consumers compare last. A thread that has done a job advances it,
//! too, for consumers that wait for a free lease, and the word that joining threads compare last.
//!
//! "The last job is done" is decided so: the log is empty at the head; each lease is free, its claim read
//! before its state; the log is still empty at the same head. The head has not moved, so nothing was put (a
//! put that was taken moves it), and nothing went from the log to a lease between the two looks. Each lease's
//! job was done when it was seen; so at the second look all was done.
//!
//! The files: `lease.rs` has the types; `lease/hand_out.rs` hands jobs out and takes them back;
//! `lease/areas.rs` fills leases; `lease/look.rs` looks without a lock; `lease/wait.rs` waits;
//! `lease/letters.rs` is the dead-letter log.
#![allow(unsafe_code, reason = "takes claims, whose mapping the handle keeps")]

use std::ops::Deref;

use multiproc_ring::{ConsumerEnd, ConsumerGuard, Refusal, View};
use multiproc_robust::{Acquired, Deadline, RobustLock, SidePeer};

use crate::jobs::block::Jobs;

mod areas;
mod hand_out;
mod letters;
mod look;
mod wait;

/// The states, in the low half of the word; the number of a message in the high half.
const FREE: u64 = 0;
const LEASED: u64 = 1;
const TAKING: u64 = 2;
const TO_LETTERS: u64 = 3;
const FROM_LETTERS: u64 = 4;

/// A queue of jobs as this process sees it: its ring, and the leases beside it. One pointer, as [`View`].
pub(crate) struct JobView<'a, M>(View<'a, M>);

/// The same as the thread sees it that holds the consumers' lock: it alone hands jobs out. It is for the time
/// of its [`JobGuard`].
struct JobEnd<'a, M>(JobView<'a, M>);

/// The consumers' lock, held by this thread.
#[must_use = "the lock is held until the guard leaves"]
struct JobGuard<'a, M>(ConsumerGuard<'a, M>);

/// A job that this thread has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leased {
    /// Which lease it is in.
    pub(crate) number: usize,
    /// How often it was handed out, this time included.
    pub(crate) deliveries: u32,
    /// Its holder before, if there was one.
    pub(crate) last: Option<Last>,
}

/// The last holder of a job, and whether it died with the job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    /// Process id << 32 | thread id; 0 if the holder died before it had signed.
    pub(crate) holder: u64,
    pub(crate) died: bool,
}

/// A job that no consumer got done.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) deliveries: u32,
    pub(crate) last: Last,
    pub(crate) message: Vec<u8>,
}

impl<'a, M: Jobs> JobView<'a, M> {
    #[inline(always)]
    pub(crate) fn new(memory: &'a M) -> Self {
        Self(View::new(memory))
    }

    /// Enters the consumers' side, and repairs the leases if the last owner of the lock died.
    #[inline(always)]
    fn enter(self, deadline: Deadline) -> Result<JobGuard<'a, M>, Refusal> {
        self.enter_as_consumer(deadline, move |_| JobEnd(self).recover_leases()).map(JobGuard)
    }
}

impl<'a, M: Jobs> JobGuard<'a, M> {
    /// The queue, with the lock held.
    #[inline(always)]
    fn end(&self) -> JobEnd<'a, M> {
        JobEnd(JobView(*self.0.end()))
    }

    /// Leaves the consumers' side.
    fn leave(self, progress: bool) {
        let peer = JobPeer(JobView(*self.0.end()));
        self.0.leave_as(peer, progress);
    }
}

impl<'a, M: Jobs> JobEnd<'a, M> {
    /// The consumers' end of the ring, whose lock this thread holds.
    #[inline(always)]
    fn ring_end(self) -> ConsumerEnd<'a, M> {
        self.ends_guarded_elsewhere().1
    }
}

/// What a consumer of jobs that leaves is asked.
struct JobPeer<'a, M>(JobView<'a, M>);

impl<M: Jobs> SidePeer for JobPeer<'_, M> {
    fn more(&self, _: bool) -> bool {
        self.0.has_job()
    }

    fn worth_it(&self) -> bool {
        self.0.offers_room()
    }

    fn news(&self) -> bool {
        self.0.has_room_for_some()
    }
}

/// Takes a claim of a lease if it is free.
fn claim(lock: &RobustLock) -> Result<Option<Acquired>, Refusal> {
    // SAFETY: the handle keeps the mapping, also while this thread holds a claim in it.
    unsafe { lock.claim() }.map_err(Refusal::Lock)
}

impl<M> Clone for JobView<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for JobView<'_, M> {}

impl<M> Clone for JobEnd<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for JobEnd<'_, M> {}

impl<'a, M> Deref for JobView<'a, M> {
    type Target = View<'a, M>;

    #[inline(always)]
    fn deref(&self) -> &View<'a, M> {
        &self.0
    }
}

impl<'a, M> Deref for JobEnd<'a, M> {
    type Target = JobView<'a, M>;

    #[inline(always)]
    fn deref(&self) -> &JobView<'a, M> {
        &self.0
    }
}
