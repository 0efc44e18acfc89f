//! `lock/…`: take a lock, add to a shared counter, release the lock.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc::Lock;

use crate::harness::{OURS, Row};
use crate::os::{self, Apart};
use crate::peers::limit::SpinLock;
use crate::peers::pthread::RobustMutex;
use crate::peers::{python, std_sync};
use crate::race::{How, Job, Lap, Place, race};

/// A rival's lock, as one worker uses it.
pub(crate) trait BenchLock {
    /// Calls `section` with the lock held.
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String>;
}

/// The work of a row: how many workers use the lock, and what they do between two sections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contest {
    pub(crate) workers: usize,
    /// The other work between two sections, in nanoseconds, approximately.
    pub(crate) outside: u64,
}

pub(crate) fn rows() -> Vec<Row> {
    let contest = |workers, outside| Contest { workers, outside };
    vec![row("uncontended", contest(1, 0)), row("work2", contest(2, 150)), row("tight2", contest(2, 0))]
}

fn row(name: &str, contest: Contest) -> Row {
    let mut row = Row::new(format!("lock/{name}"), Place::Cross);
    row.add(OURS, How::Processes, move |n| {
        let lock = Lock::new().map_err(|problem| problem.to_string())?;
        contest.run(How::Processes, n, || lock.clone())
    });
    row.add("limit", How::Processes, move |n| {
        let lock: &'static Apart<SpinLock> = os::shared();
        contest.run(How::Processes, n, || lock)
    });
    row.add("pthread-robust", How::Processes, move |n| {
        let lock = RobustMutex::shared()?;
        contest.run(How::Processes, n, || lock)
    });
    std_sync::lock(&mut row, contest);
    #[cfg(feature = "rivals")]
    crate::peers::parking_lot::lock(&mut row, contest);
    if python::is_here() {
        row.add_slow("python", How::Processes, 5000, move |n| python::lock("Lock", contest, n));
    }
    row
}

impl Contest {
    /// Returns the nanoseconds for each section, counted over all workers.
    ///
    /// The workers go on until the counter shows that all together have done enough. So all of them compete
    /// to the end.
    pub(crate) fn run<L>(self, how: How, sections: u64, mut lock: impl FnMut() -> L) -> Result<f64, String>
    where
        L: BenchLock + Send + 'static,
    {
        let tally: &'static Tally = os::shared();
        let (warm_up, turns) = (sections / 10, turns_for(self.outside));
        let jobs = (0..self.workers).map(|_| {
            let lock = lock();
            let job: Job =
                Box::new(move |lap| compete(&lock, tally, [warm_up, warm_up + sections], turns, lap));
            job
        });
        let finish = race(how, Place::Cross, jobs.collect())?;
        if finish.noted != tally.load(Relaxed) {
            let (sections, counted) = (finish.noted, tally.load(Relaxed));
            return Err(format!("two workers had the lock at once: {sections} sections, counted {counted}"));
        }
        Ok(finish.each(sections))
    }
}

/// The shared counter. It is loaded and stored in two steps, so two workers in the lock at once lose a count.
type Tally = Apart<AtomicU64>;

fn compete(
    lock: &impl BenchLock,
    tally: &Tally,
    [warm_up, all]: [u64; 2],
    turns: u32,
    lap: &Lap,
) -> Result<(), String> {
    let count = || {
        let number = tally.load(Relaxed);
        tally.store(number + 1, Relaxed);
        number
    };
    let mut own = 0;
    let mut until = |end: u64| {
        loop {
            let number = lock.with(count)?;
            own += 1;
            if number + 1 >= end {
                return Ok::<_, String>(());
            }
            spend(turns);
        }
    };
    lap.ready();
    until(warm_up)?;
    lap.start();
    until(all)?;
    lap.stop();
    lap.note(own);
    Ok(())
}

impl BenchLock for Lock {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.lock().map_err(|problem| problem.to_string())?;
        Ok(section())
    }
}

impl BenchLock for &Apart<SpinLock> {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        Ok(SpinLock::with(self, section))
    }
}

impl BenchLock for RobustMutex {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        self.lock()?;
        let result = section();
        self.unlock();
        Ok(result)
    }
}

#[inline]
fn spend(turns: u32) {
    for turn in 0..turns {
        black_box(turn);
    }
}

/// Returns how many turns of [`spend`] take this many nanoseconds; measured once.
fn turns_for(nanoseconds: u64) -> u32 {
    static THOUSAND: OnceLock<u64> = OnceLock::new();
    if nanoseconds == 0 {
        return 0;
    }
    let thousand = THOUSAND.get_or_init(|| {
        let once = || {
            let start = os::now();
            spend(1000);
            os::now() - start
        };
        (0..1000).map(|_| once()).min().unwrap_or(1).max(1)
    });
    u32::try_from(nanoseconds * 1000 / thousand).unwrap_or(1)
}
