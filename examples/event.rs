//! Workers wait for a starting signal; one is killed before, and the others start all the same.
//!
//! `cargo run --example event`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{AtomicValue, Event, Process, process::Exit};

/// Counts itself as ready, waits for the signal, and returns its process id.
fn race((ready, start): (AtomicValue<u32>, Event)) -> u32 {
    ready.fetch_add(1);
    start.wait();
    std::process::id()
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let (ready, start) = (AtomicValue::new(0)?, Event::new()?);
    let runners = [(); 3].map(|()| Process::spawn(race, (ready.clone(), start.clone())));
    let [first, second, unlucky] = runners;
    let (first, second, unlucky) = (first?, second?, unlucky?);
    while ready.load() < 3 {
        std::thread::yield_now();
    }
    unlucky.kill()?;
    assert!(matches!(unlucky.join()?, Exit::Signal(9)));

    start.set();
    for runner in [first, second] {
        let Exit::Value(pid) = runner.join()? else { return Err("the worker should have run".into()) };
        println!("process {pid} ran");
    }
    assert!(start.is_set());
    Ok(())
}
