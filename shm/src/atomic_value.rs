//! [`AtomicValue`]: up to eight bytes that processes share without a lock.
#![allow(unsafe_code, reason = "promises the layout of its block")]

use std::fmt;
use std::sync::atomic::AtomicU64;

use bytemuck::Pod;
use multiproc_robust::RobustLock;
use serde::{Deserialize, Serialize};

use crate::atomic_word::Word;
use crate::header::Element;
use crate::shared::{Object, Shared};

/// A plain value of at most eight bytes that processes share without a lock (Python's `RawValue`, made safe).
///
/// Every operation is one atomic step, sequentially consistent, and never blocks. Larger types do not
/// compile.
///
/// # When a process dies
///
/// Its last operation has happened completely, or not at all.
///
/// ```
/// use multiproc_shm::AtomicValue;
///
/// let hits = AtomicValue::new(0_u64)?;
/// hits.fetch_add(2);
/// assert_eq!(hits.swap(10), 2);
/// assert_eq!(hits.compare_exchange(10, 11), Ok(10));
/// assert_eq!(hits.load(), 11);
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[doc(alias = "RawValue")]
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct AtomicValue<T: Pod> {
    shared: Shared<AtomicBlock<T>>,
}

/// The shared part of an [`AtomicValue`]: one word. Its first bytes are the value, the others are zero.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct AtomicBlock<T> {
    word: Word<T>,
}

// SAFETY: `repr(C)`, one atomic word; always the same size; no locks.
unsafe impl<T: Pod> Object for AtomicBlock<T> {
    const KIND: &'static str = "atomic value";
    const LAYOUT: u32 = 1;
    type Params = T;

    fn extents(_: &T) -> Result<[u64; 2], String> {
        const { Word::<T>::FITS };
        Ok([size_of::<T>() as u64, 0])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        const { Word::<T>::FITS };
        (extents == [size_of::<T>() as u64, 0]).then_some(size_of::<Self>())
    }

    fn element() -> Element {
        Element::of::<T>()
    }

    unsafe fn init(&self, _: *const AtomicU64, value: T) {
        self.word.store(value);
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }
}

crate::verbs! {
    impl[T: Pod] AtomicValue<T> { shared: AtomicBlock<T> };
    "value" "with `value` in it"; new(value: T) => value;
    other "it holds another type";
}

impl<T: Pod> AtomicValue<T> {
    /// Returns the value.
    #[inline]
    pub fn load(&self) -> T {
        self.shared.word.load()
    }

    /// Sets the value.
    #[inline]
    pub fn store(&self, value: T) {
        self.shared.word.store(value);
    }

    /// Sets the value and returns the previous one.
    #[inline]
    pub fn swap(&self, value: T) -> T {
        self.shared.word.swap(value)
    }

    /// Sets the value to `new` if its bytes are those of `current`. Returns the previous value, as `Ok` if it
    /// was set.
    ///
    /// # Errors
    ///
    /// Returns the value if it differs from `current`.
    #[inline]
    pub fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        self.shared.word.compare_exchange(current, new)
    }

    /// Sets the value to what `change` returns for it, and returns the previous one. Calls `change` again if
    /// another thread has changed the value meanwhile.
    #[inline]
    pub fn fetch_update(&self, change: impl FnMut(T) -> T) -> T {
        self.shared.word.fetch_update(change)
    }
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl AtomicValue<$int> {
            /// Adds, wrapping around at the boundary, and returns the previous value.
            #[inline]
            pub fn fetch_add(&self, by: $int) -> $int {
                self.shared.word.fetch_add(by)
            }

            /// Subtracts, wrapping around at the boundary, and returns the previous value.
            #[inline]
            pub fn fetch_sub(&self, by: $int) -> $int {
                self.shared.word.fetch_sub(by)
            }

            /// Sets the value to the larger of both, and returns the previous value.
            #[inline]
            pub fn fetch_max(&self, other: $int) -> $int {
                self.shared.word.fetch_max(other)
            }

            /// Sets the value to the smaller of both, and returns the previous value.
            #[inline]
            pub fn fetch_min(&self, other: $int) -> $int {
                self.shared.word.fetch_min(other)
            }
        }
    )*};
}
integers!(u8 u16 u32 u64 i8 i16 i32 i64);

impl<T: Pod + fmt::Debug> fmt::Debug for AtomicValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicValue").field("object", &self.shared).field("value", &self.load()).finish()
    }
}
