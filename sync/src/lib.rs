#![doc = include_str!("../README.md")]

mod barrier;
mod bounded;
mod condition;
mod event;
mod lock;
mod rlock;
mod rwlock;
mod semaphore;
mod timeout;

pub use barrier::{Barrier, BarrierBlock, BarrierError, BarrierWaitResult, Broken, MAX_PARTIES};
pub use bounded::{BoundedBlock, BoundedSemaphore};
pub use condition::{Condition, ConditionBlock};
pub use event::{Event, EventBlock};
pub use lock::{Lock, LockBlock, LockGuard};
pub use multiproc_robust::{AcquireError, Death, LockError, Owner};
pub use multiproc_shm::{Error, ErrorKind, Suspend};
pub use rlock::{RLock, RLockBlock, RLockGuard};
pub use rwlock::{ReadGuard, RwLock, RwLockBlock, WriteGuard};
pub use semaphore::{OwnedPermit, Permit, Semaphore, SemaphoreBlock};
