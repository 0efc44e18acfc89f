//! Files in a namespace that are no valid objects. Each is an error of its kind. Opening one follows no link,
//! never hangs, and destroys nothing.
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

mod common;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use multiproc_shm::{AtomicValue, Error, ErrorKind, Gc, Namespace, Value};

use common::{Outcome, Space, watchdog};

const HEADER: u64 = 1024;

/// Makes a persistent value that no process has open: a valid file, to be damaged.
fn persistent(space: &Space, name: &str) -> Result<File, Error> {
    drop(space.options().persistent(true).create::<Value<u64>>(name, 7)?);
    Ok(OpenOptions::new().read(true).write(true).open(space.file(name)).expect("the file"))
}

fn open(space: &Space, name: &str) -> Result<u64, Error> {
    space.options().open::<Value<u64>>(name).map(|value| value.get().expect("its lock is free"))
}

/// Writes a file of mode 0600, as objects have.
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("to write");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("to change the mode");
}

/// Checks that every function refuses the file and leaves it unchanged.
fn assert_refused(space: &Space, name: &str, kind: ErrorKind) {
    let before = fs::symlink_metadata(space.file(name)).expect("it is there");
    for (function, error) in [
        ("open", space.options().open::<Value<u64>>(name).err()),
        ("open_or_create", space.options().open_or_create::<Value<u64>>(name, 1).err()),
        ("open as another kind", space.options().open::<AtomicValue<u64>>(name).err()),
    ] {
        let error = error.unwrap_or_else(|| panic!("{function} worked"));
        assert_eq!(error.kind(), kind, "{function}: {error}");
        assert!(error.to_string().contains(&format!("{name:?}")), "{function}: {error}");
    }
    let error = space.options().create::<Value<u64>>(name, 1).expect_err("create");
    assert!([ErrorKind::AlreadyExists, kind].contains(&error.kind()), "create: {error}");
    let after = fs::symlink_metadata(space.file(name)).expect("it is still there");
    assert_eq!((before.ino(), before.len(), before.mode()), (after.ino(), after.len(), after.mode()));
    // The sweep keeps what it does not know.
    let swept = Gc::new().in_flight_age(std::time::Duration::ZERO).run(space.namespace()).expect("a sweep");
    assert_eq!(swept.removed, [""; 0]);
}

#[test]
fn valid_persistent_file_opens() -> Outcome {
    let space = Space::new();
    persistent(&space, "valid")?;
    assert_eq!(open(&space, "valid")?, 7);
    Ok(())
}

#[test]
fn other_header_format_is_wrong_version() -> Outcome {
    let space = Space::new();
    persistent(&space, "old")?.write_all_at(&99_u32.to_le_bytes(), 8)?;
    assert_refused(&space, "old", ErrorKind::WrongVersion);
    let error = open(&space, "old").expect_err("another format");
    assert!(error.to_string().ends_with("header format 99, this build reads 1"), "{error}");
    Ok(())
}

#[test]
fn other_layout_is_wrong_version() -> Outcome {
    let space = Space::new();
    persistent(&space, "old")?.write_all_at(&42_u32.to_le_bytes(), 12)?;
    let error = open(&space, "old").expect_err("another layout");
    assert_eq!(error.kind(), ErrorKind::WrongVersion);
    assert!(error.to_string().ends_with("layout version 42, this build reads 1"), "{error}");
    Ok(())
}

#[test]
fn other_pid_namespace_is_refused() -> Outcome {
    let space = Space::new();
    let inode = fs::metadata("/proc/self/ns/pid")?.ino();
    persistent(&space, "far")?.write_all_at(&(inode + 1).to_le_bytes(), 24)?;
    assert_refused(&space, "far", ErrorKind::OtherPidNamespace);
    Ok(())
}

#[test]
fn other_pointer_width_is_wrong_version() -> Outcome {
    let space = Space::new();
    persistent(&space, "narrow")?.write_all_at(&4_u64.to_le_bytes(), 112)?;
    assert_refused(&space, "narrow", ErrorKind::WrongVersion);
    Ok(())
}

#[test]
fn truncated_file_is_corrupt() -> Outcome {
    let space = Space::new();
    let file = persistent(&space, "cut")?;
    let whole = file.metadata()?.len();
    let mut lengths: Vec<u64> = (0..whole).step_by(13).chain([1, 8, HEADER - 1, HEADER, whole - 1]).collect();
    lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
    for length in lengths {
        file.set_len(length)?;
        assert_refused(&space, "cut", ErrorKind::Corrupt);
    }
    Ok(())
}

#[test]
fn longer_file_is_corrupt() -> Outcome {
    let space = Space::new();
    let file = persistent(&space, "long")?;
    let whole = file.metadata()?.len();
    for length in [whole + 1, whole + 4096, 1 << 30] {
        file.set_len(length)?;
        assert_refused(&space, "long", ErrorKind::Corrupt);
    }
    Ok(())
}

#[test]
fn wrong_length_in_the_header_is_corrupt() -> Outcome {
    let space = Space::new();
    let file = persistent(&space, "lengths")?;
    let whole = file.metadata()?.len();
    // The length of the object, or its first extent: too large for the file, or wrong.
    for (offset, right) in [(40, whole - HEADER), (48, 8)] {
        for wrong in [
            0,
            1,
            right - 1,
            right + 1,
            whole,
            u64::MAX,
            u64::MAX - HEADER,
            u64::MAX - HEADER + 1,
            1 << 46,
            1 << 63,
        ] {
            file.write_all_at(&wrong.to_le_bytes(), offset)?;
            assert_eq!(
                open(&space, "lengths").expect_err("it is wrong").kind(),
                ErrorKind::Corrupt,
                "{wrong} at {offset}"
            );
        }
        file.write_all_at(&right.to_le_bytes(), offset)?;
    }
    assert_eq!(open(&space, "lengths")?, 7);
    Ok(())
}

#[test]
fn every_flipped_byte_of_the_header_is_an_error_of_its_kind() -> Outcome {
    let space = Space::new();
    for offset in 0..HEADER {
        let file = persistent(&space, "flipped")?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[!byte[0]], offset)?;
        match (offset, open(&space, "flipped").map_err(|error| error.kind())) {
            // Magic number; lengths and extents.
            (0..8 | 32..64, Err(ErrorKind::Corrupt)) => {}
            (8..16 | 20..24 | 112..120, Err(ErrorKind::WrongVersion)) => {}
            // It says that the object lives in two other places. The higher flags mean nothing.
            (16, Err(ErrorKind::Corrupt)) => {}
            (17..20, Ok(7)) => {}
            (24..32, Err(ErrorKind::OtherPidNamespace)) => {}
            (64..80 | 128..256, Err(ErrorKind::Mismatch)) => {}
            (96..112, Err(ErrorKind::WrongKind)) => {}
            // Generation, in-flight references, reserved bytes.
            (80..96 | 120..128 | 256..1024, Ok(7)) => {}
            (_, result) => panic!("byte {offset}: {result:?}"),
        }
        let _ = fs::remove_file(space.file("flipped"));
    }
    Ok(())
}

#[test]
fn garbage_of_every_length_is_corrupt() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    let path = space.file("garbage");
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(2000)
    .collect();
    for length in 0..2000 {
        write(&path, &noise[..length]);
        assert_eq!(open(&space, "garbage").expect_err("noise").kind(), ErrorKind::Corrupt, "{length} bytes");
    }
    assert_refused(&space, "garbage", ErrorKind::Corrupt);
    write(&path, &[0; 1216]);
    assert_refused(&space, "garbage", ErrorKind::Corrupt);
    write(&path, &[0xff; 1216]);
    assert_refused(&space, "garbage", ErrorKind::Corrupt);
    // It can be removed.
    space.options().unlink("garbage")?;
    assert_eq!(space.options().create::<Value<u64>>("garbage", 3)?.get()?, 3);
    Ok(())
}

#[test]
fn magic_number_alone_is_no_object() {
    let space = Space::new();
    // Alone, in a header of zeros, in a file of the right length.
    for length in [8, 1023, 1024, 1216] {
        let mut bytes = vec![0; length];
        bytes[..8].copy_from_slice(b"multiprc");
        write(&space.file("magic"), &bytes);
        let kind = open(&space, "magic").expect_err("only a magic number").kind();
        // With a complete header it is an object of another version. No process uses it, so it is a leftover.
        let wanted = if length < 1024 { ErrorKind::Corrupt } else { ErrorKind::NotFound };
        assert_eq!(kind, wanted, "{length} bytes");
    }
}

#[test]
fn fifo_is_refused() {
    let _watchdog = watchdog();
    let space = Space::new();
    let path = CString::new(space.file("fifo").as_os_str().as_encoded_bytes()).expect("a path");
    #[allow(unsafe_code, reason = "std makes no FIFOs")]
    // SAFETY: a C string.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0);
    assert_refused(&space, "fifo", ErrorKind::Corrupt);
}

#[test]
fn socket_is_refused() -> Outcome {
    let space = Space::new();
    let _listener = UnixListener::bind(space.file("socket"))?;
    fs::set_permissions(space.file("socket"), Permissions::from_mode(0o600))?;
    assert_refused(&space, "socket", ErrorKind::Corrupt);
    Ok(())
}

#[test]
fn directory_is_refused() -> Outcome {
    let space = Space::new();
    fs::create_dir(space.file("directory"))?;
    assert_refused(&space, "directory", ErrorKind::Corrupt);
    assert!(space.options().unlink("directory").is_err());
    Ok(())
}

#[test]
fn symbolic_link_is_not_followed() -> Outcome {
    let space = Space::new();
    persistent(&space, "target")?;
    symlink(space.file("target"), space.file("link"))?;
    assert_refused(&space, "link", ErrorKind::Denied);
    // If its target is missing, nothing is made there.
    symlink(space.file("nowhere"), space.file("dangling"))?;
    assert_refused(&space, "dangling", ErrorKind::Denied);
    assert_eq!(space.entries(), ["dangling", "link", "target"]);
    // `unlink` removes the link.
    space.options().unlink("link")?;
    assert_eq!(open(&space, "target")?, 7);
    Ok(())
}

#[test]
fn hard_link_is_corrupt() -> Outcome {
    let space = Space::new();
    persistent(&space, "one")?;
    fs::hard_link(space.file("one"), space.file("two"))?;
    assert_refused(&space, "one", ErrorKind::Corrupt);
    assert_refused(&space, "two", ErrorKind::Corrupt);
    fs::remove_file(space.file("two"))?;
    assert_eq!(open(&space, "one")?, 7);
    Ok(())
}

#[test]
fn file_open_to_others_is_denied() -> Outcome {
    let space = Space::new();
    let file = persistent(&space, "open")?;
    for mode in [0o666, 0o660, 0o640, 0o606, 0o601] {
        file.set_permissions(Permissions::from_mode(mode))?;
        assert_refused(&space, "open", ErrorKind::Denied);
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    assert_eq!(open(&space, "open")?, 7);
    Ok(())
}

#[test]
fn files_are_made_0600_in_a_directory_0700() -> Outcome {
    let space = Space::new();
    let _value: Value<u64> = space.options().create("mine", 1)?;
    assert_eq!(fs::metadata(space.file("mine"))?.mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(space.namespace().path())?.mode() & 0o7777, 0o700);
    Ok(())
}

#[test]
fn namespace_of_a_wrong_mode_is_denied() -> Outcome {
    let space = Space::new();
    for mode in [0o777, 0o755, 0o750, 0o701, 0o710, 0o1777] {
        fs::set_permissions(space.namespace().path(), Permissions::from_mode(mode))?;
        let error = Namespace::at(space.namespace().path()).expect_err("others could reach it");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains(&format!("its mode is {mode:o}")), "{error}");
    }
    fs::set_permissions(space.namespace().path(), Permissions::from_mode(0o700))?;
    Ok(())
}

#[test]
fn namespace_of_another_user_is_denied() -> Outcome {
    let space = Space::new();
    if std::os::unix::fs::chown(space.namespace().path(), Some(12345), None).is_err() {
        println!("skipped: only root can change the owner of a directory");
        return Ok(());
    }
    let error = Namespace::at(space.namespace().path()).expect_err("it belongs to another user");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("belongs to user 12345"), "{error}");
    Ok(())
}

#[test]
fn namespace_behind_a_symbolic_link_is_denied() -> Outcome {
    let space = Space::new();
    fs::create_dir(space.file("real"))?;
    fs::set_permissions(space.file("real"), Permissions::from_mode(0o700))?;
    symlink(space.file("real"), space.file("link"))?;
    let error = Namespace::at(space.file("link")).expect_err("a symbolic link");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    Ok(())
}

#[test]
fn namespace_that_is_no_directory_is_an_error() -> Outcome {
    let space = Space::new();
    write(&space.file("file"), b"");
    let error = Namespace::at(space.file("file")).expect_err("a file");
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(Namespace::at(space.file("no/parent")).expect_err("no parent").kind(), ErrorKind::NotFound);
    assert!(Namespace::at("a\0b").is_err());
    Ok(())
}
