//! [`Namespace`]: the directory in which objects have their names.
//!
//! It is `multiproc-<uid>` below the shared memory file system, of mode 0700 and checked to be this user's.
//! Or it is a directory of mode 2770 that was given to a group.
//!
//! A process holds a `flock` on the directory while it decides what a name means: for every check-and-unlink,
//! and in every `open`. So no process mistakes a new object for an old one of the same name. The kernel
//! releases the lock when its holder dies. Names are *made* without the lock: `linkat` is atomic.

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::access::{self, Access};
use crate::error::{Error, ErrorKind};
use crate::file_lock::lock_within;
use crate::name::Name;
use crate::sys;

/// A directory of named objects.
///
/// Each user has one by default, which is meant wherever no namespace is given. The environment variable
/// `MULTIPROC_DIR` selects another directory.
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

/// The group whose members share a namespace, and the user that owns its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    pub(crate) group: u32,
    pub(crate) owner: u32,
}

/// A held lock on the namespace's directory. Dropping it, or the death of this process, releases the lock.
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the descriptor does not suffice: a child that was forked meanwhile has a copy, which keeps
        // the lock.
        let _ = self.0.unlock();
    }
}

const OPEN: &str = "open namespace";
/// How long to wait for the directory's lock. Holders need microseconds, unless they are stopped.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

impl Namespace {
    /// Returns the default namespace: `MULTIPROC_DIR` if it is set, else `/dev/shm/multiproc-<uid>`.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the directory cannot be made, or if other users can reach it.
    pub fn current() -> Result<Self, Error> {
        static CURRENT: Mutex<Option<Namespace>> = Mutex::new(None);
        // In a forked child the mutex may be locked by a thread that the child does not have. Then it works
        // without the cache.
        let Some(mut cached) = CURRENT.try_lock_for(Duration::from_secs(1)) else {
            return Self::at(default_path());
        };
        match &*cached {
            Some(namespace) if namespace.still_there() => Ok(namespace.clone()),
            _ => Ok(cached.insert(Self::at(default_path())?).clone()),
        }
    }

    /// Returns the namespace in this directory, which is made if it does not exist. Its file system should be
    /// in memory.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the directory cannot be made, is a symbolic link, or can be reached by other
    /// users.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open(path.into(), true)
    }

    /// Returns the namespace in this directory, which the members of a group share: mode 2770, its objects
    /// 0660.
    ///
    /// The directory is made if it does not exist; then this user must be root or a member of the group.
    /// Other users state its owner, by [`shared_by`](Self::shared_by), unless that is root.
    ///
    /// The members trust each other: each can change, truncate and remove what the others have made there.
    /// Users outside the group cannot even list it.
    ///
    /// A process that is killed while it makes the directory leaves a complete one or none. It may also leave
    /// an empty directory beside it, named `.t-` and 32 digits.
    ///
    /// ```no_run
    /// use multiproc_shm::{Namespace, Options, Value}; // not run: it needs a group of this user's
    ///
    /// let team = Namespace::shared("/dev/shm/team", 1234)?; // a group id
    /// let hits: Value<u64> = Options::new().namespace(&team).open_or_create("hits", 0)?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the directory cannot be made or opened. Returns [`Denied`](ErrorKind::Denied) if
    /// this user is no member of the group. Also if the directory belongs to another group, belongs to
    /// another user than this one or root, or can be reached by others.
    pub fn shared(path: impl Into<PathBuf>, group: u32) -> Result<Self, Error> {
        let sharing = Sharing { group, owner: sys::effective_user() };
        Self::open_shared(path.into(), sharing, true)
    }

    /// Returns a shared namespace whose directory this owner (or root) has made: as [`shared`](Self::shared),
    /// but makes nothing.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`shared`](Self::shared), and [`NotFound`](ErrorKind::NotFound).
    pub fn shared_by(path: impl Into<PathBuf>, group: u32, owner: u32) -> Result<Self, Error> {
        Self::open_shared(path.into(), Sharing { group, owner }, false)
    }

    /// As [`at`](Self::at) and [`shared_by`](Self::shared_by), but makes nothing: a path in a message is no
    /// reason to make directories.
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
        let metadata = file.metadata().map_err(failed)?;
        let problem = if metadata.uid() != sys::effective_user() {
            format!("belongs to user {}", metadata.uid())
        } else if metadata.mode() & 0o077 != 0 {
            format!("its mode is {:o}, others could reach it", metadata.mode() & 0o7777)
        } else {
            return Ok(Self { directory: Arc::new(Directory { file, path, sharing: None }) });
        };
        Err(Error::new(ErrorKind::Denied, OPEN, path.display()).with_detail(problem))
    }

    fn open_shared(path: PathBuf, sharing: Sharing, make: bool) -> Result<Self, Error> {
        let (path, c_path) = absolute(&path)?;
        let failed = |error| {
            let error = Error::os(OPEN, path.display(), error);
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if error.kind() == ErrorKind::Denied => error.also(access::describe(&metadata)),
                _ => error,
            }
        };
        let file = match sys::open_directory(&c_path) {
            Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                make_shared(&path, &c_path, sharing.group).map_err(failed)?;
                sys::open_directory(&c_path)
            }
            result => result,
        };
        let file = file.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !sharing.admits(&metadata) {
            let wanted = format!("not user {}'s or root's, for group {} alone", sharing.owner, sharing.group);
            let problem = format!("{}; {wanted}", access::describe(&metadata));
            return Err(Error::new(ErrorKind::Denied, OPEN, path.display()).with_detail(problem));
        }
        let sharing = Some(Sharing { owner: metadata.uid(), ..sharing });
        Ok(Self { directory: Arc::new(Directory { file, path, sharing }) })
    }

    /// The group that shares it, if a group does.
    pub(crate) fn sharing(&self) -> Option<Sharing> {
        self.directory.sharing
    }

    /// Mode and group of its objects.
    pub(crate) fn access(&self) -> Access {
        self.sharing().map_or(Access::PRIVATE, |sharing| Access::of_group(sharing.group))
    }

    /// Returns the path of its directory.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.directory.file
    }

    /// Whether it is meant where no namespace is given.
    pub(crate) fn is_default(&self) -> bool {
        self.sharing().is_none() && self.path() == default_path()
    }

    fn still_there(&self) -> bool {
        self.path() == default_path() && self.file().metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Takes the lock on the directory.
    pub(crate) fn lock(&self, operation: &'static str) -> Result<DirectoryLock, Error> {
        let failed = |error| Error::os(operation, self.path().display(), error);
        self.lock_within(LOCK_LIMIT).map_err(failed)?.ok_or_else(|| {
            Error::new(ErrorKind::Busy, operation, self.path().display())
                .with_detail("is one of its users stopped by SIGSTOP or a debugger?")
        })
    }

    pub(crate) fn lock_within(&self, limit: Duration) -> io::Result<Option<DirectoryLock>> {
        let file = sys::open_directory_again(self.file())?;
        let locked = lock_within(limit, || sys::lock_file(&file, true))?;
        Ok(locked.then_some(DirectoryLock(file)))
    }

    /// Removes a name, whether or not the object is in use.
    pub(crate) fn unlink(&self, name: &Name, operation: &'static str) -> Result<(), Error> {
        let _lock = self.lock(operation)?;
        sys::remove_at(self.file(), name.as_c_str()).map_err(|error| Error::os(operation, name, error))
    }
}

impl Sharing {
    /// Whether a directory belongs to the owner (or root) and the group, and others cannot reach it.
    fn admits(self, metadata: &Metadata) -> bool {
        let owned = [0, self.owner].contains(&metadata.uid()) && metadata.gid() == self.group;
        owned && metadata.mode() & 0o007 == 0
    }
}

/// Namespaces are sent with handles to processes that run in other directories.
fn absolute(path: &Path) -> Result<(PathBuf, CString), Error> {
    let failed = |error| Error::os(OPEN, path.display(), error);
    let path = std::path::absolute(path).map_err(failed)?;
    let c_path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| failed(error.into()))?;
    Ok((path, c_path))
}

/// Makes a group's directory: first under a temporary name, because its group and its mode are set one after
/// the other. If the directory exists already, that is no error.
fn make_shared(path: &Path, c_path: &CStr, group: u32) -> io::Result<()> {
    let unusual = || io::Error::from(io::ErrorKind::InvalidInput);
    let parent = path.parent().ok_or_else(unusual)?;
    let name = Name::temporary(OPEN).map_err(|_| unusual())?;
    let temporary = parent.join(name.as_str());
    let c_temporary = CString::new(temporary.as_os_str().as_encoded_bytes())?;
    sys::make_directory(&c_temporary)?;
    let renamed = (|| {
        // The umask may have taken this user's own rights away.
        std::fs::set_permissions(&temporary, Permissions::from_mode(0o700))?;
        let directory = sys::open_directory(&c_temporary)?;
        Access { mode: 0o2770, group: Some(group) }.give(&directory)?;
        // CRASH: before this call the directory does not exist (an empty one with a temporary name stays);
        // after it, it is complete.
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
