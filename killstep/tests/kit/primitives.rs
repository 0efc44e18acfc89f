//! What the protocols are made of: bare futexes, and libc's robust mutex.

use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use multiproc_killstep::SharedWords;

// A lock of three states (free, taken, taken and waited for) that knows nothing of owners.

pub(crate) fn lock(word: &AtomicU64) {
    if word.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
        while word.swap(2, Acquire) != 0 {
            futex_wait(word, 2, None);
        }
    }
}

pub(crate) fn unlock(word: &AtomicU64) {
    if word.swap(0, Release) == 2 {
        futex_wake(word);
    }
}

/// Sleeps while the low half of `word` is `expected`.
pub(crate) fn futex_wait(word: &AtomicU64, expected: u32, limit: Option<Duration>) {
    let limit = limit
        .map(|limit| libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: word and limit are valid for the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, limit) };
}

pub(crate) fn futex_wake(word: &AtomicU64) {
    // SAFETY: it only names an address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

// libc's robust mutex, at the beginning of shared words.

pub(crate) fn mutex(words: &SharedWords) -> *mut libc::pthread_mutex_t {
    words[0].as_ptr().cast()
}

pub(crate) fn robust_mutex(words: &SharedWords) {
    // SAFETY: the attributes are initialised before use, and the mutex has room.
    unsafe {
        let mut attributes = std::mem::zeroed();
        libc::pthread_mutexattr_init(&raw mut attributes);
        libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED);
        libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST);
        libc::pthread_mutex_init(mutex(words), &raw const attributes);
    }
}

pub(crate) fn hold(words: &SharedWords) {
    // SAFETY: `robust_mutex` has initialised it.
    let result = unsafe { libc::pthread_mutex_lock(mutex(words)) };
    if result == libc::EOWNERDEAD {
        // SAFETY: as above, and this thread holds it.
        unsafe { libc::pthread_mutex_consistent(mutex(words)) };
    }
}

pub(crate) fn release(words: &SharedWords) {
    // SAFETY: this thread holds it.
    unsafe { libc::pthread_mutex_unlock(mutex(words)) };
}
