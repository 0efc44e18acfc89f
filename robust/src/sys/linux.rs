//! Threads, clocks, CPUs and robust lists on Linux with glibc.
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

/// Returns how many CPUs of the machine are online, whether this thread may use them or not.
pub(crate) fn cpus_online() -> i64 {
    // SAFETY: no memory is touched.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }
}

/// Returns whether this thread's affinity leaves it one CPU.
pub(crate) fn is_bound_to_one_cpu() -> bool {
    // SAFETY: all zeros is a set without CPUs.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of its own size.
    let known = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } == 0;
    // SAFETY: a valid set.
    known && unsafe { libc::CPU_COUNT(&set) } == 1
}

/// Returns the CPU that this thread runs on (glibc reads it from the rseq area: 2.5 ns).
#[inline]
pub(crate) fn cpu() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::sched_getcpu() }.unsigned_abs()
}

pub(crate) fn gettid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }.unsigned_abs()
}

/// Returns this thread's robust list (`get_robust_list(2)`): null if none is registered (in a child of a raw
/// `clone`).
pub(crate) fn robust_list() -> io::Result<*mut RobustHead> {
    let mut head: *mut RobustHead = ptr::null_mut();
    let mut length = 0_usize;
    // SAFETY: both are valid places for the kernel's answers.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) };
    if result == 0 { Ok(head) } else { Err(io::Error::last_os_error()) }
}

/// Registers this thread's robust list (`set_robust_list(2)`).
///
/// # Safety
///
/// `head` is a valid, circular list that lives as long as this thread.
pub(crate) unsafe fn set_robust_list(head: *mut RobustHead) -> io::Result<()> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<RobustHead>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts a thread that runs `first`, with all signals blocked, and then sleeps as long as the process lives.
/// Does not use std: std takes locks to start a thread, and a forked child may find them locked forever.
pub(crate) fn start_parked_thread(first: Box<dyn FnOnce() + Send>) -> io::Result<()> {
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
    // SAFETY: the set that libc filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    if result != 0 {
        // SAFETY: no thread received it.
        drop(unsafe { Box::from_raw(argument) });
        return Err(io::Error::from_raw_os_error(result));
    }
    // SAFETY: a thread that never ends and is never joined.
    unsafe { libc::pthread_setname_np(thread, c"multiproc-keep".as_ptr()) };
    Ok(())
}

/// Returns whether a thread in this pid namespace has this id. Returns true if in doubt.
pub(crate) fn thread_exists(tid: u32) -> bool {
    let Ok(tid) = i32::try_from(tid) else { return false };
    // SAFETY: signal 0 is not delivered.
    let result = unsafe { libc::syscall(libc::SYS_tkill, tid, 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Returns whether a thread of this process has this id.
pub(crate) fn is_thread_of_this_process(tid: u32) -> bool {
    let Ok(tid) = i32::try_from(tid) else { return false };
    // SAFETY: no arguments.
    let pid = unsafe { libc::getpid() };
    // SAFETY: signal 0 is not delivered.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
    // EPERM: a thread of this process that has changed its user id.
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Returns fresh zeroed private memory, which a forked child sees zeroed again.
pub(crate) fn wiped_on_fork(length: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new anonymous mapping touches no existing memory.
    let memory = unsafe {
        libc::mmap(ptr::null_mut(), length, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is the mapping just made.
    if unsafe { libc::madvise(memory, length, libc::MADV_WIPEONFORK) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: as above; nothing refers to the mapping yet.
        unsafe { libc::munmap(memory, length) };
        return Err(error);
    }
    Ok(memory.cast())
}
