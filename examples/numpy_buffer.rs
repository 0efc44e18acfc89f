//! A table of numbers shared with Python, without a copy through a pipe: first in Python's block, then in
//! Rust's.
//!
//! `cargo run --example numpy_buffer` (needs python3 with its standard library; `PYTHON` names another one)
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use multiproc::{Namespace, SharedMemory};

const NUMBERS: usize = 100 * 8;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    block_of_python()?;
    block_of_rust()
}

/// Python makes the block, both write to it, Python removes it.
fn block_of_python() -> Result<(), Box<dyn Error>> {
    let mut maker = Python::start(&["make"])?;
    let name = maker.receive()?;
    // From here on both processes share the memory. Python unlinks it; this program never does.
    let block = SharedMemory::attach_os(&name)?;
    let mut table = numbers(&block)?;
    table.iter_mut().for_each(|number| *number *= 2.0);
    block.write_at(0, bytemuck::cast_slice(&table))?;
    println!("Python made {name} with {} bytes; doubled", block.len());
    maker.go_on()?;
    assert_eq!(maker.receive()?, "doubled");

    // A second Python attaches and ends. `attach` in the script shows what it must do so as not to destroy
    // the block.
    let mut other = Python::start(&["attach", &name])?;
    let sum: f64 = other.receive()?.parse()?;
    other.end()?;
    assert_eq!(sum, table.iter().sum::<f64>());
    println!("a second Python found a sum of {sum}");
    maker.go_on()?;
    assert_eq!(maker.receive()?, "still mine");
    assert_eq!(numbers(&block)?[0], -1.0);
    assert_eq!(numbers(&SharedMemory::attach_os(&name)?)?[0], -1.0);
    maker.go_on()?;
    maker.end()?;
    assert!(SharedMemory::attach_os(&name).is_err());
    Ok(())
}

/// Rust makes the block, both write to it, and no process has to remove it.
fn block_of_rust() -> Result<(), Box<dyn Error>> {
    let name = format!("numpy-buffer-{}", std::process::id());
    let block = SharedMemory::create(&name, NUMBERS * size_of::<f64>())?;
    block.write_at(0, bytemuck::cast_slice(&[0.5_f64; NUMBERS]))?;
    let path = Namespace::current()?.path().join(&name);
    let mut other = Python::start(&["open", path.to_str().ok_or("a path for Python")?])?;
    assert_eq!(other.receive()?, "added");
    other.end()?;
    assert_eq!(numbers(&block)?, [1.5; NUMBERS]);
    println!("Python added 1 to the {NUMBERS} numbers in {name}");
    Ok(())
}

/// Returns a copy of the numbers in the block.
fn numbers(block: &SharedMemory) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut numbers = vec![0_f64; NUMBERS];
    block.read_at(0, bytemuck::cast_slice_mut(&mut numbers))?;
    Ok(numbers)
}

/// A Python process that runs the script beside this file; the two exchange lines of text.
struct Python {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Python {
    fn start(arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let program = env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let mut python = Command::new(program);
        python.arg("-c").arg(include_str!("numpy_buffer.py")).args(arguments);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("its input")?;
        let output = BufReader::new(child.stdout.take().ok_or("its output")?).lines();
        Ok(Self { child, input, output })
    }

    fn receive(&mut self) -> Result<String, Box<dyn Error>> {
        Ok(self.output.next().ok_or("Python ended too early")??)
    }

    fn go_on(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(writeln!(self.input, "go on")?)
    }

    fn end(mut self) -> Result<(), Box<dyn Error>> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("Python: {status}").into()) }
    }
}
