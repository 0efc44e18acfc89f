//! Counts words with several processes, exactly, even while they are being killed.
//!
//! ```text
//! cargo run --release --example wordcount -- [PATH…] [--workers N] [--kill K] [--check]
//! ```
//!
//! The parent finds the files and puts them on a [`JoinableQueue`]. Each worker is a
//! [`Process`](multiproc::Process): it gets a job, counts the words, puts the result on a second queue, and
//! calls `done`. A result is put in parts, so that a long one does not delay the others. A shared [`Value`]
//! holds the progress of all workers, for the progress bar. The parent adds up the results and prints them.
//!
//! # Why the counts are exact though workers are killed
//!
//! - Every file is put once. A worker holds the lease of its job until it calls `done`. If the worker dies
//!   before that, the queue delivers the job again. The kernel reports the death; no time-out is involved.
//! - A worker calls `done` after it has put its result, and a message survives its sender. So every file has
//!   a result.
//! - A worker may die between the two calls: then a file is counted twice. The first complete result counts,
//!   and any other is dropped. Parts of a result that was never completed differ from the others by worker
//!   and delivery, and are dropped, too. So every file counts once.
//! - No process hangs: a killed process cannot block a queue or a value for the others.
//!
//! Only the progress bar may be off, by the few files that were counted twice.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints")]
#![allow(unreachable_pub, reason = "in a program, `pub` is for its other files")]

mod args;
mod count;
mod crew;
mod kill;
mod ledger;
mod report;

use std::{
    env,
    error::Error,
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use args::Args;
use bytemuck::{Pod, Zeroable};
use count::{Counts, Files};
use crew::Crew;
use kill::KillPlan;
use multiproc::{GetError, JoinableQueue, PutError, Queue, Value};
use report::Totals;
use serde::{Deserialize, Serialize};

/// The largest part of a result in one message.
const PART_BYTES: usize = 256 * 1024;

/// A file to count.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    file: u32,
    path: OsString,
}

/// A part of the encoded [`Outcome`](count::Outcome) of one file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    file: u32,
    worker: u32,
    /// How often the file's job has been delivered, this time included.
    delivery: u32,
    last: bool,
    bytes: Vec<u8>,
}

/// The progress of all workers together.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Progress {
    files: u64,
    bytes: u64,
}

/// The arguments of a worker: handles travel to other processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Desk {
    worker: u32,
    jobs: JoinableQueue<Task>,
    results: Queue<Part>,
    progress: Value<Progress>,
}

fn main() -> ExitCode {
    multiproc::init();
    let args = match Args::parse(env::args_os().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("wordcount: {message}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    if args.help {
        println!("{}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    run(&args).unwrap_or_else(|error| {
        eprintln!("wordcount: {error}");
        ExitCode::FAILURE
    })
}

fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let files = if args.paths.is_empty() {
        Files::find(&[PathBuf::from(env!("CARGO_MANIFEST_DIR"))], &["target", ".git"])
    } else {
        Files::find(&args.paths, &[])
    };
    let kills = KillPlan::new(args.kills, files.paths.len(), args.seed);

    let begun = Instant::now();
    let totals = Crew::start(&files, args.workers)?.count(kills)?;
    let took = begun.elapsed();

    eprint!("{}", totals.warnings());
    print(&totals.report(took))?;
    if !args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let differences = totals.differences(&recount(&files));
    if differences.is_empty() {
        print("\ncheck: recounted in one process, no difference\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    for difference in differences {
        eprintln!("wordcount: check: {difference}");
    }
    Ok(ExitCode::FAILURE)
}

/// Does the same work without any other process.
fn recount(files: &Files) -> Totals {
    let mut totals = Totals { skipped: files.skipped.clone(), ..Totals::default() };
    for path in &files.paths {
        totals.add(0, path, Counts::of_file(path));
    }
    totals
}

/// Prints to a reader that may have closed the pipe, as `head` does.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The function of a worker process: counts until a queue is closed.
fn work(desk: Desk) -> Result<(), String> {
    let Desk { worker, jobs, results, progress } = desk;
    loop {
        let job = match jobs.get() {
            Ok(job) => job,
            // Everything is counted.
            Err(GetError::Closed) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let (file, delivery) = (job.file, job.attempts());
        let outcome = Counts::of_file(Path::new(&job.path));
        let counted = outcome.as_ref().map_or(0, |counts| counts.bytes);
        let update = progress.update(|progress| {
            progress.files += 1;
            progress.bytes += counted;
        });
        update.map_err(|error| error.to_string())?;

        let bytes = postcard::to_stdvec(&outcome).map_err(|error| error.to_string())?;
        let mut pieces = bytes.chunks(PART_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            match results.put(Part { file, worker, delivery, last, bytes: piece.to_vec() }) {
                Ok(()) => {}
                Err(PutError::Closed(_)) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        job.done();
    }
}
