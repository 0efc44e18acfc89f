//! The shared bytes of a barrier, and what they say. The protocol is described in `participants.rs`.
#![allow(unsafe_code, reason = "locks behind the block")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use multiproc_robust::{EventCount, MAX_WATCHED_WORDS, RobustLock, shared_words};
use multiproc_shm::{Object, Shared};

/// The most participants that a barrier can have: each watches a word of every other one, and the kernel
/// watches at most 128 words in one sleep.
pub const MAX_PARTIES: usize = 120;

const _: () = assert!(MAX_PARTIES + 2 <= MAX_WATCHED_WORDS);

/// The shared bytes of a [`Barrier`](super::Barrier). Behind them lie the participants' locks, and the
/// control lock.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct BarrierBlock {
    pub(super) state: AtomicU64,
    /// The process whose death broke a round (low half), and that round (high half).
    pub(super) cause: AtomicU64,
    /// Signalled when a participant's lock becomes free.
    pub(super) lock_freed: EventCount,
    /// How many threads wait for a participant's lock; too high after a death.
    pub(super) waiting_for_lock: AtomicU32,
    reserved: [AtomicU64; 4],
}

const _: () = assert!(size_of::<BarrierBlock>() == 64);

shared_words! {
    /// The words that a participant's lock guards.
    pub(super) struct ParticipantWords {
        /// The round in which the lock's owner arrived, as [`noted`] writes it.
        pub(super) in_round: AtomicU64,
        /// The CPU on which the last owner was seen, plus 1; 0: none.
        pub(super) cpu: AtomicU64,
        /// Process id << 32 | thread id of the thread that noted the round. (What the lock itself says of its
        /// last owner is the next owner's as soon as there is one.)
        pub(super) noted_by: AtomicU64,
    }
}

pub(super) const ARRIVED: u64 = 0xff;
pub(super) const BROKEN: u64 = 1 << 8;
pub(super) const RELEASE_PARITY: u64 = 1 << 9;
pub(super) const MAY_SLEEP: u64 = 1 << 10;
pub(super) const ONE_ROUND: u64 = 1 << 32;

// SAFETY: `repr(C)`, atomics only; its size depends on the extents; `more_locks` names all locks behind it.
unsafe impl Object for BarrierBlock {
    const KIND: &'static str = "barrier";
    const LAYOUT: u32 = 1;
    type Params = usize;

    fn extents(parties: &usize) -> Result<[u64; 2], String> {
        let fits = (1..=MAX_PARTIES).contains(parties);
        if fits {
            Ok([*parties as u64, 0])
        } else {
            Err(format!("{parties} parties, and not 1 to {MAX_PARTIES}"))
        }
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        let parties = usize::try_from(extents[0])
            .ok()
            .filter(|parties| (1..=MAX_PARTIES).contains(parties) && extents[1] == 0)?;
        Some(size_of::<Self>() + (parties + 1) * size_of::<RobustLock>())
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }

    unsafe fn more_locks(&self, tail: *const AtomicU64, extents: [u64; 2]) -> &[RobustLock] {
        let locks = usize::try_from(extents[0]).unwrap_or(0).min(MAX_PARTIES) + 1;
        // SAFETY: `size` has room for so many locks behind the block, aligned as it is; they are atomics
        // only, of which every bit pattern is valid.
        unsafe { std::slice::from_raw_parts(tail.cast(), locks) }
    }
}

impl BarrierBlock {
    /// Returns how many participants have arrived and not been released.
    pub(super) fn waiting(&self) -> usize {
        arrived(self.state.load(SeqCst))
    }
}

/// A barrier's words and locks.
#[derive(Clone, Copy)]
pub(super) struct Participants<'a> {
    pub(super) block: &'a BarrierBlock,
    /// All locks: the participants', then the control lock.
    pub(super) locks: &'a [RobustLock],
    /// The participants' locks. Not a `ClaimSet`: a participant watches all of them, so there is no used
    /// prefix.
    pub(super) participant_locks: &'a [RobustLock],
    pub(super) control_lock: &'a RobustLock,
}

impl<'a> Participants<'a> {
    /// Returns the participants of this barrier.
    pub(super) fn of(shared: &'a Shared<BarrierBlock>) -> Self {
        let block: &BarrierBlock = shared;
        // SAFETY: the two parts of one object, whose extents were checked when it was found.
        let locks = unsafe { block.more_locks(shared.tail(), shared.extents()) };
        // There is always at least one lock, the control lock.
        let (participant_locks, control_lock) = locks.split_at(locks.len() - 1);
        Self { block, locks, participant_locks, control_lock: &control_lock[0] }
    }

    /// Returns how many participants a round has.
    pub(super) fn len(self) -> usize {
        self.participant_locks.len()
    }
}

/// Returns the words that a participant's lock guards.
pub(super) fn words(lock: &RobustLock) -> &ParticipantWords {
    lock.guarded_as()
}

/// Returns the state that follows a break.
pub(super) fn broken(state: u64) -> u64 {
    (state.wrapping_add(ONE_ROUND) & !(ARRIVED | MAY_SLEEP)) | BROKEN
}

/// Returns the state that follows a release.
pub(super) fn released(state: u64) -> u64 {
    (state.wrapping_add(ONE_ROUND) ^ RELEASE_PARITY) & !(ARRIVED | MAY_SLEEP)
}

/// Returns the state that follows a reset.
pub(super) fn reset(state: u64) -> u64 {
    state.wrapping_add(ONE_ROUND) & !(BROKEN | ARRIVED | MAY_SLEEP)
}

pub(super) fn round(state: u64) -> u32 {
    u32::try_from(state >> 32).unwrap_or(0)
}

pub(super) fn arrived(state: u64) -> usize {
    usize::try_from(state & ARRIVED).unwrap_or(0)
}

/// Returns a round as a participant notes it: with a mark, so that 0 is no note.
pub(super) fn noted(round: u32) -> u64 {
    1 << 32 | u64::from(round)
}
