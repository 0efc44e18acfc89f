//! Objects in ordinary files: restarts, permissions, and refused files.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use multiproc::robust::{pid_namespace, thread_id};
use multiproc::shm::{Error, Gc, Shared};
use multiproc::{AtomicValue, Capacity, ErrorKind, Handle, Lock, LockGuard, Options, Queue, Value};

use crate::common::{
    Dice, How, Outcome, Space, alone, fork, kill, spawn, unique, value, wait_for, watchdog, with_one_thread,
};

/// Offsets of the object and of the pid namespace in the file.
const OBJECT: u64 = 1024;
const PID_NAMESPACE: u64 = 24;

/// A directory on the file system of the build directory. Dropping it removes it.
struct Disk(PathBuf);

impl Disk {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("disk"));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options() -> Options {
    Options::new()
}

fn raw(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("the file")
}

fn refused<T>(result: Result<T, Error>, kind: ErrorKind, text: &str) {
    let Err(error) = result else { panic!("it worked") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn contents_outlive_all_processes() -> Outcome {
    fn child(path: PathBuf) {
        let total: Value<u64> = options().open_or_create_file(path.join("total"), 0).expect("a value");
        let queue: Queue<String> =
            options().open_or_create_file(path.join("queue"), Capacity::from(4)).expect("a queue");
        total.update(|total| *total += 5).expect("free");
        queue.put("hello".to_owned()).expect("space");
        total.sync().expect("a disk");
        assert_eq!(total.shared().unwrap().path(), Some(&*path.join("total")));
        std::mem::forget((total, queue));
    }
    let _alone = alone();
    let in_memory = Disk(PathBuf::from("/dev/shm").join(format!("multiproc-{}", unique("disk"))));
    fs::create_dir(&in_memory.0)?;
    for disk in [Disk::new(), in_memory] {
        for round in 1..=3_u64 {
            value(&spawn(child, disk.0.clone()));
            assert_eq!(options().open_file::<Value<u64>>(disk.file("total"))?.get()?, 5 * round);
            assert_eq!(options().open_file::<Queue<String>>(disk.file("queue"))?.len() as u64, round);
        }
        let names = fs::read_dir(&disk.0)?.count();
        assert_eq!(names, 2, "only the two files");
        let metadata = fs::metadata(disk.file("total"))?;
        assert_eq!((metadata.mode() & 0o7777, metadata.len()), (0o600, OBJECT + 128 + 16));
        // All of its memory is reserved.
        let metadata = fs::metadata(disk.file("queue"))?;
        assert!(metadata.blocks() * 512 >= metadata.len(), "{metadata:?}");
    }
    Ok(())
}

#[test]
fn lock_held_before_a_restart_is_free() -> Outcome {
    fn child(path: PathBuf) -> bool {
        let lock: Lock = options().open_file(path).expect("it is there");
        let guard = lock.lock().expect("it is free");
        let died = LockGuard::previous_owner_died(&guard).is_some();
        drop(guard);
        died && LockGuard::previous_owner_died(&lock.lock().expect("free")).is_none()
    }
    let _alone = alone();
    let disk = Disk::new();
    let path = disk.file("lock");
    drop(options().create_file::<Lock>(&path, ())?);
    // The machine stopped while a thread held the lock. A living thread has that thread's id now: this one.
    let (file, thread) = (raw(&path), thread_id());
    for word in [thread, thread | 1 << 31] {
        file.write_all_at(&word.to_le_bytes(), OBJECT)?;
        file.write_all_at(&[thread.to_le_bytes(), std::process::id().to_le_bytes()].concat(), OBJECT + 16)?;
        // The pid namespace had another number then.
        file.write_all_at(&99_u64.to_le_bytes(), PID_NAMESPACE)?;
        assert!(value(&spawn(child, path.clone())), "{word:x}");
    }
    // Words as the kernel leaves them.
    for (word, died) in [(1 << 30, true), (1 << 31 | 1 << 30, true), (0, false), (1 << 31, false)] {
        file.write_all_at(&u32::to_le_bytes(word), OBJECT)?;
        assert_eq!(value(&spawn(child, path.clone())), died, "{word:x}");
    }
    Ok(())
}

#[test]
fn lock_of_a_living_owner_stays_held() -> Outcome {
    fn child((path, step): (PathBuf, AtomicValue<u32>)) {
        let lock: Lock = options().open_file(path).expect("it is there");
        let _guard = lock.lock().expect("it is free");
        step.store(1);
        wait_for(&step, 2);
    }
    let _alone = alone();
    let disk = Disk::new();
    let path = disk.file("lock");
    drop(options().create_file::<Lock>(&path, ())?);
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (path.clone(), step.clone()));
    wait_for(&step, 1);
    let lock: Lock = options().open_file(&path)?;
    assert!(lock.try_lock()?.is_none());
    // An object in use belongs to one pid namespace.
    drop(lock);
    let file = raw(&path);
    file.write_all_at(&99_u64.to_le_bytes(), PID_NAMESPACE)?;
    refused(options().open_file::<Lock>(&path), ErrorKind::OtherPidNamespace, "lock");
    file.write_all_at(&pid_namespace().to_le_bytes(), PID_NAMESPACE)?;
    let lock: Lock = options().open_file(&path)?;
    kill(&child);
    let guard = lock.lock()?;
    assert_eq!(LockGuard::previous_owner_died(&guard).and_then(|death| death.pid()), Some(child.pid()));
    Ok(())
}

#[test]
fn file_opened_twice_is_one_object() -> Outcome {
    let _watchdog = watchdog();
    let disk = Disk::new();
    let path = disk.file("lock");
    let one: Lock = options().create_file(&path, ())?;
    fs::hard_link(&path, disk.file("other name"))?;
    let other: Lock = options().open_file(disk.file("other name"))?;
    assert!(Shared::is_same(one.shared().unwrap(), other.shared().unwrap()));
    let _guard = one.lock()?;
    assert!(other.lock().is_err(), "this thread holds it");
    thread::scope(|s| {
        let open = || {
            options().open_file::<Lock>(&path).expect("it is there").try_lock().expect("no error").is_none()
        };
        let threads = [s.spawn(open), s.spawn(open), s.spawn(open)];
        assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
    });
    Ok(())
}

#[test]
fn file_without_the_expected_object_is_refused() -> Outcome {
    let disk = Disk::new();
    let path = disk.file("value");
    let open = || options().open_file::<Value<u64>>(&path);
    refused(open(), ErrorKind::NotFound, &path.display().to_string());
    refused(options().create_file::<Value<u64>>(disk.file("no/where"), 1), ErrorKind::NotFound, "no/where");
    drop(options().create_file::<Value<u64>>(&path, 7)?);
    refused(
        options().create_file::<Value<u64>>(&path, 7),
        ErrorKind::AlreadyExists,
        &path.display().to_string(),
    );
    refused(options().open_file::<Lock>(&path), ErrorKind::WrongKind, "it is a value");
    refused(options().open_file::<Value<u32>>(&path), ErrorKind::Mismatch, "u64");
    refused(
        options().open_or_create_file::<Queue<u64>>(&path, 4.into()),
        ErrorKind::WrongKind,
        "it is a value",
    );
    let whole = fs::read(&path)?;
    for length in [0, 1, 1023, 1024, 1024 + 128, whole.len() - 1] {
        fs::write(&path, &whole[..length])?;
        refused(open(), ErrorKind::Corrupt, "value");
    }
    fs::write(&path, [&whole[..], &[0]].concat())?;
    refused(open(), ErrorKind::Corrupt, "another length");
    fs::write(&path, [0xa5; 4096])?;
    refused(open(), ErrorKind::Corrupt, "no magic number");
    fs::write(&path, &whole)?;
    assert_eq!(open()?.get()?, 7);
    refused(options().open_file::<Value<u64>>(&disk.0), ErrorKind::Corrupt, "value");
    // Each location has its own functions.
    let space = Space::new();
    drop(space.options().persistent(true).create::<Value<u64>>("named", 7)?);
    refused(
        options().open_file::<Value<u64>>(space.file("named")),
        ErrorKind::WrongKind,
        "lives in a namespace",
    );
    drop(options().create_file::<Value<u64>>(space.file("file"), 7)?);
    refused(space.options().open::<Value<u64>>("file"), ErrorKind::WrongKind, "lives in an ordinary file");
    // A sweep keeps it.
    Gc::new().in_flight_age(std::time::Duration::ZERO).run(space.namespace())?;
    assert_eq!(space.entries(), ["file", "named"]);
    Ok(())
}

#[test]
fn file_that_others_can_write_is_denied() -> Outcome {
    let disk = Disk::new();
    let path = disk.file("value");
    drop(options().create_file::<Value<u64>>(&path, 7)?);
    for (mode, ok) in [(0o644, true), (0o660, false), (0o606, false), (0o600, true)] {
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        let opened = options().open_file::<Value<u64>>(&path);
        assert_eq!(opened.is_ok(), ok, "{mode:o}");
        if !ok {
            refused(opened, ErrorKind::Denied, &format!("mode {mode:o}"));
        }
    }
    fs::set_permissions(&path, Permissions::from_mode(0o660))?;
    drop(options().mode(0o660).open_file::<Value<u64>>(&path)?);
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        refused(options().mode(0o660).open_file::<Value<u64>>(&path), ErrorKind::Denied, "user 12345");
        // With a group, any member may own it.
        let group = fs::metadata(&path)?.gid();
        drop(options().mode(0o660).group(group).open_file::<Value<u64>>(&path)?);
        refused(
            options().mode(0o660).group(group + 1).open_file::<Value<u64>>(&path),
            ErrorKind::Denied,
            "user 12345",
        );
        drop(options().mode(0o660).group(54_321).create_file::<Value<u64>>(disk.file("group"), 7)?);
        let metadata = fs::metadata(disk.file("group"))?;
        assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (54_321, 0o660));
    }
    for mode in [0o400, 0o602, 0o700, 0o1600] {
        refused(
            options().mode(mode).create_file::<Value<u64>>(disk.file("odd"), 7),
            ErrorKind::Invalid,
            &format!("mode {mode:o}"),
        );
    }
    Ok(())
}

#[test]
fn making_an_object_on_a_full_disk_is_an_error() -> Outcome {
    let _alone = alone();
    let Some(tiny) = crate::across::Tiny::mount() else {
        println!("skipped: no right to mount");
        return Ok(());
    };
    let path = tiny.path().join("large");
    for options in [options(), options().prefault(true), options().huge_pages(true)] {
        refused(
            options.create_file::<Value<[u8; 1 << 16]>>(&path, [1; 1 << 16]),
            ErrorKind::NoSpace,
            "large",
        );
        assert!(!path.exists());
    }
    // A copy with a hole, for which there is no space.
    let small = tiny.path().join("small");
    drop(options().create_file::<Value<[u8; 9000]>>(&small, [1; 9000])?);
    let header = fs::read(&small)?[..1024].to_vec();
    let length = fs::metadata(&small)?.len();
    fs::remove_file(&small)?;
    let copy = File::create(&small)?;
    copy.write_all_at(&header, 0)?;
    copy.set_len(length)?;
    copy.set_permissions(Permissions::from_mode(0o600))?;
    let filler = File::create(tiny.path().join("filler"))?;
    let mut written = 0;
    while filler.write_all_at(&[1; 4096], written).is_ok() {
        written += 4096;
    }
    refused(options().open_file::<Value<[u8; 9000]>>(&small), ErrorKind::NoSpace, "small");
    fs::remove_file(tiny.path().join("filler"))?;
    drop(filler);
    assert_eq!(options().open_file::<Value<[u8; 9000]>>(&small)?.get()?, [0; 9000]);
    Ok(())
}

#[test]
fn handle_can_be_sent_to_a_child() -> Outcome {
    fn child(total: Value<u64>) -> u64 {
        total.update(|total| *total += 1).expect("free")
    }
    let _alone = alone();
    let disk = Disk::new();
    let path = disk.file("total");
    let total: Value<u64> = options().create_file(&path, 7)?;
    assert_eq!(value(&spawn(child, total.clone())), 8);
    let bytes = postcard::to_stdvec(&total)?;
    drop(total);
    assert_eq!(postcard::from_bytes::<Value<u64>>(&bytes)?.get()?, 8);
    // Another file of that name is another object.
    fs::remove_file(&path)?;
    drop(options().create_file::<Value<u64>>(&path, 1)?);
    assert!(postcard::from_bytes::<Value<u64>>(&bytes).is_err());
    Ok(())
}

#[test]
fn one_of_several_processes_makes_the_object() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        let disk = Disk::new();
        for round in 0..5 {
            let path = disk.file(&format!("total-{round}"));
            let start = AtomicValue::new(0_u32)?;
            let children: Vec<_> = (0..4)
                .map(|_| {
                    fork(How::Libc, || {
                        wait_for(&start, 1);
                        let total: Value<u64> =
                            options().open_or_create_file(&path, 0).expect("it is found or made");
                        total.update(|total| *total += 1).expect("free");
                        0
                    })
                })
                .collect();
            start.store(1);
            assert_eq!(children.into_iter().map(|child| child.wait()).sum::<i32>(), 0);
            assert_eq!(options().open_file::<Value<u64>>(&path)?.get()?, 4);
        }
        Ok(())
    })
}

#[test]
fn locks_stay_usable_while_users_are_killed() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        let space = Space::new();
        let mut dice = Dice::of_this_run();
        let path = space.file("lock");
        drop(options().create_file::<Lock>(&path, ())?);
        let word = raw(&path);
        let (mut died, mut clean) = (0, 0);
        for _ in 0..100 {
            // No process is attached. The word is an old one, which the processes that open the file must not
            // take for a living owner's.
            word.write_all_at(&std::process::id().to_le_bytes(), OBJECT)?;
            let user = || {
                fork(How::Libc, || {
                    loop {
                        let lock: Lock = options().open_file(&path).expect("it is there");
                        drop(lock.lock().expect("no error"));
                    }
                })
            };
            let children = [user(), user()];
            (0..dice.below(200_000)).for_each(|_| std::hint::spin_loop());
            for child in children {
                child.kill();
            }
            let lock: Lock = options().open_file(&path)?;
            let Some(guard) = lock.try_lock()? else { panic!("it has an owner: {lock:?}\n") };
            if LockGuard::previous_owner_died(&guard).is_some() { died += 1 } else { clean += 1 }
        }
        println!("{died} locks reported a death, {clean} did not");
        Ok(())
    })
}
