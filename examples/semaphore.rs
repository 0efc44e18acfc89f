//! Five processes share two licences; a sixth is killed while it holds both, and both become available again.
//!
//! `cargo run --example semaphore`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{error::Error, thread};

use multiproc::{AtomicValue, Permit, Process, Semaphore, process::Exit};

/// How many processes use a licence at this moment, how many at most, and how often in all.
type Ledger = (AtomicValue<u32>, AtomicValue<u32>, AtomicValue<u32>);

fn work((licences, ledger): (Semaphore, Ledger)) -> Result<(), String> {
    let (users, most, uses) = ledger;
    for _ in 0..200 {
        let _licence = licences.acquire().map_err(|error| error.to_string())?;
        most.fetch_max(users.fetch_add(1) + 1);
        uses.fetch_add(1);
        users.fetch_sub(1);
    }
    Ok(())
}

/// Acquires both, sets `holding`, and never releases them.
fn hold((licences, holding): (Semaphore, AtomicValue<u32>)) {
    let _both = licences.acquire_many(2);
    holding.store(1);
    loop {
        thread::park();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let licences = Semaphore::new(2)?;
    let ledger = (AtomicValue::new(0)?, AtomicValue::new(0)?, AtomicValue::new(0)?);
    let workers = (0..5).map(|_| Process::spawn(work, (licences.clone(), ledger.clone())));
    for worker in workers.collect::<Result<Vec<_>, _>>()? {
        assert!(matches!(worker.join()?, Exit::Value(Ok(()))));
    }
    println!("used {} times, at most {} at a time", ledger.2.load(), ledger.1.load());
    assert!(ledger.2.load() == 1000 && ledger.1.load() <= 2);

    let holding = AtomicValue::new(0)?;
    let holder = Process::spawn(hold, (licences.clone(), holding.clone()))?;
    while holding.load() == 0 {
        thread::yield_now();
    }
    println!("{:?} hold the licences; killing the holder", licences.holders());
    holder.kill()?;
    let licence = licences.acquire()?;
    let died = Permit::previous_owner_died(&licence);
    println!("the parent has licence {}; previous owner: {died:?}", Permit::number(&licence));
    assert!(died.is_some());
    assert!(matches!(holder.join()?, Exit::Signal(9)));
    assert_eq!(licences.available(), 1);
    Ok(())
}
