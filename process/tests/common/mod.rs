//! Helpers that the tests of this crate share.
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(clippy::print_stderr, clippy::exit, reason = "the watchdog ends a program that hangs")]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Any error, in a test.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

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
            eprintln!("{name} hangs");
            std::process::exit(9);
        }
    });
    Running(Some(running))
}

/// Polls until the condition is true; the watchdog is the only limit.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns whether a process exists, if only as a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}

/// Returns whether a process exists and has not ended. An orphan stays a zombie until its new parent reaps
/// it.
pub(crate) fn runs(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])))
}

/// Returns how many descriptors this process has open, without the descriptor of this very look.
pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() - 1)
}

/// Returns how many of them a new program would inherit.
pub(crate) fn inheritable_descriptors() -> usize {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let octal = |line: &str| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok();
    let flags = |info: String| info.lines().find_map(octal);
    let entries = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| flags(fs::read_to_string(entry.path()).ok()?));
    all.filter(|flags| flags & O_CLOEXEC == 0).count()
}

/// Longer than any test takes on any machine.
pub(crate) const LONG: Duration = Duration::from_secs(300);

/// What [`run_tests`] runs.
pub(crate) type Test = fn() -> Outcome;

/// Replaces libtest in a test program with a `main` of its own, as far as `cargo test` and `cargo nextest`
/// need it.
#[allow(clippy::print_stdout, reason = "a test program prints its results")]
pub(crate) fn run_tests(tests: &[(&str, Test)]) -> Verdict {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let names: Vec<_> =
        arguments.iter().filter(|argument| !argument.starts_with('-') && *argument != "terse").collect();
    let matches =
        |name: &str, filter: &str| if has("--exact") { name == filter } else { name.contains(filter) };
    let chosen = |name: &str| names.is_empty() || names.iter().any(|filter| matches(name, filter));
    let mut failed = false;
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name) && !has("--ignored")) {
        if has("--list") {
            println!("{name}: test");
            continue;
        }
        let _watchdog = watchdog();
        match test() {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                println!("test {name} ... FAILED: {error}");
                failed = true;
            }
        }
    }
    Verdict { failed }
}

/// The result of the program's tests.
#[must_use]
pub(crate) struct Verdict {
    failed: bool,
}

impl Verdict {
    pub(crate) fn leave(self) -> ! {
        std::process::exit(i32::from(self.failed))
    }
}

/// A namespace of its own for the programs that a test starts; dropping it removes the directory.
pub(crate) struct OwnNamespace(pub(crate) PathBuf);

impl OwnNamespace {
    pub(crate) fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("/dev/shm/multiproc-test-{}-{number}", std::process::id())))
    }

    /// Returns the names in the directory.
    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for OwnNamespace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
