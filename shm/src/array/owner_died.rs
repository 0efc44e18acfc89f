//! [`OwnerDied`] and [`ArrayLockError`]: what `lock` returns instead of a guard alone.

use std::fmt;

use bytemuck::Pod;
use multiproc_robust::{Death, LockError};

use super::error::{ArrayError, HalfWritten, Unfinished};
use super::guard::ArrayGuard;

/// A locked array that is half written: the last writer died or panicked before it had ended.
///
/// It stays half written until a process has [recovered](Self::recover) it and dropped that guard. Dropping
/// this error only unlocks the array.
#[must_use = "if it is dropped, the array is unlocked and stays half written"]
pub struct OwnerDied<'a, T: Pod> {
    guard: ArrayGuard<'a, T>,
    writer: Death,
}

impl<'a, T: Pod> OwnerDied<'a, T> {
    #[inline(always)]
    pub(super) fn new(guard: ArrayGuard<'a, T>, writer: Death) -> Self {
        Self { guard, writer }
    }

    /// Returns the guard, through which the caller repairs the array. Dropping the guard declares the array
    /// whole. A death before that leaves it half written.
    pub fn recover(self) -> ArrayGuard<'a, T> {
        let Self { mut guard, .. } = self;
        if guard.is_ours() {
            // CRASH: the array is half written before and after; only the writer that it names changes.
            guard.mark_writing();
        }
        guard
    }

    /// Returns the guard, to inspect the elements before deciding.
    pub fn guard(&self) -> &ArrayGuard<'a, T> {
        &self.guard
    }

    /// Returns the thread that began to write and did not end.
    pub fn writer(&self) -> Death {
        self.writer
    }

    /// Returns an error that borrows nothing. The array is unlocked, and stays half written.
    pub fn into_static(self) -> ArrayError {
        ArrayError::HalfWritten(HalfWritten::new(self.guard.array.shared.describe(), self.writer))
    }
}

impl<T: Pod> fmt::Display for OwnerDied<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guard.array.shared.describe(), Unfinished(self.writer))
    }
}

impl<T: Pod> fmt::Debug for OwnerDied<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied")
            .field("object", &self.guard.array.shared)
            .field("writer", &self.writer)
            .finish()
    }
}

impl<T: Pod> std::error::Error for OwnerDied<'_, T> {}

/// Why `lock` returned no guard, or one with a warning.
///
/// It borrows the array. [`into_static`](Self::into_static) makes an error that borrows nothing, and so does
/// `?` where an [`ArrayError`] is returned.
///
/// ```
/// use multiproc_shm::{Array, ArrayError, ArrayLockError};
///
/// /// Changes two elements. An array that a killed writer left half written begins again with zeros.
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
#[allow(clippy::exhaustive_enums, reason = "a caller must decide about both")]
pub enum ArrayLockError<'a, T: Pod> {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(LockError),
    /// The lock was taken, but the last writer did not end. The guard is inside.
    #[error(transparent)]
    OwnerDied(OwnerDied<'a, T>),
}

impl<'a, T: Pod> ArrayLockError<'a, T> {
    /// Returns the guard, whatever the array holds, for code that writes all of it anyway:
    /// `array.lock().or_else(ArrayLockError::recover)?`.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if the lock was not taken.
    pub fn recover(self) -> Result<ArrayGuard<'a, T>, LockError> {
        match self {
            Self::Lock(error) => Err(error),
            Self::OwnerDied(died) => Ok(died.recover()),
        }
    }

    /// Returns an error that borrows nothing. The array is unlocked, and stays half written.
    pub fn into_static(self) -> ArrayError {
        match self {
            Self::Lock(error) => ArrayError::Lock(error),
            Self::OwnerDied(died) => died.into_static(),
        }
    }
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
