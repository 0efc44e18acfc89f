//! parking_lot, between threads.

use std::sync::Arc;

use parking_lot::{Mutex, ReentrantMutex, RwLock};

use crate::harness::Row;
use crate::lock::{BenchLock, Contest};
use crate::race::How;
use crate::value::run_as;

pub(crate) fn lock(row: &mut Row, contest: Contest) {
    row.add("parking_lot", How::Threads, move |n| {
        let lock = Arc::new(Mutex::new(()));
        contest.run(How::Threads, n, || lock.clone())
    });
}

pub(crate) fn recursive(row: &mut Row, contest: Contest) {
    row.add("parking_lot", How::Threads, move |n| {
        let lock = Arc::new(ReentrantMutex::new(()));
        contest.run(How::Threads, n, || lock.clone())
    });
}

pub(crate) fn reading(row: &mut Row, contest: Contest) {
    row.add("parking_lot", How::Threads, move |n| {
        let lock = Arc::new(RwLock::new(()));
        contest.run(How::Threads, n, || Reading(lock.clone()))
    });
}

pub(crate) fn writing(row: &mut Row, contest: Contest) {
    row.add("parking_lot", How::Threads, move |n| {
        let lock = Arc::new(RwLock::new(()));
        contest.run(How::Threads, n, || Writing(lock.clone()))
    });
}

pub(crate) fn locked_add(row: &mut Row) {
    row.add("parking_lot", How::Threads, |n| {
        let number = Arc::new(Mutex::new(0));
        let reader = number.clone();
        let add = move || {
            *number.lock() += 1;
            Ok(())
        };
        run_as(How::Threads, n, add, || *reader.lock())
    });
}

impl BenchLock for Arc<Mutex<()>> {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.lock();
        Ok(section())
    }
}

impl BenchLock for Arc<ReentrantMutex<()>> {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.lock();
        Ok(section())
    }
}

struct Reading(Arc<RwLock<()>>);

struct Writing(Arc<RwLock<()>>);

impl BenchLock for Reading {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.0.read();
        Ok(section())
    }
}

impl BenchLock for Writing {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.0.write();
        Ok(section())
    }
}
