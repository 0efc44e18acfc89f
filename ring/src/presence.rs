//! Which claims are held: whether members are connected, and whether a reservation is being filled. Looks
//! without a lock; the protocols are in `members.rs` and `reserve.rs`.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Acquire};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{ClaimSet, EventCount, RobustLock, UsedCount, low};
use multiproc_shm::Error;

use crate::header::{Header, Mark};
use crate::memory::Memory;
use crate::view::View;
use crate::words::{Peer, ReservationWords};

impl<'a, M: Memory> View<'a, M> {
    /// The claims of the members of this kind.
    #[inline]
    pub(crate) fn members(self, peer: Peer) -> ClaimSet<'a, AtomicU16> {
        let locks: &[_] = self.memory.side_table().map_or(&[], |table| &table.members[peer as usize]);
        ClaimSet::new(locks, &self.consumer_notes().members[peer as usize])
    }

    /// The claims of reservations.
    #[inline]
    pub(crate) fn reservations(self) -> ClaimSet<'a, AtomicU16> {
        let locks: &[_] = self.memory.side_table().map_or(&[], |table| &table.reservations);
        ClaimSet::new(locks, &self.consumer_notes().reservations)
    }

    /// Sets memory aside for the side table, if it has none yet.
    ///
    /// # Errors
    ///
    /// The system has no memory.
    pub fn populate_side_table(self) -> Result<(), Error> {
        if self.ring().has_side_table() {
            return Ok(());
        }
        // CRASH: memory that no thread looks at; the next that needs it sets it aside once more.
        self.memory.populate_side_table()
    }

    /// Where it is noted that the end was notified again; `None`: there never was a member or a reservation.
    pub(crate) fn end_notified(self) -> Option<&'a AtomicU64> {
        self.memory.side_table().filter(|_| self.ring().has_side_table()).map(|table| &table.end_notified)
    }

    /// For the threads that wait for a claim of a reservation; they wait only once all claims are used.
    pub(crate) fn claim_waiters(self) -> Option<&'a EventCount> {
        self.memory
            .side_table()
            .filter(|_| !self.reservations().used().is_empty())
            .map(|table| &table.waiters)
    }

    /// Whether there were such peers, and all have disconnected.
    #[inline]
    pub(crate) fn are_disconnected(self, peer: Peer) -> bool {
        self.seem_disconnected(peer) && self.were_disconnected_while(peer, || true)
    }

    /// Whether there was an instant at which `condition` held, and at which all such peers had disconnected.
    #[cold]
    pub(crate) fn were_disconnected_while(self, peer: Peer, condition: impl FnOnce() -> bool) -> bool {
        let before = self.absence(peer);
        before.is_some() && condition() && self.absence(peer) == before
    }

    /// The same, claim by claim: while one peer hands over to another, both may be missed.
    #[inline]
    pub(crate) fn seem_disconnected(self, peer: Peer) -> bool {
        let claims = self.members(peer).used();
        // ORDER: SeqCst pairs with the release of a claim: a thread that finds it free sees what its holder
        // did before.
        !claims.is_empty() && !claims.iter().any(RobustLock::is_held_now)
    }

    /// If there were such peers and none was met: how many claims were used, and how often they had been
    /// taken.
    fn absence(self, peer: Peer) -> Option<(usize, u64)> {
        // ORDER: `used` first, then the claims, as above: a peer that came before this is looked for. Epochs
        // only grow, so two sums are equal only if all their parts are.
        let claims = self.members(peer).used();
        let epochs: u64 = claims.iter().map(|claim| claim.free_since().map(u64::from)).sum::<Option<_>>()?;
        (!claims.is_empty()).then_some((claims.len(), epochs))
    }

    /// Returns how many such peers are connected.
    pub fn connected(self, peer: Peer) -> usize {
        self.members(peer).used().iter().filter(|claim| claim.is_held_now()).count()
    }

    /// What a member watches that waits for these peers: their used claims, and the next one. (It is a member
    /// itself, so the claims have memory.)
    pub(crate) fn watched_members(self, others: Option<Peer>) -> &'a [RobustLock] {
        let Some(peer) = others else { return &[] };
        let (claims, next) = (self.members(peer), usize::from(!is_planted(Bug::NextMemberUnwatched)));
        &claims.all()[..(claims.used().len() + next).min(claims.all().len())]
    }

    /// Whether a producer still fills the reservation with this mark, which was read before; `None`: there is
    /// no such claim.
    pub(crate) fn is_being_filled(self, mark: Mark) -> Option<bool> {
        let claim = self.reservations().get(mark.claim())?;
        // ORDER: Acquire pairs with the commit and the release of the claim, and with the next holder's store
        // of the generation: what the holder has committed before that is seen after this.
        Some(claim.is_held_now() && mark.is_of(low(generation_of(claim).load(Acquire))))
    }

    /// Whether there is something to be done about a header at the head that is not empty.
    #[cold]
    #[inline(never)]
    pub(crate) fn is_something(self, position: u32, header: Header) -> bool {
        // A contradiction is for the consumer that gets the lock to report.
        let Header::Reserved { mark, .. } = self.behind_jump(position, header) else { return true };
        self.is_being_filled(mark) != Some(true)
    }
}

/// The word that counts how often the claim of a reservation was taken, or given up.
pub(crate) fn generation_of(claim: &RobustLock) -> &AtomicU64 {
    &claim.guarded_as::<ReservationWords>().generation
}

/// Notes that the first `count` claims are used, and returns whether that is news. Only news is written: the
/// cache line is read often.
pub(crate) fn raise_used<U: UsedCount>(claims: ClaimSet<'_, U>, count: usize) -> bool {
    count > claims.used().len() && claims.raise_used(count)
}
