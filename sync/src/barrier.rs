//! [`Barrier`]: a fixed number of threads wait for each other, across processes.
//!
//! This is the handle. The protocol, and why the death of a waiting participant reaches the others, is
//! described in `barrier/participants.rs`.

mod block;
mod participants;
mod rounds;

use std::fmt;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline};
use multiproc_shm::Shared;
use serde::{Deserialize, Serialize};

use block::Participants;
pub use block::{BarrierBlock, MAX_PARTIES};

/// A barrier at which a fixed number of participants wait for each other, again and again (Python's
/// `Barrier`), found by name or sent as a handle in an argument or message.
///
/// A *participant* (Python's *party*) is a thread of any process, in [`wait`](Self::wait). When the last one
/// arrives, all of them go on, and the next round begins.
///
/// A barrier may **break**: if the time-out of a participant comes first, if a process calls
/// [`abort`](Self::abort), if an action panics, or if a participant dies. Then all waiting participants get
/// an error, and so does every thread that comes, until a process calls [`reset`](Self::reset).
///
/// # When a process dies
///
/// A participant that dies while it waits breaks the barrier for the others at once; the error names its
/// [`pid`](BarrierError::pid). So does a participant that dies in the action. If it was already released when
/// it dies, the others are released, too. A process that dies before it comes is no participant yet, and the
/// others wait for it: that is what time-outs are for. A process that is killed in `abort` or `reset` has
/// done it, for all, or has not. A stopped participant is waited for.
///
/// ```
/// use multiproc_sync::Barrier;
///
/// let barrier = Barrier::new(3)?;
/// std::thread::scope(|s| {
///     let parties = [(); 3].map(|()| s.spawn(|| barrier.wait().unwrap()));
///     let leaders = parties.map(|party| party.join().unwrap().is_leader());
///     assert_eq!(leaders.iter().filter(|leads| **leads).count(), 1);
/// });
/// # Ok::<(), multiproc_sync::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Barrier {
    shared: Shared<BarrierBlock>,
}

/// What [`Barrier::wait`] returns to a participant that was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: usize,
    leader: bool,
}

impl BarrierWaitResult {
    /// Returns this participant's number in the order of arrival: 0 is the first, `parties - 1` the last.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns whether this participant came last in its round, and ran the action if there was one.
    pub fn is_leader(&self) -> bool {
        self.leader
    }
}

/// Why a participant was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A participant died while it waited, or in the action: its process, if that is known.
    #[error("broken: {} died", .0.map_or("a party".into(), |pid| format!("process {pid}")))]
    PartyDied(Option<u32>),
    /// This participant's own time-out came first, and has broken the barrier for all.
    #[error("broken: timed out")]
    TimedOut,
    /// Another thread has broken it: an abort, a reset, a time-out, or a panic in the action.
    #[error("broken")]
    ByOther,
    /// This thread cannot take part: it is in this barrier already (in the action), or it holds too many
    /// locks. The barrier is as it was.
    #[error(transparent)]
    Refused(#[from] AcquireError),
}

/// Why a participant was not released, and at which barrier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0.0, .0.1)]
pub struct BarrierError(Box<(String, Broken)>);

impl BarrierError {
    /// Returns what went wrong.
    pub fn cause(&self) -> Broken {
        self.0.1
    }

    /// Returns the process whose death broke the barrier, if that is the cause.
    pub fn pid(&self) -> Option<u32> {
        match self.cause() {
            Broken::PartyDied(pid) => pid,
            _ => None,
        }
    }
}

multiproc_shm::verbs! {
    impl[] Barrier { shared: BarrierBlock };
    "barrier" "for so many participants"; new(parties: usize) => parties;
    invalid "`parties` is not 1 to `MAX_PARTIES`"; differs "it is for another number of participants";
}

impl Barrier {
    /// Waits until all participants have arrived, as long as necessary.
    ///
    /// # Errors
    ///
    /// Returns [`BarrierError`] if the barrier is broken.
    pub fn wait(&self) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::NEVER, || ())
    }

    /// Waits until all participants have arrived, at most `timeout`.
    ///
    /// If they have not arrived by then, the barrier breaks, for all.
    ///
    /// # Errors
    ///
    /// Returns [`BarrierError`] if the barrier is broken.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::after(timeout), || ())
    }

    /// Waits as [`wait`](Self::wait) does. The last participant runs its `action` before any of them goes on.
    ///
    /// # Errors
    ///
    /// Returns [`BarrierError`] if the barrier is broken.
    ///
    /// # Panics
    ///
    /// Panics if `action` does. The barrier is then broken for the others.
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::NEVER, action)
    }

    /// Waits as [`wait_timeout`](Self::wait_timeout) does, with an action as in
    /// [`wait_with`](Self::wait_with).
    ///
    /// The time-outs of the waiting participants run on while the action runs.
    ///
    /// # Errors
    ///
    /// Returns [`BarrierError`] if the barrier is broken.
    ///
    /// # Panics
    ///
    /// Panics if `action` does. The barrier is then broken for the others.
    pub fn wait_timeout_with(
        &self,
        timeout: Duration,
        action: impl FnOnce(),
    ) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::after(timeout), action)
    }

    /// Breaks the barrier: every waiting participant, and every thread that comes, gets an error.
    ///
    /// That lasts until the barrier is [`reset`](Self::reset).
    pub fn abort(&self) {
        Participants::of(&self.shared).abort();
    }

    /// Makes the barrier usable again, and empty.
    ///
    /// Waiting participants get an error; threads that come from now on wait.
    pub fn reset(&self) {
        Participants::of(&self.shared).reset();
    }

    /// Returns how many participants a round has.
    pub fn parties(&self) -> usize {
        Participants::of(&self.shared).len()
    }

    /// Returns how many participants wait now.
    ///
    /// The number is 0 once they have been released, even if some have not left yet.
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }

    /// Returns whether the barrier is broken.
    pub fn is_broken(&self) -> bool {
        Participants::of(&self.shared).is_broken()
    }

    fn wait_until(
        &self,
        deadline: Deadline,
        action: impl FnOnce(),
    ) -> Result<BarrierWaitResult, BarrierError> {
        let participants = Participants::of(&self.shared);
        match participants.wait(deadline, action) {
            Ok(index) => Ok(BarrierWaitResult { index, leader: index + 1 == participants.len() }),
            Err(cause) => Err(BarrierError(Box::new((self.shared.describe(), cause)))),
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Barrier");
        shown
            .field("object", &self.shared)
            .field("waiting", &self.waiting())
            .field("parties", &self.parties());
        shown.field("broken", &self.is_broken()).finish()
    }
}
