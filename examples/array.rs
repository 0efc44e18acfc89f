//! Several processes sort their parts of one array and count what they find; one of them is killed in the middle of it.
//!
//! `cargo run --example array`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use multiproc::{Array, ArrayError, ArrayLockError, AtomicArray, AtomicValue, Process, process::Exit};

/// One worker's part.
const PART: usize = 50_000;

/// Sorts one part, and counts its last digits where the others count theirs.
fn sort((part, numbers, digits): (usize, Array<u32>, AtomicArray<u64>)) -> Result<(), String> {
    let mut mine = vec![0; PART];
    numbers.read_at(part * PART, &mut mine).map_err(|error| error.to_string())?;
    mine.sort_unstable();
    for number in &mine {
        digits.fetch_add((number % 10) as usize, 1).map_err(|error| error.to_string())?;
    }
    numbers.write_at(part * PART, &mine).map_err(|error| error.to_string())
}

/// Begins to write, and is killed before it ends.
fn vandal((numbers, begun): (Array<u32>, AtomicValue<u8>)) -> Result<(), String> {
    let mut guard = numbers.lock().map_err(|error| error.to_string())?;
    guard.set(0, u32::MAX).map_err(|error| error.to_string())?;
    begun.store(1);
    loop {
        std::thread::park();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let numbers = Array::new(3 * PART)?;
    let mut seed = 1_u32;
    let random: Vec<u32> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    })
    .take(numbers.len())
    .collect();
    numbers.copy_from(&random)?;

    let begun = AtomicValue::new(0)?;
    let killed = Process::spawn(vandal, (numbers.clone(), begun.clone()))?;
    while begun.load() == 0 {
        std::thread::yield_now();
    }
    killed.kill()?;
    killed.join()?;
    // Whoever looks is told, until somebody has made it whole.
    assert!(matches!(numbers.get(0), Err(ArrayError::HalfWritten(half)) if half.writer().pid() == Some(killed.pid())));
    if let Err(ArrayLockError::OwnerDied(died)) = numbers.lock() {
        died.recover().copy_from(&random)?;
    }

    let digits = AtomicArray::new(10)?;
    let mut workers = Vec::new();
    for part in 0..3 {
        workers.push(Process::spawn(sort, (part, numbers.clone(), digits.clone()))?);
    }
    for worker in workers {
        assert!(matches!(worker.join()?, Exit::Value(Ok(()))));
    }
    let sorted = numbers.to_vec()?;
    assert!(sorted.chunks(PART).all(<[u32]>::is_sorted));
    assert_eq!(digits.to_vec().iter().sum::<u64>(), numbers.len() as u64);
    println!("last digits of {} numbers: {:?}", numbers.len(), digits.to_vec());
    Ok(())
}
