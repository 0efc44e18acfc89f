//! facade
pub use multiproc_process as process;
pub use multiproc_queue as queue;
pub use multiproc_shm as shm;
pub use multiproc_sync as sync;

pub use multiproc_process::*;
pub use multiproc_queue::{Capacity, GetError, PutError, Queue};
pub use multiproc_shm::{AtomicValue, Error, ErrorKind, Options, Value};
pub use multiproc_sync::{Lock, LockGuard};
