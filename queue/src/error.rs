//! Errors of puts and gets; a put that fails returns the value.

use std::fmt;

use multiproc_ring::Refusal;

/// Why a message was not put; it contains the value.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PutError<T> {
    /// There was no room now (`try_put`), or until the deadline.
    Full(T),
    /// The queue was closed.
    Closed(T),
    /// Another process was in the middle of a put: until the deadline, or for longer than 1 ms (`try_put`).
    /// Try again.
    Busy(T),
    /// The message can never fit.
    TooLarge {
        /// The value.
        value: T,
        /// Kind and name of the queue.
        queue: String,
        /// Length of the message in bytes.
        length: usize,
        /// Length of the longest message that fits, in bytes.
        longest: usize,
    },
    /// The system has no memory left for the message.
    NoSpace {
        /// The value.
        value: T,
        /// Kind and name of the queue.
        queue: String,
        /// Length of the message in bytes.
        length: usize,
    },
    /// The value could not be encoded.
    Encode {
        /// The value.
        value: T,
        /// Kind and name of the queue.
        queue: String,
        /// What serde said.
        problem: String,
    },
    /// The queue cannot be used: its shared memory is inconsistent, or this thread cannot take a lock.
    Broken {
        /// The value.
        value: T,
        /// Kind and name of the queue.
        queue: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why no message was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError {
    /// There was no message now (`try_get`), or until the deadline.
    Empty,
    /// The queue was closed and is empty.
    Closed,
    /// Another process was in the middle of a get: until the deadline, or for longer than 1 ms (`try_get`).
    /// Try again.
    Busy,
    /// This process has no memory for the next message, which stays in the queue.
    NoMemory {
        /// Kind and name of the queue.
        queue: String,
        /// Length of the message in bytes.
        length: usize,
    },
    /// The system has no memory to lease the job, which stays in the queue. Only of a
    /// [`JoinableQueue`](crate::JoinableQueue).
    NoSpace {
        /// Kind and name of the queue.
        queue: String,
    },
    /// The message was taken but is not a `T`.
    Decode {
        /// Kind and name of the queue.
        queue: String,
        /// Its bytes.
        bytes: Vec<u8>,
        /// What serde said.
        problem: String,
    },
    /// The queue cannot be used: its shared memory is inconsistent, or this thread cannot take a lock.
    Broken {
        /// Kind and name of the queue.
        queue: String,
        /// What is wrong.
        problem: String,
    },
}

const CORRUPT: &str = "its memory contradicts itself: another process wrote to it";

impl<T> PutError<T> {
    #[cold]
    pub(crate) fn from_refusal(
        value: T,
        refusal: Refusal,
        length: usize,
        longest: usize,
        queue: impl FnOnce() -> String,
    ) -> Self {
        match refusal {
            Refusal::TimedOut => Self::Full(value),
            Refusal::Closed => Self::Closed(value),
            Refusal::Busy => Self::Busy(value),
            Refusal::NoSpace => Self::NoSpace { value, queue: queue(), length },
            Refusal::TooLarge => Self::TooLarge { value, queue: queue(), length, longest },
            Refusal::Corrupt | Refusal::NoMemory(_) => {
                Self::Broken { value, queue: queue(), problem: CORRUPT.to_owned() }
            }
            Refusal::Lock(cause) => Self::Broken { value, queue: queue(), problem: cause.to_string() },
        }
    }

    /// Returns the value that was not put.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) | Self::Busy(value) => value,
            Self::TooLarge { value, .. }
            | Self::NoSpace { value, .. }
            | Self::Encode { value, .. }
            | Self::Broken { value, .. } => value,
        }
    }

    /// Returns whether the reason is a full queue.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Returns whether the reason is a closed queue.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl GetError {
    #[cold]
    pub(crate) fn from_refusal(refusal: Refusal, queue: impl FnOnce() -> String) -> Self {
        match refusal {
            Refusal::TimedOut => Self::Empty,
            Refusal::Closed => Self::Closed,
            Refusal::Busy => Self::Busy,
            Refusal::NoMemory(length) => Self::NoMemory { queue: queue(), length },
            Refusal::NoSpace => Self::NoSpace { queue: queue() },
            Refusal::TooLarge | Refusal::Corrupt => {
                Self::Broken { queue: queue(), problem: CORRUPT.to_owned() }
            }
            Refusal::Lock(cause) => Self::Broken { queue: queue(), problem: cause.to_string() },
        }
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the queue is full"),
            Self::Closed(_) => f.write_str("the queue is closed"),
            Self::Busy(_) => f.write_str("the queue is busy"),
            Self::TooLarge { queue, length, longest, .. } => {
                write!(f, "{queue}: a message of {length} bytes is too large, at most {longest} fit")
            }
            Self::NoSpace { queue, length, .. } => {
                write!(f, "{queue}: the system has no memory for a message of {length} bytes")
            }
            Self::Encode { queue, problem, .. } => {
                write!(f, "{queue}: the value cannot be encoded: {problem}")
            }
            Self::Broken { queue, problem, .. } => write!(f, "{queue}: {problem}"),
        }
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PutError({self})")
    }
}

impl<T> std::error::Error for PutError<T> {}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the queue is empty"),
            Self::Closed => f.write_str("the queue is closed"),
            Self::Busy => f.write_str("the queue is busy"),
            Self::NoMemory { queue, length } => {
                write!(f, "{queue}: this process has no memory for a message of {length} bytes")
            }
            Self::NoSpace { queue } => write!(f, "{queue}: the system has no memory to hand it out"),
            Self::Decode { queue, bytes, problem } => {
                write!(f, "{queue}: a message of {} bytes cannot be decoded: {problem}", bytes.len())
            }
            Self::Broken { queue, problem } => write!(f, "{queue}: {problem}"),
        }
    }
}

impl std::error::Error for GetError {}

/// This thread has taken no job for which it has not called [`task_done`](crate::JoinableQueue::task_done).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing else to say")]
pub struct NothingTaken;

impl fmt::Display for NothingTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("task_done() called more often than this thread has taken jobs")
    }
}

impl std::error::Error for NothingTaken {}
