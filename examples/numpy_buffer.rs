//! A table of numbers shared with Python, without a copy through a pipe: blocks that Python made, and blocks that Rust made.
//!
//! `cargo run --example numpy_buffer` (needs python3 with its standard library; `PYTHON` names another one)
#![allow(clippy::print_stdout, reason = "an example talks")]

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

/// Python makes, both write, Python takes away.
fn block_of_python() -> Result<(), Box<dyn Error>> {
    let mut maker = Python::start(&["make"])?;
    let name = maker.hear()?;
    // From here on the numbers are in memory that both have. Python unlinks it; we never do.
    let block = SharedMemory::attach_os(&name)?;
    let mut table = numbers(&block)?;
    table.iter_mut().for_each(|number| *number *= 2.0);
    block.write_at(0, bytemuck::cast_slice(&table))?;
    println!("Python made {name} with {} bytes; doubled", block.len());
    maker.say()?;
    assert_eq!(maker.hear()?, "doubled");

    // Another Python attaches and ends. What it must not forget is in `attach` of the script: else it would destroy the block.
    let mut other = Python::start(&["attach", &name])?;
    let sum: f64 = other.hear()?.parse()?;
    other.end()?;
    assert_eq!(sum, table.iter().sum::<f64>());
    println!("another Python found a sum of {sum}");
    maker.say()?;
    assert_eq!(maker.hear()?, "still mine");
    assert_eq!(numbers(&block)?[0], -1.0);
    assert_eq!(numbers(&SharedMemory::attach_os(&name)?)?[0], -1.0);
    maker.say()?;
    maker.end()?;
    assert!(SharedMemory::attach_os(&name).is_err());
    Ok(())
}

/// Rust makes, both write, and nobody has to take it away.
fn block_of_rust() -> Result<(), Box<dyn Error>> {
    let name = format!("numpy-buffer-{}", std::process::id());
    let block = SharedMemory::create(&name, NUMBERS * size_of::<f64>())?;
    block.write_at(0, bytemuck::cast_slice(&[0.5_f64; NUMBERS]))?;
    let path = Namespace::current()?.path().join(&name);
    let mut other = Python::start(&["open", path.to_str().ok_or("a path for Python")?])?;
    assert_eq!(other.hear()?, "added");
    other.end()?;
    assert_eq!(numbers(&block)?, [1.5; NUMBERS]);
    println!("Python added 1 to the {NUMBERS} numbers in {name}");
    Ok(())
}

/// A copy of what is in there.
fn numbers(block: &SharedMemory) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut numbers = vec![0_f64; NUMBERS];
    block.read_at(0, bytemuck::cast_slice_mut(&mut numbers))?;
    Ok(numbers)
}

/// A Python that runs the script beside this file; lines go to and fro.
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

    fn hear(&mut self) -> Result<String, Box<dyn Error>> {
        Ok(self.output.next().ok_or("Python ended too early")??)
    }

    fn say(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(writeln!(self.input, "go on")?)
    }

    fn end(mut self) -> Result<(), Box<dyn Error>> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("Python: {status}").into()) }
    }
}
