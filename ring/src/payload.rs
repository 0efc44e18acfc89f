//! The bytes of a message where they lie: a [`Payload`].
#![allow(unsafe_code, reason = "raw bytes of the log")]

use multiproc_shm::copy;

use crate::log::Log;

/// Where the payload of a record lies: in a fixed log perhaps in two pieces, in any other in one.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    log: Log<'a>,
    position: u32,
    length: usize,
}

impl<'a> Payload<'a> {
    /// The payload of a record whose header lies before `position`; `length` is at most
    /// [`Sizes::longest`](crate::Sizes::longest).
    pub(crate) fn new(log: Log<'a>, position: u32, length: usize) -> Self {
        Self { log, position, length }
    }

    /// Returns its bytes.
    pub fn len(self) -> usize {
        self.length
    }

    /// Returns the first byte of each piece, and how many bytes the piece has.
    pub fn pieces(self) -> [(*mut u8, usize); 2] {
        self.log.pieces(self.position, self.length)
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If some of them are outside.
    pub fn read_at(self, offset: usize, target: &mut [u8]) {
        self.check(offset, target.len());
        let [(first, length), (second, _)] = self.pieces();
        let (early, late) = target.split_at_mut(target.len().min(length.saturating_sub(offset)));
        // SAFETY: inside the payload, as was checked, and so inside the log.
        unsafe { copy::load_at(first.cast_const().cast(), offset, early.as_mut_ptr(), early.len()) };
        if !late.is_empty() {
            let offset = (offset + early.len()) - length;
            // SAFETY: as above: the rest, in the second piece.
            unsafe { copy::load_at(second.cast_const().cast(), offset, late.as_mut_ptr(), late.len()) };
        }
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// If some of them are outside.
    pub fn write_at(self, offset: usize, source: &[u8]) {
        self.check(offset, source.len());
        let [(first, length), (second, _)] = self.pieces();
        let (early, late) = source.split_at(source.len().min(length.saturating_sub(offset)));
        // SAFETY: inside the payload, as was checked, and so inside the log.
        unsafe { copy::store_at(first.cast_const().cast(), offset, early) };
        if !late.is_empty() {
            let offset = (offset + early.len()) - length;
            // SAFETY: as above: the rest, in the second piece.
            unsafe { copy::store_at(second.cast_const().cast(), offset, late) };
        }
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    fn check(self, offset: usize, count: usize) {
        let inside = offset.checked_add(count).is_some_and(|end| end <= self.length);
        assert!(inside, "{count} bytes at {offset} of a message of {}", self.length);
    }
}
