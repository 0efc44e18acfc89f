#![doc = include_str!("../README.md")]

mod access;
mod array;
mod array_error;
mod array_guard;
mod atomic_array;
mod atomic_value;
mod atomic_word;
pub mod copy;
mod error;
mod file;
mod gc;
mod guarded;
mod handle;
mod header;
mod memory_block;
mod name;
mod named;
mod namespace;
mod options;
#[cfg(feature = "shared_memory")]
mod os_block;
mod placed;
mod registry;
mod scratch;
mod segment;
mod shared;
mod sys;
mod transit;
mod value;
mod value_guard;
mod verbs;

#[cfg(feature = "shared_memory")]
pub use ::shared_memory;
pub use array::{Array, ArrayBlock};
pub use array_error::{ArrayError, ArrayLockError, HalfWritten, OutOfRange};
pub use array_guard::{ArrayGuard, OwnerDied};
pub use atomic_array::{AtomicArray, AtomicArrayBlock};
pub use atomic_value::{AtomicBlock, AtomicValue};
pub use bytemuck::{self, Pod, Zeroable};
pub use error::{Error, ErrorKind};
pub use gc::{Gc, GcReport, gc};
pub use guarded::Guarded;
pub use handle::Handle;
pub use header::Element;
pub use memmap2;
pub use memory_block::{MemoryBlock, SharedMemory};
pub use multiproc_robust::{AcquireError, Acquired, Deadline, Death, LockError, MAX_HELD, Owner, RobustLock};
pub use namespace::Namespace;
pub use options::Options;
pub use placed::Region;
#[doc(hidden)]
pub use scratch::ScratchDirectory;
pub use shared::{Object, Shared};
pub use transit::{Reading, Tickets, Transit};
pub use value::{Value, ValueBlock};
pub use value_guard::ValueGuard;
