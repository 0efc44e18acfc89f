//! The shared words of leases, under their names: [`Leases`], and in it the claims and notes of 120 leases.
//!
//! | bytes | words | written by |
//! |---|---|---|
//! | 0..16 | `used`, `closing`, `starved`, `has_letters` | see each field |
//! | 16..28 | `joiners` | the event count |
//! | 28..32 | `replayed` | the holder of the consumers' lock |
//! | 64..72 | `next`, `leased` | the holder of the consumers' lock |
//! | 72..80 | `taken` | any thread |
//! | 128..7808 | `claims`: 120 locks, each with [`LeaseWords`] | the claim's holder, and the holder of the consumers' lock |
//! | 7808..15488 | `notes`: 120 times [`LeaseNotes`] | the claim's holder |

use std::sync::atomic::{AtomicU32, AtomicU64};

use multiproc_robust::{EventCount, RobustLock, shared_words};

/// How many jobs can be leased at once: with the words of the two sides, as many as one parked thread can
/// watch.
pub const MAX_LEASES: usize = 120;

/// What of leased jobs is the queue's.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Leases {
    /// How many leases, from the first on, were ever used. Raised with the consumers' lock.
    pub(crate) used: AtomicU32,
    /// Not 0 once a process has begun to close the queue.
    pub(crate) closing: AtomicU32,
    /// Not 0 while a consumer may wait for a free lease.
    pub(crate) starved: AtomicU32,
    /// Not 0 once the beginning of the dead-letter log has memory.
    pub(crate) has_letters: AtomicU32,
    /// For the threads that wait for the last job to be done.
    pub(crate) joiners: EventCount,
    /// Counts dead letters that became jobs again.
    pub(crate) replayed: AtomicU32,
    reserved: [AtomicU32; 8],
    /// Where the next look for jobs that came back begins.
    pub(crate) next: AtomicU32,
    /// Counts leases.
    pub(crate) leased: AtomicU32,
    /// How many jobs were [taken](crate::JoinableQueue::take).
    pub(crate) taken: AtomicU64,
    reserved_as_well: [AtomicU64; 6],
    /// Of each lease: held while the job is leased.
    pub(crate) claims: [RobustLock; MAX_LEASES],
    pub(crate) notes: [LeaseNotes; MAX_LEASES],
}

shared_words! {
    /// What the claim of a lease guards.
    pub(crate) struct LeaseWords {
        /// A state in the low half, the number of a message in the high half; see `lease.rs`.
        pub(crate) state: AtomicU64,
        /// How often the job was handed out (low 24 bits), and how often any job was handed out again from
        /// this lease: one store counts both.
        pub(crate) deliveries: AtomicU64,
        /// Bytes of the job.
        pub(crate) length: AtomicU64,
    }
}

/// What of a lease is not beside its claim.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct LeaseNotes {
    /// Words of its area that have memory.
    pub(crate) filled: AtomicU32,
    reserved: AtomicU32,
    /// Not 0: its holder took the job without a [`Job`](crate::Job), and this is the number of that take; see
    /// `task_done`.
    pub(crate) taken: AtomicU64,
    reserved_too: [AtomicU64; 6],
}

const _: () = assert!(size_of::<Leases>() == 128 + MAX_LEASES * 128);
