//! The kill-step table: every public operation that changes shared memory is killed at each of its states,
//! and stopped there, and the processes that recover from its death are killed, too.
//!
//! `ci/killstep.sh` runs this program as it is, and once more for each planted bug, built with these. The
//! cases are checked against the list of all public functions (`operations.rs`), so that no operation is
//! forgotten.
#![allow(unsafe_code, reason = "raw pairs and words in plain shared memory")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program talks")]
#![allow(clippy::unwrap_used, reason = "a driver that cannot arrange its case must stop")]

mod arrays;
mod barriers;
mod batches;
mod blocks;
mod bounded;
mod conditions;
mod events;
mod job_kinds;
mod jobs;
mod kinds;
mod locks;
mod members;
mod names;
mod operations;
mod owned;
mod placed;
mod planted_bugs;
mod queues;
mod reserved;
mod rlock_waits;
mod rlocks;
mod rwlocks;
mod semaphores;
mod support;
mod values;
mod words;

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
    let namespace = support::OwnNamespace::new(args.sweeps_itself());
    if let Ok(bug) = std::env::var("MULTIPROC_PLANTED_BUG") {
        return planted_bugs::one(&bug, &args);
    }
    let mut sweep = Sweep::new(args);
    locks::run(&mut sweep);
    rlocks::run(&mut sweep);
    semaphores::run(&mut sweep);
    owned::run(&mut sweep);
    bounded::run(&mut sweep);
    conditions::run(&mut sweep);
    rlock_waits::run(&mut sweep);
    rwlocks::run(&mut sweep);
    values::run(&mut sweep);
    arrays::run(&mut sweep);
    words::run(&mut sweep);
    queues::run(&mut sweep);
    batches::run(&mut sweep);
    reserved::run(&mut sweep);
    jobs::run(&mut sweep);
    job_kinds::run(&mut sweep);
    kinds::run(&mut sweep);
    members::run(&mut sweep);
    names::run(&mut sweep);
    blocks::run(&mut sweep);
    placed::run(&mut sweep);
    events::run(&mut sweep);
    barriers::run(&mut sweep);
    planted_bugs::all(&mut sweep);
    drop(namespace);
    sweep.finish()
}
