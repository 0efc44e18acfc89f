//! Locks on files, waited for with a time limit. The kernel has no such call, so the process polls.

use std::io;
use std::time::Duration;

use multiproc_robust::Deadline;

/// Repeats an attempt that does not wait until it succeeds. Returns whether it did within this time.
///
/// Holders need microseconds. So the pauses begin at 20 us and double up to 1 ms.
pub(crate) fn lock_within(
    limit: Duration,
    mut attempt: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    let deadline = Deadline::after(limit);
    let mut pause = Duration::from_micros(20);
    while !attempt()? {
        if deadline.has_passed() {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    Ok(true)
}
