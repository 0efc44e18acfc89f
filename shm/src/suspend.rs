//! [`Suspend`]: guards that can release their lock for a while and take it again.

use bytemuck::Pod;
use multiproc_robust::{AcquireError, LockError};

use crate::array::{Array, ArrayGuard, ArrayLockError};
use crate::value::{Value, ValueGuard};

/// A guard whose lock `Condition::wait` releases while it waits: all levels of a recursive lock.
///
/// A [`ValueGuard`] first makes its copy the value; afterwards it copies what is the value then. For an
/// [`ArrayGuard`], `resume` returns `Err(OwnerDied)` if another process has left the array half written
/// meanwhile.
///
/// ```
/// use multiproc_shm::{Suspend, Value, ValueGuard};
///
/// let number = Value::new(1_u32)?;
/// let mut guard = number.lock()?;
/// *guard = 2;
/// let held = guard.suspend()?;
/// assert_eq!(number.get()?, 2);
/// number.set(3)?;
/// let guard = ValueGuard::resume(held)?;
/// assert_eq!(*guard, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Suspend: Sized {
    /// What `resume` needs to take the lock again.
    type Held;
    /// Why the lock was not taken, or was taken with a warning.
    type Error: From<LockError>;

    /// Releases the lock.
    ///
    /// # Errors
    ///
    /// Returns [`AcquireError::NotHeld`] if this is a copy of the guard in a forked child.
    fn suspend(self) -> Result<Self::Held, Self::Error>;

    /// Takes the lock again, and blocks until it has.
    ///
    /// # Errors
    ///
    /// Returns the errors of taking the lock.
    fn resume(held: Self::Held) -> Result<Self, Self::Error>;
}

impl<'a, T: Pod> Suspend for ValueGuard<'a, T> {
    type Held = &'a Value<T>;
    type Error = LockError;

    fn suspend(self) -> Result<&'a Value<T>, LockError> {
        let value = self.value;
        if value.shared.lock.is_held_by_this_thread() {
            Ok(value)
        } else {
            Err(value.error(AcquireError::NotHeld))
        }
    }

    fn resume(value: &'a Value<T>) -> Result<Self, LockError> {
        value.lock()
    }
}

impl<'a, T: Pod> Suspend for ArrayGuard<'a, T> {
    type Held = &'a Array<T>;
    type Error = ArrayLockError<'a, T>;

    fn suspend(self) -> Result<&'a Array<T>, ArrayLockError<'a, T>> {
        let array = self.array;
        if array.shared.lock.is_held_by_this_thread() {
            Ok(array)
        } else {
            Err(array.refused(AcquireError::NotHeld))
        }
    }

    fn resume(array: &'a Array<T>) -> Result<Self, ArrayLockError<'a, T>> {
        array.lock()
    }
}
