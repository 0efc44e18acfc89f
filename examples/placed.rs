//! A queue and a counter inside memory that the program has mapped itself, beside bytes of its own.
//!
//! `cargo run --example placed`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::MmapRaw;
use multiproc::{AtomicValue, Capacity, Options, Process, Queue, process::Exit};

/// Offsets in the region, on which its users have to agree.
const SUM: usize = 0;
const NUMBERS: usize = 4096;

/// Maps the file; each process has it at an address of its own. An `Arc`, since two handles share the
/// mapping.
fn region(path: &Path) -> Result<Arc<MmapRaw>, std::io::Error> {
    let file = File::options().read(true).write(true).open(path)?;
    Ok(Arc::new(MmapRaw::map_raw(&file)?))
}

/// Adds up the numbers that it receives.
fn add(path: PathBuf) -> Result<(), String> {
    let attach = || -> Result<_, Box<dyn Error>> {
        let region = region(&path)?;
        let sum: AtomicValue<u64> = Options::new().attach(region.clone(), SUM)?;
        let numbers: Queue<u64> = Options::new().attach(region, NUMBERS)?;
        Ok((sum, numbers))
    };
    let (sum, numbers) = attach().map_err(|error| error.to_string())?;
    for number in numbers.iter().flatten() {
        sum.fetch_add(number);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    // Any shared mapping will do: of a file in memory, shared_memory's `Shmem`, a driver's buffer.
    let path = PathBuf::from(format!("/dev/shm/multiproc-placed-{}", std::process::id()));
    let capacity = Capacity::messages(16).bytes(4096);
    let length = NUMBERS + Options::bytes_needed::<Queue<u64>>(capacity)?;
    File::create_new(&path)?.set_len(length as u64)?;

    let region = region(&path)?;
    let sum: AtomicValue<u64> = Options::new().place(region.clone(), SUM, 0)?;
    let numbers: Queue<u64> = Options::new().place(region, NUMBERS, capacity)?;
    let adders = [Process::spawn(add, path.clone())?, Process::spawn(add, path.clone())?];
    for number in 1..=1000 {
        numbers.put(number)?;
    }
    numbers.close();
    for adder in adders {
        assert!(matches!(adder.join()?, Exit::Value(Ok(()))));
    }
    println!("{length} bytes, a sum of {}", sum.load());
    assert_eq!(sum.load(), 500_500);
    fs::remove_file(path)?;
    Ok(())
}
