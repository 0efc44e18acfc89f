//! Lifetimes of objects seen from several processes, handles sent between them, and failures while objects
//! are made.
#![allow(unsafe_code, reason = "limits, mounts and the environment, as a C program sets them")]

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use multiproc::shm::{Error, Gc, Namespace};
use multiproc::{AtomicValue, Capacity, ErrorKind, GetError, Lock, Options, Queue, SharedMemory, Value};

use crate::common::{How, Outcome, Space, alone, fork, spawn, unique, value, wait_for, with_one_thread};

/// Opens an object and keeps it from step 1 to step 2.
fn user((directory, name, step): (PathBuf, String, AtomicValue<u32>)) -> Result<u64, String> {
    let keep = || -> Result<u64, Error> {
        let namespace = Namespace::at(directory)?;
        let found: Value<u64> = Options::new().namespace(&namespace).open(&name)?;
        step.store(1);
        wait_for(&step, 2);
        Ok(found.get().expect("its lock is free"))
    };
    keep().map_err(|error| error.to_string())
}

#[test]
fn last_process_removes_the_name() -> Outcome {
    let _alone = alone();
    for parent_drops_first in [true, false] {
        let space = Space::new();
        let mine: Value<u64> = space.options().create("shared", 7)?;
        let step = AtomicValue::new(0_u32)?;
        let child = spawn(user, (space.namespace().path().to_owned(), "shared".to_owned(), step.clone()));
        wait_for(&step, 1);
        if parent_drops_first {
            drop(mine);
            assert_eq!(space.entries(), ["shared"]);
            step.store(2);
            assert_eq!(value(&child), Ok(7));
        } else {
            step.store(2);
            assert_eq!(value(&child), Ok(7));
            assert_eq!(space.entries(), ["shared"]);
            drop(mine);
        }
        assert!(space.entries().is_empty());
    }
    Ok(())
}

#[test]
fn object_of_a_process_that_exits_with_its_handle_is_swept() -> Outcome {
    fn child(directory: PathBuf) {
        let namespace = Namespace::at(directory).expect("the parent's");
        let made: Value<u64> = Options::new().namespace(&namespace).create("left", 7).expect("a value");
        std::mem::forget(made);
    }
    let _alone = alone();
    let space = Space::new();
    value(&spawn(child, space.namespace().path().to_owned()));
    assert_eq!(space.entries(), ["left"]);
    let dry = Gc::new().dry_run(true).run(space.namespace())?;
    assert_eq!((dry.removed, space.entries()), (vec!["left".to_owned()], vec!["left".to_owned()]));
    let report = Gc::new().run(space.namespace())?;
    assert_eq!((report.removed, report.kept.len()), (vec!["left".to_owned()], 0));
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn forked_child_keeps_the_object() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let space = Space::new();
            let step = AtomicValue::new(0_u32)?;
            let mine: Value<u64> = space.options().create("inherited", 7)?;
            let child = fork(how, || {
                wait_for(&step, 1);
                let works = mine.get() == Ok(7) && mine.set(8).is_ok();
                step.store(2);
                wait_for(&step, 3);
                i32::from(!works)
            });
            drop(mine);
            assert_eq!(space.entries(), ["inherited"], "{how:?}");
            step.store(1);
            wait_for(&step, 2);
            assert_eq!(space.options().open::<Value<u64>>("inherited")?.get()?, 8);
            step.store(3);
            assert_eq!(child.wait(), 0);
            // The child ended by `_exit`, without a drop.
            assert_eq!(Gc::new().run(space.namespace())?.removed, ["inherited"]);
        }
        Ok(())
    })
}

#[test]
fn forked_child_can_drop_its_copy() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let space = Space::new();
            let mut mine: Option<Value<u64>> = Some(space.options().create("inherited", 7)?);
            let child = fork(how, || {
                drop(mine.take());
                i32::from(space.entries() != ["inherited"])
            });
            assert_eq!(child.wait(), 0);
            assert_eq!(space.entries(), ["inherited"]);
            assert_eq!(mine.as_ref().map(|it| it.get()), Some(Ok(7)));
            drop(mine);
            assert!(space.entries().is_empty());
        }
        Ok(())
    })
}

#[test]
fn forked_child_finds_the_inherited_mapping() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let space = Space::new();
            let mine: Value<u64> = space.options().create("twice", 7)?;
            let child = fork(how, || {
                let again: Value<u64> = space.options().open("twice").expect("it is there");
                let _guard = mine.lock().expect("it is free");
                // The same mapping, so the same lock, and this thread holds it.
                let error = again.try_lock().map(drop).expect_err("this thread holds it");
                i32::from(error.cause() != multiproc::robust::AcquireError::AlreadyHeld)
            });
            assert_eq!(child.wait(), 0, "{how:?}");
        }
        Ok(())
    })
}

#[test]
fn forked_child_can_make_and_find_objects() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let space = Space::new();
            // After a fork that libc does not know, the child finds its robust list only in what this thread
            // has recorded.
            drop(Lock::new()?.lock()?);
            let child = fork(how, || {
                let made: Value<u64> = space.options().create("new", 7).expect("a value");
                made.update(|it| *it += 1).expect("it is free");
                let lock = Lock::new().expect("a lock");
                drop(lock.lock().expect("it is free"));
                let found: Value<u64> = space.options().open("new").expect("it is there");
                i32::from(found.get() != Ok(8))
            });
            assert_eq!(child.wait(), 0);
            assert!(space.entries().is_empty());
        }
        Ok(())
    })
}

#[test]
fn handle_can_be_returned_by_a_child() -> Outcome {
    fn child((): ()) -> Value<u64> {
        let made = Value::new(6_u64).expect("a value");
        made.update(|it| *it += 1).expect("it is free");
        made
    }
    let _alone = alone();
    // The child that made it has ended before another process attaches.
    let back = value(&spawn(child, ()));
    assert_eq!(back.get()?, 7);
    Ok(())
}

#[test]
fn handle_can_be_sent_through_a_queue() -> Outcome {
    fn child(queue: Queue<Option<Value<u64>>>) -> u64 {
        let mut sum = 0;
        while let Ok(Some(number)) = queue.get() {
            sum += number.get().expect("its lock is free");
        }
        sum
    }
    let _alone = alone();
    let queue = Queue::new(4)?;
    let child = spawn(child, queue.clone());
    for number in 1..=50_u64 {
        // Dropped here at once: only the in-flight reference keeps it.
        queue.put(Some(Value::new(number)?))?;
    }
    queue.put(None)?;
    assert_eq!(value(&child), 50 * 51 / 2);
    Ok(())
}

#[test]
fn process_keeps_an_object_that_is_serialised_outside_of_a_transit() -> Outcome {
    fn child((directory, mailbox, step): (PathBuf, PathBuf, AtomicValue<u32>)) {
        let namespace = Namespace::at(directory).expect("the parent's");
        let made: Value<u64> = Options::new().namespace(&namespace).anonymous(7).expect("a value");
        fs::write(mailbox, postcard::to_stdvec(&made).expect("a handle can be serialised"))
            .expect("to write");
        drop(made);
        step.store(1);
        wait_for(&step, 2);
    }
    let _alone = alone();
    let space = Space::new();
    let mailbox = space.file("mailbox");
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (space.namespace().path().to_owned(), mailbox.clone(), step.clone()));
    wait_for(&step, 1);
    let bytes = fs::read(&mailbox)?;
    fs::remove_file(mailbox)?;
    assert_eq!(Gc::new().in_flight_age(Duration::ZERO).run(space.namespace())?.removed, [""; 0]);
    assert_eq!(postcard::from_bytes::<Value<u64>>(&bytes)?.get()?, 7);
    step.store(2);
    value(&child);
    assert!(postcard::from_bytes::<Value<u64>>(&bytes).is_err());
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn stale_handle_means_no_other_object() -> Outcome {
    let _alone = alone();
    let name = unique("stale");
    let queue: Queue<Value<u64>> = Queue::new(4)?;
    let old = Value::create(&name, 1_u64)?;
    for _ in 0..3 {
        queue.put(old.clone())?;
    }
    Value::<u64>::unlink(&name)?;
    drop(old);
    let refused = || matches!(queue.get(), Err(GetError::Decode { .. }));
    assert!(refused());
    let newer = Value::create(&name, 2_u64)?;
    assert!(refused());
    drop(newer);
    let _another_kind = Lock::create(&name)?;
    assert!(refused());
    Ok(())
}

#[test]
fn object_of_another_pid_namespace_is_refused() -> Outcome {
    const ROLE: &str = "MULTIPROC_TEST_OTHER_PID_NAMESPACE";
    if let Some(directory) = std::env::var_os(ROLE) {
        // This is the child, in its own pid namespace.
        let namespace = Namespace::at(PathBuf::from(directory))?;
        let options = Options::new().namespace(&namespace);
        let error = options.open::<Value<u64>>("far").expect_err("made in another pid namespace");
        assert_eq!(error.kind(), ErrorKind::OtherPidNamespace, "{error}");
        let error = options.open::<SharedMemory>("far-block").expect_err("made in another pid namespace");
        assert_eq!(error.kind(), ErrorKind::OtherPidNamespace, "{error}");
        // The kernel knows which processes use a file, without process ids. So a sweep from here removes no
        // object of outside processes.
        let report = Gc::new().in_flight_age(Duration::ZERO).run(&namespace)?;
        assert_eq!((report.removed.len(), report.kept.len()), (0, 2), "{report:?}");
        // Objects of its own pid namespace work.
        let near: Value<u64> = options.create("near", 7)?;
        near.update(|it| *it += 1)?;
        // A forked child in a third pid namespace may not use them: its thread ids mean other threads.
        // SAFETY: a flag only, which concerns children alone.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } == 0 {
            let child = fork(How::Libc, || {
                i32::from(near.lock().is_ok() || options.open::<Value<u64>>("near").is_ok())
            });
            assert_eq!(child.wait(), 0);
        }
        return Ok(());
    }
    let _alone = alone();
    let space = Space::new();
    let far: Value<u64> = space.options().create("far", 7)?;
    let _block: SharedMemory = space.options().create("far-block", 7)?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork"]).arg(std::env::current_exe()?);
    unshare.args([
        "--exact",
        "across::object_of_another_pid_namespace_is_refused",
        "--nocapture",
        "--test-threads=1",
    ]);
    let output = unshare.env(ROLE, space.namespace().path()).output();
    let Ok(output) = output else {
        println!("skipped: no `unshare` here");
        return Ok(());
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if text.contains("unshare failed") || text.contains("Operation not permitted") {
        println!("skipped: no right to make a pid namespace");
        return Ok(());
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(far.get()?, 7);
    // Removes what the first processes of those pid namespaces have left.
    Gc::new().run(space.namespace())?;
    assert_eq!(space.entries(), ["far", "far-block"]);
    Ok(())
}

/// A file system of 64 KiB. Dropping it unmounts it and removes its mount point.
pub(crate) struct Tiny(PathBuf);

impl Tiny {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts it. Returns `None` if this user may not mount.
    pub(crate) fn mount() -> Option<Self> {
        let path = PathBuf::from("/dev/shm").join(format!("multiproc-{}", unique("tiny")));
        fs::create_dir(&path).expect("a mount point");
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("a mode");
        let target = c_path(&path);
        let (kind, options) = (c"tmpfs".as_ptr(), c"size=64k,mode=0700".as_ptr());
        // SAFETY: C strings.
        let mounted = unsafe { libc::mount(kind, target.as_ptr(), kind, 0, options.cast()) };
        if mounted == 0 {
            return Some(Self(path));
        }
        fs::remove_dir(&path).expect("an empty directory");
        None
    }

    /// Returns the number of free bytes.
    pub(crate) fn free(&self) -> u64 {
        // SAFETY: zeros are a valid value of this plain struct.
        let mut status: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: a C string and a struct for the result.
        assert_eq!(unsafe { libc::statvfs(c_path(&self.0).as_ptr(), &raw mut status) }, 0);
        status.f_bavail * status.f_bsize
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // SAFETY: a C string.
        unsafe { libc::umount2(c_path(&self.0).as_ptr(), libc::MNT_DETACH) };
        let _ = fs::remove_dir(&self.0);
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL")
}

#[test]
fn full_file_system_is_an_error_and_not_a_signal() -> Outcome {
    /// Makes a queue of so many bytes and touches all of them.
    fn touch(name: &str, bytes: usize) -> Result<(), Error> {
        let queue = Queue::<[u8]>::create(name, Capacity::messages(10_000).bytes(bytes))?;
        let message = vec![0xa5; bytes / 2];
        // More than once around the ring.
        for _ in 0..5 {
            queue.try_put_bytes(&message).expect("half of it is free");
            assert_eq!(queue.try_get_bytes().expect("it is there"), message);
        }
        Ok(())
    }
    /// A size that could be made; or one that could not, with the kind and the text of the error.
    type Attempt = Result<usize, (usize, (String, String))>;
    fn child(directory: PathBuf) -> (Vec<Attempt>, usize, Vec<String>) {
        // SAFETY: no other thread of this process reads the environment now.
        unsafe { std::env::set_var("MULTIPROC_DIR", &directory) };
        let sizes = [4, 8, 16, 32, 48, 64, 128, 256, 512, 1024].map(|kib| kib * 1024);
        let results = sizes.map(|bytes| match touch("sized", bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err((bytes, (format!("{:?}", error.kind()), error.to_string()))),
        });
        // Then many small values. All are written again when the last one could not be made.
        let mut small = Vec::new();
        let full = loop {
            match Value::new([1_u8; 3000]) {
                Ok(value) => small.push(value),
                Err(error) => break error.kind() == ErrorKind::NoSpace,
            }
        };
        assert!(full);
        for value in &small {
            value.set([2; 3000]).expect("it is free");
            value.set([3; 3000]).expect("it is free");
        }
        let made = small.len();
        drop(small);
        let left = fs::read_dir(directory).expect("a directory").flatten();
        (results.into(), made, left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
    let _alone = alone();
    let Some(tiny) = Tiny::mount() else {
        println!("skipped: no right to mount");
        return Ok(());
    };
    let free = tiny.free();
    let (results, small, left) = value(&spawn(child, tiny.0.clone()));
    assert_eq!(left, [""; 0]);
    assert_eq!(tiny.free(), free);
    assert!(small > 2, "{small}");
    for result in results {
        match result {
            Ok(bytes) => assert!(bytes < 64 * 1024, "{bytes}"),
            Err((bytes, (kind, text))) => {
                assert!(bytes > 16 * 1024 && kind == "NoSpace", "{bytes}: {text}");
                assert!(text.starts_with("create queue \"sized\": no space left"), "{text}");
            }
        }
    }
    Ok(())
}

#[test]
fn calls_without_descriptors_are_errors() -> Outcome {
    fn child((directory, shared): (PathBuf, Value<u64>)) -> Vec<String> {
        let namespace = Namespace::at(directory).expect("the parent's");
        let options = Options::new().namespace(&namespace);
        let before: Value<u64> = options.create("before", 1).expect("a value");
        // Uses all free descriptor numbers below the highest one, so that only the limit counts.
        let entries = fs::read_dir("/proc/self/fd").expect("a list").flatten();
        let highest = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .max()
            .expect("a descriptor");
        let mut fill = vec![File::open("/dev/null").expect("a descriptor")];
        while fill.last().is_some_and(|last| last.as_raw_fd() < highest) {
            fill.push(File::open("/dev/null").expect("a descriptor"));
        }
        let used = fill.last().map_or(0, |last| u64::from(last.as_raw_fd().cast_unsigned()) + 1);
        let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a struct for the result.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) }, 0);
        let limit = |soft: u64| {
            let limit = libc::rlimit { rlim_cur: soft, ..limits };
            // SAFETY: a plain struct.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        };
        let mut results = Vec::new();
        // With no descriptor left, then with one, two, three, until everything works.
        for spare in 0..8 {
            limit(used + spare);
            let kind = |result: Result<(), Error>| {
                result.map_or_else(|error| format!("{:?}", error.kind()), |()| "fine".to_owned())
            };
            let tried = [
                options.create::<Value<u64>>("new", 1).map(drop),
                options.open::<Value<u64>>("before").map(drop),
                options.open::<Value<u64>>("parents").map(drop),
                options.open_or_create::<Value<u64>>("either", 1).map(drop),
                options.anonymous::<Value<u64>>(1).map(drop),
            ];
            results.push(tried.map(kind).join(" "));
            // Open objects work.
            before.update(|it| *it += 1).expect("it is free");
            shared.update(|it| *it += 1).expect("it is free");
        }
        limit(limits.rlim_cur);
        drop(options.create::<Value<u64>>("new", 1).expect("there are descriptors again"));
        results
    }
    let _alone = alone();
    let space = Space::new();
    let parents: Value<u64> = space.options().create("parents", 7)?;
    let shared = Value::new(0_u64)?;
    let results = value(&spawn(child, (space.namespace().path().to_owned(), shared.clone())));
    assert_eq!(results[0], "Exhausted Exhausted Exhausted Exhausted Exhausted");
    assert_eq!(results[7], "fine fine fine fine fine");
    for line in &results {
        assert!(line.split(' ').all(|word| ["Exhausted", "fine"].contains(&word)), "{results:?}");
    }
    // The parent's objects are unchanged, and a sweep removes what was left.
    assert_eq!((shared.get()?, parents.get()?), (8, 7));
    Gc::new().in_flight_age(Duration::ZERO).run(space.namespace())?;
    assert_eq!(space.entries(), ["parents"]);
    Ok(())
}

#[test]
fn directory_of_another_user_in_the_environment_is_denied() -> Outcome {
    fn child(directory: PathBuf) -> Vec<String> {
        // SAFETY: no other thread of this process reads the environment now.
        unsafe { std::env::set_var("MULTIPROC_DIR", directory) };
        let errors = [
            Value::create("x", 1_u8).map(drop),
            Value::<u8>::open("x").map(drop),
            Value::new(1_u8).map(drop),
            Lock::unlink("x"),
        ];
        errors.into_iter().map(|result| format!("{:?}", result.map_err(|error| error.kind()))).collect()
    }
    let _alone = alone();
    let space = Space::new();
    let open = space.file("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, Permissions::from_mode(0o755))?;
    assert_eq!(value(&spawn(child, open.clone())), ["Err(Denied)"; 4]);
    let link = space.file("link");
    std::os::unix::fs::symlink(space.namespace().path(), &link)?;
    assert_eq!(value(&spawn(child, link)), ["Err(Denied)"; 4]);
    if std::os::unix::fs::chown(&open, Some(12345), None).is_ok() {
        assert_eq!(value(&spawn(child, open)), ["Err(Denied)"; 4]);
    }
    Ok(())
}

#[test]
fn forks_by_another_thread_keep_no_lock() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    drop(space.options().persistent(true).create::<Value<u64>>("kept", 7)?);
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        // Each child has copies of the descriptors that are open at that moment, and keeps them for a while.
        let forks = s.spawn(|| {
            let mut children = Vec::new();
            while !done.load(Relaxed) {
                children.push(fork(How::Libc, || {
                    loop {
                        // SAFETY: no arguments.
                        unsafe { libc::pause() };
                    }
                }));
                if children.len() > 8 {
                    children.clear();
                }
            }
        });
        for _ in 0..300 {
            let opened = space.options().open::<Value<u64>>("kept").map(|it| it.get().expect("it is free"));
            assert_eq!(opened.map_err(|error| error.to_string()), Ok(7));
        }
        done.store(true, Relaxed);
        forks.join().expect("no panic");
    });
    Ok(())
}
