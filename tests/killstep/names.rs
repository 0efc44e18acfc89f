//! Names: absent or complete at every instant, and nothing left behind. Killed at the entry and the exit of
//! each system call.

use multiproc::shm::{Gc, Namespace, Transit};
use multiproc::{ErrorKind, Value};
use multiproc_killstep::{Case, Cells, Fault, Granularity, Kill, Sweep};

use crate::support::nothing_left;

const NAME: &str = "name-under-test";

type Object = Value<[u64; 8]>;
const MINE: [u64; 8] = [5; 8];
const OTHER: [u64; 8] = [6; 8];

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

/// What the driver keeps alive meanwhile.
pub(crate) type ProcessOwned = Option<Object>;

pub(crate) fn cases() -> Vec<Case<'static, ProcessOwned>> {
    vec![
        case("name/create", || None, |_, _| drop(Object::create(NAME, MINE)), absent_or_whole).sampled(3),
        case(
            "name/open_or_create",
            || None,
            |_, _| drop(Object::open_or_create(NAME, MINE)),
            absent_or_whole,
        ),
        case("name/new", || None, |_, _| drop(Object::new(MINE)), |_, _| Ok(())),
        case("name/open, used by another", kept, |_, _| drop(Object::open(NAME)), still_there),
        case(
            "name/open_or_create, used by another",
            kept,
            |_, _| drop(Object::open_or_create(NAME, OTHER)),
            still_there,
        ),
        case(
            "name/open, left by a dead process",
            abandoned,
            |_, _| drop(Object::open(NAME)),
            absent_or_whole,
        ),
        case(
            "name/create, left by a dead process",
            abandoned,
            |_, _| drop(Object::create(NAME, MINE)),
            absent_or_whole,
        ),
        case(
            "name/unlink",
            kept,
            |_, _| drop(Object::unlink(NAME)),
            |kept, kill| {
                match Object::open(NAME) {
                    Ok(_) if kill.finished() => return Err(Fault::Lost("the unlink".into())),
                    Ok(found) if found.get()? != MINE => return Err(Fault::Torn("another object".into())),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
                usable(kept)
            },
        ),
        case("name/gc", abandoned, |_, _| drop(multiproc::shm::gc()), absent_or_whole),
        case(
            "name/gc, used by another",
            kept,
            |_, _| drop(Gc::new().run(&Namespace::current().unwrap())),
            still_there,
        ),
        case(
            "name/persistent",
            || None,
            |_, _| drop(multiproc::Options::new().persistent(true).create::<Object>(NAME, MINE)),
            |_, kill| match Object::open(NAME) {
                Ok(found) if found.get()? == MINE => Ok(Object::unlink(NAME)?),
                Ok(_) => Err(Fault::Torn("half an object".into())),
                Err(error) if error.kind() == ErrorKind::NotFound && !kill.finished() => Ok(()),
                Err(error) => Err(Fault::Lost(error.to_string())),
            },
        ),
        case(
            "name/handle sent and received",
            kept,
            |kept, _| {
                let transit = Transit::begin();
                let Ok(bytes) = postcard::to_stdvec(kept.as_ref().unwrap()) else { return };
                transit.sent();
                drop(postcard::from_bytes::<Object>(&bytes));
            },
            still_there,
        ),
        case(
            "name/namespace",
            || None,
            |_, _| drop(Namespace::at(format!("{}/inner", Namespace::current().unwrap().path().display()))),
            |_, _| {
                let inner = Namespace::current()?.path().join("inner");
                let _ = std::fs::remove_dir(inner);
                Ok(())
            },
        ),
        case(
            "name/shared namespace",
            || None,
            |_, _| drop(shared_namespace()),
            |_, _| {
                shared_namespace()?;
                let directory = Namespace::current()?.path().to_owned();
                for entry in std::fs::read_dir(&directory)?.flatten() {
                    // A dead maker leaves an empty directory at most.
                    std::fs::remove_dir(entry.path())?;
                }
                Ok(())
            },
        ),
    ]
}

/// A namespace whose group is this process's own.
fn shared_namespace() -> Result<Namespace, multiproc::Error> {
    // SAFETY: no arguments.
    let group = unsafe { libc::getegid() };
    Namespace::shared(Namespace::current()?.path().join("shared"), group)
}

fn case(
    name: &str,
    arrange: impl Fn() -> ProcessOwned + 'static,
    victim: impl Fn(&ProcessOwned, &Cells) + 'static,
    survive: impl Fn(&ProcessOwned, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, ProcessOwned> {
    Case::new(name, arrange, victim, survive)
        .granularity(Granularity::Syscalls)
        .fingerprint(|_| what_is_there())
        // Other verbs on names may have to wait for it, ten seconds; what is in use does not.
        .frozen(|kept, _| kept.as_ref().map_or(Ok(()), |object| Ok(object.set(MINE)?)))
        .finally(nothing_left)
}

/// The files, without what is random in them (names of anonymous objects, generation, in-flight references)
/// or meaningless.
fn what_is_there() -> Vec<u8> {
    let path = Namespace::current().unwrap().path().to_owned();
    let mut there: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .flatten()
        .map(|entry| {
            let name = entry.file_name().into_encoded_bytes();
            let kept = if name.starts_with(b".") { name.len().min(3) } else { name.len() };
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let fixed = [bytes.get(..80), bytes.get(96..256), bytes.get(1024..)]
                .map(Option::unwrap_or_default)
                .concat();
            let tickets: Vec<_> = bytes
                .get(256..768)
                .unwrap_or_default()
                .chunks(16)
                .map(|ticket| u8::from(ticket[..8] != [0; 8]))
                .collect();
            [&name[..kept], &bytes.len().to_le_bytes()[..], &fixed[..], &tickets[..]].concat()
        })
        .collect();
    there.sort_unstable();
    there.concat()
}

fn kept() -> ProcessOwned {
    Some(Object::create(NAME, MINE).unwrap())
}

/// A process made it and died.
fn abandoned() -> ProcessOwned {
    // SAFETY: this program has one thread; the child makes an object and ends without any destructor.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let made = Object::create(NAME, MINE);
        std::mem::forget(made);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    None
}

/// No process uses the object any more: `open` finds nothing or (while the maker lives) a whole object, and
/// the name can be made anew.
fn absent_or_whole(_: &ProcessOwned, _: &Kill<'_>) -> Result<(), Fault> {
    match Object::open(NAME) {
        Ok(found) if found.get()? == MINE => {}
        Ok(_) => return Err(Fault::Torn("half an object".into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let fresh = Object::create(NAME, OTHER)?;
    fresh.set(MINE)?;
    let same = Object::open(NAME)?;
    if same.get()? == MINE { Ok(()) } else { Err(Fault::Torn("two objects of one name".into())) }
}

fn still_there(kept: &ProcessOwned, _: &Kill<'_>) -> Result<(), Fault> {
    let found = Object::open(NAME)?;
    if found.get()? != MINE {
        return Err(Fault::Torn("another object".into()));
    }
    usable(kept)
}

fn usable(kept: &ProcessOwned) -> Result<(), Fault> {
    let Some(object) = kept else { return Ok(()) };
    object.set(OTHER)?;
    if object.get()? == OTHER { Ok(()) } else { Err(Fault::Lost("a write".into())) }
}
