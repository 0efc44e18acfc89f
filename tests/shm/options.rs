//! Options: sharing with other users, and the memory of an object.
#![allow(unsafe_code, reason = "changes users, as a C program does")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use multiproc::robust::{has_ended, thread_id};
use multiproc::shm::{Error, Gc, Namespace, Shared};
use multiproc::{AtomicValue, Capacity, ErrorKind, Handle, Lock, LockGuard, Options, Queue, Transit, Value};

use crate::common::{Forked, How, Outcome, Space, alone, fork, unique, wait_for, with_one_thread};

const GROUP: u32 = 54_321;
const FIRST: u32 = 50_001;
const SECOND: u32 = 50_002;
const THIRD: u32 = 50_003;

/// Returns whether this test may change its user. If not, prints why it is skipped.
fn is_root() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("skipped: only root can become another user");
    }
    root
}

/// Forks a child that runs as another user, a member of this group.
fn fork_as(user: u32, group: u32, body: impl FnOnce() -> Outcome) -> Forked {
    fork(How::Libc, || {
        // SAFETY: one group.
        assert_eq!(unsafe { libc::setgroups(1, &raw const group) }, 0);
        // SAFETY: numbers only.
        assert_eq!(unsafe { libc::setgid(user) }, 0);
        // SAFETY: numbers only.
        assert_eq!(unsafe { libc::setuid(user) }, 0);
        // SAFETY: numbers only. A change of user clears this.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // SAFETY: numbers only. The mode of new objects must not depend on the umask.
        unsafe { libc::umask(0o777) };
        match body() {
            Ok(()) => 0,
            Err(error) => panic!("user {user}: {error}\n"),
        }
    })
}

/// A path of a directory. Dropping it removes the directory.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(PathBuf::from("/dev/shm").join(format!("multiproc-{}", unique("shared"))))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn in_group(directory: &Path) -> Result<Options, Error> {
    Ok(Options::new().namespace(&Namespace::shared(directory, GROUP)?))
}

/// Checks that the result is `Denied`, and that its text has these facts: path, owner, mode.
fn assert_denied<T>(result: Result<T, Error>, facts: &[&str]) {
    let Err(error) = result else { panic!("it worked\n") };
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}\n");
    let text = error.to_string();
    for fact in facts {
        assert!(text.contains(fact), "{fact:?} is not in {text:?}\n");
    }
}

#[test]
fn group_shares_objects_and_other_users_are_denied() -> Outcome {
    if !is_root() {
        return Ok(());
    }
    let _alone = alone();
    with_one_thread(|| {
        let directory = Directory::new();
        Namespace::shared(&directory.0, GROUP)?;
        let metadata = fs::metadata(&directory.0)?;
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (0, GROUP, 0o2770));
        let (step, owner) = (AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
        let first = fork_as(FIRST, GROUP, || {
            let options = in_group(&directory.0)?;
            let queue: Queue<u64> = options.create("numbers", Capacity::from(4))?;
            let handles: Queue<Value<u64>> = options.create("handles", Capacity::from(4))?;
            let lock: Lock = options.create("lock", ())?;
            let guard = lock.lock()?;
            owner.store(thread_id());
            step.store(1);
            // More than the capacity, so both users wait for each other.
            for number in 0..1000 {
                queue.put(number)?;
            }
            handles.put(options.anonymous(7)?)?;
            wait_for(&step, 2);
            drop(guard);
            wait_for(&step, 3);
            let _guard = lock.lock()?;
            step.store(4);
            wait_for(&step, 9);
            Ok(())
        });
        let second = fork_as(SECOND, GROUP, || {
            wait_for(&step, 1);
            let options = in_group(&directory.0)?;
            let queue: Queue<u64> = options.open("numbers")?;
            for number in 0..1000 {
                assert_eq!(queue.get()?, number);
            }
            let handles: Queue<Value<u64>> = options.open("handles")?;
            let received = handles.get()?;
            received.set(8)?;
            assert_eq!(received.get()?, 8);
            let lock: Lock = options.open("lock")?;
            // A thread of another user counts as alive.
            assert!(lock.try_lock()?.is_none() && !has_ended(owner.load()));
            step.store(2);
            let guard = lock.lock()?;
            assert_eq!(LockGuard::previous_owner_died(&guard), None);
            drop(guard);
            step.store(3);
            wait_for(&step, 4);
            // The first user holds the lock and is killed. The next owner gets it at once, and learns of the
            // death.
            step.store(5);
            let guard = lock.lock()?;
            assert_eq!(
                LockGuard::previous_owner_died(&guard).and_then(|death| death.tid()),
                Some(owner.load())
            );
            assert!(has_ended(owner.load()));
            Ok(())
        });
        wait_for(&step, 5);
        let third = fork_as(THIRD, THIRD, || {
            let path = directory.0.display().to_string();
            let facts = [&*path, "user 0 and group 54321", "mode 2770", "this is user 50003"];
            assert_denied(Namespace::shared(&directory.0, GROUP), &facts);
            assert_denied(Namespace::shared_by(&directory.0, GROUP, FIRST), &facts);
            assert_denied(Namespace::at(&directory.0), &[&*path]);
            assert!(fs::File::open(directory.0.join("lock")).is_err());
            Ok(())
        });
        assert_eq!(third.wait(), 0);
        first.kill();
        assert_eq!(second.wait(), 0);
        // A member can remove what other members have left.
        let sweeper = fork_as(SECOND, GROUP, || {
            let namespace = Namespace::shared(&directory.0, GROUP)?;
            Gc::new().in_flight_age(std::time::Duration::ZERO).run(&namespace)?;
            assert_eq!(fs::read_dir(&directory.0)?.count(), 0);
            Ok(())
        });
        assert_eq!(sweeper.wait(), 0);
        Ok(())
    })
}

#[test]
fn shared_namespace_belongs_to_its_maker() -> Outcome {
    if !is_root() {
        return Ok(());
    }
    let _alone = alone();
    with_one_thread(|| {
        let directory = Directory::new();
        let path = &directory.0;
        let maker = fork_as(FIRST, GROUP, || {
            let namespace = Namespace::shared(path, GROUP)?;
            drop(Options::new().namespace(&namespace).persistent(true).create::<Value<u64>>("kept", 7)?);
            drop(
                Options::new()
                    .namespace(&namespace)
                    .persistent(true)
                    .mode(0o600)
                    .create::<Value<u64>>("mine", 7)?,
            );
            let metadata = fs::metadata(path.join("kept"))?;
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (FIRST, GROUP, 0o660));
            Ok(())
        });
        assert_eq!(maker.wait(), 0);
        let metadata = fs::metadata(path)?;
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (FIRST, GROUP, 0o2770));
        let member = fork_as(SECOND, GROUP, || {
            let shown = path.display().to_string();
            assert_denied(
                Namespace::shared(path, GROUP),
                &[&shown, "user 50001 and group 54321", "mode 2770"],
            );
            assert_denied(Namespace::shared_by(path, GROUP, THIRD), &[&shown, "user 50001"]);
            assert_denied(
                Namespace::shared_by(path, SECOND, FIRST),
                &[&shown, "group 54321", "group 50002 alone"],
            );
            let options = Options::new().namespace(&Namespace::shared_by(path, GROUP, FIRST)?);
            assert_eq!(options.open::<Value<u64>>("kept")?.get()?, 7);
            assert_denied(
                options.open::<Value<u64>>("mine"),
                &["\"mine\"", &shown, "user 50001", "mode 600"],
            );
            assert_denied(options.open_or_create::<Value<u64>>("mine", 7), &["mode 600"]);
            // `open` with a stricter mode than the file's is refused.
            assert_denied(
                options.clone().mode(0o600).open::<Value<u64>>("kept"),
                &["user 50001", "mode 660"],
            );
            Ok(())
        });
        assert_eq!(member.wait(), 0);
        for (mode, group, fact) in
            [(0o664, GROUP, "mode 664"), (0o660, SECOND, "group 50002"), (0o661, GROUP, "mode 661")]
        {
            let file = path.join("kept");
            chown(&file, None, Some(group))?;
            fs::set_permissions(&file, Permissions::from_mode(mode))?;
            let options = Options::new().namespace(&Namespace::shared_by(path, GROUP, FIRST)?);
            assert_denied(
                options.open::<Value<u64>>("kept"),
                &["\"kept\"", &path.display().to_string(), "user 50001", fact],
            );
        }
        for mode in [0o2775, 0o2771, 0o2777] {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
            assert_denied(Namespace::shared_by(path, GROUP, FIRST), &[&format!("mode {mode:o}")]);
        }
        Ok(())
    })
}

#[test]
fn user_outside_of_a_group_cannot_share_with_it() -> Outcome {
    if !is_root() {
        return Ok(());
    }
    let _alone = alone();
    with_one_thread(|| {
        let parent = Directory::new();
        fs::create_dir(&parent.0)?;
        fs::set_permissions(&parent.0, Permissions::from_mode(0o1777))?;
        let path = parent.0.join("team");
        let stranger = fork_as(THIRD, THIRD, || {
            let error = Namespace::shared(&path, GROUP).expect_err("no member");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}\n");
            let missing = Namespace::shared_by(&path, GROUP, THIRD).expect_err("it makes nothing");
            assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}\n");
            Ok(())
        });
        assert_eq!(stranger.wait(), 0);
        assert_eq!(fs::read_dir(&parent.0)?.count(), 0);
        Ok(())
    })
}

#[test]
fn private_namespace_allows_no_other_mode_or_group() -> Outcome {
    let space = Space::new();
    for options in [space.options().mode(0o660), space.options().group(GROUP), space.options().mode(0o644)] {
        for result in
            [options.create::<Value<u64>>("open", 1).map(drop), options.open::<Value<u64>>("open").map(drop)]
        {
            let error = result.expect_err("the directory is private");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("Namespace::shared"), "{error}");
        }
    }
    let value: Value<u64> = space.options().mode(0o600).create("private", 7)?;
    assert_eq!(fs::metadata(space.file("private"))?.mode() & 0o7777, 0o600);
    drop(value);
    Ok(())
}

/// Returns how much of this object this process has mapped, in KiB, and the flags of the mapping.
fn mapped<H: Handle>(handle: &H) -> (u64, String) {
    let here = std::ptr::from_ref::<H::Object>(handle.shared().unwrap()).addr();
    let smaps = fs::read_to_string("/proc/self/smaps").expect("it is there");
    let mut found = (0, String::new());
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
        if let Some((from, to)) = range.and_then(|(from, to)| Some((hex(from)?, hex(to)?))) {
            inside = (from..to).contains(&here);
        } else if inside && line.starts_with("Rss:") {
            found.0 =
                line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        } else if inside && line.starts_with("VmFlags:") {
            line.clone_into(&mut found.1);
        }
    }
    found
}

type Big = Value<[u64; 1 << 12]>;

#[test]
fn prefault_maps_all_memory_at_once() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        let space = Space::new();
        let made: Big = space.options().prefault(true).create("big", [1; 1 << 12])?;
        assert!(mapped(&made).0 >= 64, "{:?}", mapped(&made));
        for prefault in [false, true] {
            let child = fork(How::Libc, || {
                // A forked child's mapping is new, too.
                let path = space.namespace().path().to_owned();
                let found: Big = Options::new()
                    .namespace(&Namespace::at(path).expect("it"))
                    .prefault(prefault)
                    .open("big")
                    .expect("it");
                i32::from((mapped(&found).0 >= 64) != prefault)
            });
            assert_eq!(child.wait(), 0, "{prefault}");
        }
        Ok(())
    })
}

#[test]
fn huge_pages_are_a_hint() -> Outcome {
    let space = Space::new();
    let made: Big = space.options().huge_pages(true).create("big", [1; 1 << 12])?;
    let (resident, flags) = mapped(&made);
    assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
    // Its memory is reserved all the same.
    assert!(resident >= 64 && fs::metadata(space.file("big"))?.blocks() * 512 >= 64 << 10);
    made.set([2; 1 << 12])?;
    assert_eq!(space.options().huge_pages(true).open::<Big>("big")?.get()?, [2; 1 << 12]);
    let small: Value<u8> = space.options().huge_pages(true).prefault(true).anonymous(1)?;
    assert_eq!(small.get()?, 1);
    Ok(())
}

#[test]
fn full_file_system_is_an_error_with_every_option() -> Outcome {
    let _alone = alone();
    let Some(tiny) = crate::across::Tiny::mount() else {
        println!("skipped: no right to mount");
        return Ok(());
    };
    let options = Options::new().namespace(&Namespace::at(tiny.path().join("space"))?);
    for options in [options.clone().prefault(true), options.clone().huge_pages(true), options] {
        let error = options.create::<Value<[u8; 1 << 16]>>("large", [1; 1 << 16]).expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert_eq!(fs::read_dir(tiny.path().join("space"))?.count(), 0);
        options.create::<Value<u8>>("small", 1)?;
    }
    Ok(())
}

#[test]
fn received_handle_of_a_shared_namespace_finds_its_object() -> Outcome {
    if !is_root() {
        return Ok(());
    }
    let _alone = alone();
    let directory = Directory::new();
    let made: Value<u64> = in_group(&directory.0)?.create("known", 7)?;
    let transit = Transit::begin();
    let bytes = postcard::to_stdvec(&made)?;
    transit.sent();
    let again: Value<u64> = postcard::from_bytes(&bytes)?;
    assert!(Shared::is_same(made.shared().unwrap(), again.shared().unwrap()));
    drop((made, again));
    assert!(postcard::from_bytes::<Value<u64>>(&bytes).expect_err("gone").to_string().len() > 1);
    Ok(())
}
