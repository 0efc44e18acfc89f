//! A storm of kills over small queues: three producers and three consumers are killed or stopped at random
//! moments and replaced, for as long as the command line says.
//!
//! `ci/soak.sh SECONDS [SEED]`, or `cargo test --release --test soak -- SECONDS [SEED]`.
//!
//! Each message holds its producer, its number and a checksum. A producer notes what it has put, a consumer
//! what it has got and when, in mapped files, which survive a kill. When a phase is over, the notes must
//! agree. No message is torn, doubled, invented, or out of its producer's order. None is missing but one for
//! each killed consumer (as many as one call takes, where that is several). Nothing is left in the queue. Of
//! jobs none may be missing: each is done once, or is a dead letter. It was delivered again only if its
//! holder had returned it or was killed before `done` returned, and never while a process had it. If nothing
//! moves for 0.8 seconds, that is a violation, too; after 20 seconds the program ends.
//!
//! The same seed brings the same kills, stops, messages and calls; the kernel decides when they meet.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::exit,
    reason = "a test program: it reports, and any surprise ends it"
)]

#[path = "../common/mod.rs"]
mod common;
mod jobs;
mod ledger;
mod notes;
mod phase;
mod workers;

use std::fs;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant, SystemTime};

use multiproc::shm::Namespace;

use common::Dice;
use phase::Phase;
use workers::{Kind, Line, Pace, Shape, USUAL};

/// Small queues, of which the second and the third fill their bytes before their messages; a queue whose log
/// grows and shrinks; several messages with one lock. Then jobs: with unlimited deliveries; with few; long
/// jobs.
const SHAPES: [Shape; 8] = [
    Shape { messages: 4, bytes: Some(16 << 10), longest: USUAL, at_once: 1, kind: Kind::Messages },
    Shape { messages: 60, bytes: Some(16 << 10), longest: USUAL, at_once: 1, kind: Kind::Jobs(0) },
    Shape { messages: 60, bytes: Some(16 << 10), longest: USUAL, at_once: 1, kind: Kind::Messages },
    Shape { messages: 300, bytes: None, longest: 60_000, at_once: 1, kind: Kind::Jobs(0) },
    Shape { messages: 1000, bytes: Some(16 << 10), longest: 6000, at_once: 1, kind: Kind::Messages },
    Shape { messages: 4, bytes: Some(16 << 10), longest: USUAL, at_once: 1, kind: Kind::Jobs(2) },
    Shape { messages: 300, bytes: None, longest: 60_000, at_once: 1, kind: Kind::Messages },
    Shape { messages: 60, bytes: Some(16 << 10), longest: USUAL, at_once: 4, kind: Kind::Messages },
];
const PHASE: Duration = Duration::from_secs(1);
/// Sleeping processes poll once a second in any case: what takes so long was saved by this liveness poll
/// alone, and some wake was lost.
const SAVED: Duration = Duration::from_millis(800);

/// What has happened so far.
#[derive(Debug, Default)]
struct Totals {
    operations: u64,
    kills: u64,
    /// Kills in the middle of a call.
    inside: u64,
    stops: u64,
    lost: u64,
    /// Jobs that were delivered again, and jobs that no holder has finished or returned.
    redelivered: u64,
    letters: u64,
    violations: u64,
    /// The longest time in which nothing moved.
    slowest: Duration,
}

fn main() {
    multiproc::init();
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(10), |word| word.parse());
    let seed = arguments.next().map_or_else(|| Ok(seed_of_this_run()), |word| word.parse());
    let (Ok(seconds), Ok(seed), None) = (seconds, seed, arguments.next()) else {
        println!("usage: soak [SECONDS [SEED]]");
        process::exit(2);
    };
    println!("soak: {seconds} s, seed {seed}");
    let before = possessions();
    let mut totals = Totals::default();
    storm(Duration::from_secs(seconds), seed, &mut totals);
    let after = possessions();
    let left: Vec<_> = after.iter().filter(|thing| !before.contains(thing)).collect();
    left.iter().for_each(|thing| println!("soak: left behind: {thing}"));
    let Totals { operations, kills, inside, stops, lost, redelivered, letters, violations, slowest } = totals;
    println!(
        "soak: {inside} kills in the middle of a call, {stops} stops, {lost} messages lost \
         with their consumers, \
         {redelivered} jobs delivered again, {letters} dead letters, \
         nothing moved for at most {slowest:?}"
    );
    println!("soak: {operations} operations, {kills} kills, {violations} violations, {} leaked", left.len());
    process::exit(i32::from(violations > 0 || !left.is_empty()));
}

fn seed_of_this_run() -> u64 {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    clock.as_secs() << 20 | u64::from(clock.subsec_micros())
}

/// All phases.
fn storm(length: Duration, seed: u64, totals: &mut Totals) {
    let end = Instant::now() + length;
    let mut dice = Dice::new(seed);
    let directory = Scratch::new();
    for round in seed % SHAPES.len() as u64.. {
        let shape = SHAPES[usize::try_from(round).unwrap() % SHAPES.len()];
        let mut line = Line::new(shape);
        for pace in [Pace::MostlyEmpty, Pace::Balanced, Pace::MostlyFull] {
            if Instant::now() >= end {
                return;
            }
            let mut phase = Phase::new(&line, pace, shape, &directory.0, dice.next());
            let stalled = phase.run(PHASE.min(end.saturating_duration_since(Instant::now())));
            let before = (totals.kills, totals.violations);
            phase.settle(totals);
            totals.violations += u64::from(stalled > SAVED);
            totals.slowest = totals.slowest.max(stalled);
            let is_empty = match &line {
                Line::Messages(queue) => queue.is_empty(),
                Line::Jobs(queue) => queue.unfinished() == 0 && queue.leased() == 0 && queue.is_empty(),
            };
            if !is_empty {
                totals.violations += 1;
                println!("soak: something is left in {line:?}");
            }
            println!(
                "soak: {pace:?}, {shape:?}: {} kills, {} violations, stall {stalled:?}",
                totals.kills - before.0,
                totals.violations - before.1
            );
            // The next phase inherits what a phase leaves in the fixed part of a queue; but a closed queue is
            // closed.
            if matches!(line, Line::Jobs(_)) {
                line = Line::new(shape);
            }
        }
    }
}

/// What may leak: objects, descriptors, children.
fn possessions() -> Vec<String> {
    let names = |path: &str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let objects = names(Namespace::current().unwrap().path().to_str().unwrap());
    let mut all: Vec<String> = objects.iter().map(|path| path.display().to_string()).collect();
    // The directory handle that lists them is open, too: the number is the same each time.
    all.push(format!("{} descriptors", names("/proc/self/fd").len()));
    let children = names("/proc/self/task")
        .iter()
        .filter_map(|task| fs::read_to_string(task.join("children")).ok())
        .collect::<String>();
    all.extend(children.split_whitespace().map(|pid| format!("child {pid}")));
    all
}

/// A directory for the files of this run, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = PathBuf::from("/dev/shm").join(common::unique("soak"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
