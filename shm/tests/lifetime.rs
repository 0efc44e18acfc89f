//! When an object's name, mapping and descriptor disappear, seen from one process.

mod common;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use multiproc_shm::{AtomicValue, ErrorKind, Gc, Options, Value};

use common::{Outcome, Space, unique, watchdog};

/// Device and inode of a file in a space.
fn inode(space: &Space, name: &str) -> (u64, u64) {
    let metadata = fs::metadata(space.file(name)).expect("it is there");
    (metadata.dev(), metadata.ino())
}

/// Returns how often this process has a file mapped.
fn mappings((device, inode): (u64, u64)) -> usize {
    let device = format!("{:02x}:{:02x}", libc::major(device), libc::minor(device));
    let maps = fs::read_to_string("/proc/self/maps").expect("a list of mappings");
    let matches = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        fields.next() == Some(&device) && fields.next() == Some(&inode.to_string())
    };
    maps.lines().filter(matches).count()
}

/// Returns how many descriptors this process has for a file.
fn descriptors(identity: (u64, u64)) -> usize {
    let entries = fs::read_dir("/proc/self/fd").expect("a list of descriptors").flatten();
    entries
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .filter(|metadata| (metadata.dev(), metadata.ino()) == identity)
        .count()
}

#[test]
fn last_handle_removes_the_name() -> Outcome {
    let space = Space::new();
    let made: Value<u64> = space.options().create("short", 1)?;
    let found: Value<u64> = space.options().open("short")?;
    let clone = found.clone();
    drop(made);
    assert_eq!(space.entries(), ["short"]);
    drop(found);
    assert_eq!(space.entries(), ["short"]);
    assert_eq!(clone.get()?, 1);
    drop(clone);
    assert!(space.entries().is_empty());
    assert_eq!(
        space.options().open::<Value<u64>>("short").expect_err("it has gone").kind(),
        ErrorKind::NotFound
    );
    Ok(())
}

#[test]
fn last_handle_removes_the_name_in_the_default_namespace() -> Outcome {
    let name = unique("short");
    let made = Value::create(&name, 1_u64)?;
    let path = multiproc_shm::Namespace::current()?.path().join(&name);
    assert!(path.exists());
    drop(made);
    assert!(!path.exists());
    Ok(())
}

#[test]
fn persistent_object_stays_until_unlinked() -> Outcome {
    let space = Space::new();
    drop(space.options().persistent(true).create::<Value<u64>>("kept", 41)?);
    assert_eq!(space.entries(), ["kept"]);
    let found: Value<u64> = space.options().open("kept")?;
    found.update(|value| *value += 1)?;
    drop(found);
    // `open_or_create` finds it unchanged, whatever value it is given.
    assert_eq!(space.options().open_or_create::<Value<u64>>("kept", 0)?.get()?, 42);
    assert_eq!(
        space.options().create::<Value<u64>>("kept", 0).expect_err("it exists").kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(Gc::new().in_flight_age(Duration::ZERO).run(space.namespace())?.kept, ["kept"]);
    space.options().unlink("kept")?;
    assert!(space.entries().is_empty());
    assert_eq!(space.options().open::<Value<u64>>("kept").expect_err("unlinked").kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn handles_keep_an_unlinked_object() -> Outcome {
    let space = Space::new();
    let old: Value<u64> = space.options().create("twice", 1)?;
    let old_too = old.clone();
    space.options().unlink("twice")?;
    assert_eq!(
        space.options().open::<Value<u64>>("twice").expect_err("unlinked").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(space.options().unlink("twice").expect_err("unlinked").kind(), ErrorKind::NotFound);
    // Handles keep the object.
    old.set(5)?;
    assert_eq!(old_too.get()?, 5);
    // The new object of this name is another one.
    let new: Value<u64> = space.options().create("twice", 2)?;
    old.set(6)?;
    assert_eq!((old_too.get()?, new.get()?), (6, 2));
    // The end of the old object does not remove the name of the new one.
    drop((old, old_too));
    assert_eq!(space.entries(), ["twice"]);
    assert_eq!(space.options().open::<Value<u64>>("twice")?.get()?, 2);
    drop(new);
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn unlink_removes_a_name_of_any_kind() -> Outcome {
    let space = Space::new();
    let _value: Value<u64> = space.options().create("any", 1)?;
    space.options().unlink("any")?;
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn object_opened_twice_is_mapped_once() -> Outcome {
    let space = Space::new();
    let made: Value<u64> = space.options().create("once", 1)?;
    let identity = inode(&space, "once");
    assert_eq!(mappings(identity), 1);
    let found: Vec<Value<u64>> = (0..10).map(|_| space.options().open("once")).collect::<Result<_, _>>()?;
    assert_eq!(mappings(identity), 1);
    drop(made);
    assert_eq!(mappings(identity), 1);
    drop(found);
    assert_eq!(mappings(identity), 0);
    Ok(())
}

#[test]
fn object_opened_by_many_threads_is_mapped_once() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    let made: Value<u64> = space.options().persistent(true).create("once", 0)?;
    let identity = inode(&space, "once");
    drop(made);
    for _ in 0..50 {
        let handles: Vec<Value<u64>> = thread::scope(|s| {
            let threads: Vec<_> =
                (0..4).map(|_| s.spawn(|| space.options().open("once").expect("it is there"))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(mappings(identity), 1);
        drop(handles);
        assert_eq!(mappings(identity), 0);
    }
    Ok(())
}

#[test]
#[cfg_attr(multiproc_force_fallback, ignore = "the fallback keeps descriptors")]
fn handles_keep_no_descriptor() -> Outcome {
    let space = Space::new();
    let made: Value<u64> = space.options().create("closed", 1)?;
    let identity = inode(&space, "closed");
    assert_eq!(descriptors(identity), 0);
    drop(made);

    drop(space.options().persistent(true).create::<Value<u64>>("closed", 1)?);
    let identity = inode(&space, "closed");
    let _found: Value<u64> = space.options().open("closed")?;
    assert_eq!((descriptors(identity), mappings(identity)), (0, 1));
    Ok(())
}

#[test]
fn lock_outlives_the_descriptor() -> Outcome {
    let space = Space::new();
    let made: Value<u64> = space.options().create("held", 1)?;
    let file = File::open(space.file("held"))?;
    assert!(matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
    // Shared locks go together.
    file.try_lock_shared()?;
    file.unlock()?;
    drop(made);
    file.try_lock()?;
    Ok(())
}

#[test]
fn sweep_keeps_objects_in_use() -> Outcome {
    let space = Space::new();
    let _named: Value<u64> = space.options().create("used", 1)?;
    let _anonymous: AtomicValue<u64> = space.options().anonymous(1)?;
    let report = Gc::new().in_flight_age(Duration::ZERO).run(space.namespace())?;
    assert_eq!((report.removed.len(), report.kept.len()), (0, 2));
    assert_eq!(space.entries().len(), 2);
    Ok(())
}

#[test]
fn sweep_of_an_empty_namespace_removes_nothing() -> Outcome {
    let space = Space::new();
    let report = Gc::new().run(space.namespace())?;
    assert_eq!((report.removed.len(), report.kept.len()), (0, 0));
    // Without the directory it is an error.
    fs::remove_dir(space.namespace().path())?;
    assert_eq!(Gc::new().run(space.namespace()).expect_err("no directory").kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn sweep_removes_the_file_of_a_maker_that_died() -> Outcome {
    let space = Space::new();
    // Left where files begin with a temporary name: one is empty; one is complete and persistent, but was
    // never renamed.
    drop(space.options().persistent(true).create::<Value<u64>>("kept", 1)?);
    let temporary = |digit: &str| format!(".t-{}", digit.repeat(32));
    fs::copy(space.file("kept"), space.file(&temporary("1")))?;
    fs::write(space.file(&temporary("2")), b"")?;
    let mut removed = Gc::new().run(space.namespace())?.removed;
    removed.sort();
    assert_eq!(removed, [temporary("1"), temporary("2")]);
    assert_eq!(space.entries(), ["kept"]);
    Ok(())
}

#[test]
fn name_means_different_objects_in_different_namespaces() -> Outcome {
    let (here, there) = (Space::new(), Space::new());
    let _mine: Value<u64> = here.options().create("same", 1)?;
    let _yours: Value<u64> = there.options().create("same", 2)?;
    assert_eq!(here.options().open::<Value<u64>>("same")?.get()?, 1);
    assert_eq!(there.options().open::<Value<u64>>("same")?.get()?, 2);
    Ok(())
}

#[test]
fn leaked_guard_keeps_mapping_and_name() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    thread::scope(|s| {
        let leaked = s.spawn(|| -> Result<(), multiproc_shm::Error> {
            let value: Value<u64> = space.options().create("leaked", 1)?;
            let identity = inode(&space, "leaked");
            std::mem::forget(value.lock().expect("it is free"));
            drop(value);
            // The kernel will read it when this thread ends.
            assert_eq!(mappings(identity), 1);
            assert_eq!(space.entries(), ["leaked"]);
            // Opened again it is the same mapping, and this thread still holds the lock.
            let again: Value<u64> = space.options().open("leaked")?;
            assert_eq!(mappings(identity), 1);
            let error = again.lock().expect_err("this thread holds it");
            assert_eq!(error.cause(), multiproc_robust::AcquireError::AlreadyHeld);
            Ok(())
        });
        leaked.join().expect("no panic")
    })?;
    // The thread has ended, and the next owner learns of it.
    let found: Value<u64> = space.options().open("leaked")?;
    let guard = found.lock()?;
    let death = multiproc_shm::ValueGuard::previous_owner_died(&guard).expect("its thread ended");
    assert_eq!(death.pid(), Some(std::process::id()));
    Ok(())
}

#[test]
fn threads_open_and_drop_the_same_name_at_once() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    let failed = AtomicBool::new(false);
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..200 {
                    let value: Result<Value<[u64; 4]>, _> = space.options().open_or_create("busy", [9; 4]);
                    let right = value.is_ok_and(|value| value.get().is_ok_and(|found| found == [9; 4]));
                    if !right {
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(!failed.load(Ordering::Relaxed));
    // A drop that does not get the directory's lock in time leaves its file to the sweep.
    Gc::new().run(space.namespace())?;
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn options_can_be_reused() -> Outcome {
    let space = Space::new();
    let options = space.options().persistent(true);
    let first: Value<u64> = options.create("a", 1)?;
    let second: AtomicValue<u8> = options.create("b", 1)?;
    drop((first, second));
    assert_eq!(space.entries(), ["a", "b"]);
    let plain: Options = options.persistent(false);
    drop(plain.create::<Value<u64>>("c", 1)?);
    assert_eq!(space.entries(), ["a", "b"]);
    Ok(())
}

#[test]
fn sweep_removes_scratch_directories_of_ended_processes_only() -> Outcome {
    let space = Space::new();
    let used = space.namespace().scratch_directory()?;
    fs::write(used.path().join("file"), "")?;
    let orphan = space.file(".scratch-4194304-0"); // larger than any process id
    fs::create_dir_all(orphan.join("below"))?;
    fs::write(orphan.join("below/file"), "")?;
    fs::write(space.file(".scratch-file"), "")?;

    let would = Gc::new().dry_run(true).run(space.namespace())?;
    assert_eq!(would.removed, [".scratch-4194304-0"]);
    assert!(orphan.join("below/file").exists());
    assert_eq!(Gc::new().run(space.namespace())?.removed, [".scratch-4194304-0"]);
    assert!(!orphan.exists());
    assert!(used.path().join("file").exists());

    let path = used.path().to_owned();
    drop(used);
    assert!(!path.exists());
    assert_eq!(space.entries(), [".scratch-file"]);
    Ok(())
}
