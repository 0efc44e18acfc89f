//! A log that is larger or smaller than its home: memory set aside where the tail climbs, given back behind the head. The rules are in `log.rs`.

use std::sync::atomic::Ordering::{Relaxed, Release};

use multiproc_robust::spin;

use crate::log::{Cursor, Header, MUCH, Spot};
use crate::memory::Memory;
use crate::record::Content;
use crate::view::{Appended, CPUS, FILLED, HEAD, JUMPED, LOW, Refusal, SELDOM, SOLID, TAIL, View};

/// Words of the largest page of any machine we know (64 KiB).
const LARGEST_PAGE: u32 = 1 << 13;
/// So many short laps in a row make a queue small again.
const CALM: u32 = 256;

impl<M: Memory> View<'_, M> {
    /// Appends where it was not plain that there is room and memory: behind a jump, far from home, or nowhere. Memory is set aside only if it `may_grow`.
    #[cold]
    #[inline(never)]
    pub fn append_afar<C: Content>(self, tail: Cursor, need: u32, message: C, may_grow: bool) -> Result<Appended, Refusal> {
        self.mark_puts(tail);
        let head = self.see_head();
        let Some(spot) = self.spot(tail, head, need)? else { return Ok(Appended::NoRoom) };
        let done = self.append_at(spot, tail, need, message, may_grow);
        if done == Err(Refusal::NoSpace)
            && let Some(nearer) = self.spot_within(tail, head, need, self.end())?
            && nearer != spot
        {
            // There is room, only less of it than would be good.
            return self.append_at(nearer, tail, need, message, may_grow);
        }
        done
    }

    fn append_at<C: Content>(self, spot: Spot, tail: Cursor, need: u32, message: C, may_grow: bool) -> Result<Appended, Refusal> {
        let sizes = self.log().sizes;
        if sizes.is_fixed() {
            self.write(tail, need, message);
            return Ok(Appended::Yes);
        }
        let old = sizes.index(tail.position);
        let (index, filled) = match spot {
            Spot::Tail => (old, self.note(FILLED).max(old).max(sizes.home)),
            Spot::Jump(index) => (index, self.filled_at(index)),
        };
        let last = index + need;
        if last >= filled && !may_grow {
            return Ok(Appended::WouldGrow);
        }
        let filled = self.grow(filled, last)?;
        match spot {
            Spot::Tail => {
                self.set_note(FILLED, filled);
                self.write(tail, need, message);
            }
            Spot::Jump(index) => {
                let position = sizes.onward(tail.position, index);
                let next = Cursor { position, ..tail }.after(need);
                self.fill(position, next.position, message);
                // ORDER: Relaxed: made visible by the commit.
                self.log().at(position).store(message.header(), Relaxed);
                // ORDER: Release pairs with the Acquire in `take`. CRASH: the commit, of the jump and its record. What follows, `recover` does again.
                self.log().at(tail.position).store(Header::Jump(index).word(), Release);
                self.note_jump(old, filled);
                self.producer(TAIL).store(next.word(), Relaxed);
                self.count_bytes(message.length());
            }
        }
        Ok(Appended::Yes)
    }

    /// Up to where there is memory from this word on, for all that is noted.
    pub fn filled_at(self, index: u32) -> u32 {
        if index <= self.end() { self.end() } else { index }
    }

    pub fn note_jump(self, from: u32, filled: u32) {
        self.set_jumped_and_top(from, self.top());
        self.set_note(FILLED, filled);
        self.set_low(self.log().sizes.home, self.calm_laps());
    }

    /// Above this word there is no memory.
    #[allow(clippy::cast_possible_truncation, reason = "the high half is wanted")]
    pub fn top(self) -> u32 {
        (self.ring().producers.notes[JUMPED].load(Relaxed) >> 32) as u32
    }

    fn set_top(self, top: u32) {
        self.set_jumped_and_top(self.note(JUMPED), top);
    }

    /// With the producers' lock, as every note.
    fn set_jumped_and_top(self, jumped: u32, top: u32) {
        self.ring().producers.notes[JUMPED].store(u64::from(jumped) | u64::from(top) << 32, Relaxed);
    }

    #[allow(clippy::cast_possible_truncation, reason = "the high half is wanted")]
    fn calm_laps(self) -> u32 {
        (self.ring().producers.notes[LOW].load(Relaxed) >> 32) as u32
    }

    fn set_low(self, low: u32, calm_laps: u32) {
        self.ring().producers.notes[LOW].store(u64::from(low) | u64::from(calm_laps) << 32, Relaxed);
    }

    /// With the producers' lock: sets memory aside from the word `filled` on, so that `last` has some; up to where there is some then.
    fn grow(self, filled: u32, last: u32) -> Result<u32, Refusal> {
        if last < filled {
            return Ok(filled);
        }
        let sizes = self.log().sizes;
        // Twice as much, then piece by piece.
        let step = (last + 1).next_power_of_two().min(sizes.piece);
        let rounded = (last + 1).next_multiple_of(step).min(sizes.span);
        for end in [rounded, last + 1] {
            self.set_top(self.top().max(end));
            // CRASH: memory that nobody noted: it lies below `top`, and is given back one day.
            if self.memory.populate(filled..end).is_ok() {
                if filled <= self.end() {
                    self.set_note(SOLID, end);
                }
                return Ok(end);
            }
        }
        Err(Refusal::NoSpace)
    }

    /// Without a lock: waits a moment for room at the beginning of the log. A producer that is a little faster than its consumers would otherwise take memory, and more of it, for nothing.
    #[cold]
    #[inline(never)]
    pub fn wait_before_growing(self, need: u32) {
        let sizes = self.log().sizes;
        let much = |head: Cursor| sizes.index(head.position) > need.max(sizes.home / 4);
        let ready = || {
            let (head, tail) = (Cursor::load(self.consumer(HEAD)), Cursor::load(self.producer(TAIL)));
            head == tail || (much(head) && matches!(self.spot(tail, head, need), Ok(Some(Spot::Jump(0)))))
        };
        // Who has never got anything is not about to.
        if Cursor::load(self.consumer(HEAD)).count != 0 {
            let partner = Cursor::from(self.consumer(CPUS).load(Relaxed)).position.wrapping_sub(1);
            spin(partner, SELDOM, SELDOM, ready);
        }
    }

    /// After a get that took the head from `head` to `next`: whether it leaves memory behind that nobody needs.
    #[inline]
    pub fn tidy(self, head: Cursor, next: Cursor) {
        let sizes = self.log().sizes;
        let (from, to) = (sizes.index(head.position), sizes.index(next.position));
        // Seldom: to look takes the producers' lines away from them.
        if to < from || (to ^ from) >= sizes.piece {
            self.mark_gets(next);
            self.give_back(to < from);
        }
    }

    /// Gives memory back, if there is much that nobody needs, and if the producers' lock is to be had at once.
    #[cold]
    #[inline(never)]
    fn give_back(self, wrapped: bool) {
        if self.needless(wrapped).is_none() || !self.enter_producers_at_once() {
            return;
        }
        let home = self.log().sizes.home;
        match self.needless(wrapped) {
            Some(Needless::Behind(low, head)) => {
                // CRASH: noted as gone before it goes, so nobody counts on it; not gone yet, it is given back later.
                self.set_note(SOLID, home);
                self.memory.give_back(low..head);
                // The page that the head is in comes with the next ones.
                self.set_low((head - head % LARGEST_PAGE).max(home), 0);
            }
            Some(Needless::Lap { short: true }) if self.calm_laps() >= CALM => {
                self.set_note(SOLID, home);
                self.set_note(FILLED, self.note(FILLED).min(home));
                let top = self.top();
                self.memory.give_back(home..top);
                // CRASH: given back, not noted: it is given back once more.
                self.set_top(home);
                self.set_low(home, 0);
            }
            Some(Needless::Lap { short }) => self.set_low(home, if short { self.calm_laps() + 1 } else { 0 }),
            None => {}
        }
        self.leave_producers();
    }

    /// What there is to give back. Near the beginning it is what lies above home, once laps were short for some time: memory that comes and goes with each lap costs more than it is
    /// worth. Far from there it is what lies behind the head, as soon as it is much.
    fn needless(self, wrapped: bool) -> Option<Needless> {
        let sizes = self.log().sizes;
        if self.top() <= sizes.home || sizes.is_fixed() {
            return None;
        }
        let (head, tail) = (Cursor::load(self.consumer(HEAD)), Cursor::load(self.producer(TAIL)));
        let (h, t) = (sizes.index(head.position), sizes.index(tail.position));
        if tail.position.wrapping_sub(head.position) >= sizes.span || t < h {
            return None;
        }
        if t < sizes.home {
            return wrapped.then_some(Needless::Lap { short: t < sizes.home / 2 });
        }
        let low = self.note(LOW).max(sizes.home);
        h.checked_sub(low).is_some_and(|words| words >= MUCH * sizes.piece).then_some(Needless::Behind(low, h))
    }
}

/// What a queue could do without.
enum Needless {
    /// From the first word up to the second.
    Behind(u32, u32),
    /// Perhaps what lies above home: a lap has ended, and was short, or not.
    Lap { short: bool },
}
