#![doc = include_str!("../README.md")]

mod block;
mod borrowed;
mod bytes;
mod codec;
mod counters;
mod drain;
mod error;
mod jobs;
mod log;
mod messages;
mod plain;
mod queue;
mod reserve;
mod ring;
mod roles;
mod simple;
mod typed;
mod verbs;

pub use block::{Capacity, QueueBlock};
pub use borrowed::Borrowed;
pub use counters::Counters;
pub use error::{GetError, NothingTaken, PutError};
pub use jobs::{DeadLetter, DeadLetters, Holder, Job, JobBlock, JobLimits, JoinableQueue, MOST_OUT};
pub use messages::Messages;
pub use multiproc_shm::{Error, ErrorKind};
pub use plain::Plain;
pub use queue::Queue;
pub use reserve::{MOST_RESERVED, Reserved};
pub use roles::{Consumer, Producer, RoleError};
pub use simple::SimpleQueue;
pub use typed::Iter;
