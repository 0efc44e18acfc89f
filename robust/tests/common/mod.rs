//! What the tests of this crate share.
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(
    clippy::print_stderr,
    clippy::exit,
    reason = "the watchdog reports a test that hangs, and ends the program"
)]

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// The result of a test.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any test takes on any machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Ends the program if the test takes longer than [`LONG`].
#[must_use]
pub(crate) fn watchdog() -> impl Drop {
    struct Watchdog(Option<mpsc::Sender<()>>);
    impl Drop for Watchdog {
        fn drop(&mut self) {
            self.0.take();
        }
    }
    let (sender, receiver) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(LONG) {
            // Not by `eprintln!`, whose output libtest captures.
            let _ = writeln!(io::stderr(), "{name} hangs");
            std::process::exit(9);
        }
    });
    Watchdog(Some(sender))
}

/// Waits until `condition` returns true. If it never does, the watchdog ends the test.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}
