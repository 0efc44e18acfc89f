//! The kernel, as far as the benches need it.

use std::fs;
use std::io;
use std::mem;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Returns one line on the machine: the processor's model, the number of CPUs, and the kernel.
pub(crate) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("machine: {model}; CPUs: {cpus}; kernel: Linux {}", kernel.trim())
}

/// Returns the nanoseconds of `CLOCK_MONOTONIC`, which are the same in all processes.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns the first two CPUs that this process may use; if there is only one, that CPU twice.
pub(crate) fn two_cpus() -> [usize; 2] {
    static CPUS: OnceLock<[usize; 2]> = OnceLock::new();
    *CPUS.get_or_init(|| {
        // SAFETY: a set of bits; the call fills at most its length.
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

/// Maps zeroed memory that children share. It is never unmapped: a run is a process of its own.
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

/// A type that processes may share in zeroed memory.
///
/// # Safety
///
/// - All zero bytes are a valid value, and several processes may use the value at the same time.
pub(crate) unsafe trait Sharable: Sync {}
// SAFETY: an atomic word.
unsafe impl Sharable for AtomicU64 {}
// SAFETY: as above.
unsafe impl Sharable for AtomicU32 {}
// SAFETY: holds for the field, which is all that it has.
unsafe impl<T: Sharable> Sharable for Apart<T> {}

/// Returns a zeroed object that children share.
pub(crate) fn shared<T: Sharable>() -> &'static T {
    // SAFETY: mapped for ever, zeroed, aligned to a page.
    unsafe { &*shared_bytes(size_of::<T>()).cast::<T>() }
}

/// A value on cache lines of its own (two, because the processor fetches them in pairs).
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

/// Waits for any child; returns its process id, and whether it exited with 0.
pub(crate) fn wait_any() -> io::Result<(i32, bool)> {
    let mut status = 0;
    // SAFETY: a valid place for the status.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok((pid, status == 0)) }
}

/// Kills a child that has not been waited for.
pub(crate) fn kill(pid: i32) {
    // SAFETY: a child that has not been waited for still has its process id.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

pub(crate) fn yield_now() {
    // SAFETY: always allowed.
    unsafe { libc::sched_yield() };
}

/// Sleeps while the word is `expected`.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    let no_limit = ptr::null::<libc::timespec>();
    // SAFETY: the word is mapped; spurious returns are allowed.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, no_limit) };
}

pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is mapped.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C only set a flag, and orphans of stopped runs children of this process.
pub(crate) fn handle_signals() {
    extern "C" fn interrupt(_: i32) {
        INTERRUPTED.store(true, SeqCst);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores one atomic.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = interrupt as extern "C" fn(i32) as libc::sighandler_t;
        // SAFETY: a valid action; without SA_RESTART, so that waiting ends.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Returns whether a signal has asked this program to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(SeqCst)
}

/// Calls `run` in a process of its own. After `limit` that process is killed with everything it has started.
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
    // SAFETY: as in the child; the first of the two calls takes effect.
    unsafe { libc::setpgid(pid, pid) };
    // SAFETY: this process's descriptor, not used after this.
    unsafe { libc::close(writer) };
    let answer = answer(reader, limit);
    // SAFETY: the group of a child that has not been waited for.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    // SAFETY: a child of this process; no status is asked for.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
    // SAFETY: this process's descriptor, not used after this.
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

/// A directory in memory, for rivals that need one. Dropping it removes it, and everything beside it whose
/// name begins with its name.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        let path = Path::new("/dev/shm").join(format!("multiproc-bench-{}-{}", std::process::id(), now()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        let (Some(folder), Some(name)) = (self.0.parent(), self.0.file_name()) else { return };
        let beginning = format!("{}-", name.to_string_lossy());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&beginning) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
