//! [`Process`]: the parent's handle on a child and on the result of its function.

use std::any;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitStatus;
use std::time::Duration;

use ipc_channel::ipc::IpcReceiver;
use ipc_channel::{IpcError, TryRecvError};
use multiproc_robust::Deadline;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::child_handle::ChildHandle;
use crate::error::{JoinError, SpawnError};
use crate::handoff::{self, Outcome, Payload};
use crate::launch::{self, Settings};
use crate::sys::{Reaped, Signal};

/// A function of this program that runs in a process of its own.
///
/// All methods take `&self`: one thread may [`join`](Self::join) while another thread calls
/// [`kill`](Self::kill).
///
/// Dropping the handle leaves the process running, as dropping a thread's handle does; the process is reaped
/// when it ends. A process that must not outlive this one is a [`daemon`](crate::Builder::daemon).
///
/// ```
/// use multiproc_process::{Exit, Process};
///
/// fn sum(numbers: Vec<u64>) -> u64 {
///     numbers.iter().sum()
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// multiproc_process::init();
/// let process = Process::spawn(sum, vec![20, 22])?;
/// assert_eq!(process.join()?, Exit::Value(42));
/// # Ok(())
/// # }
/// ```
pub struct Process<R> {
    child: ChildHandle,
    name: Option<String>,
    state: Mutex<State<R>>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there is no fifth way, and a match should say so")]
pub enum Exit<R> {
    /// The function returned this value. A value that was sent counts, whatever happened to the process
    /// afterwards.
    Value(R),
    /// The function panicked. The child has printed the panic to its standard error as well.
    Panic {
        /// The message of the panic.
        message: String,
        /// The place of the panic: `file:line:column`.
        location: Option<String>,
    },
    /// The process ended with this code, by `std::process::exit` or the like.
    Code(i32),
    /// This signal ended the process.
    Signal(i32),
}

enum State<R> {
    /// The process runs, or no call has seen its end yet.
    Running(IpcReceiver<Outcome<R>>),
    Ended(Ending),
}

/// How the process ended, without the value: what every later `join` returns.
#[derive(Clone, Debug)]
enum Ending {
    ValueTaken,
    Panic { message: String, location: Option<String> },
    Code(i32),
    Signal(i32),
    Result(String),
    StatusLost,
}

impl<R> Process<R>
where
    R: Serialize + DeserializeOwned + 'static,
{
    /// Calls `function(args)` in a new process, and returns once the child is about to call it.
    /// [`Builder`](crate::Builder) has more settings.
    ///
    /// The process is this program started again, so `function` must be a plain function, or a closure that
    /// captures nothing. Its arguments and its result are serialised. Both may hold what can travel to
    /// another process: handles of every multiproc object, and ipc-channel's senders, receivers and shared
    /// memory, up to 60 of these.
    ///
    /// The new process has this one's environment, directory, standard output and standard error, and the
    /// first of its command line arguments. Its standard input is empty, and so is its signal mask. It
    /// inherits only those descriptors that are not close-on-exec.
    ///
    /// # Errors
    ///
    /// Returns [`SpawnError`] if the child does not call the function, for instance because it was killed
    /// before. After an error no child is left.
    pub fn spawn<A>(function: fn(A) -> R, args: A) -> Result<Self, SpawnError>
    where
        A: Serialize + DeserializeOwned + 'static,
    {
        Self::start(&Settings::default(), function, args)
    }

    pub(crate) fn start<A>(settings: &Settings, function: fn(A) -> R, args: A) -> Result<Self, SpawnError>
    where
        A: Serialize + DeserializeOwned + 'static,
    {
        let (child, outcome) = launch::launch(settings, function, args)?;
        Ok(Self { child, name: settings.name.clone(), state: Mutex::new(State::Running(outcome)) })
    }

    /// Waits until the process has ended, and returns how it ended. The value is returned once, every other
    /// ending each time.
    ///
    /// # Errors
    ///
    /// Returns [`JoinError`] if an earlier call has returned the value, if the value could not be serialised
    /// or deserialised, or if the exit status is lost.
    pub fn join(&self) -> Result<Exit<R>, JoinError> {
        loop {
            // Without a deadline the first pass returns.
            if let Some(exit) = self.join_until(Deadline::NEVER)? {
                return Ok(exit);
            }
        }
    }

    /// Waits like [`join`](Self::join), but no longer than `timeout`; returns `None` if the process still
    /// runs.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<Option<Exit<R>>, JoinError> {
        self.join_until(Deadline::after(timeout))
    }

    /// Returns what [`join`](Self::join) returns, without waiting; `None` if the process still runs.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`join`](Self::join).
    pub fn try_join(&self) -> Result<Option<Exit<R>>, JoinError> {
        self.join_until(Deadline::NOW)
    }

    fn join_until(&self, deadline: Deadline) -> Result<Option<Exit<R>>, JoinError> {
        let pid = self.pid();
        let failed = |source| JoinError::Os { pid, source };
        // Before the lock is taken: several threads may wait, each until its own deadline.
        if !self.child.wait(deadline).map_err(failed)? {
            return Ok(None);
        }
        let mut state = self.state.lock();
        let receiver = match &*state {
            State::Running(receiver) => receiver,
            State::Ended(ending) => return ending.to_exit(pid).map(Some),
        };
        let status = match self.child.reap(deadline).map_err(failed)? {
            Reaped::NotYet => return Ok(None),
            Reaped::Ended(status) => Some(status),
            Reaped::ByAnother => None,
        };
        // The process has ended: what it has sent is there, and it sends nothing more.
        let (exit, ending) = match receive(receiver) {
            Some(Ok(Outcome::Value(Payload(value)))) => (Some(Exit::Value(value)), Ending::ValueTaken),
            Some(Ok(Outcome::Panic { message, location })) => (None, Ending::Panic { message, location }),
            Some(Ok(Outcome::Unsendable(why))) => {
                (None, Ending::Result(format!("cannot be serialised: {why}")))
            }
            Some(Err(why)) => (None, Ending::Result(format!("cannot be deserialised: {why}"))),
            None => (None, Ending::of(status)),
        };
        *state = State::Ended(ending.clone());
        exit.map_or_else(|| ending.to_exit(pid), Ok).map(Some)
    }
}

impl<R> Process<R> {
    /// Returns the process id. After the process has ended, another process may get the same id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the name that [`Builder::name`](crate::Builder::name) gave the process.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns whether the process still runs.
    pub fn is_alive(&self) -> bool {
        // The wait fails only for want of memory; a process whose end was not seen counts as alive.
        !self.child.wait(Deadline::NOW).unwrap_or(false)
    }

    /// Asks the process to end: sends SIGTERM, which ends a process that does not handle it.
    ///
    /// Does nothing to a process that has ended, nor to another process that has got its process id.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error, for instance if the child now runs as another user.
    pub fn terminate(&self) -> std::io::Result<()> {
        self.child.signal(Signal::Terminate)
    }

    /// Ends the process: sends SIGKILL.
    ///
    /// Does nothing to a process that has ended, nor to another process that has got its process id.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`terminate`](Self::terminate).
    pub fn kill(&self) -> std::io::Result<()> {
        self.child.signal(Signal::Kill)
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.pid())
            .field("name", &self.name)
            .field("alive", &self.is_alive())
            .field("result", &any::type_name::<R>())
            .finish()
    }
}

impl<R> Exit<R> {
    /// Returns the value, if the function returned one.
    ///
    /// ```
    /// # use multiproc_process::Exit;
    /// assert_eq!(Exit::Value(7).value(), Some(7));
    /// assert_eq!(Exit::<u8>::Signal(9).value(), None);
    /// ```
    pub fn value(self) -> Option<R> {
        match self {
            Self::Value(value) => Some(value),
            Self::Panic { .. } | Self::Code(_) | Self::Signal(_) => None,
        }
    }
}

impl Ending {
    fn of(status: Option<ExitStatus>) -> Self {
        let signal = status.and_then(|status| status.signal()).map(Self::Signal);
        signal.or_else(|| status.and_then(|status| status.code()).map(Self::Code)).unwrap_or(Self::StatusLost)
    }

    fn to_exit<R>(&self, pid: u32) -> Result<Exit<R>, JoinError> {
        match self.clone() {
            Self::ValueTaken => Err(JoinError::ValueTaken { pid }),
            Self::Panic { message, location } => Ok(Exit::Panic { message, location }),
            Self::Code(code) => Ok(Exit::Code(code)),
            Self::Signal(signal) => Ok(Exit::Signal(signal)),
            Self::Result(message) => Err(JoinError::Result { pid, message }),
            Self::StatusLost => Err(JoinError::StatusLost { pid }),
        }
    }
}

/// Receives the outcome that an ended child has sent, if any; or the reason why it cannot be decoded.
fn receive<R>(receiver: &IpcReceiver<Outcome<R>>) -> Option<Result<Outcome<R>, String>>
where
    R: Serialize + DeserializeOwned,
{
    // ipc-channel panics on bytes that name a channel which was not sent.
    match panic::catch_unwind(AssertUnwindSafe(|| receiver.try_recv())) {
        Ok(Ok(outcome)) => Some(Ok(outcome)),
        Ok(Err(TryRecvError::IpcError(IpcError::SerializationError(error)))) => {
            Some(Err(handoff::describe(&error)))
        }
        // The child sent no outcome: messages arrive whole or not at all.
        Ok(Err(_)) => None,
        Err(_) => Some(Err("deserialising it panicked".to_owned())),
    }
}

/// Several threads may use one handle: one waits, another ends the process.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Process<u32>>();
};
