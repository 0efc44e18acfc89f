//! Blocks of bytes: their names at each system call, their bytes at each state.

use multiproc::{ErrorKind, SharedMemory};
use multiproc_killstep::{Case, Cells, Fault, Granularity, Kill, Sweep};

use crate::support::{ignore, nothing_left, ours};

const NAME: &str = "block-under-test";
/// Neither its beginning nor its end is that of a word.
const WRITTEN: std::ops::Range<usize> = 5..45;
const BYTES: usize = 61;

type ProcessOwned = Option<SharedMemory>;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
    for case in writes() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, ProcessOwned>> {
    vec![
        case("block/new", || None, |_| ignore(SharedMemory::new(BYTES)), |_, _| Ok(())),
        case("block/create", || None, |_| ignore(SharedMemory::create(NAME, BYTES)), absent_or_whole),
        case(
            "block/open_or_create",
            || None,
            |_| ignore(SharedMemory::open_or_create(NAME, BYTES)),
            absent_or_whole,
        ),
        case(
            "block/open, used by another",
            kept,
            |_| ignore(SharedMemory::open(NAME)),
            |kept, _| still_there(kept),
        ),
        case(
            "block/unlink",
            kept,
            |_| ignore(SharedMemory::unlink(NAME)),
            |kept, kill| match SharedMemory::open(NAME) {
                Ok(_) if kill.finished() => Err(Fault::Lost("the unlink".into())),
                Ok(_) => still_there(kept),
                Err(error) if error.kind() == ErrorKind::NotFound => usable(kept.as_ref().unwrap()),
                Err(error) => Err(error.into()),
            },
        ),
        case(
            "block/attach_os",
            foreign,
            |_| ignore(SharedMemory::attach_os(&os_name())),
            |_, _| {
                let attached = SharedMemory::attach_os(&os_name())?;
                if attached.to_vec() == [1; BYTES] {
                    usable(&attached)
                } else {
                    Err(Fault::Torn("another block".into()))
                }
            },
        )
        .finally(|| Ok(std::fs::remove_file(format!("/dev/shm/{}", os_name()))?)),
    ]
}

fn writes() -> Vec<Case<'static, SharedMemory>> {
    vec![
        Case::new(
            "block/write_at",
            || filled(SharedMemory::new(BYTES).unwrap()),
            |block: &SharedMemory, _: &Cells| {
                ignore(block.write_at(WRITTEN.start, &[2; WRITTEN.end - WRITTEN.start]))
            },
            |block: &SharedMemory, kill: &Kill<'_>| {
                let bytes = block.to_vec();
                let torn = |what: &str| Err(Fault::Torn(format!("{what}: {bytes:?}")));
                if bytes[..WRITTEN.start].iter().chain(&bytes[WRITTEN.end..]).any(|byte| *byte != 1) {
                    return torn("beside what was written");
                }
                // Short writes go word by word.
                if bytes.chunks(8).enumerate().any(|(word, bytes)| {
                    let mut inside =
                        bytes.iter().enumerate().filter(|(at, _)| WRITTEN.contains(&(8 * word + at)));
                    inside.next().is_some_and(|(_, first)| inside.any(|(_, byte)| byte != first))
                }) {
                    return torn("half a word");
                }
                if kill.finished() && bytes[WRITTEN].iter().any(|byte| *byte != 2) {
                    return Err(Fault::Lost("it had returned".into()));
                }
                usable(block)
            },
        )
        .watch(|_| ours())
        .finally(nothing_left),
    ]
}

fn case(
    name: &str,
    arrange: impl Fn() -> ProcessOwned + 'static,
    victim: impl Fn(&ProcessOwned) + 'static,
    survive: impl Fn(&ProcessOwned, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, ProcessOwned> {
    Case::new(name, arrange, move |kept: &ProcessOwned, _: &Cells| victim(kept), survive)
        .granularity(Granularity::Syscalls)
        .finally(nothing_left)
}

fn kept() -> ProcessOwned {
    Some(filled(SharedMemory::create(NAME, BYTES).unwrap()))
}

/// As C or Python make a block: a file of the shared memory file system.
fn foreign() -> ProcessOwned {
    std::fs::write(format!("/dev/shm/{}", os_name()), [1; BYTES]).unwrap();
    None
}

/// A name of this run alone, after its namespace: the same in the driver and in the processes that it forks.
fn os_name() -> String {
    let directory = std::env::var("MULTIPROC_DIR").unwrap();
    format!("{}-os", directory.rsplit('/').next().unwrap())
}

fn filled(block: SharedMemory) -> SharedMemory {
    block.write_at(0, &[1; BYTES]).unwrap();
    block
}

/// Its only user may be dead: `open` finds nothing or a whole object, and the name can be made anew.
fn absent_or_whole(_: &ProcessOwned, _: &Kill<'_>) -> Result<(), Fault> {
    match SharedMemory::open(NAME) {
        Ok(found) if found.to_vec() == [0; BYTES] => {}
        Ok(_) => return Err(Fault::Torn("half a block".into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    usable(&SharedMemory::create(NAME, BYTES)?)
}

fn still_there(kept: &ProcessOwned) -> Result<(), Fault> {
    let found = SharedMemory::open(NAME)?;
    if found.to_vec() != [1; BYTES] {
        return Err(Fault::Torn("another block".into()));
    }
    usable(kept.as_ref().unwrap())?;
    if found.to_vec() == [9; BYTES] { Ok(()) } else { Err(Fault::Torn("two blocks of one name".into())) }
}

fn usable(block: &SharedMemory) -> Result<(), Fault> {
    block.write_at(0, &[9; BYTES])?;
    if block.to_vec() == [9; BYTES] { Ok(()) } else { Err(Fault::Lost("a write".into())) }
}
