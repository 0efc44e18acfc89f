//! A shelf with room for three: makers wait for room, takers for goods, and one of each is killed at work.
//!
//! `cargo run --example condition`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use multiproc::{AtomicValue, Condition, Process, Value, process::Exit};
use serde::{Deserialize, Serialize};

const ROOM: u32 = 3;
const EACH: u32 = 200;

/// How many there are, and who waits for more of them, or for fewer.
#[derive(Clone, Serialize, Deserialize)]
struct Shelf {
    goods: Value<u32>,
    more: Condition,
    fewer: Condition,
    taken: AtomicValue<u32>,
}

fn make(shelf: Shelf) -> Result<(), String> {
    work(&shelf, EACH, |goods| *goods < ROOM, 1).map_err(|error| error.to_string())
}

fn take(shelf: Shelf) -> Result<(), String> {
    work(&shelf, EACH, |goods| *goods > 0, -1).map_err(|error| error.to_string())
}

/// So many times: waits until it can, changes the number, and tells one of those who wait for that.
fn work(shelf: &Shelf, times: u32, can: fn(&u32) -> bool, change: i32) -> Result<(), multiproc::LockError> {
    let (wait_for, tell) = if change > 0 { (&shelf.fewer, &shelf.more) } else { (&shelf.more, &shelf.fewer) };
    for _ in 0..times {
        // Nobody holds the lock while it waits; before it goes on it has it again, and the number as it is then.
        let mut goods = wait_for.wait_while(shelf.goods.lock()?, |goods| !can(goods))?;
        *goods = goods.saturating_add_signed(change);
        drop(goods);
        tell.notify_one()?;
        if change < 0 {
            shelf.taken.fetch_add(1);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let shelf = Shelf { goods: Value::new(0)?, more: Condition::new()?, fewer: Condition::new()?, taken: AtomicValue::new(0)? };

    // Two that wait for goods that nobody makes yet. One of them is killed: it takes no wake-up with it.
    let (victim, taker) = (Process::spawn(take, shelf.clone())?, Process::spawn(take, shelf.clone())?);
    while shelf.more.waiters() < 2 {
        std::thread::yield_now();
    }
    victim.kill()?;
    victim.join()?;
    assert_eq!(shelf.more.waiters(), 1);

    let maker = Process::spawn(make, shelf.clone())?;
    assert!(matches!(maker.join()?, Exit::Value(Ok(()))));
    assert!(matches!(taker.join()?, Exit::Value(Ok(()))));
    println!("{} made and taken, {} left", shelf.taken.load(), shelf.goods.get()?);
    assert_eq!((shelf.taken.load(), shelf.goods.get()?), (EACH, 0));
    Ok(())
}
