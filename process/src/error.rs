//! Why a process could not be started, and why the result of one cannot be told.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why [`Process::spawn`](crate::Process::spawn) started nothing: after an error no child is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// This process never called [`init`](crate::init()), so its child would not either: it would run `main` from the start.
    #[error(
        "cannot start `{function}`: call `multiproc::init()` as the first line of `main`, or `multiproc::test_support!()` in a test crate"
    )]
    NotInitialised {
        /// The type of the function.
        function: &'static str,
    },
    /// `/proc` is not mounted, so this program cannot find its own file.
    #[error("cannot start this program again: `{path}` cannot be read: {source}")]
    NoProc {
        /// What was looked for.
        path: PathBuf,
        /// Why it was not found.
        source: io::Error,
    },
    /// The function lies in a shared library, where a child would not find it: the library may be loaded elsewhere, or not at all.
    #[error("cannot start `{function}`: it lies outside of the main program; wrap it in a function of your own")]
    OutsideImage {
        /// The type of the function.
        function: &'static str,
    },
    /// The namespace directory, where the child meets us, cannot be used.
    #[error(transparent)]
    Namespace(#[from] multiproc_shm::Error),
    /// The operating system started no process, or did not let us speak with it.
    #[error("cannot start `{function}`: {operation}: {source}")]
    Os {
        /// The type of the function.
        function: &'static str,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The child ran, but did not call [`init`](crate::init()): it is not the first line of `main`, or something ended the program before.
    #[error("process {pid} did not reach `multiproc::init()`: {}; make it the first line of `main`", ended(*code))]
    InitNotReached {
        /// The child, which is gone by now.
        pid: u32,
        /// The code with which it exited; `None` if it still ran when the time to start was over, and was killed.
        code: Option<i32>,
    },
    /// The child died before it could begin with the function.
    #[error("process {pid} died before it began with `{function}`: {status}")]
    Died {
        /// The child.
        pid: u32,
        /// The type of the function.
        function: &'static str,
        /// How it died.
        status: ExitStatus,
    },
    /// The child reached [`init`](crate::init()) but had not begun with the function when the time to start was over, and was killed.
    #[error("process {pid} did not begin with `{function}` within {limit:?}")]
    TimedOut {
        /// The child, which is gone by now.
        pid: u32,
        /// The type of the function.
        function: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// The arguments could not be serialised here, or not be deserialised there.
    #[error("arguments of `{function}`: {message}")]
    Arguments {
        /// The type of the function.
        function: &'static str,
        /// What serde said.
        message: String,
    },
    /// The child found that it is not what the parent takes it for, such as another build of the program.
    #[error("process {pid} refused `{function}`: {message}")]
    Refused {
        /// The child, which is gone by now.
        pid: u32,
        /// The type of the function.
        function: &'static str,
        /// What differs.
        message: String,
    },
}

/// Why [`Process::join`](crate::Process::join) cannot tell how a child ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The value was handed out by an earlier call.
    #[error("the value of process {pid} has been taken")]
    ValueTaken {
        /// The child.
        pid: u32,
    },
    /// The function returned a value which could not be serialised there, or not be deserialised here.
    #[error("result of process {pid}: {message}")]
    Result {
        /// The child.
        pid: u32,
        /// What serde said.
        message: String,
    },
    /// The child ended without a result, and something else in this program took its exit status: a `wait` for any child, or SIGCHLD is ignored.
    #[error("exit status of process {pid} was taken by another wait in this program")]
    StatusLost {
        /// The child.
        pid: u32,
    },
    /// The operating system refused to wait for the child.
    #[error("cannot wait for process {pid}: {source}")]
    Os {
        /// The child.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

fn ended(code: Option<i32>) -> String {
    code.map_or_else(|| "it still ran when the time to start was over".to_owned(), |code| format!("it exited with code {code}"))
}
