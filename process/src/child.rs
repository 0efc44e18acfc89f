//! The child's side: from `init` to the function, and out.

use std::any::Any;
use std::cell::RefCell;
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
use std::thread;

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use multiproc_robust::Deadline;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::handoff::{self, Call, GO, LONGEST, Launch, Marker, Outcome, Payload, Reply, SendError};
use crate::image::{Image, first_argument};
use crate::init::{MYSELF, Myself};
use crate::sys;

/// Lives the child's life.
pub(crate) fn live(marker: Marker) -> ! {
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

/// A child that has been told what to do.
#[derive(Debug)]
pub(crate) struct Child {
    line: Line,
    parent: u32,
    call: Call,
}

/// The function of the program that knows the types of what the child is to do; gives the exit code.
pub(crate) type Entry = fn(Child) -> i32;

/// Step 1 of the handoff. `None`: the parent is gone, or has been told why not.
fn begin(marker: Marker) -> io::Result<Option<(Entry, Child)>> {
    let line = Line(io::stdin().as_fd().try_clone_to_owned()?);
    if let Err(error) = settle(marker) {
        return Ok(line.refuse(format!("cannot set up its descriptors: {error}")));
    }
    let call = line.hear()?;
    if call.is_empty() {
        return Ok(None);
    }
    let entry = postcard::from_bytes::<Call>(&call).map_err(|error| error.to_string()).and_then(|call| {
        let image = Image::of_this_process().map_err(|error| error.to_string())?;
        Ok((image.function::<Entry>(&call.entry)?, call))
    });
    match entry {
        Ok((entry, call)) => Ok(Some((entry, Child { line, parent: marker.parent, call }))),
        Err(why) => Ok(line.refuse(why)),
    }
}

/// Gives the process a signal mask, a standard input, a standard output and a name of its own.
fn settle(marker: Marker) -> io::Result<()> {
    sys::unblock_signals();
    sys::replace_stdin()?;
    if let Some(stdout) = marker.stdout {
        // What the test harness has said so far goes nowhere.
        io::stdout().flush()?;
        sys::replace_stdout(stdout)?;
    }
    let program = first_argument();
    set_title(&Path::new(&program).file_name().unwrap_or(&program).to_string_lossy());
    Ok(())
}

/// What [`Call::entry`] names: gets the arguments, calls the function, sends what comes of it.
pub(crate) fn entry<A, R>(child: Child) -> i32
where
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let Some(function) = child.function::<A, R>() else { return FAILURE };
    let Some(launch) = child.meet::<A, R>() else { return FAILURE };
    let Launch { name, daemon, outcome, arguments: Payload(arguments) } = launch;
    let Child { line, parent, .. } = child;
    if let Some(name) = &name {
        set_title(name);
    }
    // Nothing else sets it.
    let _ = MYSELF.set(Myself { parent, name });
    report_panics(&outcome);
    if daemon && let Err(error) = line.end_with(parent) {
        line.refuse::<()>(format!("cannot watch the parent: {error}"));
        return FAILURE;
    }
    // If the parent is dead by now, it might as well have died a moment later.
    let _ = line.say(&Reply::Running);
    drop(line);
    run(function, arguments, &outcome)
}

impl Child {
    /// `None`: the parent has been told why not.
    fn function<A, R>(&self) -> Option<fn(A) -> R> {
        let image = Image::of_this_process().map_err(|error| error.to_string());
        match image.and_then(|image| Ok(image.function(&self.call.function)?)) {
            Ok(function) => Some(function),
            Err(why) => self.line.refuse(why),
        }
    }

    /// Steps 2 to 4 of the handoff. `None`: the parent is gone, or has been told why not.
    fn meet<A, R>(&self) -> Option<Launch<A, R>>
    where
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let (server, path) = match self.serve() {
            Ok(both) => both,
            Err(why) => return self.line.refuse(why),
        };
        self.line.say(&Reply::Ready { server: path }).ok()?;
        // Anything else is the parent's end.
        if self.line.hear().ok()? != GO {
            return None;
        }
        match panic::catch_unwind(AssertUnwindSafe(|| server.accept())) {
            Ok(Ok((_, launch))) => Some(launch),
            Ok(Err(IpcError::SerializationError(error))) => self.line.refuse_arguments(handoff::describe(&error)),
            Ok(Err(_)) => None,
            Err(payload) => self.line.refuse_arguments(describe_panic(payload.as_ref()).0),
        }
    }

    /// An ipc-channel server in the meeting place, and its path below that. ipc-channel puts its socket into the directory for temporary
    /// files and nowhere else, so that is moved for the moment; by way of the descriptor the path is short enough for any socket.
    fn serve<A, R>(&self) -> Result<(IpcOneShotServer<Launch<A, R>>, String), String>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        const TEMPORARY: &str = "TMPDIR";
        let place = OsString::from_vec(self.call.meeting_place.clone());
        let failed = |error: io::Error| format!("cannot meet the parent in {}: {error}", place.display());
        let directory = File::open(&place).map_err(failed)?;
        let short = format!("/proc/self/fd/{}/", directory.as_raw_fd());
        let before = env::var_os(TEMPORARY);
        sys::set_variable(TEMPORARY, OsStr::new(&short));
        let server = IpcOneShotServer::new();
        match before {
            Some(before) => sys::set_variable(TEMPORARY, &before),
            None => sys::remove_variable(TEMPORARY),
        }
        let (server, path) = server.map_err(failed)?;
        let below = path.strip_prefix(&short).ok_or_else(|| format!("{path} is outside of {}", place.display()))?;
        Ok((server, below.to_owned()))
    }
}

/// Calls the function, sends what comes of it, and gives the exit code.
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
        // The parent is gone, and nobody else asks.
        Ok(Err(SendError::Os(_))) => return FAILURE,
        Ok(Err(SendError::Encoding(why))) => (Outcome::Unsendable(why), FAILURE),
        Err(payload) => {
            let (message, location) = describe_panic(payload.as_ref());
            // Its destructor could panic again.
            std::mem::forget(payload);
            (Outcome::Panic { message, location }, PANICKED)
        }
    };
    // As above.
    let _ = handoff::send(outcome, failure);
    code
}

/// The child's end of the handshake socket.
#[derive(Debug)]
struct Line(OwnedFd);

impl Line {
    fn hear(&self) -> io::Result<Vec<u8>> {
        sys::receive(self.0.as_fd(), LONGEST)
    }

    fn say(&self, reply: &Reply) -> io::Result<()> {
        let bytes = postcard::to_stdvec(reply).map_err(io::Error::other)?;
        sys::send(self.0.as_fd(), &bytes)
    }

    /// If the parent does not hear it, it is gone.
    fn refuse<T>(&self, why: impl Into<String>) -> Option<T> {
        let _ = self.say(&Reply::Refused { arguments: false, message: shortened(why.into()) });
        None
    }

    fn refuse_arguments<T>(&self, why: String) -> Option<T> {
        let _ = self.say(&Reply::Refused { arguments: true, message: shortened(why) });
        None
    }

    /// From now on this process ends when the parent does. The line alone would tell, but a fork of the parent that does not `exec` keeps
    /// its other end open; a descriptor of the parent tells too. `PR_SET_PDEATHSIG` would strike when the *thread* ends that spawned us.
    fn end_with(&self, parent: u32) -> io::Result<()> {
        let line = self.0.try_clone()?;
        let parent_itself = sys::pidfd_open(parent).ok();
        if parent_id() != parent {
            // It was gone already, and its number may be another's.
            sys::exit_now(FAILURE);
        }
        let watch = move || {
            sys::block_signals();
            let watched: Vec<_> = [Some(&line), parent_itself.as_ref()].into_iter().flatten().map(OwnedFd::as_fd).collect();
            // An error would mean that nobody watches any more.
            let _ = sys::wait_readable(&watched, Deadline::NEVER);
            sys::exit_now(FAILURE)
        };
        thread::Builder::new().name("multiproc-lifeline".to_owned()).stack_size(SMALL_STACK).spawn(watch).map(drop)
    }
}

/// A panic, as the hook saw it.
struct Panic {
    message: String,
    location: Option<String>,
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Has panics remembered, which are printed as ever. Where a panic aborts, it is sent at once: there is no later.
fn report_panics<R>(outcome: &IpcSender<Outcome<R>>)
where
    R: Serialize + DeserializeOwned,
{
    let aborts = cfg!(panic = "abort").then(|| outcome.clone().to_opaque().to::<Outcome<()>>());
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        let message = text_of(info.payload());
        let location = info.location().map(ToString::to_string);
        if let Some(outcome) = &aborts {
            // If the parent is gone, nobody asks.
            let _ = handoff::send(outcome, Outcome::Panic { message, location });
        } else {
            // Gone only in a thread that is being torn down, whose panics are nobody's result.
            let _ = LAST_PANIC.try_with(|last| last.replace(Some(Panic { message, location })));
        }
    }));
}

/// Message and place of a panic that was caught; no place when it is not the one the hook saw, as after `resume_unwind`.
fn describe_panic(payload: &(dyn Any + Send)) -> (String, Option<String>) {
    let message = text_of(payload);
    let seen = LAST_PANIC.take().filter(|seen| seen.message == message);
    (message, seen.and_then(|seen| seen.location))
}

/// What a panic said.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a value that is no text").to_owned()
}

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(LONGEST / 2));
    message
}

fn set_title(title: &str) {
    if let Ok(title) = CString::new(title) {
        sys::set_process_title(&title);
    }
}

#[allow(clippy::print_stderr, reason = "there is nobody else to tell")]
fn complain(why: std::fmt::Arguments<'_>) {
    eprintln!("multiproc: {why}");
}

#[allow(clippy::exit, reason = "the function is done, and `main` must not run")]
fn exit(code: i32) -> ! {
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    process::exit(code)
}

/// The exit code of a child that could not do what it was asked; the parent gets the reason in words.
const FAILURE: i32 = 1;
/// As of a program whose `main` panicked.
const PANICKED: i32 = 101;
/// For a thread that waits and does nothing else.
pub(crate) const SMALL_STACK: usize = 64 * 1024;
