//! What the tests of this crate share.
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(clippy::print_stderr, clippy::exit, reason = "the watchdog prints and exits")]

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use multiproc_shm::{Namespace, Options};

/// The result of a test, with any error.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any test takes on any machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Ends the whole program if the test takes longer than `LONG`.
#[must_use]
pub(crate) fn watchdog() -> impl Drop {
    struct Running(Option<mpsc::Sender<()>>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.take();
        }
    }
    let (running, ended) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LONG) {
            // Not by `eprintln!`, which libtest captures.
            let _ = writeln!(io::stderr(), "{name} hangs");
            std::process::exit(9);
        }
    });
    Running(Some(running))
}

/// Polls until the condition is true. The watchdog ends a test whose condition never is.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// Returns a name that no other test has, in this run or another one.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A namespace of the test's own. Dropping it removes it with its contents.
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

    /// Options for objects in it.
    pub(crate) fn options(&self) -> Options {
        Options::new().namespace(&self.namespace)
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.namespace.path().join(name)
    }

    /// The file names in it.
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
