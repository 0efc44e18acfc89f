#![doc = include_str!("../README.md")]

mod barrier;
mod condition;
mod event;
mod lock;
mod rwlock;

pub use barrier::{Barrier, BarrierBlock, BarrierError, BarrierWaitResult, Broken, MAX_PARTIES};
pub use condition::{Condition, ConditionBlock};
pub use event::{Event, EventBlock};
pub use lock::{Lock, LockBlock, LockGuard};
pub use multiproc_shm::{AcquireError, Death, Error, ErrorKind, Guarded, LockError, Owner};
pub use rwlock::{ReadGuard, RwLock, RwLockBlock, WriteGuard};
