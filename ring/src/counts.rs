//! What has gone through a ring: [`Counters`], counted where that costs nothing.
//!
//! The cursors already count messages, modulo 2^32. So now and then, at the latest after a lap of the log, a
//! thread notes the whole number (a *mark*). A reader adds what the cursor has moved on since. That is exact
//! after any death: if a mark was not written, the older one serves for another two thousand million
//! messages. Bytes are added up beside the producers' lock, on the cache line that its holder writes anyway.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc_robust::low;

use crate::header::Cursor;
use crate::memory::Memory;
use crate::view::{TRIES, View};

/// What has gone through a queue since it was made, by all processes: a snapshot. Counting is always on, and
/// costs nothing that could be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages that were put: exact after any death.
    pub puts: u64,
    /// Messages that were taken: exact after any death.
    pub gets: u64,
    /// Bytes of the messages that were put, as they travel: encoded, and without their headers. If a producer
    /// is killed in `put`, its message may count and the message's bytes not.
    pub bytes: u64,
    /// How often a producer went to sleep for want of room, each liveness poll (once a second) included. Near
    /// 0 where consumers are faster.
    pub put_sleeps: u64,
    /// How often a consumer went to sleep for want of a message, likewise. Near 0 where producers are faster.
    pub get_sleeps: u64,
    /// How often a process died with a lock of this queue, in the middle of a put, a get or a close, and
    /// another process took the lock over. A death elsewhere disturbs no other process and is not counted.
    pub deaths: u64,
}

/// So many messages are worth a mark; far more can do without one.
const MESSAGES_PER_MARK: u64 = 1 << 10;

impl<M: Memory> View<'_, M> {
    /// Returns what has gone through the ring.
    pub fn counters(self) -> Counters {
        let notes = self.consumer_notes();
        // Before the puts: never more are taken than were put.
        let gets = whole(notes.gets.load(Relaxed), self.head().count);
        Counters {
            puts: whole(notes.puts.load(Relaxed), self.put_so_far()),
            gets,
            bytes: self.producer_words().bytes.load(Relaxed),
            put_sleeps: notes.put_sleeps.load(Relaxed),
            get_sleeps: notes.get_sleeps.load(Relaxed),
            deaths: notes.deaths.load(Relaxed),
        }
    }

    /// How many messages were ever committed, modulo 2^32.
    fn put_so_far(self) -> u32 {
        let mut count = 0;
        for _ in 0..TRIES {
            let tail = self.tail();
            count = tail.count.wrapping_add(self.unnoted(tail));
            if self.tail() == tail {
                break;
            }
        }
        count
    }

    /// Notes, without a lock and now and then, how many messages were taken: another consumer may be further
    /// already.
    pub(crate) fn mark_gets(self, head: Cursor) {
        let mark = &self.consumer_notes().gets;
        let (seen, now) = (mark.load(Relaxed), head.count);
        if is_worth_a_mark(seen, now) {
            mark.fetch_max(whole(seen, now), Relaxed);
        }
    }

    /// Counts a consumer that is about to sleep.
    pub fn count_get_sleep(self) {
        count(&self.consumer_notes().get_sleeps);
    }

    /// Counts a producer that is about to sleep.
    pub(crate) fn count_put_sleep(self) {
        count(&self.consumer_notes().put_sleeps);
    }

    /// Counts a lock that was taken over from a dead owner.
    pub(crate) fn count_death(self) {
        count(&self.consumer_notes().deaths);
    }
}

fn count(note: &AtomicU64) {
    note.fetch_add(1, Relaxed);
}

pub(crate) fn is_worth_a_mark(mark: u64, low: u32) -> bool {
    whole(mark, low).wrapping_sub(mark) >= MESSAGES_PER_MARK
}

/// The whole number of which `low` is the lower half: the nearest to the mark.
pub(crate) fn whole(mark: u64, lower: u32) -> u64 {
    let since = lower.wrapping_sub(low(mark)).cast_signed();
    mark.wrapping_add_signed(i64::from(since))
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn whole_number_is_the_nearest_to_the_mark() {
        assert_eq!((whole(0, 0), whole(0, 7)), (0, 7));
        assert_eq!(whole(0xffff_ffff, 0), 1 << 32);
        assert_eq!(whole(5 << 32, 0xffff_fffe), (5 << 32) - 2);
        assert_eq!(whole((5 << 32) | 9, 0x7fff_ffff), (5 << 32) | 0x7fff_ffff);
    }
}
