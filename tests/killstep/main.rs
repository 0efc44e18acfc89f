//! The kill-step table: every public operation that changes shared memory, killed at each of its states.
//!
//! `ci/killstep.sh` runs this program, once as it is and once, for the zoo, built with planted bugs. What stands here is checked against the
//! list of all public functions (`operations.rs`), so that no operation is forgotten.
#![allow(unsafe_code, reason = "raw pairs and words in plain shared memory")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program talks")]
#![allow(clippy::unwrap_used, reason = "a driver that cannot arrange its case must stop")]

mod arrays;
mod batches;
mod blocks;
mod bounded;
mod locks;
mod names;
mod operations;
mod queues;
mod rlocks;
mod semaphores;
mod support;
mod values;
mod words;
mod zoo;

use std::process::ExitCode;

use multiproc_killstep::{Args, Sweep};

fn main() -> ExitCode {
    let args = match Args::from_env() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if let Err(problem) = operations::check() {
        eprintln!("killstep: {problem}");
        return ExitCode::FAILURE;
    }
    let home = support::Home::new();
    if let Ok(bug) = std::env::var("MULTIPROC_ZOO") {
        return zoo::one(&bug, args);
    }
    // Double kills take minutes: with `--all`, or when asked for by name.
    let double = args.all || args.only.is_some();
    let mut sweep = Sweep::new(args);
    locks::run(&mut sweep, double);
    rlocks::run(&mut sweep, double);
    semaphores::run(&mut sweep, double);
    bounded::run(&mut sweep);
    values::run(&mut sweep, double);
    arrays::run(&mut sweep, double);
    words::run(&mut sweep);
    queues::run(&mut sweep, double);
    batches::run(&mut sweep);
    names::run(&mut sweep);
    blocks::run(&mut sweep);
    zoo::all(&mut sweep);
    drop(home);
    sweep.finish()
}
