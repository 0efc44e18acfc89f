//! Objects in memory of the user's, and in ordinary files: nothing, or whole; and locks of another time that
//! are mended by the first to come.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::MmapRaw;
use multiproc::shm::{Namespace, ValueGuard};
use multiproc::{ErrorKind, Options, Value};
use multiproc_killstep::{Case, Cells, Fault, Granularity, Kill, Region, Sweep};

use crate::support::{ignore, nothing_left};

type Four = Value<[u64; 4]>;
const MINE: [u64; 4] = [5; 4];
const OTHER: [u64; 4] = [6; 4];
/// Where the owner word of the value's lock stands.
const LOCK: u64 = 1024;

/// What the driver has mapped, so that the victim's stores are seen; and what it keeps alive.
pub(crate) struct Memory {
    region: Arc<MmapRaw>,
    again: Arc<MmapRaw>,
    kept: Option<Four>,
}

pub(crate) fn run(sweep: &mut Sweep) {
    for case in placing().into_iter().chain(mending()) {
        sweep.run(&case);
    }
    for case in files() {
        sweep.run(&case);
    }
}

fn placing() -> Vec<Case<'static, Memory>> {
    vec![
        place_case("placed/place", || fresh(|_| ()), whole_or_again),
        place_case("placed/place, over what a dead process left", || fresh(half_placed), whole_or_again),
        stepped(
            "placed/attach",
            || {
                let mut memory = fresh(|_| ());
                memory.kept = Some(Options::new().place(memory.region.clone(), 0, MINE).unwrap());
                memory
            },
            // Through another mapping of the same memory.
            |memory, _| ignore(Options::new().attach::<Four>(memory.again.clone(), 0)),
            |memory, _| {
                let found: Four = Options::new().attach(memory.again.clone(), 0)?;
                if found.get()? == MINE { usable(&found) } else { Err(Fault::Torn("another object".into())) }
            },
        ),
    ]
}

fn place(memory: &Memory) {
    ignore(Options::new().place::<Four>(memory.region.clone(), 0, MINE));
}

/// Nothing to attach to, or a whole object; and if it is not there then it can be placed.
fn whole_or_again(memory: &Memory, kill: &Kill<'_>) -> Result<(), Fault> {
    let found = match Options::new().attach::<Four>(memory.again.clone(), 0) {
        Ok(found) => found,
        Err(error) if kill.finished() => return Err(Fault::Lost(error.to_string())),
        Err(error) if [ErrorKind::NotReady, ErrorKind::NotFound].contains(&error.kind()) => {
            Options::new().place(memory.again.clone(), 0, MINE)?
        }
        Err(error) => return Err(error.into()),
    };
    if found.get()? == MINE { usable(&found) } else { Err(Fault::Torn("half an object".into())) }
}

/// The claim of a thread that has ended, and some of what it wrote.
fn half_placed(file: &File) {
    let namespace = multiproc::robust::pid_namespace() & 0xffff;
    let claim = 0x6d70_u64 << 48 | namespace << 32 | 0x3fff_fff0;
    file.write_all_at(&claim.to_le_bytes(), 0).unwrap();
    file.write_all_at(&[0xa5; 64], 96).unwrap();
    file.write_all_at(&[0xa5; 16], LOCK).unwrap();
}

/// Locks that were held when the machine stopped, by a thread whose number a living thread has now.
fn mending() -> Vec<Case<'static, Memory>> {
    let arrange = || {
        made();
        memory(|file| file.write_all_at(&std::process::id().to_le_bytes(), LOCK).unwrap())
    };
    let open = |_: &Memory, _: &Cells| ignore(Options::new().open_file::<Four>(path()));
    let free = |_: &Memory, _: &Kill<'_>| {
        let found: Four = Options::new().open_file(path())?;
        let Some(guard) = found.try_lock()? else { return Err(Fault::Hang("the dead have it".into())) };
        if ValueGuard::previous_owner_died(&guard).is_none() {
            return Err(Fault::Lost("that an owner died".into()));
        }
        drop(guard);
        usable(&found)
    };
    vec![stepped("file/open_file, locks of another time", arrange, open, free)]
}

fn files() -> Vec<Case<'static, ()>> {
    let case = |name: &str, arrange: fn(), victim: fn(), must: bool| {
        let survive = move |_: &(), kill: &Kill<'_>| match Options::new().open_file::<Four>(path()) {
            Ok(found) if found.get()? == MINE => usable(&found),
            Ok(_) => Err(Fault::Torn("half an object".into())),
            Err(error) if error.kind() == ErrorKind::NotFound && !kill.finished() && !must => {
                usable(&Options::new().create_file(path(), MINE)?)
            }
            Err(error) => Err(Fault::Lost(error.to_string())),
        };
        Case::new(name, arrange, move |_: &(), _: &Cells| victim(), survive)
            .granularity(Granularity::Syscalls)
            .finally(clean)
    };
    vec![
        case("file/create_file", absent, || ignore(Options::new().create_file::<Four>(path(), MINE)), false),
        case(
            "file/open_or_create_file",
            absent,
            || ignore(Options::new().open_or_create_file::<Four>(path(), MINE)),
            false,
        ),
        case("file/open_file", made, || ignore(Options::new().open_file::<Four>(path())), true),
        case(
            "file/sync",
            made,
            || {
                let found: Four = Options::new().open_file(path()).unwrap();
                ignore(multiproc::Handle::sync(&found));
            },
            true,
        ),
    ]
}

fn place_case(
    name: &str,
    arrange: impl Fn() -> Memory + 'static,
    survive: impl Fn(&Memory, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Memory> {
    stepped(name, arrange, |memory, _| place(memory), survive)
}

/// Instruction by instruction.
fn stepped(
    name: &str,
    arrange: impl Fn() -> Memory + 'static,
    victim: impl Fn(&Memory, &Cells) + 'static,
    survive: impl Fn(&Memory, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Memory> {
    Case::new(name, arrange, victim, survive)
        .watch(|memory| vec![Region::new(memory.region.as_mut_ptr(), memory.region.len())])
        .max_steps(5_000_000)
        .finally(clean)
}

/// What the last kill has left is gone.
fn absent() {
    let _ = std::fs::remove_file(path());
}

/// A file with an object that no process has open.
fn made() {
    absent();
    drop(Options::new().create_file::<Four>(path(), MINE).unwrap());
}

/// New memory.
fn fresh(prepare: impl Fn(&File)) -> Memory {
    absent();
    memory(prepare)
}

/// A file in the namespace's directory that is not taken for an object, mapped twice.
fn memory(prepare: impl Fn(&File)) -> Memory {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path()).unwrap();
    if file.metadata().unwrap().len() == 0 {
        file.set_len(4096).unwrap();
    }
    prepare(&file);
    let map = || Arc::new(MmapRaw::map_raw(&file).unwrap());
    Memory { region: map(), again: map(), kept: None }
}

fn path() -> PathBuf {
    Namespace::current().unwrap().path().join("memory")
}

fn clean() -> Result<(), Fault> {
    absent();
    nothing_left()
}

fn usable(value: &Four) -> Result<(), Fault> {
    value.set(OTHER)?;
    if value.get()? == OTHER { Ok(()) } else { Err(Fault::Lost("a write".into())) }
}
