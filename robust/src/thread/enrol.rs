//! How a thread links its sentinels into its robust list, and takes them off at its end.
#![allow(unsafe_code, reason = "links private sentinels into libc's list")]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst, compiler_fence};

use super::{AT_EXIT, Block, FUTEX_OFFSET, NoList, Sentinel, THREAD, ThisThread, UNSET, pid_namespace};
use crate::sys::{self, RobustHead};

impl ThisThread {
    /// Sets this thread up: at its first operation, and after a fork.
    #[cold]
    #[inline(never)]
    pub(super) fn set_up() -> Result<(), NoList> {
        if !in_first_pid_namespace() {
            return Err(NoList);
        }
        let head = registered_head().map_err(|_| NoList)?;
        // SAFETY: the kernel just returned it as this thread's list.
        if unsafe { (*head).futex_offset } != FUTEX_OFFSET {
            return Err(NoList);
        }
        let mut block = THREAD.with(|(block, _)| block.get());
        if ptr::eq(block, &raw const UNSET.0) {
            block = take_block().map_err(|_| NoList)?;
        }
        let me = Self { block, head };
        let b = me.block();
        b.below.set(0);
        b.outer[0].set(b.bottom());
        // LAST, then FIRST, as libc inserts a mutex: fill it, fix the neighbour's back link, then one store
        // makes it visible.
        // SAFETY: the head is this thread's own, and its entries are libc's or the head itself.
        unsafe { insert_at_head(head, &b.last) };
        // SAFETY: as above.
        unsafe { insert_at_head(head, &b.first) };
        THREAD.with(|(known, _)| known.set(block));
        b.owner.set(u64::from(std::process::id()) << 32 | u64::from(sys::gettid()));
        // The thread's end returns the block. In a thread that is ending already, the block is not returned.
        let _ = AT_EXIT.try_with(|_| ());
        Ok(())
    }
}

/// Returns libc's list head of this thread, registered again if a raw `clone` lost it.
fn registered_head() -> io::Result<*mut RobustHead> {
    let head = sys::robust_list()?;
    if !head.is_null() {
        THREAD.with(|(_, known)| known.set(head));
        return Ok(head);
    }
    let head = THREAD.with(|(_, known)| known.get());
    if head.is_null() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: this thread's libc head, at the same address as in the parent; the entries on it were the
    // parent's.
    let list = unsafe { &*head };
    list.list.set(list.list.as_ptr().cast());
    list.pending.set(ptr::null_mut());
    // SAFETY: a valid empty list in this thread's own control block.
    unsafe { sys::set_robust_list(head) }?;
    Ok(head)
}

/// Inserts a sentinel at the head of the list, as libc inserts its mutexes.
///
/// # Safety
///
/// `head` is this thread's robust list. The sentinel stays mapped as long as it is on the list.
unsafe fn insert_at_head(head: *mut RobustHead, sentinel: &Sentinel) {
    // SAFETY: the caller's promise.
    let list = unsafe { &(*head).list };
    let next = list.get();
    sentinel.next.set(next);
    sentinel.previous.set(list.as_ptr().cast());
    // libc marks priority-inheritance mutexes in bit 0; the back link lies just before the link.
    let neighbour = next.map_addr(|address| address & !1);
    // SAFETY: an entry of libc's list (or its head, which has room before it in glibc's thread descriptor)
    // has its back link there.
    unsafe { neighbour.wrapping_sub(1).write_volatile(sentinel.next.as_ptr() as usize) };
    compiler_fence(SeqCst);
    list.set(sentinel.next.as_ptr().cast());
    compiler_fence(SeqCst);
}

/// Blocks of threads that have ended.
static FREE: parking_lot::Mutex<Vec<usize>> = parking_lot::Mutex::new(Vec::new());

fn take_block() -> io::Result<*const Block> {
    // A fork may have left the mutex locked forever in the child: then a new block.
    let reused = FREE.try_lock().and_then(|mut free| free.pop());
    match reused {
        Some(address) => Ok(ptr::with_exposed_provenance(address)),
        None => sys::wiped_on_fork(size_of::<Block>()).map(|memory| memory.cast_const().cast()),
    }
}

/// Takes the sentinels off the list at the end of a thread. Leaves them there if the thread still holds
/// locks, which the kernel must find.
pub(super) struct Retire;

impl Drop for Retire {
    fn drop(&mut self) {
        let me = THREAD.with(|(block, head)| ThisThread { block: block.get(), head: head.get() });
        let block = me.block();
        if block.owner.get() == 0 || block.first.next.get() != block.bottom() {
            return;
        }
        for sentinel in [&block.first, &block.last] {
            let (previous, next) = (sentinel.previous.get(), sentinel.next.get());
            let after = next.map_addr(|address| address & !1);
            // SAFETY: with nothing between the sentinels, both neighbours are libc's entries, the head, or
            // the other sentinel.
            unsafe { after.wrapping_sub(1).write_volatile(previous as usize) };
            compiler_fence(SeqCst);
            // SAFETY: as above.
            unsafe { previous.write_volatile(next as usize) };
        }
        block.owner.set(0);
        THREAD.with(|(known, _)| known.set(&raw const UNSET.0));
        if let Some(mut free) = FREE.try_lock() {
            free.push(me.block.expose_provenance());
        }
    }
}

/// Returns whether this process is in the pid namespace where it, or the process it was forked from, took its
/// first lock. In another namespace the thread ids in the words of inherited mappings mean nothing.
fn in_first_pid_namespace() -> bool {
    static FIRST: AtomicU64 = AtomicU64::new(0);
    let here = pid_namespace();
    here != 0 && FIRST.compare_exchange(0, here, SeqCst, SeqCst).map_or_else(|first| first == here, |_| true)
}
