//! [`Options`]: the verbs with every knob, for every type: in a namespace, in an ordinary file, in memory of the user's.

use std::path::Path;

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::header::HEADER;
use crate::name::Name;
use crate::namespace::Namespace;
use crate::placed::{Region, Users};
use crate::segment::{Expected, Plan, Segment};
use crate::shared::{Object, Shared, checked_extents, checked_size};

/// The verbs with every knob, for any [`Handle`].
///
/// ```
/// use multiproc_shm::{Options, Value};
///
/// let counter: Value<u64> = Options::new().persistent(true).create("hits-of-all-times", 0)?;
/// drop(counter); // nobody has it now, and it stays
/// let counter: Value<u64> = Options::new().open("hits-of-all-times")?;
/// # Value::<u64>::unlink("hits-of-all-times")?;
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a verb ends the chain"]
pub struct Options {
    namespace: Option<Namespace>,
    persistent: bool,
    mode: Option<u32>,
    group: Option<u32>,
    huge_pages: bool,
    prefault: bool,
}

type Params<H> = <<H as Handle>::Object as Object>::Params;

/// The knobs.
impl Options {
    /// The default namespace, gone with its last user.
    pub fn new() -> Self {
        Self::default()
    }

    /// In this namespace. Nothing to do with ordinary files and memory of the user's.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// The object stays, with its name, until somebody unlinks it (or the machine restarts). Meant for makers; finding takes objects of both sorts. An ordinary
    /// file always stays.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// The mode of the object's file, whatever the umask is; who finds the object refuses one that is open to more. By default 0600, and 0660 in a
    /// [shared namespace](Namespace::shared), where these two are the only ones; elsewhere objects are 0600. An ordinary file may let others read it (0644), for backups; to use it is to write.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The group of an ordinary file, by its id; then other members may own it, too: give a [`mode`](Self::mode) of 0660 as well. In a
    /// [shared namespace](Namespace::shared) it is that namespace's, elsewhere there is none.
    pub fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Asks for huge pages (`MADV_HUGEPAGE`), which make large objects faster to touch all over. A hint, for makers and finders: where the kernel does not want to, everything is as without it, and
    /// nobody is told. For files in `/dev/shm` it wants to if that is mounted with `huge=advise` (or `within_size`, or `always`; the default is `never`), or
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` says `force`, not `deny`; and the object is some times as large as such a page (2 MiB on x86-64). Best asked for by the maker: pages that are there already stay as
    /// they are for a while. Ordinary files on disks have no huge pages, and what a region of the user's has is his affair.
    pub fn huge_pages(mut self, huge: bool) -> Self {
        self.huge_pages = huge;
        self
    }

    /// Sets all memory aside, and maps it, at once (`MADV_POPULATE_WRITE`): the verb takes longer, the first touches do not. For makers and finders. It fails with
    /// [`NoSpace`](ErrorKind::NoSpace), or with [`Unsupported`](ErrorKind::Unsupported) before Linux 5.14 and for memory of the user's.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }
}

/// In a namespace, by name.
impl Options {
    /// Makes an object without a name, for handles in arguments and messages.
    ///
    /// # Errors
    ///
    /// [`Error`]: invalid parameters, no space.
    pub fn anonymous<H: Handle>(&self, params: Params<H>) -> Result<H, Error> {
        self.make::<H>(&self.chosen_namespace()?, None, params)?
            .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "create", H::Object::KIND))
    }

    /// Makes an object that must not exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or in use, invalid parameters, no space.
    pub fn create<H: Handle>(&self, name: &str, params: Params<H>) -> Result<H, Error> {
        let name = Name::chosen(name, "create")?;
        self.make::<H>(&self.chosen_namespace()?, Some(&name), params)?
            .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "create", format_args!("{} {name}", H::Object::KIND)))
    }

    /// Finds an object that must exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: nobody uses the name, or what is there is something else; both sides are named.
    pub fn open<H: Handle>(&self, name: &str) -> Result<H, Error> {
        let name = Name::chosen(name, "open")?;
        self.find::<H>(&self.chosen_namespace()?, &name, None)?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "open", format_args!("{} {name}", H::Object::KIND)))
    }

    /// Finds an object, or makes it. Of many that call this at once, one makes it and all get the same.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Mismatch`](ErrorKind::Mismatch) if what is there was made with other parameters.
    pub fn open_or_create<H: Handle>(&self, name: &str, params: Params<H>) -> Result<H, Error>
    where
        Params<H>: Clone,
    {
        let name = Name::chosen(name, "open")?;
        let namespace = self.chosen_namespace()?;
        let shown = format!("{} {name}", H::Object::KIND);
        let extents = checked_extents::<H::Object>(&params, &name.to_string())?;
        either(&shown, || self.find(&namespace, &name, Some(extents)), || self.make(&namespace, Some(&name), params.clone()))
    }

    /// Takes a name away at once; those who have handles keep the object.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or not in use.
    pub fn unlink(&self, name: &str) -> Result<(), Error> {
        let name = Name::chosen(name, "unlink")?;
        self.chosen_namespace()?.unlink(&name, "unlink")
    }
}

/// In an ordinary file, anywhere, by path. Such an object outlives the programs that use it: whoever opens it next finds it as they left it. Locks that were held in
/// the end (by a killed process, or when the machine stopped) are free, and say so as those of the dead do. Nobody but the user ever removes the file. What
/// a power cut leaves is what [`Shared::sync`] has written, and of later changes some.
impl Options {
    /// Makes an object in a file that must not exist. All its bytes are set aside. The file is there once it is whole, also on the disk.
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
    /// [`Error`]: the file exists, invalid parameters, [`NoSpace`](ErrorKind::NoSpace), or what the file system says;
    /// [`Unsupported`](ErrorKind::Unsupported) where it cannot set bytes aside.
    pub fn create_file<H: Handle>(&self, path: impl AsRef<Path>, params: Params<H>) -> Result<H, Error> {
        let path = path.as_ref();
        self.make_file(path, params)?
            .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "create", format_args!("{} {}", H::Object::KIND, path.display())))
    }

    /// Finds an object in a file that must exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: there is no such file; it is another one's, or open to others ([`Denied`](ErrorKind::Denied)); it was cut short or is none of ours
    /// ([`Corrupt`](ErrorKind::Corrupt)), or holds something else.
    pub fn open_file<H: Handle>(&self, path: impl AsRef<Path>) -> Result<H, Error> {
        let path = path.as_ref();
        self.find_file(path, None)?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "open", format_args!("{} {}", H::Object::KIND, path.display())))
    }

    /// Finds an object in a file, or makes both. Of many that call this at once, one makes it and all get the same.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Mismatch`](ErrorKind::Mismatch) if what is there was made with other parameters.
    pub fn open_or_create_file<H: Handle>(&self, path: impl AsRef<Path>, params: Params<H>) -> Result<H, Error>
    where
        Params<H>: Clone,
    {
        let path = path.as_ref();
        let shown = format!("{} {}", H::Object::KIND, path.display());
        let extents = checked_extents::<H::Object>(&H::Object::placed(params.clone()), &shown)?;
        either(&shown, || self.find_file(path, Some(extents)), || self.make_file(path, params.clone()))
    }
}

/// In memory of the user's: a [`Region`] that several processes have mapped, each wherever it likes. The object begins at `offset` bytes in the region, whose address there must be a multiple of 64
/// (of more, if the object's type asks for it), and takes [`bytes_needed`](Options::bytes_needed). The handles keep the region, so give it an [`Arc`](std::sync::Arc) of one that is used otherwise, too.
/// There is nothing to unlink, and handles do not travel in messages: others attach, too.
impl Options {
    /// How many bytes of a region an object takes.
    ///
    /// # Errors
    ///
    /// [`Error`]: invalid parameters.
    pub fn bytes_needed<H: Handle>(params: Params<H>) -> Result<usize, Error> {
        let shown = H::Object::KIND;
        let extents = checked_extents::<H::Object>(&H::Object::placed(params), shown)?;
        let bytes = checked_size::<H::Object>(extents);
        bytes.map(|bytes| HEADER + bytes).ok_or_else(|| Error::new(ErrorKind::Invalid, "place", shown).with_detail("too large"))
    }

    /// Makes an object where the first eight bytes are zero, as they are in new memory; the others may be anything, and are overwritten. Of many that call this at once one succeeds. Whoever wants to use the
    /// place again, for something else, makes those eight bytes zero when nobody uses the object any more.
    ///
    /// Killed in the midst of it, this leaves nothing that anybody could attach to, and can be called again.
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
    /// [`Error`]: [`AlreadyExists`](ErrorKind::AlreadyExists); [`Misaligned`](ErrorKind::Misaligned) and [`TooSmall`](ErrorKind::TooSmall), with what is needed;
    /// [`NoSpace`](ErrorKind::NoSpace) where there is no memory behind the mapping; [`Busy`](ErrorKind::Busy) while another one is placing something there; [`Corrupt`](ErrorKind::Corrupt) where something else is;
    /// [`Invalid`](ErrorKind::Invalid) if the memory is not shared, or for reading only.
    pub fn place<H: Handle>(&self, region: impl Region, offset: usize, params: Params<H>) -> Result<H, Error> {
        let shown = H::Object::KIND;
        let params = H::Object::placed(params);
        let extents = checked_extents::<H::Object>(&params, shown)?;
        let element = H::Object::element();
        let plan = Plan { huge_pages: false, ..Shared::<H::Object>::plan(&element, extents, shown)? };
        let users = Users::new(region, offset, align_of::<H::Object>(), "place", shown)?;
        let placed = Segment::place(users, plan, Shared::<H::Object>::HELD_HERE, Shared::<H::Object>::fill(params))?;
        let placed = placed.ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "place", shown))?;
        self.finished(Shared::new(placed))
    }

    /// Finds an object that was placed there.
    ///
    /// # Errors
    ///
    /// [`Error`]: [`NotFound`](ErrorKind::NotFound) if the bytes are zero; [`NotReady`](ErrorKind::NotReady) while somebody is placing something, or when he died in
    /// the midst of it; what is there is something else, for which both sides are named; and as for [`place`](Self::place).
    pub fn attach<H: Handle>(&self, region: impl Region, offset: usize) -> Result<H, Error> {
        let shown = H::Object::KIND;
        let element = H::Object::element();
        let expected = Shared::<H::Object>::expected(&element, shown)?;
        let users = Users::new(region, offset, align_of::<H::Object>(), "attach", shown)?;
        let found = Segment::attach(users, expected, Shared::<H::Object>::HELD_HERE)?;
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "attach", shown))?;
        self.finished(Shared::new(found))
    }
}

impl Options {
    fn chosen_namespace(&self) -> Result<Namespace, Error> {
        self.namespace.clone().map_or_else(Namespace::current, Ok)
    }

    /// Who may reach an object in this namespace.
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

    /// Who may reach an ordinary file.
    fn file_access(&self, operation: &'static str, path: &Path) -> Result<Access, Error> {
        let access = Access { mode: self.mode.unwrap_or(Access::PRIVATE.mode), group: self.group };
        if access.mode & 0o600 == 0o600 && access.mode & !0o664 == 0 {
            return Ok(access);
        }
        let problem = format!("mode {:o}: its owner must read and write, others must not write, nobody executes", access.mode);
        Err(Error::new(ErrorKind::Invalid, operation, path.display()).with_detail(problem))
    }

    fn make<H: Handle>(&self, namespace: &Namespace, name: Option<&Name>, params: Params<H>) -> Result<Option<H>, Error> {
        let shown = name.map_or_else(|| H::Object::KIND.to_owned(), |name| format!("{} {name}", H::Object::KIND));
        let extents = checked_extents::<H::Object>(&params, &shown)?;
        let element = H::Object::element();
        let plan = Plan {
            persistent: self.persistent,
            access: self.access(namespace, "create")?,
            huge_pages: self.huge_pages,
            ..Shared::<H::Object>::plan(&element, extents, &shown)?
        };
        let made = Segment::create(namespace, name, plan, Shared::<H::Object>::HELD_HERE, Shared::<H::Object>::fill(params))?;
        made.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

    fn find<H: Handle>(&self, namespace: &Namespace, name: &Name, extents: Option<[u64; 2]>) -> Result<Option<H>, Error> {
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
        let plan = Plan { persistent: true, reserved: plan.bytes, access, huge_pages: self.huge_pages, ..plan };
        let made = Segment::create_file(path, plan, Shared::<H::Object>::HELD_HERE, Shared::<H::Object>::fill(params))?;
        made.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

    fn find_file<H: Handle>(&self, path: &Path, extents: Option<[u64; 2]>) -> Result<Option<H>, Error> {
        let element = H::Object::element();
        let shown = format!("{} {}", H::Object::KIND, path.display());
        let expected = Expected { extents, ..Shared::<H::Object>::expected(&element, &shown)? };
        let access = self.file_access("open", path)?;
        let (held_here, mend) = (Shared::<H::Object>::HELD_HERE, Shared::<H::Object>::mend);
        let found = Segment::open_file(path, access, expected, held_here, mend)?;
        found.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

    /// The knobs that made and found objects have in common.
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

/// Finds or makes. Each turn fails only if somebody else made or removed it in between.
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
