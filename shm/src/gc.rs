//! [`Gc`]: removes what killed processes have left. Everything that removes an unused name is here.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use multiproc_robust::planted_bugs::{Bug, is_planted};

use crate::error::Error;
use crate::header::{self, IN_FLIGHT_AGE};
use crate::name::Name;
use crate::namespace::{DirectoryLock, Namespace};
use crate::scratch;
use crate::sys;

/// A sweep, which removes what killed processes have left. It keeps objects that are in use, persistent, or
/// referenced by a handle in a message.
///
/// ```
/// use multiproc_shm::{Gc, Namespace};
///
/// let report = Gc::new().dry_run(true).run(&Namespace::current()?)?;
/// println!("would remove {:?}", report.removed);
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "call `run`"]
pub struct Gc {
    dry_run: bool,
    in_flight_age: Duration,
}

/// What a sweep found: file names. Those of anonymous objects begin with a dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Removed; in a dry run, what would be removed.
    pub removed: Vec<String>,
    /// In use, persistent, referenced by a handle in a message, or no object of this crate.
    pub kept: Vec<String>,
}

impl Gc {
    /// Returns a sweep that removes, and keeps objects that a handle in a message references, for ten
    /// minutes.
    pub fn new() -> Self {
        Self { dry_run: false, in_flight_age: IN_FLIGHT_AGE }
    }

    /// Only reports what would be removed.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets the age from which an in-flight reference counts as lost. Zero: all count as lost.
    pub fn in_flight_age(mut self, age: Duration) -> Self {
        self.in_flight_age = age;
        self
    }

    /// Sweeps this namespace.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the directory cannot be read or locked.
    pub fn run(self, namespace: &Namespace) -> Result<GcReport, Error> {
        self.run_on(namespace, usize::MAX)
    }

    /// Sweeps the first entries of this namespace.
    fn run_on(self, namespace: &Namespace, entries: usize) -> Result<GcReport, Error> {
        let failed = |error| Error::os("sweep", namespace.path().display(), error);
        let mut report = GcReport::default();
        for entry in std::fs::read_dir(namespace.path()).map_err(failed)?.take(entries) {
            let entry = entry.map_err(failed)?;
            let shown = entry.file_name().to_string_lossy().into_owned();
            let removed = match Name::existing(&shown, "sweep") {
                Ok(_) if scratch::is_scratch(&shown) => {
                    scratch::remove_if_unused(&entry.path(), self.dry_run)
                }
                Ok(name) => {
                    let lock = namespace.lock("sweep")?;
                    remove_if_unused(namespace, &lock, &name, None, self).unwrap_or(false)
                }
                Err(_) => false,
            };
            if removed { report.removed.push(shown) } else { report.kept.push(shown) }
        }
        Ok(report)
    }
}

impl Default for Gc {
    fn default() -> Self {
        Self::new()
    }
}

/// Sweeps the default namespace.
///
/// # Errors
///
/// Returns [`Error`] if the directory cannot be read or locked.
pub fn gc() -> Result<GcReport, Error> {
    Gc::new().run(&Namespace::current()?)
}

/// How long the process waits for the directory's lock when its last handle is dropped. After that the name
/// is left to a sweep.
const DROP_LIMIT: Duration = Duration::from_millis(20);
/// How many entries the first creation of a process sweeps.
const FIRST_SWEEP: usize = 64;

/// Removes a few leftovers of killed processes, once per process.
pub(crate) fn first_sweep(namespace: &Namespace) {
    // No `OnceLock`: a child that is forked during the sweep would wait for a thread that it does not have.
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Relaxed) {
        let _ = Gc::new().run_on(namespace, FIRST_SWEEP);
    }
}

/// Removes the name of an object that this process has just unmapped, unless another process uses it.
pub(crate) fn remove_if_last(namespace: &Namespace, name: &Name, identity: (u64, u64)) {
    if let Ok(Some(lock)) = namespace.lock_within(DROP_LIMIT) {
        let _ = remove_if_unused(namespace, &lock, name, Some(identity), Gc::new());
    }
}

/// Removes a name if the object is a leftover. Returns whether the name is free.
pub(crate) fn remove_stale(
    namespace: &Namespace,
    name: &Name,
    operation: &'static str,
) -> Result<bool, Error> {
    let lock = namespace.lock(operation)?;
    match remove_if_unused(namespace, &lock, name, None, Gc::new()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        result => result.map_err(|error| Error::os(operation, name, error)),
    }
}

/// Removes a name if no process has the object mapped and nothing keeps it. With an `identity`: only if the
/// name still means this inode. Returns whether it did; in a dry run, whether it would.
pub(crate) fn remove_if_unused(
    namespace: &Namespace,
    _lock: &DirectoryLock,
    name: &Name,
    identity: Option<(u64, u64)>,
    gc: Gc,
) -> io::Result<bool> {
    let file = sys::open_at(namespace.file(), name.as_c_str())?;
    let metadata = file.metadata()?;
    let found = (metadata.dev(), metadata.ino());
    if identity.is_some_and(|mine| mine != found) && !is_planted(Bug::UnlinkWithoutInode) {
        return Ok(false);
    }
    // Processes ask for an exclusive lock only while they hold the directory's lock, as this one does. So a
    // refusal means that a process uses the object.
    if !metadata.is_file() || (!sys::lock_file(&file, true)? && !is_planted(Bug::UnlinkWithoutInode)) {
        return Ok(false);
    }
    let stays = match header::must_stay(&file, name.is_temporary(), gc.in_flight_age) {
        Some(stays) => stays,
        // Without a header a file with a temporary name is of a process that died while it made an object.
        // Another file is not of this crate.
        None => !name.is_temporary(),
    };
    if stays || gc.dry_run {
        // As for the directory: a forked child may have the descriptor, too.
        file.unlock()?;
        return Ok(!stays);
    }
    // CRASH: before this call the file is complete and unused, and the next process to look removes it; after
    // it, it has gone.
    sys::remove_at(namespace.file(), name.as_c_str())?;
    Ok(true)
}
