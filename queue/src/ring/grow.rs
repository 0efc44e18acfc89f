//! A log that is larger or smaller than its home: memory set aside where the tail climbs, given back behind the head. The rules are in `log.rs`.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::{FILLED, HEAD, JUMPED, LOW, Refusal, TAIL, TOP, View, header_of};
use crate::log::{Header, Place, Spot};

/// Words of the largest page of any machine we know (64 KiB).
pub(super) const LARGEST_PAGE: u32 = 1 << 13;

impl View<'_> {
    /// Appends behind a jump, or where there may be no memory yet.
    #[cold]
    #[inline(never)]
    pub(super) fn append_afar(self, tail: Place, spot: Spot, need: u32, message: &[u8]) -> Result<(), Refusal> {
        let sizes = self.log.sizes;
        if sizes.is_fixed() {
            self.write(tail, need, message);
            return Ok(());
        }
        let old = sizes.index(tail.position);
        let (index, filled) = match spot {
            Spot::Tail => (old, self.note(FILLED).max(old)),
            Spot::Jump(index) => (index, index),
        };
        let filled = self.grow(filled.max(sizes.home), index + need)?;
        match spot {
            Spot::Tail => {
                self.set_note(FILLED, filled);
                self.write(tail, need, message);
            }
            Spot::Jump(index) => {
                let position = sizes.onward(tail.position, index);
                let next = Place { position, ..tail }.after(need);
                self.fill(position, next.position, message);
                // ORDER: Relaxed: made visible by the commit.
                self.log.at(position).store(header_of(message), Relaxed);
                // ORDER: Release pairs with the Acquire in `take`. CRASH: the commit, of the jump and its record. What follows, `recover` does again.
                self.log.at(tail.position).store(Header::Jump(index).word(), Release);
                self.note_jump(old, filled);
                self.producer(TAIL).store(next.word(), Relaxed);
            }
        }
        Ok(())
    }

    pub(super) fn note_jump(self, from: u32, filled: u32) {
        self.set_note(JUMPED, from);
        self.set_note(FILLED, filled);
        self.set_note(LOW, self.log.sizes.home);
    }

    /// With the producers' lock: sets memory aside from the word `filled` on, so that `last` has some; up to where there is some then.
    fn grow(self, filled: u32, last: u32) -> Result<u32, Refusal> {
        if last < filled {
            return Ok(filled);
        }
        let sizes = self.log.sizes;
        let pieces = |end: u32| end.checked_next_multiple_of(sizes.piece).map_or(sizes.span, |end| end.min(sizes.span));
        for end in [pieces(last + 1), last + 1] {
            self.set_note(TOP, self.note(TOP).max(end));
            // CRASH: memory that nobody noted: it lies below `top`, and is given back one day.
            if self.log.populate(filled..end).is_ok() {
                return Ok(end);
            }
        }
        Err(Refusal::NoSpace)
    }

    /// After a get that took the head from `head` to `next`: whether it leaves memory behind that nobody needs.
    #[inline]
    pub(super) fn tidy(self, head: Place, next: Place) {
        let sizes = self.log.sizes;
        let (from, to) = (sizes.index(head.position), sizes.index(next.position));
        if (to >= sizes.home || to < from) && !sizes.is_fixed() {
            self.give_back();
        }
    }

    /// Gives back what lies behind the head, if that is much or all, and if the producers' lock is to be had at once.
    #[cold]
    #[inline(never)]
    fn give_back(self) {
        if self.behind().is_none() || !self.enter_producers_at_once() {
            return;
        }
        let home = self.log.sizes.home;
        if let Some((start, end)) = self.behind() {
            // CRASH: given back, not noted: it is given back once more.
            self.log.give_back(start..end);
            if start == home && end == self.note(TOP) {
                self.set_note(TOP, home);
                self.set_note(FILLED, home);
                self.set_note(LOW, home);
            } else {
                // The page that the head is in comes with the next ones.
                self.set_note(LOW, (end - end % LARGEST_PAGE).max(home));
            }
        }
        self.leave_producers();
    }

    /// The words that nobody needs any more, if giving them back is worth a system call.
    fn behind(self) -> Option<(u32, u32)> {
        let sizes = self.log.sizes;
        let (head, tail) = (Place::load(self.consumer(HEAD)), Place::load(self.producer(TAIL)));
        let (h, t) = (sizes.index(head.position), sizes.index(tail.position));
        let top = self.note(TOP);
        if top <= sizes.home || tail.position.wrapping_sub(head.position) >= sizes.span || t < h {
            return None;
        }
        if t < sizes.home {
            return Some((sizes.home, top));
        }
        let low = self.note(LOW).max(sizes.home);
        let much = h.checked_sub(low).is_some_and(|words| words >= sizes.piece || (words > LARGEST_PAGE && head == tail));
        much.then_some((low, h))
    }
}
