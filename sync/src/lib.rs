#![doc = include_str!("../README.md")]

mod condition;
mod lock;
mod rwlock;

pub use condition::{Condition, ConditionBlock};
pub use lock::{Lock, LockBlock, LockGuard};
pub use multiproc_shm::{AcquireError, Death, Error, ErrorKind, Guarded, LockError, Owner};
pub use rwlock::{ReadGuard, RwLock, RwLockBlock, WriteGuard};
