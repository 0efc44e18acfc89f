//! Giving back memory that the head has left behind. After a get, without the consumers' lock; the rules are
//! in `log.rs`.

use crate::guard::{ProducerEnd, ProducerGuard};
use crate::header::Cursor;
use crate::log::PIECES_GIVEN_BACK;
use crate::memory::Memory;
use crate::view::View;

/// Words of the largest page of any machine we know (64 KiB).
const LARGEST_PAGE: u32 = 1 << 13;
/// So many short laps in a row make a log small again.
const CALM_LAPS: u32 = 256;

/// What a log could do without.
enum Unneeded {
    /// From the first word up to the second.
    Behind(u32, u32),
    /// Perhaps what lies above the initial capacity: a lap has ended, and was short, or not.
    Lap { short: bool },
}

impl<M: Memory> View<'_, M> {
    /// After a get that moved the head from `head` to `next`: gives memory back if it leaves much behind that
    /// is not needed.
    #[inline]
    pub fn tidy(self, head: Cursor, next: Cursor) {
        let sizes = self.log().sizes;
        let (from, to) = (sizes.index(head.position), sizes.index(next.position));
        // Seldom: to look takes the producers' cache lines away from them.
        if to < from || (to ^ from) >= sizes.piece {
            self.mark_gets(next);
            self.give_back(to < from);
        }
    }

    /// Gives memory back if much is not needed, and if the producers' lock is to be had at once.
    #[cold]
    #[inline(never)]
    fn give_back(self, wrapped: bool) {
        if self.unneeded(wrapped).is_none() {
            return;
        }
        if let Some(guard) = self.enter_as_producer_at_once(ProducerEnd::recover) {
            guard.end().give_unneeded_back(wrapped);
            ProducerGuard::leave(guard);
        }
    }

    /// What there is to give back. Near the beginning of the log it is what lies above the initial capacity,
    /// once laps were short for some time: memory that comes and goes with each lap costs more than it is
    /// worth. Far from the beginning it is what lies behind the head, as soon as that is much.
    fn unneeded(self, wrapped: bool) -> Option<Unneeded> {
        let sizes = self.log().sizes;
        if self.top() <= sizes.initial || sizes.is_fixed() {
            return None;
        }
        let (head, tail) = (self.head(), self.tail());
        let (h, t) = (sizes.index(head.position), sizes.index(tail.position));
        if tail.position.wrapping_sub(head.position) >= sizes.span || t < h {
            return None;
        }
        if t < sizes.initial {
            return wrapped.then_some(Unneeded::Lap { short: t < sizes.initial / 2 });
        }
        let low = self.low().max(sizes.initial);
        h.checked_sub(low)
            .is_some_and(|words| words >= PIECES_GIVEN_BACK * sizes.piece)
            .then_some(Unneeded::Behind(low, h))
    }
}

impl<M: Memory> ProducerEnd<'_, M> {
    fn give_unneeded_back(self, wrapped: bool) {
        let initial = self.log().sizes.initial;
        match self.unneeded(wrapped) {
            Some(Unneeded::Behind(low, head)) => {
                // CRASH: noted as gone before it goes, so no producer counts on it; not gone yet, it is given
                // back later.
                self.set_solid(initial);
                self.memory.give_back(low..head);
                // The page that the head is in goes with the next ones.
                self.set_low((head - head % LARGEST_PAGE).max(initial), 0);
            }
            Some(Unneeded::Lap { short: true }) if self.calm_laps() >= CALM_LAPS => {
                self.set_solid(initial);
                self.set_filled(self.filled_as_noted().min(initial));
                let top = self.top();
                self.memory.give_back(initial..top);
                // CRASH: given back, not noted: it is given back once more.
                self.set_top(initial);
                self.set_low(initial, 0);
            }
            Some(Unneeded::Lap { short }) => {
                self.set_low(initial, if short { self.calm_laps() + 1 } else { 0 })
            }
            None => {}
        }
    }
}
