//! `idle/sleeper`: how often per second an idle waiter wakes.

use std::fs;
use std::sync::{Condvar, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use multiproc::{Barrier, Condition, Event, Lock, Queue, RwLock, Semaphore};

use crate::harness::{OURS, Row};
use crate::race::{How, Place};

/// The time until all waiters sleep and their brief sleeps at the start are over.
const SETTLING: Duration = Duration::from_millis(300);
/// The time for which wake-ups are counted, in milliseconds.
const WATCHED: u64 = 2500;

pub(crate) fn rows() -> Vec<Row> {
    let mut row = Row::new("idle/sleeper", Place::Free);
    row.unit = "/s";
    row.add_fixed(OURS, How::Threads, WATCHED, |milliseconds| {
        let waiters = waiters().map_err(|problem| problem.to_string())?;
        Ok(wakes(waiters, milliseconds))
    });
    row.add_fixed("std", How::Threads, WATCHED, |milliseconds| {
        let waiter = || {
            let (mutex, never) = (Mutex::new(()), Condvar::new());
            drop(mutex.lock().map(|guard| drop(never.wait_while(guard, |()| true))));
        };
        Ok(wakes(vec![Box::new(waiter)], milliseconds))
    });
    vec![row]
}

type Waiter = Box<dyn FnOnce() + Send>;

/// Returns a waiter of each kind. This thread holds what it waits for, or it never happens.
fn waiters() -> Result<Vec<Waiter>, Box<dyn std::error::Error>> {
    let (empty, full) = (Queue::<u64>::new(1)?, Queue::<u64>::new(1)?);
    full.put(1)?;
    let (lock, other, rwlock, semaphore) = (Lock::new()?, Lock::new()?, RwLock::new()?, Semaphore::new(1)?);
    let (event, barrier, condition) = (Event::new()?, Barrier::new(2)?, Condition::new()?);
    // Held until this process ends.
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

fn wakes(waiters: Vec<Waiter>, milliseconds: u64) -> f64 {
    let count = waiters.len();
    for waiter in waiters {
        drop(spawn(waiter));
    }
    sleep(SETTLING);
    let before = sleeps();
    sleep(Duration::from_millis(milliseconds));
    // This thread's own sleep is one of them.
    (sleeps() - before).saturating_sub(1) as f64 * 1000.0 / (milliseconds * count as u64) as f64
}

/// Returns how often the threads of this process have gone to sleep so far.
fn sleeps() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let number = |line: &str| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok();
    let sleeps = |status: String| status.lines().find_map(number);
    tasks.filter_map(|task| sleeps(fs::read_to_string(task.path().join("status")).ok()?)).sum()
}
