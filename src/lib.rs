//! [`Queue<T>`]: Queue
//! [`JoinableQueue<T>`]: JoinableQueue
//! [`SimpleQueue<T>`]: SimpleQueue
//! [`Process`]: Process
//! [`Lock`]: Lock
//! [`RwLock`]: RwLock
//! [`Condition`]: Condition
//! [`RLock`]: RLock
//! [`Semaphore`]: Semaphore
//! [`OwnedPermit`]: OwnedPermit
//! [`BoundedSemaphore`]: BoundedSemaphore
//! [`Value<T>`]: Value
//! [`AtomicValue<T>`]: AtomicValue
//! [`SharedMemory`]: SharedMemory
//! [`Array<T>`]: Array
//! [`AtomicArray<T>`]: AtomicArray
//! [`Event`]: Event
//! [`Barrier`]: Barrier
//! [`gc`]: gc()
//! [`Options::place`]: Options::place
//! [`Options::create_file`]: Options::create_file
//! [SECURITY.md]: https://github.com/multiproc/multiproc/blob/main/SECURITY.md
//! [docs/DESIGN.md]: https://github.com/multiproc/multiproc/blob/main/docs/DESIGN.md
//! [docs/LAYOUT.md]: https://github.com/multiproc/multiproc/blob/main/docs/LAYOUT.md
//! [docs/DEATH.md]: https://github.com/multiproc/multiproc/blob/main/docs/DEATH.md
//! [docs/CONFORMANCE.md]: https://github.com/multiproc/multiproc/blob/main/docs/CONFORMANCE.md
//! [CONTRIBUTING.md]: https://github.com/multiproc/multiproc/blob/main/CONTRIBUTING.md
//! [CHANGELOG.md]: https://github.com/multiproc/multiproc/blob/main/CHANGELOG.md
//! [Apache-2.0]: https://github.com/multiproc/multiproc/blob/main/LICENSE-APACHE
//! [MIT]: https://github.com/multiproc/multiproc/blob/main/LICENSE-MIT
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub use multiproc_process as process;
pub use multiproc_queue as queue;
pub use multiproc_robust as robust;
pub use multiproc_shm as shm;
pub use multiproc_sync as sync;

pub use multiproc_process::{Builder, Exit, JoinError, Process, SpawnError, init, test_support};
pub use multiproc_queue::{
    Borrowed, Capacity, Consumer, Counters, GetError, Messages, Plain, Producer, PutError,
};
pub use multiproc_queue::{Job, JobCounters, JobLimits, JoinableQueue, Queue};
pub use multiproc_queue::{RegistrationError, Reserved, SimpleQueue};
pub use multiproc_robust::{Death, LockError};
pub use multiproc_shm::{Array, ArrayError, ArrayGuard, ArrayLockError, AtomicArray, AtomicValue};
pub use multiproc_shm::{Error, ErrorKind, HalfWritten, Handle, Namespace, Options, OutOfRange, OwnerDied};
pub use multiproc_shm::{Pod, SharedMemory, Transit, Value, Zeroable, bytemuck, gc};
pub use multiproc_sync::{Barrier, BarrierError, BarrierWaitResult, Broken, Event};
pub use multiproc_sync::{BoundedSemaphore, OwnedPermit, Permit, RLock, RLockGuard, Semaphore};
pub use multiproc_sync::{Condition, Lock, LockGuard, ReadGuard, RwLock, WriteGuard};
