#![doc = include_str!("../README.md")]

mod claim;
mod deadline;
mod death_watch;
mod event_count;
mod lock;
mod outcome;
mod permits;
#[doc(hidden)]
pub mod planted_bugs;
mod process_owned;
mod raw_event;
#[cfg(feature = "lock_api")]
mod raw_mutex;
mod side;
mod spin;
mod sys;
mod thread;
mod wait_set;
mod wait_slot;
mod word;
mod words;

#[cfg(feature = "lock_api")]
pub use ::lock_api;
pub use claim::{ClaimSet, UsedCount};
pub use deadline::Deadline;
pub use death_watch::DeathWatch;
pub use event_count::EventCount;
pub use lock::RobustLock;
pub use outcome::{AcquireError, Acquired, Death, LockError, Owner};
pub use permits::{MAX_PERMITS, Permits, Taken, spread};
pub use process_owned::ProcessOwned;
pub use raw_event::RawEvent;
#[cfg(feature = "lock_api")]
pub use raw_mutex::{RawRobustMutex, RobustMutex};
pub use side::{Park, Side, SidePeer, Waiter};
pub use spin::{EAGER, NO_CPU, spin, this_cpu, without_spinning};
pub use thread::{
    FUTEX_OFFSET, MAX_HELD, NoList, ThisThread, has_ended, is_thread_of_this_process, pid_namespace,
    process_of, signal_of_zombie, thread_id,
};
pub use wait_set::{BRIEF, MAX_WATCHED_WORDS};
pub use wait_slot::WaitSlot;
pub use word::{high, low};
pub use words::{Atomic, SharedWords};
