//! The kernel, as far as benches need it.

use std::io;
use std::mem;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Nanoseconds of `CLOCK_MONOTONIC`, the same in all processes.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The first two CPUs we may use (twice the same one if there is only one).
pub(crate) fn two_cpus() -> [usize; 2] {
    static CPUS: OnceLock<[usize; 2]> = OnceLock::new();
    *CPUS.get_or_init(|| {
        // SAFETY: a set of bits; the call fills it as far as it is long.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: as above.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        // SAFETY: the index is below the size of the set.
        let mut allowed =
            (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) });
        let first = allowed.next().unwrap_or(0);
        [first, allowed.next().unwrap_or(first)]
    })
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) {
    // SAFETY: a set of bits, all zero.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the CPU came from such a set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a filled set, and its size.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

/// Zeroed memory that children share, never given back: a run is a process of its own.
pub(crate) fn shared_bytes(length: usize) -> *mut u8 {
    // SAFETY: an anonymous mapping at an address of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length.max(1),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    assert!(start != libc::MAP_FAILED, "no shared memory: {}", io::Error::last_os_error());
    start.cast()
}

/// All zeros are a value of it, and whoever shares it may use it at the same time.
///
/// # Safety
///
/// - That is true.
pub(crate) unsafe trait Sharable: Sync {}
// SAFETY: it is.
unsafe impl Sharable for AtomicU64 {}
// SAFETY: as above.
unsafe impl Sharable for AtomicU32 {}
// SAFETY: as what is in it.
unsafe impl<T: Sharable> Sharable for Apart<T> {}

/// A zeroed object that children share.
pub(crate) fn shared<T: Sharable>() -> &'static T {
    // SAFETY: mapped for ever, zeroed, aligned to a page.
    unsafe { &*shared_bytes(size_of::<T>()).cast::<T>() }
}

/// On cache lines of its own (two, since they are fetched in pairs).
#[repr(C, align(128))]
#[derive(Default)]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Runs `child` in a forked process. Allowed while this process has one thread.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: one thread, by the caller's promise.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        die_with_parent();
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
        // SAFETY: always allowed; leaves the parent's exit handlers alone.
        unsafe { libc::_exit(code) }
    }
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// Waits for any child: its id, and whether it exited with 0.
pub(crate) fn wait_any() -> io::Result<(i32, bool)> {
    let mut status = 0;
    // SAFETY: a valid place for the status.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok((pid, status == 0)) }
}

/// Ends a child that we have not waited for.
pub(crate) fn kill(pid: i32) {
    // SAFETY: it is our child, so the number is still its.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

pub(crate) fn yield_now() {
    // SAFETY: always allowed.
    unsafe { libc::sched_yield() };
}

/// Sleeps while the word says `expected`.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the word is mapped; spurious returns are allowed.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            ptr::null::<libc::timespec>(),
        )
    };
}

pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is mapped.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on a Ctrl-C only says so, and orphans of runs that were stopped become our children.
pub(crate) fn take_charge() {
    extern "C" fn note(_: i32) {
        INTERRUPTED.store(true, SeqCst);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores one atomic.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = note as extern "C" fn(i32) as libc::sighandler_t;
        // SAFETY: a valid action; without SA_RESTART, so that waiting ends.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Whether we should end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(SeqCst)
}

/// Runs in a process of its own, which is ended with everything it started when it takes too long.
pub(crate) fn isolated(limit: Duration, run: &dyn Fn() -> Result<f64, String>) -> Result<f64, String> {
    if interrupted() {
        return Err("interrupted".to_owned());
    }
    let mut ends = [0; 2];
    // SAFETY: a place for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error().to_string());
    }
    let [reader, writer] = ends;
    let pid = fork(|| {
        // SAFETY: a new process group, of this process.
        unsafe { libc::setpgid(0, 0) };
        let message = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(Ok(value)) => format!("={value}"),
            Ok(Err(problem)) => problem,
            Err(_) => "panicked".to_owned(),
        };
        let message = &message.as_bytes()[..message.len().min(2000)];
        // SAFETY: a valid buffer; short enough for one write.
        unsafe { libc::write(writer, message.as_ptr().cast(), message.len()) };
        0
    })
    .map_err(|problem| problem.to_string())?;
    // SAFETY: as in the child; whoever comes first does it.
    unsafe { libc::setpgid(pid, pid) };
    // SAFETY: ours, and not used any more.
    unsafe { libc::close(writer) };
    let answer = answer(reader, limit);
    // SAFETY: the group of our child, which we have not waited for.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    // SAFETY: our child.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    // SAFETY: no pointers that matter.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
    // SAFETY: ours, and not used any more.
    unsafe { libc::close(reader) };
    let answer = answer?;
    match answer.strip_prefix('=') {
        Some(value) => value.parse().map_err(|_| format!("not a number: {value}")),
        None if answer.is_empty() => Err("died".to_owned()),
        None => Err(answer),
    }
}

fn answer(reader: i32, limit: Duration) -> Result<String, String> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        match unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32 + 1) } {
            0 => return Err(format!("not done after {} s", limit.as_secs())),
            1 => break,
            _ if interrupted() => return Err("interrupted".to_owned()),
            _ => {}
        }
    }
    let mut buffer = [0; 2000];
    // SAFETY: a valid buffer of that length.
    let length = unsafe { libc::read(reader, buffer.as_mut_ptr().cast(), buffer.len()) };
    Ok(String::from_utf8_lossy(&buffer[..usize::try_from(length).unwrap_or(0)]).into_owned())
}

fn die_with_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// A directory in memory for rivals that need one. At the end it goes, with everything beside it whose name begins with its name.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        let path = Path::new("/dev/shm").join(format!("multiproc-bench-{}-{}", std::process::id(), now()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let (Some(folder), Some(name)) = (self.0.parent(), self.0.file_name()) else { return };
        let beginning = format!("{}-", name.to_string_lossy());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&beginning) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
