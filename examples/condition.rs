//! A shelf with room for three: a maker waits for room, two takers wait for goods, and one taker is killed.
//!
//! `cargo run --example condition`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{AtomicValue, Condition, Process, Value, process::Exit};
use serde::{Deserialize, Serialize};

const ROOM: u32 = 3;
const EACH: u32 = 200;

/// The number of goods; the conditions on which processes wait for more goods, or for fewer.
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

/// Repeats `times` times: waits until it can change the number, changes it, and notifies a process that waits
/// for that.
fn work(shelf: &Shelf, times: u32, can: fn(&u32) -> bool, change: i32) -> Result<(), multiproc::LockError> {
    let (wait_for, notify) =
        if change > 0 { (&shelf.fewer, &shelf.more) } else { (&shelf.more, &shelf.fewer) };
    for _ in 0..times {
        // A waiting process gives the lock back. When it goes on, it has the lock again, and the number as it
        // is then.
        let mut goods = wait_for.wait_while(shelf.goods.lock()?, |goods| !can(goods))?;
        *goods = goods.saturating_add_signed(change);
        drop(goods);
        notify.notify_one()?;
        if change < 0 {
            shelf.taken.fetch_add(1);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let (more, fewer) = (Condition::new()?, Condition::new()?);
    let shelf = Shelf { goods: Value::new(0)?, more, fewer, taken: AtomicValue::new(0)? };

    // Two takers wait for goods, and no maker runs yet. One taker is killed: it takes no wake-up with it.
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
