//! Blocks of bytes: every offset and length, lifetimes, and blocks that other programs made.

use std::fs;
use std::path::PathBuf;

use multiproc::shm::{Gc, Namespace};
use multiproc::{AtomicValue, Error, ErrorKind, Options, Queue, SharedMemory, Value};

use crate::common::{Dice, How, Outcome, Space, alone, fork, kill, spawn, unique, value, wait_for};

/// Returns the error's kind, and checks that it names the object.
fn refused<T>(result: Result<T, Error>, object: &str) -> ErrorKind {
    let error = result.err().expect("an error");
    assert!(error.to_string().contains(object), "{error}");
    error.kind()
}

#[test]
fn block_is_made_found_and_written() -> Outcome {
    let _alone = alone();
    let name = unique("block");
    let block = SharedMemory::create(&name, 100)?;
    assert_eq!((block.len(), block.is_empty(), block.name()), (100, false, Some(&*name)));
    assert_eq!(block.to_vec(), [0; 100]);
    assert_eq!(block.as_ptr().align_offset(64), 0);
    assert_eq!(block.as_ptr(), block.as_mut_ptr().cast_const());
    block.write_at(3, b"howdy")?;
    let same = SharedMemory::open(&name)?;
    let mut bytes = [9; 7];
    same.read_at(2, &mut bytes)?;
    assert_eq!(&bytes, b"\0howdy\0");
    assert_eq!(format!("{same:?}"), format!("SharedMemory {{ object: memory {name:?}, bytes: 100 }}"));
    assert_eq!(SharedMemory::new(1)?.name(), None);
    Ok(())
}

#[test]
fn writes_at_every_offset_and_length_come_back() -> Outcome {
    let block = SharedMemory::new(43)?;
    let mut model = block.to_vec();
    let mut dice = Dice::new(1);
    for offset in 0..=43 {
        for length in 0..=43 - offset {
            let bytes: Vec<u8> = (0..length).map(|_| dice.next().to_le_bytes()[3]).collect();
            block.write_at(offset, &bytes)?;
            model[offset..offset + length].copy_from_slice(&bytes);
            assert_eq!(block.to_vec(), model, "{length} at {offset}");
            let mut back = vec![0xee; length];
            block.read_at(offset, &mut back)?;
            assert_eq!(back, bytes, "{length} at {offset}");
        }
    }
    Ok(())
}

#[test]
fn long_writes_at_any_offset_come_back() -> Outcome {
    let block = SharedMemory::new(100_003)?;
    let mut model = block.to_vec();
    let mut dice = Dice::new(2);
    for _ in 0..200 {
        let offset = usize::try_from(dice.below(100_004))?;
        let length = usize::try_from(dice.below(100_004 - offset as u64))?;
        let byte = dice.next().to_le_bytes()[3];
        let bytes: Vec<u8> = (0..length).map(|at| byte.wrapping_add(at.to_le_bytes()[0])).collect();
        block.write_at(offset, &bytes)?;
        model[offset..offset + length].copy_from_slice(&bytes);
        assert!(block.to_vec() == model, "{length} at {offset}");
    }
    Ok(())
}

#[test]
fn outside_is_an_error_and_changes_nothing() -> Outcome {
    let _alone = alone();
    let name = unique("outside");
    let block = SharedMemory::create(&name, 16)?;
    block.write_at(0, &[7; 16])?;
    for (offset, length) in
        [(0, 17), (16, 1), (10, 7), (17, 0), (usize::MAX, 1), (usize::MAX - 2, 8), (usize::MAX, 0)]
    {
        let mut bytes = vec![5; length];
        assert_eq!(
            refused(block.write_at(offset, &bytes), &name),
            ErrorKind::Invalid,
            "{length} at {offset}"
        );
        assert_eq!(
            refused(block.read_at(offset, &mut bytes), &name),
            ErrorKind::Invalid,
            "{length} at {offset}"
        );
        assert_eq!(bytes, vec![5; length]);
        assert_eq!(block.to_vec(), [7; 16]);
    }
    // No bytes, at the end of the block.
    block.write_at(16, &[])?;
    block.read_at(16, &mut [])?;
    Ok(())
}

#[test]
fn constructors_make_and_find_by_name() -> Outcome {
    let _alone = alone();
    let name = unique("verbs");
    assert_eq!(refused(SharedMemory::open(&name), &name), ErrorKind::NotFound);
    let block = SharedMemory::open_or_create(&name, 10)?;
    assert_eq!(SharedMemory::open_or_create(&name, 10)?.len(), 10);
    // 11 bytes would take as many words, and as long a file.
    assert_eq!(refused(SharedMemory::open_or_create(&name, 11), &name), ErrorKind::Mismatch);
    assert_eq!(refused(SharedMemory::create(&name, 10), &name), ErrorKind::AlreadyExists);
    assert_eq!(refused(Value::<u64>::open(&name), &name), ErrorKind::WrongKind);
    SharedMemory::unlink(&name)?;
    assert_eq!(refused(SharedMemory::unlink(&name), &name), ErrorKind::NotFound);
    block.write_at(0, b"stays")?;
    let newer = SharedMemory::create(&name, 20)?;
    assert_eq!((newer.to_vec(), &block.to_vec()[..5]), (vec![0; 20], &b"stays"[..]));
    Ok(())
}

#[test]
fn impossible_size_is_an_error() {
    for bytes in [0, usize::MAX, usize::MAX - 7, 1 << 60] {
        let error = SharedMemory::new(bytes).expect_err("no such block");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[test]
fn persistent_block_keeps_its_bytes() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let block: SharedMemory = space.options().persistent(true).create("kept", 4)?;
    block.write_at(0, b"kept")?;
    drop(block);
    assert_eq!(space.options().open::<SharedMemory>("kept")?.to_vec(), b"kept");
    space.options().unlink("kept")?;
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn handle_can_be_sent_through_a_queue() -> Outcome {
    fn child(queue: Queue<Option<SharedMemory>>) -> u64 {
        let mut sum = 0;
        while let Ok(Some(block)) = queue.get() {
            sum += block.to_vec().iter().copied().map(u64::from).sum::<u64>();
        }
        sum
    }
    let _alone = alone();
    let queue = Queue::new(4)?;
    let child = spawn(child, queue.clone());
    for number in 1..=50_u8 {
        let block = SharedMemory::new(usize::from(number))?;
        block.write_at(0, &vec![1; usize::from(number)])?;
        // Dropped here at once: only the message keeps it.
        queue.put(Some(block))?;
    }
    queue.put(None)?;
    assert_eq!(value(&child), 50 * 51 / 2);
    Ok(())
}

#[test]
fn writers_of_one_word_leave_each_others_bytes() -> Outcome {
    const ROUNDS: u32 = 20_000;
    fn child((block, at, ready): (SharedMemory, usize, AtomicValue<u32>)) -> Result<(), String> {
        ready.fetch_add(1);
        wait_for(&ready, 4);
        let mut bytes = [0; 3];
        for round in 0..ROUNDS {
            let mine = [round.to_le_bytes()[0]; 3];
            block.write_at(at, &mine).map_err(|error| error.to_string())?;
            block.read_at(at, &mut bytes).map_err(|error| error.to_string())?;
            if bytes != mine {
                return Err(format!("{bytes:?} instead of {mine:?} at {at}"));
            }
        }
        Ok(())
    }
    let _alone = alone();
    // Runs of three bytes: inside a word, and across its end.
    let (block, ready) = (SharedMemory::new(12)?, AtomicValue::new(0_u32)?);
    let children: Vec<_> =
        (0..4).map(|which| spawn(child, (block.clone(), 3 * which, ready.clone()))).collect();
    children.iter().try_for_each(value)?;
    assert_eq!(block.to_vec(), [(ROUNDS - 1).to_le_bytes()[0]; 12]);
    Ok(())
}

#[test]
fn killed_writer_leaves_the_bytes_it_had_written() -> Outcome {
    const ROUNDS: u64 = 100;
    const BYTES: usize = 10_000;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let block = SharedMemory::new(BYTES)?;
    for _ in 0..ROUNDS {
        let go = AtomicValue::new(0_u32)?;
        block.write_at(0, &[0xee; BYTES])?;
        let writer = fork(How::Libc, || {
            for byte in (0..=0x7f_u8).cycle() {
                block.write_at(13, &[byte; BYTES - 26]).expect("inside");
                go.store(1);
            }
            1
        });
        wait_for(&go, 1);
        (0..dice.below(20_000)).for_each(|_| std::hint::spin_loop());
        writer.kill();
        let bytes = block.to_vec();
        assert!(
            bytes[..13].iter().chain(&bytes[BYTES - 13..]).all(|byte| *byte == 0xee),
            "bytes beside the written ones"
        );
        assert!(bytes[13..BYTES - 13].iter().all(|byte| *byte < 0x80), "never written");
        // At most one write had begun and not ended.
        let changes = bytes[13..BYTES - 13].windows(2).filter(|pair| pair[0] != pair[1]).count();
        println!("{changes} changes of the byte");
    }
    Ok(())
}

#[test]
fn killed_user_leaves_no_block() -> Outcome {
    fn child((directory, step): (PathBuf, AtomicValue<u32>)) {
        let namespace = Namespace::at(directory).expect("the parent's");
        let _made: SharedMemory = Options::new().namespace(&namespace).create("left", 1000).expect("a block");
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let space = Space::new();
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (space.namespace().path().to_owned(), step.clone()));
    wait_for(&step, 1);
    kill(&child);
    assert_eq!(refused(space.options().open::<SharedMemory>("left"), "left"), ErrorKind::NotFound);
    assert_eq!(Gc::new().run(space.namespace())?.removed, [""; 0]);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

/// A block as C and Python make it: a file in the shared memory file system. Dropping it removes the file.
struct Foreign(String);

impl Foreign {
    fn new(bytes: &[u8]) -> Self {
        let made = Self(unique("os"));
        fs::write(made.path(), bytes).expect("a file");
        made
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.0)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

#[test]
fn block_of_another_program_can_be_read_and_written() -> Outcome {
    let _alone = alone();
    let foreign = Foreign::new(b"theirs, and thirteen more");
    for id in [foreign.0.clone(), format!("/{}", foreign.0)] {
        let block = SharedMemory::attach_os(&id)?;
        assert_eq!((block.len(), block.name()), (25, Some(&*foreign.0)));
        assert_eq!(block.to_vec(), b"theirs, and thirteen more");
        // The last byte shares its word with bytes behind the end.
        block.write_at(24, b"E")?;
        assert_eq!(refused(block.write_at(24, b"E!"), &foreign.0), ErrorKind::Invalid);
        assert_eq!(fs::read(foreign.path())?, b"theirs, and thirteen morE");
        block.write_at(24, b"e")?;
        let copy = block.clone();
        drop(block);
        assert_eq!(copy.len(), 25);
        assert_eq!(
            format!("{copy:?}"),
            format!("SharedMemory {{ object: OS memory {:?}, bytes: 25 }}", foreign.0)
        );
    }
    // Two handles were dropped, and the block is still there.
    assert_eq!(fs::read(foreign.path())?, b"theirs, and thirteen more");
    Ok(())
}

#[test]
fn block_of_another_program_is_sent_by_its_name() -> Outcome {
    fn child(block: SharedMemory) -> SharedMemory {
        block.write_at(0, b"child").expect("inside");
        block
    }
    let _alone = alone();
    let foreign = Foreign::new(&[0; 8]);
    let back = value(&spawn(child, SharedMemory::attach_os(&foreign.0)?));
    assert_eq!(back.to_vec(), b"child\0\0\0");
    let bytes = postcard::to_stdvec(&back)?;
    assert_eq!(postcard::from_bytes::<SharedMemory>(&bytes)?.to_vec(), b"child\0\0\0");
    drop((back, foreign));
    assert!(postcard::from_bytes::<SharedMemory>(&bytes).is_err());
    Ok(())
}

#[test]
fn block_of_another_program_survives_killed_users() -> Outcome {
    let _alone = alone();
    let foreign = Foreign::new(&[0; 8]);
    let step = AtomicValue::new(0_u32)?;
    let user = fork(How::Libc, || {
        let block = SharedMemory::attach_os(&foreign.0).expect("it is there");
        block.write_at(0, b"user").expect("inside");
        step.store(1);
        wait_for(&step, u32::MAX);
        0
    });
    wait_for(&step, 1);
    user.kill();
    Gc::new().run(&Namespace::current()?)?;
    assert_eq!(fs::read(foreign.path())?, b"user\0\0\0\0");
    Ok(())
}

#[test]
fn attach_os_refuses_what_is_no_block() -> Outcome {
    let _alone = alone();
    for bad in ["", "/", ".", "..", "/..", "a/b", "/a/b", "//a", "a\0b", "multiproc-0/x", &"n".repeat(256)] {
        let error = SharedMemory::attach_os(bad).expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::BadName, "{error}");
    }
    let missing = unique("missing");
    assert_eq!(refused(SharedMemory::attach_os(&missing), &missing), ErrorKind::NotFound);
    let empty = Foreign::new(b"");
    assert_eq!(refused(SharedMemory::attach_os(&empty.0), &empty.0), ErrorKind::Invalid);
    let space = Space::new();
    let directory =
        space.namespace().path().file_name().and_then(|name| name.to_str()).expect("it has a name");
    assert_eq!(refused(SharedMemory::attach_os(directory), directory), ErrorKind::Invalid);
    let link = Foreign(unique("link"));
    std::os::unix::fs::symlink(empty.path(), link.path())?;
    assert_eq!(refused(SharedMemory::attach_os(&link.0), &link.0), ErrorKind::Denied);
    Ok(())
}

#[test]
fn reading_a_truncated_block_of_another_program_is_sigbus() -> Outcome {
    let _alone = alone();
    let foreign = Foreign::new(&[1; 10_000]);
    let step = AtomicValue::new(0_u32)?;
    let reader = fork(How::Libc, || {
        let block = SharedMemory::attach_os(&foreign.0).expect("it is there");
        step.store(1);
        wait_for(&step, 2);
        // The rest can still be read.
        let mut byte = [0];
        let first = block.read_at(0, &mut byte).is_ok_and(|()| byte == [1]);
        step.store(if first { 3 } else { 4 });
        block.to_vec().len().try_into().unwrap_or(1)
    });
    wait_for(&step, 1);
    fs::OpenOptions::new().write(true).open(foreign.path())?.set_len(1)?;
    step.store(2);
    assert_eq!((reader.wait(), step.load()), (-libc::SIGBUS, 3));
    Ok(())
}
