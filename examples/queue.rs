//! Two producer processes and two consumer processes on one queue; every message arrives exactly once.
//!
//! `cargo run --example queue`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{Process, Queue, process::Exit};
use serde::{Deserialize, Serialize};

const EACH: u64 = 10_000;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u64,
    item: String,
}

/// A producer: its arguments are its first number and the queue.
fn produce((first, orders): (u64, Queue<Order>)) -> Result<(), String> {
    for number in first..first + EACH {
        let order = Order { number, item: format!("item {}", number % 7) };
        orders.put(order).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A consumer: returns how many orders it got, and the sum of their numbers.
fn consume(orders: Queue<Order>) -> Result<(u64, u64), String> {
    let (mut count, mut sum) = (0, 0);
    // The iterator ends when the queue is closed and empty.
    for order in &orders {
        count += 1;
        sum += order.map_err(|error| error.to_string())?.number;
    }
    Ok((count, sum))
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let orders = Queue::new(64)?;

    let consumers = [Process::spawn(consume, orders.clone())?, Process::spawn(consume, orders.clone())?];
    let producers =
        [Process::spawn(produce, (0, orders.clone()))?, Process::spawn(produce, (EACH, orders.clone()))?];

    for producer in producers {
        assert!(matches!(producer.join()?, Exit::Value(Ok(()))));
    }
    orders.close();

    let (mut count, mut sum) = (0, 0);
    for consumer in consumers {
        let pid = consumer.pid();
        let Exit::Value(Ok((its_count, its_sum))) = consumer.join()? else {
            return Err("a consumer died".into());
        };
        println!("process {pid} got {its_count} orders");
        count += its_count;
        sum += its_sum;
    }
    assert_eq!(count, 2 * EACH);
    assert_eq!(sum, (0..2 * EACH).sum());
    println!("{count} orders, each exactly once");
    Ok(())
}
