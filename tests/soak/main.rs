//! A storm of kills over one small queue: three producers and three consumers, killed or stopped at random and replaced, for as long as one likes.
//!
//! `ci/soak.sh SECONDS [SEED]`, or `cargo test --release --test soak -- SECONDS [SEED]`.
//!
//! Each message says who put it, as which number, and carries a checksum. A producer notes in a file what it has put, a consumer what it has got: files survive a kill.
//! When a phase is over, the files must agree: no message torn, doubled, invented, or out of its producer's order; none missing but one for each killed consumer; nothing left in the queue.
//! If nothing moves for 0.8 seconds, that is a violation, too; after 20 seconds it is the end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::exit,
    reason = "a test program: it reports, and any surprise ends it"
)]

#[path = "../common/mod.rs"]
mod common;
mod ledger;
mod roles;

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use multiproc::shm::Namespace;
use multiproc::{AtomicValue, Capacity, Process, Queue};

use common::{Dice, signal, spawn};
use ledger::Ledger;
use roles::{Job, LAST, Pace, Role, Stage, consume, produce};

const CREW: usize = 3;
const BYTES: usize = 16 << 10;
const PHASE: Duration = Duration::from_secs(2);
/// Sleepers look again once a second, come what may: whatever takes so long was saved by this alone, and some wake was lost.
const SAVED: Duration = Duration::from_millis(800);
const STALL: Duration = Duration::from_secs(20);

/// What has happened so far.
#[derive(Debug, Default)]
struct Totals {
    operations: u64,
    kills: u64,
    stops: u64,
    lost: u64,
    violations: u64,
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
    let slowest = storm(Duration::from_secs(seconds), seed, &mut totals);
    let after = possessions();
    let left: Vec<_> = after.iter().filter(|thing| !before.contains(thing)).collect();
    left.iter().for_each(|thing| println!("soak: left behind: {thing}"));
    let Totals { operations, kills, stops, lost, violations } = totals;
    println!("soak: {lost} messages lost with their consumers, {stops} stops, nothing moved for at most {slowest:?}");
    println!("soak: {operations} operations, {kills} kills, {violations} violations, {} leaked", left.len());
    process::exit(i32::from(violations > 0 || !left.is_empty()));
}

fn seed_of_this_run() -> u64 {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    clock.as_secs() << 20 | u64::from(clock.subsec_micros())
}

/// All phases; the longest time in which nothing moved.
fn storm(length: Duration, seed: u64, totals: &mut Totals) -> Duration {
    let end = Instant::now() + length;
    let mut dice = Dice::new(seed);
    let directory = Scratch::new();
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let messages = [4, 60, 1000][usize::try_from(dice.below(3)).unwrap()];
        let queue = Queue::new(Capacity::messages(messages).bytes(BYTES)).unwrap();
        // What a phase leaves in the fixed part of the queue, the next one inherits.
        for pace in [Pace::MostlyEmpty, Pace::Balanced, Pace::MostlyFull] {
            let mut phase = Phase::new(&queue, pace, &directory.0, dice.next());
            let stalled = phase.run(PHASE.min(end.saturating_duration_since(Instant::now())));
            let kills = phase.kills;
            let before = totals.violations;
            phase.settle(totals);
            totals.violations += u64::from(stalled > SAVED);
            slowest = slowest.max(stalled);
            println!(
                "soak: {pace:?}, {messages} messages at most: {kills} kills, {} violations, stall {stalled:?}",
                totals.violations - before
            );
            if !queue.is_empty() {
                totals.violations += 1;
                println!("soak: something is left in {queue:?}");
            }
        }
    }
    slowest
}

/// One crew on one queue at one pace.
struct Phase {
    queue: Queue<[u8]>,
    pace: Pace,
    directory: PathBuf,
    dice: Dice,
    stage: AtomicValue<u32>,
    moves: AtomicValue<u64>,
    /// Who is at work, and as which number; producers first.
    crew: Vec<(Process<()>, u32)>,
    hired: u32,
    producers: Vec<u32>,
    consumers: Vec<u32>,
    killed: Vec<u32>,
    kills: u64,
    stops: u64,
}

impl Phase {
    fn new(queue: &Queue<[u8]>, pace: Pace, directory: &Path, seed: u64) -> Self {
        let mut this = Self {
            queue: queue.clone(),
            pace,
            directory: directory.to_owned(),
            dice: Dice::new(seed),
            stage: AtomicValue::new(Stage::WORK).unwrap(),
            moves: AtomicValue::new(0).unwrap(),
            crew: Vec::new(),
            hired: 0,
            producers: Vec::new(),
            consumers: Vec::new(),
            killed: Vec::new(),
            kills: 0,
            stops: 0,
        };
        for place in 0..2 * CREW {
            let hired = this.hire(place);
            this.crew.push(hired);
        }
        this
    }

    fn hire(&mut self, place: usize) -> (Process<()>, u32) {
        let me = self.hired;
        self.hired += 1;
        let role = if place < CREW { Role::Producer } else { Role::Consumer };
        let job = Job {
            queue: self.queue.clone(),
            me,
            pace: self.pace,
            seed: self.dice.next(),
            file: ledger::path(&self.directory, role, me),
            stage: self.stage.clone(),
            moves: self.moves.clone(),
        };
        match role {
            Role::Producer => self.producers.push(me),
            Role::Consumer => self.consumers.push(me),
        }
        (spawn(if role == Role::Producer { produce } else { consume }, job), me)
    }

    /// Kills and stops until the time is over, then lets everybody finish.
    fn run(&mut self, length: Duration) -> Duration {
        let (moves, done) = (self.moves.clone(), AtomicBool::new(false));
        let slowest = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| watch(&moves, &done, &slowest));
            let end = Instant::now() + length;
            while Instant::now() < end {
                thread::sleep(Duration::from_micros(self.dice.below(20_000)));
                let place = usize::try_from(self.dice.below(2 * CREW as u64)).unwrap();
                if self.dice.below(8) == 0 {
                    self.stops += 1;
                    signal(self.crew[place].0.pid(), libc::SIGSTOP);
                    thread::sleep(Duration::from_micros(self.dice.below(20_000)));
                    signal(self.crew[place].0.pid(), libc::SIGCONT);
                } else {
                    self.kills += 1;
                    common::kill(&self.crew[place].0);
                    self.killed.push(self.crew[place].1);
                    self.crew[place] = self.hire(place);
                }
            }
            self.stage.store(Stage::FINISH);
            let (producers, consumers) = self.crew.split_at(CREW);
            producers.iter().for_each(|(producer, _)| common::value(producer));
            consumers.iter().for_each(|_| self.queue.put_bytes(LAST).unwrap());
            consumers.iter().for_each(|(consumer, _)| common::value(consumer));
            done.store(true, Relaxed);
        });
        Duration::from_nanos(slowest.into_inner())
    }

    /// Compares the files.
    fn settle(self, totals: &mut Totals) {
        let mut ledger = Ledger::default();
        for producer in &self.producers {
            ledger.put(&self.directory, *producer, self.killed.contains(producer));
        }
        for consumer in &self.consumers {
            ledger.got(&self.directory, *consumer);
        }
        let killed_consumers = self.consumers.iter().filter(|consumer| self.killed.contains(consumer)).count();
        let verdict = ledger.settle(u64::try_from(killed_consumers).unwrap());
        verdict.complaints.iter().take(10).for_each(|complaint| println!("soak: {complaint}"));
        totals.operations += verdict.operations;
        totals.lost += verdict.lost;
        totals.violations += u64::try_from(verdict.complaints.len()).unwrap();
        totals.kills += self.kills;
        totals.stops += self.stops;
    }
}

/// Notes the longest time in which nothing moved; gives up when it is too long.
fn watch(moves: &AtomicValue<u64>, done: &AtomicBool, slowest: &AtomicU64) {
    const PAUSE: Duration = Duration::from_micros(500);
    let (mut last, mut still, mut before) = (0, Duration::ZERO, Instant::now());
    while !done.load(Relaxed) {
        // When the machine stands still, so do we: that does not count.
        still += before.elapsed().min(20 * PAUSE);
        before = Instant::now();
        let now = moves.load();
        if now != last {
            (last, still) = (now, Duration::ZERO);
        }
        slowest.fetch_max(u64::try_from(still.as_nanos()).unwrap(), Relaxed);
        if still > STALL {
            println!("soak: nothing has moved for {still:?}");
            println!("soak: 0 operations, 0 kills, 1 violations, 0 leaked");
            process::exit(1);
        }
        thread::sleep(PAUSE);
    }
}

/// Whatever may leak: objects, descriptors, children.
fn possessions() -> Vec<String> {
    let names = |path: &str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let objects = names(Namespace::current().unwrap().path().to_str().unwrap());
    let mut all: Vec<String> = objects.iter().map(|path| path.display().to_string()).collect();
    // The directory handle that lists them is open, too: same number each time.
    all.push(format!("{} descriptors", names("/proc/self/fd").len()));
    let children =
        names("/proc/self/task").iter().filter_map(|task| fs::read_to_string(task.join("children")).ok()).collect::<String>();
    all.extend(children.split_whitespace().map(|pid| format!("child {pid}")));
    all
}

/// A directory for the files of this run, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(common::unique("soak"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
