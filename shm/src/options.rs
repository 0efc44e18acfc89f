//! [`Options`]: makes and finds objects: in a namespace, in an ordinary file, in caller-provided memory.

use std::path::Path;

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::header::HEADER;
use crate::name::Name;
use crate::namespace::Namespace;
use crate::region::{CallerMemory, Region};
use crate::segment::{Expected, Plan, Segment};
use crate::shared::{Object, Shared, checked_extents, checked_size};

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

/// The options.
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

/// In a namespace, by name.
impl Options {
    /// Makes an anonymous object, for handles in arguments and messages.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the parameters are invalid, or if there is no space.
    pub fn anonymous<H: Handle>(&self, params: Params<H>) -> Result<H, Error> {
        self.make::<H>(&self.chosen_namespace()?, None, params)?
            .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "create", H::Object::KIND))
    }

    /// Makes a named object. The name must not be in use.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the name is bad or in use, if the parameters are invalid, or if there is no
    /// space.
    pub fn create<H: Handle>(&self, name: &str, params: Params<H>) -> Result<H, Error> {
        let name = Name::chosen(name, "create")?;
        self.make::<H>(&self.chosen_namespace()?, Some(&name), params)?.ok_or_else(|| {
            Error::new(ErrorKind::AlreadyExists, "create", format_args!("{} {name}", H::Object::KIND))
        })
    }

    /// Finds an object, which must exist.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the name is bad or not in use, or if the object is another one than expected.
    /// Then the error names both.
    pub fn open<H: Handle>(&self, name: &str) -> Result<H, Error> {
        let name = Name::chosen(name, "open")?;
        self.find::<H>(&self.chosen_namespace()?, &name, None)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "open", format_args!("{} {name}", H::Object::KIND))
        })
    }

    /// Finds an object, or makes it. If several processes do this at the same time, one makes the object and
    /// all get that one.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Self::open) and [`create`](Self::create), and
    /// [`Mismatch`](ErrorKind::Mismatch) if the object was made with other parameters.
    pub fn open_or_create<H: Handle>(&self, name: &str, params: Params<H>) -> Result<H, Error>
    where
        Params<H>: Clone,
    {
        let name = Name::chosen(name, "open")?;
        let namespace = self.chosen_namespace()?;
        let shown = format!("{} {name}", H::Object::KIND);
        let extents = checked_extents::<H::Object>(&params, &name.to_string())?;
        either(
            &shown,
            || self.find(&namespace, &name, Some(extents)),
            || self.make(&namespace, Some(&name), params.clone()),
        )
    }

    /// Removes a name at once. Existing handles keep the object.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the name is bad or not in use.
    pub fn unlink(&self, name: &str) -> Result<(), Error> {
        let name = Name::chosen(name, "unlink")?;
        self.chosen_namespace()?.unlink(&name, "unlink")
    }
}

/// In an ordinary file, anywhere, by path.
///
/// Such an object outlives the programs that use it: the next process to open it finds it as they left it. A
/// lock that a killed process held, or that was held when the machine stopped, is free. Its next owner learns
/// that the previous one died. Only the user removes the file. A power cut leaves what [`Shared::sync`] has
/// written, and an arbitrary part of later changes.
impl Options {
    /// Makes an object in a file, which must not exist. The memory for all its bytes is reserved. The file
    /// appears when it is complete, on the disk, too.
    ///
    /// ```
    /// use multiproc_shm::{Handle, Options, Value};
    ///
    /// let path = std::env::temp_dir().join(format!("total-{}", std::process::id()));
    /// let total: Value<u64> = Options::new().create_file(&path, 0)?;
    /// total.update(|sum| *sum += 5)?;
    /// total.sync()?;
    /// drop(total); // or be killed, or restart
    /// let total: Value<u64> = Options::new().open_file(&path)?;
    /// assert_eq!(total.get()?, 5);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the file exists, if the parameters are invalid, if there is
    /// [`NoSpace`](ErrorKind::NoSpace), and for errors of the file system. Returns
    /// [`Unsupported`](ErrorKind::Unsupported) if the file system cannot reserve bytes.
    pub fn create_file<H: Handle>(&self, path: impl AsRef<Path>, params: Params<H>) -> Result<H, Error> {
        let path = path.as_ref();
        self.make_file(path, params)?.ok_or_else(|| {
            Error::new(
                ErrorKind::AlreadyExists,
                "create",
                format_args!("{} {}", H::Object::KIND, path.display()),
            )
        })
    }

    /// Finds an object in a file, which must exist.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if there is no such file, or if it holds another object than expected. Returns
    /// [`Denied`](ErrorKind::Denied) if the file belongs to another user or can be written by others. Returns
    /// [`Corrupt`](ErrorKind::Corrupt) if it was truncated or was not made by this crate.
    pub fn open_file<H: Handle>(&self, path: impl AsRef<Path>) -> Result<H, Error> {
        let path = path.as_ref();
        self.find_file(path, None)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "open", format_args!("{} {}", H::Object::KIND, path.display()))
        })
    }

    /// Finds an object in a file, or makes both. If several processes do this at the same time, one makes the
    /// object and all get that one.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open_file`](Self::open_file) and [`create_file`](Self::create_file), and
    /// [`Mismatch`](ErrorKind::Mismatch) if the object was made with other parameters.
    pub fn open_or_create_file<H: Handle>(
        &self,
        path: impl AsRef<Path>,
        params: Params<H>,
    ) -> Result<H, Error>
    where
        Params<H>: Clone,
    {
        let path = path.as_ref();
        let shown = format!("{} {}", H::Object::KIND, path.display());
        let extents = checked_extents::<H::Object>(&H::Object::placed(params.clone()), &shown)?;
        either(&shown, || self.find_file(path, Some(extents)), || self.make_file(path, params.clone()))
    }
}

/// In caller-provided memory: a [`Region`] that several processes have mapped, at any addresses.
///
/// The object begins `offset` bytes into the region, and has [`bytes_needed`](Options::bytes_needed) bytes.
/// Its address must be a multiple of 64, or of more if its type requires that. The handles keep the region;
/// pass an [`Arc`](std::sync::Arc) of a region that has other uses.
///
/// There is nothing to unlink, and handles cannot be sent in messages: other processes attach, too.
impl Options {
    /// Returns how many bytes of a region an object takes.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the parameters are invalid.
    pub fn bytes_needed<H: Handle>(params: Params<H>) -> Result<usize, Error> {
        let shown = H::Object::KIND;
        let extents = checked_extents::<H::Object>(&H::Object::placed(params), shown)?;
        let bytes = checked_size::<H::Object>(extents);
        bytes
            .map(|bytes| HEADER + bytes)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "place", shown).with_detail("too large"))
    }

    /// Makes an object where the first eight bytes are zero, as they are in new memory. The other bytes are
    /// overwritten.
    ///
    /// If several threads do this at the same time, one succeeds. To use the memory for another object, set
    /// those eight bytes to zero when no process uses the old one any more.
    ///
    /// A process that is killed here leaves nothing to attach to. Another process can place an object there.
    ///
    /// ```
    /// use memmap2::MmapRaw;
    /// use multiproc_shm::{Options, Value};
    /// # let path = std::env::temp_dir().join(format!("region-{}", std::process::id()));
    /// # let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
    /// # std::fs::remove_file(&path)?;
    /// file.set_len(8192)?; // a file that two processes have mapped
    /// let here: Value<u64> = Options::new().place(MmapRaw::map_raw(&file)?, 4096, 7)?;
    /// let there: Value<u64> = Options::new().attach(MmapRaw::map_raw(&file)?, 4096)?;
    /// there.set(8)?;
    /// assert_eq!(here.get()?, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error`] of one of these kinds:
    ///
    /// - [`AlreadyExists`](ErrorKind::AlreadyExists): an object is there;
    /// - [`Misaligned`](ErrorKind::Misaligned) and [`TooSmall`](ErrorKind::TooSmall), with what is needed;
    /// - [`NoSpace`](ErrorKind::NoSpace): there is no memory behind the mapping;
    /// - [`Busy`](ErrorKind::Busy): another thread is placing an object there;
    /// - [`Corrupt`](ErrorKind::Corrupt): something else is there;
    /// - [`Invalid`](ErrorKind::Invalid): the parameters are invalid, or the memory is not shared or is
    ///   read-only.
    pub fn place<H: Handle>(
        &self,
        region: impl Region,
        offset: usize,
        params: Params<H>,
    ) -> Result<H, Error> {
        let shown = H::Object::KIND;
        let params = H::Object::placed(params);
        let extents = checked_extents::<H::Object>(&params, shown)?;
        let element = H::Object::element();
        let plan = Plan { huge_pages: false, ..Shared::<H::Object>::plan(&element, extents, shown)? };
        let memory = CallerMemory::new(region, offset, align_of::<H::Object>(), "place", shown)?;
        let placed =
            Segment::place(memory, plan, Shared::<H::Object>::HELD_HERE, Shared::<H::Object>::fill(params))?;
        let placed = placed.ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "place", shown))?;
        self.finished(Shared::new(placed))
    }

    /// Finds an object that was placed there.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`place`](Self::place) about the memory, and these:
    ///
    /// - [`NotFound`](ErrorKind::NotFound): the bytes are zero;
    /// - [`NotReady`](ErrorKind::NotReady): a thread is placing an object, or died while it did;
    /// - an error that names both objects, if another one than expected is there.
    pub fn attach<H: Handle>(&self, region: impl Region, offset: usize) -> Result<H, Error> {
        let shown = H::Object::KIND;
        let element = H::Object::element();
        let expected = Shared::<H::Object>::expected(&element, shown)?;
        let memory = CallerMemory::new(region, offset, align_of::<H::Object>(), "attach", shown)?;
        let found = Segment::attach(memory, expected, Shared::<H::Object>::HELD_HERE)?;
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "attach", shown))?;
        self.finished(Shared::new(found))
    }
}

impl Options {
    fn chosen_namespace(&self) -> Result<Namespace, Error> {
        self.namespace.clone().map_or_else(Namespace::current, Ok)
    }

    /// Mode and group of an object in this namespace.
    fn access(&self, namespace: &Namespace, operation: &'static str) -> Result<Access, Error> {
        let default = namespace.access();
        let access = Access { mode: self.mode.unwrap_or(default.mode), group: self.group.or(default.group) };
        if access.group == default.group && [0o600, default.mode].contains(&access.mode) {
            return Ok(access);
        }
        let allowed = match default.group {
            None => "objects in it are 0600; others share one that `Namespace::shared` made".to_owned(),
            Some(group) => format!("objects in it are 0600 or 0660, and group {group}'s"),
        };
        Err(Error::new(ErrorKind::Invalid, operation, namespace.path().display()).with_detail(allowed))
    }

    /// Mode and group of an ordinary file.
    fn file_access(&self, operation: &'static str, path: &Path) -> Result<Access, Error> {
        let access = Access { mode: self.mode.unwrap_or(Access::PRIVATE.mode), group: self.group };
        if access.mode & 0o600 == 0o600 && access.mode & !0o664 == 0 {
            return Ok(access);
        }
        let problem = format!(
            "mode {:o}: its owner must read and write, others must not write, and it must not be executable",
            access.mode
        );
        Err(Error::new(ErrorKind::Invalid, operation, path.display()).with_detail(problem))
    }

    fn make<H: Handle>(
        &self,
        namespace: &Namespace,
        name: Option<&Name>,
        params: Params<H>,
    ) -> Result<Option<H>, Error> {
        let shown =
            name.map_or_else(|| H::Object::KIND.to_owned(), |name| format!("{} {name}", H::Object::KIND));
        let extents = checked_extents::<H::Object>(&params, &shown)?;
        let element = H::Object::element();
        let plan = Plan {
            persistent: self.persistent,
            access: self.access(namespace, "create")?,
            huge_pages: self.huge_pages,
            ..Shared::<H::Object>::plan(&element, extents, &shown)?
        };
        let made = Segment::create(
            namespace,
            name,
            plan,
            Shared::<H::Object>::HELD_HERE,
            Shared::<H::Object>::fill(params),
        )?;
        made.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

    fn find<H: Handle>(
        &self,
        namespace: &Namespace,
        name: &Name,
        extents: Option<[u64; 2]>,
    ) -> Result<Option<H>, Error> {
        let element = H::Object::element();
        let shown = format!("{} {name}", H::Object::KIND);
        let expected = Expected { extents, ..Shared::<H::Object>::expected(&element, &shown)? };
        let access = self.access(namespace, "open")?;
        let found = Segment::open(namespace, name, access, expected, Shared::<H::Object>::HELD_HERE)?;
        found.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

    fn make_file<H: Handle>(&self, path: &Path, params: Params<H>) -> Result<Option<H>, Error> {
        let shown = format!("{} {}", H::Object::KIND, path.display());
        let params = H::Object::placed(params);
        let extents = checked_extents::<H::Object>(&params, &shown)?;
        let element = H::Object::element();
        let plan = Shared::<H::Object>::plan(&element, extents, &shown)?;
        let access = self.file_access("create", path)?;
        let plan =
            Plan { persistent: true, reserved: plan.bytes, access, huge_pages: self.huge_pages, ..plan };
        let made = Segment::create_file(
            path,
            plan,
            Shared::<H::Object>::HELD_HERE,
            Shared::<H::Object>::fill(params),
        )?;
        made.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

    fn find_file<H: Handle>(&self, path: &Path, extents: Option<[u64; 2]>) -> Result<Option<H>, Error> {
        let element = H::Object::element();
        let shown = format!("{} {}", H::Object::KIND, path.display());
        let expected = Expected { extents, ..Shared::<H::Object>::expected(&element, &shown)? };
        let access = self.file_access("open", path)?;
        let (held_here, repair) = (Shared::<H::Object>::HELD_HERE, Shared::<H::Object>::repair);
        let found = Segment::open_file(path, access, expected, held_here, repair)?;
        found.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

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
