//! [`Region`]: caller-provided memory, in which objects can be placed.
#![allow(unsafe_code, reason = "promises what regions are, owns one")]

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;

use crate::error::{Error, ErrorKind};
use crate::header::{self, HEADER};
use crate::sys;

/// Memory that several processes have mapped, and in which [`Options::place`](crate::Options::place) puts
/// objects.
///
/// It is implemented for [`memmap2::MmapRaw`], for `shared_memory::Shmem` (feature `shared_memory`), and for
/// [`Arc`]s of regions. With an [`Arc`] the caller keeps the region, or places several objects in it.
///
/// # Safety
///
/// - All `len` bytes from `start` on are mapped, and stay so at this address until the value is dropped, also
///   when it is moved.
/// - Any thread may use and drop the value.
/// - No reference (`&[u8]`, say) exists to bytes in which an object is placed.
pub unsafe trait Region: 'static {
    /// Returns the address of the first byte.
    fn start(&self) -> *mut u8;

    /// Returns the number of bytes.
    fn len(&self) -> usize;

    /// Returns whether the region has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// SAFETY: the mapping lives as long as the value, which is `Send` and `Sync`. Making references into it is
// unsafe.
unsafe impl Region for MmapRaw {
    fn start(&self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `MmapRaw`. Only its pointer keeps it from being `Send`, and its destructor (munmap,
// shm_unlink, close) may run on any thread.
#[cfg(feature = "shared_memory")]
unsafe impl Region for shared_memory::Shmem {
    fn start(&self) -> *mut u8 {
        self.as_ptr()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

// SAFETY: the promises of the region, which lives as long as any `Arc` of it.
unsafe impl<R: Region + ?Sized> Region for Arc<R> {
    fn start(&self) -> *mut u8 {
        R::start(self)
    }

    fn len(&self) -> usize {
        R::len(self)
    }
}

/// A region, and the offset in it at which an object begins.
#[derive(Clone)]
pub(crate) struct CallerMemory {
    region: Arc<dyn Region>,
    offset: usize,
    /// The address up to which the memory from the object on is shared and writable.
    shared_until: usize,
}

// SAFETY: promised by `Region`: any thread may use and drop it.
unsafe impl Send for CallerMemory {}
// SAFETY: as above.
unsafe impl Sync for CallerMemory {}

impl CallerMemory {
    /// Checks that an object of this alignment can begin here, and that the memory is shared and writable.
    pub(crate) fn new(
        region: impl Region,
        offset: usize,
        align: usize,
        operation: &'static str,
        shown: &str,
    ) -> Result<Self, Error> {
        let mut this = Self { region: Arc::new(region), offset, shared_until: 0 };
        let align = align.max(CACHE_LINE);
        let address = this.region.start().addr();
        if !(address.wrapping_add(offset)).is_multiple_of(align) {
            let problem = format!("byte {offset} of the region is at {address:#x} + {offset}");
            let problem = format!("{problem}; it must be at a multiple of {align}");
            return Err(Error::new(ErrorKind::Misaligned, operation, shown).with_detail(problem));
        }
        this.check_length(HEADER, operation, shown)?;
        this.shared_until = shared_until(this.base().addr());
        this.check(HEADER, operation, shown)?;
        this.touch(HEADER, operation, shown)?;
        Ok(this)
    }

    /// Checks that the region has so many bytes from the object on, and that they are shared and writable.
    ///
    /// No other process could reach an object in private memory. In read-only memory the first store would be
    /// a fault.
    pub(crate) fn check(&self, bytes: usize, operation: &'static str, shown: &str) -> Result<(), Error> {
        self.check_length(bytes, operation, shown)?;
        if self.shared_until - self.base().addr() >= bytes {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, operation, shown)
            .with_detail("the region is not one shared mapping that can be written"))
    }

    /// Makes sure that there is memory behind so many bytes: a file may be shorter than its mapping, or its
    /// disk full.
    pub(crate) fn touch(&self, bytes: usize, operation: &'static str, shown: &str) -> Result<(), Error> {
        sys::touch(self.base(), bytes).map_err(|error| Error::os(operation, shown, error))
    }

    fn check_length(&self, bytes: usize, operation: &'static str, shown: &str) -> Result<(), Error> {
        let there = self.region.len().saturating_sub(self.offset);
        if there >= bytes {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooSmall, operation, shown).with_detail(format_args!(
            "{bytes} bytes are needed from byte {} on, {there} are there",
            self.offset
        )))
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.region.start().wrapping_add(self.offset)
    }

    /// A word of the header.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the region is aligned and has room for a header (`new`), and lives as long as `self`.
        unsafe { header::word_at(self.base(), index) }
    }
}

/// The address up to which the memory from `start` on is mapped, shared and writable, as /proc says.
fn shared_until(start: usize) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
    let mut covered = start;
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        let bounds = range.split_once('-').and_then(|(from, to)| Some((hex(from)?, hex(to)?)));
        let Some((from, to)) = bounds else { continue };
        if from <= covered && covered < to && rest.starts_with("rw") && rest.as_bytes().get(3) == Some(&b's')
        {
            covered = to;
        }
    }
    covered
}

/// Bytes of a cache line: objects begin on one.
const CACHE_LINE: usize = 64;

impl fmt::Debug for CallerMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerMemory")
            .field("bytes", &self.region.len())
            .field("offset", &self.offset)
            .finish()
    }
}
