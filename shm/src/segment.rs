//! A mapped object of this process: header, object, and what becomes of both in the end. How it comes to be, or is found: `named.rs`, `file.rs`, `placed.rs`.
//!
//! # Death
//!
//! munmap, and a name is taken away if nobody else uses the object. If a thread of this process still owns a lock in the object (a leaked guard), the mapping is kept for ever: the kernel will walk through it.
#![allow(unsafe_code, reason = "owns mappings")]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::path::PathBuf;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::header::{self, Element, Facts, Flaw, HEADER, Home, Ticket, kind_bytes, kind_name};
use crate::name::Name;
use crate::namespace::Namespace;
use crate::placed::Users;
use crate::registry::{self, Identity};
use crate::sys;

/// The largest object, a bound against nonsense in headers and parameters.
pub(crate) const LARGEST: u64 = 1 << 46;

/// A mapped object of this process. Each is mapped once, however often it is opened.
#[derive(Debug)]
pub(crate) struct Segment {
    memory: ManuallyDrop<Memory>,
    address: Address,
    identity: Identity,
    facts: Facts,
    held_here: HeldHere,
}

/// What holds the bytes.
#[derive(Debug)]
pub(crate) enum Memory {
    /// A file of ours. The descriptor is kept where the file system forgets the lock with it.
    Mapped { map: MmapRaw, keeper: Option<File> },
    /// Memory of the user's, kept alive.
    Users(Users),
}

/// Where others find it.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Name(Namespace, Name),
    File(PathBuf, Access),
    Memory,
}

/// Whether a thread of this process owns one of the object's locks.
pub(crate) type HeldHere = fn(&Segment) -> bool;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) kind: &'a str,
    pub(crate) layout: u32,
    pub(crate) element: &'a Element,
    pub(crate) extents: [u64; 2],
    pub(crate) bytes: usize,
    /// How many of the bytes are to have memory from the beginning.
    pub(crate) reserved: usize,
    pub(crate) persistent: bool,
    pub(crate) access: Access,
    pub(crate) huge_pages: bool,
}

/// What is expected of an existing one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) kind: &'a str,
    pub(crate) layout: u32,
    pub(crate) element: &'a Element,
    /// `None`: any.
    pub(crate) extents: Option<[u64; 2]>,
    /// The size that extents lead to.
    pub(crate) size: fn([u64; 2]) -> Option<usize>,
    pub(crate) generation: Option<[u64; 2]>,
}

impl Segment {
    pub(crate) fn new(memory: Memory, address: Address, identity: Identity, facts: Facts, held_here: HeldHere) -> Self {
        Self { memory: ManuallyDrop::new(memory), address, identity, facts, held_here }
    }

    /// Whether what this process has mapped already is what is wanted.
    pub(crate) fn recheck(&self, expected: Expected<'_>, operation: &'static str, shown: &str) -> Result<(), Error> {
        // Inherited over a fork into another pid namespace, perhaps.
        self.facts.check_pid_namespace().map_err(|flaw| flaw.into_error(operation, shown))?;
        check(&self.facts, self.facts.home, expected, operation, shown)
    }

    /// Sets memory aside for a range of the object.
    pub(crate) fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        // What would be SIGBUS at a touch is an error here.
        self.ours()?.advise_range(Advice::PopulateWrite, HEADER + bytes.start, bytes.len()).map_err(sys::populate_error)
    }

    /// Gives the memory of the whole pages in a range of the object back.
    pub(crate) fn give_back(&self, bytes: Range<usize>) -> io::Result<()> {
        let map = self.ours()?;
        let page = sys::page_size();
        let (start, end) = ((HEADER + bytes.start).next_multiple_of(page), (HEADER + bytes.end) / page * page);
        if start >= end {
            return Ok(());
        }
        // SAFETY: whole pages of the object's tail, which is only ever reached as atomics: whoever reads there finds zeros, a value like any other.
        unsafe { map.unchecked_advise_range(UncheckedAdvice::Remove, start, end - start) }
    }

    /// Asks for huge pages. A hint: where the kernel does not like it, nothing changes.
    pub(crate) fn prefer_huge_pages(&self) {
        if let Ok(map) = self.ours() {
            let _ = map.advise(Advice::HugePage);
        }
    }

    /// Writes an ordinary file's bytes to its disk, and waits for that.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.address {
            Address::File(..) => self.ours()?.flush(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// A mapping that is our own, to be given advice.
    fn ours(&self) -> io::Result<&MmapRaw> {
        match &*self.memory {
            Memory::Mapped { map, .. } => Ok(map),
            Memory::Users(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Where the header begins.
    pub(crate) fn base(&self) -> *mut u8 {
        match &*self.memory {
            Memory::Mapped { map, .. } => map.as_mut_ptr(),
            Memory::Users(users) => users.base(),
        }
    }

    /// The object.
    pub(crate) fn object(&self) -> *mut u8 {
        self.base().wrapping_add(HEADER)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn take_ticket(&self) -> Option<Ticket> {
        let id = u64::from_ne_bytes(sys::random::<8>().ok()?).max(1);
        // SAFETY: our own mapping begins with a header.
        unsafe { header::take_ticket(self.base(), id) }
    }

    pub(crate) fn return_ticket(&self, ticket: Ticket) -> bool {
        // SAFETY: as above.
        unsafe { header::return_ticket(self.base(), ticket) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let held = (self.held_here)(self);
        // SAFETY: taken once, here; nothing uses this segment any more.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if held {
            // A leaked guard: this thread's robust list leads through the memory. It stays, known to the registry, and so does the name, until the process ends.
            let kept = Self::new(memory, self.address.clone(), self.identity, self.facts.clone(), self.held_here);
            std::mem::forget(registry::insert(kept));
            return;
        }
        registry::forget(self.identity);
        match memory {
            // The lock, if the descriptor keeps it, ends last.
            Memory::Mapped { map, keeper } => {
                drop(map);
                drop(keeper);
            }
            Memory::Users(users) => drop(users),
        }
        if let (Address::Name(namespace, name), Identity::File(device, inode)) = (&self.address, self.identity) {
            namespace.leave(name, (device, inode));
        }
    }
}

impl Plan<'_> {
    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        (HEADER + self.bytes) as u64
    }

    /// The header of a new one.
    pub(crate) fn facts(&self, home: Home) -> io::Result<Facts> {
        let random = sys::random::<16>()?;
        let half = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Ok(Facts {
            kind: kind_bytes(self.kind),
            layout: self.layout,
            persistent: self.persistent,
            home,
            pid_namespace: multiproc_robust::pid_namespace(),
            file_length: self.length(),
            object_length: self.bytes as u64,
            extents: self.extents,
            element: self.element.clone(),
            generation: [half(&random[..8]), half(&random[8..])],
        })
    }
}

impl Address {
    /// As errors name it.
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

/// What is there against what is wanted; the error names both.
pub(crate) fn check(
    found: &Facts,
    home: Home,
    expected: Expected<'_>,
    operation: &'static str,
    shown: &str,
) -> Result<(), Error> {
    let fail = |kind, detail: String| Err(Error::new(kind, operation, shown).with_detail(detail));
    if expected.generation.is_some_and(|generation| generation != found.generation) {
        return fail(ErrorKind::Stale, "the name belongs to a newer object".to_owned());
    }
    if found.home != home {
        let lives = match found.home {
            Home::Namespace => "lives in a namespace",
            Home::Memory => "was placed in memory",
            Home::File => "lives in an ordinary file",
        };
        return fail(ErrorKind::WrongKind, format!("it is a {} that {lives}", kind_name(found.kind)));
    }
    if found.kind != kind_bytes(expected.kind) {
        return fail(ErrorKind::WrongKind, format!("it is a {}", kind_name(found.kind)));
    }
    if found.layout != expected.layout {
        return fail(ErrorKind::WrongVersion, format!("layout version {}, this build reads {}", found.layout, expected.layout));
    }
    if found.element != *expected.element {
        return fail(ErrorKind::Mismatch, format!("it holds {}, not {}", found.element.describe(), expected.element.describe()));
    }
    // The extents lead to the size by our own reckoning, and that must be inside the file: from here on nobody asks the segment again.
    if (expected.size)(found.extents).is_none_or(|bytes| bytes as u64 != found.object_length) {
        return fail(ErrorKind::Corrupt, "its sizes do not fit its length".to_owned());
    }
    if let Some(extents) = expected.extents.filter(|extents| *extents != found.extents) {
        return fail(ErrorKind::Mismatch, format!("its sizes are {:?}, not {extents:?}", found.extents));
    }
    Ok(())
}

/// Memory for all that is to have it from the beginning (a full file system is an error here, not a SIGBUS later), the file's length, and the mapping.
pub(crate) fn give_memory(file: &File, plan: Plan<'_>) -> io::Result<MmapRaw> {
    let reserved = HEADER + plan.reserved;
    if !plan.huge_pages {
        sys::reserve(file, reserved as u64)?;
    }
    file.set_len(plan.length())?;
    let map = map(file, plan.length())?;
    if plan.huge_pages {
        // Set aside by the file, memory would come in small pages; by a mapping that has asked for huge ones, it comes in those.
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
