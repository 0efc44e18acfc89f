//! Workers wait for a starting signal; one of them is killed before, and nobody minds.
//!
//! `cargo run --example event`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use multiproc::{AtomicValue, Event, Process, process::Exit};

/// Says that it is there, waits for the signal, and tells who it was.
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
        let Exit::Value(pid) = runner.join()? else { return Err("it should have run".into()) };
        println!("{pid} ran");
    }
    assert!(start.is_set());
    Ok(())
}
