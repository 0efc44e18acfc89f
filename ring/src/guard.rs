//! The locks of the two sides as types: entering a side returns a guard, leaving it consumes the guard.
//!
//! A guard is not `Copy`, so it is left once. It lends the *end* whose lock is held ([`ProducerEnd`],
//! [`ConsumerEnd`]), which has the methods that need the lock. An end is `Copy`, and one pointer like the
//! [`View`]: a reference to a guard would be written to the stack before each call that is not inlined. An
//! end is for the time of its guard; only the files of this crate, and the jobs of `queue`, hold one.
//!
//! A guard that is dropped does not leave: no code between entering and leaving can fail or panic, except a
//! closure of the user's, and `get.rs` has a guard of its own for that.
#![allow(unsafe_code, reason = "enters a side, whose mapping the handle keeps")]

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use multiproc_robust::{AcquireError, Acquired, Deadline, Side, SidePeer};

use crate::memory::Memory;
use crate::view::{Refusal, View};

/// How long a call that must not wait lets another thread finish its own put or get.
const MOMENT: Duration = Duration::from_millis(1);

/// The producers' lock, held by this thread.
#[must_use = "the lock is held until the guard leaves"]
pub(crate) struct ProducerGuard<'a, M>(ProducerEnd<'a, M>);

/// The consumers' lock, held by this thread.
#[must_use = "the lock is held until the guard leaves"]
pub struct ConsumerGuard<'a, M>(ConsumerEnd<'a, M>);

/// A ring as the thread sees it that holds the producers' lock.
pub struct ProducerEnd<'a, M>(View<'a, M>);

/// A ring as the thread sees it that holds the consumers' lock.
pub struct ConsumerEnd<'a, M>(View<'a, M>);

macro_rules! ends {
    ($($end:ident $guard:ident),*) => {$(
        impl<M> Clone for $end<'_, M> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<M> Copy for $end<'_, M> {}

        impl<'a, M> Deref for $end<'a, M> {
            type Target = View<'a, M>;

            #[inline(always)]
            fn deref(&self) -> &View<'a, M> {
                &self.0
            }
        }

        impl<'a, M> Deref for $guard<'a, M> {
            type Target = $end<'a, M>;

            #[inline(always)]
            fn deref(&self) -> &$end<'a, M> {
                &self.0
            }
        }

        impl<M> fmt::Debug for $end<'_, M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).finish_non_exhaustive()
            }
        }

        impl<M> fmt::Debug for $guard<'_, M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($guard)).finish_non_exhaustive()
            }
        }
    )*};
}
ends!(ProducerEnd ProducerGuard, ConsumerEnd ConsumerGuard);

impl From<AcquireError> for Refusal {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::TimedOut => Self::Busy,
            cause => Self::Lock(cause),
        }
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// Enters the producers' side. `recover` repairs what a dead owner of the lock left.
    #[inline(always)]
    pub(crate) fn enter_as_producer(
        self,
        deadline: Deadline,
        recover: impl FnOnce(ProducerEnd<'a, M>) + Copy,
    ) -> Result<ProducerGuard<'a, M>, Refusal> {
        let end = ProducerEnd(self);
        self.enter(self.producers(), deadline, move || recover(end))?;
        Ok(ProducerGuard(end))
    }

    /// The same, if the lock is to be had without waiting.
    pub(crate) fn enter_as_producer_at_once(
        self,
        recover: impl FnOnce(ProducerEnd<'a, M>) + Copy,
    ) -> Option<ProducerGuard<'a, M>> {
        let end = ProducerEnd(self);
        self.enter_once(self.producers(), Deadline::NOW, move || recover(end)).ok()?;
        Some(ProducerGuard(end))
    }

    /// Enters the consumers' side. `recover` repairs what a dead owner of the lock left.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`], [`Refusal::Lock`].
    #[inline(always)]
    pub fn enter_as_consumer(
        self,
        deadline: Deadline,
        recover: impl FnOnce(ConsumerEnd<'a, M>) + Copy,
    ) -> Result<ConsumerGuard<'a, M>, Refusal> {
        let end = ConsumerEnd(self);
        self.enter(self.consumers(), deadline, move || recover(end))?;
        Ok(ConsumerGuard(end))
    }

    /// Returns both ends of a ring whose own locks do not guard them: another lock does, and the caller holds
    /// that.
    pub fn ends_guarded_elsewhere(self) -> (ProducerEnd<'a, M>, ConsumerEnd<'a, M>) {
        (ProducerEnd(self), ConsumerEnd(self))
    }

    #[inline(always)]
    fn enter(self, side: &Side, deadline: Deadline, recover: impl FnOnce() + Copy) -> Result<(), Refusal> {
        match self.enter_once(side, deadline, recover) {
            Err(AcquireError::TimedOut) if deadline == Deadline::NOW => self.enter_in_a_moment(side, recover),
            entered => entered.map_err(Refusal::from),
        }
    }

    /// A call that must not wait lets another thread finish what takes a moment.
    #[cold]
    fn enter_in_a_moment(self, side: &Side, recover: impl FnOnce() + Copy) -> Result<(), Refusal> {
        self.enter_once(side, Deadline::after(MOMENT), recover).map_err(Refusal::from)
    }

    #[inline(always)]
    fn enter_once(self, side: &Side, deadline: Deadline, recover: impl FnOnce()) -> Result<(), AcquireError> {
        // SAFETY: the mapping lives as long as the handle, which `'a` borrows; each path leaves the guard
        // before it returns.
        if let Acquired::OwnerDied(_) = unsafe { side.enter(deadline) }? {
            self.take_over(recover);
        }
        Ok(())
    }

    /// Repairs what the last owner of a lock, which died, may have left undone.
    #[cold]
    fn take_over(self, recover: impl FnOnce()) {
        self.count_death();
        recover();
        self.notify_again(None);
    }
}

impl<'a, M: Memory> ProducerGuard<'a, M> {
    /// The ring, with the lock held.
    #[inline(always)]
    pub(crate) fn end(&self) -> ProducerEnd<'a, M> {
        self.0
    }

    /// Leaves after a put.
    #[inline]
    pub(crate) fn leave(self) {
        let view = *self.0;
        view.producers().leave(view.consumers(), ProducerPeer(view));
    }

    /// Leaves without having appended anything: consumers are woken only for what a dead producer may have
    /// left.
    #[cold]
    pub(crate) fn leave_without_progress(self) {
        let view = *self.0;
        view.producers().leave_without_progress(view.consumers(), ProducerPeer(view));
    }
}

impl<'a, M: Memory> ConsumerGuard<'a, M> {
    /// Returns the ring, with the lock held.
    #[inline(always)]
    pub fn end(&self) -> ConsumerEnd<'a, M> {
        self.0
    }

    /// Leaves after a get.
    #[inline]
    pub(crate) fn leave(self) {
        let view = *self.0;
        view.consumers().leave(view.producers(), ConsumerPeer(view));
    }

    /// Leaves, having moved the head or not.
    pub(crate) fn leave_after(self, moved: bool) {
        let view = *self.0;
        self.leave_as(ConsumerPeer(view), moved);
    }

    /// Leaves with or without progress, for consumers that wait for other things.
    pub fn leave_as(self, peer: impl SidePeer, progress: bool) {
        let view = *self.0;
        if progress {
            view.consumers().leave(view.producers(), peer);
        } else {
            view.consumers().leave_without_progress(view.producers(), peer);
        }
    }
}

/// What a producer that leaves is asked.
struct ProducerPeer<'a, M>(View<'a, M>);

impl<M: Memory> SidePeer for ProducerPeer<'_, M> {
    fn more(&self, brief: bool) -> bool {
        self.0.has_more_room(brief)
    }

    fn worth_it(&self) -> bool {
        true
    }

    fn news(&self) -> bool {
        self.0.has_news()
    }
}

/// What a consumer that leaves is asked.
struct ConsumerPeer<'a, M>(View<'a, M>);

impl<M: Memory> SidePeer for ConsumerPeer<'_, M> {
    fn more(&self, _: bool) -> bool {
        self.0.has_data()
    }

    fn worth_it(&self) -> bool {
        self.0.offers_room()
    }

    fn news(&self) -> bool {
        self.0.has_room_for_some()
    }
}
