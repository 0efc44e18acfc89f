//! One run: workers that are placed on CPUs, start together, and read the clock themselves.
//!
//! A parent that reads the clock shares the workers' CPUs and reads it late, by up to milliseconds: short
//! runs then look several times too fast. So the time of a run is from the first worker's start to the last
//! worker's end, each read by the worker.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc;

use crate::os::{self, Sharable};

/// Whether workers are processes or threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Processes,
    /// Of one process: for rivals that work within a process only.
    Threads,
}

/// The CPUs of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Worker i on CPU i % 2.
    Cross,
    /// All on one CPU.
    Same,
    /// As the scheduler decides.
    Free,
}

impl How {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Threads => "threads",
        }
    }
}

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cross => "cross",
            Self::Same => "same",
            Self::Free => "free",
        }
    }

    /// Returns the CPU of a worker.
    pub(crate) fn cpu(self, worker: usize) -> Option<usize> {
        match self {
            Self::Cross => Some(os::two_cpus()[worker % 2]),
            Self::Same => Some(os::two_cpus()[0]),
            Self::Free => None,
        }
    }
}

/// The work of one worker: set up, [`Lap::ready`], warm up, [`Lap::start`], work, [`Lap::stop`], check.
pub(crate) type Job = Box<dyn FnOnce(&Lap) -> Result<(), String> + Send>;

/// One worker's access to the shared board.
pub(crate) struct Lap {
    board: &'static Board,
    worker: usize,
}

impl Lap {
    /// Waits until all workers are set up.
    pub(crate) fn ready(&self) {
        self.board.missing.fetch_sub(1, SeqCst);
        while self.board.missing.load(Relaxed) != 0 {
            os::yield_now();
        }
    }

    /// Records the start, after the warm-up.
    pub(crate) fn start(&self) {
        self.board.marks[self.worker].start.store(os::now(), SeqCst);
    }

    /// Records the end.
    pub(crate) fn stop(&self) {
        self.board.marks[self.worker].stop.store(os::now(), SeqCst);
    }

    /// Adds to the sum that the parent checks at the end.
    pub(crate) fn note(&self, amount: u64) {
        self.board.noted.fetch_add(amount, SeqCst);
    }
}

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    /// From the first start to the last stop.
    pub(crate) elapsed: u64,
    /// The sum of all notes.
    pub(crate) noted: u64,
}

impl Finish {
    /// Returns the nanoseconds for each of this many operations.
    pub(crate) fn each(self, operations: u64) -> f64 {
        self.elapsed as f64 / operations as f64
    }
}

/// Runs the jobs at the same time, each by a worker of its own.
pub(crate) fn race(how: How, place: Place, jobs: Vec<Job>) -> Result<Finish, String> {
    let workers = jobs.len();
    assert!(workers <= MOST);
    let board: &'static Board = os::shared();
    board.missing.store(workers as u32, SeqCst);
    match how {
        How::Processes => processes(board, place, jobs)?,
        How::Threads => threads(board, place, jobs)?,
    }
    let marks = &board.marks[..workers];
    let start = marks.iter().map(|mark| mark.start.load(SeqCst)).min().unwrap_or(0);
    let stop = marks.iter().map(|mark| mark.stop.load(SeqCst)).max().unwrap_or(0);
    if start == 0 || stop <= start {
        return Err("a worker took no time".to_owned());
    }
    Ok(Finish { elapsed: stop - start, noted: board.noted.load(SeqCst) })
}

/// 64 producers, one consumer, and one to spare.
const MOST: usize = 66;

#[repr(C, align(128))]
struct Mark {
    start: AtomicU64,
    stop: AtomicU64,
}

struct Board {
    missing: AtomicU32,
    noted: AtomicU64,
    marks: [Mark; MOST],
    problem: [AtomicU8; 200],
}
// SAFETY: atomics only.
unsafe impl Sharable for Board {}

impl Board {
    fn complain(&self, problem: &str) {
        for (place, byte) in self.problem.iter().zip(problem.bytes()) {
            place.store(byte, SeqCst);
        }
    }

    fn complaint(&self) -> String {
        let bytes = self.problem.iter().map(|byte| byte.load(SeqCst)).take_while(|byte| *byte != 0);
        let text = String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned();
        if text.is_empty() { "a worker died".to_owned() } else { text }
    }
}

fn work(board: &'static Board, place: Place, worker: usize, job: Job) -> Result<(), String> {
    if let Some(cpu) = place.cpu(worker) {
        os::pin(cpu);
    }
    job(&Lap { board, worker })
}

fn processes(board: &'static Board, place: Place, jobs: Vec<Job>) -> Result<(), String> {
    let mut jobs: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
    let mut alive = Vec::new();
    for (worker, job) in jobs.iter_mut().enumerate() {
        let child = os::fork(|| match job.take().map(|job| work(board, place, worker, job)) {
            Some(Ok(())) => 0,
            Some(Err(problem)) => {
                board.complain(&problem);
                1
            }
            None => 1,
        });
        alive.push(child.map_err(|problem| problem.to_string())?);
    }
    let mut good = true;
    while !alive.is_empty() {
        let (pid, well) = os::wait_any().map_err(|problem| problem.to_string())?;
        alive.retain(|other| *other != pid);
        if !well && good {
            good = false;
            alive.iter().copied().for_each(os::kill);
        }
    }
    // This process's copies of the workers' handles live until here, so that it is the last user of each
    // object.
    drop(jobs);
    if good { Ok(()) } else { Err(board.complaint()) }
}

fn threads(board: &'static Board, place: Place, jobs: Vec<Job>) -> Result<(), String> {
    let (sender, results) = mpsc::channel();
    for (worker, job) in jobs.into_iter().enumerate() {
        let sender = sender.clone();
        // Not joined: after an error the other threads may wait for ever; they end with this process.
        std::thread::spawn(move || {
            let _ = sender.send(work(board, place, worker, job));
        });
    }
    drop(sender);
    results.iter().collect()
}
