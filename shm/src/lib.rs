#![doc = include_str!("../README.md")]

mod access;
mod acquired;
mod array;
mod array_error;
mod array_guard;
mod atomic_array;
mod atomic_value;
mod atomic_word;
mod contend;
pub mod copy;
mod deadline;
mod error;
mod file;
mod flag;
mod gc;
mod guarded;
mod handle;
mod header;
pub mod identity;
mod keeper;
mod memory_block;
mod name;
mod named;
mod namespace;
mod options;
#[cfg(feature = "shared_memory")]
mod os_block;
mod permits;
mod placed;
#[cfg(feature = "lock_api")]
mod raw_mutex;
mod registry;
mod robust_lock;
mod seat;
mod segment;
mod shared;
mod side;
mod sys;
mod transit;
mod value;
mod value_guard;
mod wait;
pub mod watch;
mod watched;
#[doc(hidden)]
pub mod zoo;

#[cfg(feature = "lock_api")]
pub use ::lock_api;
#[cfg(feature = "shared_memory")]
pub use ::shared_memory;
pub use acquired::{AcquireError, Acquired, Death, LockError, Owner};
pub use array::{Array, ArrayBlock};
pub use array_error::{ArrayError, ArrayLockError, HalfWritten, OutOfRange};
pub use array_guard::{ArrayGuard, OwnerDied};
pub use atomic_array::{AtomicArray, AtomicArrayBlock};
pub use atomic_value::{AtomicBlock, AtomicValue};
pub use bytemuck::{self, Pod, Zeroable};
pub use deadline::Deadline;
pub use error::{Error, ErrorKind};
pub use flag::Flag;
pub use gc::{Gc, GcReport, gc};
pub use guarded::Guarded;
pub use handle::Handle;
pub use header::Element;
pub use identity::MAX_HELD;
pub use keeper::Kept;
pub use memmap2;
pub use memory_block::{MemoryBlock, SharedMemory};
pub use namespace::Namespace;
pub use options::Options;
pub use permits::{MOST_PERMITS, Permits, Taken, spread};
pub use placed::Region;
#[cfg(feature = "lock_api")]
pub use raw_mutex::{RawRobustMutex, RobustMutex};
pub use robust_lock::RobustLock;
pub use seat::{MOST_WATCHED, Seat, Watch, bury};
pub use shared::{Object, Shared};
pub use side::{BRIEF, Side, Sleep};
pub use transit::{Reading, Tickets, Transit};
pub use value::{Value, ValueBlock};
pub use value_guard::ValueGuard;
pub use wait::{Bell, EAGER, NO_CPU, Seq, spin, this_cpu, without_spinning};
