//! Objects in ordinary files, which outlive the programs that use them.
//!
//! # Making
//!
//! As in a namespace: a file without a name, its memory, header, object. Then the bytes are written to the
//! disk, and only after that the file gets its name. So a file of this name does not exist or is complete,
//! also after the machine has failed. Only the user removes it.
//!
//! # Opening
//!
//! One process at a time opens the file, under a lock on the open file's first byte (`F_OFD_SETLK`, which the
//! kernel releases when the holder dies). Then it tries `flock(LOCK_EX|LOCK_NB)`:
//!
//! - Refused: a process is attached. It has opened the file in this way, so the object is as its users have
//!   left it. `LOCK_SH` follows.
//! - Granted: no process is attached. The thread ids in the object's locks are of threads that have ended,
//!   perhaps before the machine's last restart; other threads may have these ids now. Each lock with an owner
//!   is put into the state in which the kernel leaves a lock whose owner dies. The pid namespace in the
//!   header becomes this process's. `LOCK_SH` follows. If this process is killed meanwhile, the next one
//!   finds no process attached and repeats all of it.
//!
//! A process uses the object only with `LOCK_SH`, and repairs it only with `LOCK_EX`.
#![allow(unsafe_code, reason = "writes headers, repairs locks")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use multiproc_robust::pid_namespace;

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::file_lock::lock_within;
use crate::header::{self, HEADER, Header, Location};
use crate::new_file::NewFile;
use crate::registry;
use crate::segment::{self, Address, Expected, HeldHere, Identity, LARGEST, Memory, Plan, Segment};
use crate::sys;

/// How long to wait for other processes that open the same file.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

impl Segment {
    /// Makes an object in a new file, which `fill` initialises from zeros before any other thread can reach
    /// it. `Ok(None)`: the file exists.
    pub(crate) fn create_file(
        path: &Path,
        plan: Plan<'_>,
        held_here: HeldHere,
        fill: impl FnOnce(*mut u8),
    ) -> Result<Option<Arc<Self>>, Error> {
        let shown = format!("{} {}", plan.kind, path.display());
        let failed = |error| Error::os("create", &shown, error);
        let path = std::path::absolute(path).map_err(failed)?;
        let (directory, name) = split(&path).map_err(failed)?;
        let mut new = NewFile::make(&directory, &shown, || Ok(()))?;
        let made = || -> io::Result<Arc<Self>> {
            let map = segment::allocate(&new.file, plan)?;
            plan.access.give(&new.file)?;
            let header = plan.header(Location::File)?;
            // SAFETY: a new mapping of at least HEADER bytes, all zero, that no other thread knows.
            unsafe { header.write(map.as_mut_ptr()) };
            fill(map.as_mut_ptr().wrapping_add(HEADER));
            // SAFETY: as above.
            unsafe { header::publish(map.as_ptr()) };
            map.flush()?;
            new.file.sync_all()?;
            let metadata = new.file.metadata()?;
            let identity = Identity::File(metadata.dev(), metadata.ino());
            let memory = Memory::Mapped { map, lock: Some(new.file.try_clone()?) };
            let address = Address::File(path.clone(), plan.access);
            // Known to this process before it has a name, as in a namespace.
            let segment = registry::insert(Self::new(memory, address, identity, header, held_here));
            new.publish(&name)?;
            directory.sync_all()?;
            Ok(segment)
        };
        match made() {
            Ok(segment) => Ok(Some(segment)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Attaches to the object in a file. `repair` repairs its locks if no other process is attached.
    /// `Ok(None)`: there is no such file.
    pub(crate) fn open_file(
        path: &Path,
        access: Access,
        expected: Expected<'_>,
        held_here: HeldHere,
        repair: impl FnOnce(*mut u8, [u64; 2]),
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "open";
        let shown = format!("{} {}", expected.kind, path.display());
        let failed = |error| Error::os(operation, &shown, error);
        let refused = |kind, detail: &str| Error::new(kind, operation, &shown).with_detail(detail);
        let path = std::path::absolute(path).map_err(failed)?;
        let file = match sys::open_path(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed)?,
        };
        let metadata = file.metadata().map_err(failed)?;
        let length = metadata.len();
        if !metadata.is_file() || length < HEADER as u64 || length > LARGEST {
            return Err(refused(ErrorKind::Corrupt, "not a regular file of ours"));
        }
        access.admits_file(&metadata).map_err(|found| refused(ErrorKind::Denied, &found))?;
        let identity = Identity::File(metadata.dev(), metadata.ino());
        let read = || Header::read(&file, length).map_err(|flaw| flaw.into_error(operation, &shown));
        // Checked before this process takes a lock on a file that may not be of this crate.
        segment::check(&read()?, Location::File, expected, operation, &shown)?;
        let _opening = OpenLock::take(&file).map_err(failed)?;
        if let Some(known) = registry::find(identity) {
            known.recheck(expected, operation, &shown)?;
            return Ok(Some(known));
        }
        let alone = sys::lock_file(&file, true).map_err(failed)?;
        if !alone && !sys::lock_file(&file, false).map_err(failed)? {
            return Err(refused(
                ErrorKind::Busy,
                "a process that does not use the object has locked its file",
            ));
        }
        let mut header = read()?;
        segment::check(&header, Location::File, expected, operation, &shown)?;
        if alone {
            // A copied file may have holes, and a store to one would be SIGBUS on a full disk.
            sys::fill_holes(&file, length).map_err(failed)?;
        } else {
            header.check_pid_namespace().map_err(|flaw| flaw.into_error(operation, &shown))?;
        }
        let map = segment::map(&file, length).map_err(failed)?;
        if alone {
            // CRASH: some locks are repaired, others not. No process is attached, so the next one to open
            // repairs them again.
            repair(map.as_mut_ptr().wrapping_add(HEADER), header.extents);
            header.pid_namespace = pid_namespace();
            // SAFETY: the header of the mapping that was just made.
            let word = unsafe { header::word_at(map.as_ptr(), header::PID_NAMESPACE_AT) };
            word.store(header.pid_namespace, Relaxed);
            // The change of the lock is not atomic: for an instant no process has the file locked. A process
            // that repairs it then finds it unused.
            if !sys::lock_file(&file, false).map_err(failed)? {
                return Err(Error::new(ErrorKind::Busy, operation, &shown));
            }
        }
        let lock = Some(file.try_clone().map_err(failed)?);
        let address = Address::File(path, access);
        let memory = Memory::Mapped { map, lock };
        Ok(Some(registry::insert(Self::new(memory, address, identity, header, held_here))))
    }
}

/// A held lock: only this process opens the file. Dropping it, or the death of this process, releases the
/// lock.
struct OpenLock<'a>(&'a File);

impl<'a> OpenLock<'a> {
    fn take(file: &'a File) -> io::Result<Self> {
        let taken = lock_within(OPEN_LIMIT, || sys::lock_first_byte(file, true))?;
        taken.then_some(Self(file)).ok_or(io::ErrorKind::ResourceBusy.into())
    }
}

impl Drop for OpenLock<'_> {
    fn drop(&mut self) {
        // Closing the descriptor does not suffice: a child that was forked meanwhile has a copy.
        let _ = sys::lock_first_byte(self.0, false);
    }
}

/// Opens a file's directory; also returns the file's name there.
fn split(path: &Path) -> io::Result<(File, CString)> {
    let unusual = || io::Error::from(io::ErrorKind::InvalidInput);
    let (parent, name) = (path.parent().ok_or_else(unusual)?, path.file_name().ok_or_else(unusual)?);
    Ok((File::open(parent)?, CString::new(name.as_encoded_bytes())?))
}
