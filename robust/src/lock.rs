//! A lock that dies with nobody: [`RobustLock`], the one lock under every primitive.
//!
//! # The word
//!
//! One 64-bit word. The low half is what the kernel sees (`FUTEX_TID_MASK`, `FUTEX_WAITERS`, `FUTEX_OWNER_DIED`), the high half counts announcements.
//!
//! | low half | means | who makes it so |
//! |---|---|---|
//! | `0` | free, nobody sleeps | `settle`'s clear, or an uncontended release |
//! | `tid` | held, nobody sleeps | acquire |
//! | `tid \| W` | held, somebody may sleep | a waiter's announce, or acquire of a word with `W` |
//! | `W` | free, somebody may sleep | release of `tid \| W`: `W` is kept until a wake that found nobody |
//! | `OD`, `OD \| W` | free, its owner died | the kernel, at the owner's death |
//!
//! *Any word whose TID bits are 0 is free.* The taker keeps `W` and drops `OD`.
//!
//! # The steps
//!
//! - **acquire**: pending = node; CAS TID bits 0 -> tid (a word with `W` or `OD` also gets announce + 1); link the node. (Pending stays until the thread's next operation; the kernel releases a word that is linked and pending once.)
//! - **wait**: one CAS sets `W` and announce + 1, then a futex sleeps on the low half.
//! - **release**: pending = node; unlink; `s = fetch_sub(tid)`, which keeps `W`; if `W` was set, *settle*: wake one; if nobody was there, CAS `(W, s)` -> `(0, s)`; pending = 0, last.
//!
//! # Why no wake is lost
//!
//! A waiter sleeps only on a word that holds `W` and its announcement. `W` leaves the word in one way: the clear in *settle*, which compares the announce count that the
//! release itself saw. A waiter that announced after that made the count another one, so the clear fails; one that announced before was asleep, or about to find the word
//! changed, when the wake looked for it. Without the count the clear is an ABA that loses a wake-up with nobody killed: a releaser preempted before its
//! CAS meets, a whole lock cycle later, an equal word with a new sleeper behind it.
//!
//! # What a death leaves
//!
//! Killed while it holds: the node is on the list, or pending names it; the kernel writes `OD`, keeps `W`, wakes one. Killed between the `fetch_sub` and the last line: the word is free
//! and pending names it; the kernel wakes one. A sleeper that is woken and killed before it takes the lock: `W` is still set, so the next release wakes another; and if nobody holds the
//! word then the woken one had pending = node, so its death wakes another too. A spurious wake-up costs one round of the loop.
//!
//! The kernel has holes (exec by a thread that is not the leader, memory reaped by the OOM killer before the list is walked). So an untimed sleep ends once a second and looks
//! whether the owner's thread still exists; if not, the word is taken from it. A stopped owner lives, and is never robbed.
//!
//! # When we spin
//!
//! A few short pauses, doubling, while nobody sleeps (`W` clear); never `sched_yield`, which beside a busy neighbour costs milliseconds.
#![allow(unsafe_code, reason = "puts nodes on the kernel's robust list")]

mod slow;

use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::deadline::Deadline;
use crate::outcome::Owner;
use crate::outcome::{AcquireError, Acquired};
use crate::planted_bugs::{Bug, is_planted};
use crate::sys;
use crate::thread::{self, FUTEX_OFFSET, Node, ThisThread};
use crate::word::{LOW, OWNER_DIED, TID, WAITERS, high, low};

/// A mutual exclusion lock in shared memory that the kernel gives back when its owner's thread dies.
///
/// This is the building block: it guards no data, names no object, and leaves it to its user to repair what a dead owner left. All zeros is an unlocked lock.
/// It is owned by a *thread*; a thread may hold 1,000 of them. Most programs want `multiproc::Lock` or [`Value`](crate::Value).
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
    /// Low half: owner word. High half: announce count.
    word: AtomicU64,
    /// Ring sides only: the contenders' futex word, always 0.
    pub(crate) waiter_word: AtomicU32,
    /// Ring sides only: how many contenders sleep. A death may leave it too high, which costs a system call; it is never too low.
    pub(crate) parked_waiters: AtomicU32,
    /// Who held it last, process id << 32 | thread id: a signature, written after the word was taken, and left there.
    holder: AtomicU64,
    /// What kind of owner the word names; 0 is a thread, the only kind so far.
    owner_kind: AtomicU32,
    reserved: AtomicU32,
    /// The link of the robust list, `-FUTEX_OFFSET` bytes from the word.
    link: AtomicU64,
    /// Three words for what the lock guards, on its own cache line. The lock never touches them.
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
    /// The waiter word and the owner word: the locks of a side. Other threads watch the owner word there, too, and must
    /// not consume the wake-up of a waiter for the lock.
    WaiterWord,
}

impl RobustLock {
    /// An unlocked lock.
    pub const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            waiter_word: AtomicU32::new(0),
            parked_waiters: AtomicU32::new(0),
            holder: AtomicU64::new(0),
            owner_kind: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            link: AtomicU64::new(0),
            guarded: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// Takes the lock, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; the lock is then as it was.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until this thread has released it.
    #[inline(always)]
    pub unsafe fn acquire(&self, deadline: Deadline) -> Result<Acquired, AcquireError> {
        self.acquire_as(ThisThread::current()?, deadline, WaitOn::OwnerWord)
    }

    /// Gives the lock back; false, and nothing done, when this thread does not hold it (in a forked child: a copy of its parent's guard).
    #[inline(always)]
    pub fn release(&self) -> bool {
        self.release_after(|| ())
    }

    /// Runs `last` and gives the lock back; false, and neither done, when this thread does not hold it. For what an owner writes as the last thing, and a copy of its guard in a forked child must not.
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

    /// Whether somebody holds it now.
    pub fn is_held(&self) -> bool {
        self.word.load(Relaxed) & TID != 0
    }

    /// Whether this thread holds it.
    #[inline(always)]
    pub fn is_held_by_this_thread(&self) -> bool {
        // The word alone does not tell: a thread of ours in another pid namespace may have the same number.
        let me = ThisThread::here();
        me.holds(self.node()) && self.word.load(Relaxed) & TID == me.tid()
    }

    /// Who holds it now.
    pub fn owner(&self) -> Option<Owner> {
        let tid = low(self.word.load(Relaxed) & TID);
        let holder = self.holder.load(Relaxed);
        let pid = if low(holder) == tid { Some(high(holder)) } else { thread::process_of(tid) };
        (tid != 0).then_some(Owner { pid, tid })
    }

    /// Signs for another one, who is the owner now.
    pub(crate) fn set_last_owner(&self, owner: u64) {
        self.holder.store(owner, Relaxed);
    }

    /// Who took it last, as one word for [`Death::of`](crate::Death::of): the holder, while it is held.
    #[inline]
    pub fn last_owner(&self) -> u64 {
        self.holder.load(Relaxed)
    }

    /// How many sleep for it now, as the kernel counts them: a killed one is not among them, nor is one that still spins.
    pub fn waiters(&self) -> usize {
        sys::sleepers_on(self.futex_word())
    }

    #[inline(always)]
    pub(crate) fn acquire_as(&self, me: ThisThread, deadline: Deadline, wait_on: WaitOn) -> Result<Acquired, AcquireError> {
        if me.is_full() {
            return Err(AcquireError::TooManyHeld);
        }
        self.set_pending_to_take(me);
        // CRASH: pending names a word that is not ours: the kernel leaves it alone, or wakes one sleeper, who looks and sleeps again.
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

    /// Takes it if nobody holds it, nobody waits, and nobody died holding it.
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

    #[inline(always)]
    pub(crate) fn set_pending_to_take(&self, me: ThisThread) {
        if !is_planted(Bug::PendingAfterCas) && !is_planted(Bug::NonRobust) {
            me.set_pending(self.node());
        }
    }

    /// CRASH: the word is ours, the node is not linked: pending still names it.
    #[inline(always)]
    pub(crate) fn finish_acquire(&self, me: ThisThread, died: bool) -> Acquired {
        let how = if died { Acquired::OwnerDied(self.dead_owner()) } else { Acquired::Clean };
        if self.holder.load(Relaxed) != me.owner() {
            self.holder.store(me.owner(), Relaxed);
        }
        if is_planted(Bug::NonRobust) {
            return how;
        }
        if is_planted(Bug::PendingAfterCas) {
            me.set_pending(self.node());
        }
        // SAFETY: the node is this lock's own, just taken; the list has room (checked before); `acquire`'s caller keeps it mapped.
        unsafe { me.link(self.node()) };
        // CRASH: linked and pending: the kernel skips a pending entry on its walk and looks at it last, so it is released once. Pending stays
        // until this thread's next operation: to clear it here would cost a store before the locked instruction of the release.
        how
    }

    /// Takes the word if its low half is 0, whatever the announce count.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    fn take_free(&self, me: ThisThread) -> bool {
        // Half a word at a time is more than Rust's atomics promise, so it is said in assembly. To read the count first and compare all of it would cost 2 ns, a tenth of the lock.
        let found: u64;
        // ORDER: a locked instruction is a full barrier; pairs with `give`.
        // SAFETY: an atomic operation on the low half of a word that we have a reference to.
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

    /// Takes the word if its low half is 0, whatever the announce count.
    #[inline(always)]
    #[cfg(not(target_arch = "x86_64"))]
    fn take_free(&self, me: ThisThread) -> bool {
        use std::sync::atomic::Ordering;
        let seen = self.word.load(Relaxed);
        // ORDER: Acquire pairs with `give`: what the last owner wrote is ours to read.
        seen & LOW == 0 && self.word.compare_exchange(seen, seen | me.tid(), Ordering::Acquire, Relaxed).is_ok()
    }

    /// Releases the word; `settle` gets it as it is afterwards, and only if somebody may sleep. False, and nothing done, when `me` does not hold it.
    #[inline(always)]
    pub(crate) fn release_and_then(&self, me: ThisThread, hand_over: impl FnOnce(u64)) -> bool {
        self.release_with(me, || (), hand_over)
    }

    #[inline(always)]
    pub(crate) fn release_with(&self, me: ThisThread, last: impl FnOnce(), hand_over: impl FnOnce(u64)) -> bool {
        if is_planted(Bug::NonRobust) {
            last();
            let before = self.word.fetch_sub(me.tid(), SeqCst);
            hand_over(before - me.tid());
            return true;
        }
        if !me.holds_only(self.node()) {
            return self.release_one_of_several(me, last, hand_over);
        }
        // CRASH: what `last` wrote is there, or not, and the lock is a dead owner's.
        last();
        me.ensure_pending(self.node());
        me.unlink_only();
        self.release_unlinked(me, hand_over);
        true
    }

    /// Apart, so that the other way is short enough to be inlined everywhere.
    #[cold]
    #[inline(never)]
    fn release_one_of_several(&self, me: ThisThread, last: impl FnOnce(), hand_over: impl FnOnce(u64)) -> bool {
        // A thread that was never set up holds nothing, and must not begin.
        if !me.holds(self.node()) {
            return false;
        }
        // CRASH: as above.
        last();
        me.ensure_pending(self.node());
        me.unlink(self.node());
        self.release_unlinked(me, hand_over);
        true
    }

    /// CRASH: off the list, still ours: pending names it, the kernel marks it OWNER_DIED. What it guards is whole, which the next owner cannot know.
    #[inline(always)]
    fn release_unlinked(&self, me: ThisThread, hand_over: impl FnOnce(u64)) {
        // ORDER: SeqCst, hence Release, pairs with the Acquire in `take`; and either this sees a waiter's `W`, or that waiter's announce sees all that we did.
        let before = self.word.fetch_sub(me.tid(), SeqCst);
        if before & LOW != me.tid() {
            self.after_release(me, before, hand_over);
        }
        me.clear_pending();
    }

    #[cold]
    #[inline(never)]
    fn after_release(&self, me: ThisThread, before: u64, hand_over: impl FnOnce(u64)) {
        if before & TID == me.tid() {
            // CRASH: the word is free and pending names it: the kernel wakes one.
            hand_over(before.wrapping_sub(me.tid()));
        } else {
            // A peer has scribbled over the word while it was ours: what was taken from it is added again, and whoever waits finds out by the belt.
            self.word.fetch_add(me.tid(), SeqCst);
        }
    }

    /// Whether this thread holds it, as the word tells.
    pub(crate) fn is_owned_by(&self, me: ThisThread) -> bool {
        self.word.load(Relaxed) & TID == me.tid()
    }

    #[inline(always)]
    pub(crate) fn node(&self) -> Node {
        self.link.as_ptr().cast()
    }

    #[inline(always)]
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.word
    }

    /// The half that the kernel sees.
    pub(crate) fn futex_word(&self) -> *const AtomicU32 {
        (&raw const self.word).cast()
    }

    /// The half that counts announcements.
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
