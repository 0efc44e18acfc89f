//! Objects in ordinary files, which outlive the programs that use them.
//!
//! # Birth
//!
//! As in a namespace: a file without a name, memory set aside, header, object; then the bytes are written to the disk, and only then it gets its name. A file of that name is absent or complete,
//! also after the machine has failed. Nobody but its owner ever removes it.
//!
//! # Opening
//!
//! One at a time, under a lock on the open file's first byte (`F_OFD_SETLK`, which the kernel takes back when its holder dies). Then `flock(LOCK_EX|LOCK_NB)`:
//!
//! - refused: somebody is attached. He has gone through all this, so the object is as sound as its users have left it; `LOCK_SH`.
//! - got: nobody is attached. What the words of its locks hold are thread ids of processes that have gone, perhaps of before the last restart of the machine, and may be those of others by
//!   now. Each lock that has an owner is put into the state in which the kernel leaves those of the dead; the pid namespace in the header becomes ours; then `LOCK_SH`.
//!   Killed in the midst of this, the next one to open finds nobody attached and does it again.
//!
//! Nobody uses the object without `LOCK_SH`, and nobody mends it with less than `LOCK_EX`.
#![allow(unsafe_code, reason = "writes headers, mends locks")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::header::{self, Facts, HEADER, Home};
use crate::name::Name;
use crate::registry::{self, Identity};
use crate::segment::{self, Address, Expected, HeldHere, LARGEST, Memory, Plan, Segment};
use crate::sys;
use multiproc_robust::Deadline;

/// How long those who open the same file are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

impl Segment {
    /// Makes an object in a new file; `fill` initialises it, zeroed, before anybody can know it. `Ok(None)`: the file exists.
    pub(crate) fn create_file(
        path: &Path,
        plan: Plan<'_>,
        held_here: HeldHere,
        fill: impl FnOnce(*mut u8),
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "create";
        let shown = format!("{} {}", plan.kind, path.display());
        let failed = |error| Error::os(operation, &shown, error);
        let path = std::path::absolute(path).map_err(failed)?;
        let (directory, name) = place_of(&path).map_err(failed)?;
        let (file, temporary) = unborn(&directory).map_err(failed)?;
        let born = || -> io::Result<Arc<Self>> {
            if !sys::lock_file(&file, false)? {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            let map = segment::give_memory(&file, plan)?;
            plan.access.give(&file)?;
            let facts = plan.facts(Home::File)?;
            // SAFETY: a new mapping of at least HEADER bytes, all zero, that nobody else knows.
            unsafe { facts.write(map.as_mut_ptr()) };
            fill(map.as_mut_ptr().wrapping_add(HEADER));
            // SAFETY: as above.
            unsafe { header::publish(map.as_ptr()) };
            map.flush()?;
            file.sync_all()?;
            let identity = file.metadata().map(|facts| Identity::File(facts.dev(), facts.ino()))?;
            let memory = Memory::Mapped { map, keeper: Some(file.try_clone()?) };
            // Known to this process before it has a name, as in a namespace.
            let segment =
                registry::insert(Self::new(memory, Address::File(path.clone(), plan.access), identity, facts, held_here));
            // CRASH: before this call there is no such file (where files cannot be without a name: one with another name stays); after it, a whole one.
            match &temporary {
                None => sys::give_name(&file, &directory, &name)?,
                Some(temporary) => sys::rename_new(&directory, temporary.as_c_str(), &name)?,
            }
            directory.sync_all()?;
            Ok(segment)
        };
        match born() {
            Ok(segment) => Ok(Some(segment)),
            Err(error) => {
                if let Some(name) = temporary {
                    let _ = sys::remove_at(&directory, name.as_c_str());
                }
                if error.kind() == io::ErrorKind::AlreadyExists { Ok(None) } else { Err(failed(error)) }
            }
        }
    }

    /// Attaches to the object in a file; `mend` repairs its locks if nobody else is attached. `Ok(None)`: no such file.
    pub(crate) fn open_file(
        path: &Path,
        access: Access,
        expected: Expected<'_>,
        held_here: HeldHere,
        mend: impl FnOnce(*mut u8, [u64; 2]),
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "open";
        let shown = format!("{} {}", expected.kind, path.display());
        let failed = |error| Error::os(operation, &shown, error);
        let path = std::path::absolute(path).map_err(failed)?;
        let file = match sys::open_path(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed)?,
        };
        let facts = file.metadata().map_err(failed)?;
        let length = facts.len();
        if !facts.is_file() || length < HEADER as u64 || length > LARGEST {
            return Err(Error::new(ErrorKind::Corrupt, operation, &shown).with_detail("not a regular file of ours"));
        }
        access.admits_file(&facts).map_err(|whose| Error::new(ErrorKind::Denied, operation, &shown).with_detail(whose))?;
        let identity = Identity::File(facts.dev(), facts.ino());
        let read = || Facts::read(&file, length).map_err(|flaw| flaw.into_error(operation, &shown));
        // Before anything is asked of a file that is not ours, also not a lock.
        segment::check(&read()?, Home::File, expected, operation, &shown)?;
        let _turn = turn(&file).map_err(failed)?;
        if let Some(known) = registry::find(identity) {
            known.recheck(expected, operation, &shown)?;
            return Ok(Some(known));
        }
        let alone = sys::lock_file(&file, true).map_err(failed)?;
        if !alone && !sys::lock_file(&file, false).map_err(failed)? {
            return Err(
                Error::new(ErrorKind::Busy, operation, &shown).with_detail("somebody who does not use it has locked the file")
            );
        }
        let mut header = read()?;
        segment::check(&header, Home::File, expected, operation, &shown)?;
        if alone {
            // A copy may have holes, which would be a SIGBUS on a full disk.
            sys::fill_holes(&file, length).map_err(failed)?;
        } else {
            header.check_pid_namespace().map_err(|flaw| flaw.into_error(operation, &shown))?;
        }
        let map = segment::map(&file, length).map_err(failed)?;
        if alone {
            // CRASH: some locks mended, others not: nobody is attached, so the next one to come does it again.
            mend(map.as_mut_ptr().wrapping_add(HEADER), header.extents);
            header.pid_namespace = multiproc_robust::pid_namespace();
            // SAFETY: the header of a mapping just made.
            unsafe { header::word_at(map.as_ptr(), header::PID_NAMESPACE_AT) }.store(header.pid_namespace, Relaxed);
            // Not atomic: for an instant nobody has the file. Whoever mends it then finds that nobody has used it yet.
            if !sys::lock_file(&file, false).map_err(failed)? {
                return Err(Error::new(ErrorKind::Busy, operation, &shown));
            }
        }
        let keeper = Some(file.try_clone().map_err(failed)?);
        let memory = Memory::Mapped { map, keeper };
        Ok(Some(registry::insert(Self::new(memory, Address::File(path, access), identity, header, held_here))))
    }
}

/// Held: this process alone opens the file, until dropped or dead.
struct Turn<'a>(&'a File);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Closing is not enough: a child that was forked meanwhile has the descriptor as well.
        let _ = sys::lock_first_byte(self.0, false);
    }
}

fn turn(file: &File) -> io::Result<Turn<'_>> {
    let deadline = Deadline::after(PATIENCE);
    let mut pause = Duration::from_micros(20);
    while !sys::lock_first_byte(file, true)? {
        if deadline.has_passed() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    Ok(Turn(file))
}

/// A file's directory, and its name there.
fn place_of(path: &Path) -> io::Result<(File, CString)> {
    let unusual = || io::Error::from(io::ErrorKind::InvalidInput);
    let (parent, name) = (path.parent().ok_or_else(unusual)?, path.file_name().ok_or_else(unusual)?);
    Ok((File::open(parent)?, CString::new(name.as_encoded_bytes())?))
}

/// A new file there, without a name if the file system can do that.
fn unborn(directory: &File) -> io::Result<(File, Option<Name>)> {
    match sys::open_unnamed(directory) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let name = Name::temporary("create").map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
            Ok((sys::create_at(directory, name.as_c_str())?, Some(name)))
        }
        result => result.map(|file| (file, None)),
    }
}
