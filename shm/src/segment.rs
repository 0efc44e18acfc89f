//! A mapped object of this process: header and object.
//!
//! `named.rs`, `file.rs` and `placed.rs` make and find one; `registry.rs` knows all of this process, and ends
//! their mappings.
#![allow(unsafe_code, reason = "owns mappings")]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::path::PathBuf;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use multiproc_robust::pid_namespace;

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::header::{
    self, Element, Flaw, HEADER, Header, InFlightReference, Location, kind_bytes, kind_name,
};
use crate::name::Name;
use crate::namespace::Namespace;
use crate::region::CallerMemory;
use crate::sys;

/// Bytes of the largest object: a limit against nonsense in headers and parameters.
pub(crate) const LARGEST: u64 = 1 << 46;

/// A mapped object of this process, which maps each object once.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) memory: ManuallyDrop<Memory>,
    pub(crate) address: Address,
    pub(crate) identity: Identity,
    pub(crate) header: Header,
    pub(crate) held_here: HeldHere,
}

/// The memory in which the object lies.
#[derive(Debug)]
pub(crate) enum Memory {
    /// A file. The descriptor is kept if the file's lock ends with it.
    Mapped { map: MmapRaw, lock: Option<File> },
    /// Caller-provided memory.
    Caller(CallerMemory),
}

/// Identifies an object within one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Device and inode of the file.
    File(u64, u64),
    /// The generation.
    Memory([u64; 2]),
}

/// Where other processes find the object.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Name(Namespace, Name),
    File(PathBuf, Access),
    Memory,
}

/// Returns whether a thread of this process owns a lock of the object.
pub(crate) type HeldHere = fn(&Segment) -> bool;

/// A description of an object to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) kind: &'a str,
    pub(crate) layout: u32,
    pub(crate) element: &'a Element,
    pub(crate) extents: [u64; 2],
    pub(crate) bytes: usize,
    /// How many of the bytes have memory from the beginning.
    pub(crate) reserved: usize,
    pub(crate) persistent: bool,
    pub(crate) access: Access,
    pub(crate) huge_pages: bool,
}

/// What an existing object must be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) kind: &'a str,
    pub(crate) layout: u32,
    pub(crate) element: &'a Element,
    /// `None`: any.
    pub(crate) extents: Option<[u64; 2]>,
    /// Computes the size from the extents.
    pub(crate) size: fn([u64; 2]) -> Option<usize>,
    pub(crate) generation: Option<[u64; 2]>,
}

impl Segment {
    pub(crate) fn new(
        memory: Memory,
        address: Address,
        identity: Identity,
        header: Header,
        held_here: HeldHere,
    ) -> Self {
        Self { memory: ManuallyDrop::new(memory), address, identity, header, held_here }
    }

    /// Checks that an object which this process has mapped already is the expected one.
    pub(crate) fn recheck(
        &self,
        expected: Expected<'_>,
        operation: &'static str,
        shown: &str,
    ) -> Result<(), Error> {
        // The mapping may have been inherited by a fork into another pid namespace.
        self.header.check_pid_namespace().map_err(|flaw| flaw.into_error(operation, shown))?;
        check(&self.header, self.header.location, expected, operation, shown)
    }

    /// Reserves memory for a range of the object.
    pub(crate) fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        // Without space this is an error, and a store would be SIGBUS.
        let start = HEADER + bytes.start;
        self.map()?.advise_range(Advice::PopulateWrite, start, bytes.len()).map_err(sys::populate_error)
    }

    /// Releases the memory of the whole pages in a range of the object.
    pub(crate) fn give_back(&self, bytes: Range<usize>) -> io::Result<()> {
        let map = self.map()?;
        let page = sys::page_size();
        let (start, end) =
            ((HEADER + bytes.start).next_multiple_of(page), (HEADER + bytes.end) / page * page);
        if start >= end {
            return Ok(());
        }
        // SAFETY: whole pages of the object's tail, which is only accessed as atomics. A reader finds zeros,
        // a valid value.
        unsafe { map.unchecked_advise_range(UncheckedAdvice::Remove, start, end - start) }
    }

    /// Asks for huge pages. The kernel may ignore it.
    pub(crate) fn prefer_huge_pages(&self) {
        if let Ok(map) = self.map() {
            let _ = map.advise(Advice::HugePage);
        }
    }

    /// Writes an ordinary file's bytes to its disk and waits until they are there.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.address {
            Address::File(..) => self.map()?.flush(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The mapping, if this crate has made it.
    fn map(&self) -> io::Result<&MmapRaw> {
        match &*self.memory {
            Memory::Mapped { map, .. } => Ok(map),
            Memory::Caller(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The address of the header.
    pub(crate) fn base(&self) -> *mut u8 {
        match &*self.memory {
            Memory::Mapped { map, .. } => map.as_mut_ptr(),
            Memory::Caller(memory) => memory.base(),
        }
    }

    /// The address of the object.
    pub(crate) fn object(&self) -> *mut u8 {
        self.base().wrapping_add(HEADER)
    }

    pub(crate) fn take_reference(&self) -> Option<InFlightReference> {
        let id = u64::from_ne_bytes(sys::random::<8>().ok()?).max(1);
        // SAFETY: the mapping begins with a header.
        unsafe { header::take_reference(self.base(), id) }
    }

    pub(crate) fn release_reference(&self, reference: InFlightReference) -> bool {
        // SAFETY: as above.
        unsafe { header::release_reference(self.base(), reference) }
    }
}

impl Plan<'_> {
    /// Bytes of the file: header and object.
    pub(crate) fn length(&self) -> u64 {
        (HEADER + self.bytes) as u64
    }

    /// The header of a new object.
    pub(crate) fn header(&self, location: Location) -> io::Result<Header> {
        let random = sys::random::<16>()?;
        let half = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Ok(Header {
            kind: kind_bytes(self.kind),
            layout: self.layout,
            persistent: self.persistent,
            location,
            pid_namespace: pid_namespace(),
            file_length: self.length(),
            object_length: self.bytes as u64,
            extents: self.extents,
            element: self.element.clone(),
            generation: [half(&random[..8]), half(&random[8..])],
        })
    }
}

impl Address {
    /// The name that errors show.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Name(_, name) => name.to_string(),
            Self::File(path, _) => path.display().to_string(),
            Self::Memory => "(placed)".to_owned(),
        }
    }
}

impl Flaw {
    pub(crate) fn into_error(self, operation: &'static str, shown: &str) -> Error {
        let (kind, detail) = match self {
            Self::Corrupt(problem) => (ErrorKind::Corrupt, problem.to_owned()),
            Self::Version(problem) => (ErrorKind::WrongVersion, problem),
            Self::PidNamespace => return Error::new(ErrorKind::OtherPidNamespace, operation, shown),
        };
        Error::new(kind, operation, shown).with_detail(detail)
    }
}

/// Compares an object with what is expected. The error names both.
pub(crate) fn check(
    found: &Header,
    location: Location,
    expected: Expected<'_>,
    operation: &'static str,
    shown: &str,
) -> Result<(), Error> {
    let fail = |kind, detail: String| Err(Error::new(kind, operation, shown).with_detail(detail));
    if expected.generation.is_some_and(|generation| generation != found.generation) {
        return fail(ErrorKind::Stale, "the name belongs to a newer object".to_owned());
    }
    if found.location != location {
        let lives = match found.location {
            Location::Namespace => "lives in a namespace",
            Location::Memory => "was placed in memory",
            Location::File => "lives in an ordinary file",
        };
        return fail(ErrorKind::WrongKind, format!("it is a {} that {lives}", kind_name(found.kind)));
    }
    if found.kind != kind_bytes(expected.kind) {
        return fail(ErrorKind::WrongKind, format!("it is a {}", kind_name(found.kind)));
    }
    if found.layout != expected.layout {
        return fail(
            ErrorKind::WrongVersion,
            format!("layout version {}, this build reads {}", found.layout, expected.layout),
        );
    }
    if found.element != *expected.element {
        return fail(
            ErrorKind::Mismatch,
            format!("it holds {}, not {}", found.element.describe(), expected.element.describe()),
        );
    }
    // The extents determine the size, which must be that in the header: from here on the size is computed
    // from the extents.
    if (expected.size)(found.extents).is_none_or(|bytes| bytes as u64 != found.object_length) {
        return fail(ErrorKind::Corrupt, "its sizes do not fit its length".to_owned());
    }
    if let Some(extents) = expected.extents.filter(|extents| *extents != found.extents) {
        return fail(ErrorKind::Mismatch, format!("its sizes are {:?}, not {extents:?}", found.extents));
    }
    Ok(())
}

/// Reserves memory for a new object, sets the length of its file, and maps it. A full file system is an error
/// here, not SIGBUS later.
pub(crate) fn allocate(file: &File, plan: Plan<'_>) -> io::Result<MmapRaw> {
    let reserved = HEADER + plan.reserved;
    if !plan.huge_pages {
        sys::reserve(file, reserved as u64)?;
    }
    file.set_len(plan.length())?;
    let map = map(file, plan.length())?;
    if plan.huge_pages {
        // `fallocate` would reserve small pages. A mapping that has asked for huge pages gets those.
        let _ = map.advise(Advice::HugePage);
        match map.advise_range(Advice::PopulateWrite, 0, reserved).map_err(sys::populate_error) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => sys::reserve(file, reserved as u64)?,
            result => result?,
        }
    }
    Ok(map)
}

pub(crate) fn map(file: &File, length: u64) -> io::Result<MmapRaw> {
    let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    MmapOptions::new().len(length).map_raw(file)
}
