//! The contract of a lock between processes.

use std::process;
use std::time::{Duration, Instant};

use multiproc::robust::MAX_HELD;
use multiproc::sync::AcquireError;
use multiproc::{AtomicValue, ErrorKind, Lock, LockGuard};

use crate::common::{How, Outcome, alone, fork, spawn, unique, value, wait_for, wait_until};

/// Holds a lock from step 1 until step 2.
fn holder((lock, step): (Lock, AtomicValue<u32>)) -> bool {
    let guard = lock.lock().expect("no error");
    step.store(1);
    wait_for(&step, 2);
    LockGuard::previous_owner_died(&guard).is_some()
}

#[test]
fn processes_exclude_each_other() -> Outcome {
    const ROUNDS: u64 = 5_000;
    fn child((lock, count, ready): (Lock, AtomicValue<u64>, AtomicValue<u32>)) {
        ready.fetch_add(1);
        wait_for(&ready, 4);
        for _ in 0..ROUNDS {
            let _guard = lock.lock().expect("no error");
            // Two steps, which only the lock keeps together.
            count.store(count.load() + 1);
        }
    }
    let _alone = alone();
    let (lock, count, ready) = (Lock::new()?, AtomicValue::new(0_u64)?, AtomicValue::new(0_u32)?);
    let children: Vec<_> =
        (0..4).map(|_| spawn(child, (lock.clone(), count.clone(), ready.clone()))).collect();
    children.iter().for_each(value);
    assert_eq!(count.load(), 4 * ROUNDS);
    assert!(!lock.is_locked());
    Ok(())
}

#[test]
fn lock_is_found_by_name() -> Outcome {
    fn child((name, step): (String, AtomicValue<u32>)) {
        let lock = Lock::open(&name).expect("it is there");
        holder((lock, step));
    }
    let _alone = alone();
    let name = unique("named");
    let lock = Lock::create(&name)?;
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (name.clone(), step.clone()));
    wait_for(&step, 1);
    assert!(lock.try_lock()?.is_none());
    step.store(2);
    drop(lock.lock()?);
    value(&child);
    drop(lock);
    assert_eq!(Lock::open(&name).expect_err("no process uses it").kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn lock_timeout_waits_no_longer_than_its_timeout() -> Outcome {
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let child = spawn(holder, (lock.clone(), step.clone()));
    wait_for(&step, 1);
    assert!(lock.try_lock()?.is_none());
    assert!(lock.lock_timeout(Duration::ZERO)?.is_none());
    let start = Instant::now();
    assert!(lock.lock_timeout(Duration::from_millis(30))?.is_none());
    assert!(start.elapsed() >= Duration::from_millis(30));
    step.store(2);
    assert!(lock.lock_timeout(Duration::MAX)?.is_some());
    assert!(!value(&child));
    Ok(())
}

#[test]
fn owner_is_named() -> Outcome {
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    assert!(lock.owner().is_none());
    let child = spawn(holder, (lock.clone(), step.clone()));
    wait_for(&step, 1);
    let owner = lock.owner().expect("it is held");
    assert_eq!(owner.pid, Some(child.pid()));
    assert!(std::fs::exists(format!("/proc/{}/task/{}", child.pid(), owner.tid))?);
    step.store(2);
    value(&child);
    assert!(lock.owner().is_none());
    drop(lock.lock()?);
    Ok(())
}

#[test]
fn waiter_is_woken_by_another_process() -> Outcome {
    const ROUNDS: u32 = 500;
    // The two processes take turns: a process goes on when it holds the lock and the turn is its own.
    fn play(lock: &Lock, turn: &AtomicValue<u32>, me: u32) {
        for round in 0..ROUNDS {
            wait_until(|| {
                let _guard = lock.lock().expect("no error");
                turn.load() == 2 * round + me
            });
            let _guard = lock.lock().expect("no error");
            turn.fetch_add(1);
        }
    }
    fn child((lock, turn): (Lock, AtomicValue<u32>)) {
        play(&lock, &turn, 1);
    }
    let _alone = alone();
    let (lock, turn) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let start = Instant::now();
    let child = spawn(child, (lock.clone(), turn.clone()));
    play(&lock, &turn, 0);
    value(&child);
    assert_eq!(turn.load(), 2 * ROUNDS);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn waiter_is_woken_at_once() -> Outcome {
    const ROUNDS: usize = 20;
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        step.store(0);
        let guard = lock.lock()?;
        let waiter = fork(How::Libc, || {
            step.store(1);
            i32::from(lock.lock().is_err())
        });
        wait_for(&step, 1);
        std::thread::sleep(Duration::from_millis(2));
        let released = Instant::now();
        drop(guard);
        assert_eq!(waiter.wait(), 0);
        took.push(released.elapsed());
    }
    took.sort();
    // By the liveness poll, once a second, each round would take a second.
    assert!(took[ROUNDS / 2] < Duration::from_millis(500), "{took:?}");
    Ok(())
}

#[test]
fn thread_holds_at_most_a_thousand_locks() -> Outcome {
    let _alone = alone();
    let locks: Vec<Lock> = (0..=MAX_HELD).map(|_| Lock::new()).collect::<Result<_, _>>()?;
    let mut guards: Vec<_> = locks[..MAX_HELD].iter().map(|lock| lock.lock().expect("it is free")).collect();
    let last = &locks[MAX_HELD];
    let timed = || last.lock_timeout(Duration::from_secs(1)).map(drop);
    for refused in [last.lock().map(drop), last.try_lock().map(drop), timed()] {
        let error = refused.expect_err("one too many");
        assert_eq!(error.cause(), AcquireError::TooManyHeld);
        assert_eq!(error.to_string(), "lock (anonymous): this thread holds 1000 locks already");
    }
    // After one is released, one can be taken.
    drop(guards.swap_remove(500));
    guards.push(last.lock()?);
    assert!(locks.iter().enumerate().all(|(at, lock)| lock.is_locked() == (at != 500)));
    drop(guards);
    assert!(locks.iter().all(|lock| !lock.is_locked()));
    Ok(())
}

#[test]
fn threads_of_several_processes_exclude_each_other() -> Outcome {
    const ROUNDS: u64 = 1_000;
    fn work(lock: &Lock, count: &AtomicValue<u64>) {
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..ROUNDS {
                        let guard = lock.lock().expect("no error");
                        assert!(LockGuard::previous_owner_died(&guard).is_none());
                        assert_eq!(lock.owner().and_then(|owner| owner.pid), Some(process::id()));
                        count.store(count.load() + 1);
                    }
                });
            }
        });
    }
    fn child((lock, count): (Lock, AtomicValue<u64>)) {
        work(&lock, &count);
    }
    let _alone = alone();
    let (lock, count) = (Lock::new()?, AtomicValue::new(0_u64)?);
    let children: Vec<_> = (0..2).map(|_| spawn(child, (lock.clone(), count.clone()))).collect();
    work(&lock, &count);
    children.iter().for_each(value);
    assert_eq!(count.load(), 3 * 2 * ROUNDS);
    Ok(())
}
