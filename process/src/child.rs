//! The child's part: from `init` to the function, and to the exit.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::parent_id;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use multiproc_robust::Deadline;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control_socket::ControlSocket;
use crate::handoff::{self, Call, GO, Launch, Marker, Outcome, Payload, Reply, SendError};
use crate::helper_thread;
use crate::image::{Image, first_argument};
use crate::panic_report;
use crate::sys;
use crate::this_process::{THIS_PROCESS, ThisProcess};

/// Runs the function that the parent asks for, and exits.
pub(crate) fn run_and_exit(marker: Marker) -> ! {
    let code = match begin(marker) {
        Ok(Some((entry, child))) => entry(child),
        Ok(None) => FAILURE,
        Err(error) => {
            complain(format_args!("a child of process {} cannot begin: {error}", marker.parent));
            FAILURE
        }
    };
    exit(code)
}

/// A child that has received its call.
#[derive(Debug)]
pub(crate) struct Child {
    control: Control,
    parent: u32,
    call: Call,
}

/// The program's own function that knows the types of the call; returns the exit code.
pub(crate) type Entry = fn(Child) -> i32;

/// Step 1 of the handoff. `None`: the parent has ended, or the child has sent it a refusal.
fn begin(marker: Marker) -> io::Result<Option<(Entry, Child)>> {
    let control = Control(ControlSocket::inherited()?);
    if let Err(error) = set_up(marker) {
        return Ok(control.refuse(format!("cannot set up its descriptors: {error}")));
    }
    let call = control.0.receive()?;
    if call.is_empty() {
        return Ok(None);
    }
    let entry = postcard::from_bytes::<Call>(&call).map_err(|error| error.to_string()).and_then(|call| {
        let image = Image::of_this_process().map_err(|error| error.to_string())?;
        Ok((image.function::<Entry>(&call.entry)?, call))
    });
    match entry {
        Ok((entry, call)) => Ok(Some((entry, Child { control, parent: marker.parent, call }))),
        Err(why) => Ok(control.refuse(why)),
    }
}

/// Gives the process a signal mask, a standard input, a standard output and a name of its own.
fn set_up(marker: Marker) -> io::Result<()> {
    sys::unblock_signals();
    sys::replace_stdin()?;
    if let Some(stdout) = marker.stdout {
        // Flushed before the exchange: what the test harness has printed so far goes to /dev/null.
        io::stdout().flush()?;
        sys::replace_stdout(stdout)?;
    }
    let program = first_argument();
    set_title(&Path::new(&program).file_name().unwrap_or(&program).to_string_lossy());
    Ok(())
}

/// The function that [`Call::entry`] names: receives the arguments, calls the function, sends the outcome.
pub(crate) fn entry<A, R>(child: Child) -> i32
where
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let Some(function) = child.function::<A, R>() else { return FAILURE };
    let Some(launch) = child.receive_launch::<A, R>() else { return FAILURE };
    let Launch { name, daemon, outcome, arguments: Payload(arguments) } = launch;
    let Child { control, parent, .. } = child;
    if let Some(name) = &name {
        set_title(name);
    }
    // Set here only, so it cannot be set already.
    let _ = THIS_PROCESS.set(ThisProcess { parent, name });
    panic_report::install_hook(&outcome);
    if daemon && let Err(error) = control.end_with(parent) {
        control.refuse::<()>(format!("cannot watch the parent: {error}"));
        return FAILURE;
    }
    // A parent that has ended by now might as well have ended a moment later: the function is called.
    let _ = control.reply(&Reply::Running);
    drop(control);
    run(function, arguments, &outcome)
}

impl Child {
    /// `None`: the child has sent a refusal.
    fn function<A, R>(&self) -> Option<fn(A) -> R> {
        let image = Image::of_this_process().map_err(|error| error.to_string());
        match image.and_then(|image| Ok(image.function(&self.call.function)?)) {
            Ok(function) => Some(function),
            Err(why) => self.control.refuse(why),
        }
    }

    /// Steps 2 to 4 of the handoff. `None`: the parent has ended, or the child has sent it a refusal.
    fn receive_launch<A, R>(&self) -> Option<Launch<A, R>>
    where
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let (server, path) = match self.make_server() {
            Ok(both) => both,
            Err(why) => return self.control.refuse(why),
        };
        self.control.reply(&Reply::Ready { server: path }).ok()?;
        // Anything else means that the parent has ended.
        if self.control.0.receive().ok()? != GO {
            return None;
        }
        match panic::catch_unwind(AssertUnwindSafe(|| server.accept())) {
            Ok(Ok((_, launch))) => Some(launch),
            Ok(Err(IpcError::SerializationError(error))) => {
                self.control.refuse_arguments(handoff::describe(&error))
            }
            Ok(Err(_)) => None,
            Err(payload) => self.control.refuse_arguments(panic_report::describe(payload.as_ref()).0),
        }
    }

    /// Makes an ipc-channel server in the rendezvous directory; also returns the server's path below that
    /// directory.
    ///
    /// ipc-channel puts its socket into the directory for temporary files and nowhere else, so `TMPDIR` is
    /// changed for this one call. A path through the descriptor of the directory is short enough for any
    /// socket.
    fn make_server<A, R>(&self) -> Result<(IpcOneShotServer<Launch<A, R>>, String), String>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        const TEMPORARY: &str = "TMPDIR";
        let rendezvous = OsString::from_vec(self.call.rendezvous.clone());
        let failed =
            |error: io::Error| format!("cannot meet the parent in {}: {error}", rendezvous.display());
        let directory = File::open(&rendezvous).map_err(failed)?;
        let short = format!("/proc/self/fd/{}/", directory.as_raw_fd());
        let before = env::var_os(TEMPORARY);
        sys::set_variable(TEMPORARY, OsStr::new(&short));
        let server = IpcOneShotServer::new();
        match before {
            Some(before) => sys::set_variable(TEMPORARY, &before),
            None => sys::remove_variable(TEMPORARY),
        }
        let (server, path) = server.map_err(failed)?;
        let below = path
            .strip_prefix(&short)
            .ok_or_else(|| format!("{path} is outside of {}", rendezvous.display()))?;
        Ok((server, below.to_owned()))
    }
}

/// Calls the function, sends the outcome, and returns the exit code.
fn run<A, R>(function: fn(A) -> R, arguments: A, outcome: &IpcSender<Outcome<R>>) -> i32
where
    R: Serialize + DeserializeOwned,
{
    let called = panic::catch_unwind(AssertUnwindSafe(|| {
        let value = function(arguments);
        handoff::send(outcome, Outcome::Value(Payload(value)))
    }));
    let (failure, code) = match called {
        Ok(Ok(())) => return 0,
        // The parent has ended: no process waits for the outcome.
        Ok(Err(SendError::Os(_))) => return FAILURE,
        Ok(Err(SendError::Encoding(why))) => (Outcome::Unsendable(why), FAILURE),
        Err(payload) => {
            let (message, location) = panic_report::describe(payload.as_ref());
            // Its destructor could panic again.
            std::mem::forget(payload);
            (Outcome::Panic { message, location }, PANICKED)
        }
    };
    // As above: an error means that the parent has ended.
    let _ = handoff::send(outcome, failure);
    code
}

/// The child's end of the control socket.
#[derive(Debug)]
struct Control(ControlSocket);

impl Control {
    fn reply(&self, reply: &Reply) -> io::Result<()> {
        let bytes = postcard::to_stdvec(reply).map_err(io::Error::other)?;
        self.0.send(&bytes)
    }

    /// Sends a refusal; an error means that the parent has ended.
    fn refuse<T>(&self, why: impl Into<String>) -> Option<T> {
        let _ = self.reply(&Reply::Refused { arguments: false, message: shortened(why.into()) });
        None
    }

    fn refuse_arguments<T>(&self, why: String) -> Option<T> {
        let _ = self.reply(&Reply::Refused { arguments: true, message: shortened(why) });
        None
    }

    /// Makes this process end when the parent ends. The control socket alone would show the parent's end,
    /// except where the parent has forked without `exec`: such a fork keeps the other end open. So a pidfd of
    /// the parent is watched as well. `PR_SET_PDEATHSIG` would act when the *thread* ends that spawned this
    /// process.
    fn end_with(&self, parent: u32) -> io::Result<()> {
        let control = self.0.try_clone()?;
        let pidfd = sys::pidfd_open(parent).ok();
        if parent_id() != parent {
            // The parent ended before, and its process id may be another process's by now.
            sys::exit_now(FAILURE);
        }
        helper_thread::start("multiproc-lifeline", move || {
            let watched: Vec<_> =
                [Some(control.as_fd()), pidfd.as_ref().map(OwnedFd::as_fd)].into_iter().flatten().collect();
            // After an error nothing would watch the parent, so the process ends then, too.
            let _ = sys::wait_readable(&watched, Deadline::NEVER);
            sys::exit_now(FAILURE)
        })
    }
}

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(ControlSocket::LONGEST / 2));
    message
}

fn set_title(title: &str) {
    if let Ok(title) = CString::new(title) {
        sys::set_process_title(&title);
    }
}

#[allow(clippy::print_stderr, reason = "no call is running that could return the error")]
fn complain(why: std::fmt::Arguments<'_>) {
    eprintln!("multiproc: {why}");
}

#[allow(clippy::exit, reason = "the function is done, and `main` must not run")]
fn exit(code: i32) -> ! {
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    process::exit(code)
}

/// The exit code of a child that could not do what it was asked; the parent gets the reason as text.
const FAILURE: i32 = 1;
/// As of a program whose `main` panicked.
const PANICKED: i32 = 101;
