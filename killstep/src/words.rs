//! Memory that all processes of a sweep share.
#![allow(unsafe_code, reason = "one shared mapping behind a slice of atomics")]

use std::io;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;

use crate::sys;

/// Zeroed words, shared with every process forked after they were made; what a small protocol of your own can
/// live in.
///
/// ```
/// let words = multiproc_killstep::SharedWords::new(8)?;
/// words[3].store(7, std::sync::atomic::Ordering::Release);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SharedWords {
    start: *mut AtomicU64,
    count: usize,
}

impl SharedWords {
    /// Maps `count` words, all 0.
    ///
    /// # Errors
    /// When the kernel has no memory for them, or `count` is 0.
    pub fn new(count: usize) -> io::Result<Self> {
        Ok(Self { start: sys::map_words(count)?, count })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `new` mapped as many, and they stay mapped as long as `self` lives.
        unsafe { sys::words(self.start, self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: a slice of the words borrows `self`, so none is left.
        unsafe { sys::unmap_words(self.start, self.count) }
    }
}
