//! One crew on one queue at one pace.

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
use crate::roles::{Job, Kind, LAST, Line, Pace, Role, Shape, consume, notebook, produce};

const CREW: usize = 3;
/// From one blow to the next, in microseconds, at most; half of it in the mean.
const PEACE: u64 = 4000;
/// Blows while the last jobs are done, at most.
const BLOWS: u32 = 50;
/// How long somebody stands still, in microseconds, at most.
const STANDSTILL: u64 = 20_000;
/// After this nothing will move any more.
const STALL: Duration = Duration::from_secs(20);

pub(crate) struct Phase {
    line: Line,
    pace: Pace,
    shape: Shape,
    directory: PathBuf,
    dice: Dice,
    board: Board,
    /// Who is at work; producers first.
    crew: Vec<Worker>,
    /// Who stands still, and until when.
    stopped: Vec<(Instant, usize)>,
    producers: Vec<(u32, Rc<Notebook>)>,
    consumers: Vec<(u32, Rc<Notebook>)>,
    /// Who was killed, and a moment before that.
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
            crew: Vec::new(),
            stopped: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            killed: HashMap::new(),
            inside: 0,
            stops: 0,
        };
        for place in 0..2 * CREW {
            let hired = this.hire(place);
            this.crew.push(hired);
        }
        this
    }

    fn hire(&mut self, place: usize) -> Worker {
        let me = u32::try_from(self.producers.len() + self.consumers.len()).unwrap();
        let role = if place < CREW { Role::Producer } else { Role::Consumer };
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

    /// Kills and stops until the time is over, then lets everybody finish. The longest time in which nothing moved.
    pub(crate) fn run(&mut self, length: Duration) -> Duration {
        let (moves, done) = (self.board.moves.clone(), AtomicBool::new(false));
        let slowest = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| watch(&moves, &done, &slowest));
            let end = Instant::now() + length;
            while Instant::now() < end {
                thread::sleep(Duration::from_micros(self.dice.below(PEACE)));
                self.go_on(|until| until <= Instant::now());
                if self.dice.below(8) == 0 { self.stop() } else { self.kill(0..2 * CREW) }
            }
            self.go_on(|_| true);
            self.board.stage.store(Stage::FINISH);
            self.crew[..CREW].iter().for_each(|producer| common::value(&producer.process));
            match self.line.clone() {
                Line::Messages(queue) => (0..CREW).for_each(|_| queue.put_bytes(LAST).unwrap()),
                Line::Jobs(queue) => self.drain(&queue),
            }
            self.crew[CREW..].iter().for_each(|consumer| common::value(&consumer.process));
            done.store(true, Relaxed);
        });
        Duration::from_nanos(slowest.into_inner())
    }

    /// Lets the consumers get all jobs done, while they are killed and somebody joins.
    fn drain(&mut self, queue: &JoinableQueue<Vec<u8>>) {
        queue.close();
        thread::scope(|scope| {
            let joins = scope.spawn(|| queue.join().unwrap());
            for _ in 0..BLOWS {
                if joins.is_finished() {
                    break;
                }
                thread::sleep(Duration::from_micros(self.dice.below(PEACE)));
                self.kill(CREW..2 * CREW);
            }
        });
    }

    /// Kills one, two or three of them at once, and hires others. It may be one that stands still: where it stands, it dies.
    fn kill(&mut self, of: Range<usize>) {
        let mut places: Vec<usize> = (0..1 + self.dice.below(3)).map(|_| self.place(&of)).collect();
        places.sort_unstable();
        places.dedup();
        for place in &places {
            self.killed.insert(self.crew[*place].me, now());
            self.crew[*place].process.kill().unwrap();
        }
        for place in places {
            self.stopped.retain(|(_, stopped)| *stopped != place);
            let Worker { process, notebook, me } = &self.crew[place];
            match process.join().unwrap() {
                Exit::Signal(libc::SIGKILL) => self.inside += u64::from(notebook.is_inside()),
                // All is done.
                Exit::Value(()) if of.start > 0 => drop(self.killed.remove(me)),
                exit => panic!("{exit:?}"),
            }
            self.crew[place] = self.hire(place);
        }
    }

    fn place(&mut self, of: &Range<usize>) -> usize {
        of.start + usize::try_from(self.dice.below(of.len() as u64)).unwrap()
    }

    fn stop(&mut self) {
        let place = self.place(&(0..2 * CREW));
        self.stops += 1;
        signal(self.crew[place].process.pid(), libc::SIGSTOP);
        let until = Instant::now() + Duration::from_micros(self.dice.below(STANDSTILL));
        self.stopped.push((until, place));
    }

    fn go_on(&mut self, may: impl Fn(Instant) -> bool) {
        let crew = &self.crew;
        self.stopped.retain(|(until, place)| {
            if may(*until) {
                signal(crew[*place].process.pid(), libc::SIGCONT);
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
                self.producers.iter().for_each(|(me, notes)| accounts.put(notes, *me, self.killed.contains_key(me)));
                self.consumers.iter().for_each(|(me, notes)| accounts.got(notes, *me, self.killed.get(me).copied()));
                letters.iter().for_each(|letter| accounts.letter(letter, most));
                let (verdict, redelivered) = accounts.settle();
                totals.redelivered += redelivered;
                totals.letters += letters.len() as u64;
                verdict
            }
            _ => {
                let (mut ledger, at_once) = (Ledger::default(), self.shape.at_once);
                self.producers.iter().for_each(|(me, notes)| ledger.put(notes, *me, self.killed.contains_key(me), at_once));
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
