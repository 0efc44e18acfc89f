//! Takes away what dead processes have left in shared memory. Programs do this by themselves, a little at a time; this is
//! for people who want it now, or want to look.
//!
//! `cargo run --example gc -- [--dry-run] [--ticket-age SECONDS]`
#![allow(clippy::print_stdout, reason = "a program talks")]

use std::{env, error::Error, time::Duration};

use multiproc::shm::{Gc, Namespace};

fn main() -> Result<(), Box<dyn Error>> {
    let mut gc = Gc::new();
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        gc = match arg.as_str() {
            "--dry-run" => gc.dry_run(true),
            "--ticket-age" => {
                let seconds = args.next().ok_or("--ticket-age needs a number of seconds")?;
                gc.ticket_age(Duration::from_secs(seconds.parse()?))
            }
            _ => return Err(format!("unknown argument {arg}; there are --dry-run and --ticket-age SECONDS").into()),
        };
    }
    let namespace = Namespace::current()?;
    println!("{}: {:?}", namespace.path().display(), gc.run(&namespace)?);
    Ok(())
}
