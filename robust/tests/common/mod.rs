//! What the tests of this crate share.
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(clippy::print_stderr, clippy::exit, reason = "a watchdog barks and bites")]

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Any error, in a test.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any test takes on any machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Ends the whole program if the test takes longer than anything here can take.
#[must_use]
pub(crate) fn watchdog() -> impl Drop {
    struct Leash(Option<mpsc::Sender<()>>);
    impl Drop for Leash {
        fn drop(&mut self) {
            self.0.take();
        }
    }
    let (leash, held) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = held.recv_timeout(LONG) {
            // Not by `eprintln!`, which libtest would keep for itself.
            let _ = writeln!(io::stderr(), "{name} hangs");
            std::process::exit(9);
        }
    });
    Leash(Some(leash))
}

/// Looks again and again; the watchdog ends it if it never comes true.
pub(crate) fn wait_until(mut true_at_last: impl FnMut() -> bool) {
    while !true_at_last() {
        thread::yield_now();
    }
}
