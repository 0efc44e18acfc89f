//! The place where parent and child meet: a directory of their own in the namespace, for as long as it takes.
//!
//! Its maker holds a `flock` on it, which ends with the maker. So what a killed parent leaves (if its child was killed too, else the child
//! removes it) is told from what is in use, and the first spawn of any process sweeps it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use multiproc_shm::Namespace;

/// A directory that is ours while this lives.
#[derive(Debug)]
pub(crate) struct MeetingPlace {
    path: PathBuf,
    directory: File,
}

/// What all of them begin with: a leading dot, so no object's name.
const PREFIX: &str = ".spawn-";

impl MeetingPlace {
    pub(crate) fn make(namespace: &Namespace) -> io::Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // The child opens it by its path, which must mean the same if one of us changes its directory.
        let namespace = std::path::absolute(namespace.path())?;
        SWEEP.call_once(|| sweep(&namespace));
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = namespace.join(format!("{PREFIX}{}-{number}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                // Of another process with our number, earlier or in another pid namespace.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // CRASH: empty and not locked, the next sweep takes it. It may do so to us as well, between these lines: then once more.
            match lock(&path) {
                Ok(Some(directory)) => return Ok(Self { path, directory }),
                Ok(None) => {}
                Err(error) => {
                    // No descriptor to be had, most likely. It is empty.
                    let _ = fs::remove_dir(&path);
                    return Err(error);
                }
            }
        }
    }

    /// Takes it away; the two have met, or never will.
    pub(crate) fn remove(&self) {
        // Once gone, the name may be that of a process with our number in another pid namespace.
        if self.directory.metadata().is_ok_and(|directory| directory.nlink() > 0) {
            // Most often it is empty, and then it takes no descriptor: there may be none left.
            if fs::remove_dir(&self.path).is_err() {
                // What cannot be removed is left to a sweep.
                let _ = fs::remove_dir_all(&self.path);
            }
        }
    }

    /// Where the child finds it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is below it, by a path that is short enough for a socket. Works in this process only.
    pub(crate) fn short_path(&self, below: &str) -> String {
        format!("/proc/self/fd/{}/{below}", self.directory.as_raw_fd())
    }
}

impl Drop for MeetingPlace {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Opens and locks it; `None` if somebody else has, or has removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match directory.try_lock() {
        Ok(()) => Ok((directory.metadata()?.nlink() > 0).then_some(directory)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes what has no living maker: a bounded number, so that no spawn takes long.
fn sweep(namespace: &Path) {
    const MANY: usize = 64;
    let Ok(entries) = fs::read_dir(namespace) else { return };
    let ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    for entry in entries.flatten().filter(|entry| ours(&entry.file_name())).take(MANY) {
        if let Ok(Some(directory)) = lock(&entry.path()) {
            drop(MeetingPlace { path: entry.path(), directory });
        }
    }
}
