//! Where a get copies its message to: a [`Sink`].
#![allow(unsafe_code, reason = "bytes that were copied into spare room")]

use std::collections::TryReserveError;

/// Room for a message.
pub trait Sink {
    /// Forgets what is in it.
    fn clear(&mut self);

    /// Returns whether a message of this many bytes has room behind what is in it.
    fn has_room(&self, length: usize) -> bool;

    /// Returns whether a message of this many bytes has room once it is [cleared](Self::clear).
    fn holds(&self, length: usize) -> bool;

    /// Makes room for one.
    ///
    /// # Errors
    ///
    /// The allocator has no memory.
    fn make_room(&mut self, length: usize) -> Result<(), TryReserveError>;

    /// Returns where a message of this many bytes goes, for which it [has room](Self::has_room); `None`: the
    /// message is not copied.
    fn destination(&mut self, length: usize) -> Option<*mut u8>;

    /// Notes that the message is there.
    ///
    /// # Safety
    ///
    /// - The sink has room for so many bytes, and all of them were written where
    ///   [`destination`](Self::destination) said.
    unsafe fn written(&mut self, length: usize);
}

impl Sink for Vec<u8> {
    #[inline(always)]
    fn clear(&mut self) {
        Self::clear(self);
    }

    #[inline(always)]
    fn has_room(&self, length: usize) -> bool {
        self.capacity() - self.len() >= length
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        self.capacity() >= length
    }

    fn make_room(&mut self, length: usize) -> Result<(), TryReserveError> {
        self.try_reserve(length)
    }

    #[inline(always)]
    fn destination(&mut self, _: usize) -> Option<*mut u8> {
        Some(self.spare_capacity_mut().as_mut_ptr().cast())
    }

    #[inline(always)]
    unsafe fn written(&mut self, length: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.set_len(self.len() + length) };
    }
}

/// Room for one message of a known length; a message of another length goes to a vector.
#[derive(Debug)]
pub struct Exact<'a> {
    bytes: &'a mut [u8],
    other: Option<Vec<u8>>,
}

impl<'a> Exact<'a> {
    /// Returns room for a message of as many bytes.
    #[inline(always)]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, other: None }
    }

    /// Returns the message, if it has another length.
    #[inline(always)]
    pub fn into_other(self) -> Option<Vec<u8>> {
        self.other
    }
}

impl Sink for Exact<'_> {
    #[inline(always)]
    fn clear(&mut self) {}

    #[inline(always)]
    fn has_room(&self, length: usize) -> bool {
        length == self.bytes.len() || self.other.as_ref().is_some_and(|other| other.has_room(length))
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        length == self.bytes.len()
    }

    /// Only for a message of another length: no producer with the same type puts one.
    #[cold]
    fn make_room(&mut self, length: usize) -> Result<(), TryReserveError> {
        self.other.get_or_insert_default().try_reserve(length)
    }

    #[inline(always)]
    fn destination(&mut self, length: usize) -> Option<*mut u8> {
        match &mut self.other {
            Some(other) if length != self.bytes.len() => Sink::destination(other, length),
            _ => Some(self.bytes.as_mut_ptr()),
        }
    }

    #[inline(always)]
    unsafe fn written(&mut self, length: usize) {
        if length == self.bytes.len() {
            self.other = None;
        } else if let Some(other) = &mut self.other {
            // SAFETY: the caller's promise.
            unsafe { Sink::written(other, length) };
        }
    }
}

/// A look at a message where it lies: nothing is copied.
#[derive(Default)]
pub(crate) struct InPlace {
    /// Bytes of the message.
    pub(crate) length: usize,
}

impl Sink for InPlace {
    fn clear(&mut self) {}

    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn holds(&self, _: usize) -> bool {
        true
    }

    fn make_room(&mut self, _: usize) -> Result<(), TryReserveError> {
        Ok(())
    }

    fn destination(&mut self, _: usize) -> Option<*mut u8> {
        None
    }

    unsafe fn written(&mut self, length: usize) {
        self.length = length;
    }
}
