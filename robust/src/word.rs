//! The two halves of a lock's word, and the bits of the low half that the kernel knows.

/// The owner's thread id (the kernel's `FUTEX_TID_MASK`). 0: the lock is free.
pub(crate) const TID: u64 = 0x3fff_ffff;
/// The owner-died bit `OD` (`FUTEX_OWNER_DIED`).
pub(crate) const OWNER_DIED: u64 = 0x4000_0000;
/// The waiters bit `W` (`FUTEX_WAITERS`).
pub(crate) const WAITERS: u64 = 0x8000_0000;
/// One step of the epoch `E`, which is the high half.
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
