//! [`Guarded`]: a lock's guard that can be given back for a while, and taken again.

use bytemuck::Pod;

use crate::array::Array;
use crate::array_error::ArrayLockError;
use crate::array_guard::ArrayGuard;
use crate::value::Value;
use crate::value_guard::ValueGuard;
use multiproc_robust::{AcquireError, LockError};

/// The guard of a lock, for `Condition::wait`: it gives the lock back, all of it, and takes it again afterwards.
///
/// A [`ValueGuard`] makes its copy the value before, and copies the value then current after. An [`ArrayGuard`] comes back as `Err(OwnerDied)` when somebody has left the array half written
/// meanwhile.
///
/// ```
/// use multiproc_shm::{Guarded, Value, ValueGuard};
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
pub trait Guarded: Sized {
    /// What is needed to take the lock again.
    type Held;
    /// Why it could not be taken, or was taken only with a warning.
    type Error: From<LockError>;

    /// Gives the lock back.
    ///
    /// # Errors
    ///
    /// [`AcquireError::NotHeld`]: this is a copy of the guard in a forked child.
    fn suspend(self) -> Result<Self::Held, Self::Error>;

    /// Takes the lock again, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// As when the lock is taken.
    fn resume(held: Self::Held) -> Result<Self, Self::Error>;
}

impl<'a, T: Pod> Guarded for ValueGuard<'a, T> {
    type Held = &'a Value<T>;
    type Error = LockError;

    fn suspend(self) -> Result<&'a Value<T>, LockError> {
        let value = self.value;
        if value.shared.lock.is_held_by_this_thread() { Ok(value) } else { Err(value.error(AcquireError::NotHeld)) }
    }

    fn resume(value: &'a Value<T>) -> Result<Self, LockError> {
        value.lock()
    }
}

impl<'a, T: Pod> Guarded for ArrayGuard<'a, T> {
    type Held = &'a Array<T>;
    type Error = ArrayLockError<'a, T>;

    fn suspend(self) -> Result<&'a Array<T>, ArrayLockError<'a, T>> {
        let array = self.array;
        if array.shared.lock.is_held_by_this_thread() { Ok(array) } else { Err(array.refused(AcquireError::NotHeld)) }
    }

    fn resume(array: &'a Array<T>) -> Result<Self, ArrayLockError<'a, T>> {
        array.lock()
    }
}
