//! A queue and a counter inside memory that the program has mapped itself, beside bytes of its own.
//!
//! `cargo run --example placed`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::MmapRaw;
use multiproc::{AtomicValue, Capacity, Options, Process, Queue, process::Exit};

/// Where things are in the region: that is for its users to agree on.
const SUM: usize = 0;
const NUMBERS: usize = 4096;

/// Each process maps the file wherever it likes. An `Arc`, since two handles and perhaps the program itself need the mapping.
fn region(path: &Path) -> Result<Arc<MmapRaw>, std::io::Error> {
    let file = File::options().read(true).write(true).open(path)?;
    Ok(Arc::new(MmapRaw::map_raw(&file)?))
}

/// Adds up what comes.
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
    // Files in memory, shared_memory's `Shmem`, a driver's buffer: any memory that is shared will do.
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
    println!("{} bytes, which say {}", length, sum.load());
    assert_eq!(sum.load(), 500_500);
    fs::remove_file(path)?;
    Ok(())
}
