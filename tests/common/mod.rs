//! Helpers that the tests across processes share: children, handshakes, private namespaces, and a watchdog.
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(unsafe_code, reason = "fork, kill and wait, as a C program calls them")]
#![allow(clippy::print_stderr, clippy::exit, reason = "the watchdog ends a program that hangs")]

use std::any::Any;
use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::AtomicValue;
use multiproc::process::{Builder, Exit, Process};
use multiproc::shm::Namespace;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Any error, in a test.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any test takes on any machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Ends the whole program if the test runs longer than [`LONG`]. Dropping the return value stops the
/// watchdog.
#[must_use]
pub(crate) fn watchdog() -> impl Drop {
    struct Running(Option<mpsc::Sender<()>>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.take();
        }
    }
    let (running, closed) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = closed.recv_timeout(LONG) {
            // `eprintln!` would be captured by libtest.
            let _ = writeln!(io::stderr(), "{name} hangs");
            std::process::exit(9);
        }
    });
    Running(Some(running))
}

/// Lets one such test run at a time, each with its watchdog.
///
/// A child that another test forks or spawns has a copy of all mappings of this process, if only until it
/// calls `exec`. So an object that this test has dropped would still be in use.
#[must_use]
pub(crate) fn alone() -> impl Drop {
    static ALONE: Mutex<()> = Mutex::new(());
    struct Turn {
        _watchdog: Box<dyn Any>,
        _turn: MutexGuard<'static, ()>,
    }
    impl Drop for Turn {
        fn drop(&mut self) {}
    }
    let turn = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { _watchdog: Box::new(watchdog()), _turn: turn }
}

/// Polls until the condition is true; the watchdog is the only limit.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    const PAUSE: Duration = Duration::from_micros(200);
    let start = Instant::now();
    while !condition() {
        if start.elapsed() < Duration::from_millis(1) { thread::yield_now() } else { thread::sleep(PAUSE) }
    }
}

/// Waits until a step counter that several processes share has reached `at_least`.
pub(crate) fn wait_for(step: &AtomicValue<u32>, at_least: u32) {
    wait_until(|| step.load() >= at_least);
}

/// Returns a name that no other test has, in this run or any other.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Starts a child as a daemon: it ends with this program, even if the test fails.
pub(crate) fn spawn<A, R>(function: fn(A) -> R, args: A) -> Process<R>
where
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    Builder::new().daemon(true).spawn(function, args).expect("a child")
}

/// Returns the value of a child's function.
pub(crate) fn value<R: Serialize + DeserializeOwned + std::fmt::Debug + 'static>(child: &Process<R>) -> R {
    match child.join().expect("its end") {
        Exit::Value(value) => value,
        other => panic!("the child ended with {other:?}"),
    }
}

/// Kills a child, and returns once it is dead and the kernel has released its locks.
pub(crate) fn kill<R: Serialize + DeserializeOwned + std::fmt::Debug + 'static>(child: &Process<R>) {
    child.kill().expect("to kill it");
    let exit = child.join().expect("its end");
    assert!(matches!(exit, Exit::Signal(libc::SIGKILL)), "{exit:?}");
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: numbers only.
    let sent = unsafe { libc::kill(pid.cast_signed(), signal) };
    assert_eq!(sent, 0, "signal {signal} to {pid}");
}

/// Returns the state letters of all threads of a process.
pub(crate) fn states(pid: u32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit(") ").next()?.chars().next()).collect()
}

/// Stops a process, and returns once all its threads are stopped.
pub(crate) fn stop(pid: u32) {
    signal(pid, libc::SIGSTOP);
    wait_until(|| states(pid).iter().all(|state| *state == 'T'));
}

/// Replaces this process by another program, which sleeps.
pub(crate) fn exec() -> ! {
    let arguments = [c"sleep".as_ptr(), c"1000".as_ptr(), ptr::null()];
    // SAFETY: C strings, and a list that ends in null.
    unsafe { libc::execvp(arguments[0], arguments.as_ptr()) };
    panic!("there is no `sleep` here\n");
}

/// Returns the thread id of this thread.
pub(crate) fn tid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// A copy of this process that runs `body` and exits with what it returns: killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Forked {
    pid: i32,
    reaped: bool,
}

/// How a fork is made: with or without libc's knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By libc's `fork`, which resets libc's own state.
    Libc,
    /// By the system call, which libc does not notice.
    Raw,
}

/// Forks. The child has only this thread.
pub(crate) fn fork(how: How, body: impl FnOnce() -> i32) -> Forked {
    let pid = match how {
        // SAFETY: the child runs code that is written for this, and ends by `_exit`.
        How::Libc => unsafe { libc::fork() },
        How::Raw => {
            // SAFETY: as above; these arguments mean what `fork` means.
            let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
            i32::try_from(pid).unwrap_or(-1)
        }
    };
    assert!(pid >= 0, "cannot fork");
    if pid == 0 {
        // SAFETY: numbers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let code = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|what| {
            let text =
                what.downcast_ref::<String>().map(String::as_str).or(what.downcast_ref::<&str>().copied());
            let message = text.unwrap_or("a forked child panicked\n");
            // SAFETY: the bytes of a string.
            unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
            101
        });
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    Forked { pid, reaped: false }
}

/// Runs a test in a copy of this process that has no other threads. Only such a process can fork by the
/// system call and then allocate: otherwise the allocator's locks may be held by threads that the child does
/// not have.
pub(crate) fn with_one_thread(test: impl FnOnce() -> Outcome) -> Outcome {
    let child = fork(How::Libc, || match test() {
        Ok(()) => 0,
        Err(error) => panic!("{error}\n"),
    });
    assert_eq!(child.wait(), 0, "its message is on standard error");
    Ok(())
}

impl Forked {
    pub(crate) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Waits for its end; returns its exit code, or minus the signal that ended it.
    pub(crate) fn wait(mut self) -> i32 {
        self.reap()
    }

    /// Kills it and waits.
    pub(crate) fn kill(self) {
        signal(self.pid(), libc::SIGKILL);
        assert_eq!(self.wait(), -libc::SIGKILL);
    }

    fn reap(&mut self) -> i32 {
        self.reaped = true;
        let mut status = 0;
        // SAFETY: a child of this process, and a place for its status.
        while unsafe { libc::waitpid(self.pid, &raw mut status, 0) } != self.pid {}
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if !self.reaped {
            signal(self.pid(), libc::SIGKILL);
            self.reap();
        }
    }
}

/// A namespace of the test's own; dropping it removes the directory with all its contents.
#[derive(Debug)]
pub(crate) struct Space {
    namespace: Namespace,
}

impl Space {
    pub(crate) fn new() -> Self {
        let path = PathBuf::from("/dev/shm").join(format!("multiproc-{}", unique("space")));
        Self { namespace: Namespace::at(path).expect("a namespace") }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns options for objects in this namespace.
    pub(crate) fn options(&self) -> multiproc::Options {
        multiproc::Options::new().namespace(&self.namespace)
    }

    /// Returns a path in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.namespace.path().join(name)
    }

    /// Returns the file names in it, sorted.
    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.namespace.path()).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.namespace.path());
    }
}

/// A xorshift generator: small, fast, and random enough for tests.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Seeds a generator by the clock and the process, for tests that should differ from run to run. The seed
    /// is printed when a test fails, and can be given as `MULTIPROC_SEED`.
    pub(crate) fn of_this_run() -> Self {
        if let Some(seed) = std::env::var("MULTIPROC_SEED").ok().and_then(|seed| seed.parse().ok()) {
            return Self::new(seed);
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let clock = since.map_or(1, |since| since.as_nanos());
        let seed =
            u64::try_from(clock & u128::from(u64::MAX)).unwrap_or(1) ^ u64::from(std::process::id()) << 32;
        eprintln!("dice: seed {seed}");
        Self::new(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number from 0 to `end`, `end` excluded.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }
}
