//! The threads that this crate adds to a program: each waits for the end of another process, and does nothing
//! else.

use std::io;
use std::thread;

use crate::sys;

/// Starts a thread with a small stack and with all signals blocked: the program's handlers run in the
/// program's threads.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    const SMALL_STACK: usize = 64 * 1024;
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(SMALL_STACK);
    let blocked = move || {
        sys::block_signals();
        work();
    };
    thread.spawn(blocked).map(drop)
}
