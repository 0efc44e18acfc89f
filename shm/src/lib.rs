#![doc = include_str!("../README.md")]

mod array;
mod array_error;
mod array_guard;
mod atomic_array;
mod atomic_value;
mod atomic_word;
pub mod copy;
mod deadline;
mod error;
mod header;
pub mod identity;
mod name;
mod namespace;
#[cfg(feature = "os-blocks")]
mod os_block;
mod permits;
mod registry;
mod robust_lock;
mod segment;
mod shared;
mod shared_memory;
mod side;
mod sys;
mod transit;
mod value;
mod wait;
#[doc(hidden)]
pub mod zoo;

pub use self::shared_memory::{MemoryBlock, SharedMemory};
pub use array::{Array, ArrayBlock};
pub use array_error::{ArrayError, ArrayLockError, HalfWritten, OutOfRange};
pub use array_guard::{ArrayGuard, OwnerDied};
pub use atomic_array::{AtomicArray, AtomicArrayBlock};
pub use atomic_value::{AtomicBlock, AtomicValue};
pub use bytemuck::{self, Pod, Zeroable};
pub use deadline::Deadline;
pub use error::{Error, ErrorKind};
pub use header::Element;
pub use identity::MAX_HELD;
pub use namespace::{Gc, GcReport, Namespace, gc};
pub use permits::{MOST_PERMITS, Permits, Taken};
pub use robust_lock::{AcquireError, Acquired, Death, Owner, RobustLock};
pub use shared::{Handle, Object, Options, Shared};
pub use side::{BRIEF, Side};
pub use transit::Transit;
pub use value::{LockError, Value, ValueBlock, ValueGuard};
pub use wait::{Bell, EAGER, NO_CPU, Seq, spin, this_cpu};
