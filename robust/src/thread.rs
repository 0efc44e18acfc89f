//! Who we are: this thread's id, its part of the kernel's robust list, the pid namespace; and how a fork is noticed.
//!
//! # The list
//!
//! The kernel keeps one robust list a thread, registered by libc. When the thread ends, by whatever death, the kernel walks it and marks each lock
//! word that holds the thread's id as `OWNER_DIED`; `list_op_pending` names one more word, so that the instants between taking a word and linking it are covered.
//!
//! Each thread links two private *sentinels* once; our nodes live only between them:
//!
//! ```text
//! head -> (libc's newer mutexes) -> FIRST -> our newest -> ... -> our oldest -> LAST -> (libc's older mutexes) -> head
//! ```
//!
//! libc inserts at the head and unlinks through the links of its own mutexes: it touches the sentinels, never a node of ours, which lies in memory that others can write.
//! We in turn never *follow* a link that others can write: the newest node is what `FIRST` leads to, a private table says what lies below it, and every link is written from these. So a peer who scribbles over a node
//! cannot make us write anywhere; it can only cut short the kernel's walk after our death, which the waiters' once-a-second look at the owner makes good.
//!
//! # Fork
//!
//! The block that holds the id, the table and the sentinels is `MADV_WIPEONFORK`: in a forked child it reads as zeros, so the child notices at its next
//! operation, at no cost. It then owns nothing: copies of its parent's guards find no entry in the table and do nothing. libc has emptied the child's list;
//! after a raw `clone` nothing is registered, and we register libc's own head again, emptied.
#![allow(unsafe_code, reason = "the robust list is raw pointers that the kernel reads")]

mod enrol;

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use self::enrol::Retire;
use crate::planted_bugs::{Bug, is_planted};
use crate::sys::{self, RobustHead};
use crate::word::low;

/// A link of the robust list: what it points to is the next link. The word the kernel looks at lies `futex_offset` from it.
pub(crate) type Node = *mut usize;

/// Locks that one thread may hold at a time. The kernel recovers the newest 2,048 entries of a list, libc's own included.
pub const MAX_HELD: usize = 1000;

/// glibc's distance from a node to its futex word.
pub const FUTEX_OFFSET: isize = -32;

/// Why this thread could not get its place in the robust list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoList;

/// A private list entry that libc's code can unlink its own neighbours from: the link before it, the link after it.
#[repr(C)]
struct Sentinel {
    previous: Cell<Node>,
    next: Cell<Node>,
}

#[repr(C)]
struct Block {
    /// This thread as an owner: process id << 32 | thread id. 0: not set up, or wiped by a fork.
    owner: Cell<u64>,
    /// How many locks we hold below the newest.
    below: Cell<usize>,
    /// What the kernel takes for the lock words of the two sentinels: always 0. Outside of the mapping its walk would end there.
    words: [Cell<u64>; 3],
    /// The link after it is the newest lock, or `LAST`. Nobody but this thread writes that link, so it need not be noted elsewhere.
    first: Sentinel,
    last: Sentinel,
    /// `older[0]` is `LAST`; then what we hold below the newest, oldest first.
    older: [Cell<Node>; MAX_HELD],
}

impl Block {
    /// The link of `LAST`: the newest of our nodes when there is none.
    #[inline(always)]
    fn bottom(&self) -> Node {
        self.last.next.as_ptr().cast()
    }

    #[cold]
    #[inline(never)]
    fn note_older(&self, node: Node) {
        let below = self.below.get() + 1;
        self.older[below].set(node);
        self.below.set(below);
    }
}

const _: () = assert!(offset_of!(Block, first.next) - FUTEX_OFFSET.unsigned_abs() >= offset_of!(Block, words));
const _: () = assert!(offset_of!(Block, last.next) - FUTEX_OFFSET.unsigned_abs() + 4 <= offset_of!(Block, first));

/// A block of zeros that every thread begins with, so that the fast path needs one check only. Nobody writes it.
#[repr(transparent)]
struct Unset(Block);
// SAFETY: never written: each writer first replaces it when it reads tid 0.
unsafe impl Sync for Unset {}
static UNSET: Unset = Unset(Block {
    owner: Cell::new(0),
    below: Cell::new(0),
    words: [const { Cell::new(0) }; 3],
    first: Sentinel { previous: Cell::new(ptr::null_mut()), next: Cell::new(ptr::null_mut()) },
    last: Sentinel { previous: Cell::new(ptr::null_mut()), next: Cell::new(ptr::null_mut()) },
    older: [const { Cell::new(ptr::null_mut()) }; MAX_HELD],
});

thread_local! {
    /// This thread's block and libc's list head, side by side: every lock operation begins with both.
    static THREAD: (Cell<*const Block>, Cell<*mut RobustHead>) =
        const { (Cell::new(&raw const UNSET.0), Cell::new(ptr::null_mut())) };
    static AT_EXIT: Retire = const { Retire };
}

/// This thread, able to take robust locks. Not `Send`; cheap to get again.
#[derive(Clone, Copy, Debug)]
pub struct ThisThread {
    block: *const Block,
    head: *mut RobustHead,
}

impl ThisThread {
    /// This thread's block, set up at the first call and after a fork.
    #[inline(always)]
    pub fn current() -> Result<Self, NoList> {
        if Self::here().owner() == 0 {
            // Tells no more than a register holds: an answer in memory would be stores in front of every locked instruction.
            Self::set_up()?;
        }
        Ok(Self::here())
    }

    /// This thread as it is. If it was never set up, or a fork has wiped it, it holds nothing and must not begin anything.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        THREAD.with(|(block, head)| Self { block: block.get(), head: head.get() })
    }

    #[inline(always)]
    fn block(&self) -> &Block {
        // SAFETY: the unset block is static; a real one stays mapped as long as its thread.
        unsafe { &*self.block }
    }

    /// Process id << 32 | thread id.
    #[inline(always)]
    pub fn owner(self) -> u64 {
        self.block().owner.get()
    }

    /// The thread id, as the low half of a lock word holds it.
    #[inline(always)]
    pub(crate) fn tid(self) -> u64 {
        self.owner() & 0xffff_ffff
    }

    /// Stores the pending entry: if this thread dies, the kernel looks at the word of this node, too.
    #[inline(always)]
    pub(crate) fn set_pending(self, node: Node) {
        // ORDER: the kernel reads this at the thread's death, on the same CPU: only the compiler must keep the order.
        compiler_fence(SeqCst);
        // SAFETY: libc's head lives as long as the thread, and this thread alone writes to it.
        unsafe { (*self.head).pending.set(node) };
        compiler_fence(SeqCst);
    }

    /// Does as [`set_pending`](Self::set_pending), but stores nothing if the entry is this node already. That is so
    /// when a lock is released before any other operation. It saves a store before the locked instruction.
    #[inline(always)]
    pub(crate) fn ensure_pending(self, node: Node) {
        // SAFETY: libc's head lives as long as the thread, and this thread alone writes to it.
        if unsafe { (*self.head).pending.get() } != node {
            self.set_pending(node);
        }
    }

    /// Clears the pending entry: the operation is over.
    #[inline(always)]
    pub(crate) fn clear_pending(self) {
        self.set_pending(ptr::null_mut());
    }

    #[inline(always)]
    pub(crate) fn is_full(self) -> bool {
        self.block().below.get() >= MAX_HELD - 1
    }

    /// Puts a node behind `FIRST`.
    ///
    /// # Safety
    ///
    /// `node` is the aligned link word of a lock that this thread just took, stays mapped until [`unlink`](Self::unlink), and the list is not [full](Self::is_full).
    #[inline(always)]
    pub(crate) unsafe fn link(self, node: Node) {
        let block = self.block();
        let newest = block.first.next.get();
        if newest != block.bottom() {
            block.note_older(newest);
        }
        // Who takes one lock again and again finds the link as it was left, and spares a store in front of the next locked instruction.
        // SAFETY: the caller's promise; volatile, since the kernel reads it and a peer may scribble on it.
        if unsafe { node.read_volatile() } != newest as usize {
            // SAFETY: as above.
            unsafe { node.write_volatile(newest as usize) };
        }
        // CRASH: the node is not on the list yet, but pending still names it.
        compiler_fence(SeqCst);
        block.first.next.set(node);
        compiler_fence(SeqCst);
    }

    /// Takes a node out; false when this thread does not hold it (a guard that was copied by a fork).
    #[inline(always)]
    pub(crate) fn unlink(self, node: Node) -> bool {
        if !self.is_newest(node) {
            return self.unlink_older(node);
        }
        let block = self.block();
        let below = block.below.get();
        // CRASH: from here on the node is off the list, and pending names it.
        compiler_fence(SeqCst);
        block.first.next.set(block.older[below].get());
        compiler_fence(SeqCst);
        block.below.set(below.saturating_sub(1));
        true
    }

    /// As [`unlink`](Self::unlink), of the only one that this thread holds.
    #[inline(always)]
    pub(crate) fn unlink_only(self) {
        let block = self.block();
        // CRASH: as in `unlink`.
        compiler_fence(SeqCst);
        block.first.next.set(block.bottom());
        compiler_fence(SeqCst);
    }

    #[cold]
    fn unlink_older(self, node: Node) -> bool {
        let block = self.block();
        let below = block.below.get();
        let Some(at) = (1..=below).rfind(|&i| block.older[i].get() == node) else { return false };
        let newer = if at == below { block.first.next.get() } else { block.older[at + 1].get() };
        // SAFETY: the newer neighbour is a lock that we hold, hence mapped.
        unsafe { newer.write_volatile(block.older[at - 1].get() as usize) };
        for i in at..below {
            block.older[i].set(block.older[i + 1].get());
        }
        block.below.set(below - 1);
        true
    }

    /// Whether this thread has failed to take the same word many times in a row: whoever polls with `try_lock` never sleeps, and must look at the owner now and then.
    #[cold]
    pub(crate) fn fails_again(self, node: Node, word: u64) -> bool {
        thread_local! {
            static LAST: Cell<(Node, u64, u32)> = const { Cell::new((ptr::null_mut(), 0, 0)) };
        }
        let (last_node, last_word, times) = LAST.get();
        let times = if (last_node, last_word) == (node, word) { times.wrapping_add(1) } else { 0 };
        LAST.set((node, word, times));
        times % 64 == 63
    }

    /// Whether this thread holds the lock with this node.
    #[inline(always)]
    pub(crate) fn holds(self, node: Node) -> bool {
        self.is_newest(node) || (self.block().below.get() != 0 && self.holds_below(node))
    }

    /// Whether this thread holds this one and no other.
    #[inline(always)]
    pub(crate) fn holds_only(self, node: Node) -> bool {
        self.is_newest(node) && self.block().below.get() == 0
    }

    #[inline(always)]
    fn is_newest(self, node: Node) -> bool {
        self.block().first.next.get() == node
    }

    #[cold]
    #[inline(never)]
    fn holds_below(self, node: Node) -> bool {
        let block = self.block();
        block.older[..=block.below.get()].iter().skip(1).any(|older| older.get() == node)
    }
}

/// This thread's id, as lock words hold it: asked of the kernel once a thread and after each fork.
pub fn thread_id() -> u32 {
    ThisThread::current().map_or_else(|_| sys::gettid(), |me| low(me.tid()))
}

/// The inode of this process's pid namespace: thread ids mean something only inside it. Not remembered, since a forked child may be in another one.
/// 0 without /proc.
pub fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |m| m.ino())
}

/// The process that a thread belongs to, as /proc tells it.
///
/// ```
/// use multiproc_robust::identity;
///
/// assert_eq!(thread::process_of(thread::thread_id()), Some(std::process::id()));
/// assert!(!thread::has_ended(thread::thread_id()));
/// ```
pub fn process_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// The signal that ended a process whose parent has not asked for its status yet; `None` if no signal did, or it cannot be known.
pub fn signal_of_zombie(pid: u32) -> Option<i32> {
    const EXIT_CODE: usize = 52;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which is in parentheses and may hold anything: the third field, and so on (proc_pid_stat(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = fields.next()? == "Z";
    let status: i32 = fields.nth(EXIT_CODE - 4)?.parse().ok()?;
    Some(status & 0x7f).filter(|signal| is_zombie && *signal != 0)
}

/// Whether a thread has ended, or will not run a user's instruction any more; a zombie will not. Errs on the side of "no".
pub fn has_ended(tid: u32) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{tid}/stat")) else { return !sys::thread_exists(tid) };
    // After the name, which is in parentheses and may hold anything: state, ppid, pgrp, session, tty, tpgid, flags.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let stopped = |state| is_planted(Bug::StoppedTakenForDead) && matches!(state, "T" | "t");
    let gone = fields.next().is_some_and(|state| matches!(state, "Z" | "X" | "x") || stopped(state));
    gone || fields.nth(5).and_then(|flags| flags.parse::<u64>().ok()).is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Returns whether this thread belongs to this process. Errs on the side of "yes".
pub fn is_thread_of_this_process(tid: u32) -> bool {
    sys::is_thread_of_this_process(tid)
}
