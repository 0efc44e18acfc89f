#![doc = include_str!("../README.md")]

mod bounded;
mod lock;
mod rlock;
mod semaphore;

pub use bounded::{BoundedBlock, BoundedSemaphore};
pub use lock::{Lock, LockBlock, LockGuard};
pub use multiproc_shm::{AcquireError, Death, Error, ErrorKind, LockError, Owner};
pub use rlock::{RLock, RLockBlock, RLockGuard};
pub use semaphore::{Permit, Semaphore, SemaphoreBlock};
