//! Starts a function of this program in a process of its own, and gets its result: `cargo run --example hello
//! -- World`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc_process::{Exit, Process};

fn greet(whom: String) -> String {
    println!(
        "  child {}: asked by {:?} to greet {whom}",
        std::process::id(),
        multiproc_process::parent_pid()
    );
    format!("Hello, {whom}!")
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc_process::init();

    let whom = std::env::args().nth(1).unwrap_or_else(|| "World".to_owned());
    let child = Process::spawn(greet, whom)?;
    println!("parent {}: started process {}", std::process::id(), child.pid());
    match child.join()? {
        Exit::Value(greeting) => println!("parent: the child returned {greeting:?}"),
        other => println!("parent: the child ended without a value: {other:?}"),
    }
    Ok(())
}
