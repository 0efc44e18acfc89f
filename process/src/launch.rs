//! The start of a child, seen by its parent.

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
use multiproc_shm::{Namespace, ScratchDirectory};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::child::{self, Entry};
use crate::child_handle::ChildHandle;
use crate::control_socket::ControlSocket;
use crate::error::SpawnError;
use crate::handoff::{self, Call, GO, Launch, MARKER, Marker, Outcome, Payload, Reply, SendError};
use crate::image::{EXECUTABLE, FunctionName, Image, first_argument};
use crate::init::EntryPoint;
use crate::panic_report::text_of;
use crate::sys::{self, Reaped};

/// How to start a child.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: Option<String>,
    pub(crate) daemon: bool,
    pub(crate) start_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { name: None, daemon: false, start_timeout: Duration::from_secs(30) }
    }
}

/// Starts a child, and returns once it is about to call its function. After an error no child is left.
pub(crate) fn launch<A, R>(
    settings: &Settings,
    function: fn(A) -> R,
    args: A,
) -> Result<(ChildHandle, IpcReceiver<Outcome<R>>), SpawnError>
where
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let context = Context { function: any::type_name::<fn(A) -> R>(), limit: settings.start_timeout };
    let image = Image::of_this_process()?;
    let outside = || SpawnError::OutsideImage { function: context.function };
    let function = image.name(function).ok_or_else(outside)?;
    let entry = image.name::<Entry>(child::entry::<A, R>).ok_or_else(outside)?;
    let entry_point = EntryPoint::of(image, context.function)?;
    let rendezvous = Namespace::current()?
        .scratch_directory()
        .map_err(|error| context.os("make a rendezvous directory", error))?;

    let launching = Launching::start(entry_point, context)?;
    match launching.hand_over(settings, [entry, function], args, &rendezvous) {
        Ok(outcome) => {
            let mut child = launching.child;
            if !settings.daemon {
                child.close_control_socket();
            }
            Ok((child, outcome))
        }
        Err(error) => {
            // The child first: it might still put its server into the directory while that is being removed.
            launching.child.kill_and_reap();
            drop(rendezvous);
            Err(error)
        }
    }
}

/// What the errors mention.
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
    child: ChildHandle,
    deadline: Deadline,
    context: Context,
}

/// How far a child has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The parent has received nothing from the child.
    Started,
    /// The child has reached `init`.
    Ready,
}

impl Launching {
    fn start(entry_point: EntryPoint, context: Context) -> Result<Self, SpawnError> {
        let failed = |operation| move |error| context.os(operation, error);
        let (control, inherited) = ControlSocket::pair().map_err(failed("make a socket pair"))?;
        let mut marker = Marker { parent: process::id(), stdout: None };
        let mut command = Command::new(EXECUTABLE);
        // As descriptor 0 it needs no preparation between fork and exec.
        command.arg0(first_argument()).stdin(inherited);
        let stdout;
        if let EntryPoint::Test(test) = entry_point {
            // The harness prints "running 1 test" to /dev/null; the child restores the real standard output.
            stdout =
                io::stdout().as_fd().try_clone_to_owned().map_err(failed("duplicate the standard output"))?;
            marker.stdout = Some(stdout.as_raw_fd());
            sys::let_child_inherit(&mut command, stdout.as_raw_fd());
            command.args(["--exact", test, "--nocapture", "--test-threads=1"]).stdout(Stdio::null());
        }
        command.env(MARKER, marker.to_text());
        let deadline = Deadline::after(context.limit);
        let mut child = command.spawn().map_err(failed("execute /proc/self/exe"))?;
        match ChildHandle::new(child.id(), control) {
            Ok(child) => Ok(Self { child, deadline, context }),
            Err(error) => {
                // Not waited for yet, so the process id is still the child's own.
                let _ = child.kill();
                let _ = child.wait();
                Err(context.os("open a pidfd (needs Linux 5.4)", error))
            }
        }
    }

    /// Steps 1 to 5 of the handoff.
    fn hand_over<A, R>(
        &self,
        settings: &Settings,
        [entry, function]: [FunctionName; 2],
        args: A,
        rendezvous: &ScratchDirectory,
    ) -> Result<IpcReceiver<Outcome<R>>, SpawnError>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let directory = rendezvous.path().as_os_str().as_bytes().to_vec();
        let call = postcard::to_stdvec(&Call { entry, function, rendezvous: directory });
        let call = call.map_err(|error| self.context.os("encode the call", io::Error::other(error)))?;
        self.send(&call, Stage::Started)?;
        let Reply::Ready { server } = self.receive(Stage::Started)? else {
            return Err(self.context.os("meet the child", io::Error::from(io::ErrorKind::InvalidData)));
        };
        // By way of the descriptor, so that the path is short enough for any socket.
        let server = format!("/proc/self/fd/{}/{server}", rendezvous.as_fd().as_raw_fd());
        let sender = IpcSender::connect(server);
        let sender = sender.map_err(|error| self.explain("meet the child", error, Stage::Ready))?;
        rendezvous.remove();
        self.send(GO, Stage::Ready)?;

        let (outcome, receiver) = ipc::channel().map_err(|error| self.context.os("make a channel", error))?;
        let launch = Launch::<A, R> {
            name: settings.name.clone(),
            daemon: settings.daemon,
            outcome,
            arguments: Payload(args),
        };
        // A `Serialize` may panic, and so does ipc-channel when it gets no descriptor for shared memory.
        let sent = panic::catch_unwind(AssertUnwindSafe(|| handoff::send(&sender, launch)));
        sent.unwrap_or_else(|payload| Err(SendError::Encoding(text_of(payload.as_ref())))).map_err(
            |error| match error {
                SendError::Encoding(why) => self.arguments(&format!("cannot be serialised: {why}")),
                SendError::Os(error) => self.explain("send the arguments", error, Stage::Ready),
            },
        )?;
        self.receive(Stage::Ready)?;
        Ok(receiver)
    }

    fn send(&self, message: &[u8], stage: Stage) -> Result<(), SpawnError> {
        let control = self.child.control_socket().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        let sent = control.and_then(|control| control.send(message));
        sent.map_err(|error| self.explain("speak to the child", error, stage))
    }

    /// Waits for the child's next reply; a refusal is an error.
    fn receive(&self, stage: Stage) -> Result<Reply, SpawnError> {
        let failed = |error| self.context.os("listen to the child", error);
        let pid = self.child.pid();
        let mut control = self.child.control_socket();
        loop {
            let socket = control.map(ControlSocket::as_fd);
            let watched: Vec<_> = [Some(self.child.pidfd()), socket].into_iter().flatten().collect();
            let ready = sys::wait_readable(&watched, self.deadline).map_err(failed)?;
            // The socket first: a child may send its reason and exit.
            if let (Some(open), Some(true)) = (control, ready.get(1)) {
                let reply = open.receive().map_err(failed)?;
                if reply.is_empty() {
                    control = None;
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
                let Context { function, limit } = self.context;
                return Err(match stage {
                    Stage::Started => SpawnError::InitNotReached { pid, code: None },
                    Stage::Ready => SpawnError::TimedOut { pid, function, limit },
                });
            }
        }
    }

    /// Returns the error for a failed operation. Most likely it failed because the child is dying, so this
    /// waits for its end.
    fn explain(&self, operation: &'static str, error: io::Error, stage: Stage) -> SpawnError {
        const DYING: Duration = Duration::from_secs(1);
        if self.child.wait(Deadline::after(DYING)).unwrap_or(false) {
            return self.ended(stage);
        }
        self.context.os(operation, error)
    }

    /// Returns the error for a child that has ended before it called its function.
    fn ended(&self, stage: Stage) -> SpawnError {
        let (pid, function) = (self.child.pid(), self.context.function);
        let unknown = |error| self.context.os("learn how the child ended", error);
        match self.child.reap(self.deadline) {
            Ok(Reaped::Ended(status)) => match status.code() {
                Some(code) if stage == Stage::Started => SpawnError::InitNotReached { pid, code: Some(code) },
                _ => SpawnError::Died { pid, function, status },
            },
            Ok(Reaped::ByAnother) => {
                unknown(io::Error::other("another wait in this program took its status"))
            }
            Ok(Reaped::NotYet) => unknown(io::Error::from(io::ErrorKind::TimedOut)),
            Err(error) => unknown(error),
        }
    }

    fn arguments(&self, message: &str) -> SpawnError {
        SpawnError::Arguments { function: self.context.function, message: message.to_owned() }
    }
}
