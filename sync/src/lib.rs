#![doc = include_str!("../README.md")]

mod barrier;
mod event;
mod lock;

pub use barrier::{Barrier, BarrierBlock, BarrierError, BarrierWaitResult, Broken, MAX_PARTIES};
pub use event::{Event, EventBlock};
pub use lock::{Lock, LockBlock, LockGuard};
pub use multiproc_shm::{AcquireError, Death, Error, ErrorKind, LockError, Owner};
