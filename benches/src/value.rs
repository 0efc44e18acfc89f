//! `value/…`: add one to a shared number, by one worker. `array/…`: copy 64 MiB into shared memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use multiproc::{Array, AtomicValue, Value};

use crate::harness::{OURS, Row};
use crate::os::{self, Apart};
use crate::peers::limit::SpinLock;
use crate::peers::pthread::RobustMutex;
use crate::peers::{python, std_sync};
use crate::race::{How, Job, Place, race};

pub(crate) fn rows() -> Vec<Row> {
    vec![locked(), atomic(), copy()]
}

fn locked() -> Row {
    let mut row = Row::new("value/locked-add", Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let value = Value::new(0u64).map_err(|problem| problem.to_string())?;
        let reader = value.clone();
        let add =
            move || value.update(|number| *number += 1).map(|_| ()).map_err(|problem| problem.to_string());
        run(n, add, || reader.get().unwrap_or(0))
    });
    row.add("limit", How::Processes, |n| {
        let (lock, number): (&'static Apart<SpinLock>, &'static Apart<AtomicU64>) =
            (os::shared(), os::shared());
        let add = move || {
            lock.with(|| increment(number));
            Ok(())
        };
        run(n, add, || number.load(SeqCst))
    });
    row.add("pthread-robust", How::Processes, |n| {
        let (lock, number): (RobustMutex, &'static Apart<AtomicU64>) = (RobustMutex::shared()?, os::shared());
        let add = move || {
            lock.lock()?;
            increment(number);
            lock.unlock();
            Ok(())
        };
        run(n, add, || number.load(SeqCst))
    });
    std_sync::locked_add(&mut row);
    #[cfg(feature = "rivals")]
    crate::peers::parking_lot::locked_add(&mut row);
    if python::is_here() {
        row.add_slow("python", How::Processes, 5000, python::locked_add);
    }
    row
}

fn atomic() -> Row {
    let mut row = Row::new("value/atomic-add", Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let value = AtomicValue::new(0u64).map_err(|problem| problem.to_string())?;
        let reader = value.clone();
        let add = move || {
            value.fetch_add(1);
            Ok(())
        };
        run(n, add, || reader.load())
    });
    row.add("limit", How::Processes, |n| {
        let number: &'static Apart<AtomicU64> = os::shared();
        let add = move || {
            number.fetch_add(1, SeqCst);
            Ok(())
        };
        run(n, add, || number.load(SeqCst))
    });
    row
}

/// One operation is 64 MiB.
fn copy() -> Row {
    const LENGTH: usize = 64 << 20;
    let mut row = Row::new("array/copy-64M", Place::Cross);
    row.add_slow(OURS, How::Processes, 2, |n| {
        let array = Array::<u8>::new(LENGTH).map_err(|problem| problem.to_string())?;
        let source = vec![7_u8; LENGTH];
        copies(n, move || array.copy_from(&source).map_err(|problem| problem.to_string()))
    });
    row.add_slow("memcpy", How::Processes, 2, |n| {
        let target = os::shared_bytes(LENGTH).expose_provenance();
        let source = vec![7_u8; LENGTH];
        copies(n, move || {
            let target = std::ptr::with_exposed_provenance_mut(target);
            // SAFETY: both have this many bytes, and no other thread uses them.
            unsafe { std::ptr::copy_nonoverlapping(std::hint::black_box(&source).as_ptr(), target, LENGTH) };
            std::hint::black_box(target);
            Ok(())
        })
    });
    row
}

/// Lets one worker copy, after a first copy that brings in the pages.
fn copies(copies: u64, mut copy: impl FnMut() -> Result<(), String> + Send + 'static) -> Result<f64, String> {
    let job: Job = Box::new(move |lap| {
        lap.ready();
        copy()?;
        lap.start();
        (0..copies).try_for_each(|_| copy())?;
        lap.stop();
        Ok(())
    });
    Ok(race(How::Processes, Place::Cross, vec![job])?.each(copies))
}

#[inline]
fn increment(number: &AtomicU64) {
    number.store(number.load(Relaxed) + 1, Relaxed);
}

/// Lets one worker add, in a process of its own; then checks the number.
fn run(
    additions: u64,
    add: impl FnMut() -> Result<(), String> + Send + 'static,
    read: impl FnOnce() -> u64,
) -> Result<f64, String> {
    run_as(How::Processes, additions, add, read)
}

/// Like [`run`], by a process or a thread.
pub(crate) fn run_as(
    how: How,
    additions: u64,
    mut add: impl FnMut() -> Result<(), String> + Send + 'static,
    read: impl FnOnce() -> u64,
) -> Result<f64, String> {
    let warm_up = additions / 10;
    let job: Job = Box::new(move |lap| {
        lap.ready();
        (0..warm_up).try_for_each(|_| add())?;
        lap.start();
        (0..additions).try_for_each(|_| add())?;
        lap.stop();
        Ok(())
    });
    let finish = race(how, Place::Cross, vec![job])?;
    if read() != warm_up + additions {
        return Err("additions were lost".to_owned());
    }
    Ok(finish.each(additions))
}
