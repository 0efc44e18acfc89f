//! A child as the kernel knows it, and the thread that reaps those which nobody asks about any more.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use multiproc_robust::Deadline;
use parking_lot::Mutex;

use crate::child::SMALL_STACK;
use crate::sys::{self, Reaped, Signal};

/// A child process. Everything goes through its pidfd, so nothing ever reaches another process that got its number.
///
/// Dropped, it is left to itself, and reaped when it ends.
#[derive(Debug)]
pub(crate) struct Kin {
    pid: u32,
    process: Arc<Descriptors>,
    reaped: AtomicBool,
}

/// What must stay open until the child has ended.
#[derive(Debug)]
struct Descriptors {
    pidfd: OwnedFd,
    /// Our end of the handshake socket. A daemon ends when it closes, by whatever death of ours.
    line: Option<OwnedFd>,
}

impl Kin {
    /// `pid` is a child of this process that has not been waited for; at the other end of `line` it listens.
    pub(crate) fn new(pid: u32, line: OwnedFd) -> io::Result<Self> {
        let process = Descriptors { pidfd: sys::pidfd_open(pid)?, line: Some(line) };
        Ok(Self { pid, process: Arc::new(process), reaped: AtomicBool::new(false) })
    }

    /// Closes the line.
    pub(crate) fn hang_up(&mut self) {
        if let Some(process) = Arc::get_mut(&mut self.process) {
            process.line = None;
        }
    }

    pub(crate) fn line(&self) -> Option<BorrowedFd<'_>> {
        self.process.line.as_ref().map(OwnedFd::as_fd)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Whether it has ended before the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        Ok(sys::wait_readable(&[self.pidfd()], deadline)? == [true])
    }

    /// Takes its zombie away, once it has ended; `NotYet` when the deadline passes before.
    pub(crate) fn reap(&self, deadline: Deadline) -> io::Result<Reaped> {
        /// A tracer (a debugger, strace) sees the end before we do, and takes its time.
        const TRACED: Duration = Duration::from_millis(1);
        while self.wait(deadline)? {
            let reaped = sys::pidfd_reap(self.pidfd())?;
            if !matches!(reaped, Reaped::NotYet) {
                self.reaped.store(true, Ordering::Relaxed);
                return Ok(reaped);
            }
            if deadline.has_passed() {
                break;
            }
            thread::sleep(TRACED);
        }
        Ok(Reaped::NotYet)
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        sys::pidfd_signal(self.pidfd(), signal)
    }

    /// Kills it. A second is plenty for that; if the kernel needs longer, dropping leaves the rest to the reaper.
    pub(crate) fn end(self) {
        const PLENTY: Duration = Duration::from_secs(1);
        // Where one of these fails, the reaper does what is left.
        let _ = self.signal(Signal::Kill);
        let _ = self.reap(Deadline::after(PLENTY));
    }
}

impl Drop for Kin {
    fn drop(&mut self) {
        if !self.reaped.load(Ordering::Relaxed) && matches!(self.reap(Deadline::NOW), Ok(Reaped::NotYet)) {
            REAPER.lock().adopt(Arc::clone(&self.process));
        }
    }
}

/// One thread for all children that were dropped alive; it ends when there are none left.
struct Reaper {
    /// Not yet seen by the thread.
    new: Vec<Arc<Descriptors>>,
    /// Wakes the thread; `None` when there is no thread.
    waker: Option<UnixStream>,
}

static REAPER: Mutex<Reaper> = Mutex::new(Reaper { new: Vec::new(), waker: None });

impl Reaper {
    fn adopt(&mut self, child: Arc<Descriptors>) {
        self.new.push(child);
        if let Some(waker) = &mut self.waker {
            // A full pipe wakes it as well.
            let _ = waker.write(&[0]);
        } else {
            // Without a thread the children wait for the next one that is dropped: zombies, but no harm.
            self.waker = start_thread().ok();
        }
    }
}

fn start_thread() -> io::Result<UnixStream> {
    let (waker, woken) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let thread = thread::Builder::new().name("multiproc-reaper".to_owned()).stack_size(SMALL_STACK);
    thread.spawn(move || {
        sys::block_signals();
        reap_all(woken);
    })?;
    Ok(waker)
}

fn reap_all(mut woken: UnixStream) {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut children: Vec<Arc<Descriptors>> = Vec::new();
    loop {
        {
            let mut reaper = REAPER.lock();
            children.append(&mut reaper.new);
            if children.is_empty() {
                reaper.waker = None;
                return;
            }
        }
        let mut watched = vec![woken.as_fd()];
        watched.extend(children.iter().map(|child| child.pidfd.as_fd()));
        let ended = match sys::wait_readable(&watched, Deadline::NEVER) {
            Ok(ready) => ready.iter().skip(1).filter(|ready| **ready).count(),
            Err(_) => usize::MAX,
        };
        // Nothing to read is fine: then a child woke us.
        let _ = woken.read(&mut [0; 64]);
        let before = children.len();
        children.retain(|child| matches!(sys::pidfd_reap(child.pidfd.as_fd()), Ok(Reaped::NotYet)));
        if before - children.len() < ended {
            // A failed wait, or an end that a tracer has not let through: not again at once.
            thread::sleep(PAUSE);
        }
    }
}
