//! The parent's part: starts the workers, hands out the files, and replaces workers that die.

use std::{
    error::Error,
    mem,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use multiproc::process::{Builder, Exit};
use multiproc::{Capacity, GetError, JobLimits, JoinableQueue, Process, PutError, Queue, Value};

use crate::{Desk, Part, Progress, Task, count::Files, kill::KillPlan, ledger::Ledger, report::Totals, work};

/// How often the parent checks its workers and updates the progress bar.
const TICK: Duration = Duration::from_millis(20);
/// Jobs waiting for each worker: enough to keep it busy.
const JOBS_PER_WORKER: usize = 8;
/// The number of unexpected deaths of workers after which the parent gives up.
const MOST_DEATHS: u32 = 100;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The workers, and the state of the run.
pub struct Crew<'a> {
    files: &'a Files,
    /// How many of the files were put on the queue.
    put: usize,
    ledger: Ledger,
    totals: Totals,
    /// The arguments of the next worker.
    desk: Desk,
    workers: Vec<Worker>,
    deaths: u32,
}

struct Worker {
    number: u32,
    process: Process<std::result::Result<(), String>>,
}

impl<'a> Crew<'a> {
    /// Starts `workers` workers, which wait for jobs.
    pub fn start(files: &'a Files, workers: usize) -> Result<Self> {
        let desk = Desk {
            worker: 0,
            // Unlimited: a worker is killed on purpose, not because its job is bad.
            jobs: JoinableQueue::new(JobLimits::from(workers * JOBS_PER_WORKER).unlimited_deliveries())?,
            results: Queue::new(Capacity::messages(1024).bytes(8 << 20))?,
            progress: Value::new(Progress { files: 0, bytes: 0 })?,
        };
        let ledger = Ledger::new(files.paths.len());
        let totals = Totals { skipped: files.skipped.clone(), ..Totals::default() };
        let mut crew = Self { files, put: 0, ledger, totals, desk, workers: Vec::new(), deaths: 0 };
        for _ in 0..workers {
            let worker = crew.hire()?;
            crew.workers.push(worker);
        }
        Ok(crew)
    }

    /// Counts all files, and ends the workers.
    pub fn count(mut self, mut kills: KillPlan) -> Result<Totals> {
        let bar = ProgressBar::new(self.files.bytes)
            .with_style(ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {msg}, {elapsed}")?);
        let mut looked = Instant::now();
        // Also waits for jobs that are done once more than needed.
        while !(self.ledger.is_complete() && self.desk.jobs.unfinished() == 0) {
            self.hand_out()?;
            while let Some(victim) = kills.due(self.ledger.done(), self.workers.len()) {
                self.workers[victim].process.kill()?;
                self.replace(victim)?;
            }
            match self.desk.results.get_timeout(TICK) {
                Ok(part) => self.take(part)?,
                Err(GetError::Empty) => {}
                Err(error) => return Err(error.into()),
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.replace_dead()?;
                let progress = self.desk.progress.get()?;
                bar.set_position(progress.bytes.min(self.files.bytes));
                bar.set_message(format!("{} files", progress.files));
            }
        }
        bar.finish_and_clear();
        self.dismiss()?;
        Ok(mem::take(&mut self.totals))
    }

    fn hire(&mut self) -> Result<Worker> {
        let desk = self.desk.clone();
        self.desk.worker += 1;
        self.totals.workers.entry(desk.worker).or_default();
        let number = desk.worker;
        // A daemon: if the parent fails or is killed, its workers end, too.
        let process = Builder::new().name("wordcount-worker").daemon(true).spawn(work, desk)?;
        Ok(Worker { number, process })
    }

    /// Puts the next files on the queue, as many as fit.
    fn hand_out(&mut self) -> Result<()> {
        while let Some(path) = self.files.paths.get(self.put) {
            let task = Task { file: u32::try_from(self.put)?, path: path.clone().into_os_string() };
            match self.desk.jobs.try_put(task) {
                Ok(()) => self.put += 1,
                Err(PutError::Full(_) | PutError::Busy(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, part: Part) -> Result<()> {
        let (file, worker) = (part.file, part.worker);
        if let Some(outcome) = self.ledger.arrived(part)? {
            self.totals.add(worker, &self.files.paths[file as usize], outcome);
        }
        Ok(())
    }

    /// Replaces workers that died without being killed by this program.
    fn replace_dead(&mut self) -> Result<()> {
        for index in 0..self.workers.len() {
            if !self.workers[index].process.is_alive() {
                self.deaths += 1;
                if self.deaths > MOST_DEATHS {
                    return Err("workers keep dying, and this program does not kill them".into());
                }
                self.replace(index)?;
            }
        }
        Ok(())
    }

    /// Replaces a dying worker by a new one. The queue delivers the dead worker's job again.
    fn replace(&mut self, index: usize) -> Result<()> {
        let fresh = self.hire()?;
        let dead = mem::replace(&mut self.workers[index], fresh);
        if let Exit::Value(Err(message)) = dead.process.join()? {
            return Err(format!("worker {}: {message}", dead.number).into());
        }
        self.totals.workers.entry(dead.number).or_default().died = true;
        Ok(())
    }

    /// Ends the workers, when everything is done, and waits for them.
    fn dismiss(&mut self) -> Result<()> {
        self.totals.redelivered = self.ledger.redelivered();
        self.desk.jobs.close();
        self.desk.results.close();
        for worker in self.workers.drain(..) {
            worker.process.join()?;
        }
        Ok(())
    }
}
