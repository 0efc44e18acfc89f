//! Three workers go through a job in step; one is killed while it waits for the others, and their waits fail
//! at once.
//!
//! `cargo run --example barrier`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{AtomicValue, Barrier, Process, process::Exit};

const PHASES: u64 = 100;

/// Works through all phases; returns the id of the process that died, if one died.
fn work((barrier, phases): (Barrier, AtomicValue<u64>)) -> Option<u32> {
    for _ in 0..PHASES {
        // The last worker to arrive counts the phase, before any worker begins the next one.
        if let Err(error) = barrier.wait_with(|| _ = phases.fetch_add(1)) {
            return error.pid();
        }
    }
    None
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let (barrier, phases) = (Barrier::new(3)?, AtomicValue::new(0)?);
    let start = || Process::spawn(work, (barrier.clone(), phases.clone()));

    let (unlucky, other) = (start()?, start()?);
    while barrier.waiting() < 2 {
        std::thread::yield_now();
    }
    unlucky.kill()?;
    let Exit::Value(died) = other.join()? else { return Err("the other worker should have returned".into()) };
    println!("the waiting worker was notified that {died:?} died");
    assert_eq!(died, Some(unlucky.pid()));
    // Every later wait fails, too, until a process resets the barrier.
    assert_eq!(barrier.wait().map_err(|error| error.pid()), Err(died));
    barrier.reset();

    let workers = [start()?, start()?, start()?];
    for worker in workers {
        assert!(matches!(worker.join()?, Exit::Value(None)));
    }
    println!("three workers went through {} phases", phases.load());
    assert_eq!(phases.load(), PHASES);
    Ok(())
}
