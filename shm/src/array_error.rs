//! Why an [`Array`](crate::Array) could not be locked, read or written.

use std::fmt;
use std::ops::Range;

use bytemuck::Pod;

use crate::array_guard::{ArrayGuard, OwnerDied};
use multiproc_robust::{Death, LockError};

/// Why `lock` gave no guard, or one only with a warning.
///
/// It borrows the array; [`into_static`](Self::into_static) makes an error that may go anywhere, and so does `?` where an [`ArrayError`] is returned.
///
/// ```
/// use multiproc_shm::{Array, ArrayError, ArrayLockError};
///
/// /// Changes two elements; an array that a dead writer left half written begins again with zeros.
/// fn deposit(accounts: &Array<i64>) -> Result<(), ArrayError> {
///     let mut guard = match accounts.lock() {
///         Err(ArrayLockError::OwnerDied(died)) => {
///             let mut guard = died.recover();
///             guard.fill(0)?;
///             guard
///         }
///         other => other?,
///     };
///     guard.set(0, 1)?;
///     guard.set(1, 2)
/// }
/// # deposit(&Array::new(2)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[allow(clippy::exhaustive_enums, reason = "whoever locks must decide about both")]
pub enum ArrayLockError<'a, T: Pod> {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(LockError),
    /// The lock was taken, but who wrote last did not end: the guard is inside.
    #[error(transparent)]
    OwnerDied(OwnerDied<'a, T>),
}

impl<'a, T: Pod> ArrayLockError<'a, T> {
    /// The guard, if there is one, whatever the array holds. For those who write all of it anyway: `array.lock().or_else(ArrayLockError::recover)?`.
    ///
    /// # Errors
    ///
    /// [`LockError`]: the lock was not taken.
    pub fn recover(self) -> Result<ArrayGuard<'a, T>, LockError> {
        match self {
            Self::Lock(error) => Err(error),
            Self::OwnerDied(died) => Ok(died.recover()),
        }
    }

    /// An error that borrows nothing. The array is unlocked, and stays half written.
    pub fn into_static(self) -> ArrayError {
        match self {
            Self::Lock(error) => ArrayError::Lock(error),
            Self::OwnerDied(died) => died.into_static(),
        }
    }
}

/// Why an operation on an array was not done. In any case nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Somebody died, or panicked, while it wrote. To go on, [`lock`](crate::Array::lock) and [`recover`](OwnerDied::recover).
    #[error(transparent)]
    HalfWritten(HalfWritten),
    /// There are no such elements, or not as many.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl<T: Pod> From<LockError> for ArrayLockError<'_, T> {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl<T: Pod> From<ArrayLockError<'_, T>> for ArrayError {
    fn from(error: ArrayLockError<'_, T>) -> Self {
        error.into_static()
    }
}

/// An array is half written: which one, and by whom.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0.0, Unfinished(.0.1))]
pub struct HalfWritten(Box<(String, Death)>);

impl HalfWritten {
    pub(crate) fn new(object: String, writer: Death) -> Self {
        Self(Box::new((object, writer)))
    }

    /// Who began to write and did not end.
    pub fn writer(&self) -> Death {
        self.0.1
    }
}

impl fmt::Debug for HalfWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HalfWritten").field(&self.0.0).field(&self.0.1).finish()
    }
}

/// In words.
pub(crate) struct Unfinished(pub(crate) Death);

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.pid(), self.0.tid()) {
            (Some(pid), Some(tid)) => write!(f, "half written: process {pid} (thread {tid}) did not end what it began"),
            _ => f.write_str("half written"),
        }
    }
}

/// There are no such elements: which were asked for, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: no elements {:?} in {}", .0.object, .0.asked, .0.length)]
pub struct OutOfRange(Box<Asked>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    object: String,
    asked: Range<usize>,
    length: usize,
}

impl OutOfRange {
    #[cold]
    pub(crate) fn new(object: String, asked: Range<usize>, length: usize) -> Self {
        Self(Box::new(Asked { object, asked, length }))
    }

    /// The elements that were asked for.
    pub fn asked(&self) -> Range<usize> {
        self.0.asked.clone()
    }

    /// How many there are.
    pub fn length(&self) -> usize {
        self.0.length
    }
}
