//! Threads, clocks, CPUs and robust lists of Linux with glibc.
#![allow(unsafe_code, reason = "system calls")]

use std::cell::Cell;
use std::io;
use std::ptr;

/// The kernel's `struct robust_list_head`.
#[repr(C)]
pub(crate) struct RobustHead {
    pub(crate) list: Cell<*mut usize>,
    pub(crate) futex_offset: isize,
    pub(crate) pending: Cell<*mut usize>,
}

pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// CPUs of the machine that are running, whether this thread may use them or not.
pub(crate) fn cpus_online() -> i64 {
    // SAFETY: no memory is touched.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }
}

/// Whether this thread's affinity leaves it one CPU.
pub(crate) fn is_bound_to_one_cpu() -> bool {
    // SAFETY: all zeros is a set without CPUs.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of its own size.
    let known = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } == 0;
    // SAFETY: a valid set.
    known && unsafe { libc::CPU_COUNT(&set) } == 1
}

/// The CPU this thread runs on now (glibc reads it from the rseq area: 2.5 ns).
#[inline]
pub(crate) fn cpu() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::sched_getcpu() }.unsigned_abs()
}

pub(crate) fn gettid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }.unsigned_abs()
}

/// `get_robust_list(2)` of this thread: null when none is registered (a child of a raw `clone`).
pub(crate) fn robust_list() -> io::Result<*mut RobustHead> {
    let mut head: *mut RobustHead = ptr::null_mut();
    let mut length = 0_usize;
    // SAFETY: both are valid places for the kernel's answers.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) };
    if result == 0 { Ok(head) } else { Err(io::Error::last_os_error()) }
}

/// `set_robust_list(2)`.
///
/// # Safety
///
/// `head` is a valid, circular list that lives as long as this thread.
pub(crate) unsafe fn set_robust_list(head: *mut RobustHead) -> io::Result<()> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<RobustHead>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts a thread that runs `first`, with all signals blocked, and then sleeps as long as the process lives. Not by std, which takes locks for it that a forked child may find locked for ever.
pub(crate) fn start_sleeper(first: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    extern "C" fn run(first: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the box that was made for this thread.
        let first = unsafe { Box::from_raw(first.cast::<Box<dyn FnOnce() + Send>>()) };
        first();
        loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        }
    }
    let argument = Box::into_raw(Box::new(first));
    // SAFETY: all zeros is a set.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a valid set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: two valid sets; the new thread inherits the mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    let mut thread: libc::pthread_t = 0;
    // SAFETY: a place for its name, and an argument that is its own.
    let result = unsafe { libc::pthread_create(&raw mut thread, ptr::null(), run, argument.cast()) };
    // SAFETY: the set that libc has filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    if result != 0 {
        // SAFETY: no thread has got it.
        drop(unsafe { Box::from_raw(argument) });
        return Err(io::Error::from_raw_os_error(result));
    }
    // SAFETY: a thread that never ends, and that nobody joins.
    unsafe { libc::pthread_setname_np(thread, c"multiproc-keep".as_ptr()) };
    Ok(())
}

/// Whether any thread in this pid namespace has this id. Errs on the side of "yes".
pub(crate) fn thread_exists(tid: u32) -> bool {
    let Ok(tid) = i32::try_from(tid) else { return false };
    // SAFETY: signal 0 is sent to nobody.
    let result = unsafe { libc::syscall(libc::SYS_tkill, tid, 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

pub(crate) fn is_thread_of_this_process(tid: u32) -> bool {
    let Ok(tid) = i32::try_from(tid) else { return false };
    // SAFETY: no arguments.
    let pid = unsafe { libc::getpid() };
    // SAFETY: signal 0 is sent to nobody.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
    // A thread of ours that has taken on another user is ours all the same.
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Fresh zeroed private memory that a forked child sees zeroed again.
pub(crate) fn wiped_on_fork(length: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let memory = unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is the mapping just made.
    if unsafe { libc::madvise(memory, length, libc::MADV_WIPEONFORK) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: as above; nobody knows the mapping yet.
        unsafe { libc::munmap(memory, length) };
        return Err(error);
    }
    Ok(memory.cast())
}
