//! [`ArrayError`]: why an operation on an array failed.

use std::fmt;
use std::ops::Range;

use multiproc_robust::{Death, LockError};

/// Why an operation on an array was not done. In all cases nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A writer died or panicked. To go on, [`lock`](crate::Array::lock) and
    /// [`recover`](crate::OwnerDied::recover).
    #[error(transparent)]
    HalfWritten(HalfWritten),
    /// There are no such elements, or the lengths differ.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// An array is half written: its name and its writer.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0.0, Unfinished(.0.1))]
pub struct HalfWritten(Box<(String, Death)>);

impl HalfWritten {
    pub(crate) fn new(object: String, writer: Death) -> Self {
        Self(Box::new((object, writer)))
    }

    /// Returns the thread that began to write and did not end.
    pub fn writer(&self) -> Death {
        self.0.1
    }
}

impl fmt::Debug for HalfWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HalfWritten").field(&self.0.0).field(&self.0.1).finish()
    }
}

/// The writer, for an error.
pub(crate) struct Unfinished(pub(crate) Death);

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.pid(), self.0.tid()) {
            (Some(pid), Some(tid)) => {
                write!(f, "half written: process {pid} (thread {tid}) did not end what it began")
            }
            _ => f.write_str("half written"),
        }
    }
}

/// There are no such elements: the requested range, and the length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: no elements {:?} in {}", .0.object, .0.asked, .0.length)]
pub struct OutOfRange(Box<Request>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    object: String,
    asked: Range<usize>,
    length: usize,
}

impl OutOfRange {
    #[cold]
    pub(crate) fn new(object: String, asked: Range<usize>, length: usize) -> Self {
        Self(Box::new(Request { object, asked, length }))
    }

    /// Returns the requested range.
    pub fn asked(&self) -> Range<usize> {
        self.0.asked.clone()
    }

    /// Returns the number of elements.
    pub fn length(&self) -> usize {
        self.0.length
    }
}
