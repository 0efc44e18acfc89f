//! Filling leases: a free claim, and the area for the job's bytes.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use multiproc_ring::Refusal;
use multiproc_robust::{Acquired, low};
use multiproc_shm::copy;

use super::{FREE, JobEnd, JobView, claim};
use crate::jobs::block::Jobs;
use crate::jobs::words::MAX_LEASES;

/// Words for which an area gets memory at a time.
const STEP: usize = 512;
/// Words of which an area keeps the memory between jobs.
const KEPT: u32 = 1 << 17;

/// In the word of deliveries: where the count begins of how often any job was handed out again from this
/// lease.
const AGAIN: u32 = 24;
pub(super) const MAX_DELIVERIES: u32 = (1 << AGAIN) - 1;

/// How often the job was handed out.
pub(super) fn deliveries_of(word: u64) -> u32 {
    low(word) & MAX_DELIVERIES
}

/// How often any job was handed out again from this lease.
pub(super) fn again_of(word: u64) -> u64 {
    word >> AGAIN
}

/// The word of deliveries after a delivery.
pub(super) fn counted(before: u64, again: u64, deliveries: u32) -> u64 {
    (again_of(before) + again) << AGAIN | u64::from(deliveries)
}

impl<M: Jobs> JobEnd<'_, M> {
    /// Takes the claim of a free lease; `None` if all are in use.
    pub(super) fn claim_free(self) -> Result<Option<usize>, Refusal> {
        thread_local! {
            static LAST: Cell<usize> = const { Cell::new(0) };
        }
        let used = self.used();
        let last = LAST.get();
        for number in (last < used).then_some(last).into_iter().chain(0..used) {
            if self.state(number) != FREE || self.lock(number).is_held() {
                continue;
            }
            if let Some(how) = claim(self.lock(number))? {
                if how != Acquired::Clean {
                    // As in `lease_again`.
                    self.ring().producers().advance();
                }
                LAST.set(number);
                return Ok(Some(number));
            }
        }
        if used == MAX_LEASES {
            return Ok(None);
        }
        // ORDER: SeqCst pairs with the look at `used` of a thread that has counted itself as parked.
        self.claims().raise_used(used + 1);
        // Parked threads do not watch this one.
        // CRASH: counted, but no thread is notified: the next owner of the consumers' lock notifies them.
        self.notify_everyone_of_jobs();
        LAST.set(used);
        Ok(claim(self.lock(used))?.map(|_| used))
    }

    /// With the claim of a `FREE` lease: writes the job's bytes, and how often it was handed out.
    pub(super) fn fill(self, number: usize, message: &[u8], deliveries: u32) -> Result<(), Refusal> {
        let (words, filled) = (copy::words(message.len()), self.words_with_memory(number));
        if words > self.memory.area_words() {
            return Err(Refusal::Corrupt);
        }
        if words > filled {
            let wanted = words.next_multiple_of(STEP).min(self.memory.area_words());
            self.memory.populate_area(number, half(filled)..half(wanted)).map_err(|_| Refusal::NoSpace)?;
            // CRASH: memory, not noted: it is set aside once more.
            self.notes(number).filled.store(half(wanted), Relaxed);
        }
        self.memory.write(number, message);
        let lease = self.words(number);
        lease.length.store(message.len() as u64, Relaxed);
        lease.deliveries.store(counted(lease.deliveries.load(Relaxed), 0, deliveries), Relaxed);
        Ok(())
    }
}

impl<M: Jobs> JobView<'_, M> {
    /// Words of the area that have memory.
    pub(super) fn words_with_memory(self, number: usize) -> usize {
        (self.notes(number).filled.load(Relaxed) as usize).min(self.memory.area_words())
    }

    /// With the claim: gives back the memory that a long job has needed.
    pub(super) fn shrink(self, number: usize) {
        let filled = &self.notes(number).filled;
        let words = filled.load(Relaxed);
        if words > KEPT {
            // CRASH: noted as gone before it goes, so no thread counts on it.
            filled.store(KEPT, Relaxed);
            self.memory.give_back_area(number, KEPT..words);
        }
    }
}

/// Words of an area, which has fewer than 2^32.
fn half(words: usize) -> u32 {
    u32::try_from(words).unwrap_or(u32::MAX)
}
