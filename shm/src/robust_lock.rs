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

use std::fmt;
use std::mem::offset_of;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::identity::{self, FUTEX_OFFSET, Me, NoList, Node};
use crate::keeper::{self, Kept};
use crate::sys::{self, Woken};
use crate::wait::is_patient;
use crate::zoo::{self, Bug};

/// A mutual exclusion lock in shared memory that the kernel gives back when its owner's thread dies.
///
/// This is the building block: it guards no data, names no object, and leaves it to its user to repair what a dead owner left. All zeros is an unlocked lock.
/// It is owned by a *thread*; a thread may hold 1,000 of them. Most programs want `multiproc::Lock` or [`Value`](crate::Value).
///
/// ```
/// use multiproc_shm::{Acquired, Deadline, RobustLock};
///
/// let lock = Box::new(RobustLock::new()); // in earnest: inside an object in shared memory
/// // SAFETY: the box outlives the time that the lock is held.
/// let how = unsafe { lock.acquire(Deadline::NEVER) }?;
/// assert_eq!(how, Acquired::Clean);
/// assert!(lock.owner().is_some());
/// lock.release();
/// # Ok::<(), multiproc_shm::AcquireError>(())
/// ```
#[repr(C, align(64))]
pub struct RobustLock {
    /// Low half: owner word. High half: announce count.
    word: AtomicU64,
    /// Ring sides only: the contenders' futex word, always 0.
    pub(crate) bell: AtomicU32,
    /// Ring sides only: how many contenders sleep. A death may leave it too high, which costs a system call; it is never too low.
    pub(crate) contenders: AtomicU32,
    /// Who held it last, process id << 32 | thread id: a signature, written after the word was taken, and left there.
    holder: AtomicU64,
    /// What kind of owner the word names; 0 is a thread, the only kind so far.
    owner_kind: AtomicU32,
    reserved: AtomicU32,
    /// The link of the robust list, `-FUTEX_OFFSET` bytes from the word.
    link: AtomicU64,
    /// Three words for what the lock guards, on its own cache line. The lock never touches them.
    pub beside: [AtomicU64; 3],
}

const _: () = assert!(size_of::<RobustLock>() == 64);
const _: () = assert!(offset_of!(RobustLock, link) == FUTEX_OFFSET.unsigned_abs());
const _: () = assert!(offset_of!(RobustLock, word) == 0);

pub(crate) const TID: u64 = 0x3fff_ffff;
pub(crate) const OWNER_DIED: u64 = 0x4000_0000;
pub(crate) const WAITERS: u64 = 0x8000_0000;
/// One announcement.
pub(crate) const ANNOUNCE: u64 = 1 << 32;
const LOW: u64 = 0xffff_ffff;
/// The belt: how long an untimed sleep lasts before it looks whether the owner lives.
pub(crate) const BELT: Duration = Duration::from_secs(1);

/// How a lock came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after `OwnerDied` what the lock guards may need repair"]
#[allow(clippy::exhaustive_enums, reason = "every caller must decide about both")]
pub enum Acquired {
    /// The last owner released it.
    Clean,
    /// The last owner died holding it.
    OwnerDied(Death),
}

/// Who died.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Death(NonZeroU64);

impl Death {
    const MARK: u64 = 1 << 63;

    /// Of this thread: process id << 32 | thread id, for objects that keep such a signature.
    pub fn of(holder: u64) -> Self {
        // The mark makes it non-zero; process ids are far too small to reach it.
        NonZeroU64::new(holder | Self::MARK).map_or(Self(NonZeroU64::MIN), Self)
    }

    /// Its process. `None` when it was killed in the few instructions between taking the lock and signing it. (If the signature found there is of a thread that has ended
    /// meanwhile, it is taken for the dead owner's: the one case in which the wrong one of two dead is named.)
    pub fn pid(self) -> Option<u32> {
        let pid = high(self.0.get() & !Self::MARK);
        (pid != 0).then_some(pid)
    }

    /// Its thread; `None` as for [`pid`](Self::pid).
    pub fn tid(self) -> Option<u32> {
        self.pid().map(|_| low(self.0.get()))
    }
}

impl fmt::Debug for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Death").field("pid", &self.pid()).field("tid", &self.tid()).finish()
    }
}

/// Who holds a lock at this moment, as seen from inside the pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// Its process; `None` if /proc would not tell.
    pub pid: Option<u32>,
    /// Its thread.
    pub tid: u32,
}

/// Why a lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The deadline came first.
    #[error("timed out")]
    TimedOut,
    /// This thread holds it already; waiting would never end.
    #[error("already held by this thread")]
    AlreadyHeld,
    /// This thread holds as many locks as the kernel would be sure to release at its death.
    #[error("this thread holds {} locks already", identity::MAX_HELD)]
    TooManyHeld,
    /// This thread has taken a recursive lock as often as can be counted.
    #[error("taken too many times by this thread")]
    TooDeep,
    /// More permits than there are.
    #[error("there are not so many permits")]
    TooMany,
    /// The kernel or libc gave this thread no robust list.
    #[error("no robust list for this thread")]
    Unsupported,
    /// A guard that a fork has copied: its lock is the parent's.
    #[error("not held by this process: a fork has copied the guard")]
    NotHeld,
    /// As many are there, waiting or reading, as the object has places for.
    #[error("all its places are taken")]
    NoPlace,
    /// The thread that keeps what belongs to the whole process could not be started.
    #[error("the thread that would keep it for this process could not be started")]
    NoKeeper,
}

impl From<NoList> for AcquireError {
    fn from(_: NoList) -> Self {
        Self::Unsupported
    }
}

/// Where a contender sleeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queueing {
    /// On the owner word: the user's locks, where everybody wants the same.
    Word,
    /// On the bell and the owner word: ring sides, where the word's other watchers must not swallow a contender's wake.
    Bell,
}

impl RobustLock {
    /// An unlocked lock.
    pub const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            bell: AtomicU32::new(0),
            contenders: AtomicU32::new(0),
            holder: AtomicU64::new(0),
            owner_kind: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            link: AtomicU64::new(0),
            beside: [const { AtomicU64::new(0) }; 3],
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
        self.take(Me::current()?, deadline, Queueing::Word)
    }

    /// Gives the lock back; false, and nothing done, when this thread does not hold it (in a forked child: a copy of its parent's guard).
    #[inline(always)]
    pub fn release(&self) -> bool {
        let Ok(me) = Me::current() else { return false };
        self.give(me, |after| self.settle(after))
    }

    /// Runs `last` and gives the lock back; false, and neither done, when this thread does not hold it.
    #[inline(always)]
    pub(crate) fn release_after(&self, last: impl FnOnce()) -> bool {
        let Ok(me) = Me::current() else { return false };
        if !me.holds(self.node()) {
            return false;
        }
        last();
        self.give(me, |after| self.settle(after))
    }

    /// Hands a lock that this thread holds over to its process: it then belongs to no thread, any of them may [give it back](Self::release_kept), and the kernel does so when the process ends or calls `exec`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: this thread does not hold it ([`NotHeld`](AcquireError::NotHeld)), or there is no keeper; it is then as it was.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until the process has given it back.
    pub unsafe fn keep(&self) -> Result<Kept, AcquireError> {
        let me = Me::current()?;
        if !me.holds(self.node()) {
            return Err(AcquireError::NotHeld);
        }
        let chosen = keeper::with_room(me)?;
        let keeper = chosen.me();
        me.begin(self.node());
        me.unlink(self.node());
        // CRASH: ours by the word; our pending names it.
        keeper.begin(self.node());
        let handed = self.exchange(me.tid(), keeper.tid()).is_some();
        // CRASH: the keeper's by the word; its pending names it. If the keeper has ended, those who wait find that out within a second.
        if handed {
            self.holder.store(keeper.owner(), Relaxed);
            // SAFETY: the node is this lock's own, and off the other list; there is room; the caller keeps it mapped.
            unsafe { keeper.link(self.node()) };
        }
        keeper.end();
        me.end();
        if handed { Ok(chosen.kept()) } else { Err(AcquireError::NotHeld) }
    }

    /// Gives back what this process [keeps](Self::keep); false, and nothing done, when it does not (in a forked child: what its parent keeps).
    pub fn release_kept(&self, kept: Kept) -> bool {
        let Ok(me) = Me::current() else { return false };
        let Some(chosen) = keeper::of(me, kept) else { return false };
        let keeper = chosen.me();
        keeper.begin(self.node());
        // CRASH: off the list, still the keeper's: its pending names it.
        let known = keeper.unlink(self.node());
        // No `fetch_sub`: while this process is being killed, the kernel may have given the lock to another one already.
        if let Some(after) = known.then(|| self.exchange(keeper.tid(), 0)).flatten()
            && after & LOW != 0
        {
            // CRASH: the word is free and pending names it: the kernel wakes one.
            self.settle(after);
        }
        keeper.end();
        known
    }

    /// Replaces the thread in the word by another one (0: none) and keeps the rest; the word then, or `None` if it was not that thread's.
    fn exchange(&self, from: u64, to: u64) -> Option<u64> {
        let mut seen = self.word.load(Relaxed);
        while seen & TID == from {
            let next = (seen & !TID) | to;
            // ORDER: SeqCst, hence Release, pairs with the Acquire in `take`, and with a waiter's announce as in `give`.
            match self.word.compare_exchange(seen, next, SeqCst, Relaxed) {
                Ok(_) => return Some(next),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Whether somebody holds it now.
    pub fn is_held(&self) -> bool {
        self.word.load(Relaxed) & TID != 0
    }

    /// Whether this thread holds it.
    #[inline(always)]
    pub fn is_held_by_this_thread(&self) -> bool {
        // The word alone does not tell: a thread of ours in another pid namespace may have the same number.
        Me::current().is_ok_and(|me| self.word.load(Relaxed) & TID == me.tid() && me.holds(self.node()))
    }

    /// Who holds it now.
    pub fn owner(&self) -> Option<Owner> {
        let tid = low(self.word.load(Relaxed) & TID);
        let holder = self.holder.load(Relaxed);
        let pid = if low(holder) == tid { Some(high(holder)) } else { identity::process_of(tid) };
        (tid != 0).then_some(Owner { pid, tid })
    }

    /// Who took it last, as one word for [`Death::of`]: the holder, while it is held.
    #[inline]
    pub fn signature(&self) -> u64 {
        self.holder.load(Relaxed)
    }

    /// How many sleep for it now, as the kernel counts them: a killed one is not among them, nor is one that still spins.
    pub fn sleepers(&self) -> usize {
        sys::sleepers_on(self.futex_word())
    }

    #[inline(always)]
    pub(crate) fn take(&self, me: Me, deadline: Deadline, queueing: Queueing) -> Result<Acquired, AcquireError> {
        if me.is_full() {
            return Err(AcquireError::TooManyHeld);
        }
        self.begin_to_take(me);
        // CRASH: pending names a word that is not ours: the kernel leaves it alone, or wakes one sleeper, who looks and sleeps again.
        let died = if self.take_free(me) {
            false
        } else {
            match self.contend(me, deadline, queueing) {
                Ok(died) => died,
                Err(error) => {
                    me.end();
                    return Err(error);
                }
            }
        };
        Ok(self.taken(me, died))
    }

    /// Takes it if nobody holds it, nobody waits, and nobody died holding it.
    #[inline(always)]
    pub(crate) fn take_plain(&self, me: Me) -> Option<Acquired> {
        if me.is_full() {
            return None;
        }
        self.begin_to_take(me);
        let taken = self.take_free(me);
        if !taken {
            me.end();
        }
        taken.then(|| self.taken(me, false))
    }

    #[inline(always)]
    pub(crate) fn begin_to_take(&self, me: Me) {
        if !zoo::planted(Bug::PendingAfterCas) && !zoo::planted(Bug::NonRobust) {
            me.begin(self.node());
        }
    }

    /// CRASH: the word is ours, the node is not linked: pending still names it.
    #[inline(always)]
    pub(crate) fn taken(&self, me: Me, died: bool) -> Acquired {
        let how = if died { Acquired::OwnerDied(self.dead_holder()) } else { Acquired::Clean };
        if self.holder.load(Relaxed) != me.owner() {
            self.holder.store(me.owner(), Relaxed);
        }
        if zoo::planted(Bug::NonRobust) {
            return how;
        }
        if zoo::planted(Bug::PendingAfterCas) {
            me.begin(self.node());
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
    fn take_free(&self, me: Me) -> bool {
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
    fn take_free(&self, me: Me) -> bool {
        let seen = self.word.load(Relaxed);
        // ORDER: Acquire pairs with `give`: what the last owner wrote is ours to read.
        seen & LOW == 0 && self.word.compare_exchange(seen, seen | me.tid(), Acquire, Relaxed).is_ok()
    }

    /// Releases the word; `settle` gets it as it is afterwards, and only if somebody may sleep.
    #[inline(always)]
    pub(crate) fn give(&self, me: Me, settle: impl FnOnce(u64)) -> bool {
        if zoo::planted(Bug::NonRobust) {
            let before = self.word.fetch_sub(me.tid(), SeqCst);
            settle(before - me.tid());
            return true;
        }
        me.begin(self.node());
        if !me.unlink(self.node()) {
            me.end();
            return false;
        }
        // CRASH: off the list, still ours: pending names it, the kernel marks it OWNER_DIED. What it guards is whole, which the next owner cannot know.
        // ORDER: SeqCst, hence Release, pairs with the Acquire in `take`; and either this sees a waiter's `W`, or that waiter's announce sees all that we did.
        let before = self.word.fetch_sub(me.tid(), SeqCst);
        if before & TID != me.tid() {
            self.put_back(me);
        } else if before & LOW != me.tid() {
            // CRASH: the word is free and pending names it: the kernel wakes one.
            settle(before.wrapping_sub(me.tid()));
        }
        me.end();
        true
    }

    /// A peer has scribbled over the word while it was ours: what was taken from it is added again, and whoever waits finds out by the belt.
    #[cold]
    fn put_back(&self, me: Me) {
        self.word.fetch_add(me.tid(), SeqCst);
    }

    /// Wakes one; clears `W` only if nobody was there and nobody has announced since `after`.
    #[cold]
    #[inline(never)]
    fn settle(&self, after: u64) {
        if zoo::planted(Bug::MissingWake) {
            return;
        }
        if sys::futex_wake(self.futex_word(), 1) == 0 {
            self.clear(after);
        }
    }

    /// `(W, count)` -> `(0, count)`, if the count is still the one that the release saw.
    pub(crate) fn clear(&self, after: u64) {
        let _ = self.word.compare_exchange((after & !LOW) | WAITERS, after & !LOW, SeqCst, Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn contend(&self, me: Me, deadline: Deadline, queueing: Queueing) -> Result<bool, AcquireError> {
        let first = if is_patient() { LONGEST_PAUSE + 1 } else { 2 };
        let mut pauses = first;
        let mut seen = self.word.load(Relaxed);
        loop {
            if seen & TID == 0 {
                let plain = seen & LOW == 0;
                if seen & OWNER_DIED != 0 && zoo::planted(Bug::HeirWithoutPending) {
                    me.end();
                }
                let next = (seen & !OWNER_DIED).wrapping_add(if plain { 0 } else { ANNOUNCE }) | me.tid();
                // ORDER: as in `take`; the kernel's OWNER_DIED store is seen because this reads it.
                match self.word.compare_exchange(seen, next, Acquire, Relaxed) {
                    Ok(_) => return Ok(seen & OWNER_DIED != 0),
                    Err(now) => seen = now,
                }
                continue;
            }
            if seen & TID == me.tid() {
                // Also when the table does not know it: then it is held through another mapping of the same object (after a fork).
                return Err(AcquireError::AlreadyHeld);
            }
            if deadline == Deadline::NOW {
                if me.fails_again(self.node(), seen) && self.rob_the_dead(me) {
                    return Ok(true);
                }
                return Err(AcquireError::TimedOut);
            }
            if seen & WAITERS == 0 && pauses <= LONGEST_PAUSE {
                (0..pauses).for_each(|_| std::hint::spin_loop());
                pauses *= 2;
                seen = self.word.load(Relaxed);
                continue;
            }
            if deadline.has_passed() {
                return Err(AcquireError::TimedOut);
            }
            if self.sleep(seen, deadline, queueing) && self.rob_the_dead(me) {
                return Ok(true);
            }
            pauses = first;
            seen = self.word.load(Relaxed);
        }
    }

    /// Announces and sleeps once; true when the slice ran out.
    fn sleep(&self, seen: u64, deadline: Deadline, queueing: Queueing) -> bool {
        if queueing == Queueing::Bell {
            self.contenders.fetch_add(1, SeqCst);
        }
        let announced = (seen | WAITERS).wrapping_add(ANNOUNCE);
        let mut timed_out = false;
        // ORDER: SeqCst pairs with the fetch_sub in `give`.
        if self.word.compare_exchange(seen, announced, SeqCst, Relaxed).is_ok() {
            let until = deadline.within(BELT);
            let word = (self.futex_word(), low(announced));
            let woken = match queueing {
                Queueing::Word => sys::futex_wait(word.0, word.1, until),
                Queueing::Bell => match sys::futex_waitv([(&raw const self.bell, 0), word, word], 2, until) {
                    // Without the call there is no way to watch two words: short slices on the one the kernel rings.
                    Woken::Unsupported => sys::futex_wait(word.0, word.1, deadline.within(FALLBACK_SLICE)),
                    other => other,
                },
            };
            timed_out = woken == Woken::TimedOut;
        }
        if queueing == Queueing::Bell {
            self.contenders.fetch_sub(1, SeqCst);
        }
        timed_out
    }

    /// Who died, by the signature; one that lives did not sign last, it only was the last to sign.
    #[cold]
    pub(crate) fn dead_holder(&self) -> Death {
        let holder = self.holder.load(Relaxed);
        Death::of(if identity::has_ended(low(holder)) { holder } else { 0 })
    }

    /// Takes the word from an owner whose death the kernel missed: its thread runs no more. The word is read before that is asked, and its announce count is part of the
    /// comparison, so nobody is robbed who took it meanwhile.
    #[cold]
    fn rob_the_dead(&self, me: Me) -> bool {
        let seen = self.word.load(Relaxed);
        if seen & TID == 0 || zoo::planted(Bug::NoBelt) || !identity::has_ended(low(seen & TID)) {
            return false;
        }
        let next = (seen & !(TID | OWNER_DIED)).wrapping_add(ANNOUNCE) | WAITERS | me.tid();
        self.word.compare_exchange(seen, next, Acquire, Relaxed).is_ok()
    }

    /// Leaves the word as the kernel leaves that of a dead owner, if there is an owner. Only for a lock that nobody uses: its owner's thread id is of another time.
    pub(crate) fn abandon(&self) {
        let seen = self.word.load(Relaxed);
        if seen & TID != 0 {
            self.word.store((seen & !TID) | OWNER_DIED, SeqCst);
        }
        self.contenders.store(0, SeqCst);
    }

    /// Whether this thread holds it, as the word tells.
    pub(crate) fn is_owned_by(&self, me: Me) -> bool {
        self.word.load(Relaxed) & TID == me.tid()
    }

    /// Announces somebody who watches this word without wanting to sleep in here; its low half then, or `None` if it is free.
    pub(crate) fn mark(&self) -> Option<u32> {
        let mut seen = self.word.load(Relaxed);
        while seen & TID != 0 {
            let announced = (seen | WAITERS).wrapping_add(ANNOUNCE);
            // ORDER: SeqCst pairs with the fetch_sub in `give`.
            match self.word.compare_exchange(seen, announced, SeqCst, Relaxed) {
                Ok(_) => return Some(low(announced)),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Does for an owner whose death the kernel missed what the kernel does. The count is part of the comparison, so nobody is robbed.
    #[cold]
    pub(crate) fn bury(&self) -> bool {
        let seen = self.word.load(Relaxed);
        let freed = ((seen & !TID) | OWNER_DIED).wrapping_add(ANNOUNCE);
        seen & TID != 0
            && identity::has_ended(low(seen & TID))
            && self.word.compare_exchange(seen, freed, SeqCst, Relaxed).is_ok()
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
    pub(crate) fn announce_word(&self) -> *const AtomicU32 {
        self.futex_word().wrapping_add(1)
    }
}

/// Spinning ends after the pause of this length.
const LONGEST_PAUSE: u32 = 256;
/// How long a sleep lasts where the kernel cannot watch two words.
pub(crate) const FALLBACK_SLICE: Duration = Duration::from_millis(5);

#[allow(clippy::cast_possible_truncation, reason = "the half is wanted")]
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

#[allow(clippy::cast_possible_truncation, reason = "the half is wanted")]
pub(crate) const fn high(word: u64) -> u32 {
    (word >> 32) as u32
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
