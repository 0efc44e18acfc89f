//! What lies behind the log of a queue: locks that say who is there, and who fills a place that is reserved.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use multiproc_robust::{EventCount, RobustLock};
use multiproc_shm::Error;

use crate::members::{Peer, SEATS};
use crate::memory::Memory;
use crate::reserve::MOST;
use crate::view::{Ring, View};

/// Behind the log. It has memory once one of its locks was taken.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SideTable {
    /// Of those who put, and of those who get; see `roles.rs`.
    seats: [[RobustLock; SEATS]; 2],
    /// Of those who fill places; see `reserve.rs`.
    places: [RobustLock; MOST],
    /// Those who wait for one of these.
    waiters: EventCount,
    reserved: AtomicU32,
    /// The head at which those who sleep were last told again that all producers are gone and nothing is there, subtracted from `u64::MAX`, so that 0 means never.
    told: AtomicU64,
    reserved_as_well: [AtomicU64; 5],
}

/// All locks, which lie one behind the other.
pub const LOCKS: usize = 2 * SEATS + MOST;

const _: () = assert!(size_of::<SideTable>() == LOCKS * size_of::<RobustLock>() + 64);

/// Which locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    Members(Peer),
    Reservations,
}

/// A note of the consumers' side: how many locks of each kind, from the first on, were ever taken.
const USED: usize = 5;
/// Bits of each of the three.
const LANE: u32 = u16::BITS;

impl Locks {
    fn shift(self) -> u32 {
        LANE * match self {
            Self::Members(role) => role as u32,
            Self::Reservations => 2,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "one of the three is wanted")]
    fn used_in(self, note: u64) -> usize {
        usize::from((note >> self.shift()) as u16)
    }
}

impl Ring {
    /// Whether the side_table has memory.
    pub fn has_side_table(&self) -> bool {
        self.consumers.notes[USED].load(SeqCst) != 0
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// All locks of this kind. The first time they get memory.
    pub fn all(self, kind: Locks) -> Result<&'a [RobustLock], Error> {
        if !self.ring().has_side_table() {
            // CRASH: memory that nobody looks at; the next sets it aside once more.
            self.memory.populate_side_table()?;
        }
        Ok(self.every(kind))
    }

    /// Those of this kind that were ever taken.
    #[inline]
    pub fn used_locks(self, kind: Locks) -> &'a [RobustLock] {
        // ORDER: SeqCst; pairs with `use_up_to`.
        let every = self.every(kind);
        &every[..kind.used_in(self.ring().consumers.notes[USED].load(SeqCst)).min(every.len())]
    }

    /// Notes that the first so many are used; whether that is news.
    pub fn use_up_to(self, kind: Locks, count: usize) -> bool {
        let more = |note: u64| {
            let news = (count as u64).checked_sub(kind.used_in(note) as u64).filter(|news| *news != 0);
            news.map(|news| note + (news << kind.shift()))
        };
        // ORDER: SeqCst; pairs with the second look of one who has counted himself as a sleeper. CRASH: from here on it is looked at.
        self.ring().consumers.notes[USED].fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// All locks of this kind, be there memory or not.
    pub fn every(self, kind: Locks) -> &'a [RobustLock] {
        let Some(side_table) = self.memory.side_table() else { return &[] };
        match kind {
            Locks::Members(role) => &side_table.seats[role as usize],
            Locks::Reservations => &side_table.places,
        }
    }

    /// Where it is noted that the end was told again; `None`: nobody has ever had a role.
    pub fn told(self) -> Option<&'a AtomicU64> {
        self.memory.side_table().filter(|_| self.ring().has_side_table()).map(|side_table| &side_table.told)
    }

    /// Those who wait for a lock of a place, of which all are used then.
    pub fn waiters(self) -> Option<&'a EventCount> {
        self.memory
            .side_table()
            .filter(|_| !self.used_locks(Locks::Reservations).is_empty())
            .map(|side_table| &side_table.waiters)
    }
}

#[cfg(test)]
impl Default for SideTable {
    fn default() -> Self {
        let locks = || [const { RobustLock::new() }; SEATS];
        Self {
            seats: [locks(), locks()],
            places: [const { RobustLock::new() }; MOST],
            waiters: EventCount::default(),
            reserved: AtomicU32::new(0),
            told: AtomicU64::new(0),
            reserved_as_well: Default::default(),
        }
    }
}
