#![doc = include_str!("../README.md")]

mod block;
mod borrowed;
mod bytes;
mod codec;
mod counters;
mod drain;
mod error;
mod jobs;
mod members;
mod plain;
mod queue;
mod reserve;
mod simple;
mod typed;

pub use block::{Capacity, QueueBlock};
pub use borrowed::Borrowed;
pub use counters::JobCounters;
pub use error::{GetError, NothingTaken, PutError};
pub use jobs::{DeadLetter, DeadLetters, Holder, Job, JobBlock, JobLimits, JoinableQueue, MAX_LEASES};
pub use members::{Consumer, Producer, RegistrationError};
pub use multiproc_ring::{Counters, Messages};
pub use multiproc_shm::{Error, ErrorKind};
pub use plain::Plain;
pub use queue::Queue;
pub use reserve::{MAX_RESERVED, Reserved};
pub use simple::SimpleQueue;
pub use typed::Iter;
