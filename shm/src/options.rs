//! [`Options`]: makes and finds objects: in a namespace, in an ordinary file, in caller-provided memory.

mod in_file;
mod in_memory;
mod in_namespace;

use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::namespace::Namespace;
use crate::shared::{Object, Shared};

/// Makes, finds and removes objects of any [`Handle`] type, with all options.
///
/// ```
/// use multiproc_shm::{Options, Value};
///
/// let counter: Value<u64> = Options::new().persistent(true).create("hits-since-boot", 0)?;
/// drop(counter); // no process uses it now, and it stays
/// let counter: Value<u64> = Options::new().open("hits-since-boot")?;
/// # Value::<u64>::unlink("hits-since-boot")?;
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "call a function that makes or finds an object"]
pub struct Options {
    namespace: Option<Namespace>,
    persistent: bool,
    mode: Option<u32>,
    group: Option<u32>,
    huge_pages: bool,
    prefault: bool,
}

type Params<H> = <<H as Handle>::Object as Object>::Params;

impl Options {
    /// Returns the default: objects in the default namespace that disappear with their last user.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects the namespace. It means nothing for ordinary files and for caller-provided memory.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Makes an object that stays, with its name, until it is unlinked or the machine restarts.
    ///
    /// It applies to making; finding accepts both sorts. An ordinary file always stays.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Sets the mode of the object's file, whatever the umask is. Finding refuses a file that is open to more
    /// users.
    ///
    /// The default is 0600, and 0660 in a [shared namespace](Namespace::shared), which allows only these two.
    /// Objects in other namespaces are 0600. An ordinary file may let others read it (0644), for backups. To
    /// use the object a process must be able to write it.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets the group of an ordinary file, by its id. Then any member may own the file: set a
    /// [`mode`](Self::mode) of 0660, too.
    ///
    /// In a [shared namespace](Namespace::shared) the group is that namespace's. Objects in other namespaces
    /// have none.
    pub fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Asks for huge pages (`MADV_HUGEPAGE`), which make it faster to touch all of a large object.
    ///
    /// It applies to making and finding. The maker should ask: pages that exist already stay small for a
    /// while. It is a hint: if the kernel refuses, there is no error. For files in `/dev/shm` the kernel
    /// grants it under these conditions:
    ///
    /// - The mount option is `huge=advise`, `within_size` or `always` (the default is `never`) and
    ///   `/sys/kernel/mm/transparent_hugepage/shmem_enabled` does not say `deny`; or that file says `force`.
    /// - The object is several times as large as a huge page (2 MiB on x86-64).
    ///
    /// Ordinary files on disks have no huge pages. It means nothing for a region.
    pub fn huge_pages(mut self, huge: bool) -> Self {
        self.huge_pages = huge;
        self
    }

    /// Reserves and maps all memory at once (`MADV_POPULATE_WRITE`). Making or finding takes longer, and the
    /// first accesses do not.
    ///
    /// It applies to making and finding. They fail with [`NoSpace`](ErrorKind::NoSpace) if the file system is
    /// full. They fail with [`Unsupported`](ErrorKind::Unsupported) before Linux 5.14 and for caller-provided
    /// memory.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }
}

impl Options {
    /// Applies the options that are the same for making and finding.
    fn finished<H: Handle>(&self, shared: Shared<H::Object>) -> Result<H, Error> {
        if self.huge_pages {
            shared.prefer_huge_pages();
        }
        if self.prefault {
            shared.populate(0..shared.bytes())?;
        }
        Ok(H::from_shared(shared))
    }
}

/// Finds or makes. A round fails only if another process made the object after the first step and removed it
/// before the next.
fn either<H>(
    shown: &str,
    find: impl Fn() -> Result<Option<H>, Error>,
    make: impl Fn() -> Result<Option<H>, Error>,
) -> Result<H, Error> {
    for _ in 0..1000 {
        if let Some(found) = find()? {
            return Ok(found);
        }
        if let Some(made) = make()? {
            return Ok(made);
        }
    }
    Err(Error::new(ErrorKind::Busy, "open or create", shown))
}
