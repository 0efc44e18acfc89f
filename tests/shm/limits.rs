//! Exhausted resources: locks of one thread, descriptors, memory.
#![allow(unsafe_code, reason = "limits and the environment, as a C program sets them")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use multiproc::robust::{AcquireError, MAX_HELD};
use multiproc::shm::Namespace;
use multiproc::{Error, ErrorKind, Lock, Options, SharedMemory, Value};

use crate::across::Tiny;
use crate::common::{Outcome, Space, alone, spawn, unique, value};

/// The kernel follows 2,048 links of the robust list of a thread that ends. A thread cannot hold locks that
/// the kernel would not release.
#[test]
fn thread_cannot_hold_more_locks_than_the_kernel_releases() -> Outcome {
    const MANY: usize = 2049;
    let _alone = alone();
    let space = Space::new();
    let locks: Vec<Lock> =
        (0..MANY).map(|at| space.options().create(&format!("lock-{at}"), ())).collect::<Result<_, _>>()?;
    let value: Value<u64> = space.options().create("value", 7)?;
    let mut held = Vec::new();
    for (at, lock) in locks.iter().enumerate() {
        match lock.lock() {
            Ok(guard) => held.push(guard),
            Err(error) => {
                assert_eq!((error.cause(), held.len()), (AcquireError::TooManyHeld, MAX_HELD));
                assert!(error.to_string().contains(&format!("\"lock-{at}\"")), "{error}");
                assert_eq!(
                    lock.try_lock().map(drop).map_err(|error| error.cause()),
                    Err(AcquireError::TooManyHeld)
                );
                assert!(!lock.is_locked());
            }
        }
    }
    assert_eq!(held.len(), MAX_HELD);
    assert_eq!(value.set(8).map_err(|error| error.cause()), Err(AcquireError::TooManyHeld));
    // A reader needs no lock, and another thread has its own list.
    assert_eq!(value.get()?, 7);
    std::thread::scope(|s| s.spawn(|| locks[MANY - 1].lock().map(drop)).join()).expect("no panic")?;
    held.pop();
    value.set(8)?;
    drop(held);
    assert!(locks.iter().all(|lock| lock.try_lock().is_ok_and(|guard| guard.is_some())));
    Ok(())
}

#[test]
fn making_a_block_without_descriptors_is_an_error() -> Outcome {
    fn child((directory, os): (PathBuf, String)) -> Vec<String> {
        let namespace = Namespace::at(directory).expect("the parent's");
        let options = Options::new().namespace(&namespace);
        let mut fill = Vec::new();
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: a plain struct.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        while let Ok(file) = File::open("/dev/null") {
            fill.push(file);
        }
        assert!(fill.last().is_some_and(|last| last.as_raw_fd() == 63));
        let mut results = Vec::new();
        for spare in 0..8 {
            let kind = |result: Result<(), Error>| {
                result.map_or_else(|error| format!("{:?}", error.kind()), |()| "fine".to_owned())
            };
            let tried = [
                SharedMemory::attach_os(&os).map(drop),
                options.create::<SharedMemory>("new", 1).map(drop),
                options.open::<SharedMemory>("parents").map(drop),
                options.anonymous::<SharedMemory>(1).map(drop),
            ];
            results.push(format!("{spare}: {}", tried.map(kind).join(" ")));
            fill.pop();
        }
        results
    }
    let _alone = alone();
    let space = Space::new();
    let parents: SharedMemory = space.options().create("parents", 7)?;
    let os = unique("os");
    let path = PathBuf::from("/dev/shm").join(&os);
    fs::write(&path, [7; 7])?;
    let child = spawn(child, (space.namespace().path().to_owned(), os));
    let results = value(&child);
    fs::remove_file(&path)?;
    assert_eq!(results[0], "0: Exhausted Exhausted Exhausted Exhausted");
    assert_eq!(results[1].split(' ').nth(1), Some("fine"), "an attachment needs one: {results:?}");
    assert_eq!(results[7], "7: fine fine fine fine");
    assert!(
        results.iter().all(|line| line.split(' ').skip(1).all(|word| ["Exhausted", "fine"].contains(&word))),
        "{results:?}"
    );
    // Nothing was left, not even for a sweep.
    assert_eq!((space.entries(), parents.to_vec()), (vec!["parents".to_owned()], vec![0; 7]));
    Ok(())
}

#[test]
fn making_a_block_without_memory_is_an_error() -> Outcome {
    /// Returns the KiB of the largest block that could be made, the errors of larger ones, and the files that
    /// are left.
    fn child(directory: PathBuf) -> (usize, Vec<(bool, String)>, Vec<String>) {
        let namespace = Namespace::at(&directory).expect("the parent's");
        let options = Options::new().namespace(&namespace);
        let (mut largest, mut errors) = (0, Vec::new());
        for kib in 1..=80 {
            match options.create::<SharedMemory>("block", kib << 10) {
                // All memory is there: no write is SIGBUS.
                Ok(block) => {
                    block.write_at(0, &vec![0xa5; kib << 10]).expect("inside");
                    assert!(block.to_vec().iter().all(|byte| *byte == 0xa5));
                    largest = kib;
                }
                Err(error) => errors.push((error.kind() == ErrorKind::NoSpace, error.to_string())),
            }
        }
        let left = fs::read_dir(directory).expect("a directory").flatten();
        (largest, errors, left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
    let _alone = alone();
    let Some(tiny) = Tiny::mount() else {
        println!("skipped: no right to mount");
        return Ok(());
    };
    let free = tiny.free();
    let (largest, errors, left) = value(&spawn(child, tiny.path().to_owned()));
    assert!(largest >= 40 && errors.len() == 80 - largest, "{largest}, {errors:?}");
    for (no_space, text) in errors {
        assert!(no_space && text.starts_with("create memory \"block\": no space left"), "{text}");
    }
    assert_eq!((left, tiny.free()), (Vec::new(), free));
    Ok(())
}
