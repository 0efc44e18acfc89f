//! [`RawEvent`]: up or down; raising it reaches everybody who waits at that moment, even if it is lowered at once, and whoever dies.
//!
//! # The word
//!
//! One 64-bit word. The low half is what the kernel sees; its lower 30 bits are always 0, so that it may be a dying thread's pending word. The high half counts how often the flag
//! was raised; it is the futex word of living wakers.
//!
//! | low half | means | who makes it so |
//! |---|---|---|
//! | `0` | down, nobody sleeps | the beginning, `lower` |
//! | `S` | down, somebody may sleep | a waiter's announce; `lower` before the raiser had told everybody |
//! | `UP \| S` | up, not everybody has been told yet | `raise` of a flag with `S`, together with count + 1 |
//! | `UP` | up, everybody has been told | `raise` of a flag without `S`; a raiser that has told everybody |
//!
//! # The steps
//!
//! - **raise**: pending = word; CAS `(low, n)` -> `(low | UP, n + 1)`; if `S` was set, wake all on the count, CAS `(UP | S, n + 1)` -> `(UP, n + 1)`; pending = 0. One that finds `UP | S` wakes
//!   all, too: the raiser may be stopped.
//! - **wait**: read the count; pending = word; CAS sets `S`; sleep on the low half and on the count, in this order; go on when the flag is up *or the count has moved*. Whoever
//!   slept and finds `S` still set wakes all before it goes on. pending = 0, last.
//!
//! # Why no wake is lost
//!
//! Announce and raise are read-modify-writes of one word: if the announce comes first, the raiser sees `S` and wakes on the count, on which every sleeper sleeps; if the raise does, the
//! kernel finds the count moved. That a `lower` follows at once changes nothing: the count does not go back. The kernel compares the two words one after the other; the count comes last, so a raise that
//! falls between them is found out by it.
//!
//! # What a death leaves
//!
//! A raiser that is killed before the CAS has done nothing; after it, pending names the low half, the kernel wakes one who sleeps on it, and that one finds `S` set and wakes the others. If that one is killed,
//! asleep or woken, its pending names the word, too: the next is woken. A dead sleeper leaves `S` set: one futile system call.
//!
//! The first sleep lasts at most 5 ms and watches the count only, which is cheaper; after a kill it ends by itself.
#![allow(unsafe_code, reason = "pointers to the halves of a word")]

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::planted_bugs::{Bug, is_planted};
use crate::spin::{EAGER, spin};
use crate::sys;
use crate::thread::{FUTEX_OFFSET, Node, ThisThread};
use crate::wait_set::{BRIEF, LIVENESS_POLL, WaitSet};
use crate::word::{high, low};

/// Up or down, in shared memory. All zeros is a flag that is down.
///
/// In a thread that has no robust list (see [`AcquireError::Unsupported`](crate::AcquireError::Unsupported)) it works as well, but for one thing: should that thread be killed between
/// raising the flag and waking those who wait, they find out within a second.
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
    /// Low half: `UP`, `SLEEPERS`. High half: how often it was raised.
    word: AtomicU64,
    /// CPU of the last raiser, plus 1.
    cpu: AtomicU32,
    reserved: AtomicU32,
}

const UP: u64 = 0x4000_0000;
const SLEEPERS: u64 = 0x8000_0000;
/// One raise.
const ONCE: u64 = 1 << 32;

impl RawEvent {
    /// A flag that is down.
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0), cpu: AtomicU32::new(0), reserved: AtomicU32::new(0) }
    }

    /// Raises it: everybody who waits, and everybody who comes before [`lower`](Self::clear), goes on. Raising it again does nothing.
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
        while seen & UP == 0 {
            let raised = (seen | UP).wrapping_add(ONCE);
            // ORDER: SeqCst pairs with `announce` and `wait`: what happened before the raise is seen by whoever goes on.
            match self.word.compare_exchange(seen, raised, SeqCst, SeqCst) {
                Ok(_) => seen = raised,
                Err(now) => seen = now,
            }
        }
        if let Some(me) = me.filter(|_| is_planted(Bug::PendingClearedBeforeWake)) {
            me.clear_pending();
        }
        // CRASH: up, nobody told: pending names the word, the kernel wakes one sleeper, who finds `SLEEPERS` and wakes the others.
        if seen & SLEEPERS != 0 && !is_planted(Bug::WakeBeforeStore) && !is_planted(Bug::MissingWake) {
            self.wake_all();
            // Fails if it was lowered, or raised again, meanwhile: then `SLEEPERS` is others' business.
            let _ = self.word.compare_exchange(seen, seen & !SLEEPERS, SeqCst, Relaxed);
        }
        if let Some(me) = me {
            me.clear_pending();
        }
    }

    /// Lowers it: whoever comes from now on waits. Those whom a raise has reached go on all the same.
    pub fn clear(&self) {
        self.word.fetch_and(!UP, SeqCst);
    }

    /// Whether it is up.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.word.load(SeqCst) & UP != 0
    }

    /// Waits until it is up, or has been up since the call; false when the deadline came first.
    #[inline]
    pub fn wait(&self, deadline: Deadline) -> bool {
        let seen = self.word.load(SeqCst);
        seen & UP != 0 || (deadline != Deadline::NOW && self.wait_for_raise(high(seen), deadline))
    }

    /// How many sleep until it is raised, as the kernel counts them: a killed one is not among them, nor is one that still spins.
    pub fn waiters(&self) -> usize {
        sys::sleepers_on(self.count_word())
    }

    #[cold]
    #[inline(never)]
    fn wait_for_raise(&self, count: u32, deadline: Deadline) -> bool {
        let reached = |word: u64| word & UP != 0 || high(word) != count;
        if spin(self.cpu.load(Relaxed).wrapping_sub(1), 1, EAGER, || reached(self.word.load(SeqCst))) {
            return true;
        }
        let me = ThisThread::current().ok();
        if let Some(me) = me {
            // CRASH: from here on our death wakes another sleeper, so a wake that reached us alone is passed on.
            me.set_pending(self.node());
        }
        let mut brief = true;
        let raised = loop {
            let word = self.announce(reached);
            if reached(word) {
                break true;
            }
            if deadline.has_passed() {
                break false;
            }
            self.sleep(low(word), count, brief, deadline);
            brief = false;
        };
        // ORDER: after the look that saw the raise. Its raiser clears the bit when everybody has been told; if it is dead, or only slow, this is done here.
        if raised && self.word.load(SeqCst) & SLEEPERS != 0 && !is_planted(Bug::WokenNotifiesNone) {
            self.wake_all();
        }
        if let Some(me) = me {
            me.clear_pending();
        }
        raised
    }

    /// Says that somebody may sleep, unless a raise came first; the word as it is then.
    fn announce(&self, reached: impl Fn(u64) -> bool) -> u64 {
        let mut seen = self.word.load(SeqCst);
        while !reached(seen) && seen & SLEEPERS == 0 {
            // ORDER: SeqCst pairs with the CAS in `raise`: one of the two comes first, and the other one sees it.
            match self.word.compare_exchange(seen, seen | SLEEPERS, SeqCst, SeqCst) {
                Ok(_) => seen |= SLEEPERS,
                Err(now) => seen = now,
            }
        }
        seen
    }

    /// Sleeps once.
    fn sleep(&self, seen: u32, count: u32, brief: bool, deadline: Deadline) {
        if brief {
            sys::futex_wait(self.count_word(), count, deadline.within(BRIEF));
            return;
        }
        // The count comes last: see above.
        let mut words = WaitSet::new();
        words.push((self.kernel_word(), seen));
        words.push((self.count_word(), count));
        words.wait(deadline.within(LIVENESS_POLL));
    }

    fn wake_all(&self) {
        sys::futex_wake(self.count_word(), i32::MAX);
    }

    /// The half that the kernel rings at a death.
    fn kernel_word(&self) -> *const AtomicU32 {
        (&raw const self.word).cast()
    }

    /// The half that counts.
    fn count_word(&self) -> *const AtomicU32 {
        self.kernel_word().wrapping_add(1)
    }

    /// The place whose futex word is ours; the kernel only computes with it.
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
        f.debug_struct("RawEvent").field("up", &self.is_set()).finish()
    }
}
