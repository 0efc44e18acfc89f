//! Errors of starting a process, and of getting its result.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why [`Process::spawn`](crate::Process::spawn) failed. After an error no child is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// This process never called [`init`](crate::init()). Nor would its child, which would run the whole of
    /// `main`.
    #[error(
        "cannot start `{function}`: call `multiproc::init()` as the first line of `main`, \
         or `multiproc::test_support!()` in a test crate"
    )]
    NotInitialised {
        /// The type of the function.
        function: &'static str,
    },
    /// `/proc` is not mounted, so this program cannot find its own file.
    #[error("cannot start this program again: `{path}` cannot be read: {source}")]
    NoProc {
        /// The path that could not be read.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The function lies in a shared library, where a child would not find it: the library may be loaded at
    /// another address, or not at all.
    #[error(
        "cannot start `{function}`: it lies outside of the main program; wrap it in a function of your own"
    )]
    OutsideImage {
        /// The type of the function.
        function: &'static str,
    },
    /// The namespace directory, in which parent and child connect, cannot be used.
    #[error(transparent)]
    Namespace(#[from] multiproc_shm::Error),
    /// The operating system started no process, or communication with the child failed.
    #[error("cannot start `{function}`: {operation}: {source}")]
    Os {
        /// The type of the function.
        function: &'static str,
        /// The operation that failed.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The child ran, but did not call [`init`](crate::init()): it is not the first line of `main`, or the
    /// program ended before.
    #[error(
        "process {pid} did not reach `multiproc::init()`: {}; make it the first line of `main`",
        ended(*code)
    )]
    InitNotReached {
        /// The child, which has been reaped.
        pid: u32,
        /// The exit code; `None` if the child still ran when the time to start was over, and was killed.
        code: Option<i32>,
    },
    /// The child died before it called the function.
    #[error("process {pid} died before it began with `{function}`: {status}")]
    Died {
        /// The child.
        pid: u32,
        /// The type of the function.
        function: &'static str,
        /// How the child died.
        status: ExitStatus,
    },
    /// The child reached [`init`](crate::init()), but had not called the function when the time to start was
    /// over. It was killed.
    #[error("process {pid} did not begin with `{function}` within {limit:?}")]
    TimedOut {
        /// The child, which has been reaped.
        pid: u32,
        /// The type of the function.
        function: &'static str,
        /// The time that the child had.
        limit: Duration,
    },
    /// The parent could not serialise the arguments, or the child could not deserialise them.
    #[error("arguments of `{function}`: {message}")]
    Arguments {
        /// The type of the function.
        function: &'static str,
        /// serde's message.
        message: String,
    },
    /// The child refused the call, for instance because it runs another build of the program than its parent.
    #[error("process {pid} refused `{function}`: {message}")]
    Refused {
        /// The child, which has been reaped.
        pid: u32,
        /// The type of the function.
        function: &'static str,
        /// The child's reason.
        message: String,
    },
}

/// Why [`Process::join`](crate::Process::join) cannot return how a child ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// An earlier call returned the value.
    #[error("the value of process {pid} has been taken")]
    ValueTaken {
        /// The child.
        pid: u32,
    },
    /// The child could not serialise the value of the function, or the parent could not deserialise it.
    #[error("result of process {pid}: {message}")]
    Result {
        /// The child.
        pid: u32,
        /// serde's message.
        message: String,
    },
    /// The child ended without a result, and its exit status is lost: another part of this program waited for
    /// any child, or ignores SIGCHLD.
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
        /// The operating system's error.
        source: io::Error,
    },
}

fn ended(code: Option<i32>) -> String {
    code.map_or_else(
        || "it still ran when the time to start was over".to_owned(),
        |code| format!("it exited with code {code}"),
    )
}
