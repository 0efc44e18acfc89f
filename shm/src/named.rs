//! Objects with names: each is a file in a namespace, with one header and one object.
//!
//! # Making an object is atomic
//!
//! The maker makes a file without a name (`O_TMPFILE`) and locks it (`flock(LOCK_SH)`). It reserves the
//! memory (`fallocate`: a full file system is an error here, not SIGBUS later), and writes header and object.
//! Then `linkat` gives the file its name. So at every instruction the name does not exist, or means a
//! complete object. If the file system has no unnamed files, the maker uses a temporary name, which a sweep
//! recognises, and renames the file at the end.
//!
//! # The kernel knows which processes use an object
//!
//! Each attached process holds `LOCK_SH` on the file. The lock belongs to the open file, and the mapping
//! keeps that alive. So the descriptor can be closed, and the lock ends with the last munmap, by whatever
//! death. Some file systems (overlayfs) release the lock with the descriptor. Each file system is tested
//! once, and there the descriptor stays open.
//!
//! # Opening
//!
//! Under the directory's lock: open, `fstat`, `LOCK_EX|LOCK_NB`. If that lock is granted, no process uses the
//! object. Then a leftover is unlinked, and `open` finds nothing; an object that is persistent or has an
//! in-flight reference is opened. Next come `LOCK_SH`, the header, which is read once and checked, and only
//! then the mapping.
//!
//! # The end
//!
//! munmap; open the name again; same inode; `LOCK_EX|LOCK_NB`; unlink (`registry.rs`, `gc.rs`).
#![allow(unsafe_code, reason = "writes headers")]

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::access::{self, Access};
use crate::error::{Error, ErrorKind};
use crate::gc::{self, Gc};
use crate::header::{self, HEADER, Header, Location};
use crate::name::Name;
use crate::namespace::Namespace;
use crate::new_file::NewFile;
use crate::registry;
use crate::segment::{self, Address, Expected, HeldHere, Identity, LARGEST, Memory, Plan, Segment};
use crate::sys;

impl Segment {
    /// Makes an object, which `fill` initialises from zeros before any other thread can reach it. `Ok(None)`:
    /// the name is in use.
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
        gc::first_sweep(namespace);
        let name = name.cloned().map_or_else(|| Name::anonymous(operation), Ok)?;
        // With the directory's lock no sweep finds a temporary name whose file is not locked yet.
        let mut new = NewFile::make(namespace.file(), &shown, || namespace.lock(operation))?;
        let map = segment::allocate(&new.file, plan).map_err(failed)?;
        plan.access.give(&new.file).map_err(failed)?;
        let metadata = new.file.metadata().map_err(failed)?;
        let header = plan.header(Location::Namespace).map_err(failed)?;
        // SAFETY: a new mapping of at least HEADER bytes, whose file has no name.
        unsafe { header.write(map.as_mut_ptr()) };
        fill(map.as_mut_ptr().wrapping_add(HEADER));
        // SAFETY: as above.
        unsafe { header::publish(map.as_ptr()) };
        let copy = new.file.try_clone().map_err(failed)?;
        let lock = keep_if_needed(namespace, copy, metadata.dev());
        // Known to this process before it has a name: another thread that opens the name must find this
        // mapping. Through a second mapping it would not recognise its own locks.
        let address = Address::Name(namespace.clone(), name.clone());
        let identity = Identity::File(metadata.dev(), metadata.ino());
        let memory = Memory::Mapped { map, lock };
        let segment = registry::insert(Self::new(memory, address, identity, header, held_here));
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
        let mut published = new.publish(name.as_c_str());
        if published.as_ref().is_err_and(in_use) && gc::remove_stale(namespace, &name, operation)? {
            published = new.publish(name.as_c_str());
        }
        match published {
            Ok(()) => Ok(Some(segment)),
            Err(error) if in_use(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Attaches to an existing object. `Ok(None)`: the name is not in use.
    pub(crate) fn open(
        namespace: &Namespace,
        name: &Name,
        access: Access,
        expected: Expected<'_>,
        held_here: HeldHere,
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "open";
        let shown = format!("{} {name}", expected.kind);
        let failed = |error| Error::os(operation, &shown, error);
        let lock = namespace.lock(operation)?;
        let file = match sys::open_at(namespace.file(), name.as_c_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let error = failed(error).also(format_args!("in {}", namespace.path().display()));
                return Err(match std::fs::symlink_metadata(namespace.path().join(name.as_str())) {
                    Ok(metadata) => error.also(access::describe(&metadata)),
                    Err(_) => error,
                });
            }
            result => result.map_err(failed)?,
        };
        let metadata = file.metadata().map_err(failed)?;
        let length = metadata.len();
        if !metadata.is_file() || metadata.nlink() != 1 || length < HEADER as u64 || length > LARGEST {
            return Err(
                Error::new(ErrorKind::Corrupt, operation, &shown).with_detail("not a regular file of ours")
            );
        }
        access.admits(&metadata).map_err(|found| {
            let directory = namespace.path().display();
            let problem = format!("the file in {directory} is open to others than this namespace: {found}");
            Error::new(ErrorKind::Denied, operation, &shown).with_detail(problem)
        })?;
        let inode = (metadata.dev(), metadata.ino());
        let identity = Identity::File(inode.0, inode.1);
        if let Some(known) = registry::find(identity) {
            known.recheck(expected, operation, &shown)?;
            return Ok(Some(known));
        }
        // In-flight references do not expire while a process opens the object.
        let gc = Gc::new().in_flight_age(Duration::MAX);
        if gc::remove_if_unused(namespace, &lock, name, Some(inode), gc).map_err(failed)? {
            return Ok(None);
        }
        if !sys::lock_file(&file, false).map_err(failed)? {
            return Err(Error::new(ErrorKind::Busy, operation, &shown));
        }
        let header = Header::read(&file, length)
            .and_then(|header| header.check_pid_namespace().map(|()| header))
            .map_err(|flaw| flaw.into_error(operation, &shown))?;
        segment::check(&header, Location::Namespace, expected, operation, &shown)?;
        let map = segment::map(&file, length).map_err(failed)?;
        let memory = Memory::Mapped { map, lock: keep_if_needed(namespace, file, inode.0) };
        let address = Address::Name(namespace.clone(), name.clone());
        Ok(Some(registry::insert(Self::new(memory, address, identity, header, held_here))))
    }
}

/// Returns the descriptor if the locks of this file system end with it; else closes it.
fn keep_if_needed(namespace: &Namespace, file: File, device: u64) -> Option<File> {
    static NEEDED: Mutex<Vec<(u64, bool)>> = Mutex::new(Vec::new());
    let known =
        NEEDED.try_lock().and_then(|devices| devices.iter().find(|(known, _)| *known == device).copied());
    let needed = known.map_or_else(
        || {
            let needed = !lock_outlives_descriptor(namespace).unwrap_or(false);
            if let Some(mut devices) = NEEDED.try_lock() {
                devices.push((device, needed));
            }
            needed
        },
        |(_, needed)| needed,
    );
    needed.then_some(file)
}

/// Tests the file system with a new file: lock, map, close; then an exclusive lock through another open file
/// must be refused.
fn lock_outlives_descriptor(namespace: &Namespace) -> io::Result<bool> {
    let file = sys::open_unnamed(namespace.file())?;
    sys::reserve(&file, 1)?;
    let probe = sys::open_again(&file)?;
    let locked = sys::lock_file(&file, false)?;
    let _mapping = segment::map(&file, 1)?;
    drop(file);
    Ok(locked && !sys::lock_file(&probe, true)?)
}
