//! How the functions with a time-out return it: as `None`, not as an error.

use multiproc_robust::{AcquireError, LockError};

/// Returns what was taken, or `None` after a time-out. `error` makes the error of any other cause.
pub(crate) fn unless_timed_out<T>(
    taken: Result<T, AcquireError>,
    error: impl FnOnce(AcquireError) -> LockError,
) -> Result<Option<T>, LockError> {
    match taken {
        Ok(taken) => Ok(Some(taken)),
        Err(AcquireError::TimedOut) => Ok(None),
        Err(cause) => Err(error(cause)),
    }
}
