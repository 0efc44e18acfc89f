//! [`Array`]: a fixed number of plain elements behind one lock.
//!
//! # What a death leaves
//!
//! An array is written in place, so a writer that dies may leave it half written. One word beside the lock,
//! the **writer**, says so. It is 0 if the array is whole. Otherwise it names the process and thread that
//! began to write and did not end. A guard sets the word before its first write, and clears it right before
//! it releases the lock.
//!
//! | the last owner | writer | the next owner gets |
//! |---|---|---|
//! | released the lock | 0 | `Ok` |
//! | died before its first write, or after clearing the word | 0 | `Ok` (note 1) |
//! | died or panicked in between | the last owner | `Err(OwnerDied)` with the guard and the writer |
//! | got `Err(OwnerDied)`, then died or dropped it | unchanged | the same error |
//! | got it, recovered, and died before its guard was dropped | the last owner | `Err(OwnerDied)` (note 2) |
//! | got it, recovered, and released the lock | 0 | `Ok` |
//!
//! 1. `previous_owner_died` returns the last owner.
//! 2. The error names the last owner.
//!
//! So no owner ever gets a half-written array as a whole one, in whatever order owners die. `Array::set` and
//! `Array::update` of an element that lies within one word (1, 2, 4 or 8 bytes) are a single store. They
//! never leave half an element, and do not set the word.
//!
//! # Order
//!
//! Only the owner of the lock accesses the word and the elements. The lock's `Acquire` and `SeqCst` order
//! these accesses between owners. A death leaves what the thread had executed, in program order. So between
//! the writer and the elements only the compiler must not reorder.
#![allow(unsafe_code, reason = "promises the layout of its block, and takes its lock")]

mod error;
mod guard;
mod owner_died;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytemuck::Pod;
use multiproc_robust::{AcquireError, Acquired, Deadline, Death, LockError, Owner, RobustLock, ThisThread};
use serde::{Deserialize, Serialize};

use crate::copy;
use crate::error::Error;
use crate::header::Element;
use crate::shared::{Object, Shared};

pub use error::{ArrayError, HalfWritten, OutOfRange};
pub use guard::ArrayGuard;
pub use owner_died::{ArrayLockError, OwnerDied};

/// A fixed number of elements that processes share, with one lock (Python's `Array`).
///
/// `T` is plain data ([`bytemuck::Pod`]): numbers, arrays of them, and structs that derive it. Elements are
/// copied in and out, never referenced. Each method here locks for one operation; use [`lock`](Self::lock)
/// for several.
///
/// # When a process dies
///
/// A killed writer may leave the array half written. Then every method that locks returns
/// [`ArrayLockError::OwnerDied`] with the guard inside, or [`ArrayError::HalfWritten`], until a process has
/// [recovered](crate::OwnerDied::recover) the array.
///
/// A killed owner leaves the array whole if it had written nothing, or if its guard had been dropped. So does
/// one that is killed in [`set`](Self::set) or [`update`](Self::update) of an element with 1, 2, 4 or 8
/// bytes.
///
/// ```
/// use multiproc_shm::{Array, ArrayLockError};
///
/// let squares = Array::from_slice(&[0_u32, 1, 4, 9])?;
/// squares.set(3, 10)?;
/// squares.update(3, |it| *it -= 1)?;
/// {
///     let mut guard = squares.lock().map_err(ArrayLockError::into_static)?; // borrows nothing
///     assert_eq!(guard.get(3), Some(9));
///     guard.write_at(1, &[10, 20])?;
/// }
/// assert_eq!(squares.to_vec()?, [0, 10, 20, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Array<T: Pod> {
    pub(crate) shared: Shared<ArrayBlock<T>>,
}

/// The shared part of an [`Array`]: a lock, whose first free word is the writer. The elements lie behind it
/// as in a slice.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ArrayBlock<T> {
    pub(crate) lock: RobustLock,
    element: PhantomData<fn() -> T>,
}

const _: () = assert!(size_of::<ArrayBlock<u64>>() == 64);

impl<T> ArrayBlock<T> {
    /// Makes sure that a slice of what lies behind the block is aligned.
    const FITS: () = assert!(
        align_of::<T>() <= align_of::<Self>(),
        "an element of an Array is aligned to at most 64 bytes"
    );

    /// Process id << 32 | thread id of the thread that began to write and has not ended; 0: the array is
    /// whole.
    #[inline]
    pub(crate) fn writer(&self) -> &AtomicU64 {
        &self.lock.guarded[0]
    }
}

// SAFETY: `repr(C)`, atomics only; its size depends on the extents alone; one lock.
unsafe impl<T: Pod> Object for ArrayBlock<T> {
    const KIND: &'static str = "array";
    const LAYOUT: u32 = 1;
    /// The number of elements.
    type Params = usize;

    fn extents(length: &usize) -> Result<[u64; 2], String> {
        const { Self::FITS };
        Ok([*length as u64, size_of::<T>() as u64])
    }

    fn size([length, element]: [u64; 2]) -> Option<usize> {
        const { Self::FITS };
        let bytes = usize::try_from(length).ok()?.checked_mul(size_of::<T>())?;
        let tail = copy::words(bytes).checked_mul(copy::WORD)?;
        (element == size_of::<T>() as u64).then_some(())?;
        size_of::<Self>().checked_add(tail)
    }

    fn element() -> Element {
        Element::of::<T>()
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.lock), None]
    }
}

crate::verbs! {
    impl[T: Pod] Array<T> { shared: ArrayBlock<T> };
    "array" "of `length` zeros"; new(length: usize) => length;
    /// Its length is what its maker chose.
    open;
    invalid "`length` is too large";
    other "its elements are of another type";
    differs "it has another length";
}

impl<T: Pod> Array<T> {
    /// Whether an element always lies within one word, so that one store writes it.
    const ONE_WORD: bool = matches!(size_of::<T>(), 1 | 2 | 4 | 8);

    /// Makes an anonymous array with a copy of these elements.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if there is no space.
    pub fn from_slice(elements: &[T]) -> Result<Self, Error> {
        let array = Self::new(elements.len())?;
        // SAFETY: as many elements as it was made for. No other thread knows it.
        unsafe { copy::store_at(array.shared.tail(), 0, bytemuck::cast_slice(elements)) };
        Ok(array)
    }

    /// Takes the lock, and blocks until it has.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayLockError`] if the last writer died or panicked before it had ended, or if this thread
    /// holds the lock already or holds too many locks.
    #[inline(always)]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, ArrayLockError<'_, T>> {
        self.lock_until(Deadline::NEVER).map_err(|cause| self.refused(cause))?
    }

    /// Takes the lock if it is free, without blocking.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<Option<ArrayGuard<'_, T>>, ArrayLockError<'_, T>> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Takes the lock, and blocks for at most this long. Returns `None` if that did not suffice.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<ArrayGuard<'_, T>>, ArrayLockError<'_, T>> {
        match self.lock_until(Deadline::after(timeout)) {
            Ok(locked) => locked.map(Some),
            Err(AcquireError::TimedOut) => Ok(None),
            Err(cause) => Err(self.refused(cause)),
        }
    }

    /// Returns the element at `index`.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] if there is no such element, if the array is half written, or if it cannot be
    /// locked.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Result<T, ArrayError> {
        let guard = self.lock()?;
        guard.get(index).ok_or_else(|| guard.outside(index, 1))
    }

    /// Sets the element at `index`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get).
    #[inline(always)]
    pub fn set(&self, index: usize, value: T) -> Result<(), ArrayError> {
        let mut guard = self.lock()?;
        if Self::ONE_WORD { guard.set_in_one_store(index, value) } else { guard.set(index, value) }
    }

    /// Changes the element at `index` under the lock and returns the new one. If `change` panics, nothing
    /// changes.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get).
    #[inline(always)]
    pub fn update(&self, index: usize, change: impl FnOnce(&mut T)) -> Result<T, ArrayError> {
        let mut guard = self.lock()?;
        let mut value = guard.get(index).ok_or_else(|| guard.outside(index, 1))?;
        change(&mut value);
        if Self::ONE_WORD { guard.set_in_one_store(index, value) } else { guard.set(index, value) }?;
        Ok(value)
    }

    /// Sets all elements to `value`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get).
    pub fn fill(&self, value: T) -> Result<(), ArrayError> {
        self.lock()?.fill(value)
    }

    /// Returns a copy of all elements.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get).
    pub fn to_vec(&self) -> Result<Vec<T>, ArrayError> {
        Ok(self.lock()?.to_vec())
    }

    /// Copies all elements into `target`, which must have the same length.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get); and [`OutOfRange`](crate::OutOfRange) if the lengths differ.
    pub fn copy_to(&self, target: &mut [T]) -> Result<(), ArrayError> {
        self.lock()?.copy_to(target)
    }

    /// Sets all elements to those of `source`, which must have the same length.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get); and [`OutOfRange`](crate::OutOfRange) if the lengths differ.
    /// Then nothing changes.
    pub fn copy_from(&self, source: &[T]) -> Result<(), ArrayError> {
        self.lock()?.copy_from(source)
    }

    /// Copies the elements from `offset` on into `target`, until it is full.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get).
    pub fn read_at(&self, offset: usize, target: &mut [T]) -> Result<(), ArrayError> {
        self.lock()?.read_at(offset, target)
    }

    /// Sets the elements from `offset` on to those of `source`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get). Then nothing changes.
    pub fn write_at(&self, offset: usize, source: &[T]) -> Result<(), ArrayError> {
        self.lock()?.write_at(offset, source)
    }

    /// Returns the number of elements, which never changes.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "its object is mapped, so it fits")]
    pub fn len(&self) -> usize {
        self.shared.extents()[0] as usize
    }

    /// Returns whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the current owner of the lock.
    pub fn owner(&self) -> Option<Owner> {
        self.shared.lock.owner()
    }

    // Inlined as in `Value`.
    #[inline(always)]
    fn lock_until(
        &self,
        deadline: Deadline,
    ) -> Result<Result<ArrayGuard<'_, T>, ArrayLockError<'_, T>>, AcquireError> {
        let me = ThisThread::current()?;
        // SAFETY: the guard borrows this handle, so the mapping outlives it; a leaked guard keeps the mapping
        // (`Segment::drop`).
        let died = match unsafe { self.shared.lock.acquire(deadline) }? {
            Acquired::Clean => None,
            Acquired::OwnerDied(death) => Some(death),
        };
        let guard = ArrayGuard::new(self, me, died);
        Ok(match self.shared.writer().load(Relaxed) {
            0 => Ok(guard),
            writer => Err(ArrayLockError::OwnerDied(OwnerDied::new(guard, Death::of(writer)))),
        })
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn refused(&self, cause: AcquireError) -> ArrayLockError<'_, T> {
        ArrayLockError::Lock(LockError::new(self.shared.describe(), cause))
    }
}

impl<T: Pod> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.owner();
        f.debug_struct("Array")
            .field("object", &self.shared)
            .field("len", &self.len())
            .field("owner", &owner)
            .finish()
    }
}
