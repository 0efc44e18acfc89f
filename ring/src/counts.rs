//! What has gone through a ring: counted where that is free.
//!
//! The places already count messages, modulo 2^32. So now and then, at the latest after a lap of the log, somebody notes the whole number (a *mark*), and whoever asks adds what the place has moved on since. That is
//! exact, whoever dies: a mark that was not written leaves the older one, which does as well for two thousand million messages. Bytes are added up beside the producers' lock, on the line that its holder
//! writes anyway.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::log::Cursor;
use crate::memory::Memory;
use crate::view::{BYTES, HEAD, TAIL, TRIES, View};

/// What has gone through a queue since it was made, by all processes: a snapshot. They are always counted, and cost nothing that could be measured.
///
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages that were put: exact, whoever dies.
    pub puts: u64,
    /// Messages that were taken: exact, whoever dies.
    pub gets: u64,
    /// Bytes of the messages that were put, as they travel: encoded, and without their headers. Of a producer that is killed in `put` the message may count and its bytes not.
    pub bytes: u64,
    /// How often somebody went to sleep for want of room, each look round once a second included. Near 0 where consumers are faster.
    pub put_sleeps: u64,
    /// How often somebody went to sleep for want of a message, likewise. Near 0 where producers are faster.
    pub get_sleeps: u64,
    /// How often somebody died with a lock of this queue in his hands, in the midst of a put, a get or a close, and another took it over. Who dies elsewhere disturbs nobody and is not counted.
    pub deaths: u64,
}

/// Notes of the consumers' side, whose second line nobody needs for a put or a get. Marks: how many had been put, and taken.
pub const PUTS: usize = 0;
pub const GETS: usize = 1;
/// How often somebody went to sleep for room, and for a message.
pub const PUT_SLEEPS: usize = 2;
pub const GET_SLEEPS: usize = 3;
/// How often a lock was taken over from the dead.
pub const DEATHS: usize = 4;

/// So many messages are worth a mark; far more can do without one.
const OFTEN_ENOUGH: u64 = 1 << 10;

impl<M: Memory> View<'_, M> {
    pub fn counters(self) -> Counters {
        let count = |note: usize| self.ring().consumers.notes[note].load(Relaxed);
        // Before the puts: never more are taken than were put.
        let gets = whole(count(GETS), Cursor::load(self.consumer(HEAD)).count);
        Counters {
            puts: whole(count(PUTS), self.put_so_far()),
            gets,
            bytes: self.producer(BYTES).load(Relaxed),
            put_sleeps: count(PUT_SLEEPS),
            get_sleeps: count(GET_SLEEPS),
            deaths: count(DEATHS),
        }
    }

    /// Committed messages since the beginning, modulo 2^32.
    fn put_so_far(self) -> u32 {
        let mut count = 0;
        for _ in 0..TRIES {
            let tail = Cursor::load(self.producer(TAIL));
            // As in `len`.
            let unnoted = u32::from(self.log().at(tail.position).load(SeqCst) != 0);
            count = tail.count.wrapping_add(unnoted);
            if Cursor::load(self.producer(TAIL)) == tail {
                break;
            }
        }
        count
    }

    /// With the producers' lock, having put a message of this many bytes.
    #[inline(always)]
    pub fn count_bytes(self, length: usize) {
        let bytes = self.producer(BYTES);
        // CRASH: its `tail` is noted, its bytes are not: they are never counted. The other way round `recover` would count them twice.
        bytes.store(bytes.load(Relaxed).wrapping_add(length as u64), Relaxed);
    }

    /// With the producers' lock, now and then.
    pub fn mark_puts(self, tail: Cursor) {
        let mark = &self.ring().consumers.notes[PUTS];
        let (seen, now) = (mark.load(Relaxed), tail.count);
        // Seldom: it is the consumers' line.
        if whole(seen, now).wrapping_sub(seen) >= OFTEN_ENOUGH {
            mark.store(whole(seen, now), Relaxed);
        }
    }

    /// Without a lock, now and then: another may be further already.
    pub fn mark_gets(self, head: Cursor) {
        let mark = &self.ring().consumers.notes[GETS];
        let (seen, now) = (mark.load(Relaxed), head.count);
        if whole(seen, now).wrapping_sub(seen) >= OFTEN_ENOUGH {
            mark.fetch_max(whole(seen, now), Relaxed);
        }
    }

    /// Something that is seldom.
    pub fn count(self, what: usize) {
        self.ring().consumers.notes[what].fetch_add(1, Relaxed);
    }
}

/// The whole number of which these are the lower half: the nearest to the mark.
#[allow(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn whole(mark: u64, low: u32) -> u64 {
    let since = low.wrapping_sub(mark as u32).cast_signed();
    mark.wrapping_add_signed(i64::from(since))
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn nearest_to_the_mark() {
        assert_eq!((whole(0, 0), whole(0, 7)), (0, 7));
        assert_eq!(whole(0xffff_ffff, 0), 1 << 32);
        assert_eq!(whole(5 << 32, 0xffff_fffe), (5 << 32) - 2);
        assert_eq!(whole((5 << 32) | 9, 0x7fff_ffff), (5 << 32) | 0x7fff_ffff);
    }
}
