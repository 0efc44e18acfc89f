//! [`ThisThread`]: this thread's id, its part of the kernel's robust list, and how a fork is noticed.
//!
//! # The list
//!
//! The kernel keeps one robust list per thread; libc registers it. When the thread ends, for whatever reason,
//! the kernel walks the list. It marks each lock word on it that holds the thread's id as `OWNER_DIED`. The
//! pending entry (`list_op_pending`) names one more word: it covers the instants between taking a word and
//! linking its node.
//!
//! Each thread links two private *sentinels* into the list, once. The nodes of this crate live only between
//! them:
//!
//! ```text
//! head -> (libc's newer mutexes) -> FIRST -> innermost lock -> ... -> outermost lock -> LAST
//!      -> (libc's older mutexes) -> head
//! ```
//!
//! libc inserts at the head, and unlinks through the links of its own mutexes. So libc touches the sentinels,
//! but never a node of this crate, which lies in memory that other processes can write.
//!
//! This crate never *follows* a link that other processes can write. `FIRST` leads to the innermost lock, and
//! a private table names the locks below it. Every link is written from these. So a peer that overwrites a
//! node cannot make this process write to a wrong address. It can only cut short the kernel's walk after a
//! death, and the waiters' liveness poll finds that death within a second.
//!
//! # Fork
//!
//! The block that holds the id, the table and the sentinels is `MADV_WIPEONFORK`: a forked child reads zeros
//! there. So the child notices the fork at its next operation, at no cost. It owns nothing then. Copies of
//! its parent's guards find no entry in the table and do nothing. libc has emptied the child's list. After a
//! raw `clone` no list is registered, and this crate registers libc's own head again, emptied.
#![allow(unsafe_code, reason = "the robust list is raw pointers that the kernel reads")]

mod enrol;
mod proc;

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use self::enrol::Retire;
pub use self::proc::{
    has_ended, is_thread_of_this_process, pid_namespace, process_of, signal_of_zombie, thread_id,
};
use crate::sys::RobustHead;

/// A link of the robust list: it points to the next link. The word that the kernel looks at lies
/// `futex_offset` bytes from the link.
pub(crate) type Node = *mut usize;

/// How many locks one thread may hold at a time. The kernel recovers the 2,048 most recent entries of a list,
/// including libc's own.
pub const MAX_HELD: usize = 1000;

/// The distance in bytes from a node to its futex word, as glibc has it.
pub const FUTEX_OFFSET: isize = -32;

/// This thread cannot use a robust list: the system has none, it has another layout than this crate knows, or
/// the process has moved to another pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoList;

/// A private list entry from which libc's code can unlink its own neighbours: the link before it, the link
/// after it.
#[repr(C)]
struct Sentinel {
    previous: Cell<Node>,
    next: Cell<Node>,
}

#[repr(C)]
struct Block {
    /// This thread as an owner: process id << 32 | thread id. 0: not set up yet, or wiped by a fork.
    owner: Cell<u64>,
    /// How many locks this thread holds below the innermost.
    below: Cell<usize>,
    /// What the kernel takes for the lock words of the two sentinels: always 0. If they lay outside of the
    /// mapping, its walk would end there.
    words: [Cell<u64>; 3],
    /// The link after it is the innermost lock, or `LAST`. Only this thread writes that link, so it need not
    /// be noted elsewhere.
    first: Sentinel,
    last: Sentinel,
    /// `outer[0]` is `LAST`; then the locks that this thread holds below the innermost, the outermost first.
    outer: [Cell<Node>; MAX_HELD],
}

impl Block {
    /// The link of `LAST`, which stands for the innermost lock if this thread holds none.
    #[inline(always)]
    fn bottom(&self) -> Node {
        self.last.next.as_ptr().cast()
    }

    #[cold]
    #[inline(never)]
    fn push_outer(&self, node: Node) {
        let below = self.below.get() + 1;
        self.outer[below].set(node);
        self.below.set(below);
    }
}

const _: () =
    assert!(offset_of!(Block, first.next) - FUTEX_OFFSET.unsigned_abs() >= offset_of!(Block, words));
const _: () =
    assert!(offset_of!(Block, last.next) - FUTEX_OFFSET.unsigned_abs() + 4 <= offset_of!(Block, first));

/// A block of zeros that every thread begins with, so that the fast path needs one check only. It is never
/// written.
#[repr(transparent)]
struct Unset(Block);
// SAFETY: never written: a writer that reads the owner 0 replaces the block first.
unsafe impl Sync for Unset {}
static UNSET: Unset = Unset(Block {
    owner: Cell::new(0),
    below: Cell::new(0),
    words: [const { Cell::new(0) }; 3],
    first: Sentinel { previous: Cell::new(ptr::null_mut()), next: Cell::new(ptr::null_mut()) },
    last: Sentinel { previous: Cell::new(ptr::null_mut()), next: Cell::new(ptr::null_mut()) },
    outer: [const { Cell::new(ptr::null_mut()) }; MAX_HELD],
});

thread_local! {
    /// This thread's block and libc's list head, next to each other: every lock operation begins with both.
    static THREAD: (Cell<*const Block>, Cell<*mut RobustHead>) =
        const { (Cell::new(&raw const UNSET.0), Cell::new(ptr::null_mut())) };
    static AT_EXIT: Retire = const { Retire };
}

/// This thread, as an owner of robust locks. Not `Send`; cheap to get again.
#[derive(Clone, Copy, Debug)]
pub struct ThisThread {
    block: *const Block,
    head: *mut RobustHead,
}

impl ThisThread {
    /// Returns this thread, set up at the first call and after a fork.
    ///
    /// # Errors
    ///
    /// [`NoList`].
    #[inline(always)]
    pub fn current() -> Result<Self, NoList> {
        if Self::here().owner() == 0 {
            // Returns no more than a register holds: an answer in memory would be stores before every locked
            // instruction.
            Self::set_up()?;
        }
        Ok(Self::here())
    }

    /// Returns this thread as it is. If it was never set up, or a fork wiped it, it holds nothing and must
    /// not set the pending entry.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        THREAD.with(|(block, head)| Self { block: block.get(), head: head.get() })
    }

    #[inline(always)]
    fn block(&self) -> &Block {
        // SAFETY: the unset block is static; a real one stays mapped as long as its thread.
        unsafe { &*self.block }
    }

    /// Returns process id << 32 | thread id.
    #[inline(always)]
    pub fn owner(self) -> u64 {
        self.block().owner.get()
    }

    /// Returns the thread id, as the low half of a lock word holds it.
    #[inline(always)]
    pub(crate) fn tid(self) -> u64 {
        self.owner() & 0xffff_ffff
    }

    /// Stores the pending entry: if this thread dies, the kernel looks at the word of this node, too.
    #[inline(always)]
    pub(crate) fn set_pending(self, node: Node) {
        // ORDER: the kernel reads this at the thread's death, on the same CPU: only the compiler must keep
        // the order.
        compiler_fence(SeqCst);
        // SAFETY: libc's head lives as long as the thread, and this thread alone writes to it.
        unsafe { (*self.head).pending.set(node) };
        compiler_fence(SeqCst);
    }

    /// Does as [`set_pending`](Self::set_pending), but stores nothing if the entry is this node already. That
    /// is so when a lock is released before any other operation. It saves a store before the locked
    /// instruction.
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

    /// Returns whether this thread holds [`MAX_HELD`] locks.
    #[inline(always)]
    pub(crate) fn is_full(self) -> bool {
        self.block().below.get() >= MAX_HELD - 1
    }

    /// Links a node after `FIRST`.
    ///
    /// # Safety
    ///
    /// - `node` is the aligned link word of a lock that this thread just took.
    /// - It stays mapped until [`unlink`](Self::unlink).
    /// - The list is not [full](Self::is_full).
    #[inline(always)]
    pub(crate) unsafe fn link(self, node: Node) {
        let block = self.block();
        let innermost = block.first.next.get();
        if innermost != block.bottom() {
            block.push_outer(innermost);
        }
        // A thread that takes one lock repeatedly finds the link as it left it, and saves a store before the
        // next locked instruction.
        // SAFETY: the caller's promise; volatile, since the kernel reads the link and a peer may overwrite
        // it.
        if unsafe { node.read_volatile() } != innermost as usize {
            // SAFETY: as above.
            unsafe { node.write_volatile(innermost as usize) };
        }
        // CRASH: the node is not on the list yet; the pending entry still names it.
        compiler_fence(SeqCst);
        block.first.next.set(node);
        compiler_fence(SeqCst);
    }

    /// Unlinks a node. Returns false if this thread does not hold the lock (a guard that was copied by a
    /// fork).
    #[inline(always)]
    pub(crate) fn unlink(self, node: Node) -> bool {
        if !self.is_innermost(node) {
            return self.unlink_outer(node);
        }
        let block = self.block();
        let below = block.below.get();
        // CRASH: from here on the node is off the list, and the pending entry names it.
        compiler_fence(SeqCst);
        block.first.next.set(block.outer[below].get());
        compiler_fence(SeqCst);
        block.below.set(below.saturating_sub(1));
        true
    }

    /// Does as [`unlink`](Self::unlink), for the only lock that this thread holds.
    #[inline(always)]
    pub(crate) fn unlink_only(self) {
        let block = self.block();
        // CRASH: as in `unlink`.
        compiler_fence(SeqCst);
        block.first.next.set(block.bottom());
        compiler_fence(SeqCst);
    }

    #[cold]
    fn unlink_outer(self, node: Node) -> bool {
        let block = self.block();
        let below = block.below.get();
        let Some(at) = (1..=below).rfind(|&i| block.outer[i].get() == node) else { return false };
        let newer = if at == below { block.first.next.get() } else { block.outer[at + 1].get() };
        // SAFETY: the newer neighbour is a lock that this thread holds, hence mapped.
        unsafe { newer.write_volatile(block.outer[at - 1].get() as usize) };
        for i in at..below {
            block.outer[i].set(block.outer[i + 1].get());
        }
        block.below.set(below - 1);
        true
    }

    /// Returns true at every 64th time in a row that this thread fails to take the same word. A thread that
    /// polls with `try_lock` never sleeps, and must look at the owner now and then.
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

    /// Returns whether this thread holds the lock with this node.
    #[inline(always)]
    pub(crate) fn holds(self, node: Node) -> bool {
        self.is_innermost(node) || (self.block().below.get() != 0 && self.holds_outer(node))
    }

    /// Returns whether this thread holds this lock and no other.
    #[inline(always)]
    pub(crate) fn holds_only(self, node: Node) -> bool {
        self.is_innermost(node) && self.block().below.get() == 0
    }

    #[inline(always)]
    fn is_innermost(self, node: Node) -> bool {
        self.block().first.next.get() == node
    }

    #[cold]
    #[inline(never)]
    fn holds_outer(self, node: Node) -> bool {
        let block = self.block();
        block.outer[..=block.below.get()].iter().skip(1).any(|outer| outer.get() == node)
    }
}
