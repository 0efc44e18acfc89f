//! Memory of the log: where there is some, and setting more aside. With the producers' lock. The rules are in
//! `log.rs`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc_robust::{high, low};

use crate::guard::ProducerEnd;
use crate::memory::Memory;
use crate::view::Refusal;

impl<M: Memory> ProducerEnd<'_, M> {
    /// From the tail up to this word there is memory.
    #[inline(always)]
    pub(crate) fn filled(self) -> u32 {
        self.filled_as_noted().max(self.log().sizes.initial)
    }

    #[inline(always)]
    pub(crate) fn filled_as_noted(self) -> u32 {
        low(self.producer_notes().filled.load(Relaxed))
    }

    pub(crate) fn set_filled(self, filled: u32) {
        set(&self.producer_notes().filled, filled);
    }

    pub(crate) fn set_solid(self, solid: u32) {
        set(&self.producer_notes().solid, solid);
    }

    /// Up to where there is memory from this word on, as far as it is noted.
    pub(crate) fn filled_at(self, index: u32) -> u32 {
        if index <= self.end() { self.end() } else { index }
    }

    /// Notes a jump from the word `from`. From where it leads to, there is memory up to the word `filled`.
    pub(crate) fn note_jump(self, from: u32, filled: u32) {
        self.set_jumped_and_top(from, self.top());
        self.set_filled(filled);
        self.set_low(self.log().sizes.initial, self.calm_laps());
    }

    pub(crate) fn set_top(self, top: u32) {
        self.set_jumped_and_top(low(self.producer_notes().jumped_top.load(Relaxed)), top);
    }

    fn set_jumped_and_top(self, jumped: u32, top: u32) {
        self.producer_notes().jumped_top.store(u64::from(jumped) | u64::from(top) << 32, Relaxed);
    }

    /// How many short laps in a row there were.
    pub(crate) fn calm_laps(self) -> u32 {
        high(self.producer_notes().low_calm.load(Relaxed))
    }

    pub(crate) fn set_low(self, low: u32, calm_laps: u32) {
        self.producer_notes().low_calm.store(u64::from(low) | u64::from(calm_laps) << 32, Relaxed);
    }

    /// Sets memory aside from the word `filled` on, so that the word `last` has some. Returns up to where
    /// there is memory then.
    pub(crate) fn grow(self, filled: u32, last: u32) -> Result<u32, Refusal> {
        if last < filled {
            return Ok(filled);
        }
        let sizes = self.log().sizes;
        // Twice as much, then piece by piece.
        let step = (last + 1).next_power_of_two().min(sizes.piece);
        let rounded = (last + 1).next_multiple_of(step).min(sizes.span);
        for end in [rounded, last + 1] {
            self.set_top(self.top().max(end));
            // CRASH: memory that no thread noted: it lies below `top`, and is given back later.
            if self.memory.populate(filled..end).is_ok() {
                if filled <= self.end() {
                    self.set_solid(end);
                }
                return Ok(end);
            }
        }
        Err(Refusal::NoSpace)
    }
}

/// Sets a note that is a word of the log.
#[inline]
fn set(note: &AtomicU64, word: u32) {
    // ORDER: Relaxed: for the next holder of the lock, whose acquire pairs with this holder's release; other
    // threads take it as a hint.
    note.store(u64::from(word), Relaxed);
}
