//! Futexes: sleeping on words, waking, counting the threads that sleep.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU32;

/// When a wait ends, on `CLOCK_MONOTONIC`: seconds and nanoseconds. `None`: never.
pub(crate) type Limit = Option<(i64, i64)>;

/// How a futex wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the others are ways to return without having been woken")]
pub(crate) enum Woken {
    /// Woken, perhaps for nothing. The kernel also says by which word, but it names only the last one that
    /// was woken, so the answer is not used.
    Woken,
    /// A word had changed before the kernel compared it.
    Changed,
    /// The deadline came.
    TimedOut,
    /// The kernel has no such call (`futex_waitv` before Linux 5.16, or a seccomp filter).
    Unsupported,
}

/// Sleeps on a word of a shared object: `futex(FUTEX_WAIT_BITSET, CLOCK_MONOTONIC)`, never `PRIVATE`. A
/// signal counts as a spurious wake-up.
pub(crate) fn futex_wait(word: *const AtomicU32, expected: u32, limit: Limit) -> Woken {
    let limit = limit.map(to_timespec);
    let limit_ptr = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `word` is a mapped, aligned u32 (the kernel returns EFAULT otherwise); the timespec outlives
    // the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            libc::FUTEX_WAIT_BITSET,
            expected,
            limit_ptr,
            ptr::null::<u32>(),
            u32::MAX,
        )
    };
    ended(result)
}

/// The kernel's `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WaitWord {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl WaitWord {
    #[inline]
    pub(crate) fn new((word, value): (*const AtomicU32, u32)) -> Self {
        const SIZE_U32: u32 = 2;
        Self { value: u64::from(value), address: word as u64, flags: SIZE_U32, reserved: 0 }
    }
}

/// Sleeps on words of shared objects: `futex_waitv(2)`, never `PRIVATE`. The kernel compares and queues them
/// in this order.
pub(crate) fn futex_waitv(vector: &[WaitWord], limit: Limit) -> Woken {
    if cfg!(multiproc_force_fallback) {
        return Woken::Unsupported;
    }
    let limit = limit.map(to_timespec);
    let limit_ptr = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the vector and the timespec outlive the call; the kernel checks the addresses.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            vector.as_ptr(),
            vector.len(),
            0,
            limit_ptr,
            libc::CLOCK_MONOTONIC,
        )
    };
    ended(result)
}

/// The kernel's `FUTEX_WAITV_MAX`.
pub(crate) const MAX_WORDS: usize = 128;

fn ended(result: i64) -> Woken {
    if result >= 0 {
        return Woken::Woken;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Woken::Changed,
        Some(libc::ETIMEDOUT) => Woken::TimedOut,
        Some(libc::ENOSYS | libc::EPERM) => Woken::Unsupported,
        _ => Woken::Woken,
    }
}

/// Wakes up to `count` threads that sleep on a word of a shared object: `futex(FUTEX_WAKE)`. Returns how many
/// it woke.
pub(crate) fn futex_wake(word: *const AtomicU32, count: i32) -> u32 {
    // SAFETY: waking touches no memory of this process; a bad address is EFAULT.
    let result = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, count) };
    u32::try_from(result).unwrap_or(0)
}

/// Returns how many threads sleep on a word of a shared object: `futex(FUTEX_REQUEUE)` from the word to
/// itself. The call wakes no thread and returns how many it moved.
pub(crate) fn waiters_on(word: *const AtomicU32) -> usize {
    let (to_wake, to_move) = (0_i32, i32::MAX as usize);
    // SAFETY: touches no memory of this process; a bad address is EFAULT.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_REQUEUE, to_wake, to_move, word, 0) };
    usize::try_from(result).unwrap_or(0)
}

fn to_timespec((seconds, nanoseconds): (i64, i64)) -> libc::timespec {
    libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds }
}
