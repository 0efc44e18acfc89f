//! Birth, attachment and death of a segment: one file, one header, one object.
//!
//! # Birth is atomic
//!
//! A file without a name (`O_TMPFILE`), `flock(LOCK_SH)`, `fallocate` (a full file system is an error here, not a SIGBUS later), header, object; then `linkat`. A name is absent or complete at every instruction.
//! Where a file cannot be without a name it is born with a temporary one, which the sweep knows, and renamed.
//!
//! # Who uses it is the kernel's knowledge
//!
//! Each attached process holds `LOCK_SH` on the file. The lock belongs to the open file, the mapping keeps that alive, so the descriptor can be closed: it goes with the last munmap, by whatever death.
//! Some file systems (overlayfs) lose it with the descriptor; each is asked once, and there the descriptor is kept.
//!
//! # Opening
//!
//! Under the directory's lock: open, `fstat`, `LOCK_EX|LOCK_NB`. If that succeeds nobody has it: a leftover is unlinked and `open` finds nothing; a persistent object, or one
//! with a handle on its way, is taken. Then `LOCK_SH`, the header, read once and checked, and only then the mapping.
//!
//! # Death
//!
//! munmap; open the name again; same inode; `LOCK_EX|LOCK_NB`; unlink. If a thread of this process still owns a lock in the object (a leaked guard), the mapping is kept for ever: the kernel will walk through it.
#![allow(unsafe_code, reason = "owns mappings")]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};
use crate::header::{self, Element, Facts, Flaw, HEADER, Ticket, kind_bytes, kind_name};
use crate::identity;
use crate::name::Name;
use crate::namespace::Namespace;
use crate::registry;
use crate::sys;

/// The largest object, a bound against nonsense in headers and parameters.
pub(crate) const LARGEST: u64 = 1 << 46;

/// A mapped segment of this process. Each is mapped once, however often it is opened.
#[derive(Debug)]
pub(crate) struct Segment {
    map: ManuallyDrop<MmapRaw>,
    /// Where the file system forgets the lock with the descriptor.
    keeper: Option<File>,
    namespace: Namespace,
    name: Name,
    identity: (u64, u64),
    facts: Facts,
    held_here: HeldHere,
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
    /// Makes a segment; `fill` initialises the zeroed object before anybody can know it. `Ok(None)`: the name is in use.
    pub(crate) fn create(
        namespace: &Namespace,
        name: Option<&Name>,
        plan: Plan<'_>,
        held_here: HeldHere,
        fill: impl FnOnce(*mut u8),
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "create";
        let shown = name.map_or_else(|| plan.kind.to_owned(), |name| format!("{} {name}", plan.kind));
        let failed = |error| Error::os(operation, &shown, error);
        namespace.first_sweep();
        let name = name.cloned().map_or_else(|| Name::anonymous(operation), Ok)?;
        let length = (HEADER + plan.bytes) as u64;
        let (file, temporary) = unborn(namespace, &shown)?;
        let born = (|| {
            if !sys::lock_file(&file, false)? {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            sys::reserve(&file, (HEADER + plan.reserved) as u64)?;
            file.set_len(length)?;
            let identity = file.metadata().map(|facts| (facts.dev(), facts.ino()))?;
            let generation = sys::random::<16>()?;
            Ok((map(&file, length)?, identity, generation))
        })();
        let (map, identity, generation) = match born {
            Ok(born) => born,
            Err(error) => {
                discard(namespace, temporary.as_ref());
                return Err(failed(error));
            }
        };
        let half = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let facts = Facts {
            kind: kind_bytes(plan.kind),
            layout: plan.layout,
            persistent: plan.persistent,
            pid_namespace: identity::pid_namespace(),
            file_length: length,
            object_length: plan.bytes as u64,
            extents: plan.extents,
            element: plan.element.clone(),
            generation: [half(&generation[..8]), half(&generation[8..])],
        };
        // SAFETY: a new mapping of at least HEADER bytes, without a name.
        unsafe { facts.write(map.as_mut_ptr()) };
        fill(map.as_mut_ptr().wrapping_add(HEADER));
        let keeper = match file.try_clone() {
            Ok(copy) => keeper(namespace, copy, identity.0),
            Err(error) => {
                discard(namespace, temporary.as_ref());
                return Err(failed(error));
            }
        };
        // Known to this process before it has a name: another thread that opens the name must find this mapping, not make a second one, in which our locks would be
        // strangers' to us.
        let segment = registry::insert(Self {
            map: ManuallyDrop::new(map),
            keeper,
            namespace: namespace.clone(),
            name: name.clone(),
            identity,
            facts,
            held_here,
        });
        let link = || match &temporary {
            None => sys::give_name(&file, namespace.file(), name.as_c_str()),
            Some(temporary) => sys::rename_new(namespace.file(), temporary.as_c_str(), name.as_c_str()),
        };
        // CRASH: before this call there is no name (or a temporary one, which the sweep takes); after it, a whole object.
        let mut linked = link();
        if matches!(&linked, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            let removed = namespace.remove_stale(&name, operation).inspect_err(|_| discard(namespace, temporary.as_ref()))?;
            if removed {
                linked = link();
            }
        }
        match linked {
            Ok(()) => Ok(Some(segment)),
            Err(error) => {
                discard(namespace, temporary.as_ref());
                if error.kind() == io::ErrorKind::AlreadyExists { Ok(None) } else { Err(failed(error)) }
            }
        }
    }

    /// Attaches to an existing segment. `Ok(None)`: nobody uses the name.
    pub(crate) fn open(
        namespace: &Namespace,
        name: &Name,
        expected: Expected<'_>,
        held_here: HeldHere,
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "open";
        let shown = format!("{} {name}", expected.kind);
        let failed = |error| Error::os(operation, &shown, error);
        let lock = namespace.lock(operation)?;
        let file = match sys::open_at(namespace.file(), name.as_c_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed)?,
        };
        let facts = file.metadata().map_err(failed)?;
        let corrupt = |problem: &str| Error::new(ErrorKind::Corrupt, operation, &shown).with_detail(problem);
        if !facts.is_file() || facts.nlink() != 1 || facts.len() < HEADER as u64 || facts.len() > LARGEST {
            return Err(corrupt("not a regular file of ours"));
        }
        if facts.uid() != sys::effective_user() || facts.mode() & 0o077 != 0 {
            return Err(Error::new(ErrorKind::Denied, operation, &shown).with_detail("the file is open to other users"));
        }
        let identity = (facts.dev(), facts.ino());
        if let Some(known) = registry::find(identity) {
            // Inherited over a fork into another pid namespace, perhaps.
            if known.facts.pid_namespace != identity::pid_namespace() {
                return Err(Error::new(ErrorKind::OtherPidNamespace, operation, &shown));
            }
            check(&known.facts, expected, operation, &shown)?;
            return Ok(Some(known));
        }
        if namespace.remove_if_unused(&lock, name, Some(identity), TICKETS_KEEP, false).map_err(failed)? {
            return Ok(None);
        }
        if !sys::lock_file(&file, false).map_err(failed)? {
            return Err(Error::new(ErrorKind::Busy, operation, &shown));
        }
        let header = Facts::read(&file, facts.len()).map_err(|flaw| match flaw {
            Flaw::Corrupt(problem) => corrupt(problem),
            Flaw::Version(problem) => Error::new(ErrorKind::WrongVersion, operation, &shown).with_detail(problem),
            Flaw::PidNamespace => Error::new(ErrorKind::OtherPidNamespace, operation, &shown),
        })?;
        check(&header, expected, operation, &shown)?;
        let map = map(&file, facts.len()).map_err(failed)?;
        let keeper = keeper(namespace, file, identity.0);
        let segment = Self {
            map: ManuallyDrop::new(map),
            keeper,
            namespace: namespace.clone(),
            name: name.clone(),
            identity,
            facts: header,
            held_here,
        };
        Ok(Some(registry::insert(segment)))
    }

    /// Sets memory aside for a range of the object.
    pub(crate) fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        // What would be SIGBUS at a touch is an error here.
        self.map.advise_range(Advice::PopulateWrite, HEADER + bytes.start, bytes.len()).map_err(sys::populate_error)
    }

    /// Gives the memory of the whole pages in a range of the object back.
    pub(crate) fn give_back(&self, bytes: Range<usize>) -> io::Result<()> {
        let page = sys::page_size();
        let (start, end) = ((HEADER + bytes.start).next_multiple_of(page), (HEADER + bytes.end) / page * page);
        if start >= end {
            return Ok(());
        }
        // SAFETY: whole pages of the object's tail, which is only ever reached as atomics: whoever reads there finds zeros, a value like any other.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::Remove, start, end - start) }
    }

    /// The object.
    pub(crate) fn object(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(HEADER)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn take_ticket(&self) -> Option<Ticket> {
        let id = u64::from_ne_bytes(sys::random::<8>().ok()?).max(1);
        // SAFETY: our own mapping begins with a header.
        unsafe { header::take_ticket(self.map.as_ptr(), id) }
    }

    pub(crate) fn return_ticket(&self, ticket: Ticket) -> bool {
        // SAFETY: as above.
        unsafe { header::return_ticket(self.map.as_ptr(), ticket) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if (self.held_here)(self) {
            // A leaked guard: this thread's robust list leads through the mapping. It stays, known to the registry, and so does the name, until the process ends.
            // SAFETY: taken once, here; nothing uses this segment any more.
            let map = unsafe { ManuallyDrop::take(&mut self.map) };
            let kept = Self {
                map: ManuallyDrop::new(map),
                keeper: self.keeper.take(),
                namespace: self.namespace.clone(),
                name: self.name.clone(),
                identity: self.identity,
                facts: self.facts.clone(),
                held_here: self.held_here,
            };
            std::mem::forget(registry::insert(kept));
            return;
        }
        registry::forget(self.identity);
        // SAFETY: dropped once, here; nothing uses the mapping any more.
        unsafe { ManuallyDrop::drop(&mut self.map) };
        self.keeper = None;
        self.namespace.leave(&self.name, self.identity);
    }
}

/// While somebody opens, tickets do not expire.
const TICKETS_KEEP: std::time::Duration = std::time::Duration::MAX;

/// What is there against what is wanted; the error names both.
fn check(found: &Facts, expected: Expected<'_>, operation: &'static str, shown: &str) -> Result<(), Error> {
    let fail = |kind, detail: String| Err(Error::new(kind, operation, shown).with_detail(detail));
    if expected.generation.is_some_and(|generation| generation != found.generation) {
        return fail(ErrorKind::Stale, "the name belongs to a newer object".to_owned());
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

fn map(file: &File, length: u64) -> io::Result<MmapRaw> {
    let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    MmapOptions::new().len(length).map_raw(file)
}

/// A new file in the namespace, without a name if the file system can do that.
fn unborn(namespace: &Namespace, shown: &str) -> Result<(File, Option<Name>), Error> {
    let operation = "create";
    let failed = |error| Error::os(operation, shown, error);
    match sys::open_unnamed(namespace.file()) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let name = Name::temporary(operation)?;
            // The sweep must not find it between its birth and its lock.
            let _lock = namespace.lock(operation)?;
            let file = sys::create_at(namespace.file(), name.as_c_str()).map_err(failed)?;
            if !sys::lock_file(&file, false).map_err(failed)? {
                return Err(Error::new(ErrorKind::Busy, operation, shown));
            }
            Ok((file, Some(name)))
        }
        result => result.map(|file| (file, None)).map_err(failed),
    }
}

fn discard(namespace: &Namespace, temporary: Option<&Name>) {
    if let Some(name) = temporary {
        let _ = sys::remove_at(namespace.file(), name.as_c_str());
    }
}

/// The descriptor, if this file system's locks need it; else it is closed.
fn keeper(namespace: &Namespace, file: File, device: u64) -> Option<File> {
    static KEPT: Mutex<Vec<(u64, bool)>> = Mutex::new(Vec::new());
    let known = KEPT.try_lock().and_then(|kept| kept.iter().find(|(known, _)| *known == device).map(|(_, keep)| *keep));
    let keep = known.unwrap_or_else(|| {
        let keep = !lock_outlives_descriptor(namespace).unwrap_or(false);
        if let Some(mut kept) = KEPT.try_lock() {
            kept.push((device, keep));
        }
        keep
    });
    keep.then_some(file)
}

/// Asks the file system with a file of its own: lock, map, close; then an exclusive lock through another open file must be refused.
fn lock_outlives_descriptor(namespace: &Namespace) -> io::Result<bool> {
    let file = sys::open_unnamed(namespace.file())?;
    sys::reserve(&file, 1)?;
    let probe = sys::open_again(&file)?;
    let locked = sys::lock_file(&file, false)?;
    let _mapping = map(&file, 1)?;
    drop(file);
    Ok(locked && !sys::lock_file(&probe, true)?)
}
