//! The benches: this library's numbers beside those of other libraries, in one table. See `README.md`.
#![allow(unsafe_code, reason = "the comparison is with bare shared memory, libc and zero-copy rivals")]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a call of libc and the place for its result belong together"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a run, and nanoseconds"
)]

mod condition;
mod growth;
mod harness;
mod idle;
mod lock;
mod meet;
mod os;
mod peers;
mod queue;
mod race;
mod roundtrip;
mod spawn;
mod typed;
mod uncontended;
mod value;

use std::process::ExitCode;

use harness::{Row, Settings};

const USAGE: &str = "\
usage: multiproc-bench [--json] [--quick] [--long] [--only PREFIX] [--impl NAME]
  --json         one line of JSON for each row and implementation: {\"row\",\"impl\",\"value\",\"unit\"}
  --quick        one short round: shows that every row runs; its numbers mean little
  --long         also the rows of 10 and 100 million messages, which take minutes and gigabytes
  --only PREFIX  only the rows whose names begin with PREFIX
  --impl NAME    this implementation only";

fn main() -> ExitCode {
    // Rows that start processes start this program again.
    spawn::become_child();
    let settings = match settings() {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    os::handle_signals();
    let scratch = match os::Scratch::new() {
        Ok(scratch) => scratch,
        Err(problem) => {
            eprintln!("multiproc-bench: no scratch directory: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = harness::run(rows(&scratch, &settings), &settings);
    // Removes objects of runs that were stopped.
    let _ = multiproc::shm::gc();
    if outcome { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every row, in the order of the table. A new group is a file with a function `rows`, and a line here.
fn rows(scratch: &os::Scratch, settings: &Settings) -> Vec<Row> {
    [
        queue::rows(scratch),
        typed::rows(scratch),
        growth::rows(settings.long),
        lock::rows(),
        uncontended::rows(),
        roundtrip::rows(scratch),
        condition::rows(),
        value::rows(),
        meet::rows(),
        spawn::rows(),
        idle::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn settings() -> Result<Settings, String> {
    let mut settings = Settings::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut text = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => settings.json = true,
            "--long" => settings.long = true,
            "--quick" => settings.quick(),
            "--only" => settings.only = text()?,
            "--impl" => settings.implementation = Some(text()?),
            "--help" | "-h" => return Err(String::new()),
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    Ok(settings)
}
