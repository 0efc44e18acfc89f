//! [`Process`]: a child, seen by its parent.

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

use crate::builder::Builder;
use crate::error::{JoinError, SpawnError};
use crate::handoff::{self, Outcome, Payload};
use crate::kin::Kin;
use crate::sys::{Reaped, Signal};

/// A function of this program that runs in a process of its own.
///
/// All methods take `&self`: one thread may [`join`](Self::join) while another one decides to [`kill`](Self::kill).
///
/// Dropping the handle leaves the process running, as dropping a thread's handle does; it is reaped when it ends. A process that must not
/// outlive this one is a [`daemon`](Builder::daemon).
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
    kin: Kin,
    name: Option<String>,
    state: Mutex<State<R>>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there is no fifth way, and a match should say so")]
pub enum Exit<R> {
    /// The function returned this. A value that was sent counts, whatever happened to the process afterwards.
    Value(R),
    /// The function panicked. The child has printed it to its standard error as well.
    Panic {
        /// What it said.
        message: String,
        /// Where it was: `file:line:column`.
        location: Option<String>,
    },
    /// The process was ended with this code by `std::process::exit` or the like.
    Code(i32),
    /// The process was ended by this signal.
    Signal(i32),
}

enum State<R> {
    /// It runs, or nobody has looked yet.
    Running(IpcReceiver<Outcome<R>>),
    Ended(Ending),
}

/// What can be told again and again, and that the value cannot.
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
    /// Calls `function(args)` in a new process, and returns when it is about to be called there. [`Builder`] sets more than this.
    ///
    /// The process is this program started again, so `function` must be a plain function, or a closure that captures nothing: it cannot
    /// take anything along but its arguments. They are serialised, and so is what it returns. Both may hold whatever can travel to
    /// another process: handles of every multiproc object, and ipc-channel's senders, receivers and shared memory, up to 60 of these.
    ///
    /// The new process has this one's environment, directory, standard output and error, and the first of its command line arguments;
    /// its standard input is empty, its signal mask too; and it has no descriptor that is not meant for heirs.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; no child is left then. A child that is killed before it calls the function is such an error.
    pub fn spawn<A>(function: fn(A) -> R, args: A) -> Result<Self, SpawnError>
    where
        A: Serialize + DeserializeOwned + 'static,
    {
        Builder::new().spawn(function, args)
    }

    /// Waits until the process has ended, and tells how. The value is handed out once, everything else again and again.
    ///
    /// # Errors
    ///
    /// [`JoinError`] when the value has been taken before, when it does not come through serialisation, or when the exit status is lost.
    pub fn join(&self) -> Result<Exit<R>, JoinError> {
        loop {
            // Without a deadline it comes back with an end.
            if let Some(exit) = self.join_until(Deadline::NEVER)? {
                return Ok(exit);
            }
        }
    }

    /// Like [`join`](Self::join), for so long at most; `None` if the process still runs.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<Option<Exit<R>>, JoinError> {
        self.join_until(Deadline::after(timeout))
    }

    /// Like [`join`](Self::join), without waiting; `None` if the process still runs.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn try_join(&self) -> Result<Option<Exit<R>>, JoinError> {
        self.join_until(Deadline::NOW)
    }

    fn join_until(&self, deadline: Deadline) -> Result<Option<Exit<R>>, JoinError> {
        let pid = self.pid();
        let failed = |source| JoinError::Os { pid, source };
        // Not under the lock, where only one could wait.
        if !self.kin.wait(deadline).map_err(failed)? {
            return Ok(None);
        }
        let mut state = self.state.lock();
        let receiver = match &*state {
            State::Running(receiver) => receiver,
            State::Ended(ending) => return ending.tell(pid).map(Some),
        };
        let status = match self.kin.reap(deadline).map_err(failed)? {
            Reaped::NotYet => return Ok(None),
            Reaped::Ended(status) => Some(status),
            Reaped::ByAnother => None,
        };
        // It is dead: what it has sent is there, and nothing comes any more.
        let (exit, ending) = match receive(receiver) {
            Some(Ok(Outcome::Value(Payload(value)))) => (Some(Exit::Value(value)), Ending::ValueTaken),
            Some(Ok(Outcome::Panic { message, location })) => (None, Ending::Panic { message, location }),
            Some(Ok(Outcome::Unsendable(why))) => (None, Ending::Result(format!("cannot be serialised: {why}"))),
            Some(Err(why)) => (None, Ending::Result(format!("cannot be deserialised: {why}"))),
            None => (None, Ending::of(status)),
        };
        *state = State::Ended(ending.clone());
        exit.map_or_else(|| ending.tell(pid), Ok).map(Some)
    }
}

impl<R> Process<R> {
    pub(crate) fn new(kin: Kin, name: Option<String>, outcome: IpcReceiver<Outcome<R>>) -> Self {
        Self { kin, name, state: Mutex::new(State::Running(outcome)) }
    }

    /// Its process id. Once it has ended, the number may be another's.
    pub fn pid(&self) -> u32 {
        self.kin.pid()
    }

    /// The name that [`Builder::name`] gave it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        // The wait can fail only for want of memory; a process that was not seen to end is alive.
        !self.kin.wait(Deadline::NOW).unwrap_or(false)
    }

    /// Asks it to end: sends SIGTERM, which ends a process that does not handle it. Nothing happens to one that has ended, nor to another
    /// one that has its number by now.
    ///
    /// # Errors
    ///
    /// What the operating system says, as when the child has become another user's.
    pub fn terminate(&self) -> std::io::Result<()> {
        self.kin.signal(Signal::Terminate)
    }

    /// Ends it: sends SIGKILL. Nothing happens to one that has ended, nor to another one that has its number by now.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> std::io::Result<()> {
        self.kin.signal(Signal::Kill)
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
    /// The value, if the function returned one.
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

    fn tell<R>(&self, pid: u32) -> Result<Exit<R>, JoinError> {
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

/// What a dead child has left, if anything; or why it cannot be understood.
fn receive<R>(receiver: &IpcReceiver<Outcome<R>>) -> Option<Result<Outcome<R>, String>>
where
    R: Serialize + DeserializeOwned,
{
    // ipc-channel panics on bytes that name a channel which was not sent.
    match panic::catch_unwind(AssertUnwindSafe(|| receiver.try_recv())) {
        Ok(Ok(outcome)) => Some(Ok(outcome)),
        Ok(Err(TryRecvError::IpcError(IpcError::SerializationError(error)))) => Some(Err(handoff::describe(&error))),
        // Nothing, or the child died in the middle of nothing: messages are whole.
        Ok(Err(_)) => None,
        Err(_) => Some(Err("deserialising it panicked".to_owned())),
    }
}

/// A handle may be waited on by one thread and used to end the process by another.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Process<u32>>();
};
