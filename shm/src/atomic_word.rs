//! [`Word`]: up to eight bytes in one shared word. `AtomicValue` has one, `AtomicArray` has many.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytemuck::Pod;

/// A shared word. Its first bytes are the value, the others are zero. Every operation is one atomic step.
#[repr(transparent)]
pub(crate) struct Word<T> {
    word: AtomicU64,
    element: PhantomData<fn() -> T>,
}

impl<T: Pod> Word<T> {
    /// Evaluated where such a word is made.
    pub(crate) const FITS: () =
        assert!(size_of::<T>() <= 8, "what is atomic has at most eight bytes; use Value, or Array");

    #[inline]
    pub(crate) fn load(&self) -> T {
        from_word(self.word.load(SeqCst))
    }

    #[inline]
    pub(crate) fn store(&self, value: T) {
        self.word.store(to_word(value), SeqCst);
    }

    #[inline]
    pub(crate) fn swap(&self, value: T) -> T {
        from_word(self.word.swap(to_word(value), SeqCst))
    }

    #[inline]
    pub(crate) fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        self.word
            .compare_exchange(to_word(current), to_word(new), SeqCst, SeqCst)
            .map(from_word)
            .map_err(from_word)
    }

    #[inline]
    pub(crate) fn fetch_update(&self, mut change: impl FnMut(T) -> T) -> T {
        let mut seen = self.word.load(SeqCst);
        loop {
            match self.word.compare_exchange_weak(seen, to_word(change(from_word(seen))), SeqCst, SeqCst) {
                Ok(before) => return from_word(before),
                Err(now) => seen = now,
            }
        }
    }
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl Word<$int> {
            #[inline]
            pub(crate) fn fetch_add(&self, by: $int) -> $int {
                if size_of::<$int>() == 8 {
                    from_word(self.word.fetch_add(to_word(by), SeqCst))
                } else {
                    self.fetch_update(|value| value.wrapping_add(by))
                }
            }

            #[inline]
            pub(crate) fn fetch_sub(&self, by: $int) -> $int {
                if size_of::<$int>() == 8 {
                    from_word(self.word.fetch_sub(to_word(by), SeqCst))
                } else {
                    self.fetch_update(|value| value.wrapping_sub(by))
                }
            }

            #[inline]
            pub(crate) fn fetch_max(&self, other: $int) -> $int {
                self.fetch_update(|value| value.max(other))
            }

            #[inline]
            pub(crate) fn fetch_min(&self, other: $int) -> $int {
                self.fetch_update(|value| value.min(other))
            }
        }
    )*};
}
integers!(u8 u16 u32 u64 i8 i16 i32 i64);

impl<T> fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.word.fmt(f)
    }
}

#[inline]
fn to_word<T: Pod>(value: T) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
    u64::from_ne_bytes(bytes)
}

#[inline]
fn from_word<T: Pod>(word: u64) -> T {
    bytemuck::pod_read_unaligned(&word.to_ne_bytes()[..size_of::<T>()])
}
