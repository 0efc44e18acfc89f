//! Slots: which are in use, and their areas.
#![allow(unsafe_code, reason = "takes slots, whose mapping the handle keeps")]

use std::cell::Cell;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{Acquired, RobustLock};
use multiproc_shm::copy;

use super::{AGAIN, DELIVERIES, FREE, JobView, LENGTH, OUT, STATE};
use crate::counters::JobCounters;
use crate::jobs::block::{Jobs, Leases, MAX_LEASES};
use multiproc_ring::{Counters, Refusal};

/// Words for which a slot's area gets memory at a time, and words that it keeps between jobs.
const STEP: usize = 512;
const KEPT: u32 = 1 << 17;

impl<M: Jobs> JobView<'_, M> {
    pub(super) fn leases(&self) -> &Leases {
        self.memory.leases()
    }

    pub(super) fn slot(&self, slot: usize) -> &RobustLock {
        &self.memory.leases().slots[slot]
    }

    pub(super) fn used(self) -> usize {
        (self.leases().used.load(SeqCst) as usize).min(MAX_LEASES)
    }

    pub(super) fn state(self, slot: usize) -> u64 {
        self.slot(slot).guarded[STATE].load(SeqCst)
    }

    pub(super) fn set_state(self, slot: usize, state: u64) {
        // ORDER: Release; pairs with the load in `state`: who finds a job out, or back, finds its bytes, its length and its deliveries.
        self.slot(slot).guarded[STATE].store(state, Release);
    }

    pub(super) fn states(self) -> impl Iterator<Item = u64> {
        (0..self.used()).map(move |slot| self.state(slot))
    }

    /// With the consumers' lock: takes the lock of a free slot; `None` if all are in use.
    pub(super) fn claim(self) -> Result<Option<usize>, Refusal> {
        thread_local! {
            static LAST: Cell<usize> = const { Cell::new(0) };
        }
        let used = self.used();
        let last = LAST.get();
        for slot in (last < used).then_some(last).into_iter().chain(0..used) {
            let lock = self.slot(slot);
            if self.state(slot) != FREE || lock.is_held() {
                continue;
            }
            // SAFETY: as in `lease_again`.
            if let Some(how) = unsafe { lock.claim() }.map_err(Refusal::Lock)? {
                if how != Acquired::Clean {
                    // As in `lease_again`.
                    self.ring().producers.advance();
                }
                LAST.set(slot);
                return Ok(Some(slot));
            }
        }
        if used == MAX_LEASES {
            return Ok(None);
        }
        // ORDER: SeqCst; pairs with the second look at `used` of one who has counted himself as a sleeper.
        self.leases().used.fetch_add(1, SeqCst);
        // Those who sleep do not watch this one. CRASH: counted, and nobody told: whoever takes the consumers' lock next tells them.
        self.tell_everybody();
        LAST.set(used);
        // SAFETY: as above.
        let taken = unsafe { self.slot(used).claim() }.map_err(Refusal::Lock)?;
        Ok(taken.map(|_| used))
    }

    /// With the slot's lock, and `FREE`: the job's bytes, and how often it was handed out.
    pub(super) fn fill_slot(self, slot: usize, message: &[u8], deliveries: u32) -> Result<(), Refusal> {
        let (words, filled) = (copy::words(message.len()), self.slot_words(slot));
        if words > self.memory.area_words() {
            return Err(Refusal::Corrupt);
        }
        if words > filled {
            let wanted = words.next_multiple_of(STEP).min(self.memory.area_words());
            self.memory.populate_area(slot, half(filled)..half(wanted)).map_err(|_| Refusal::NoSpace)?;
            // CRASH: memory, not noted: once more.
            self.leases().notes[slot].filled.store(half(wanted), Relaxed);
        }
        self.memory.write(slot, message);
        let lock = self.slot(slot);
        lock.guarded[LENGTH].store(message.len() as u64, Relaxed);
        let again = lock.guarded[DELIVERIES].load(Relaxed) >> AGAIN;
        lock.guarded[DELIVERIES].store(again << AGAIN | u64::from(deliveries), Relaxed);
        Ok(())
    }

    pub(super) fn slot_words(self, slot: usize) -> usize {
        (self.leases().notes[slot].filled.load(Relaxed) as usize).min(self.memory.area_words())
    }

    /// With the slot's lock: gives back what a long job has needed.
    pub(super) fn shrink(self, slot: usize) {
        let filled = &self.leases().notes[slot].filled;
        let words = filled.load(Relaxed);
        if words > KEPT {
            // CRASH: noted as gone before it goes, so nobody counts on it.
            filled.store(KEPT, Relaxed);
            self.memory.give_back_area(slot, KEPT..words);
        }
    }

    /// Whether the job in this slot came back; without the consumers' lock it may be out again by now. A death on the way into the slot or out of it counts, too: whoever takes the consumers' lock finds out.
    pub(super) fn is_back(self, slot: usize) -> bool {
        // ORDER: the lock first: who has done a job makes the slot free before it gives the lock back.
        !self.slot(slot).is_held_now()
            && match self.state(slot) {
                FREE => false,
                OUT => true,
                _ => !is_planted(Bug::HalfMovedUnseen),
            }
    }

    /// Whether somebody has died on the way into a slot or out of it, and nobody has found out yet.
    pub(super) fn is_half_moved(self) -> bool {
        (0..self.used()).any(|slot| self.is_back(slot) && self.state(slot) > OUT)
    }

    /// Whether there is no job in this slot, read in one order with what its holder does next.
    pub(super) fn is_free(self, slot: usize) -> bool {
        // ORDER: the lock's word first, SeqCst: either this sees that the holder has released it, and with that its `FREE`, or the holder, who looks for those who wait after the release, sees us.
        let _ = self.slot(slot).is_held_now();
        self.state(slot) == FREE
    }

    pub(super) fn has_slot(self) -> bool {
        self.used() < MAX_LEASES || (0..self.used()).any(|slot| !self.slot(slot).is_held_now() && self.state(slot) == FREE)
    }

    /// Notes that the job in this slot is this thread's without anything that would give it back.
    pub(crate) fn note_taken(self, slot: usize) {
        let number = self.leases().taken.fetch_add(1, Relaxed) + 1;
        self.leases().notes[slot].taken.store(number, Relaxed);
    }

    /// The slot that this thread took first, of those that it has noted so.
    pub(crate) fn first_taken(self) -> Option<usize> {
        let taken = |slot: usize| self.leases().notes[slot].taken.load(Relaxed);
        let mine = (0..self.used()).filter(|slot| taken(*slot) != 0 && self.slot(*slot).is_held_by_this_thread());
        mine.min_by_key(|slot| taken(*slot))
    }

    /// What has gone through.
    pub(crate) fn job_counters(self) -> JobCounters {
        let Counters { puts, gets, bytes, put_sleeps, get_sleeps, deaths, .. } = self.counters();
        let again = |slot: usize| self.slot(slot).guarded[DELIVERIES].load(Relaxed) >> AGAIN;
        let redelivered = (0..self.used()).map(again).fold(0, u64::wrapping_add);
        JobCounters { puts, gets, redelivered, dead_lettered: self.dead_lettered(), bytes, put_sleeps, get_sleeps, deaths }
    }

    /// Jobs that are out now.
    pub(crate) fn leased(self) -> usize {
        (0..self.used()).filter(|slot| self.slot(*slot).is_held_now() && self.state(*slot) != FREE).count()
    }
}

/// Words of an area, which has fewer than 2^32.
fn half(words: usize) -> u32 {
    u32::try_from(words).unwrap_or(u32::MAX)
}
