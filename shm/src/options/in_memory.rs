//! Objects in caller-provided memory.

use super::{Options, Params};
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::header::HEADER;
use crate::region::{CallerMemory, Region};
use crate::segment::{Plan, Segment};
use crate::shared::{Object, Shared, checked_extents, checked_size};

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
