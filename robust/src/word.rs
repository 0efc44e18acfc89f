//! The halves of a lock's word, and the bits that the kernel knows.

pub(crate) const TID: u64 = 0x3fff_ffff;
pub(crate) const OWNER_DIED: u64 = 0x4000_0000;
pub(crate) const WAITERS: u64 = 0x8000_0000;
/// One announcement.
pub(crate) const ONE_EPOCH: u64 = 1 << 32;
pub(crate) const LOW: u64 = 0xffff_ffff;

/// Returns the low half of a word.
#[allow(clippy::cast_possible_truncation, reason = "the half is wanted")]
pub const fn low(word: u64) -> u32 {
    word as u32
}

/// Returns the high half of a word.
#[allow(clippy::cast_possible_truncation, reason = "the half is wanted")]
pub const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}
