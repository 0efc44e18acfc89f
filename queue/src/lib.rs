#![doc = include_str!("../README.md")]

mod codec;
mod error;
mod log;
mod messages;
mod queue;
mod ring;

pub use error::{GetError, PutError};
pub use messages::Messages;
pub use multiproc_shm::{Error, ErrorKind};
pub use queue::{Capacity, Iter, Queue, QueueBlock};
