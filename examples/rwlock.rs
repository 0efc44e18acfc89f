//! Several readers and now and then a writer; a reader and a writer are killed at work.
//!
//! `cargo run --example rwlock`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{AtomicArray, AtomicValue, Process, RwLock, WriteGuard, process::Exit};

type Table = (RwLock, AtomicArray<u64>, AtomicValue<u64>);

/// A reader: under the lock, both columns are always equal.
fn look((lock, columns, looks): Table) -> Result<(), String> {
    for _ in 0..2_000 {
        let _guard = lock.read().map_err(|error| error.to_string())?;
        if columns.load(0).ok() != columns.load(1).ok() {
            return Err("half changed".into());
        }
        looks.fetch_add(1);
    }
    Ok(())
}

/// A writer: makes half of its change, and waits to be killed.
fn begin((lock, columns, looks): Table) {
    let _guard = lock.write();
    let _ = columns.fetch_add(0, 1);
    looks.store(u64::MAX);
    loop {
        std::thread::park();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let table: Table = (RwLock::new()?, AtomicArray::new(2)?, AtomicValue::new(0)?);
    let (lock, columns, looks) = &table;

    let readers = [Process::spawn(look, table.clone())?, Process::spawn(look, table.clone())?];
    let victim = Process::spawn(look, table.clone())?;
    for _ in 0..100 {
        let _guard = lock.write()?;
        columns.fetch_add(0, 1)?;
        columns.fetch_add(1, 1)?;
    }
    victim.kill()?; // at any point: a dead reader holds nothing
    victim.join()?;
    for reader in readers {
        assert!(matches!(reader.join()?, Exit::Value(Ok(()))));
    }
    println!("{} looks, {} changes", looks.load(), columns.load(0)?);

    // A writer dies in the middle. The next guard says so, and its owner repairs the table.
    let writer = Process::spawn(begin, table.clone())?;
    while looks.load() != u64::MAX {
        std::thread::yield_now();
    }
    writer.kill()?;
    writer.join()?;
    let guard = lock.write()?;
    assert_eq!(WriteGuard::previous_owner_died(&guard).and_then(multiproc::Death::pid), Some(writer.pid()));
    columns.store(1, columns.load(0)?)?;
    drop(guard);
    assert!(WriteGuard::previous_owner_died(&lock.write()?).is_none());
    Ok(())
}
