//! [`AtomicArray`]: many values of up to eight bytes that processes share without a lock.
#![allow(unsafe_code, reason = "promises the layout of its block, and reaches its words")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

use bytemuck::Pod;
use multiproc_robust::RobustLock;
use serde::{Deserialize, Serialize};

use crate::array::OutOfRange;
use crate::atomic_word::Word;
use crate::copy;
use crate::error::Error;
use crate::header::Element;
use crate::shared::{Object, Shared};

/// A fixed number of plain values of at most eight bytes that processes share without a lock (Python's
/// `RawArray`, made safe).
///
/// Every operation is one atomic step on one element, sequentially consistent, and never blocks. Each element
/// takes eight bytes. Larger types do not compile; use [`Array`](crate::Array) for them:
///
/// ```compile_fail,E0080
/// let _ = multiproc_shm::AtomicArray::<[u64; 2]>::new(1);
/// ```
///
/// # When a process dies
///
/// Its last operation has happened completely, or not at all.
///
/// ```
/// use multiproc_shm::AtomicArray;
///
/// let hits = AtomicArray::from_slice(&[0_u32; 3])?;
/// hits.fetch_add(1, 5)?;
/// assert_eq!(hits.load(1)?, 5);
/// assert_eq!(hits.compare_exchange(1, 5, 6)?, Ok(5));
/// assert_eq!(hits.to_vec(), [0, 6, 0]);
/// assert_eq!(hits.store(3, 1).unwrap_err().to_string(), "atomic array (anonymous): no elements 3..4 in 3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "RawArray")]
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct AtomicArray<T: Pod> {
    shared: Shared<AtomicArrayBlock<T>>,
}

/// The shared part of an [`AtomicArray`]: only reserved words. Behind it lies one word for each element. Its
/// first bytes are the value, the others are zero.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct AtomicArrayBlock<T> {
    reserved: [AtomicU64; 8],
    element: PhantomData<fn() -> T>,
}

const _: () = assert!(size_of::<AtomicArrayBlock<u64>>() == 64);

// SAFETY: `repr(C)`, atomics only; its size depends on the extents alone; no locks.
unsafe impl<T: Pod> Object for AtomicArrayBlock<T> {
    const KIND: &'static str = "atomic array";
    const LAYOUT: u32 = 1;
    /// The number of elements.
    type Params = usize;

    fn extents(length: &usize) -> Result<[u64; 2], String> {
        const { Word::<T>::FITS };
        Ok([*length as u64, size_of::<T>() as u64])
    }

    fn size([length, element]: [u64; 2]) -> Option<usize> {
        const { Word::<T>::FITS };
        (element == size_of::<T>() as u64).then_some(())?;
        usize::try_from(length).ok()?.checked_mul(copy::WORD)?.checked_add(size_of::<Self>())
    }

    fn element() -> Element {
        Element::of::<T>()
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }
}

crate::verbs! {
    impl[T: Pod] AtomicArray<T> { shared: AtomicArrayBlock<T> };
    "array" "of `length` zeros"; new(length: usize) => length;
    /// Its length is what its maker chose.
    open;
    invalid "`length` is too large";
    other "its elements are of another type";
    differs "it has another length";
}

impl<T: Pod> AtomicArray<T> {
    /// Makes an anonymous array with a copy of these elements.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if there is no space.
    pub fn from_slice(elements: &[T]) -> Result<Self, Error> {
        let array = Self::new(elements.len())?;
        array.words().iter().zip(elements).for_each(|(word, element)| word.store(*element));
        Ok(array)
    }

    /// Returns the element at `index`.
    ///
    /// # Errors
    ///
    /// Returns [`OutOfRange`] if there is no such element.
    #[inline]
    pub fn load(&self, index: usize) -> Result<T, OutOfRange> {
        Ok(self.word(index)?.load())
    }

    /// Sets the element at `index`.
    ///
    /// # Errors
    ///
    /// Returns [`OutOfRange`] if there is no such element.
    #[inline]
    pub fn store(&self, index: usize, value: T) -> Result<(), OutOfRange> {
        self.word(index)?.store(value);
        Ok(())
    }

    /// Sets the element at `index` and returns the previous one.
    ///
    /// # Errors
    ///
    /// Returns [`OutOfRange`] if there is no such element.
    #[inline]
    pub fn swap(&self, index: usize, value: T) -> Result<T, OutOfRange> {
        Ok(self.word(index)?.swap(value))
    }

    /// Sets the element at `index` to `new` if its bytes are those of `current`. Returns the previous
    /// element, as `Ok` if it was set.
    ///
    /// # Errors
    ///
    /// Returns [`OutOfRange`] if there is no such element. The inner error is the element, if it differs from
    /// `current`.
    #[inline]
    pub fn compare_exchange(&self, index: usize, current: T, new: T) -> Result<Result<T, T>, OutOfRange> {
        Ok(self.word(index)?.compare_exchange(current, new))
    }

    /// Sets the element at `index` to what `change` returns for it, and returns the previous one. Calls
    /// `change` again if another thread has changed the element meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`OutOfRange`] if there is no such element.
    #[inline]
    pub fn fetch_update(&self, index: usize, change: impl FnMut(T) -> T) -> Result<T, OutOfRange> {
        Ok(self.word(index)?.fetch_update(change))
    }

    /// Returns a copy of all elements, each read in one step. A change by another thread meanwhile may or may
    /// not be in it.
    pub fn to_vec(&self) -> Vec<T> {
        self.words().iter().map(Word::load).collect()
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

    #[inline]
    fn word(&self, index: usize) -> Result<&Word<T>, OutOfRange> {
        let missing = || OutOfRange::new(self.shared.describe(), index..index.saturating_add(1), self.len());
        self.words().get(index).ok_or_else(missing)
    }

    #[inline]
    fn words(&self) -> &[Word<T>] {
        // SAFETY: so many words lie behind the block, and stay mapped as long as the handle lives. A `Word`
        // is an atomic word, which other threads may change.
        unsafe { std::slice::from_raw_parts(self.shared.tail().cast(), self.len()) }
    }
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl AtomicArray<$int> {
            /// Adds to the element at `index`, wrapping around at the boundary, and returns the previous
            /// element.
            ///
            /// # Errors
            ///
            /// Returns [`OutOfRange`] if there is no such element.
            #[inline]
            pub fn fetch_add(&self, index: usize, by: $int) -> Result<$int, OutOfRange> {
                Ok(self.word(index)?.fetch_add(by))
            }

            /// Subtracts from the element at `index`, wrapping around at the boundary, and returns the
            /// previous element.
            ///
            /// # Errors
            ///
            /// Returns [`OutOfRange`] if there is no such element.
            #[inline]
            pub fn fetch_sub(&self, index: usize, by: $int) -> Result<$int, OutOfRange> {
                Ok(self.word(index)?.fetch_sub(by))
            }

            /// Sets the element at `index` to the larger of both, and returns the previous element.
            ///
            /// # Errors
            ///
            /// Returns [`OutOfRange`] if there is no such element.
            #[inline]
            pub fn fetch_max(&self, index: usize, other: $int) -> Result<$int, OutOfRange> {
                Ok(self.word(index)?.fetch_max(other))
            }

            /// Sets the element at `index` to the smaller of both, and returns the previous element.
            ///
            /// # Errors
            ///
            /// Returns [`OutOfRange`] if there is no such element.
            #[inline]
            pub fn fetch_min(&self, index: usize, other: $int) -> Result<$int, OutOfRange> {
                Ok(self.word(index)?.fetch_min(other))
            }
        }
    )*};
}
integers!(u8 u16 u32 u64 i8 i16 i32 i64);

impl<T: Pod + fmt::Debug> fmt::Debug for AtomicArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicArray").field("object", &self.shared).field("elements", &self.to_vec()).finish()
    }
}
