//! `idle/sleeper`: how often in a second a thread wakes that waits for something that does not come.

use std::fs;
use std::sync::{Condvar, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use multiproc::{Barrier, Condition, Event, Lock, Queue, RwLock, Semaphore};

use crate::harness::{OURS, Row};
use crate::race::{How, Place};

/// Until everybody is asleep and has done what one does once.
const SETTLING: Duration = Duration::from_millis(300);
/// How long they are watched, in milliseconds.
const WATCHED: u64 = 2500;

pub(crate) fn rows() -> Vec<Row> {
    let mut row = Row::new("idle/sleeper", Place::Free);
    row.unit = "/s";
    row.add_fixed(OURS, How::Threads, WATCHED, |milliseconds| {
        let sleepers = sleepers().map_err(|problem| problem.to_string())?;
        Ok(wakes(sleepers, milliseconds))
    });
    row.add_fixed("std", How::Threads, WATCHED, |milliseconds| {
        let sleeper = || {
            let (mutex, never) = (Mutex::new(()), Condvar::new());
            drop(mutex.lock().map(|guard| drop(never.wait_while(guard, |()| true))));
        };
        Ok(wakes(vec![Box::new(sleeper)], milliseconds))
    });
    vec![row]
}

type Sleeper = Box<dyn FnOnce() + Send>;

/// One of each kind. What it waits for is held by this thread, or never comes.
fn sleepers() -> Result<Vec<Sleeper>, Box<dyn std::error::Error>> {
    let (empty, full) = (Queue::<u64>::new(1)?, Queue::<u64>::new(1)?);
    full.put(1)?;
    let (lock, other, rwlock, semaphore) = (Lock::new()?, Lock::new()?, RwLock::new()?, Semaphore::new(1)?);
    let (event, barrier, condition) = (Event::new()?, Barrier::new(2)?, Condition::new()?);
    // Held until this process ends, which is soon.
    std::mem::forget((lock.clone().lock()?, rwlock.clone().read()?, semaphore.clone().acquire()?));
    Ok(vec![
        Box::new(move || drop(empty.get())),
        Box::new(move || drop(full.put(2))),
        Box::new(move || drop(lock.lock())),
        Box::new(move || drop(rwlock.write())),
        Box::new(move || drop(semaphore.acquire())),
        Box::new(move || event.wait()),
        Box::new(move || drop(barrier.wait())),
        Box::new(move || drop(other.lock().map(|guard| drop(condition.wait_while(guard, |_| true))))),
    ])
}

fn wakes(sleepers: Vec<Sleeper>, milliseconds: u64) -> f64 {
    let count = sleepers.len();
    for sleeper in sleepers {
        drop(spawn(sleeper));
    }
    sleep(SETTLING);
    let before = naps();
    sleep(Duration::from_millis(milliseconds));
    // This thread's own sleep is one of them.
    (naps() - before).saturating_sub(1) as f64 * 1000.0 / (milliseconds * count as u64) as f64
}

/// How often the threads of this process have gone to sleep so far.
fn naps() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let naps = |status: String| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
    };
    tasks.filter_map(|task| naps(fs::read_to_string(task.path().join("status")).ok()?)).sum()
}
