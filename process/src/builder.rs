//! [`Builder`]: how a process is started, seen by its parent.

use std::any;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use multiproc_robust::Deadline;
use multiproc_shm::Namespace;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::child::{self, Entry, text_of};
use crate::error::SpawnError;
use crate::handoff::{self, Call, GO, LONGEST, Launch, MARKER, Marker, Outcome, Payload, Reply, SendError};
use crate::image::{EXECUTABLE, FunctionName, Image, first_argument};
use crate::init::EntryPoint;
use crate::kin::Kin;
use crate::meeting::MeetingPlace;
use crate::process::Process;
use crate::sys::{self, Reaped};

/// How to start a process, where [`Process::spawn`] is not enough.
///
/// ```
/// use multiproc_process::{Builder, Exit};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// multiproc_process::init();
/// let process = Builder::new().name("adder").daemon(true).spawn(|(a, b): (u64, u64)| a + b, (20, 22))?;
/// assert_eq!(process.name(), Some("adder"));
/// assert_eq!(process.join()?, Exit::Value(42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "call `spawn`"]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
    start_timeout: Duration,
}

impl Builder {
    /// What [`Process::spawn`] uses: no name, no daemon, half a minute to start.
    pub fn new() -> Self {
        Self { name: None, daemon: false, start_timeout: Duration::from_secs(30) }
    }

    /// What the process is called in `ps` and `top` (the first 15 bytes), and by [`name`](crate::name) in the process itself.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether the process ends, at once and whatever it is doing, when this one does: by returning from `main` as by SIGKILL. It does not
    /// end with the thread that started it, nor when its handle is dropped. Stopped by SIGSTOP, it ends when it is continued.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// How long the child may take from its start to its function, which is milliseconds unless the machine is overloaded or the child
    /// passes by [`init`](crate::init()). After that it is killed.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// As [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    pub fn spawn<A, R>(&self, function: fn(A) -> R, args: A) -> Result<Process<R>, SpawnError>
    where
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let context = Context { function: any::type_name::<fn(A) -> R>(), limit: self.start_timeout };
        let image = Image::of_this_process()?;
        let outside = || SpawnError::OutsideImage { function: context.function };
        let function = image.name(function).ok_or_else(outside)?;
        let entry = image.name::<Entry>(child::entry::<A, R>).ok_or_else(outside)?;
        let how = EntryPoint::of(image, context.function)?;
        let place = MeetingPlace::make(&Namespace::current()?).map_err(|error| context.os("make a meeting place", error))?;

        let launching = Launching::start(how, context)?;
        match launching.hand_over(self, [entry, function], args, &place) {
            Ok(outcome) => {
                let mut kin = launching.kin;
                if !self.daemon {
                    kin.hang_up();
                }
                Ok(Process::new(kin, self.name.clone(), outcome))
            }
            Err(error) => {
                // The child first, or it might still put its server into the place that is being removed.
                launching.kin.end();
                drop(place);
                Err(error)
            }
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// What errors say.
#[derive(Clone, Copy, Debug)]
struct Context {
    function: &'static str,
    limit: Duration,
}

impl Context {
    fn os(self, operation: &'static str, source: io::Error) -> SpawnError {
        SpawnError::Os { function: self.function, operation, source }
    }
}

/// A child on its way to its function.
#[derive(Debug)]
struct Launching {
    kin: Kin,
    deadline: Deadline,
    context: Context,
}

/// How far a child has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was heard from it.
    Started,
    /// It has reached `init`.
    Ready,
}

impl Launching {
    fn start(how: EntryPoint, context: Context) -> Result<Self, SpawnError> {
        let failed = |operation| move |error| context.os(operation, error);
        let (line, theirs) = sys::socket_pair().map_err(failed("make a socket pair"))?;
        let mut marker = Marker { parent: process::id(), stdout: None };
        let mut command = Command::new(EXECUTABLE);
        // As descriptor 0 it needs no preparation between fork and exec.
        command.arg0(first_argument()).stdin(theirs);
        let stdout;
        if let EntryPoint::Test(test) = how {
            // The harness is to say "running 1 test" to nobody; the child takes the real standard output back.
            stdout = io::stdout().as_fd().try_clone_to_owned().map_err(failed("duplicate the standard output"))?;
            marker.stdout = Some(stdout.as_raw_fd());
            sys::let_child_inherit(&mut command, stdout.as_raw_fd());
            command.args(["--exact", test, "--nocapture", "--test-threads=1"]).stdout(Stdio::null());
        }
        command.env(MARKER, marker.to_text());
        let deadline = Deadline::after(context.limit);
        let mut child = command.spawn().map_err(failed("execute /proc/self/exe"))?;
        match Kin::new(child.id(), line) {
            Ok(kin) => Ok(Self { kin, deadline, context }),
            Err(error) => {
                // Not waited for yet, so the number is still its own.
                let _ = child.kill();
                let _ = child.wait();
                Err(context.os("open a pidfd (needs Linux 5.4)", error))
            }
        }
    }

    /// Steps 1 to 5 of the handoff.
    fn hand_over<A, R>(
        &self,
        builder: &Builder,
        [entry, function]: [FunctionName; 2],
        args: A,
        place: &MeetingPlace,
    ) -> Result<IpcReceiver<Outcome<R>>, SpawnError>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let meeting_place = place.path().as_os_str().as_bytes().to_vec();
        let call = postcard::to_stdvec(&Call { entry, function, meeting_place });
        let call = call.map_err(|error| self.context.os("encode the call", io::Error::other(error)))?;
        self.say(&call, Stage::Started)?;
        let Reply::Ready { server } = self.hear(Stage::Started)? else {
            return Err(self.context.os("meet the child", io::Error::from(io::ErrorKind::InvalidData)));
        };
        let sender = IpcSender::connect(place.short_path(&server));
        let sender = sender.map_err(|error| self.explain("meet the child", error, Stage::Ready))?;
        place.remove();
        self.say(GO, Stage::Ready)?;

        let (outcome, receiver) = ipc::channel().map_err(|error| self.context.os("make a channel", error))?;
        let launch = Launch::<A, R> { name: builder.name.clone(), daemon: builder.daemon, outcome, arguments: Payload(args) };
        // A `Serialize` may panic, and so does ipc-channel when it gets no descriptor for shared memory.
        let sent = panic::catch_unwind(AssertUnwindSafe(|| handoff::send(&sender, launch)));
        sent.unwrap_or_else(|payload| Err(SendError::Encoding(text_of(payload.as_ref())))).map_err(|error| match error {
            SendError::Encoding(why) => self.arguments(&format!("cannot be serialised: {why}")),
            SendError::Os(error) => self.explain("send the arguments", error, Stage::Ready),
        })?;
        self.hear(Stage::Ready)?;
        Ok(receiver)
    }

    fn say(&self, message: &[u8], stage: Stage) -> Result<(), SpawnError> {
        let line = self.kin.line().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        line.and_then(|line| sys::send(line, message)).map_err(|error| self.explain("speak to the child", error, stage))
    }

    /// The child's next reply, if it is a good one.
    fn hear(&self, stage: Stage) -> Result<Reply, SpawnError> {
        let failed = |error| self.context.os("listen to the child", error);
        let pid = self.kin.pid();
        let mut line = self.kin.line();
        loop {
            let watched: Vec<_> = [Some(self.kin.pidfd()), line].into_iter().flatten().collect();
            let ready = sys::wait_readable(&watched, self.deadline).map_err(failed)?;
            // The line first: a child may say why, and exit.
            if let (Some(open), Some(true)) = (line, ready.get(1)) {
                let reply = sys::receive(open, LONGEST).map_err(failed)?;
                if reply.is_empty() {
                    line = None;
                    continue;
                }
                return match postcard::from_bytes(&reply) {
                    Ok(Reply::Refused { arguments: true, message }) => {
                        Err(self.arguments(&format!("cannot be deserialised: {message}")))
                    }
                    Ok(Reply::Refused { arguments: false, message }) => {
                        Err(SpawnError::Refused { pid, function: self.context.function, message })
                    }
                    Ok(reply) => Ok(reply),
                    Err(error) => Err(failed(io::Error::other(error))),
                };
            }
            if ready[0] {
                return Err(self.ended(stage));
            }
            if !ready.contains(&true) {
                return Err(match stage {
                    Stage::Started => SpawnError::InitNotReached { pid, code: None },
                    Stage::Ready => SpawnError::TimedOut { pid, function: self.context.function, limit: self.context.limit },
                });
            }
        }
    }

    /// Why something failed: most likely the child is dying.
    fn explain(&self, operation: &'static str, error: io::Error, stage: Stage) -> SpawnError {
        const DYING: Duration = Duration::from_secs(1);
        if self.kin.wait(Deadline::after(DYING)).unwrap_or(false) {
            return self.ended(stage);
        }
        self.context.os(operation, error)
    }

    /// The child has ended too early.
    fn ended(&self, stage: Stage) -> SpawnError {
        let (pid, function) = (self.kin.pid(), self.context.function);
        let unknown = |error| self.context.os("learn how the child ended", error);
        match self.kin.reap(self.deadline) {
            Ok(Reaped::Ended(status)) => match status.code() {
                Some(code) if stage == Stage::Started => SpawnError::InitNotReached { pid, code: Some(code) },
                _ => SpawnError::Died { pid, function, status },
            },
            Ok(Reaped::ByAnother) => unknown(io::Error::other("another wait in this program took its status")),
            Ok(Reaped::NotYet) => unknown(io::Error::from(io::ErrorKind::TimedOut)),
            Err(error) => unknown(error),
        }
    }

    fn arguments(&self, message: &str) -> SpawnError {
        SpawnError::Arguments { function: self.context.function, message: message.to_owned() }
    }
}
