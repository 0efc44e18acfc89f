//! [`Barrier`]: nobody goes on before everybody is there.
//!
//! The protocol, and why a death among the waiting reaches the others, is in `barrier/parties.rs`; this is its handle.

mod block;
mod parties;

use std::fmt;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline};
use multiproc_shm::Shared;
use serde::{Deserialize, Serialize};

pub use block::{BarrierBlock, MAX_PARTIES};
use parties::Parties;

/// A place where a number of parties wait for each other, again and again (Python's `Barrier`), by name or as a handle in an argument or message.
///
/// A *party* is a thread of any process, in [`wait`](Self::wait). When the last one arrives all go on, and the next round begins. A barrier may **break**: when a
/// party's time-out comes first, when somebody calls [`abort`](Self::abort), when an action panics, or when a party dies. Then all who wait get an error, and so does everybody who
/// comes, until somebody calls [`reset`](Self::reset).
///
/// # When a process dies
///
/// A party that dies while it waits breaks the barrier for the others at once; the error tells its [`pid`](BarrierError::pid). So does one that dies in the action. If it dies when it was already released, the others are
/// released, too. One that dies elsewhere, before it comes, is no party yet, and is waited for: that is what time-outs are for. Whoever dies in `abort` or `reset` has done it, for everybody, or has not. A stopped party is waited for.
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

/// What [`Barrier::wait`] tells a party that was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: usize,
    leader: bool,
}

impl BarrierWaitResult {
    /// In which order the parties of this round have come: 0 is the first, `parties - 1` the last.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether this is the one party of the round that came last, and ran the action if there was one.
    pub fn is_leader(&self) -> bool {
        self.leader
    }
}

/// Why a party was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A party died while it waited, or in the action.
    #[error("broken: {} died", .0.map_or("a party".into(), |pid| format!("process {pid}")))]
    PartyDied(Option<u32>),
    /// This party's own time-out came first, and has broken the barrier for all.
    #[error("broken: timed out")]
    TimedOut,
    /// Broken by another one: an abort, a reset, a time-out, a panic in the action.
    #[error("broken")]
    ByOther,
    /// This thread cannot take part: it is in this barrier already (in the action), or it holds too many locks. The barrier is as it was.
    #[error(transparent)]
    Refused(#[from] AcquireError),
}

/// Why a party was not released, and at which barrier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0.0, .0.1)]
pub struct BarrierError(Box<(String, Broken)>);

impl BarrierError {
    /// What went wrong.
    pub fn cause(&self) -> Broken {
        self.0.1
    }

    /// The process that died, if that broke it.
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
    /// Waits until all parties are there, as long as it takes.
    ///
    /// # Errors
    ///
    /// [`BarrierError`]: it is broken.
    pub fn wait(&self) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::NEVER, || ())
    }

    /// Waits until all parties are there, at most this long: then the barrier breaks, for all.
    ///
    /// # Errors
    ///
    /// [`BarrierError`]: it is broken.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::after(timeout), || ())
    }

    /// As [`wait`](Self::wait); the last one to come runs its `action` before anybody goes on.
    ///
    /// # Errors
    ///
    /// [`BarrierError`]: it is broken.
    ///
    /// # Panics
    ///
    /// If `action` does. The barrier is then broken for the others.
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::NEVER, action)
    }

    /// As [`wait_timeout`](Self::wait_timeout), with an action as in [`wait_with`](Self::wait_with). Time runs on while the action does, for those who wait for it.
    ///
    /// # Errors
    ///
    /// [`BarrierError`]: it is broken.
    ///
    /// # Panics
    ///
    /// If `action` does. The barrier is then broken for the others.
    pub fn wait_timeout_with(
        &self,
        timeout: Duration,
        action: impl FnOnce(),
    ) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::after(timeout), action)
    }

    /// Breaks it: all who wait, and all who come, get an error, until it is [`reset`](Self::reset).
    pub fn abort(&self) {
        Parties::of(&self.shared).abort();
    }

    /// Makes it usable again, and empty: those who wait get an error, those who come from now on wait.
    pub fn reset(&self) {
        Parties::of(&self.shared).reset();
    }

    /// How many parties it waits for.
    pub fn parties(&self) -> usize {
        Parties::of(&self.shared).len()
    }

    /// How many wait in it now; 0 when they have been released, even if some are still on their way out.
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        Parties::of(&self.shared).is_broken()
    }

    fn wait_until(
        &self,
        deadline: Deadline,
        action: impl FnOnce(),
    ) -> Result<BarrierWaitResult, BarrierError> {
        let parties = Parties::of(&self.shared);
        match parties.wait(deadline, action) {
            Ok(index) => Ok(BarrierWaitResult { index, leader: index + 1 == parties.len() }),
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
