//! Three workers go through a job of several phases in step; one is killed half way, and the others are told at once.
//!
//! `cargo run --example barrier`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use multiproc::{AtomicValue, Barrier, Process, process::Exit};

/// Works through as many phases as it can; how many those were, and who died if somebody did.
fn work((barrier, phases): (Barrier, AtomicValue<u64>)) -> (u64, Option<u32>) {
    for done in 0.. {
        // The last one to come counts the phase, before anybody begins the next one.
        if let Err(error) = barrier.wait_with(|| _ = phases.fetch_add(1)) {
            return (done, error.pid());
        }
    }
    unreachable!("somebody is killed")
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let (barrier, phases) = (Barrier::new(3)?, AtomicValue::new(0)?);
    let start = || Process::spawn(work, (barrier.clone(), phases.clone()));
    let (first, second, unlucky) = (start()?, start()?, start()?);
    while phases.load() < 100 {
        std::thread::yield_now();
    }
    unlucky.kill()?;
    for worker in [first, second] {
        let Exit::Value((done, died)) = worker.join()? else { return Err("it should have been told".into()) };
        println!("a worker came through {done} phases, then {died:?} died");
        assert!(done >= 99 && died == Some(unlucky.pid()));
    }
    // Usable again, for a crew of three.
    barrier.reset();
    assert!(!barrier.is_broken() && barrier.waiting() == 0);
    Ok(())
}
