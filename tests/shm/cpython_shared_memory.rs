//! CPython's tests of `SharedMemory` and of its resource tracker, under their names
//! (`Lib/test/_test_multiprocessing.py`, `_TestSharedMemory` and `TestResourceTracker`).
#![allow(unsafe_code, reason = "sets the action of a signal")]

use std::fs;
use std::path::PathBuf;

use multiproc::shm::{Gc, Namespace};
use multiproc::{AtomicValue, Error, ErrorKind, Lock, Options, SharedMemory};

use crate::common::{Outcome, Space, alone, kill, signal, spawn, unique, value, wait_for};

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn test_shared_memory_name_with_embedded_null() -> Outcome {
    let _alone = alone();
    let name = unique("null");
    let _block = SharedMemory::create(&name, 512)?;
    let cut = format!("{name}\0a");
    assert_eq!(kind(SharedMemory::open(&cut)), Some(ErrorKind::BadName));
    assert_eq!(kind(SharedMemory::unlink(&cut)), Some(ErrorKind::BadName));
    assert_eq!(kind(SharedMemory::attach_os(&cut)), Some(ErrorKind::BadName));
    assert!(SharedMemory::open(&name).is_ok());
    Ok(())
}

#[test]
fn test_shared_memory_basics() -> Outcome {
    let _alone = alone();
    let name = unique("basics");
    let block = SharedMemory::create(&name, 512)?;
    assert_eq!((block.name(), block.len()), (Some(&*name), 512));
    let shown = format!("{block:?}");
    assert!(shown.contains(&name) && shown.contains("512"), "{shown}");

    block.write_at(0, &[42])?;
    assert_eq!(block.to_vec()[0], 42);
    assert_eq!(SharedMemory::open(&name)?.to_vec()[0], 42);
    // Python ignores a size when it attaches. Here `open` takes none, and `open_or_create` fails if it
    // differs.
    assert_eq!(kind(SharedMemory::open_or_create(&name, 20 * 512)), Some(ErrorKind::Mismatch));
    assert_eq!(kind(SharedMemory::create(&name, 512)), Some(ErrorKind::AlreadyExists));
    assert_eq!(SharedMemory::open_or_create(&name, 512)?.len(), 512);
    assert_eq!(kind(SharedMemory::open(&unique("not-there"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(SharedMemory::open("")), Some(ErrorKind::BadName));

    // A second unlink is an error.
    let twice = unique("twice");
    let first = SharedMemory::create(&twice, 5000)?;
    let second = SharedMemory::open(&twice)?;
    SharedMemory::unlink(&twice)?;
    drop((first, second));
    assert_eq!(kind(SharedMemory::unlink(&twice)), Some(ErrorKind::NotFound));
    Ok(())
}

#[test]
fn test_shared_memory_recreate() -> Outcome {
    let _alone = alone();
    // Python tries names until one is free. Here a name has 128 random bits, and a new file never replaces
    // another one.
    let space = Space::new();
    let blocks: Vec<SharedMemory> =
        (0..100).map(|_| space.options().anonymous(1)).collect::<Result<_, _>>()?;
    assert_eq!(space.entries().len(), blocks.len());
    for (number, block) in (0_u8..).zip(&blocks) {
        assert_eq!(block.to_vec(), [0]);
        block.write_at(0, &[number])?;
    }
    assert!((0_u8..).zip(&blocks).all(|(number, block)| block.to_vec() == [number]));
    Ok(())
}

#[test]
fn test_invalid_shared_memory_creation() {
    // Negative and missing sizes do not compile.
    assert_eq!(kind(SharedMemory::new(0)), Some(ErrorKind::Invalid));
    assert_eq!(kind(SharedMemory::create(&unique("zero"), 0)), Some(ErrorKind::Invalid));
    assert_eq!(kind(SharedMemory::open_or_create(&unique("zero"), 0)), Some(ErrorKind::Invalid));
}

#[test]
fn test_shared_memory_pickle_unpickle() -> Outcome {
    let _alone = alone();
    for block in [SharedMemory::new(512)?, SharedMemory::create(&unique("pickle"), 512)?] {
        block.write_at(0, b"pickle")?;
        let second: SharedMemory = postcard::from_bytes(&postcard::to_stdvec(&block)?)?;
        assert_eq!(second.name(), block.name());
        assert_eq!(&second.to_vec()[..6], b"pickle");
        block.write_at(0, b"newval")?;
        assert_eq!(&second.to_vec()[..6], b"newval");
        second.write_at(0, b"oldval")?;
        assert_eq!(&block.to_vec()[..6], b"oldval");
    }
    Ok(())
}

#[test]
fn test_shared_memory_pickle_unpickle_dead_object() -> Outcome {
    let _alone = alone();
    let name = unique("dead");
    let block = SharedMemory::create(&name, 512)?;
    let pickled = postcard::to_stdvec(&block)?;
    SharedMemory::unlink(&name)?;
    drop(block);
    assert!(postcard::from_bytes::<SharedMemory>(&pickled).is_err());
    // Another block of that name is not taken for it, which Python would do.
    let _newer = SharedMemory::create(&name, 512)?;
    assert!(postcard::from_bytes::<SharedMemory>(&pickled).is_err());
    Ok(())
}

#[test]
fn test_shared_memory_across_processes() -> Outcome {
    fn by_name((name, bytes): (String, Vec<u8>)) {
        SharedMemory::open(&name).expect("it is there").write_at(0, &bytes).expect("inside");
    }
    fn by_handle((block, bytes): (SharedMemory, Vec<u8>)) {
        block.write_at(0, &bytes).expect("inside");
    }
    let _alone = alone();
    let name = unique("across");
    let block = SharedMemory::create(&name, 512)?;
    value(&spawn(by_name, (name, b"howdy".to_vec())));
    assert_eq!(&block.to_vec()[..5], b"howdy");
    value(&spawn(by_handle, (block.clone(), b"HELLO".to_vec())));
    assert_eq!(&block.to_vec()[..5], b"HELLO");
    Ok(())
}

/// Makes three objects, reports it, and waits to be killed.
fn maker((directory, step): (PathBuf, AtomicValue<u32>)) {
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGABRT] {
        // A shell ignores SIGINT in background processes, and children inherit that.
        // SAFETY: the default action has no handler.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let namespace = Namespace::at(directory).expect("the parent's");
    let options = Options::new().namespace(&namespace);
    let _first: SharedMemory = options.create("first", 10).expect("a block");
    let _second: SharedMemory = options.create("second", 10).expect("a block");
    let _lock: Lock = options.create("lock", ()).expect("a lock");
    step.store(1);
    wait_for(&step, u32::MAX);
}

#[test]
fn test_shared_memory_cleaned_after_process_termination() -> Outcome {
    let _alone = alone();
    for number in [libc::SIGTERM, libc::SIGKILL, libc::SIGINT, libc::SIGABRT] {
        let space = Space::new();
        let step = AtomicValue::new(0_u32)?;
        let child = spawn(maker, (space.namespace().path().to_owned(), step.clone()));
        wait_for(&step, 1);
        signal(child.pid(), number);
        child.join()?;
        // At once, without a tracker process.
        assert_eq!(kind(space.options().open::<SharedMemory>("first")), Some(ErrorKind::NotFound));
    }
    Ok(())
}

/// A user that ends, normally or by SIGKILL, leaves the block to the other users. There is no `track` here.
fn attach_and_end(killed: bool) -> Outcome {
    fn user((name, step): (String, AtomicValue<u32>)) {
        let _block = SharedMemory::open(&name).expect("it is there");
        step.store(1);
        wait_for(&step, 2);
    }
    let _alone = alone();
    let name = unique("tracked");
    let block = SharedMemory::create(&name, 10)?;
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(user, (name.clone(), step.clone()));
    wait_for(&step, 1);
    if killed {
        kill(&child);
    } else {
        step.store(2);
        value(&child);
    }
    multiproc::gc()?;
    block.write_at(0, b"still here")?;
    assert_eq!(SharedMemory::open(&name)?.to_vec(), b"still here");
    Ok(())
}

#[test]
fn test_shared_memory_untracking() -> Outcome {
    attach_and_end(false)
}

#[test]
fn test_shared_memory_tracking() -> Outcome {
    attach_and_end(true)
}

#[test]
fn test_resource_tracker() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(maker, (space.namespace().path().to_owned(), step.clone()));
    wait_for(&step, 1);
    space.options().unlink("first")?;
    kill(&child);
    let mut removed = Gc::new().run(space.namespace())?.removed;
    removed.sort();
    assert_eq!(removed, ["lock", "second"]);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

/// There is no tracker to be killed: making objects starts no process.
#[test]
fn test_resource_tracker_sigkill() -> Outcome {
    fn child(name: String) -> String {
        let _kept = (SharedMemory::create(&name, 10).expect("a block"), Lock::new().expect("a lock"));
        let tasks = fs::read_dir("/proc/self/task").expect("a list").flatten();
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect()
    }
    let _alone = alone();
    assert_eq!(value(&spawn(child, unique("tracker"))), "");
    Ok(())
}

#[test]
fn test_too_long_name_resource() {
    let long = "a".repeat(512);
    assert_eq!(kind(SharedMemory::create(&long, 10)), Some(ErrorKind::BadName));
    assert_eq!(kind(SharedMemory::attach_os(&long)), Some(ErrorKind::BadName));
}

/// Python's tracker reports leaks by its exit code. A sweep reports them in its result.
#[test]
fn test_resource_tracker_exit_code() -> Outcome {
    let _alone = alone();
    for cleanup in [true, false] {
        let space = Space::new();
        let step = AtomicValue::new(0_u32)?;
        let child = spawn(maker, (space.namespace().path().to_owned(), step.clone()));
        wait_for(&step, 1);
        if cleanup {
            for name in ["first", "second", "lock"] {
                space.options().unlink(name)?;
            }
        }
        kill(&child);
        assert_eq!(Gc::new().run(space.namespace())?.removed.is_empty(), cleanup);
    }
    Ok(())
}
