//! `Condition` with an `RLock`: a wait releases all levels and takes them again, as Python's does.

use std::thread;
use std::time::Duration;

use multiproc::shm::Suspend;
use multiproc::sync::AcquireError;
use multiproc::{AtomicValue, Condition, RLock, RLockGuard};

use crate::common::{How, Outcome, alone, fork, kill, spawn, value, wait_for, wait_until};

/// Waits with this many levels; returns whether it has as many afterwards.
fn sleep((condition, lock, levels): (Condition, RLock, u32)) -> bool {
    let outer: Vec<_> = (1..levels).map(|_| lock.lock().expect("the lock")).collect();
    let guard = condition.wait(lock.lock().expect("the lock")).expect("no error");
    let before = lock.depth() == levels;
    drop(outer);
    let after = lock.depth() == 1;
    drop(guard);
    before && after && lock.owner().is_none_or(|owner| owner.pid != Some(std::process::id()))
}

#[test]
fn all_levels_are_released_and_taken_again() -> Outcome {
    let _alone = alone();
    let (condition, lock) = (Condition::new()?, RLock::new()?);
    let waiters = [1, 2, 7].map(|levels| spawn(sleep, (condition.clone(), lock.clone(), levels)));
    wait_until(|| condition.waiters() == 3);
    let guards = (lock.lock()?, lock.lock()?);
    assert_eq!((lock.depth(), condition.notify_all()?), (2, 3));
    drop(guards);
    waiters.iter().for_each(|waiter| assert!(value(waiter)));
    assert_eq!(lock.depth(), 0);
    Ok(())
}

#[test]
fn wait_timeout_and_wait_while_keep_the_levels() -> Outcome {
    let _alone = alone();
    let (condition, lock, state) = (Condition::new()?, RLock::new()?, AtomicValue::new(0_u32)?);
    let outer = lock.lock()?;
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let (guard, notified) = condition.wait_timeout(lock.lock()?, timeout)?;
        assert!(!notified && lock.depth() == 2);
        drop(guard);
    }
    drop(outer);
    thread::scope(|s| -> Outcome {
        s.spawn(|| {
            let _outer = lock.lock().expect("the lock");
            let _inner = lock.lock().expect("the lock");
            state.store(1);
            condition.notify_all().expect("no error");
        });
        let _outer = lock.lock()?;
        let guard = condition.wait_while(lock.lock()?, |_| state.load() == 0)?;
        assert_eq!((lock.depth(), RLockGuard::previous_owner_died(&guard)), (2, None));
        Ok(())
    })
}

#[test]
fn notified_waiter_learns_of_the_killed_owner_of_its_lock() -> Outcome {
    fn owner((lock, step): (RLock, AtomicValue<u32>)) {
        let _guards = (lock.lock().expect("the lock"), lock.lock().expect("the lock"));
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let (condition, lock, step) = (Condition::new()?, RLock::new()?, AtomicValue::new(0_u32)?);
    let killed = thread::scope(|s| -> Result<u32, Box<dyn std::error::Error>> {
        let waiter = s.spawn(|| {
            let _outer = lock.lock().expect("the lock");
            let guard = condition.wait(lock.lock().expect("the lock")).expect("no error");
            assert_eq!(lock.depth(), 2);
            RLockGuard::previous_owner_died(&guard).and_then(|death| death.pid())
        });
        wait_until(|| condition.waiters() == 1);
        let child = spawn(owner, (lock.clone(), step.clone()));
        wait_for(&step, 1);
        condition.notify_one()?;
        kill(&child);
        assert_eq!(waiter.join().expect("no panic"), Some(child.pid()));
        Ok(child.pid())
    })?;
    assert!(killed != 0 && lock.depth() == 0);
    Ok(())
}

#[test]
fn killed_waiter_takes_no_notification_with_it() -> Outcome {
    let _alone = alone();
    let (condition, lock) = (Condition::new()?, RLock::new()?);
    for _ in 0..20 {
        let waiter = || {
            fork(How::Libc, || {
                let _outer = lock.lock().expect("the lock\n");
                drop(condition.wait(lock.lock().expect("the lock\n")).expect("no error\n"));
                i32::from(lock.depth() != 1)
            })
        };
        let victim = waiter();
        wait_until(|| condition.waiters() == 1);
        let other = waiter();
        wait_until(|| condition.waiters() == 2);
        victim.kill();
        assert_eq!(condition.notify_one()?, 1);
        assert_eq!((other.wait(), condition.waiters(), lock.depth()), (0, 0, 0));
    }
    Ok(())
}

#[test]
fn forked_copy_of_a_guard_is_refused() -> Outcome {
    let _alone = alone();
    let (condition, lock) = (Condition::new()?, RLock::new()?);
    let _outer = lock.lock()?;
    let mut guard = Some(lock.lock()?);
    let child = fork(How::Libc, || {
        let copy = guard.take().expect("a copy\n");
        let refused = condition.wait(copy).map(drop).expect_err("the parent holds the lock\n");
        i32::from(refused.cause() != AcquireError::NotHeld || lock.depth() != 2)
    });
    assert_eq!(child.wait(), 0);
    // The refused wait left no waiter.
    assert_eq!((lock.depth(), condition.waiters()), (2, 0));
    let held = guard.take().expect("the parent's guard").suspend()?;
    assert!(!lock.is_locked());
    let guard = RLockGuard::resume(held)?;
    assert_eq!(lock.depth(), 2);
    drop(guard);
    Ok(())
}
