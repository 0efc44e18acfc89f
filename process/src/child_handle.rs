//! The parent's handle on a child, and the thread that reaps children whose handle was dropped.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use multiproc_robust::Deadline;
use parking_lot::Mutex;

use crate::control_socket::ControlSocket;
use crate::helper_thread;
use crate::sys::{self, Reaped, Signal};

/// A child process. All access goes through its pidfd, so a signal never reaches another process that got its
/// process id.
///
/// A child whose handle is dropped goes on, and is reaped when it ends.
#[derive(Debug)]
pub(crate) struct ChildHandle {
    pid: u32,
    process: Arc<Descriptors>,
    reaped: AtomicBool,
}

/// What must stay open until the child has ended.
#[derive(Debug)]
struct Descriptors {
    pidfd: OwnedFd,
    /// The parent's end of the control socket. A daemon ends when it closes, whatever kills the parent.
    control: Option<ControlSocket>,
}

impl ChildHandle {
    /// `pid` is a child of this process that has not been waited for; it holds the other end of `control`.
    pub(crate) fn new(pid: u32, control: ControlSocket) -> io::Result<Self> {
        let process = Descriptors { pidfd: sys::pidfd_open(pid)?, control: Some(control) };
        Ok(Self { pid, process: Arc::new(process), reaped: AtomicBool::new(false) })
    }

    pub(crate) fn close_control_socket(&mut self) {
        if let Some(process) = Arc::get_mut(&mut self.process) {
            process.control = None;
        }
    }

    pub(crate) fn control_socket(&self) -> Option<&ControlSocket> {
        self.process.control.as_ref()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Waits for the child's end; returns whether it ended before the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        Ok(sys::wait_readable(&[self.pidfd()], deadline)? == [true])
    }

    /// Waits for the child's end and removes its zombie; returns `NotYet` if the deadline passes before.
    pub(crate) fn reap(&self, deadline: Deadline) -> io::Result<Reaped> {
        /// A tracer (a debugger, strace) may hold back the end of a process for a while after the pidfd shows
        /// it.
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

    /// Kills the child and reaps it. If the kernel needs longer than a second, the reaper does the rest.
    pub(crate) fn kill_and_reap(self) {
        const PLENTY: Duration = Duration::from_secs(1);
        // If one of these fails, the reaper does what is left.
        let _ = self.signal(Signal::Kill);
        let _ = self.reap(Deadline::after(PLENTY));
    }
}

impl Drop for ChildHandle {
    fn drop(&mut self) {
        if !self.reaped.load(Ordering::Relaxed) && matches!(self.reap(Deadline::NOW), Ok(Reaped::NotYet)) {
            REAPER.lock().adopt(Arc::clone(&self.process));
        }
    }
}

/// One thread for all children whose handle was dropped while they ran; it ends when none is left.
struct Reaper {
    /// Not yet seen by the thread.
    new: Vec<Arc<Descriptors>>,
    /// Wakes the thread; `None` if there is no thread.
    waker: Option<UnixStream>,
}

static REAPER: Mutex<Reaper> = Mutex::new(Reaper { new: Vec::new(), waker: None });

impl Reaper {
    fn adopt(&mut self, child: Arc<Descriptors>) {
        self.new.push(child);
        if let Some(waker) = &mut self.waker {
            // An error means a full socket, which wakes the thread as well.
            let _ = waker.write(&[0]);
        } else {
            // If no thread can be started, these children stay zombies until the next handle is dropped.
            self.waker = start_thread().ok();
        }
    }
}

fn start_thread() -> io::Result<UnixStream> {
    let (waker, woken) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    helper_thread::start("multiproc-reaper", move || reap_all(woken))?;
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
        // An error means that there is nothing to read: the end of a child woke this thread.
        let _ = woken.read(&mut [0; 64]);
        let before = children.len();
        children.retain(|child| matches!(sys::pidfd_reap(child.pidfd.as_fd()), Ok(Reaped::NotYet)));
        if before - children.len() < ended {
            // The wait failed, or a tracer holds back the end of a child: pause before the next attempt.
            thread::sleep(PAUSE);
        }
    }
}
