//! Linux: fork, ptrace and `/proc`.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_long};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use std::{fs, io, ptr, slice, thread};

/// How a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Stopped by this signal; `true` when it is a stop at a system call's door.
    Stopped(c_int, bool),
    /// Ended with this code.
    Exited(c_int),
    /// Ended by this signal.
    Killed(c_int),
}

pub(crate) const SIGSTOP: c_int = libc::SIGSTOP;
pub(crate) const SIGTRAP: c_int = libc::SIGTRAP;

/// A forked process. It never outlives this value.
#[derive(Debug)]
pub(crate) struct Child {
    pid: libc::pid_t,
    ended: Option<Status>,
}

impl Child {
    /// Forks; the child runs `body` and ends with its result as exit code, without running destructors.
    ///
    /// # Errors
    /// What `fork` says; `Unsupported` when this process has more than one thread, because a lock that
    /// another thread holds at this moment would stay held in the child for ever.
    pub(crate) fn fork(body: impl FnOnce() -> c_int) -> io::Result<Self> {
        let threads = threads_left()?;
        if threads != 1 {
            let text =
                format!("the driver has {threads} threads; fork is safe from a single-threaded program only");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        // SAFETY: this process has one thread, so the child finds no lock held by a thread that it lacks.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: it sets a flag of this process; if the driver dies, so do we.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let code = body();
                // SAFETY: always sound; no destructor runs, which is the point: they are the driver's to run.
                unsafe { libc::_exit(code) }
            }
            pid => Ok(Self { pid, ended: None }),
        }
    }

    pub(crate) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        if self.ended.is_none() {
            // SAFETY: it is our child and was not waited for, so the number is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            while self.ended.is_none() && self.next_status(0).is_ok() {}
        }
    }

    /// Waits for the end; `None` when the child still lives at `deadline`.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Option<Status> {
        let mut nap = Duration::from_micros(20);
        loop {
            if self.ended.is_some() {
                return self.ended;
            }
            match self.next_status(libc::WNOHANG) {
                Ok(None) if Instant::now() >= deadline => return None,
                Ok(None) => thread::sleep(nap),
                Ok(Some(_)) => {}
                Err(_) => return None,
            }
            nap = (nap * 2).min(Duration::from_millis(1));
        }
    }

    /// Waits for the next stop or the end, without limit.
    pub(crate) fn wait_stop(&mut self) -> io::Result<Status> {
        loop {
            if let Some(status) = self.next_status(0)? {
                return Ok(status);
            }
        }
    }

    /// Waits for the next stop or the end; `None` when there is none before `deadline`.
    pub(crate) fn wait_stop_until(&mut self, deadline: Instant) -> io::Result<Option<Status>> {
        // SIGCHLD, which every stop sends, ends the sleep. It is blocked meanwhile, so that a signal that
        // comes early is not lost.
        let blocked = BlockedSigchld::new();
        loop {
            if let Some(status) = self.next_status(libc::WNOHANG)? {
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            blocked.wait(left);
        }
    }

    /// The next stop or the end, if there is one already.
    pub(crate) fn poll_stop(&mut self) -> io::Result<Option<Status>> {
        self.next_status(libc::WNOHANG)
    }

    fn next_status(&mut self, flags: c_int) -> io::Result<Option<Status>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let mut raw = 0;
        // SAFETY: `raw` is valid for the write.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut raw, flags) };
        let status = match pid {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
                error => return Err(error),
            },
            0 => return Ok(None),
            _ if libc::WIFSTOPPED(raw) => {
                Status::Stopped(libc::WSTOPSIG(raw) & !0x80, libc::WSTOPSIG(raw) & 0x80 != 0)
            }
            _ if libc::WIFSIGNALED(raw) => Status::Killed(libc::WTERMSIG(raw)),
            _ => Status::Exited(libc::WEXITSTATUS(raw)),
        };
        if !matches!(status, Status::Stopped(..)) {
            self.ended = Some(status);
        }
        Ok(Some(status))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// SIGCHLD, blocked in this thread as long as the value lives.
struct BlockedSigchld {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

impl BlockedSigchld {
    fn new() -> Self {
        // SAFETY: an all-zero signal set is a valid value.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        let mut before = set;
        // SAFETY: `set` is valid for the write.
        unsafe { libc::sigemptyset(&raw mut set) };
        // SAFETY: `set` is initialised.
        unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
        // SAFETY: both sets are valid.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) };
        Self { set, before }
    }

    /// Sleeps until the signal comes, or `limit` is over.
    fn wait(&self, limit: Duration) {
        let seconds = libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX);
        let limit = libc::timespec { tv_sec: seconds, tv_nsec: limit.subsec_nanos().into() };
        // SAFETY: the set and the limit are valid for the call.
        unsafe { libc::sigtimedwait(&raw const self.set, ptr::null_mut(), &raw const limit) };
    }
}

impl Drop for BlockedSigchld {
    fn drop(&mut self) {
        // SAFETY: the kernel gave this set to `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// `count` zeroed words, shared with every process forked later.
pub(crate) fn map_words(count: usize) -> io::Result<*mut AtomicU64> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let address =
        unsafe { libc::mmap(ptr::null_mut(), count * size_of::<AtomicU64>(), protection, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}

/// The words at `start` as a slice.
///
/// # Safety
/// They come from [`map_words`] with this `count` and stay mapped for `'a`.
pub(crate) unsafe fn words<'a>(start: *mut AtomicU64, count: usize) -> &'a [AtomicU64] {
    // SAFETY: mapped, aligned to a page, zero-initialised, and atomics may change at any time.
    unsafe { slice::from_raw_parts(start, count) }
}

/// Ends what [`map_words`] made.
///
/// # Safety
/// No thread of this process uses the words afterwards.
pub(crate) unsafe fn unmap_words(start: *mut AtomicU64, count: usize) {
    // SAFETY: promised by the caller.
    unsafe { libc::munmap(start.cast(), count * size_of::<AtomicU64>()) };
}

/// The clock that all processes share, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for the write.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The CPUs on which this thread may run, at most 1,024 of them.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let mut set = no_cpus();
    // SAFETY: the set is valid for the write, and of this size.
    unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: the set is valid, and the CPU below its size.
    (0..8 * size_of_val(&set)).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Lets this thread, and what it starts from now on, run on these CPUs only.
pub(crate) fn run_on(cpus: &[usize]) {
    let mut set = no_cpus();
    for cpu in cpus {
        // SAFETY: the set is valid; a CPU that is not below its size is left out.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: a valid set of its own size.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

fn no_cpus() -> libc::cpu_set_t {
    // SAFETY: an all-zero CPU set is a valid one.
    unsafe { std::mem::zeroed() }
}

/// How many threads this process has. A thread that was just joined may still be on its way out: it is given
/// a moment.
fn threads_left() -> io::Result<usize> {
    for _ in 0..50 {
        if fs::read_dir("/proc/self/task")?.count() == 1 {
            return Ok(1);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// What a process that is not ours to wait for does right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Activity {
    Running,
    Asleep,
    Ended,
}

/// Looks whether `pid` is asleep in a system call that can wait for a peer.
pub(crate) fn activity(pid: libc::pid_t) -> Activity {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return Activity::Ended };
    // The name, in parentheses, may itself hold parentheses and spaces: the state follows the last one.
    match stat.iter().rposition(|&byte| byte == b')').and_then(|at| stat.get(at + 2)) {
        Some(b'Z' | b'X') | None => return Activity::Ended,
        Some(b'S') => {}
        Some(_) => return Activity::Running,
    }
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number: Option<c_long> = call.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    // A nap is not a wait: it ends by itself.
    match number {
        Some(number)
            if number >= 0 && number != libc::SYS_nanosleep && number != libc::SYS_clock_nanosleep =>
        {
            Activity::Asleep
        }
        _ => Activity::Running,
    }
}
