//! Objects with names: a file in a namespace, one header, one object.
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
//! munmap; open the name again; same inode; `LOCK_EX|LOCK_NB`; unlink (`segment.rs`).
#![allow(unsafe_code, reason = "writes headers")]

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::{self, Access};
use crate::error::{Error, ErrorKind};
use crate::header::{self, Facts, HEADER, Home};
use crate::name::Name;
use crate::namespace::Namespace;
use crate::registry::{self, Identity};
use crate::segment::{self, Address, Expected, HeldHere, LARGEST, Memory, Plan, Segment};
use crate::sys;

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
        let (file, temporary) = unborn(namespace, &shown)?;
        let born = (|| {
            if !sys::lock_file(&file, false)? {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            let map = segment::give_memory(&file, plan)?;
            plan.access.give(&file)?;
            let identity = file.metadata().map(|facts| (facts.dev(), facts.ino()))?;
            Ok((map, identity, plan.facts(Home::Namespace)?))
        })();
        let (map, identity, facts) = match born {
            Ok(born) => born,
            Err(error) => {
                discard(namespace, temporary.as_ref());
                return Err(failed(error));
            }
        };
        // SAFETY: a new mapping of at least HEADER bytes, without a name.
        unsafe { facts.write(map.as_mut_ptr()) };
        fill(map.as_mut_ptr().wrapping_add(HEADER));
        // SAFETY: as above.
        unsafe { header::publish(map.as_ptr()) };
        let keeper = match file.try_clone() {
            Ok(copy) => keeper(namespace, copy, identity.0),
            Err(error) => {
                discard(namespace, temporary.as_ref());
                return Err(failed(error));
            }
        };
        // Known to this process before it has a name: another thread that opens the name must find this mapping, not make a second one, in which our locks would be
        // strangers' to us.
        let address = Address::Name(namespace.clone(), name.clone());
        let memory = Memory::Mapped { map, keeper };
        let segment = registry::insert(Self::new(memory, address, Identity::File(identity.0, identity.1), facts, held_here));
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
                let whose = std::fs::symlink_metadata(namespace.path().join(name.as_str())).map(|facts| access::describe(&facts));
                let error = failed(error).also(format_args!("in {}", namespace.path().display()));
                return Err(match whose {
                    Ok(whose) => error.also(whose),
                    Err(_) => error,
                });
            }
            result => result.map_err(failed)?,
        };
        let facts = file.metadata().map_err(failed)?;
        let corrupt = |problem: &str| Error::new(ErrorKind::Corrupt, operation, &shown).with_detail(problem);
        if !facts.is_file() || facts.nlink() != 1 || facts.len() < HEADER as u64 || facts.len() > LARGEST {
            return Err(corrupt("not a regular file of ours"));
        }
        access.admits(&facts).map_err(|whose| {
            let problem = format!("the file in {} is open to others than this namespace: {whose}", namespace.path().display());
            Error::new(ErrorKind::Denied, operation, &shown).with_detail(problem)
        })?;
        let identity = (facts.dev(), facts.ino());
        if let Some(known) = registry::find(Identity::File(identity.0, identity.1)) {
            known.recheck(expected, operation, &shown)?;
            return Ok(Some(known));
        }
        if namespace.remove_if_unused(&lock, name, Some(identity), TICKETS_KEEP, false).map_err(failed)? {
            return Ok(None);
        }
        if !sys::lock_file(&file, false).map_err(failed)? {
            return Err(Error::new(ErrorKind::Busy, operation, &shown));
        }
        let header = Facts::read(&file, facts.len())
            .and_then(|header| header.check_pid_namespace().map(|()| header))
            .map_err(|flaw| flaw.into_error(operation, &shown))?;
        segment::check(&header, Home::Namespace, expected, operation, &shown)?;
        let map = segment::map(&file, facts.len()).map_err(failed)?;
        let keeper = keeper(namespace, file, identity.0);
        let memory = Memory::Mapped { map, keeper };
        let address = Address::Name(namespace.clone(), name.clone());
        let identity = Identity::File(identity.0, identity.1);
        Ok(Some(registry::insert(Self::new(memory, address, identity, header, held_here))))
    }
}

/// While somebody opens, tickets do not expire.
const TICKETS_KEEP: std::time::Duration = std::time::Duration::MAX;

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
    let _mapping = segment::map(&file, 1)?;
    drop(file);
    Ok(locked && !sys::lock_file(&probe, true)?)
}
