#![doc = include_str!("../README.md")]

mod event;
mod lock;

pub use event::{Event, EventBlock};
pub use lock::{Lock, LockBlock, LockGuard};
pub use multiproc_shm::{AcquireError, Death, Error, ErrorKind, LockError, Owner};
