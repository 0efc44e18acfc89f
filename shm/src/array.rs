//! [`Array`]: a fixed number of plain elements behind one lock.
//!
//! # What a death leaves
//!
//! An array is written in place, however large it is, so a writer that dies may leave it half written. One word beside the lock, the **writer**, says so: 0 for whole, else
//! process and thread of who began to write and has not ended. A guard signs it before its first write, and clears it as the last thing before the lock is given back.
//!
//! | the last owner | writer | the next to lock gets |
//! |---|---|---|
//! | released | 0 | `Ok` |
//! | died before its first write, or after it had cleared the word | 0 | `Ok`, and `previous_owner_died` tells |
//! | died, or panicked, in between | its own | `Err(OwnerDied)`: the guard, and who it was |
//! | got `Err(OwnerDied)`, and died or dropped it | as it was | the same again |
//! | got it, recovered, and died before its guard was dropped | its own | `Err(OwnerDied)`, and it is the one |
//! | got it, recovered, and released | 0 | `Ok` |
//!
//! So nobody who locks is ever handed a half-written array as if it were whole, in whatever order they die. `Array::set` and `Array::update` of an element that lies
//! within one word (1, 2, 4 or 8 bytes) are a single store: there is nothing half, and nothing is signed.
//!
//! # Order
//!
//! The word and the elements are only ever touched by the owner of the lock, whose `Acquire` and `SeqCst` order them between owners. What a death leaves is what the dead thread had
//! executed, in the order of its program: so between the writer and the elements it is enough to hold back the compiler.
#![allow(unsafe_code, reason = "promises the layout of its block, and takes its lock")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Serialize};

use crate::array_error::{ArrayError, ArrayLockError};
use crate::array_guard::ArrayGuard;
use crate::copy;
use crate::error::Error;
use crate::header::Element;
use crate::shared::{Object, Shared};
use multiproc_robust::Deadline;
use multiproc_robust::RobustLock;
use multiproc_robust::ThisThread;
use multiproc_robust::{AcquireError, Acquired, LockError, Owner};

/// A fixed number of elements that processes share, with one lock (Python's `Array`).
///
/// `T` is plain data ([`bytemuck::Pod`]): numbers, arrays of them, and structs that derive it. Elements are copied in and out, never referenced. The methods here lock for one
/// operation; [`lock`](Self::lock) is for several.
///
/// # When a process dies
///
/// A writer that is killed may leave the array half written. Whoever locks it next, by whatever method, is told: [`ArrayLockError::OwnerDied`] with the guard inside, or
/// [`ArrayError::HalfWritten`]; and so is everybody after, until somebody has [recovered](crate::OwnerDied::recover) it. A killed owner that had written nothing, or whose guard
/// had been dropped, leaves it whole, and so does one in [`set`](Self::set) or [`update`](Self::update) when an element has 1, 2, 4 or 8 bytes.
///
/// ```
/// use multiproc_shm::{Array, ArrayLockError};
///
/// let squares = Array::from_slice(&[0_u32, 1, 4, 9])?;
/// squares.set(3, 10)?;
/// squares.update(3, |it| *it -= 1)?;
/// {
///     let mut guard = squares.lock().map_err(ArrayLockError::into_static)?; // an error that may outlive the array
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

/// The shared part of an [`Array`]: a lock, whose first free word is the writer. Behind it lie the elements, as in a slice.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ArrayBlock<T> {
    pub(crate) lock: RobustLock,
    element: PhantomData<fn() -> T>,
}

const _: () = assert!(size_of::<ArrayBlock<u64>>() == 64);

impl<T> ArrayBlock<T> {
    /// So that a slice of what lies behind the block is aligned.
    const FITS: () = assert!(align_of::<T>() <= align_of::<Self>(), "an element of an Array is aligned to at most 64 bytes");

    /// Process id << 32 | thread id of who began to write and has not ended; 0: whole.
    #[inline]
    pub(crate) fn writer(&self) -> &AtomicU64 {
        &self.lock.guarded[0]
    }
}

// SAFETY: `repr(C)`, atomics only; its size depends on the extents alone; one lock.
unsafe impl<T: Pod> Object for ArrayBlock<T> {
    const KIND: &'static str = "array";
    const LAYOUT: u32 = 1;
    /// How many elements.
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

    unsafe fn init(&self, _: *const AtomicU64, _: usize) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.lock), None]
    }
}

crate::verbs! {
    impl[T: Pod] Array<T> { shared: ArrayBlock<T> };
    "array" "of `length` zeros"; new(length: usize) => length;
    /// Its length is what its maker chose.
    open;
    invalid "`length` is too large"; other "its elements are of another type"; differs "it has another length";
}

impl<T: Pod> Array<T> {
    /// Whether any element lies within one word, so that it is written in one store.
    const ONE_WORD: bool = matches!(size_of::<T>(), 1 | 2 | 4 | 8);

    /// A copy of these elements, without a name.
    ///
    /// # Errors
    ///
    /// [`Error`]: no space.
    pub fn from_slice(elements: &[T]) -> Result<Self, Error> {
        let array = Self::new(elements.len())?;
        // SAFETY: as many elements as it was made for; nobody else knows it yet.
        unsafe { copy::store_at(array.shared.tail(), 0, bytemuck::cast_slice(elements)) };
        Ok(array)
    }

    /// Takes the lock, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`ArrayLockError`]: who wrote last died, or panicked, before it was done; this thread holds the lock already, or too many locks.
    #[inline(always)]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, ArrayLockError<'_, T>> {
        self.lock_until(Deadline::NEVER).map_err(|cause| self.refused(cause))?
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`ArrayLockError`], as [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<Option<ArrayGuard<'_, T>>, ArrayLockError<'_, T>> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Takes the lock, waiting at most this long; `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// [`ArrayLockError`], as [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<ArrayGuard<'_, T>>, ArrayLockError<'_, T>> {
        match self.lock_until(Deadline::after(timeout)) {
            Ok(locked) => locked.map(Some),
            Err(AcquireError::TimedOut) => Ok(None),
            Err(cause) => Err(self.refused(cause)),
        }
    }

    /// The element at `index`.
    ///
    /// # Errors
    ///
    /// [`ArrayError`]: there is no such element; the array is half written; it cannot be locked.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Result<T, ArrayError> {
        let guard = self.lock()?;
        guard.get(index).ok_or_else(|| guard.outside(index, 1))
    }

    /// Sets the element at `index`.
    ///
    /// # Errors
    ///
    /// [`ArrayError`], as [`get`](Self::get).
    #[inline(always)]
    pub fn set(&self, index: usize, value: T) -> Result<(), ArrayError> {
        let mut guard = self.lock()?;
        if Self::ONE_WORD { guard.set_in_one_store(index, value) } else { guard.set(index, value) }
    }

    /// Changes the element at `index` under the lock, and returns what it is then. If `change` panics, nothing changes.
    ///
    /// # Errors
    ///
    /// [`ArrayError`], as [`get`](Self::get).
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
    /// [`ArrayError`], as [`get`](Self::get).
    pub fn fill(&self, value: T) -> Result<(), ArrayError> {
        self.lock()?.fill(value)
    }

    /// A copy of all elements.
    ///
    /// # Errors
    ///
    /// [`ArrayError`], as [`get`](Self::get).
    pub fn to_vec(&self) -> Result<Vec<T>, ArrayError> {
        Ok(self.lock()?.to_vec())
    }

    /// Copies all elements into `target`, which has as many.
    ///
    /// # Errors
    ///
    /// [`ArrayError`], as [`get`](Self::get): also when it has not.
    pub fn copy_to(&self, target: &mut [T]) -> Result<(), ArrayError> {
        self.lock()?.copy_to(target)
    }

    /// Sets all elements to those of `source`, which has as many.
    ///
    /// # Errors
    ///
    /// [`ArrayError`], as [`get`](Self::get): also when it has not; then nothing has changed.
    pub fn copy_from(&self, source: &[T]) -> Result<(), ArrayError> {
        self.lock()?.copy_from(source)
    }

    /// Copies the elements from `offset` on into `target`.
    ///
    /// # Errors
    ///
    /// [`ArrayError`], as [`get`](Self::get).
    pub fn read_at(&self, offset: usize, target: &mut [T]) -> Result<(), ArrayError> {
        self.lock()?.read_at(offset, target)
    }

    /// Sets the elements from `offset` on to those of `source`.
    ///
    /// # Errors
    ///
    /// [`ArrayError`], as [`get`](Self::get); then nothing has changed.
    pub fn write_at(&self, offset: usize, source: &[T]) -> Result<(), ArrayError> {
        self.lock()?.write_at(offset, source)
    }

    /// How many elements it has: always the same.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "its object is mapped, so it fits")]
    pub fn len(&self) -> usize {
        self.shared.extents()[0] as usize
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who holds the lock now.
    pub fn owner(&self) -> Option<Owner> {
        self.shared.lock.owner()
    }

    // Inlined as in `Value`.
    #[inline(always)]
    fn lock_until(&self, deadline: Deadline) -> Result<Result<ArrayGuard<'_, T>, ArrayLockError<'_, T>>, AcquireError> {
        let me = ThisThread::current()?;
        // SAFETY: the guard borrows this handle, so the mapping outlives it; a leaked guard keeps the mapping (`Segment::drop`).
        let died = match unsafe { self.shared.lock.acquire(deadline) }? {
            Acquired::Clean => None,
            Acquired::OwnerDied(death) => Some(death),
        };
        Ok(ArrayGuard::take(self, me, died))
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
        f.debug_struct("Array").field("object", &self.shared).field("len", &self.len()).field("owner", &owner).finish()
    }
}
