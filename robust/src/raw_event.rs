//! [`RawEvent`]: a manual-reset event. `set` reaches every thread that waits at that moment, even if `clear`
//! follows at once, and whichever thread dies.
//!
//! # The word
//!
//! One 64-bit word. The low half is what the kernel sees. Its lower 30 bits are always 0, so that a dying
//! thread's pending entry may name it. The high half counts how often the event was set; living threads wake
//! waiters on it.
//!
//! | low half | state | set by |
//! |---|---|---|
//! | `0` | not set, no waiters | the beginning; `clear` |
//! | `W` | not set, there may be waiters | a waiter; `clear` after `SET \| W` |
//! | `SET \| W` | set, not all waiters are woken yet | `set` of `W`, with count + 1 |
//! | `SET` | set, all waiters are woken | `set` of `0`, with count + 1; the end of `set` |
//!
//! # The steps
//!
//! - **set**: set the pending entry to this word. CAS `(low, n)` -> `(low | SET, n + 1)`. If `W` was set,
//!   wake all threads on the count, then CAS `(SET | W, n + 1)` -> `(SET, n + 1)`. Clear the pending entry. A
//!   setter that finds `SET | W` wakes all, too: the first setter may be stopped.
//! - **wait**: read the count. Set the pending entry to this word. CAS sets `W`. Sleep on the low half and on
//!   the count, in this order. Return if the event is set *or the count has moved*. A waiter that finds `W`
//!   still set then wakes all threads before it returns. Clear the pending entry last.
//!
//! # Why no wake-up is lost
//!
//! A waiter sets `W`, and a setter sets `SET`, by read-modify-writes of the same word. If the waiter comes
//! first, the setter sees `W` and wakes on the count, on which every waiter sleeps. If the setter comes
//! first, the kernel finds the count moved. A `clear` that follows at once changes nothing: the count does
//! not go back. The kernel compares the two words one after the other. The count comes last, so a `set` that
//! falls between the two comparisons is found by it.
//!
//! # What a death leaves
//!
//! - A setter that dies before its CAS has done nothing.
//! - A setter that dies after it: the pending entry names the low half, and the kernel wakes one waiter
//!   there. That waiter finds `W` set and wakes the others.
//! - A waiter that dies, asleep or woken: its pending entry names the word, too, so the kernel wakes the next
//!   waiter. `W` may stay set, which costs one needless system call.
//!
//! The first sleep lasts at most 5 ms and watches only the count, which is cheaper. If the setter dies, that
//! sleep ends by itself.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::planted_bugs::{Bug, is_planted};
use crate::spin::{EAGER, spin};
use crate::sys;
use crate::thread::{FUTEX_OFFSET, Node, ThisThread};
use crate::wait_set::{BRIEF, LIVENESS_POLL, WaitSet};
use crate::word::{high, low};

/// A manual-reset event in shared memory. All zeros is an event that is not set.
///
/// It also works in a thread that has no robust list (see
/// [`AcquireError::Unsupported`](crate::AcquireError::Unsupported)), with one limit: if that thread is killed
/// between setting the event and waking the waiters, the waiters find out within a second.
///
/// ```
/// use multiproc_robust::{Deadline, RawEvent};
///
/// let event = RawEvent::new(); // in earnest: in shared memory
/// assert!(!event.wait(Deadline::NOW));
/// event.set();
/// assert!(event.wait(Deadline::NEVER));
/// event.clear();
/// assert!(!event.is_set());
/// ```
#[repr(C, align(8))]
pub struct RawEvent {
    /// Low half: `SET`, `WAITERS`. High half: how often the event was set.
    word: AtomicU64,
    /// CPU of the last setter, plus 1.
    cpu: AtomicU32,
    reserved: AtomicU32,
}

const SET: u64 = 0x4000_0000;
const WAITERS: u64 = 0x8000_0000;
/// One step of the count.
const ONE_SET: u64 = 1 << 32;

impl RawEvent {
    /// Returns an event that is not set.
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0), cpu: AtomicU32::new(0), reserved: AtomicU32::new(0) }
    }

    /// Sets the event. Every thread that waits now, or begins to wait before [`clear`](Self::clear), returns.
    /// Changes nothing if the event is set already.
    pub fn set(&self) {
        let me = ThisThread::current().ok();
        if let Some(me) = me {
            me.set_pending(self.node());
        }
        self.cpu.store(sys::cpu().wrapping_add(1), Relaxed);
        if is_planted(Bug::WakeBeforeStore) {
            self.wake_all();
        }
        let mut seen = self.word.load(SeqCst);
        while seen & SET == 0 {
            let next = (seen | SET).wrapping_add(ONE_SET);
            // ORDER: SeqCst pairs with `register_waiter` and the loads of the waiters: a waiter that returns
            // sees what happened before `set`.
            match self.word.compare_exchange(seen, next, SeqCst, SeqCst) {
                Ok(_) => seen = next,
                Err(now) => seen = now,
            }
        }
        if let Some(me) = me.filter(|_| is_planted(Bug::PendingClearedBeforeWake)) {
            me.clear_pending();
        }
        // CRASH: set, and no waiter woken: the pending entry names the word, and the kernel wakes one waiter,
        // which finds `WAITERS` and wakes the others.
        if seen & WAITERS != 0 && !is_planted(Bug::WakeBeforeStore) && !is_planted(Bug::MissingWake) {
            self.wake_all();
            // Fails if the event was cleared, or set again, meanwhile: then another thread takes care of
            // `WAITERS`.
            let _ = self.word.compare_exchange(seen, seen & !WAITERS, SeqCst, Relaxed);
        }
        if let Some(me) = me {
            me.clear_pending();
        }
    }

    /// Clears the event: a thread that begins to wait from now on blocks. The waiters that a `set` has
    /// reached return all the same.
    pub fn clear(&self) {
        self.word.fetch_and(!SET, SeqCst);
    }

    /// Returns whether the event is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.word.load(SeqCst) & SET != 0
    }

    /// Waits until the event is set, or was set since the call. Returns false if the deadline came first.
    #[inline]
    pub fn wait(&self, deadline: Deadline) -> bool {
        let seen = self.word.load(SeqCst);
        seen & SET != 0 || (deadline != Deadline::NOW && self.wait_for_set(high(seen), deadline))
    }

    /// Returns how many threads sleep until the event is set, as the kernel counts them. Killed waiters are
    /// not among them, nor are waiters that still spin.
    pub fn waiters(&self) -> usize {
        sys::waiters_on(self.count_word())
    }

    #[cold]
    #[inline(never)]
    fn wait_for_set(&self, count: u32, deadline: Deadline) -> bool {
        let reached = |word: u64| word & SET != 0 || high(word) != count;
        if spin(self.cpu.load(Relaxed).wrapping_sub(1), 1, EAGER, || reached(self.word.load(SeqCst))) {
            return true;
        }
        let me = ThisThread::current().ok();
        if let Some(me) = me {
            // CRASH: from here on the death of this thread wakes another waiter, so a wake-up that reached
            // only this thread is passed on.
            me.set_pending(self.node());
        }
        let mut brief = true;
        let set = loop {
            let word = self.register_waiter(reached);
            if reached(word) {
                break true;
            }
            if deadline.has_passed() {
                break false;
            }
            self.sleep(low(word), count, brief, deadline);
            brief = false;
        };
        // ORDER: after the load that saw the set; pairs with the CAS in `set`. The setter clears the bit when
        // all waiters are woken. If it is dead, or only slow, the wake-up is done here.
        if set && self.word.load(SeqCst) & WAITERS != 0 && !is_planted(Bug::WokenNotifiesNone) {
            self.wake_all();
        }
        if let Some(me) = me {
            me.clear_pending();
        }
        set
    }

    /// Sets `WAITERS`, unless a `set` came first. Returns the word as it is then.
    fn register_waiter(&self, reached: impl Fn(u64) -> bool) -> u64 {
        let mut seen = self.word.load(SeqCst);
        while !reached(seen) && seen & WAITERS == 0 {
            // ORDER: SeqCst pairs with the CAS in `set`: one of the two comes first, and the other sees it.
            match self.word.compare_exchange(seen, seen | WAITERS, SeqCst, SeqCst) {
                Ok(_) => seen |= WAITERS,
                Err(now) => seen = now,
            }
        }
        seen
    }

    /// Sleeps once, until the low half is not `seen` or the high half is not `count`.
    fn sleep(&self, seen: u32, count: u32, brief: bool, deadline: Deadline) {
        if brief {
            sys::futex_wait(self.count_word(), count, deadline.within(BRIEF).timespec());
            return;
        }
        // The count comes last: see the module's docs.
        let mut words = WaitSet::new();
        words.push((self.kernel_word(), seen));
        words.push((self.count_word(), count));
        words.wait(deadline.within(LIVENESS_POLL));
    }

    fn wake_all(&self) {
        sys::futex_wake(self.count_word(), i32::MAX);
    }

    /// Returns the low half, on which the kernel wakes a waiter at a death.
    fn kernel_word(&self) -> *const AtomicU32 {
        (&raw const self.word).cast()
    }

    /// Returns the high half, the count.
    fn count_word(&self) -> *const AtomicU32 {
        self.kernel_word().wrapping_add(1)
    }

    /// Returns the node whose futex word is the low half. There is no link at that address; the kernel only
    /// computes with it.
    fn node(&self) -> Node {
        self.word.as_ptr().wrapping_byte_offset(-FUTEX_OFFSET).cast()
    }
}

impl Default for RawEvent {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RawEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawEvent").field("set", &self.is_set()).finish()
    }
}
