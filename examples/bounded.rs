//! A producer and two consumers: a release says that an item is there, an acquire takes it; at most three
//! items wait.
//!
//! `cargo run --example bounded`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{AtomicValue, BoundedSemaphore, Process, process::Exit};

const ITEMS: u32 = 1000;

/// Room for items, items that are there, and how many were taken.
type Shelf = (BoundedSemaphore, BoundedSemaphore, AtomicValue<u32>);

fn take((room, items, taken): Shelf) -> Result<(), String> {
    for _ in 0..ITEMS / 2 {
        items.acquire();
        taken.fetch_add(1);
        room.release(1).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let shelf: Shelf = (BoundedSemaphore::new(3, 3)?, BoundedSemaphore::new(0, 3)?, AtomicValue::new(0)?);
    let consumers = [Process::spawn(take, shelf.clone())?, Process::spawn(take, shelf.clone())?];
    let (room, items, taken) = shelf;
    for _ in 0..ITEMS {
        room.acquire();
        items.release(1)?;
    }
    for consumer in consumers {
        assert!(matches!(consumer.join()?, Exit::Value(Ok(()))));
    }
    println!("{} items made, {} taken, room for {}", ITEMS, taken.load(), room.available());
    assert_eq!((taken.load(), items.available(), room.available()), (ITEMS, 0, 3));

    let error = room.release(1).expect_err("the bound is three");
    println!("one release too many: {error}");
    Ok(())
}
