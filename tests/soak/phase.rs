//! One set of processes on one queue at one pace.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::AtomicValue;
use multiproc::process::{Exit, Process};
use multiproc::queue::JoinableQueue;

use crate::Totals;
use crate::common::{self, Dice, signal, spawn};
use crate::jobs::Accounts;
use crate::ledger::Ledger;
use crate::notes::{Board, Notebook, Stage, now};
use crate::workers::{Job, Kind, LAST, Line, Pace, Role, Shape, consume, notebook, produce};

const PER_SIDE: usize = 3;
/// The longest time from a blow to the next, in microseconds; half of it on average.
const PEACE: u64 = 4000;
/// The most blows while the last jobs are done.
const BLOWS: u32 = 50;
/// The longest stop of a process, in microseconds.
const STANDSTILL: u64 = 20_000;
/// After this nothing will move any more.
const STALL: Duration = Duration::from_secs(20);
/// After this a phase will not end any more, though something moves.
const ENDLESS: Duration = Duration::from_secs(60);

pub(crate) struct Phase {
    line: Line,
    pace: Pace,
    shape: Shape,
    directory: PathBuf,
    dice: Dice,
    board: Board,
    /// The running processes; producers first.
    workers: Vec<Worker>,
    /// The stopped processes, and until when.
    stopped: Vec<(Instant, usize)>,
    producers: Vec<(u32, Rc<Notebook>)>,
    consumers: Vec<(u32, Rc<Notebook>)>,
    /// The killed processes, each with a moment before its death.
    killed: HashMap<u32, u64>,
    inside: u64,
    stops: u64,
}

struct Worker {
    process: Process<()>,
    notebook: Rc<Notebook>,
    me: u32,
}

impl Phase {
    pub(crate) fn new(line: &Line, pace: Pace, shape: Shape, directory: &Path, seed: u64) -> Self {
        let mut this = Self {
            line: line.clone(),
            pace,
            shape,
            directory: directory.to_owned(),
            dice: Dice::new(seed),
            board: Board::new(),
            workers: Vec::new(),
            stopped: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            killed: HashMap::new(),
            inside: 0,
            stops: 0,
        };
        for index in 0..2 * PER_SIDE {
            let started = this.start(index);
            this.workers.push(started);
        }
        this
    }

    fn start(&mut self, index: usize) -> Worker {
        let me = u32::try_from(self.producers.len() + self.consumers.len()).unwrap();
        let role = if index < PER_SIDE { Role::Producer } else { Role::Consumer };
        let job = Job {
            line: self.line.clone(),
            me,
            pace: self.pace,
            shape: self.shape,
            seed: self.dice.next(),
            directory: self.directory.clone(),
            board: self.board.clone(),
        };
        let notebook = Rc::new(notebook(&self.directory, role, me));
        match role {
            Role::Producer => self.producers.push((me, Rc::clone(&notebook))),
            Role::Consumer => self.consumers.push((me, Rc::clone(&notebook))),
        }
        Worker { process: spawn(if role == Role::Producer { produce } else { consume }, job), notebook, me }
    }

    /// Kills and stops until the time is over, then lets all processes finish. Returns the longest time in
    /// which nothing moved.
    pub(crate) fn run(&mut self, length: Duration) -> Duration {
        let (moves, done) = (self.board.moves.clone(), AtomicBool::new(false));
        let slowest = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| watch(&moves, &done, &slowest));
            let end = Instant::now() + length;
            while Instant::now() < end {
                thread::sleep(Duration::from_micros(self.dice.below(PEACE)));
                self.go_on(|until| until <= Instant::now());
                if self.dice.below(8) == 0 { self.stop() } else { self.kill(0..2 * PER_SIDE) }
            }
            self.go_on(|_| true);
            self.board.stage.store(Stage::FINISH);
            self.workers[..PER_SIDE].iter().for_each(|producer| common::value(&producer.process));
            match self.line.clone() {
                Line::Messages(queue) => (0..PER_SIDE).for_each(|_| queue.put_bytes(LAST).unwrap()),
                Line::Jobs(queue) => self.drain(&queue),
            }
            self.workers[PER_SIDE..].iter().for_each(|consumer| common::value(&consumer.process));
            done.store(true, Relaxed);
        });
        Duration::from_nanos(slowest.into_inner())
    }

    /// Lets the consumers finish all jobs, while they are killed and a process joins.
    fn drain(&mut self, queue: &JoinableQueue<Vec<u8>>) {
        queue.close();
        thread::scope(|scope| {
            let joins = scope.spawn(|| queue.join().unwrap());
            for _ in 0..BLOWS {
                if joins.is_finished() {
                    break;
                }
                thread::sleep(Duration::from_micros(self.dice.below(PEACE)));
                self.kill(PER_SIDE..2 * PER_SIDE);
            }
        });
    }

    /// Kills one, two or three of them at once, and starts others. A stopped process may be among them: it
    /// dies where it stands.
    fn kill(&mut self, of: Range<usize>) {
        let mut indices: Vec<usize> = (0..1 + self.dice.below(3)).map(|_| self.any_of(&of)).collect();
        indices.sort_unstable();
        indices.dedup();
        for index in &indices {
            self.killed.insert(self.workers[*index].me, now());
            self.workers[*index].process.kill().unwrap();
        }
        for index in indices {
            self.stopped.retain(|(_, stopped)| *stopped != index);
            let Worker { process, notebook, me } = &self.workers[index];
            match process.join().unwrap() {
                Exit::Signal(libc::SIGKILL) => self.inside += u64::from(notebook.is_inside()),
                // All is done.
                Exit::Value(()) if of.start > 0 => drop(self.killed.remove(me)),
                exit => panic!("{exit:?}"),
            }
            self.workers[index] = self.start(index);
        }
    }

    fn any_of(&mut self, of: &Range<usize>) -> usize {
        of.start + usize::try_from(self.dice.below(of.len() as u64)).unwrap()
    }

    fn stop(&mut self) {
        let index = self.any_of(&(0..2 * PER_SIDE));
        self.stops += 1;
        signal(self.workers[index].process.pid(), libc::SIGSTOP);
        let until = Instant::now() + Duration::from_micros(self.dice.below(STANDSTILL));
        self.stopped.push((until, index));
    }

    fn go_on(&mut self, may: impl Fn(Instant) -> bool) {
        let workers = &self.workers;
        self.stopped.retain(|(until, index)| {
            if may(*until) {
                signal(workers[*index].process.pid(), libc::SIGCONT);
            }
            !may(*until)
        });
    }

    /// Compares the notes.
    pub(crate) fn settle(self, totals: &mut Totals) {
        let verdict = match (&self.line, self.shape.kind) {
            (Line::Jobs(queue), Kind::Jobs(most)) => {
                let letters = queue.dead_letters().list().unwrap();
                let mut accounts = Accounts::default();
                self.producers
                    .iter()
                    .for_each(|(me, notes)| accounts.put(notes, *me, self.killed.contains_key(me)));
                self.consumers
                    .iter()
                    .for_each(|(me, notes)| accounts.got(notes, *me, self.killed.get(me).copied()));
                letters.iter().for_each(|letter| accounts.dead_letter(letter, most));
                let (verdict, redelivered) = accounts.settle();
                totals.redelivered += redelivered;
                totals.letters += letters.len() as u64;
                verdict
            }
            _ => {
                let (mut ledger, at_once) = (Ledger::default(), self.shape.at_once);
                self.producers
                    .iter()
                    .for_each(|(me, notes)| ledger.put(notes, *me, self.killed.contains_key(me), at_once));
                self.consumers.iter().for_each(|(me, notes)| ledger.got(notes, *me));
                let killed = self.consumers.iter().filter(|(me, _)| self.killed.contains_key(me)).count();
                let verdict = ledger.settle((killed * at_once) as u64);
                totals.lost += verdict.lost;
                verdict
            }
        };
        verdict.complaints.iter().take(10).for_each(|complaint| println!("soak: {complaint}"));
        totals.operations += verdict.operations;
        totals.violations += verdict.complaints.len() as u64;
        totals.kills += self.killed.len() as u64;
        totals.inside += self.inside;
        totals.stops += self.stops;
        self.producers.iter().chain(&self.consumers).for_each(|(_, notebook)| notebook.remove());
    }
}

/// Notes the longest time in which nothing moved; gives up when it is too long.
fn watch(moves: &AtomicValue<u64>, done: &AtomicBool, slowest: &AtomicU64) {
    const PAUSE: Duration = Duration::from_micros(500);
    let (mut last, mut still, mut before) = (0, Duration::ZERO, Instant::now());
    let begun = before;
    while !done.load(Relaxed) {
        // When the machine stands still, so does this process: that does not count.
        still += before.elapsed().min(20 * PAUSE);
        before = Instant::now();
        let now = moves.load();
        if now != last {
            (last, still) = (now, Duration::ZERO);
        }
        slowest.fetch_max(u64::try_from(still.as_nanos()).unwrap(), Relaxed);
        if still > STALL || begun.elapsed() > ENDLESS {
            println!("soak: nothing has moved for {still:?}, no end after {:?}", begun.elapsed());
            println!("soak: 0 operations, 0 kills, 1 violations, 0 leaked");
            process::exit(1);
        }
        thread::sleep(PAUSE);
    }
}
