//! What a [`Side`](crate::Side) asks the threads that leave it or park on it.

use crate::deadline::Deadline;
use crate::event_count::EventCount;
use crate::lock::RobustLock;

/// What a thread that leaves a side is asked, without a lock, about what both sides wait for.
pub trait SidePeer {
    /// Returns whether what this side waits for is still there, for one more of its parked threads. `brief`:
    /// all of them are parked briefly, and look again by themselves.
    fn more(&self, brief: bool) -> bool;

    /// Returns whether a thread that is parked briefly on this side should be woken after progress.
    fn worth_it(&self) -> bool;

    /// Returns whether there is new work for the threads that are parked on this side, though the leaving
    /// thread made no progress: a thread that died may have brought it.
    fn news(&self) -> bool;
}

/// What a thread waits for that parks on a [`Side`](crate::Side).
pub trait Waiter {
    /// Returns whether it may have come. Asked without a lock.
    fn ready(&self) -> bool;

    /// Returns whether there is new work for the threads that are parked on the waiter's own side: see
    /// [`SidePeer::news`].
    fn news(&self) -> bool;

    /// Notifies again what a thread that died may have left unsaid. Called after a wake-up, while the death
    /// of this thread would still be noticed.
    fn woken(&self);
}

/// How to park on a [`Side`](crate::Side).
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "to be filled in by the caller")]
pub struct Park<'a> {
    /// For at most 5 ms, and without watching for deaths: the first sleep of a wait. The fields `watched` and
    /// `event` do not count then.
    pub brief: bool,
    /// Until when.
    pub deadline: Deadline,
    /// [Claims](crate::ClaimSet) whose holders' deaths end the sleep of one of the threads that watch them;
    /// of more than 125 the first.
    pub watched: [&'a [RobustLock]; 2],
    /// What the thread is woken by, instead of the side: for a third kind of waiter, which must not take the
    /// wake-ups of the others.
    pub event: Option<&'a EventCount>,
}

impl Park<'_> {
    /// Parks on the side, watching both sides and nothing else.
    pub const fn new(brief: bool, deadline: Deadline) -> Self {
        Self { brief, deadline, watched: [&[], &[]], event: None }
    }
}

/// No thread is ever parked on such a side.
#[derive(Clone, Copy)]
pub(super) struct NoPeer;

impl SidePeer for NoPeer {
    fn more(&self, _: bool) -> bool {
        false
    }

    fn worth_it(&self) -> bool {
        false
    }

    fn news(&self) -> bool {
        false
    }
}
