//! Removes objects that dead processes have left in shared memory.
//!
//! Every program removes some of them by itself, a few at a time. This program removes all of them at once,
//! or lists them.
//!
//! `cargo run --example gc -- [--dry-run] [--in-flight-age SECONDS]`
#![allow(clippy::print_stdout, reason = "a program prints")]

use std::{env, error::Error, time::Duration};

use multiproc::shm::{Gc, Namespace};

fn main() -> Result<(), Box<dyn Error>> {
    let mut gc = Gc::new();
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        gc = match arg.as_str() {
            "--dry-run" => gc.dry_run(true),
            "--in-flight-age" => {
                let seconds = args.next().ok_or("--in-flight-age needs a number of seconds")?;
                gc.in_flight_age(Duration::from_secs(seconds.parse()?))
            }
            _ => {
                return Err(format!(
                    "unknown argument {arg}; there are --dry-run and --in-flight-age SECONDS"
                )
                .into());
            }
        };
    }
    let namespace = Namespace::current()?;
    println!("{}: {:?}", namespace.path().display(), gc.run(&namespace)?);
    Ok(())
}
