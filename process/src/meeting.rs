//! The directory in which parent and child meet, for as long as it takes.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use multiproc_shm::{Namespace, ScratchDirectory};

/// A scratch directory of the namespace. If both processes are killed, the first spawn of any process removes it.
#[derive(Debug)]
pub(crate) struct MeetingPlace(ScratchDirectory);

impl MeetingPlace {
    pub(crate) fn make(namespace: &Namespace) -> io::Result<Self> {
        namespace.scratch_directory().map(Self)
    }

    /// Removes the directory: the two processes have met, or never will.
    pub(crate) fn remove(&self) {
        self.0.remove();
    }

    /// Returns the path by which the child finds it.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns a path to what is below it, short enough for a socket. It works in this process only.
    pub(crate) fn short_path(&self, below: &str) -> String {
        format!("/proc/self/fd/{}/{below}", self.0.as_fd().as_raw_fd())
    }
}
