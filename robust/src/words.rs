//! [`SharedWords`]: the words that a lock guards, and the notes of a side, under their names.
//!
//! A [`RobustLock`] has three words for what it guards, a [`Side`] has seven more. What they mean is their
//! user's business, so both are arrays of `AtomicU64`. The user gives them names with
//! [`shared_words!`](crate::shared_words): a `repr(C)` struct over the same bytes. This file has the one cast
//! from the array to the struct.
//!
//! All processes access a word in one width: Rust does not define races between atomics of different sizes.
//! So a word whose halves are stored at once is one `AtomicU64`, and a word whose parts are stored alone is
//! several narrow ones.
#![allow(unsafe_code, reason = "the cast from words to a struct of atomics over the same bytes")]

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use crate::lock::RobustLock;
use crate::side::Side;

/// An atomic integer, or an array of them.
///
/// # Safety
///
/// - Every bit pattern is valid, there is no padding, and all bytes may change while they are borrowed.
pub unsafe trait Atomic: Sync {}

// SAFETY: an atomic integer.
unsafe impl Atomic for AtomicU16 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU32 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU64 {}
// SAFETY: an array has no padding of its own.
unsafe impl<A: Atomic, const N: usize> Atomic for [A; N] {}

/// A struct of atomics without padding: words in shared memory under their names.
/// [`shared_words!`](crate::shared_words) defines one, and checks it.
///
/// # Safety
///
/// - The struct is `repr(C)`, every field is [`Atomic`], and there is no padding.
pub unsafe trait SharedWords: Sync {}

/// Defines a [`SharedWords`] struct: `repr(C)`, of atomics only, without padding, all of which is checked
/// when it is compiled.
///
/// ```
/// use multiproc_robust::{RobustLock, shared_words};
/// use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
///
/// shared_words! {
///     /// What the lock guards.
///     struct Stock {
///         apples: AtomicU64,
///         pears: [AtomicU32; 2],
///         total: AtomicU64,
///     }
/// }
///
/// let lock = RobustLock::new();
/// let stock: &Stock = lock.guarded_as();
/// stock.total.store(7, Relaxed);
/// assert_eq!(lock.guarded[2].load(Relaxed), 7);
/// ```
#[macro_export]
macro_rules! shared_words {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$about:meta])* $field_visibility:vis $field:ident: $type:ty,)+
        }
    )+) => {$(
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Debug)]
        $visibility struct $name {
            $($(#[$about])* $field_visibility $field: $type,)+
        }

        const _: () = {
            const fn check<A: $crate::Atomic>() {}
            $(check::<$type>();)+
            assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())+, "no padding");
        };

        #[allow(unsafe_code, reason = "all that it promises is checked above")]
        // SAFETY: `repr(C)`; the lines above have checked that all fields are atomics, and that there is no
        // padding.
        unsafe impl $crate::SharedWords for $name {}
    )+};
}

/// Returns the same words under their names.
#[inline(always)]
const fn named<T: SharedWords, const N: usize>(words: &[AtomicU64; N]) -> &T {
    const {
        assert!(size_of::<T>() == size_of::<[AtomicU64; N]>(), "the same bytes");
        assert!(align_of::<T>() <= align_of::<AtomicU64>(), "aligned like the words");
    }
    // SAFETY: as many bytes, aligned well enough, as was checked; atomics in all of them, which `SharedWords`
    // promises.
    unsafe { &*(&raw const *words).cast() }
}

impl RobustLock {
    /// Returns the three words that the lock [guards](Self::guarded), under their names.
    #[inline(always)]
    pub const fn guarded_as<T: SharedWords>(&self) -> &T {
        named(&self.guarded)
    }
}

impl Side {
    /// Returns the three words that the side's lock guards, under their names.
    #[inline(always)]
    pub const fn guarded_as<T: SharedWords>(&self) -> &T {
        self.lock().guarded_as()
    }

    /// Returns the side's seven [notes](Self::notes), under their names.
    #[inline(always)]
    pub const fn notes_as<T: SharedWords>(&self) -> &T {
        named(&self.notes)
    }
}
