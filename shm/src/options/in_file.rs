//! Objects in ordinary files.

use std::path::Path;

use super::{Options, Params, either};
use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::segment::{Expected, Plan, Segment};
use crate::shared::{Object, Shared, checked_extents};

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
}
