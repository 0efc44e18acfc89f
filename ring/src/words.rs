//! Every shared word of a ring, under its name. Words are allotted in this file and nowhere else.
//!
//! | bytes | words | written by |
//! |---|---|---|
//! | 0..40 | lock of the producers' side | the lock |
//! | 40..64 | [`ProducerWords`]: `tail`, `bytes`, `closed` | the lock's holder; `closed` once |
//! | 64..72 | counts of the consumers that are parked there | the side |
//! | 72..128 | [`ProducerNotes`]: `least`, `passed`, `jumped_top`, `filled`, `seen_head`, `low_calm`, `solid` | the lock's holder; `least` by a producer that parks |
//! | 128..168 | lock of the consumers' side | the lock |
//! | 168..192 | [`ConsumerWords`]: `head`, `pause`, `cpus` | the lock's holder |
//! | 192..200 | counts of the producers that are parked there | the side |
//! | 200..256 | [`ConsumerNotes`]: `puts`, `gets`, `put_sleeps`, `get_sleeps`, `deaths`, `members`, `reservations`, `woke` | any thread, seldom |
//! | 256.. | the log: 8-byte words, see `log.rs` | producers |
//! | behind the log | [`SideTable`]: the claims of members and of reservations | their holders |
//!
//! All zeros is a ring that holds nothing and was never used.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};

use multiproc_robust::{EventCount, RobustLock, Side, shared_words};

/// The fixed part of a ring.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Ring {
    pub(crate) producers: Side,
    pub(crate) consumers: Side,
}

const _: () = assert!(size_of::<Ring>() == 256 && offset_of!(Ring, consumers) == 128);

shared_words! {
    /// What the producers' lock guards, on the lock's cache line.
    pub(crate) struct ProducerWords {
        /// The [`Cursor`](crate::Cursor) behind the last record: the producers' own note. A consumer looks at
        /// the header itself.
        pub(crate) tail: AtomicU64,
        /// Bytes of all messages so far.
        pub(crate) bytes: AtomicU64,
        /// Not 0: the ring is closed.
        pub(crate) closed: AtomicU64,
    }

    /// Notes of the producers' side.
    pub(crate) struct ProducerNotes {
        /// The words of the smallest record for which a producer has ever parked, subtracted from `u64::MAX`:
        /// 0 means none.
        pub(crate) least: AtomicU64,
        /// The head at which producers last woke each other because the room was too little for one of them.
        pub(crate) passed: AtomicU64,
        /// The word of the last jump (low half); above the word `top` (high half) there is no memory.
        pub(crate) jumped_top: AtomicU64,
        /// From the tail up to this word there is memory.
        pub(crate) filled: AtomicU64,
        /// The head as a producer last read it. It is written seldom, so not beside the lock, where no word
        /// is left.
        pub(crate) seen_head: AtomicU64,
        /// Since the last jump, memory was given back from the initial capacity up to this word (low half);
        /// how many short laps in a row there were (high half).
        pub(crate) low_calm: AtomicU64,
        /// From the beginning up to this word there is memory.
        pub(crate) solid: AtomicU64,
    }

    /// What the consumers' lock guards, on the lock's cache line.
    pub(crate) struct ConsumerWords {
        /// The [`Cursor`](crate::Cursor) of the oldest record.
        pub(crate) head: AtomicU64,
        /// How long a consumer that finds nothing pauses before it looks again (low half), and the head's
        /// count at the last such pause (high half).
        pub(crate) pause: AtomicU64,
        /// The CPU of a consumer, plus 1 (low half); the CPU of the producer of the last message (high half).
        pub(crate) cpus: AtomicU64,
    }

    /// Notes of the consumers' side, on a cache line that no put or get needs.
    pub(crate) struct ConsumerNotes {
        /// How many messages had been put when this was last noted.
        pub(crate) puts: AtomicU64,
        /// How many messages had been taken when this was last noted.
        pub(crate) gets: AtomicU64,
        /// How often a producer went to sleep for want of room.
        pub(crate) put_sleeps: AtomicU64,
        /// How often a consumer went to sleep for want of a message.
        pub(crate) get_sleeps: AtomicU64,
        /// How often a lock was taken over from a dead owner.
        pub(crate) deaths: AtomicU64,
        /// How many claims of producers, and of consumers, were ever taken, from the first on.
        pub(crate) members: [AtomicU16; 2],
        /// How many claims of reservations were ever taken, from the first on.
        pub(crate) reservations: AtomicU16,
        pub(crate) spare: AtomicU16,
        /// The head at which a briefly parked producer was last woken.
        pub(crate) woke: AtomicU64,
    }

    /// What a claim of a reservation guards.
    pub(crate) struct ReservationWords {
        /// Counts how often the claim was taken, or its reservation given up.
        pub(crate) generation: AtomicU64,
        pub(crate) spare: [AtomicU64; 2],
    }
}

impl Ring {
    /// Returns the locks of both sides.
    pub fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(self.producers.lock()), Some(self.consumers.lock())]
    }

    /// Returns the side whose lock producers share, and on which consumers park.
    #[inline(always)]
    pub fn producers(&self) -> &Side {
        &self.producers
    }

    /// Returns the side whose lock consumers share, and on which producers park.
    #[inline(always)]
    pub fn consumers(&self) -> &Side {
        &self.consumers
    }

    /// Returns whether the side table has memory.
    pub fn has_side_table(&self) -> bool {
        let ConsumerNotes { members: [producers, consumers], reservations, .. } = self.consumers.notes_as();
        [producers, consumers, reservations].into_iter().any(|used| used.load(SeqCst) != 0)
    }
}

/// What a process does with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a ring has two sides")]
pub enum Peer {
    /// It puts.
    Producer,
    /// It gets.
    Consumer,
}

/// How many members of each kind there can be.
pub const MAX_MEMBERS: usize = 60;
/// How many reservations there can be at once.
pub const MAX_RESERVATIONS: usize = 8;
/// How many claims lie at the beginning of the [`SideTable`], one behind the other.
pub const CLAIMS: usize = 2 * MAX_MEMBERS + MAX_RESERVATIONS;

/// What lies behind the log: claims that say which members live, and which process fills a reservation. It
/// has memory once one of them was taken.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SideTable {
    /// Of producers and of consumers; see `members.rs`.
    pub(crate) members: [[RobustLock; MAX_MEMBERS]; 2],
    /// See `reserve.rs`.
    pub(crate) reservations: [RobustLock; MAX_RESERVATIONS],
    /// For the threads that wait for a free claim of a reservation.
    pub(crate) waiters: EventCount,
    reserved: AtomicU32,
    /// The head at which parked threads were last notified again that all producers have disconnected and
    /// nothing is there, subtracted from `u64::MAX`: 0 means never.
    pub(crate) end_notified: AtomicU64,
    reserved_as_well: [AtomicU64; 5],
}

const _: () = assert!(size_of::<SideTable>() == CLAIMS * size_of::<RobustLock>() + 64);

#[cfg(test)]
impl Default for SideTable {
    fn default() -> Self {
        let claims = || [const { RobustLock::new() }; MAX_MEMBERS];
        Self {
            members: [claims(), claims()],
            reservations: [const { RobustLock::new() }; MAX_RESERVATIONS],
            waiters: EventCount::default(),
            reserved: AtomicU32::new(0),
            end_notified: AtomicU64::new(0),
            reserved_as_well: Default::default(),
        }
    }
}
