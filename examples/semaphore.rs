//! Five processes share two licences; one of them is killed while it has both, and they come back.
//!
//! `cargo run --example semaphore`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{error::Error, thread};

use multiproc::{AtomicValue, Permit, Process, Semaphore, process::Exit};

/// How many use a licence at this moment, how many at most, how often in all.
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

/// Takes both, says so, and never gives them back.
fn hoard((licences, holding): (Semaphore, AtomicValue<u32>)) {
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
    let workers = (0..5).map(|_| Process::spawn(work, (licences.clone(), ledger.clone()))).collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        assert!(matches!(worker.join()?, Exit::Value(Ok(()))));
    }
    println!("used {} times, {} at a time at most", ledger.2.load(), ledger.1.load());
    assert!(ledger.2.load() == 1000 && ledger.1.load() <= 2);

    let holding = AtomicValue::new(0)?;
    let hoarder = Process::spawn(hoard, (licences.clone(), holding.clone()))?;
    while holding.load() == 0 {
        thread::yield_now();
    }
    println!("{:?} have them; killing", licences.holders());
    hoarder.kill()?;
    let licence = licences.acquire()?;
    println!("licence {} is ours; {:?}", Permit::number(&licence), Permit::previous_owner_died(&licence));
    assert!(Permit::previous_owner_died(&licence).is_some());
    assert!(matches!(hoarder.join()?, Exit::Signal(9)));
    assert_eq!(licences.available(), 1);
    Ok(())
}
