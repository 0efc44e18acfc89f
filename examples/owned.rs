//! Permits that a process owns, and not one of its threads: one thread acquires them, another releases them.
//! A process that is killed loses them.
//!
//! `cargo run --example owned`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::sync::mpsc;
use std::thread;

use multiproc::{AtomicValue, OwnedPermit, Process, Semaphore, process::Exit};

/// One thread acquires a licence for each job, a pool of two does the jobs: a permit travels with its job.
fn serve((licences, most, users): (Semaphore, AtomicValue<u32>, AtomicValue<u32>)) -> Result<(), String> {
    let (sender, jobs) = mpsc::channel::<(u32, OwnedPermit)>();
    let jobs = std::sync::Mutex::new(jobs);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while let Ok((_, licence)) = { jobs.lock().ok()?.recv() } {
                    most.fetch_max(users.fetch_add(1) + 1);
                    users.fetch_sub(1);
                    drop(licence);
                }
                Some(())
            });
        }
        for job in 0..200 {
            let licence = licences.acquire_owned().map_err(|error| error.to_string())?;
            sender.send((job, licence)).map_err(|error| error.to_string())?;
        }
        drop(sender);
        Ok(())
    })
}

/// A thread acquires both, and ends; the process still owns them.
fn hold((licences, holding): (Semaphore, AtomicValue<u32>)) {
    let both = thread::spawn(move || licences.acquire_many_owned(2)).join();
    holding.store(1);
    loop {
        thread::park();
        assert!(both.is_ok());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let licences = Semaphore::new(2)?;
    let (most, users) = (AtomicValue::new(0)?, AtomicValue::new(0)?);
    let servers = (0..3).map(|_| Process::spawn(serve, (licences.clone(), most.clone(), users.clone())));
    for server in servers.collect::<Result<Vec<_>, _>>()? {
        assert!(matches!(server.join()?, Exit::Value(Ok(()))));
    }
    println!("600 jobs, at most {} at a time", most.load());
    assert!(most.load() <= 2);

    let holding = AtomicValue::new(0)?;
    let holder = Process::spawn(hold, (licences.clone(), holding.clone()))?;
    while holding.load() == 0 {
        thread::yield_now();
    }
    println!("{:?} hold the licences; killing the holder", licences.holders());
    holder.kill()?;
    let licence = licences.acquire_owned()?;
    let died = OwnedPermit::previous_owner_died(&licence);
    println!("the parent has licence {}; previous owner: {died:?}", OwnedPermit::number(&licence));
    assert!(died.is_some());
    assert!(matches!(holder.join()?, Exit::Signal(9)));
    Ok(())
}
