//! `RLock`: only its owner takes it again; owners killed at any depth; and CPython's tests of locks.
#![allow(unsafe_code, reason = "the raw calls")]

use std::time::{Duration, Instant};
use std::{process, thread};

use multiproc::{AtomicValue, ErrorKind, RLock, RLockGuard};

use crate::common::{
    Dice, Forked, How, Outcome, alone, exec, fork, kill, spawn, tid, unique, value, wait_for, wait_until,
    with_one_thread,
};

/// Holds a lock at `depth` from step 1 until step 2.
fn holder((lock, step, depth): (RLock, AtomicValue<u32>, usize)) {
    let guards: Vec<_> = (0..depth).map(|_| lock.lock().expect("no error")).collect();
    assert_eq!(lock.depth() as usize, depth);
    step.store(1);
    wait_for(&step, 2);
    drop(guards);
}

#[test]
fn guards_may_be_dropped_in_any_order() -> Outcome {
    let _alone = alone();
    let lock = RLock::new()?;
    let mut guards: Vec<_> = (0..5).map(|_| lock.lock().expect("no error")).collect();
    let try_lock = || lock.try_lock().is_ok_and(|guard| guard.is_some());
    let in_another_thread = || thread::scope(|s| s.spawn(try_lock).join().expect("no panic"));
    for left in (1..5).rev() {
        drop(guards.remove(left / 2));
        let state = (lock.depth(), lock.is_locked(), in_another_thread());
        assert_eq!(state, (u32::try_from(left)?, true, false));
    }
    drop(guards);
    assert_eq!((lock.depth(), lock.is_locked(), in_another_thread()), (0, false, true));
    // Each way to take it adds a level.
    let all = (lock.try_lock()?, lock.lock_timeout(Duration::MAX)?, lock.lock()?);
    assert_eq!(lock.depth(), 3);
    drop(all);
    // SAFETY: released below, by this thread.
    assert!(!unsafe { lock.raw_lock() }? && !unsafe { lock.raw_lock() }?);
    // SAFETY: taken above.
    assert!(unsafe { lock.raw_unlock() } && lock.is_locked());
    // SAFETY: as above.
    assert!(unsafe { lock.raw_unlock() } && !lock.is_locked());
    // SAFETY: refused.
    assert!(!unsafe { lock.raw_unlock() });
    Ok(())
}

#[test]
fn rlock_is_found_by_name() -> Outcome {
    let _alone = alone();
    let name = unique("rlock");
    let made = RLock::create(&name)?;
    assert_eq!(RLock::create(&name).expect_err("it is there").kind(), ErrorKind::AlreadyExists);
    assert_eq!(multiproc::Lock::open(&name).expect_err("of another kind").kind(), ErrorKind::WrongKind);
    let (opened, either) = (RLock::open(&name)?, RLock::open_or_create(&name)?);
    assert_eq!(opened.name(), Some(name.as_str()));
    let guards = (made.lock()?, opened.lock()?, either.lock()?);
    assert_eq!(made.depth(), 3);
    drop(guards);
    RLock::unlink(&name)?;
    assert_eq!(RLock::open(&name).expect_err("its name is gone").kind(), ErrorKind::NotFound);
    let placed: RLock = multiproc::Options::new().anonymous(())?;
    drop(placed.lock()?);
    Ok(())
}

#[test]
fn threads_and_processes_exclude_each_other() -> Outcome {
    const ROUNDS: u64 = 2_000;
    fn work(lock: &RLock, count: &AtomicValue<u64>) {
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for round in 0..ROUNDS {
                        let _guards: Vec<_> =
                            (0..=round % 3).map(|_| lock.lock().expect("no error")).collect();
                        assert_eq!(u64::from(lock.depth()), round % 3 + 1);
                        // Two steps, which only the lock keeps together.
                        count.store(count.load() + 1);
                    }
                });
            }
        });
    }
    fn child((lock, count): (RLock, AtomicValue<u64>)) {
        work(&lock, &count);
    }
    let _alone = alone();
    let (lock, count) = (RLock::new()?, AtomicValue::new(0_u64)?);
    let children: Vec<_> = (0..2).map(|_| spawn(child, (lock.clone(), count.clone()))).collect();
    work(&lock, &count);
    children.iter().for_each(value);
    assert_eq!(count.load(), 3 * 2 * ROUNDS);
    Ok(())
}

#[test]
fn lock_timeout_waits_no_longer_than_its_timeout() -> Outcome {
    let _alone = alone();
    let (lock, step) = (RLock::new()?, AtomicValue::new(0_u32)?);
    let child = spawn(holder, (lock.clone(), step.clone(), 2));
    wait_for(&step, 1);
    assert_eq!((lock.owner().and_then(|owner| owner.pid), lock.depth()), (Some(child.pid()), 2));
    assert!(lock.try_lock()?.is_none());
    let start = Instant::now();
    assert!(lock.lock_timeout(Duration::from_millis(30))?.is_none());
    assert!(start.elapsed() >= Duration::from_millis(30));
    step.store(2);
    let guard = lock.lock()?;
    assert!(RLockGuard::previous_owner_died(&guard).is_none());
    assert_eq!(lock.depth(), 1);
    value(&child);
    Ok(())
}

#[test]
fn owner_killed_at_any_depth_frees_the_lock() -> Outcome {
    let _alone = alone();
    for depth in 1..=3 {
        let (lock, step) = (RLock::new()?, AtomicValue::new(0_u32)?);
        let child = spawn(holder, (lock.clone(), step.clone(), depth));
        wait_for(&step, 1);
        kill(&child);
        assert_eq!((lock.depth(), lock.is_locked()), (0, false));
        let guard = lock.lock()?;
        let death = RLockGuard::previous_owner_died(&guard).expect("it was killed");
        assert_eq!(death.pid(), Some(child.pid()));
        assert_eq!(lock.depth(), 1, "not the dead owner's depth");
        let inner = lock.lock()?;
        assert!(RLockGuard::previous_owner_died(&inner).is_none());
        drop((guard, inner));
        assert!(!lock.is_locked());
        assert!(RLockGuard::previous_owner_died(&lock.lock()?).is_none(), "reported once");
    }
    Ok(())
}

#[test]
fn thread_that_ends_at_depth_releases_the_lock() -> Outcome {
    let _alone = alone();
    let lock = RLock::new()?;
    thread::scope(|s| {
        s.spawn(|| (0..3).for_each(|_| std::mem::forget(lock.lock())));
    });
    assert!(RLockGuard::previous_owner_died(&lock.lock()?).is_some());
    assert!(!lock.is_locked());
    Ok(())
}

#[test]
fn leaked_guard_keeps_the_lock_without_a_handle() -> Outcome {
    let _alone = alone();
    let name = unique("leaked-rlock");
    let (taken, go) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    thread::scope(|s| -> Outcome {
        let leaker = s.spawn(|| {
            let lock = RLock::create(&name).expect("a lock");
            (0..2).for_each(|_| std::mem::forget(lock.lock()));
            drop(lock);
            taken.wait();
            go.wait();
        });
        taken.wait();
        // Its owner still has it mapped, so it can be opened.
        let lock = RLock::open(&name)?;
        assert_eq!((lock.depth(), lock.try_lock()?.is_none()), (2, true));
        go.wait();
        leaker.join().expect("no panic");
        assert!(RLockGuard::previous_owner_died(&lock.lock()?).is_some());
        Ok(())
    })
}

#[test]
fn forked_copies_of_guards_own_nothing() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let (lock, step) = (RLock::new()?, AtomicValue::new(0_u32)?);
            let mut guards = Some((lock.lock()?, lock.lock()?));
            let child = fork(how, || {
                // The copies are dropped, and a raw unlock is tried, too. The parent still has the lock,
                // twice.
                drop(guards.take());
                // SAFETY: refused.
                let refused = !unsafe { lock.raw_unlock() };
                let owner = lock.owner().and_then(|owner| owner.pid);
                let still = owner != Some(process::id()) && lock.depth() == 2;
                let none = lock.try_lock().is_ok_and(|guard| guard.is_none());
                step.store(1);
                let next = lock.lock().is_ok_and(|guard| RLockGuard::previous_owner_died(&guard).is_none());
                i32::from(!(refused && still && none && next))
            });
            wait_for(&step, 1);
            assert_eq!(lock.owner().map(|owner| (owner.pid, owner.tid)), Some((Some(process::id()), tid())));
            assert_eq!(lock.depth(), 2);
            drop(guards.take());
            assert_eq!(child.wait(), 0, "{how:?}");
        }
        Ok(())
    })
}

#[test]
fn exec_at_depth_releases_the_lock() -> Outcome {
    let _alone = alone();
    let (lock, step) = (RLock::new()?, AtomicValue::new(0_u32)?);
    let child = fork(How::Libc, || {
        (0..2).for_each(|_| std::mem::forget(lock.lock()));
        step.store(1);
        exec()
    });
    wait_for(&step, 1);
    assert!(RLockGuard::previous_owner_died(&lock.lock()?).is_some());
    assert_eq!(lock.depth(), 0);
    child.kill();
    Ok(())
}

#[test]
fn owners_killed_at_random_break_no_exclusion() -> Outcome {
    const KILLS: u32 = 200;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    // Two counters that only the lock keeps equal. An owner that gets a death repairs them.
    let (lock, first, second) = (RLock::new()?, AtomicValue::new(0_u64)?, AtomicValue::new(0_u64)?);
    let worker = || {
        fork(How::Libc, || {
            loop {
                let guard = lock.lock().expect("no error\n");
                assert_eq!(lock.depth(), 1, "the depth of a dead owner\n");
                if RLockGuard::previous_owner_died(&guard).is_some() {
                    second.store(first.load());
                }
                let inner = lock.lock().expect("no error\n");
                assert_eq!(first.load(), second.load(), "two at once, or a death not reported\n");
                drop(guard);
                first.fetch_add(1);
                second.fetch_add(1);
                drop(inner);
            }
        })
    };
    let mut workers: Vec<Forked> = (0..3).map(|_| worker()).collect();
    for _ in 0..KILLS {
        let seen = first.load();
        wait_until(|| first.load() > seen + dice.below(200));
        workers.swap_remove(usize::try_from(dice.below(3))?).kill();
        workers.push(worker());
    }
    workers.into_iter().for_each(Forked::kill);
    drop(lock.lock()?);
    Ok(())
}

/// CPython's `_TestLock`: tests of `Lock` and `RLock`.
mod test_lock {
    use multiproc::Lock;
    use multiproc::sync::AcquireError;

    use super::*;

    #[test]
    fn test_lock() -> Outcome {
        let _alone = alone();
        let lock = Lock::new()?;
        let guard = lock.lock()?;
        // By the owner itself: an error, where Python returns False.
        assert_eq!(lock.try_lock().map(drop).expect_err("held here").cause(), AcquireError::AlreadyHeld);
        let refused = || lock.try_lock().is_ok_and(|guard| guard.is_none());
        assert!(thread::scope(|s| s.spawn(refused).join().expect("no panic")));
        drop(guard);
        // SAFETY: refused, since it is not held.
        assert!(!unsafe { lock.raw_unlock() });
        Ok(())
    }

    #[test]
    fn test_rlock() -> Outcome {
        let _alone = alone();
        let lock = RLock::new()?;
        for _ in 0..3 {
            // SAFETY: released below.
            assert!(!unsafe { lock.raw_lock() }?);
        }
        for _ in 0..3 {
            // SAFETY: taken above.
            assert!(unsafe { lock.raw_unlock() });
        }
        // SAFETY: refused, since it is not held.
        assert!(!unsafe { lock.raw_unlock() });
        Ok(())
    }

    #[test]
    fn test_lock_context() -> Outcome {
        let _alone = alone();
        let (lock, rlock) = (Lock::new()?, RLock::new()?);
        {
            let _with = (lock.lock()?, rlock.lock()?);
            assert!(lock.is_locked() && rlock.is_locked());
        }
        assert!(!lock.is_locked() && !rlock.is_locked());
        Ok(())
    }

    #[test]
    fn test_repr_lock() -> Outcome {
        let _alone = alone();
        let lock = Lock::new()?;
        assert_eq!(format!("{lock:?}"), "Lock { object: lock (anonymous), owner: None, waiters: 0 }");
        let _guard = lock.lock()?;
        let owner = format!("owner: Some(Owner {{ pid: Some({}), tid: {} }})", process::id(), tid());
        assert_eq!(format!("{lock:?}"), format!("Lock {{ object: lock (anonymous), {owner}, waiters: 0 }}"));
        Ok(())
    }

    #[test]
    fn test_repr_rlock() -> Outcome {
        let _alone = alone();
        let (lock, step) = (RLock::new()?, AtomicValue::new(0_u32)?);
        let text = |owner: &str, depth: u32| {
            format!("RLock {{ object: rlock (anonymous), owner: {owner}, depth: {depth}, waiters: 0 }}")
        };
        assert_eq!(format!("{lock:?}"), text("None", 0));
        let guards = (lock.lock()?, lock.lock()?);
        let owner = format!("Some(Owner {{ pid: Some({}), tid: {} }})", process::id(), tid());
        assert_eq!(format!("{lock:?}"), text(&owner, 2));
        drop(guards);
        // Python's `SomeOtherProcess`: here the process is named.
        let child = spawn(holder, (lock.clone(), step.clone(), 3));
        wait_for(&step, 1);
        assert!(format!("{lock:?}").contains(&format!("pid: Some({}), ", child.pid())));
        assert!(format!("{lock:?}").ends_with("depth: 3, waiters: 0 }"));
        step.store(2);
        value(&child);
        Ok(())
    }
}
