//! A function that needs a lock calls a function that needs the same lock; a process is killed two levels
//! deep, and no process hangs.
//!
//! `cargo run --example rlock`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{error::Error, thread};

use multiproc::{AtomicValue, LockError, Process, RLock, RLockGuard, process::Exit};

/// A sum and how many numbers are in it; every change changes both.
type Sum = (AtomicValue<u64>, AtomicValue<u64>);

fn add(lock: &RLock, sum: &Sum, number: u64) -> Result<(), LockError> {
    let _guard = lock.lock()?;
    sum.0.fetch_add(number);
    sum.1.fetch_add(1);
    Ok(())
}

fn add_all(lock: &RLock, sum: &Sum, numbers: &[u64]) -> Result<(), LockError> {
    // No other process sees some of them added: `add` takes the lock again and releases that level only.
    let _guard = lock.lock()?;
    numbers.iter().try_for_each(|number| add(lock, sum, *number))
}

fn adder((lock, sum): (RLock, Sum)) -> Result<(), String> {
    (0..1000).try_for_each(|_| add_all(&lock, &sum, &[1, 2, 3])).map_err(|error| error.to_string())
}

/// Takes the lock twice, sets `holding`, and never gives the lock back.
fn hold((lock, holding): (RLock, AtomicValue<u32>)) {
    let _guards = (lock.lock(), lock.lock());
    holding.store(1);
    loop {
        thread::park();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let lock = RLock::new()?;
    let sum = (AtomicValue::new(0)?, AtomicValue::new(0)?);
    let start = || Process::spawn(adder, (lock.clone(), sum.clone()));
    for adder in [start()?, start()?] {
        assert!(matches!(adder.join()?, Exit::Value(Ok(()))));
    }
    assert_eq!((sum.0.load(), sum.1.load()), (12_000, 6_000));
    println!("{} numbers make {}", sum.1.load(), sum.0.load());

    let holding = AtomicValue::new(0)?;
    let holder = Process::spawn(hold, (lock.clone(), holding.clone()))?;
    while holding.load() == 0 {
        thread::yield_now();
    }
    println!("killing {lock:?}");
    holder.kill()?;
    let guard = lock.lock()?;
    let died = RLockGuard::previous_owner_died(&guard);
    println!("the parent has the lock, {} level deep; previous owner: {died:?}", lock.depth());
    assert!(died.is_some());
    drop(guard);
    assert!(matches!(holder.join()?, Exit::Signal(9)));
    Ok(())
}
