//! The outcomes of taking a lock ([`Acquired`], [`AcquireError`]), and the threads that held or hold one
//! ([`Death`], [`Owner`]).

use std::fmt;
use std::num::NonZeroU64;

use crate::thread::{self, NoList};
use crate::word::{high, low};

/// How this thread took a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after `OwnerDied` what the lock guards may need repair"]
#[allow(clippy::exhaustive_enums, reason = "every caller must handle both")]
pub enum Acquired {
    /// The last owner released it.
    Clean,
    /// The last owner died holding it.
    OwnerDied(Death),
}

/// The thread that died while it held a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Death(NonZeroU64);

impl Death {
    const MARK: u64 = 1 << 63;

    /// Returns the death of this owner (process id << 32 | thread id), for objects that note one themselves.
    pub fn of(owner: u64) -> Self {
        // The mark makes it non-zero; process ids are far too small to reach it.
        NonZeroU64::new(owner | Self::MARK).map_or(Self(NonZeroU64::MIN), Self)
    }

    /// Returns its process. `None` if it was killed in the few instructions between taking the lock and
    /// writing its name there.
    ///
    /// In that case the name of an earlier owner may still be there. If that thread has ended, too, it is
    /// taken for the dead owner. This is the only case in which the wrong one of two dead threads is named.
    pub fn pid(self) -> Option<u32> {
        let pid = high(self.0.get() & !Self::MARK);
        (pid != 0).then_some(pid)
    }

    /// Returns its thread; `None` as for [`pid`](Self::pid).
    pub fn tid(self) -> Option<u32> {
        self.pid().map(|_| low(self.0.get()))
    }
}

impl fmt::Debug for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Death").field("pid", &self.pid()).field("tid", &self.tid()).finish()
    }
}

/// The thread that holds a lock, as seen from inside the pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// Its process; `None` if `/proc` does not name it.
    pub pid: Option<u32>,
    /// Its thread id.
    pub tid: u32,
}

/// Why a lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The deadline came first.
    #[error("timed out")]
    TimedOut,
    /// This thread holds the lock already; waiting would never end.
    #[error("already held by this thread")]
    AlreadyHeld,
    /// This thread holds as many locks as the kernel is sure to release at its death.
    #[error("this thread holds {} locks already", thread::MAX_HELD)]
    TooManyHeld,
    /// This thread has taken a recursive lock as often as the lock can count.
    #[error("taken too many times by this thread")]
    TooDeep,
    /// The caller asked for more permits than there are.
    #[error("there are not so many permits")]
    TooMany,
    /// The kernel or libc gave this thread no robust list.
    #[error("no robust list for this thread")]
    Unsupported,
    /// The guard was copied by a fork: the parent holds its lock.
    #[error("not held by this process: a fork has copied the guard")]
    NotHeld,
    /// The object has a fixed number of slots for waiters, readers or members, and all of them are taken.
    #[error("all its slots are taken")]
    NoFreeSlot,
    /// The owner thread, which holds what belongs to the whole process, could not be started.
    #[error("the owner thread of this process could not be started")]
    NoOwnerThread,
}

impl From<NoList> for AcquireError {
    fn from(_: NoList) -> Self {
        Self::Unsupported
    }
}

/// Why a lock could not be taken, and the object that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0.0, .0.1)]
pub struct LockError(Box<(String, AcquireError)>);

impl LockError {
    /// Returns the error for this object, with this cause. For the handles of other crates.
    pub fn new(object: String, cause: AcquireError) -> Self {
        Self(Box::new((object, cause)))
    }

    /// Returns the cause.
    pub fn cause(&self) -> AcquireError {
        self.0.1
    }
}
