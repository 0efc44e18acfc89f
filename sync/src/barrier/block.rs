//! The shared bytes of a barrier, and what they say. The protocol is told in `parties.rs`.
#![allow(unsafe_code, reason = "seats behind the block")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use multiproc_robust::MAX_WATCHED_WORDS;
use multiproc_robust::{EventCount, RobustLock};
use multiproc_shm::Object;

/// The most parties that a barrier can have: each waits for a word of every other one, and the kernel watches 128 at a time.
pub const MAX_PARTIES: usize = 120;

const _: () = assert!(MAX_PARTIES + 2 <= MAX_WATCHED_WORDS);

/// The shared part of a [`Barrier`](super::Barrier): behind it lie the seats, and the helm.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct BarrierBlock {
    pub(super) state: AtomicU64,
    /// Which process's death broke a round: low half the process, high half the round.
    pub(super) cause: AtomicU64,
    /// Those who find no seat.
    pub(super) left: EventCount,
    /// How many; too high after a death.
    pub(super) outside: AtomicU32,
    reserved: [AtomicU64; 4],
}

const _: () = assert!(size_of::<BarrierBlock>() == 64);

pub(super) const ARRIVED: u64 = 0xff;
pub(super) const BROKEN: u64 = 1 << 8;
pub(super) const TURN: u64 = 1 << 9;
pub(super) const SLEEPERS: u64 = 1 << 10;
pub(super) const ROUND: u64 = 1 << 32;

/// Beside a seat: the round in which its owner arrived, with a mark that there is one.
pub(super) const IN_ROUND: usize = 0;
pub(super) const MARK: u64 = 1 << 32;
/// Beside a seat: the CPU where its last owner was seen, plus 1.
pub(super) const CPU: usize = 1;
/// Beside a seat: who has noted the round there, process id << 32 | thread id. (The lock's own signature is the next owner's as soon as there is one.)
pub(super) const NOTED_BY: usize = 2;

// SAFETY: `repr(C)`, atomics only; its size depends on the extents; the locks are those behind it.
unsafe impl Object for BarrierBlock {
    const KIND: &'static str = "barrier";
    const LAYOUT: u32 = 1;
    type Params = usize;

    fn extents(parties: &usize) -> Result<[u64; 2], String> {
        let fits = (1..=MAX_PARTIES).contains(parties);
        if fits { Ok([*parties as u64, 0]) } else { Err(format!("{parties} parties, and not 1 to {MAX_PARTIES}")) }
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        let parties =
            usize::try_from(extents[0]).ok().filter(|parties| (1..=MAX_PARTIES).contains(parties) && extents[1] == 0)?;
        Some(size_of::<Self>() + (parties + 1) * size_of::<RobustLock>())
    }

    unsafe fn init(&self, _: *const AtomicU64, _: usize) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }

    unsafe fn more_locks(&self, tail: *const AtomicU64, extents: [u64; 2]) -> &[RobustLock] {
        let locks = usize::try_from(extents[0]).unwrap_or(0).min(MAX_PARTIES) + 1;
        // SAFETY: `size` puts so many locks behind the block, aligned as it is; they are atomics only, and every bit pattern is one.
        unsafe { std::slice::from_raw_parts(tail.cast(), locks) }
    }
}

impl BarrierBlock {
    /// How many have arrived and not been released.
    pub(super) fn waiting(&self) -> usize {
        arrived(self.state.load(SeqCst))
    }
}

/// The state after a break.
pub(super) fn broken(state: u64) -> u64 {
    (state.wrapping_add(ROUND) & !(ARRIVED | SLEEPERS)) | BROKEN
}

pub(super) fn round(state: u64) -> u32 {
    u32::try_from(state >> 32).unwrap_or(0)
}

pub(super) fn arrived(state: u64) -> usize {
    usize::try_from(state & ARRIVED).unwrap_or(0)
}
