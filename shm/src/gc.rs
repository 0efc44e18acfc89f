//! [`Gc`]: what killed processes left in a namespace, taken away.

use std::time::Duration;

use crate::error::Error;
use crate::name::Name;
use crate::namespace::Namespace;
use crate::scratch;

/// A sweep of what killed processes left behind. Objects in use, persistent ones and those with a handle on its way stay.
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
    ticket_age: Duration,
}

/// What a sweep found: file names, anonymous objects with a leading dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Taken away; in a dry run: would be.
    pub removed: Vec<String>,
    /// In use, persistent, on their way, or not ours.
    pub kept: Vec<String>,
}

impl Gc {
    /// A real sweep, in which handles may have been on their way for ten minutes.
    pub fn new() -> Self {
        Self { dry_run: false, ticket_age: TICKET_AGE }
    }

    /// Only tell what would be removed.
    pub fn dry_run(mut self, dry: bool) -> Self {
        self.dry_run = dry;
        self
    }

    /// How old a ticket must be to count as lost; zero: all are.
    pub fn ticket_age(mut self, age: Duration) -> Self {
        self.ticket_age = age;
        self
    }

    /// Sweeps this namespace.
    ///
    /// # Errors
    ///
    /// [`Error`] when the directory cannot be read or locked.
    pub fn run(self, namespace: &Namespace) -> Result<GcReport, Error> {
        namespace.sweep(usize::MAX, self.ticket_age, self.dry_run)
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
/// [`Error`] when the directory cannot be read or locked.
pub fn gc() -> Result<GcReport, Error> {
    Gc::new().run(&Namespace::current()?)
}

impl Namespace {
    /// Looks at so many entries.
    pub(crate) fn sweep(&self, limit: usize, ticket_age: Duration, dry: bool) -> Result<GcReport, Error> {
        let failed = |error| Error::os("sweep", self.path().display(), error);
        let mut report = GcReport::default();
        for entry in std::fs::read_dir(self.path()).map_err(failed)?.take(limit) {
            let entry = entry.map_err(failed)?;
            let shown = entry.file_name().to_string_lossy().into_owned();
            let removed = match Name::existing(&shown, "sweep") {
                Ok(_) if scratch::is_scratch(&shown) => scratch::remove_if_unused(&entry.path(), dry),
                Ok(name) => {
                    let lock = self.lock("sweep")?;
                    self.remove_if_unused(&lock, &name, None, ticket_age, dry).unwrap_or(false)
                }
                Err(_) => false,
            };
            if removed { report.removed.push(shown) } else { report.kept.push(shown) }
        }
        Ok(report)
    }
}

/// How long a handle may be on its way between two processes before its object may be swept.
pub(crate) const TICKET_AGE: Duration = Duration::from_secs(600);
