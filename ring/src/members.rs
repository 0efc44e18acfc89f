//! Members: processes that say that they put, or that they get. So no thread waits for peers that will never
//! come.
//!
//! # Claims
//!
//! A process that registers as a peer (producer or consumer) becomes a *member*: it takes one of 60 claims of
//! that kind, and has it until it deregisters or dies. A claim is a robust lock, [claimed](RobustLock::claim)
//! and then [transferred to the process](RobustLock::transfer_to_process). So the kernel frees it at every
//! kind of end of the process, and wakes one thread that watches it. The lock alone says that a member is
//! there; nothing is counted. How many claims, from the first on, were ever taken (`used`) is noted: those
//! are looked at.
//!
//! | `used` | the claims before it | such peers |
//! |---|---|---|
//! | 0 | | have not come yet: they are waited for |
//! | more | one is held | are connected |
//! | more | all are free, at one instant | **have disconnected**, until another comes |
//!
//! A member that waits gets "closed" if there was an instant, while it looked, at which all peers had
//! disconnected; a consumer only if the queue was also empty then. Claims are read one after the other, so
//! they are read twice. If all were free both times, and none was taken meanwhile (each time a claim is
//! taken, its epoch advances), all were free in between; and in between, a consumer looks whether the queue
//! is empty. One look would not do: of two peers, of which one registers before the other deregisters, it may
//! meet neither. A thread that finds the claim of the last producer free sees what that producer put before
//! it deregistered. A process that uses the queue without being a member is not waited for, and waits without
//! an end.
//!
//! # Which words a parked thread watches, and which thread wakes it
//!
//! A member that parks watches, beside the words of both sides, the used claims of its peers and the next
//! one. So the peer that takes the next claim for the first time is watched before it is there. That peer
//! raises `used` with the claim held, and then wakes all parked threads, once for each claim: they go on to
//! watch one claim more. A thread that is woken, by whatever, looks for both: whether all peers have
//! disconnected, and whether there is one claim more. It notifies all.
//!
//! | killed | what is there | repaired by |
//! |---|---|---|
//! | registering, before `used` covers the claim | a free claim that no thread looks at | nothing to repair |
//! | after that, before all are woken | a free claim that all parked threads watch | one that the kernel wakes [1] |
//! | the same, and the claim before it is taken but not noted | a free claim that no thread watches | the member before it [2] |
//! | as a member | a free claim | one that the kernel wakes [1] |
//! | deregistering, before the claim is free | the same | the same |
//! | after that, before all are notified | the same: freeing the claim wakes a watcher | the thread that is woken |
//! | the thread that was woken, before it has notified | | the deregistering process, or the next thread [3] |
//!
//! 1. That thread notifies the others if all peers have disconnected.
//! 2. That member is there, and watched. A thread that is woken by its end finds one claim more, and notifies
//!    all.
//! 3. The deregistering process notifies all. If it was killed, too: the pending entry of the woken thread
//!    names the side on which it was parked, as in every sleep there. So the kernel wakes the next thread,
//!    which looks, too. If that thread is no member, or is not quite parked yet, the others find out within
//!    one second (two deaths).
//!
//! What the kernel misses is found by parked threads once a second, by every 61st futile look of threads that
//! do not park, and by a process that finds no free claim. The first, brief sleeps of a wait watch no claims,
//! and last 5 ms each.
//!
//! *Modelled* (`models/src/membership.rs`). Each of these was otherwise before the model was there: the next
//! claim is watched (`ci/models.sh NextUnwatched`); one claim more is notified again
//! (`ci/models.sh --deep FirstUseNotNotifiedAgain`); the second look (`ci/models.sh OneLook`); a death in a
//! claim is acknowledged before the claim is taken (`ci/models.sh DeathNotCleared`).
#![allow(unsafe_code, reason = "takes claims, whose mapping the handle keeps")]

use multiproc_robust::{AcquireError, ProcessOwned, RobustLock};

use crate::memory::Memory;
use crate::presence::raise_used;
use crate::view::View;
use crate::words::Peer;

impl<M: Memory> View<'_, M> {
    /// Takes a claim of this kind for this process, in a [populated](View::populate_side_table) side table.
    /// Returns its number and its owner.
    ///
    /// # Errors
    ///
    /// [`AcquireError::NoFreeSlot`]: there are as many members as possible; or there is no owner thread.
    pub fn register(self, peer: Peer) -> Result<(usize, ProcessOwned), AcquireError> {
        ProcessOwned::ready()?;
        let claims = self.members(peer).all();
        loop {
            for (number, claim) in claims.iter().enumerate() {
                if let Some(owned) = self.register_as(peer, number, claim)? {
                    return Ok((number, owned));
                }
            }
            // Of all 60, some may be held by dead processes, which no thread has noticed.
            if claims.iter().filter(|claim| claim.mark_dead_owner()).count() == 0 {
                return Err(AcquireError::NoFreeSlot);
            }
        }
    }

    /// `None`: another process has this claim.
    fn register_as(
        self,
        peer: Peer,
        number: usize,
        claim: &RobustLock,
    ) -> Result<Option<ProcessOwned>, AcquireError> {
        // CRASH: a free claim. A thread that noted it before, and is about to sleep, compares another word
        // last, which has advanced: so it looks again. Should this process die in the claim, too, the claim
        // looks as it did, but that word does not.
        if claim.acknowledge_death(|| (), |_, ()| ()) {
            self.advance_both();
        }
        // SAFETY: the process that owns the claim keeps a handle, also if that is leaked.
        if unsafe { claim.claim() }?.is_none() {
            return Ok(None);
        }
        // CRASH: this thread's until it is its process's: both die together.
        // SAFETY: as above.
        let owned = match unsafe { claim.transfer_to_process() } {
            Ok(owned) => owned,
            Err(error) => {
                // Another thread may have seen it held.
                claim.release_claim(|| self.advance_both(), || self.notify_if_disconnected(peer));
                return Err(error);
            }
        };
        // CRASH: from here on the claim is looked at; and parked threads watch it, as the next one.
        if raise_used(self.members(peer), number + 1) {
            // They are to watch the next one.
            self.notify_everyone();
        }
        Ok(Some(owned))
    }

    /// Releases a claim of this process.
    pub fn deregister(self, peer: Peer, number: usize, owned: ProcessOwned) {
        // A thread that is about to sleep may have noted this claim before it was taken, and would find it
        // unchanged once it is free and this process dead: what that thread compares last has advanced.
        self.advance_both();
        // CRASH: freeing the claim wakes a thread that watches it, which notifies the others.
        if self.members(peer).all().get(number).is_some_and(|claim| claim.release_process_owned(owned)) {
            self.notify_if_disconnected(peer);
        }
    }

    /// Wakes all parked threads if all such peers seem to have disconnected: they look themselves.
    fn notify_if_disconnected(self, peer: Peer) {
        if self.seem_disconnected(peer) {
            self.notify_everyone();
        }
    }
}
