//! A maker and two takers: each thing that is made is announced by a release, and taken by whoever acquires first; never more than three lie about.
//!
//! `cargo run --example bounded`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use multiproc::{AtomicValue, BoundedSemaphore, Process, process::Exit};

const THINGS: u32 = 1000;

/// Room for things, things that are there, and how many were taken.
type Shelf = (BoundedSemaphore, BoundedSemaphore, AtomicValue<u32>);

fn take((room, things, taken): Shelf) -> Result<(), String> {
    for _ in 0..THINGS / 2 {
        things.acquire();
        taken.fetch_add(1);
        room.release(1).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let shelf: Shelf = (BoundedSemaphore::new(3, 3)?, BoundedSemaphore::new(0, 3)?, AtomicValue::new(0)?);
    let takers = [Process::spawn(take, shelf.clone())?, Process::spawn(take, shelf.clone())?];
    let (room, things, taken) = shelf;
    for _ in 0..THINGS {
        room.acquire();
        things.release(1)?;
    }
    for taker in takers {
        assert!(matches!(taker.join()?, Exit::Value(Ok(()))));
    }
    println!("{} things made, {} taken, room for {}", THINGS, taken.load(), room.available());
    assert_eq!((taken.load(), things.available(), room.available()), (THINGS, 0, 3));

    let error = room.release(1).expect_err("there are three places");
    println!("a release too many: {error}");
    Ok(())
}
