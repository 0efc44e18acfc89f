//! [`ScratchDirectory`]: a directory in a namespace, for files that two processes need for a moment.
//!
//! The process that makes it holds a `flock` on it. The kernel releases that lock when the process ends. So a
//! scratch directory that nothing has locked was left by a killed process, and a sweep removes it with all
//! that is in it.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::namespace::Namespace;
use crate::sys;

/// A directory that no other process makes or removes while this value lives. Dropping it removes the
/// directory.
#[derive(Debug)]
pub struct ScratchDirectory {
    path: PathBuf,
    directory: File,
}

/// How all their names begin. The leading dot keeps them apart from the names of objects.
const PREFIX: &str = ".scratch-";
/// How many scratch directories the first one of a process looks at, so that making one never takes long.
const FIRST_SWEEP: usize = 64;

impl Namespace {
    /// Makes a directory of mode 0700 for files that a few processes need for a moment. Its path is absolute.
    ///
    /// The first call of a process also removes scratch directories that killed processes left in this
    /// namespace.
    ///
    /// # Errors
    ///
    /// Returns what the operating system says if the directory cannot be made or opened.
    #[doc(hidden)]
    pub fn scratch_directory(&self) -> io::Result<ScratchDirectory> {
        // No `Once`: a child that is forked during the sweep would wait for a thread that it does not have.
        static SWEPT: AtomicBool = AtomicBool::new(false);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if !SWEPT.swap(true, Relaxed) {
            sweep(self.path());
        }
        loop {
            let number = NEXT.fetch_add(1, Relaxed);
            let path = self.path().join(format!("{PREFIX}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                // Made by a process with the same id, which has ended or lives in another pid namespace.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // CRASH: it is empty and not locked, so the next sweep removes it. A sweep may also do that
            // between these two lines while this process lives; then this loop makes another one.
            match lock(&path) {
                Ok(Some(directory)) => return Ok(ScratchDirectory { path, directory }),
                Ok(None) => {}
                Err(error) => {
                    // Most likely no descriptor is left. The directory is empty.
                    let _ = fs::remove_dir(&path);
                    return Err(error);
                }
            }
        }
    }
}

impl ScratchDirectory {
    /// Returns its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory and its contents. What cannot be removed is left to a sweep.
    pub fn remove(&self) {
        // A directory of this name may belong to a process with the same id in another pid namespace by now.
        if self.directory.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
            remove(&self.path);
        }
    }
}

impl AsFd for ScratchDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether this file name in a namespace is that of a scratch directory.
pub(crate) fn is_scratch(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Removes a scratch directory whose maker has ended. Returns whether it did; in a dry run, whether it would.
pub(crate) fn remove_if_unused(path: &Path, dry_run: bool) -> bool {
    // The lock is held until the directory has gone.
    let Ok(Some(_directory)) = lock(path) else { return false };
    dry_run || remove(path)
}

fn sweep(namespace: &Path) {
    let Ok(entries) = fs::read_dir(namespace) else { return };
    let scratch = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_scratch));
    for entry in scratch.take(FIRST_SWEEP) {
        remove_if_unused(&entry.path(), false);
    }
}

/// Opens and locks the directory; `None` if another process has locked or removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let directory = match sys::open_directory(&CString::new(path.as_os_str().as_encoded_bytes())?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let locked = sys::lock_file(&directory, true)? && directory.metadata()?.nlink() > 0;
    Ok(locked.then_some(directory))
}

fn remove(path: &Path) -> bool {
    // Most often it is empty. Removing an empty one needs no descriptor: there may be none left.
    fs::remove_dir(path).is_ok() || fs::remove_dir_all(path).is_ok()
}
