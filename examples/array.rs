//! Several processes sort their parts of one array and count last digits; a writer is killed in the middle of
//! its work.
//!
//! `cargo run --example array`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{Array, ArrayError, ArrayLockError, AtomicArray, AtomicValue, Process, process::Exit};

/// One worker's part.
const PART: usize = 50_000;

/// Sorts one part, and adds its last digits to the counts that all workers share.
fn sort((part, numbers, digits): (usize, Array<u32>, AtomicArray<u64>)) -> Result<(), String> {
    let mut mine = vec![0; PART];
    numbers.read_at(part * PART, &mut mine).map_err(|error| error.to_string())?;
    mine.sort_unstable();
    for number in &mine {
        digits.fetch_add((number % 10) as usize, 1).map_err(|error| error.to_string())?;
    }
    numbers.write_at(part * PART, &mine).map_err(|error| error.to_string())
}

/// Begins to write, and waits to be killed.
fn write_half((numbers, begun): (Array<u32>, AtomicValue<u8>)) -> Result<(), String> {
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
    let killed = Process::spawn(write_half, (numbers.clone(), begun.clone()))?;
    while begun.load() == 0 {
        std::thread::yield_now();
    }
    killed.kill()?;
    killed.join()?;
    // Every access fails until a process has recovered the array.
    let Err(ArrayError::HalfWritten(half)) = numbers.get(0) else { return Err("it is half written".into()) };
    assert_eq!(half.writer().pid(), Some(killed.pid()));
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
