//! Two processes take turns under a named lock; a third is killed while it holds the lock, and no process
//! hangs.
//!
//! `cargo run --example lock`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process, thread,
};

use multiproc::{AtomicValue, Lock, Process, process::Exit, sync::LockGuard};

const EACH: u64 = 10_000;

/// Adds one to the number in a file, many times: reading and writing are two steps, so this needs the lock.
fn count((lock, path): (String, PathBuf)) -> Result<(), String> {
    // A name is enough to find the lock; a handle as an argument would do as well.
    let lock = Lock::open(&lock).map_err(|error| error.to_string())?;
    for _ in 0..EACH {
        let _guard = lock.lock().map_err(|error| error.to_string())?;
        add_one(&path).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn add_one(path: &Path) -> io::Result<()> {
    let number = read(path)? + 1;
    File::options().write(true).open(path)?.write_all(&number.to_le_bytes())
}

fn read(path: &Path) -> io::Result<u64> {
    let mut number = [0; 8];
    File::open(path)?.read_exact(&mut number)?;
    Ok(u64::from_le_bytes(number))
}

/// Takes the lock, sets `holding`, and never gives the lock back.
fn hold((lock, holding): (Lock, AtomicValue<u32>)) {
    let _guard = lock.lock();
    holding.store(1);
    loop {
        thread::park();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let name = format!("example-lock-{}", process::id());
    let lock = Lock::create(&name)?;

    let path = env::temp_dir().join(&name);
    fs::write(&path, 0_u64.to_le_bytes())?;
    let start = |name| Process::spawn(count, (name, path.clone()));
    for counter in [start(name.clone())?, start(name)?] {
        assert!(matches!(counter.join()?, Exit::Value(Ok(()))));
    }
    let number = read(&path)?;
    fs::remove_file(&path)?;
    assert_eq!(number, 2 * EACH);
    println!("two processes counted to {number}");

    let holding = AtomicValue::new(0)?;
    let holder = Process::spawn(hold, (lock.clone(), holding.clone()))?;
    while holding.load() == 0 {
        thread::yield_now();
    }
    println!("{:?} holds the lock; killing it", lock.owner());
    holder.kill()?;
    let guard = lock.lock()?;
    println!("the parent has the lock; previous owner: {:?}", LockGuard::previous_owner_died(&guard));
    assert!(LockGuard::previous_owner_died(&guard).is_some());
    drop(guard);
    assert!(matches!(holder.join()?, Exit::Signal(9)));
    Ok(())
}
