//! Valid names, and the errors for invalid ones.

mod common;

use std::sync::atomic::AtomicU64;

use multiproc_robust::RobustLock;
use multiproc_shm::{AtomicValue, Error, ErrorKind, Handle, Object, Shared, Value};

use common::{Outcome, Space, unique};

/// Invalid names of every kind.
const BAD: [&str; 12] = ["", ".", "..", ".hidden", "a/b", "/a", "../a", "a\0b", "ä", "a b", "a\n", "a*"];

/// The error must say what was tried, on which name, and why it failed.
fn assert_bad<T>(result: Result<T, Error>, verb: &str, name: &str) {
    let Err(error) = result else { panic!("{verb} {name:?} worked") };
    assert_eq!(error.kind(), ErrorKind::BadName, "{verb} {name:?}: {error}");
    let shown = format!("{:?}", name.chars().take(200).collect::<String>());
    assert!(error.to_string().contains(&shown), "{verb}: {error} does not show {shown}");
    assert!(error.to_string().starts_with(verb), "{verb}: {error}");
}

#[test]
fn bad_name_is_refused_by_every_function() {
    let long = "n".repeat(201);
    for name in BAD.into_iter().chain([long.as_str()]) {
        assert_bad(Value::<u64>::create(name, 1), "create", name);
        assert_bad(Value::<u64>::open(name), "open", name);
        assert_bad(Value::<u64>::open_or_create(name, 1), "open", name);
        assert_bad(Value::<u64>::unlink(name), "unlink", name);
        assert_bad(AtomicValue::<u64>::create(name, 1), "create", name);
        assert_bad(AtomicValue::<u64>::open(name), "open", name);
        assert_bad(AtomicValue::<u64>::open_or_create(name, 1), "open", name);
        assert_bad(AtomicValue::<u64>::unlink(name), "unlink", name);
    }
}

#[test]
fn longest_and_unusual_names_are_valid() -> Outcome {
    let space = Space::new();
    for name in ["a", "-", "_", "A.b-c_9", "x.", "0", "--help", &"n".repeat(200)] {
        let made: Value<u64> = space.options().create(name, 5)?;
        assert_eq!((made.name(), made.get()?), (Some(name), 5));
        assert_eq!(space.entries(), [name]);
        drop(made);
        assert!(space.entries().is_empty(), "{name}");
    }
    Ok(())
}

#[test]
fn names_differ_by_case() -> Outcome {
    let space = Space::new();
    let small: Value<u64> = space.options().create("name", 1)?;
    let large: Value<u64> = space.options().create("NAME", 2)?;
    assert_eq!((small.get()?, large.get()?), (1, 2));
    Ok(())
}

#[test]
fn create_of_a_name_in_use_is_an_error() -> Outcome {
    let name = unique("existing");
    let first = Value::create(&name, 1_u64)?;
    let error = Value::create(&name, 2_u64).expect_err("it is in use");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.to_string(), format!("create value {name:?}: already exists"));
    // Also for an object of another kind.
    let error = AtomicValue::create(&name, 2_u8).expect_err("it is in use");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(first.get()?, 1);
    Ok(())
}

#[test]
fn open_and_unlink_of_a_missing_name_are_errors() {
    let name = unique("missing");
    let error = Value::<u64>::open(&name).expect_err("there is no such object");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), format!("open value {name:?}: no such object"));
    assert_eq!(Value::<u64>::unlink(&name).expect_err("there is no such object").kind(), ErrorKind::NotFound);
}

#[test]
fn open_or_create_finds_or_makes() -> Outcome {
    let name = unique("either");
    let made = Value::open_or_create(&name, 1_u64)?;
    let found = Value::open_or_create(&name, 2_u64)?;
    made.set(7)?;
    assert_eq!(found.get()?, 7);
    drop((made, found));
    assert_eq!(Value::open_or_create(&name, 3_u64)?.get()?, 3);
    Ok(())
}

#[test]
fn error_of_a_wrong_kind_names_both_kinds() -> Outcome {
    let name = unique("kind");
    let _value = Value::create(&name, 1_u64)?;
    for error in
        [AtomicValue::<u64>::open(&name).map(drop), AtomicValue::open_or_create(&name, 1_u64).map(drop)]
    {
        let error = error.expect_err("it is a value");
        assert_eq!(error.kind(), ErrorKind::WrongKind);
        assert_eq!(
            error.to_string(),
            format!("open atomic value {name:?}: is of another kind: it is a value")
        );
    }
    Ok(())
}

/// A type with the size of a `u64`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct Millimetres(u64);

#[test]
fn error_of_a_wrong_element_names_both_types() -> Outcome {
    let name = unique("element");
    let _value = Value::create(&name, 1_u32)?;
    let results = [
        (Value::<u64>::open(&name).map(drop), "u64 (8 bytes, aligned to 8)"),
        (Value::<i32>::open(&name).map(drop), "i32 (4 bytes, aligned to 4)"),
        (Value::<f32>::open_or_create(&name, 1.0).map(drop), "f32 (4 bytes, aligned to 4)"),
        (Value::<[u32; 1]>::open(&name).map(drop), "[u32; 1] (4 bytes, aligned to 4)"),
        (Value::<Millimetres>::open(&name).map(drop), "names::Millimetres (8 bytes, aligned to 8)"),
    ];
    for (result, wanted) in results {
        let error = result.expect_err("it is a u32");
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        let detail =
            format!("was made with other parameters: it holds u32 (4 bytes, aligned to 4), not {wanted}");
        assert!(error.to_string().ends_with(&detail), "{error}");
    }
    Ok(())
}

/// An object with two sizes that its maker chooses.
#[repr(C)]
struct Sized2 {
    word: AtomicU64,
}

// SAFETY: one atomic word, behind it as many bytes as its extents say, no locks.
#[allow(unsafe_code, reason = "the promise of an object's layout")]
unsafe impl Object for Sized2 {
    const KIND: &'static str = "test sizes";
    const LAYOUT: u32 = 3;
    type Params = [u64; 2];

    fn extents(params: &[u64; 2]) -> Result<[u64; 2], String> {
        if params[0] == 0 { Err("the first size is zero".to_owned()) } else { Ok(*params) }
    }

    fn size([first, second]: [u64; 2]) -> Option<usize> {
        size_of::<Self>().checked_add(usize::try_from(first.checked_mul(second)?).ok()?)
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }
}

struct SizedHandle(Shared<Sized2>);

impl Handle for SizedHandle {
    type Object = Sized2;

    fn from_shared(shared: Shared<Sized2>) -> Self {
        Self(shared)
    }

    fn shared(&self) -> Option<&Shared<Sized2>> {
        Some(&self.0)
    }
}

#[test]
fn error_of_wrong_sizes_names_both() -> Outcome {
    let space = Space::new();
    let made: SizedHandle = space.options().create("sized", [8, 4])?;
    let Err(error) = space.options().open_or_create::<SizedHandle>("sized", [8, 5]) else {
        panic!("other sizes worked")
    };
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().ends_with("its sizes are [8, 4], not [8, 5]"), "{error}");
    // `open` accepts any sizes.
    let found: SizedHandle = space.options().open("sized")?;
    assert_eq!((found.0.extents(), found.0.bytes()), ([8, 4], 40));
    assert!(found.0.is_same(&made.0));
    Ok(())
}

#[test]
fn invalid_sizes_make_nothing() {
    let space = Space::new();
    for (sizes, problem) in [
        ([0, 1], "the first size is zero"),
        ([u64::MAX, 2], "are too large"),
        ([1 << 40, 1 << 40], "are too large"),
        ([1 << 46, 1], "are too large"),
        ([u64::MAX - 8, 1], "are too large"),
    ] {
        let Err(error) = space.options().create::<SizedHandle>("sized", sizes) else {
            panic!("{sizes:?} worked")
        };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(problem), "{error}");
        let Err(error) = space.options().anonymous::<SizedHandle>(sizes) else { panic!("{sizes:?} worked") };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    // A possible size, but too large for this machine.
    let Err(error) = space.options().create::<SizedHandle>("sized", [1 << 45, 1]) else {
        panic!("32 TiB worked")
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(space.entries().is_empty());
}

#[test]
fn anonymous_objects_cannot_be_found() -> Outcome {
    let space = Space::new();
    let first: Value<u64> = space.options().anonymous(1)?;
    let second: Value<u64> = space.options().anonymous(2)?;
    assert_eq!((first.name(), second.name()), (None, None));
    let entries = space.entries();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert!(entry.starts_with(".a-") && entry.len() == 35, "{entry}");
        assert_eq!(
            space.options().open::<Value<u64>>(&entry).expect_err("a leading dot").kind(),
            ErrorKind::BadName
        );
    }
    drop((first, second));
    assert!(space.entries().is_empty());
    Ok(())
}
