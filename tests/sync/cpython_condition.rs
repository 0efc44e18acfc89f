//! CPython's `_TestCondition`, under its names.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{AtomicValue, Condition, Lock, Value};

use crate::common::{Outcome, alone, spawn, value, wait_for, wait_until};

type Waiter = (Condition, Lock, AtomicValue<u32>, Option<u64>);

/// CPython's `f`: waits once and adds itself to `woken`; returns whether it was notified.
fn sleep((condition, lock, woken, timeout): Waiter) -> bool {
    let guard = lock.lock().expect("the lock");
    let (_guard, notified) = match timeout {
        None => (condition.wait(guard).expect("no error"), true),
        Some(millis) => condition.wait_timeout(guard, Duration::from_millis(millis)).expect("no error"),
    };
    woken.fetch_add(1);
    notified
}

fn make() -> Result<(Condition, Lock, AtomicValue<u32>), Box<dyn std::error::Error>> {
    Ok((Condition::new()?, Lock::new()?, AtomicValue::new(0)?))
}

/// Waits until `awake` waiters have woken, and checks that all others still wait.
fn check(condition: &Condition, woken: &AtomicValue<u32>, awake: u32, asleep: usize) {
    wait_for(woken, awake);
    assert_eq!((woken.load(), condition.waiters()), (awake, asleep));
}

#[test]
fn test_notify() -> Outcome {
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    let process = spawn(sleep, (condition.clone(), lock.clone(), woken.clone(), None));
    thread::scope(|s| -> Outcome {
        s.spawn(|| sleep((condition.clone(), lock.clone(), woken.clone(), None)));
        wait_until(|| condition.waiters() == 2);
        check(&condition, &woken, 0, 2);
        for turn in 1..=2 {
            let guard = lock.lock()?;
            assert_eq!(condition.notify_one()?, 1);
            drop(guard);
            check(&condition, &woken, turn, 2 - turn as usize);
        }
        Ok(())
    })?;
    value(&process);
    assert_eq!(condition.waiters(), 0);
    Ok(())
}

#[test]
fn test_notify_all() -> Outcome {
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    thread::scope(|s| -> Outcome {
        // First, waiters that time out.
        let timed: Vec<_> = (0..3)
            .map(|_| {
                let process = spawn(sleep, (condition.clone(), lock.clone(), woken.clone(), Some(50)));
                (process, s.spawn(|| sleep((condition.clone(), lock.clone(), woken.clone(), Some(50)))))
            })
            .collect();
        for (process, thread) in timed {
            assert!(!value(&process) && !thread.join().expect("no panic"));
        }
        assert_eq!((woken.load(), condition.waiters()), (6, 0));

        // Then, waiters that do not.
        let others: Vec<_> = (0..3)
            .map(|_| {
                let process = spawn(sleep, (condition.clone(), lock.clone(), woken.clone(), None));
                (process, s.spawn(|| sleep((condition.clone(), lock.clone(), woken.clone(), None))))
            })
            .collect();
        wait_until(|| condition.waiters() == 6);
        let guard = lock.lock()?;
        assert_eq!(condition.notify_all()?, 6);
        drop(guard);
        for (process, thread) in others {
            assert!(value(&process) && thread.join().expect("no panic"));
        }
        assert_eq!((woken.load(), condition.waiters()), (12, 0));
        Ok(())
    })
}

#[test]
fn test_notify_n() -> Outcome {
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    let start = |_| spawn(sleep, (condition.clone(), lock.clone(), woken.clone(), None));
    let processes: Vec<_> = (0..3).map(start).collect();
    thread::scope(|s| -> Outcome {
        for _ in 0..3 {
            s.spawn(|| sleep((condition.clone(), lock.clone(), woken.clone(), None)));
        }
        wait_until(|| condition.waiters() == 6);
        // None; one; four; more than wait; and after all have woken.
        for (count, notified, awake) in [(0, 0, 0), (1, 1, 1), (4, 4, 5), (3, 1, 6), (3, 0, 6)] {
            let guard = lock.lock()?;
            assert_eq!(condition.notify(count)?, notified);
            drop(guard);
            check(&condition, &woken, awake, 6 - awake as usize);
        }
        Ok(())
    })?;
    processes.iter().for_each(|process| assert!(value(process)));
    Ok(())
}

#[test]
fn test_timeout() -> Outcome {
    let (condition, lock, _) = make()?;
    let (guard, notified) = condition.wait_timeout(lock.lock()?, Duration::from_millis(100))?;
    assert!(!notified);
    drop(guard);
    // It returns at once, and this thread holds the lock again.
    let (_guard, notified) = condition.wait_timeout(lock.lock()?, Duration::ZERO)?;
    assert!(!notified && lock.is_locked() && condition.waiters() == 0);
    Ok(())
}

#[test]
fn test_waitfor() -> Outcome {
    fn child((condition, state): (Condition, Value<u32>)) -> bool {
        let mut guard = state.lock().expect("the lock");
        *guard = 0;
        condition.notify_one().expect("no error");
        let guard = condition.wait_while(guard, |state| **state != 4).expect("no error");
        *guard == 4
    }
    let _alone = alone();
    let (condition, state) = (Condition::new()?, Value::new(99_u32)?);
    let process = spawn(child, (condition.clone(), state.clone()));
    drop(condition.wait_while(state.lock()?, |state| **state != 0)?);
    for _ in 0..4 {
        let mut guard = state.lock()?;
        *guard += 1;
        condition.notify_one()?;
    }
    assert!(value(&process));
    Ok(())
}

#[test]
fn test_waitfor_timeout() -> Outcome {
    fn child((condition, state): (Condition, Value<u32>)) -> (bool, u64) {
        const EXPECTED: Duration = Duration::from_millis(500);
        let guard = state.lock().expect("the lock");
        let start = Instant::now();
        let waited = condition.wait_timeout_while(guard, EXPECTED, |state| **state != 4);
        let (_guard, came) = waited.expect("no error");
        (came, u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
    let _alone = alone();
    let (condition, state) = (Condition::new()?, Value::new(0_u32)?);
    let process = spawn(child, (condition.clone(), state.clone()));
    // On a busy machine it may have timed out already.
    wait_until(|| condition.waiters() == 1 || matches!(process.try_join(), Ok(Some(_))));
    // Only three times: the awaited state never comes, and wake-ups do not prolong the wait.
    for _ in 0..3 {
        let mut guard = state.lock()?;
        *guard += 1;
        condition.notify_one()?;
    }
    let (came, millis) = value(&process);
    assert!(!came && millis >= 500, "{came} {millis}");
    Ok(())
}

#[test]
fn test_wait_result() -> Outcome {
    fn child((condition, lock): (Condition, Lock)) {
        // The lock is free only once the parent waits for the condition.
        let _guard = lock.lock().expect("the lock");
        assert_eq!(condition.notify_one().expect("no error"), 1);
    }
    let _alone = alone();
    let (condition, lock, _) = make()?;
    let guard = lock.lock()?;
    let (guard, notified) = condition.wait_timeout(guard, Duration::ZERO)?;
    assert!(!notified);
    let (guard, notified) = condition.wait_timeout(guard, Duration::from_millis(100))?;
    assert!(!notified);
    let process = spawn(child, (condition.clone(), lock.clone()));
    let (guard, notified) = condition.wait_timeout(guard, Duration::from_secs(60))?;
    assert!(notified);
    drop(guard);
    value(&process);
    Ok(())
}
