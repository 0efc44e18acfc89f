#![doc = include_str!("../README.md")]

mod access;
mod array;
mod atomic_array;
mod atomic_value;
mod atomic_word;
pub mod copy;
mod error;
mod file;
mod file_lock;
mod gc;
mod handle;
mod header;
mod memory_block;
mod name;
mod named;
mod namespace;
mod new_file;
mod options;
#[cfg(feature = "shared_memory")]
mod os_block;
mod placed;
mod region;
mod registry;
mod scratch;
mod segment;
mod shared;
mod suspend;
mod sys;
mod transit;
mod value;
mod verbs;
mod wire;

#[cfg(feature = "shared_memory")]
pub use ::shared_memory;
pub use array::{Array, ArrayBlock, ArrayError, ArrayGuard, ArrayLockError};
pub use array::{HalfWritten, OutOfRange, OwnerDied};
pub use atomic_array::{AtomicArray, AtomicArrayBlock};
pub use atomic_value::{AtomicBlock, AtomicValue};
pub use bytemuck::{self, Pod, Zeroable};
pub use error::{Error, ErrorKind};
pub use gc::{Gc, GcReport, gc};
pub use handle::Handle;
pub use header::Element;
pub use memmap2;
pub use memory_block::{MemoryBlock, SharedMemory};
pub use multiproc_robust::{AcquireError, Acquired, Deadline, Death, LockError, MAX_HELD, Owner, RobustLock};
pub use namespace::Namespace;
pub use options::Options;
pub use region::Region;
#[doc(hidden)]
pub use scratch::ScratchDirectory;
pub use shared::{Object, Shared};
pub use suspend::Suspend;
pub use transit::{InFlight, Reading, Transit};
pub use value::{Value, ValueBlock, ValueGuard};
