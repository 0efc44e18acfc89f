//! The directory in which objects have their names, and its sweep.
//!
//! `multiproc-<uid>` below the shared memory file system, mode 0700, checked to be ours; or a directory that was given to a group, mode 2770. Every check-and-unlink, and every decision of `open`, happens under a `flock` on
//! this directory, so that nobody mistakes an object that was made anew for the one that was there before. The kernel gives that lock back when its
//! holder dies. Names are *made* without it: `linkat` is atomic by itself.

use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::access::{self, Access};
use crate::error::{Error, ErrorKind};
use crate::gc::TICKET_AGE;
use crate::header;
use crate::name::Name;
use crate::sys;
use multiproc_robust::Deadline;
use multiproc_robust::planted_bugs::{Bug, is_planted};

/// A directory of named objects.
///
/// There is one by default for each user, which every verb without a namespace means; the environment variable `MULTIPROC_DIR` names another.
///
/// ```
/// let namespace = multiproc_shm::Namespace::current()?;
/// println!("objects live in {}", namespace.path().display());
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Namespace {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    file: File,
    path: PathBuf,
    sharing: Option<Sharing>,
}

/// A group whose members share a namespace, and whose directory that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    pub(crate) group: u32,
    pub(crate) owner: u32,
}

/// Held: the namespace's directory is ours alone, until dropped or dead.
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that was forked meanwhile has the descriptor as well, and would keep the lock.
        let _ = self.0.unlock();
    }
}

const OPEN: &str = "open namespace";
/// How long a `flock` on the directory is waited for: its holders need microseconds, unless one was stopped.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the holder of a dropped handle waits for it; what stays behind is left to the sweep.
const DROP_PATIENCE: Duration = Duration::from_millis(20);
/// How many entries the first creation of a process looks at.
const FIRST_SWEEP: usize = 64;

impl Namespace {
    /// The namespace that names mean by default: `MULTIPROC_DIR` if it is set, else `/dev/shm/multiproc-<uid>`.
    ///
    /// # Errors
    ///
    /// [`Error`] when the directory cannot be made, or is not this user's alone.
    pub fn current() -> Result<Self, Error> {
        static CURRENT: Mutex<Option<Namespace>> = Mutex::new(None);
        // A forked child may find the mutex locked by a thread that it does not have: then without the cache.
        let Some(mut cached) = CURRENT.try_lock_for(Duration::from_secs(1)) else { return Self::at(default_path()) };
        match &*cached {
            Some(namespace) if namespace.still_there() => Ok(namespace.clone()),
            _ => Ok(cached.insert(Self::at(default_path())?).clone()),
        }
    }

    /// The namespace in this directory, which is made if it is not there. Its file system should be in memory.
    ///
    /// # Errors
    ///
    /// [`Error`] when the directory cannot be made, is a symbolic link, or is open to other users.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open(path.into(), true)
    }

    /// The namespace in this directory, shared by the members of a group: mode 2770, its objects 0660. It is made if it is not there; who makes it must be root, or
    /// a member. Whoever else uses it says whose it is, by [`shared_by`](Self::shared_by), unless it is root's.
    ///
    /// A group shares trust: each member can change, cut short and take away what the others have made there. Who is no member cannot even look.
    ///
    /// A maker that is killed leaves a whole directory, or none under this name; perhaps an empty one beside it, `.t-` and 32 digits.
    ///
    /// ```no_run
    /// use multiproc_shm::{Namespace, Options, Value}; // not run: the group must be one's own
    ///
    /// let team = Namespace::shared("/dev/shm/team", 1234)?; // a group id
    /// let hits: Value<u64> = Options::new().namespace(&team).open_or_create("hits", 0)?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Denied`](ErrorKind::Denied) when this user is no member, or the directory is not this user's or root's, not the group's, or open to others.
    pub fn shared(path: impl Into<PathBuf>, group: u32) -> Result<Self, Error> {
        let sharing = Sharing { group, owner: sys::effective_user() };
        Self::open_shared(path.into(), sharing, true)
    }

    /// As [`shared`](Self::shared), but the directory is this user's (or root's); nothing is made.
    ///
    /// # Errors
    ///
    /// As for [`shared`](Self::shared); [`NotFound`](ErrorKind::NotFound).
    pub fn shared_by(path: impl Into<PathBuf>, group: u32, owner: u32) -> Result<Self, Error> {
        Self::open_shared(path.into(), Sharing { group, owner }, false)
    }

    /// As [`at`](Self::at) and [`shared_by`](Self::shared_by), but makes nothing: a path out of a message is no reason to make directories.
    pub(crate) fn existing(path: PathBuf, sharing: Option<Sharing>) -> Result<Self, Error> {
        match sharing {
            None => Self::open(path, false),
            Some(sharing) => Self::open_shared(path, sharing, false),
        }
    }

    fn open(path: PathBuf, make: bool) -> Result<Self, Error> {
        let (path, c_path) = absolute(&path)?;
        let failed = |error| Error::os(OPEN, path.display(), error);
        if make {
            sys::make_directory(&c_path).map_err(failed)?;
        }
        let file = sys::open_directory(&c_path).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        let problem = if facts.uid() != sys::effective_user() {
            format!("belongs to user {}", facts.uid())
        } else if facts.mode() & 0o077 != 0 {
            format!("its mode is {:o}, others could reach it", facts.mode() & 0o7777)
        } else {
            return Ok(Self { directory: Arc::new(Directory { file, path, sharing: None }) });
        };
        Err(Error::new(ErrorKind::Denied, OPEN, path.display()).with_detail(problem))
    }

    fn open_shared(path: PathBuf, sharing: Sharing, make: bool) -> Result<Self, Error> {
        let (path, c_path) = absolute(&path)?;
        let failed = |error: io::Error| {
            let whose = std::fs::symlink_metadata(&path).map_or_else(|_| String::new(), |facts| access::describe(&facts));
            let error = Error::os(OPEN, path.display(), error);
            if error.kind() == ErrorKind::Denied && !whose.is_empty() { error.also(whose) } else { error }
        };
        let file = match sys::open_directory(&c_path) {
            Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                make_shared(&path, &c_path, sharing.group).map_err(failed)?;
                sys::open_directory(&c_path)
            }
            result => result,
        };
        let file = file.map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        let sound = [0, sharing.owner].contains(&facts.uid()) && facts.gid() == sharing.group && facts.mode() & 0o007 == 0;
        if !sound {
            let wanted = format!("not user {}'s or root's, for group {} alone", sharing.owner, sharing.group);
            let problem = format!("{}; {wanted}", access::describe(&facts));
            return Err(Error::new(ErrorKind::Denied, OPEN, path.display()).with_detail(problem));
        }
        let sharing = Some(Sharing { owner: facts.uid(), ..sharing });
        Ok(Self { directory: Arc::new(Directory { file, path, sharing }) })
    }

    /// The group that shares it, if it is one that is shared.
    pub(crate) fn sharing(&self) -> Option<Sharing> {
        self.directory.sharing
    }

    /// Who may reach its objects.
    pub(crate) fn access(&self) -> Access {
        self.sharing().map_or(Access::PRIVATE, |sharing| Access::of_group(sharing.group))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.directory.file
    }

    /// Whether names without a namespace mean this one.
    pub(crate) fn is_default(&self) -> bool {
        self.sharing().is_none() && self.path() == default_path()
    }

    fn still_there(&self) -> bool {
        self.path() == default_path() && self.file().metadata().is_ok_and(|facts| facts.nlink() > 0)
    }

    pub(crate) fn lock(&self, operation: &'static str) -> Result<DirectoryLock, Error> {
        let failed = |error| Error::os(operation, self.path().display(), error);
        self.lock_within(PATIENCE).map_err(failed)?.ok_or_else(|| {
            Error::new(ErrorKind::Busy, operation, self.path().display())
                .with_detail("is one of its users stopped by SIGSTOP or a debugger?")
        })
    }

    fn lock_within(&self, patience: Duration) -> io::Result<Option<DirectoryLock>> {
        let file = sys::open_directory_again(self.file())?;
        let deadline = Deadline::after(patience);
        let mut pause = Duration::from_micros(20);
        while !sys::lock_file(&file, true)? {
            if deadline.has_passed() {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
        Ok(Some(DirectoryLock(file)))
    }

    /// The last one out takes the name away; what cannot be done at once is left to the sweep.
    pub(crate) fn leave(&self, name: &Name, identity: (u64, u64)) {
        if let Ok(Some(lock)) = self.lock_within(DROP_PATIENCE) {
            let _ = self.remove_if_unused(&lock, name, Some(identity), TICKET_AGE, false);
        }
    }

    /// Takes a name away if nobody has the object mapped and nothing keeps it. `identity`: only if the name still means this inode. Tells whether it did (or, dry, would).
    pub(crate) fn remove_if_unused(
        &self,
        _lock: &DirectoryLock,
        name: &Name,
        identity: Option<(u64, u64)>,
        ticket_age: Duration,
        dry: bool,
    ) -> io::Result<bool> {
        let file = sys::open_at(self.file(), name.as_c_str())?;
        let facts = file.metadata()?;
        if identity.is_some_and(|mine| mine != (facts.dev(), facts.ino())) && !is_planted(Bug::UnlinkWithoutInode) {
            return Ok(false);
        }
        // Only holders of the directory lock ask for an exclusive lock, so a refusal means a user, not another asker.
        if !facts.is_file() || (!sys::lock_file(&file, true)? && !is_planted(Bug::UnlinkWithoutInode)) {
            return Ok(false);
        }
        let stays = match header::must_stay(&file, name.is_temporary(), ticket_age) {
            Some(stays) => stays,
            // No header: a creator that died early, where files are born with a temporary name; or not ours.
            None => !name.is_temporary(),
        };
        if stays || dry {
            // As for the directory: a forked child may have the descriptor as well.
            file.unlock()?;
            return Ok(!stays);
        }
        // CRASH: before this call the file is whole and unused, the next one to look removes it; after it, it is gone.
        sys::remove_at(self.file(), name.as_c_str())?;
        Ok(true)
    }

    pub(crate) fn remove_stale(&self, name: &Name, operation: &'static str) -> Result<bool, Error> {
        let lock = self.lock(operation)?;
        match self.remove_if_unused(&lock, name, None, TICKET_AGE, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            result => result.map_err(|error| Error::os(operation, name, error)),
        }
    }

    /// Takes a name away, whoever uses the object.
    pub(crate) fn unlink(&self, name: &Name, operation: &'static str) -> Result<(), Error> {
        let _lock = self.lock(operation)?;
        sys::remove_at(self.file(), name.as_c_str()).map_err(|error| Error::os(operation, name, error))
    }

    /// Once a process: clears away what killed processes left, but not for long.
    pub(crate) fn first_sweep(&self) {
        // No `OnceLock`: a child that is forked during the sweep would wait for a thread that it does not have.
        static DONE: AtomicBool = AtomicBool::new(false);
        if !DONE.swap(true, Relaxed) {
            let _ = self.sweep(FIRST_SWEEP, TICKET_AGE, false);
        }
    }
}

/// It travels with handles to processes that run elsewhere.
fn absolute(path: &Path) -> Result<(PathBuf, CString), Error> {
    let failed = |error| Error::os(OPEN, path.display(), error);
    let path = std::path::absolute(path).map_err(failed)?;
    let c_path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| failed(error.into()))?;
    Ok((path, c_path))
}

/// Makes a directory of a group's: under another name first, since its group and mode come one after the other. One that is there already is no error.
fn make_shared(path: &Path, c_path: &CStr, group: u32) -> io::Result<()> {
    let unusual = || io::Error::from(io::ErrorKind::InvalidInput);
    let parent = path.parent().ok_or_else(unusual)?;
    let name = Name::temporary(OPEN).map_err(|_| unusual())?;
    let temporary = parent.join(name.as_str());
    let c_temporary = CString::new(temporary.as_os_str().as_encoded_bytes())?;
    sys::make_directory(&c_temporary)?;
    let renamed = (|| {
        // The umask may have locked us out.
        std::fs::set_permissions(&temporary, Permissions::from_mode(0o700))?;
        let directory = sys::open_directory(&c_temporary)?;
        Access { mode: 0o2770, group: Some(group) }.give(&directory)?;
        // CRASH: before this call there is no such directory (an empty one of another name stays); after it, a whole one.
        sys::rename_new(&directory, &c_temporary, c_path)
    })();
    if renamed.is_err() {
        let _ = std::fs::remove_dir(&temporary);
    }
    renamed.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}

fn default_path() -> PathBuf {
    std::env::var_os("MULTIPROC_DIR").filter(|path| !path.is_empty()).map_or_else(
        || PathBuf::from(format!("/dev/shm/multiproc-{}", sys::effective_user())),
        |path| std::path::absolute(&path).unwrap_or(path.into()),
    )
}
