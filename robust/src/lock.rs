//! [`RobustLock`]: the one lock under every primitive. The kernel releases it when its owner dies.
//!
//! # The word
//!
//! One 64-bit word. The low half is what the kernel sees: the owner's thread id (`FUTEX_TID_MASK`), the
//! waiters bit `W` (`FUTEX_WAITERS`), the owner-died bit `OD` (`FUTEX_OWNER_DIED`). The high half is the
//! **epoch** `E`. It advances whenever a waiter is about to sleep, and whenever a thread takes a word that
//! has `W` or `OD`.
//!
//! | low half | state | set by |
//! |---|---|---|
//! | `0` | free, no waiters | release without `W`; the end of a hand-over |
//! | `tid` | held, no waiters | acquire |
//! | `tid \| W` | held, there may be waiters | a waiter; acquire of a word with `W` |
//! | `W` | free, there may be waiters | release of `tid \| W` (note 1) |
//! | `OD`, `OD \| W` | free, its owner died | the kernel, at the owner's death |
//!
//! 1. `W` stays until a wake-up that found no sleeper.
//!
//! *Any word whose thread id is 0 is free.* The thread that takes it keeps `W` and drops `OD`.
//!
//! # The steps
//!
//! - **Acquire**: set the pending entry to this lock's node. CAS the thread id from 0 to this thread's; if
//!   the word has `W` or `OD`, advance `E` in the same CAS. Link the node. The pending entry stays until the
//!   thread's next operation. The kernel releases a lock that is both linked and pending only once.
//! - **Wait**: register as a waiter: one CAS sets `W` and advances `E`. Then sleep on the low half.
//! - **Release**: set the pending entry; unlink the node; `s = fetch_sub(tid)`, which keeps `W`. If `W` was
//!   set, *hand over*: wake one waiter; if none was asleep, CAS `(W, E of s)` -> `(0, E of s)`. Clear the
//!   pending entry last.
//!
//! # Why no wake-up is lost
//!
//! A waiter sleeps only on a word that has `W` and the epoch of its registration. Only the last CAS of a
//! hand-over clears `W`, and it compares the epoch that the release itself saw. A waiter that registered
//! after the release advanced the epoch, so the CAS fails. A waiter that registered before was asleep when
//! the wake-up looked for it, or was about to find the word changed.
//!
//! Without the epoch that CAS would be an ABA problem, which loses a wake-up although no process dies. A
//! thread that releases the lock is preempted before its CAS. A whole lock cycle later it finds an equal
//! word, with a new waiter behind it.
//!
//! # What a death leaves
//!
//! - **While it holds the lock**: the node is on the list, or the pending entry names it. The kernel writes
//!   `OD`, keeps `W`, and wakes one waiter.
//! - **Between the `fetch_sub` and the end of the release**: the word is free and the pending entry names it.
//!   The kernel wakes one waiter.
//! - **A waiter that was woken, before it takes the lock**: `W` is still set, so the next release wakes
//!   another waiter. If no thread holds the lock then, the dead waiter's pending entry names it, so its death
//!   wakes another waiter, too.
//!
//! A spurious wake-up costs one round of the loop.
//!
//! The kernel misses some deaths: an `exec` by a thread that is not the leader; memory that the OOM killer
//! reaped before the list was walked. So a sleep without a deadline ends once a second and looks whether the
//! owner's thread still exists (the liveness poll). If not, the waiter takes the lock. A stopped owner
//! exists, so it keeps the lock.
//!
//! # When a waiter spins
//!
//! A waiter spins for a few short pauses, each twice as long as the last, while no waiter sleeps (`W` is
//! clear). It never calls `sched_yield`, which costs milliseconds beside a busy thread on the same CPU.
#![allow(unsafe_code, reason = "puts nodes on the kernel's robust list")]

mod death;
mod slow;

use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::outcome::{AcquireError, Acquired, Owner};
use crate::planted_bugs::{Bug, is_planted};
use crate::sys;
use crate::thread::{self, FUTEX_OFFSET, Node, ThisThread};
use crate::word::{LOW, OWNER_DIED, TID, WAITERS, high, low};

/// A mutual exclusion lock in shared memory that the kernel releases when its owner's thread dies.
///
/// This is the building block. It guards no data and names no object, and its user repairs what a dead owner
/// left. All zeros is an unlocked lock. A *thread* owns it; a thread may hold 1,000 such locks. Most programs
/// want `multiproc::Lock` or `multiproc::Value`.
///
/// ```
/// use multiproc_robust::{Acquired, Deadline, RobustLock};
///
/// let lock = Box::new(RobustLock::new()); // in earnest: inside an object in shared memory
/// // SAFETY: the box outlives the time that the lock is held.
/// let how = unsafe { lock.acquire(Deadline::NEVER) }?;
/// assert_eq!(how, Acquired::Clean);
/// assert!(lock.owner().is_some());
/// lock.release();
/// # Ok::<(), multiproc_robust::AcquireError>(())
/// ```
#[repr(C, align(64))]
pub struct RobustLock {
    /// Low half: owner word. High half: epoch.
    word: AtomicU64,
    /// Locks of sides only: the futex word of the waiters for the lock, always 0.
    pub(crate) waiter_word: AtomicU32,
    /// Locks of sides only: how many waiters for the lock are parked. A death may leave it too high, which
    /// costs a system call; it is never too low.
    pub(crate) parked_waiters: AtomicU32,
    /// The last owner, process id << 32 | thread id: written after the word was taken, and left there.
    last_owner: AtomicU64,
    /// The kind of owner that the word names; 0 is a thread, the only kind so far.
    owner_kind: AtomicU32,
    reserved: AtomicU32,
    /// The link of the robust list, `-FUTEX_OFFSET` bytes from the word.
    link: AtomicU64,
    /// Three words for what the lock guards, on its own cache line. The lock never reads or writes them.
    pub guarded: [AtomicU64; 3],
}

const _: () = assert!(size_of::<RobustLock>() == 64);
const _: () = assert!(offset_of!(RobustLock, link) == FUTEX_OFFSET.unsigned_abs());
const _: () = assert!(offset_of!(RobustLock, word) == 0);

/// The words on which a waiter for the lock parks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitOn {
    /// The owner word alone: locks on whose words only waiters for the lock park.
    OwnerWord,
    /// The waiter word and the owner word: the locks of a side. Other threads watch the owner word there,
    /// too, and must not consume the wake-up of a waiter for the lock.
    WaiterWord,
}

impl RobustLock {
    /// Returns an unlocked lock.
    pub const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            waiter_word: AtomicU32::new(0),
            parked_waiters: AtomicU32::new(0),
            last_owner: AtomicU64::new(0),
            owner_kind: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            link: AtomicU64::new(0),
            guarded: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// Takes the lock. Blocks until `deadline` while another thread holds it.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; the lock is unchanged then.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until this thread has released it.
    #[inline(always)]
    pub unsafe fn acquire(&self, deadline: Deadline) -> Result<Acquired, AcquireError> {
        self.acquire_as(ThisThread::current()?, deadline, WaitOn::OwnerWord)
    }

    /// Releases the lock. Returns false, with nothing done, if this thread does not hold it (in a forked
    /// child: a copy of its parent's guard).
    #[inline(always)]
    pub fn release(&self) -> bool {
        self.release_after(|| ())
    }

    /// Runs `last` and releases the lock. Returns false, with neither done, if this thread does not hold it.
    /// For what an owner writes last, and a copy of its guard in a forked child must not write.
    ///
    /// ```
    /// # use multiproc_robust::{Acquired, Deadline, RobustLock};
    /// # use std::sync::atomic::Ordering::Relaxed;
    /// let lock = Box::new(RobustLock::new());
    /// // SAFETY: the box outlives the time that the lock is held.
    /// assert_eq!(unsafe { lock.acquire(Deadline::NEVER) }?, Acquired::Clean);
    /// assert!(lock.release_after(|| lock.guarded[0].store(7, Relaxed)));
    /// assert!(!lock.release_after(|| lock.guarded[0].store(8, Relaxed)), "not held any more");
    /// assert_eq!(lock.guarded[0].load(Relaxed), 7);
    /// # Ok::<(), multiproc_robust::AcquireError>(())
    /// ```
    #[inline(always)]
    pub fn release_after(&self, last: impl FnOnce()) -> bool {
        self.release_with(ThisThread::here(), last, |after| self.hand_over(after))
    }

    /// Returns whether a thread holds the lock now.
    pub fn is_held(&self) -> bool {
        self.word.load(Relaxed) & TID != 0
    }

    /// Returns whether this thread holds the lock.
    #[inline(always)]
    pub fn is_held_by_this_thread(&self) -> bool {
        // The word alone is not enough: a thread in another pid namespace may have the same id.
        let me = ThisThread::here();
        me.holds(self.node()) && self.word.load(Relaxed) & TID == me.tid()
    }

    /// Returns the thread that holds the lock now.
    pub fn owner(&self) -> Option<Owner> {
        let tid = low(self.word.load(Relaxed) & TID);
        let last = self.last_owner.load(Relaxed);
        let pid = if low(last) == tid { Some(high(last)) } else { thread::process_of(tid) };
        (tid != 0).then_some(Owner { pid, tid })
    }

    /// Writes the name of an owner other than this thread.
    pub(crate) fn set_last_owner(&self, owner: u64) {
        self.last_owner.store(owner, Relaxed);
    }

    /// Returns the thread that took the lock last, as one word for [`Death::of`](crate::Death::of). While the
    /// lock is held, that is its owner.
    #[inline]
    pub fn last_owner(&self) -> u64 {
        self.last_owner.load(Relaxed)
    }

    /// Returns how many threads sleep for the lock, as the kernel counts them. Killed waiters are not among
    /// them, nor are waiters that still spin.
    pub fn waiters(&self) -> usize {
        sys::waiters_on(self.futex_word())
    }

    /// Takes the lock for `me`, which is this thread. Waits on the words of `wait_on`.
    #[inline(always)]
    pub(crate) fn acquire_as(
        &self,
        me: ThisThread,
        deadline: Deadline,
        wait_on: WaitOn,
    ) -> Result<Acquired, AcquireError> {
        if me.is_full() {
            return Err(AcquireError::TooManyHeld);
        }
        self.set_pending_to_take(me);
        // CRASH: the pending entry names a word that this thread does not own. The kernel leaves the word
        // alone, or wakes one waiter, which looks and sleeps again.
        let died = if self.take_free(me) {
            false
        } else {
            match self.wait_to_acquire(me, deadline, wait_on) {
                Ok(died) => died,
                Err(error) => {
                    me.clear_pending();
                    return Err(error);
                }
            }
        };
        Ok(self.finish_acquire(me, died))
    }

    /// Takes the lock if it is free, has no waiters, and its last owner did not die.
    #[inline(always)]
    pub(crate) fn try_acquire_free(&self, me: ThisThread) -> Option<Acquired> {
        if me.is_full() {
            return None;
        }
        self.set_pending_to_take(me);
        let taken = self.take_free(me);
        if !taken {
            me.clear_pending();
        }
        taken.then(|| self.finish_acquire(me, false))
    }

    /// Sets the pending entry before this thread takes the word.
    #[inline(always)]
    pub(crate) fn set_pending_to_take(&self, me: ThisThread) {
        if !is_planted(Bug::PendingAfterCas) && !is_planted(Bug::NonRobust) {
            me.set_pending(self.node());
        }
    }

    /// Writes the owner's name and links the node, once this thread has taken the word.
    #[inline(always)]
    pub(crate) fn finish_acquire(&self, me: ThisThread, died: bool) -> Acquired {
        // CRASH: this thread owns the word, the node is not linked: the pending entry still names it.
        let how = if died { Acquired::OwnerDied(self.dead_owner()) } else { Acquired::Clean };
        if self.last_owner.load(Relaxed) != me.owner() {
            self.last_owner.store(me.owner(), Relaxed);
        }
        if is_planted(Bug::NonRobust) {
            return how;
        }
        if is_planted(Bug::PendingAfterCas) {
            me.set_pending(self.node());
        }
        // SAFETY: the node is this lock's own, just taken. The list has room, as was checked. `acquire`'s
        // caller keeps it mapped.
        unsafe { me.link(self.node()) };
        // CRASH: linked and pending. The kernel skips the pending entry on its walk and looks at it last, so
        // it releases the lock once. The entry stays until this thread's next operation: to clear it here
        // would cost a store before the locked instruction of the release.
        how
    }

    /// Takes the word if its low half is 0, whatever the epoch.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    fn take_free(&self, me: ThisThread) -> bool {
        // Rust's atomics do not promise access to half a word, hence assembly. To read the epoch first and
        // compare the whole word would cost 2 ns, a tenth of the lock.
        let found: u64;
        // ORDER: a locked instruction is a full barrier; pairs with the fetch_sub in `release_unlinked`.
        // SAFETY: an atomic operation on the low half of a word that is borrowed here.
        unsafe {
            std::arch::asm!(
                "lock cmpxchg dword ptr [{word}], {tid:e}",
                word = in(reg) self.futex_word(),
                tid = in(reg) me.tid(),
                inout("rax") 0_u64 => found,
                options(nostack),
            );
        }
        found & LOW == 0
    }

    /// Takes the word if its low half is 0, whatever the epoch.
    #[inline(always)]
    #[cfg(not(target_arch = "x86_64"))]
    fn take_free(&self, me: ThisThread) -> bool {
        use std::sync::atomic::Ordering;
        let seen = self.word.load(Relaxed);
        // ORDER: Acquire pairs with the fetch_sub in `release_unlinked`: this thread sees what the last owner
        // wrote.
        seen & LOW == 0
            && self.word.compare_exchange(seen, seen | me.tid(), Ordering::Acquire, Relaxed).is_ok()
    }

    /// Releases the word, and runs `hand_over` on what it is afterwards if there may be waiters. Returns
    /// false, with nothing done, if `me` does not hold it.
    #[inline(always)]
    pub(crate) fn release_and_then(&self, me: ThisThread, hand_over: impl FnOnce(u64)) -> bool {
        self.release_with(me, || (), hand_over)
    }

    /// Does as [`release_and_then`](Self::release_and_then), and runs `last` before, with the lock still
    /// held.
    #[inline(always)]
    pub(crate) fn release_with(
        &self,
        me: ThisThread,
        last: impl FnOnce(),
        hand_over: impl FnOnce(u64),
    ) -> bool {
        if is_planted(Bug::NonRobust) {
            last();
            let before = self.word.fetch_sub(me.tid(), SeqCst);
            hand_over(before - me.tid());
            return true;
        }
        if !me.holds_only(self.node()) {
            return self.release_one_of_several(me, last, hand_over);
        }
        // CRASH: what `last` wrote is there, or not, and the lock has a dead owner.
        last();
        me.ensure_pending(self.node());
        me.unlink_only();
        self.release_unlinked(me, hand_over);
        true
    }

    /// Releases one of several locks that this thread holds. A function of its own, so that the other case is
    /// short enough to be inlined everywhere.
    #[cold]
    #[inline(never)]
    fn release_one_of_several(
        &self,
        me: ThisThread,
        last: impl FnOnce(),
        hand_over: impl FnOnce(u64),
    ) -> bool {
        // A thread that was never set up holds nothing, and must not set the pending entry.
        if !me.holds(self.node()) {
            return false;
        }
        // CRASH: as in `release_with`.
        last();
        me.ensure_pending(self.node());
        me.unlink(self.node());
        self.release_unlinked(me, hand_over);
        true
    }

    /// Releases the word, once the node is off the list.
    #[inline(always)]
    fn release_unlinked(&self, me: ThisThread, hand_over: impl FnOnce(u64)) {
        // CRASH: off the list, still this thread's: the pending entry names it, and the kernel marks it
        // OWNER_DIED. What the lock guards is whole, which the next owner cannot know.
        // ORDER: SeqCst, hence Release, pairs with the Acquire in `take_free` and `wait_to_acquire`. It also
        // pairs with a waiter's registration: either this sees the waiter's `W`, or the registration sees all
        // that this thread did.
        let before = self.word.fetch_sub(me.tid(), SeqCst);
        if before & LOW != me.tid() {
            self.after_release(me, before, hand_over);
        }
        me.clear_pending();
    }

    /// Hands over, after the release of a word that had more than the thread id.
    #[cold]
    #[inline(never)]
    fn after_release(&self, me: ThisThread, before: u64, hand_over: impl FnOnce(u64)) {
        if before & TID == me.tid() {
            // CRASH: the word is free and the pending entry names it: the kernel wakes one waiter.
            hand_over(before.wrapping_sub(me.tid()));
        } else {
            // A peer overwrote the word while this thread held it. Adds again what was subtracted; the
            // waiters find out by the liveness poll.
            self.word.fetch_add(me.tid(), SeqCst);
        }
    }

    /// Returns whether the word names this thread.
    pub(crate) fn is_owned_by(&self, me: ThisThread) -> bool {
        self.word.load(Relaxed) & TID == me.tid()
    }

    /// Returns the link that the robust list knows the lock by.
    #[inline(always)]
    pub(crate) fn node(&self) -> Node {
        self.link.as_ptr().cast()
    }

    #[inline(always)]
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.word
    }

    /// Returns the low half of the word, which the kernel sees.
    pub(crate) fn futex_word(&self) -> *const AtomicU32 {
        (&raw const self.word).cast()
    }

    /// Returns the high half of the word, the epoch.
    pub(crate) fn epoch_word(&self) -> *const AtomicU32 {
        self.futex_word().wrapping_add(1)
    }
}

impl Default for RobustLock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RobustLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Relaxed);
        f.debug_struct("RobustLock")
            .field("owner", &self.owner())
            .field("waiters", &(word & WAITERS != 0))
            .field("owner_died", &(word & OWNER_DIED != 0))
            .finish()
    }
}
