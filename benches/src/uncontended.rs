//! `rlock/uncontended`, `rwlock/read|write`, `semaphore/uncontended`: the cost of a lock that no other worker
//! uses.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use multiproc::{RLock, RwLock, Semaphore};

use crate::harness::{OURS, Row};
use crate::lock::{BenchLock, Contest};
use crate::os::{self, Apart};
use crate::peers::pthread::{Posix, RobustMutex, RwMutex};
use crate::peers::python;
use crate::race::{How, Place};

const ALONE: Contest = Contest { workers: 1, outside: 0 };

pub(crate) fn rows() -> Vec<Row> {
    vec![recursive(), reading(), writing(), permits(), owned()]
}

fn recursive() -> Row {
    let mut row = Row::new("rlock/uncontended".to_owned(), Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let lock = RLock::new().map_err(|problem| problem.to_string())?;
        ALONE.run(How::Processes, n, || lock.clone())
    });
    add_limit(&mut row);
    row.add("pthread-robust", How::Processes, |n| {
        let lock = RobustMutex::recursive()?;
        ALONE.run(How::Processes, n, || lock)
    });
    #[cfg(feature = "rivals")]
    crate::peers::parking_lot::recursive(&mut row, ALONE);
    add_python(&mut row, "RLock");
    row
}

fn reading() -> Row {
    let mut row = Row::new("rwlock/read".to_owned(), Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let lock = RwLock::new().map_err(|problem| problem.to_string())?;
        ALONE.run(How::Processes, n, || Reading(lock.clone()))
    });
    add_limit(&mut row);
    row.add("pthread", How::Processes, |n| {
        let lock = RwMutex::shared()?;
        let reader = Pair { taken: lock, take: RwMutex::read, give: RwMutex::unlock };
        ALONE.run(How::Processes, n, || reader)
    });
    #[cfg(feature = "rivals")]
    crate::peers::parking_lot::reading(&mut row, ALONE);
    row
}

fn writing() -> Row {
    let mut row = Row::new("rwlock/write".to_owned(), Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let lock = RwLock::new().map_err(|problem| problem.to_string())?;
        ALONE.run(How::Processes, n, || Writing(lock.clone()))
    });
    add_limit(&mut row);
    row.add("pthread", How::Processes, |n| {
        let lock = RwMutex::shared()?;
        let writer = Pair { taken: lock, take: RwMutex::write, give: RwMutex::unlock };
        ALONE.run(How::Processes, n, || writer)
    });
    #[cfg(feature = "rivals")]
    crate::peers::parking_lot::writing(&mut row, ALONE);
    row
}

fn permits() -> Row {
    let mut row = Row::new("semaphore/uncontended".to_owned(), Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let semaphore = Semaphore::new(4).map_err(|problem| problem.to_string())?;
        ALONE.run(How::Processes, n, || semaphore.clone())
    });
    add_limit(&mut row);
    row.add("sem_t", How::Processes, |n| {
        let semaphore = Posix::shared(4)?;
        let pair = Pair { taken: semaphore, take: Posix::wait, give: Posix::post };
        ALONE.run(How::Processes, n, || pair)
    });
    add_python(&mut row, "Semaphore");
    row
}

fn owned() -> Row {
    let mut row = Row::new("semaphore/owned".to_owned(), Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let semaphore = Semaphore::new(4).map_err(|problem| problem.to_string())?;
        ALONE.run(How::Processes, n, || Owned(semaphore.clone()))
    });
    row
}

/// Two atomic read-modify-writes.
fn add_limit(row: &mut Row) {
    row.add("limit", How::Processes, |n| {
        let word: &'static Apart<AtomicU32> = os::shared();
        let take = |word: &'static Apart<AtomicU32>| {
            word.fetch_add(1, SeqCst);
            Ok(())
        };
        let give = |word: &'static Apart<AtomicU32>| {
            word.fetch_sub(1, SeqCst);
        };
        ALONE.run(How::Processes, n, || Pair { taken: word, take, give })
    });
}

fn add_python(row: &mut Row, class: &'static str) {
    if python::is_here() {
        row.add_slow("python", How::Processes, 5000, move |n| python::lock(class, ALONE, n));
    }
}

/// A lock without guards.
#[derive(Clone, Copy)]
struct Pair<T, A, B> {
    taken: T,
    take: A,
    give: B,
}

impl<T: Copy, A: Fn(T) -> Result<(), String>, B: Fn(T)> BenchLock for Pair<T, A, B> {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        (self.take)(self.taken)?;
        let result = section();
        (self.give)(self.taken);
        Ok(result)
    }
}

struct Reading(RwLock);

struct Writing(RwLock);

impl BenchLock for Reading {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.0.read().map_err(|problem| problem.to_string())?;
        Ok(section())
    }
}

impl BenchLock for Writing {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.0.write().map_err(|problem| problem.to_string())?;
        Ok(section())
    }
}

impl BenchLock for RLock {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.lock().map_err(|problem| problem.to_string())?;
        Ok(section())
    }
}

impl BenchLock for Semaphore {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _permit = self.acquire().map_err(|problem| problem.to_string())?;
        Ok(section())
    }
}

/// A semaphore whose permits are process-owned.
struct Owned(Semaphore);

impl BenchLock for Owned {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _permit = self.0.acquire_owned().map_err(|problem| problem.to_string())?;
        Ok(section())
    }
}
