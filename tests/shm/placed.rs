//! Objects in caller-provided memory: several processes, several mappings, and refused memory.
#![allow(unsafe_code, reason = "raw words of a region")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use memmap2::{MmapOptions, MmapRaw};
use multiproc::shm::{Error, Shared};
use multiproc::{AtomicValue, Capacity, ErrorKind, Handle, Lock, LockGuard, Options, Queue, Value};

use crate::common::{
    Dice, How, Outcome, Space, alone, fork, kill, spawn, wait_for, watchdog, with_one_thread,
};

const LOCK: usize = 0;
const VALUE: usize = 4096;
const QUEUE: usize = 8192;
const NUMBER: usize = 64;

/// A file with space for some objects.
fn memory(path: &Path) -> File {
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).expect("a file");
    file.set_len(256 << 10).expect("space");
    file
}

fn map(path: &Path) -> MmapRaw {
    MmapRaw::map_raw(&memory(path)).expect("a mapping")
}

fn options() -> Options {
    Options::new()
}

fn small() -> Capacity {
    Capacity::messages(4).bytes(4096)
}

#[test]
fn processes_share_placed_objects() -> Outcome {
    fn child((path, step): (PathBuf, AtomicValue<u32>)) -> Vec<u64> {
        let region = Arc::new(map(&path));
        let lock: Lock = options().attach(region.clone(), LOCK).expect("the lock");
        let total: Value<u64> = options().attach(region.clone(), VALUE).expect("the value");
        let queue: Queue<u64> = options().attach(region, QUEUE).expect("the queue");
        let got: Vec<u64> = queue.iter().flatten().collect();
        let _guard = lock.lock().expect("free");
        total.update(|total| *total += got.iter().sum::<u64>()).expect("free");
        step.store(1);
        wait_for(&step, 2);
        got
    }
    let _alone = alone();
    let space = Space::new();
    let path = space.file("memory");
    let region = Arc::new(map(&path));
    let lock: Lock = options().place(region.clone(), LOCK, ())?;
    let total: Value<u64> = options().place(region.clone(), VALUE, 5)?;
    let queue: Queue<u64> = options().place(region, QUEUE, small())?;
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (path, step.clone()));
    for number in 0..1000 {
        queue.put(number)?;
    }
    queue.close();
    wait_for(&step, 1);
    assert!(lock.try_lock()?.is_none());
    kill(&child);
    let guard = lock.lock()?;
    assert_eq!(LockGuard::previous_owner_died(&guard).and_then(|death| death.pid()), Some(child.pid()));
    assert_eq!(total.get()?, 5 + (0..1000).sum::<u64>());
    Ok(())
}

#[test]
fn object_in_two_mappings_is_one_object() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    let path = space.file("memory");
    let one: Lock = options().place(map(&path), LOCK, ())?;
    let other: Lock = options().attach(map(&path), LOCK)?;
    assert!(Shared::is_same(one.shared().unwrap(), other.shared().unwrap()));
    let guard = one.lock()?;
    assert!(other.lock().is_err(), "this thread holds it");
    drop(guard);
    let guard = other.lock()?;
    drop(one);
    thread::scope(|s| s.spawn(|| assert!(other.try_lock().expect("no error").is_none())).join())
        .expect("no panic");
    drop(guard);
    // Also if two attach after the first handles were dropped.
    drop(other);
    let [one, other] =
        [options().attach::<Lock>(map(&path), LOCK)?, options().attach::<Lock>(map(&path), LOCK)?];
    let _guard = one.lock()?;
    assert!(other.lock().is_err());
    Ok(())
}

#[test]
fn threads_that_attach_at_once_get_one_object() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    let path = space.file("memory");
    for round in 0..50 {
        let file = memory(&path);
        file.write_all_at(&[0; 8], 0)?;
        drop(options().place::<Lock>(map(&path), LOCK, ())?);
        let locks: Vec<Lock> = thread::scope(|s| {
            let attach = || options().attach::<Lock>(map(&path), LOCK).expect("it is there");
            let threads = [s.spawn(attach), s.spawn(attach), s.spawn(attach)];
            threads.map(|thread| thread.join().expect("no panic")).into()
        });
        let _guard = locks[0].lock()?;
        assert!(locks.iter().all(|lock| lock.try_lock().is_err()), "round {round}");
    }
    Ok(())
}

#[test]
fn copied_bytes_are_refused_beside_the_original() -> Outcome {
    let space = Space::new();
    let (path, copy) = (space.file("memory"), space.file("copy"));
    let here: Value<u64> = options().place(map(&path), VALUE, 7)?;
    fs::copy(&path, &copy)?;
    let error = options().attach::<Value<u64>>(map(&copy), VALUE).expect_err("a copy, beside the first");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("a copy"), "{error}");
    drop(here);
    assert_eq!(options().attach::<Value<u64>>(map(&copy), VALUE)?.get()?, 7);
    Ok(())
}

fn refused<T>(result: Result<T, Error>, kind: ErrorKind, text: &str) {
    let Err(error) = result else { panic!("it worked") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn unusable_memory_is_an_error() -> Outcome {
    let space = Space::new();
    let path = space.file("memory");
    let file = memory(&path);
    let lock = |region, offset| options().place::<Lock>(region, offset, ());
    refused(lock(map(&path), 8), ErrorKind::Misaligned, "multiple of 64");
    refused(
        lock(map(&path), 256 << 10),
        ErrorKind::TooSmall,
        "1024 bytes are needed from byte 262144 on, 0 are there",
    );
    refused(lock(map(&path), usize::MAX - 63), ErrorKind::TooSmall, "0 are there");
    let needed = Options::bytes_needed::<Lock>(())?;
    let offset = (256 << 10) - needed.next_multiple_of(64);
    refused(lock(map(&path), offset + 64), ErrorKind::TooSmall, "1088 bytes are needed");
    drop(lock(map(&path), offset)?);
    file.set_len((256 << 10) - 64)?;
    refused(
        options().attach::<Lock>(map(&space.file("other")), offset),
        ErrorKind::NotFound,
        "no such object",
    );
    let shorter = MmapRaw::map_raw(&file)?;
    refused(options().attach::<Lock>(shorter, offset), ErrorKind::TooSmall, "1088 bytes are needed");
    refused(
        lock(MmapOptions::new().map_raw_read_only(&file)?, LOCK),
        ErrorKind::Invalid,
        "shared mapping that can be written",
    );
    refused(
        options().attach::<Lock>(MmapOptions::new().map_raw_read_only(&file)?, LOCK),
        ErrorKind::Invalid,
        "can be written",
    );
    let private: MmapRaw = MmapOptions::new().len(8192).map_anon()?.into();
    refused(lock(private, LOCK), ErrorKind::Invalid, "shared mapping");
    let bad = Options::bytes_needed::<Queue<u64>>(Capacity::messages(0)).expect_err("no messages");
    assert_eq!(bad.kind(), ErrorKind::Invalid);
    assert!(Options::bytes_needed::<Queue<u64>>(small())? >= 1024 + 4096);
    Ok(())
}

#[test]
fn mapping_without_memory_is_an_error_and_not_a_signal() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let file = memory(&space.file("memory"));
    let region = Arc::new(MmapRaw::map_raw(&file)?);
    file.set_len(4096)?;
    drop(options().place::<Lock>(region.clone(), LOCK, ())?);
    refused(options().place::<Value<u64>>(region.clone(), VALUE, 1), ErrorKind::NoSpace, "place value");
    refused(
        options().place::<Value<[u64; 512]>>(region.clone(), NUMBER, [1; 512]),
        ErrorKind::NoSpace,
        "place value",
    );
    refused(options().attach::<Value<u64>>(region, VALUE), ErrorKind::NoSpace, "attach value");
    let Some(tiny) = crate::across::Tiny::mount() else {
        println!("skipped: no right to mount");
        return Ok(());
    };
    let path = tiny.path().join("memory");
    refused(
        options().place::<Queue<u64>>(map(&path), 0, Capacity::messages(4).bytes(1 << 17)),
        ErrorKind::NoSpace,
        "place queue",
    );
    drop(options().place::<Queue<u64>>(map(&path), 0, small())?);
    Ok(())
}

#[test]
fn memory_without_the_expected_object_is_refused() -> Outcome {
    let space = Space::new();
    let path = space.file("memory");
    let file = memory(&path);
    let attach = || options().attach::<Lock>(map(&path), LOCK);
    let place = || options().place::<Lock>(map(&path), LOCK, ());
    refused(attach(), ErrorKind::NotFound, "attach lock");
    file.write_all_at(b"whatever", 0)?;
    refused(attach(), ErrorKind::Corrupt, "no magic number");
    refused(place(), ErrorKind::Corrupt, "zero");
    // The claim of a living thread, and of one that has ended.
    let claim =
        |tid: u32| u64::from(tid) | (multiproc::robust::pid_namespace() & 0xffff) << 32 | 0x6d70 << 48;
    file.write_all_at(&claim(1).to_le_bytes(), 0)?;
    refused(attach(), ErrorKind::NotReady, "not ready");
    refused(place(), ErrorKind::Busy, "thread 1 is placing");
    file.write_all_at(&(claim(1) ^ 1 << 32).to_le_bytes(), 0)?;
    refused(place(), ErrorKind::OtherPidNamespace, "place lock");
    file.write_all_at(&claim(0x3fff_fff0).to_le_bytes(), 0)?;
    refused(attach(), ErrorKind::NotReady, "not ready");
    let lock = place()?;
    refused(place(), ErrorKind::AlreadyExists, "place lock");
    refused(options().attach::<Value<u64>>(map(&path), LOCK), ErrorKind::WrongKind, "it is a lock");
    drop(lock);
    drop(attach()?);
    // The bytes behind the first word need not be zero.
    file.write_all_at(&[0xa5; 4096], 0)?;
    file.write_all_at(&[0; 8], 0)?;
    assert!(!place()?.is_locked());
    // Each location has its own functions.
    drop(space.options().persistent(true).create::<Lock>("named", ())?);
    refused(
        options().attach::<Lock>(
            MmapRaw::map_raw(&File::options().read(true).write(true).open(space.file("named"))?)?,
            0,
        ),
        ErrorKind::WrongKind,
        "lives in a namespace",
    );
    Ok(())
}

#[test]
fn random_header_is_an_error_and_not_a_signal() -> Outcome {
    let space = Space::new();
    let path = space.file("memory");
    let file = memory(&path);
    let mut dice = Dice::new(7);
    for _ in 0..500 {
        file.write_all_at(&[0; 8], 0)?;
        drop(options().place::<Lock>(map(&path), LOCK, ())?);
        for _ in 0..=dice.below(3) {
            file.write_all_at(&dice.next().to_le_bytes(), 8 * dice.below(16))?;
        }
        // Any result, but no signal.
        let _ = options().attach::<Lock>(map(&path), LOCK);
        let _ = options().attach::<Queue<u64>>(map(&path), LOCK);
    }
    Ok(())
}

#[test]
fn handle_cannot_be_sent_and_has_no_name() -> Outcome {
    let space = Space::new();
    let region = Arc::new(map(&space.file("memory")));
    let number: AtomicValue<u64> = options().place(region.clone(), NUMBER, 7)?;
    let error = postcard::to_stdvec(&number).expect_err("there is nothing to open");
    assert_eq!(error, postcard::Error::SerdeSerCustom);
    assert_eq!((number.name(), number.shared().unwrap().path()), (None, None));
    assert_eq!(number.shared().unwrap().describe(), "atomic value (placed)");
    let unsupported = |result: Result<(), Error>| result.expect_err("it is caller-provided memory").kind();
    assert_eq!(unsupported(number.shared().unwrap().populate(0..8)), ErrorKind::Unsupported);
    assert_eq!(unsupported(number.shared().unwrap().give_back(0..64)), ErrorKind::Unsupported);
    assert_eq!(unsupported(number.sync()), ErrorKind::Unsupported);
    refused(
        options().prefault(true).attach::<AtomicValue<u64>>(region, NUMBER),
        ErrorKind::Unsupported,
        "set aside",
    );
    Ok(())
}

#[test]
fn leaked_guard_keeps_the_region_for_ever() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    let region = Arc::new(map(&space.file("memory")));
    let lock: Lock = options().place(region.clone(), LOCK, ())?;
    assert_eq!(Arc::strong_count(&region), 2);
    drop(lock);
    assert_eq!(Arc::strong_count(&region), 1);
    let lock: Lock = options().attach(region.clone(), LOCK)?;
    std::mem::forget(lock.lock()?);
    drop(lock);
    assert_eq!(Arc::strong_count(&region), 2, "the kernel will read it");
    let again: Lock = options().attach(region.clone(), LOCK)?;
    assert!(again.lock().is_err(), "this thread still holds it");
    Ok(())
}

#[test]
fn one_of_several_processes_places_the_object() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        let space = Space::new();
        let path = space.file("memory");
        for _ in 0..10 {
            let (start, won) = (AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
            memory(&path).write_all_at(&[0; 8], QUEUE as u64)?;
            let children: Vec<_> = (0..4)
                .map(|_| {
                    fork(How::Libc, || {
                        let region = Arc::new(map(&path));
                        wait_for(&start, 1);
                        let queue: Queue<u64> = loop {
                            match options().place(region.clone(), QUEUE, small()) {
                                Ok(queue) => {
                                    won.fetch_add(1);
                                    break queue;
                                }
                                Err(error) if error.kind() == ErrorKind::Busy => {}
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}\n");
                                    break options().attach(region, QUEUE).expect("it is there");
                                }
                            }
                        };
                        queue.put(1).expect("there is space");
                        0
                    })
                })
                .collect();
            start.store(1);
            assert_eq!(children.into_iter().map(|child| child.wait()).sum::<i32>(), 0);
            assert_eq!(won.load(), 1);
            assert_eq!(options().attach::<Queue<u64>>(map(&path), QUEUE)?.len(), 4);
        }
        Ok(())
    })
}

#[test]
fn killed_placers_leave_memory_that_can_be_used() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        let space = Space::new();
        let path = space.file("memory");
        let region = Arc::new(map(&path));
        // SAFETY: an aligned word of the mapping, which lives as long as `region`.
        let first = unsafe { &*region.as_mut_ptr().wrapping_add(QUEUE).cast::<AtomicU64>() };
        let mut dice = Dice::of_this_run();
        let (mut ready, mut half) = (0, 0);
        for _ in 0..100 {
            first.store(0, SeqCst);
            let started = AtomicValue::new(0_u32)?;
            let child = fork(How::Libc, || {
                let region = Arc::new(map(&path));
                started.store(1);
                loop {
                    drop(options().place::<Queue<u64>>(region.clone(), QUEUE, small()));
                    first.store(0, SeqCst);
                }
            });
            wait_for(&started, 1);
            (0..dice.below(20_000)).for_each(|_| std::hint::spin_loop());
            child.kill();
            match options().attach::<Queue<u64>>(region.clone(), QUEUE) {
                Ok(queue) => {
                    queue.put(1)?;
                    ready += 1;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::NotReady => half += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
            let queue: Queue<u64> = options().place(region.clone(), QUEUE, small())?;
            queue.put(1)?;
            assert_eq!(queue.get()?, 1);
        }
        println!("{ready} were ready, {half} half placed");
        Ok(())
    })
}
