//! Linux with glibc.
#![allow(unsafe_code, reason = "system calls")]

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicU32;

use crate::deadline::Deadline;
use crate::error::ErrorKind;

/// How a futex wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Woken, perhaps for nothing. With several words: the index of the last one that was rung.
    By(usize),
    /// A word had changed already.
    Changed,
    TimedOut,
    /// The kernel has no such call (`futex_waitv` before 5.16, or a seccomp filter).
    Unsupported,
}

/// The kernel's `struct robust_list_head`.
#[repr(C)]
pub(crate) struct RobustHead {
    pub(crate) list: Cell<*mut usize>,
    pub(crate) futex_offset: isize,
    pub(crate) pending: Cell<*mut usize>,
}

/// `futex(FUTEX_WAIT_BITSET, CLOCK_MONOTONIC)` on a word of a shared object: never `PRIVATE`. A signal counts as a spurious wake-up.
pub(crate) fn futex_wait(word: *const AtomicU32, expected: u32, deadline: Deadline) -> Woken {
    let limit = deadline.timespec().map(to_timespec);
    let limit_ptr = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `word` is a mapped, aligned u32 (the kernel returns EFAULT otherwise); the timespec outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT_BITSET, expected, limit_ptr, ptr::null::<u32>(), u32::MAX)
    };
    ended(result)
}

/// `futex_waitv(2)` over up to three words of shared objects: never `PRIVATE`.
pub(crate) fn futex_waitv(words: [(*const AtomicU32, u32); 3], count: usize, deadline: Deadline) -> Woken {
    waitv(&words.map(Waitv::new)[..count], deadline)
}

/// As [`futex_waitv`], over up to [`MOST_WORDS`] words.
pub(crate) fn futex_waitv_many(words: &[(*const AtomicU32, u32)], deadline: Deadline) -> Woken {
    let mut vector = [Waitv::new((ptr::null(), 0)); MOST_WORDS];
    let count = words.len().min(vector.len());
    for (to, word) in vector.iter_mut().zip(words) {
        *to = Waitv::new(*word);
    }
    waitv(&vector[..count], deadline)
}

/// The kernel's `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waitv {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl Waitv {
    fn new((word, value): (*const AtomicU32, u32)) -> Self {
        const SIZE_U32: u32 = 2;
        Self { value: u64::from(value), address: word as u64, flags: SIZE_U32, reserved: 0 }
    }
}

fn waitv(vector: &[Waitv], deadline: Deadline) -> Woken {
    if cfg!(multiproc_force_fallback) {
        return Woken::Unsupported;
    }
    let limit = deadline.timespec().map(to_timespec);
    let limit_ptr = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the vector and the timespec outlive the call; the kernel checks the addresses.
    let result =
        unsafe { libc::syscall(libc::SYS_futex_waitv, vector.as_ptr(), vector.len(), 0, limit_ptr, libc::CLOCK_MONOTONIC) };
    ended(result)
}

/// The kernel's `FUTEX_WAITV_MAX`.
pub(crate) const MOST_WORDS: usize = 128;

fn ended(result: i64) -> Woken {
    if result >= 0 {
        return Woken::By(usize::try_from(result).unwrap_or(0));
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Woken::Changed,
        Some(libc::ETIMEDOUT) => Woken::TimedOut,
        Some(libc::ENOSYS | libc::EPERM) => Woken::Unsupported,
        _ => Woken::By(0),
    }
}

/// `futex(FUTEX_WAKE)` on a word of a shared object; how many were woken.
pub(crate) fn futex_wake(word: *const AtomicU32, count: i32) -> u32 {
    // SAFETY: waking touches no memory of ours; a bad address is EFAULT.
    let result = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, count) };
    u32::try_from(result).unwrap_or(0)
}

/// How many sleep on a word of a shared object: `futex(FUTEX_REQUEUE)` from the word to itself, which wakes nobody and tells how many it has looked at.
pub(crate) fn sleepers_on(word: *const AtomicU32) -> usize {
    let (nobody, all) = (0_i32, i32::MAX as usize);
    // SAFETY: touches no memory of ours; a bad address is EFAULT.
    let result = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_REQUEUE, nobody, all, word, 0) };
    usize::try_from(result).unwrap_or(0)
}

fn to_timespec((seconds, nanoseconds): (i64, i64)) -> libc::timespec {
    libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds }
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

/// Seconds since the machine started, sleep included: the same clock for all processes of the machine.
pub(crate) fn boot_seconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.unsigned_abs()
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

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    // SAFETY: the buffer has N bytes; up to 256 are never cut short.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(got) == Ok(N) { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn effective_user() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() }
}

/// What an errno means that `io::ErrorKind` has no stable name for.
pub(crate) fn kind_of(error: &io::Error) -> Option<ErrorKind> {
    match error.raw_os_error()? {
        libc::EMFILE | libc::ENFILE => Some(ErrorKind::Exhausted),
        // A symbolic link, or something else, where we go through no such thing.
        libc::ELOOP | libc::ENOTDIR => Some(ErrorKind::Denied),
        // A directory or a socket where a file of ours should be.
        libc::EISDIR | libc::ENXIO => Some(ErrorKind::Corrupt),
        _ => None,
    }
}

/// `mkdir(path, 0700)`; an existing one is no error.
pub(crate) fn make_directory(path: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    if unsafe { libc::mkdir(path.as_ptr(), 0o700) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

pub(crate) fn open_directory(path: &CStr) -> io::Result<File> {
    // SAFETY: a C string.
    owned(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC) })
}

/// The same directory through a new open file, so that a `flock` on it is this call's own.
pub(crate) fn open_directory_again(directory: &File) -> io::Result<File> {
    // SAFETY: an open descriptor and a C string.
    owned(unsafe { libc::openat(directory.as_raw_fd(), c".".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) })
}

/// The same file through a new open file.
pub(crate) fn open_again(file: &File) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens an ordinary file that the user chose for reading and writing; a FIFO does not block.
pub(crate) fn open_path(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Opens an existing file for reading and writing: no symbolic link is followed, a FIFO does not block.
pub(crate) fn open_at(directory: &File, name: &CStr) -> io::Result<File> {
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: an open descriptor and a C string.
    owned(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) })
}

/// A new file without a name in this directory (`O_TMPFILE`), or `Unsupported`.
pub(crate) fn open_unnamed(directory: &File) -> io::Result<File> {
    if cfg!(multiproc_force_fallback) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: an open descriptor and a C string.
    let file = owned(unsafe { libc::openat(directory.as_raw_fd(), c".".as_ptr(), flags, 0o600) });
    file.map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT) => io::ErrorKind::Unsupported.into(),
        _ => error,
    })
}

/// A new file under a name that nobody else has.
pub(crate) fn create_at(directory: &File, name: &CStr) -> io::Result<File> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: an open descriptor and a C string.
    owned(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, 0o600) })
}

/// `linkat` of an unnamed file: through /proc, else with `AT_EMPTY_PATH`.
pub(crate) fn give_name(file: &File, directory: &File, name: &CStr) -> io::Result<()> {
    let descriptor = file.as_raw_fd();
    let through_proc = CString::new(format!("/proc/self/fd/{descriptor}"))?;
    let target = directory.as_raw_fd();
    // SAFETY: open descriptors and C strings.
    let linked = unsafe { libc::linkat(libc::AT_FDCWD, through_proc.as_ptr(), target, name.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    if linked == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOENT) {
        return Err(error);
    }
    // SAFETY: as above.
    let linked = unsafe { libc::linkat(descriptor, c"".as_ptr(), target, name.as_ptr(), libc::AT_EMPTY_PATH) };
    if linked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `renameat2(RENAME_NOREPLACE)`.
pub(crate) fn rename_new(directory: &File, from: &CStr, to: &CStr) -> io::Result<()> {
    let fd = directory.as_raw_fd();
    // SAFETY: open descriptors and C strings.
    let renamed = unsafe { libc::syscall(libc::SYS_renameat2, fd, from.as_ptr(), fd, to.as_ptr(), libc::RENAME_NOREPLACE) };
    if renamed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn remove_at(directory: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: an open descriptor and a C string.
    if unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `flock`, never waiting: whether the lock was got.
pub(crate) fn lock_file(file: &File, exclusive: bool) -> io::Result<bool> {
    let operation = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    loop {
        // SAFETY: an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(false),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// `F_OFD_SETLK` on the first byte, never waiting: whether the lock was got, or given back. It belongs to the open file, and ends with it.
pub(crate) fn lock_first_byte(file: &File, take: bool) -> io::Result<bool> {
    // SAFETY: all zeros is a valid `flock`: from the beginning of the file, no owner.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    let kind = if take { libc::F_WRLCK } else { libc::F_UNLCK };
    range.l_type = i16::try_from(kind).unwrap_or_default();
    range.l_len = 1;
    loop {
        // SAFETY: an open descriptor and a valid range.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// `fallocate` of a file that had its length already. One that cannot have holes cannot be filled either: that is no error.
pub(crate) fn fill_holes(file: &File, length: u64) -> io::Result<()> {
    reserve(file, length).or_else(|error| if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) })
}

/// `fallocate`: the bytes are really there, so that touching them cannot be SIGBUS.
pub(crate) fn reserve(file: &File, length: u64) -> io::Result<()> {
    in_pieces(length, |start, bytes| {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let (start, bytes) = (i64::try_from(start).map_err(too_large)?, i64::try_from(bytes).map_err(too_large)?);
        // SAFETY: an open descriptor.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, start, bytes) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

/// Does something from 0 to `length`, as far as possible in one piece. On some kernels a signal interrupts `fallocate` and undoes what it had done: where
/// signals come more often than a piece takes (a profiler's, a timer's), it has to be smaller. After a thousand interruptions of one small piece it is an error rather than
/// a hang.
fn in_pieces(length: u64, mut act: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
    const SMALL: u64 = 1 << 16;
    let (mut done, mut piece, mut interrupted) = (0, length, 0);
    while done < length {
        let bytes = piece.min(length - done);
        match act(done, bytes) {
            Ok(()) => (done, interrupted) = (done + bytes, 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted && (bytes > SMALL || interrupted < 1000) => {
                interrupted += 1;
                piece = (piece / 2).max(SMALL);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What `MADV_POPULATE_WRITE` means by its errors: `EFAULT` where a touch would have been SIGBUS, for want of room; `EINVAL` before Linux 5.14.
pub(crate) fn populate_error(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EFAULT) => io::ErrorKind::StorageFull.into(),
        Some(libc::EINVAL) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}

/// `MADV_POPULATE_WRITE` on memory of the user's: what would be SIGBUS at a touch is an error here. Where the kernel does not know it, nothing is done.
pub(crate) fn touch(start: *mut u8, length: usize) -> io::Result<()> {
    let page = start.map_addr(|address| address / page_size() * page_size());
    let length = start.addr() - page.addr() + length;
    // SAFETY: contents stay as they are; the kernel checks the addresses.
    if unsafe { libc::madvise(page.cast(), length, libc::MADV_POPULATE_WRITE) } == 0 {
        return Ok(());
    }
    let error = populate_error(io::Error::last_os_error());
    if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) }
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: a question without arguments that matter.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn owned(descriptor: i32) -> io::Result<File> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just opened and that nobody else knows.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_that_are_interrupted_become_small_ones() {
        for length in [1, 4096, 1 << 20, (1 << 30) + 1] {
            let (mut end, mut calls) = (0, 0_u64);
            let done = in_pieces(length, |start, bytes| {
                assert_eq!(start, end, "a gap");
                calls += 1;
                if bytes > 300_000 || calls.is_multiple_of(3) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                end += bytes;
                Ok(())
            });
            assert!(done.is_ok() && end == length, "{length}: {done:?} at {end}");
        }
    }

    #[test]
    fn pieces_that_are_always_interrupted_are_an_error() {
        let mut calls = 0;
        let done = in_pieces(1 << 40, |_, _| {
            calls += 1;
            Err(io::ErrorKind::Interrupted.into())
        });
        assert_eq!(done.map_err(|error| error.kind()), Err(io::ErrorKind::Interrupted));
        assert!((1000..2000).contains(&calls), "{calls}");
    }
}
