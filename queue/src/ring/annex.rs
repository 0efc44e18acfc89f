//! What lies behind the log of a queue: locks that say who is there, and who fills a place that is reserved.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use multiproc_shm::{Error, RobustLock, Seq};

use super::reserve::MOST;
use super::roles::{Role, SEATS};
use super::{Ring, View};
use crate::log::Memory;

/// Behind the log. It has memory once one of its locks was taken.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Annex {
    /// Of those who put, and of those who get; see `roles.rs`.
    seats: [[RobustLock; SEATS]; 2],
    /// Of those who fill places; see `reserve.rs`.
    places: [RobustLock; MOST],
    /// Those who wait for one of these.
    waiters: Seq,
    reserved: AtomicU32,
    /// The head at which those who sleep were last told again that all producers are gone and nothing is there, subtracted from `u64::MAX`, so that 0 means never.
    told: AtomicU64,
    reserved_as_well: [AtomicU64; 5],
}

/// All locks, which lie one behind the other.
pub(crate) const LOCKS: usize = 2 * SEATS + MOST;

const _: () = assert!(size_of::<Annex>() == LOCKS * size_of::<RobustLock>() + 64);

/// Which locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locks {
    Seats(Role),
    Places,
}

/// A note of the consumers' side: how many locks of each kind, from the first on, were ever taken.
const USED: usize = 5;
/// Bits of each of the three.
const LANE: u32 = u16::BITS;

impl Locks {
    fn shift(self) -> u32 {
        LANE * match self {
            Self::Seats(role) => role as u32,
            Self::Places => 2,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "one of the three is wanted")]
    fn used_in(self, note: u64) -> usize {
        usize::from((note >> self.shift()) as u16)
    }
}

impl Ring {
    /// Whether the annex has memory.
    pub(crate) fn has_annex(&self) -> bool {
        self.consumers.notes[USED].load(SeqCst) != 0
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// All locks of this kind. The first time they get memory.
    pub(super) fn all(self, kind: Locks) -> Result<&'a [RobustLock], Error> {
        if !self.ring().has_annex() {
            // CRASH: memory that nobody looks at; the next sets it aside once more.
            self.memory.populate_annex()?;
        }
        Ok(self.every(kind))
    }

    /// Those of this kind that were ever taken.
    #[inline]
    pub(super) fn used_locks(self, kind: Locks) -> &'a [RobustLock] {
        // ORDER: SeqCst; pairs with `use_up_to`.
        let every = self.every(kind);
        &every[..kind.used_in(self.ring().consumers.notes[USED].load(SeqCst)).min(every.len())]
    }

    /// Notes that the first so many are used; whether that is news.
    pub(super) fn use_up_to(self, kind: Locks, count: usize) -> bool {
        let more = |note: u64| {
            let news = (count as u64).checked_sub(kind.used_in(note) as u64).filter(|news| *news != 0);
            news.map(|news| note + (news << kind.shift()))
        };
        // ORDER: SeqCst; pairs with the second look of one who has counted himself as a sleeper. CRASH: from here on it is looked at.
        self.ring().consumers.notes[USED].fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// All locks of this kind, be there memory or not.
    pub(super) fn every(self, kind: Locks) -> &'a [RobustLock] {
        let Some(annex) = self.memory.annex() else { return &[] };
        match kind {
            Locks::Seats(role) => &annex.seats[role as usize],
            Locks::Places => &annex.places,
        }
    }

    /// Where it is noted that the end was told again; `None`: nobody has ever had a role.
    pub(super) fn told(self) -> Option<&'a AtomicU64> {
        self.memory.annex().filter(|_| self.ring().has_annex()).map(|annex| &annex.told)
    }

    /// Those who wait for a lock of a place, of which all are used then.
    pub(super) fn waiters(self) -> Option<&'a Seq> {
        self.memory.annex().filter(|_| !self.used_locks(Locks::Places).is_empty()).map(|annex| &annex.waiters)
    }
}

#[cfg(test)]
impl Default for Annex {
    fn default() -> Self {
        let locks = || [const { RobustLock::new() }; SEATS];
        Self {
            seats: [locks(), locks()],
            places: [const { RobustLock::new() }; MOST],
            waiters: Seq::default(),
            reserved: AtomicU32::new(0),
            told: AtomicU64::new(0),
            reserved_as_well: Default::default(),
        }
    }
}
