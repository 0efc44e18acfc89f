//! `OwnedPermit`: it moves between threads, and becomes free when its process ends, however that ends.

use std::time::{Duration, Instant};
use std::{process, thread};

use multiproc::robust::MAX_HELD;
use multiproc::sync::AcquireError;
use multiproc::{AtomicValue, OwnedPermit, Permit, Semaphore};

use crate::common::{
    Dice, Forked, How, Outcome, alone, exec, fork, kill, signal, spawn, value, wait_for, wait_until,
};

/// Holds `count` permits from step 1 until step 2. The thread that acquires them ends before step 1.
fn holder((semaphore, step, count): (Semaphore, AtomicValue<u32>, usize)) {
    let taken = thread::spawn(move || (semaphore.acquire_many_owned(count), semaphore));
    let (permits, semaphore) = taken.join().expect("no panic");
    assert_eq!(permits.as_ref().map(Vec::len), Ok(count));
    drop(semaphore);
    step.fetch_add(1);
    wait_for(&step, 2);
    drop(permits);
}

#[test]
fn permit_moves_between_threads() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(3)?;
    let first = semaphore.acquire_owned()?;
    let second = semaphore.try_acquire_owned()?.expect("one is free");
    let third = semaphore.acquire_owned_timeout(Duration::from_secs(1))?.expect("one is free");
    let mut numbers = [&first, &second, &third].map(OwnedPermit::number);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!((semaphore.available(), semaphore.holders().len()), (0, 3));
    assert!(semaphore.holders().iter().all(|owner| owner.pid == Some(process::id())));
    assert!(semaphore.try_acquire()?.is_none() && semaphore.try_acquire_owned()?.is_none());
    let start = Instant::now();
    assert!(semaphore.acquire_owned_timeout(Duration::from_millis(30))?.is_none());
    assert!(start.elapsed() >= Duration::from_millis(30));
    // Another thread releases it, and this thread gets it.
    thread::scope(|s| {
        s.spawn(|| drop(first));
        assert!(semaphore.acquire().is_ok());
    });
    thread::spawn(move || drop((second, third))).join().expect("no panic");
    assert_eq!((semaphore.available(), semaphore.holders().len()), (3, 0));
    Ok(())
}

#[test]
fn acquire_many_owned_gets_all_or_none() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(4)?;
    assert!(semaphore.acquire_many_owned(0)?.is_empty());
    let five = semaphore.acquire_many_owned(5).map(drop);
    assert_eq!(five.expect_err("there are four").cause(), AcquireError::TooMany);
    let three = semaphore.acquire_many_owned(3)?;
    assert!(semaphore.try_acquire_many_owned(2)?.is_none());
    assert!(semaphore.acquire_many_owned_timeout(2, Duration::from_millis(10))?.is_none());
    assert_eq!(semaphore.available(), 1);
    thread::scope(|s| {
        s.spawn(|| drop(three));
        assert_eq!(semaphore.acquire_many_owned(4).map(|four| four.len()), Ok(4));
    });
    // Permits of the thread and permits of the process come from the same set.
    let (threads, owned) = (semaphore.acquire_many(2)?, semaphore.acquire_many_owned(2)?);
    assert_eq!((semaphore.available(), threads.len(), owned.len()), (0, 2, 2));
    drop(threads);
    assert!(semaphore.try_acquire_many(3)?.is_none());
    drop(owned);
    assert_eq!(semaphore.available(), 4);
    Ok(())
}

#[test]
fn process_keeps_a_permit_whose_thread_has_ended() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(2)?;
    let permit = thread::scope(|s| s.spawn(|| semaphore.acquire_owned()).join().expect("no panic"))?;
    assert!(semaphore.acquire_timeout(Duration::from_millis(1100))?.is_some());
    assert_eq!(semaphore.available(), 1, "its thread has ended, the process has not");
    drop(permit);
    assert_eq!(semaphore.available(), 2);
    assert!(semaphore.acquire_many(2)?.iter().all(|permit| Permit::previous_owner_died(permit).is_none()));
    Ok(())
}

#[test]
fn permit_outlives_its_semaphores_handle() -> Outcome {
    let _alone = alone();
    let name = crate::common::unique("owned");
    let permit = Semaphore::create(&name, 1)?.acquire_owned()?;
    let semaphore = Semaphore::open(&name)?;
    assert_eq!((semaphore.available(), OwnedPermit::semaphore(&permit).name()), (0, Some(name.as_str())));
    drop(semaphore);
    drop(permit);
    assert!(Semaphore::open(&name).is_err(), "the permit was its last user");
    Ok(())
}

#[test]
fn permits_of_a_killed_process_are_free_and_name_it_once() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(3)?, AtomicValue::new(0_u32)?);
    let child = spawn(holder, (semaphore.clone(), step.clone(), 2));
    wait_for(&step, 1);
    assert_eq!(semaphore.holders().iter().filter(|owner| owner.pid == Some(child.pid())).count(), 2);
    kill(&child);
    assert_eq!((semaphore.available(), semaphore.holders().len()), (3, 0));
    let permits = semaphore.acquire_many_owned(3)?;
    let deaths = permits.iter().filter_map(OwnedPermit::previous_owner_died);
    assert!(deaths.map(|death| death.pid()).eq([Some(child.pid()); 2]));
    drop(permits);
    assert!(semaphore.acquire_many(3)?.iter().all(|permit| Permit::previous_owner_died(permit).is_none()));
    Ok(())
}

#[test]
fn killed_process_wakes_waiters_for_its_permit() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(1)?, AtomicValue::new(0_u32)?);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        step.store(0);
        let owner = fork(How::Libc, || {
            let _permit = semaphore.acquire_owned();
            step.store(1);
            wait_for(&step, u32::MAX);
            0
        });
        wait_for(&step, 1);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                fork(How::Libc, || {
                    step.fetch_add(1);
                    let permit = semaphore.acquire_owned().expect("no error\n");
                    i32::from(OwnedPermit::previous_owner_died(&permit).is_some())
                })
            })
            .collect();
        wait_for(&step, 3);
        thread::sleep(Duration::from_millis(2));
        let killed = Instant::now();
        owner.kill();
        assert_eq!(waiters.into_iter().map(Forked::wait).sum::<i32>(), 1, "one of them gets the death");
        took.push(killed.elapsed());
    }
    took.sort();
    // The kernel reports the death; by the waiters' liveness poll it would take half a second on average.
    assert!(took[10] < Duration::from_millis(300), "{took:?}");
    Ok(())
}

#[test]
fn stopped_process_keeps_its_permit() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(1)?, AtomicValue::new(0_u32)?);
    let child = spawn(holder, (semaphore.clone(), step.clone(), 1));
    wait_for(&step, 1);
    signal(child.pid(), libc::SIGSTOP);
    step.store(2);
    // Longer than a second, the interval of a waiter's liveness poll.
    let late = semaphore.acquire_timeout(Duration::from_millis(1300))?.is_none();
    signal(child.pid(), libc::SIGCONT);
    assert!(late || Permit::previous_owner_died(&semaphore.acquire()?).is_none());
    value(&child);
    assert!(Permit::previous_owner_died(&semaphore.acquire()?).is_none());
    Ok(())
}

#[test]
fn exit_releases_permits_and_reports_a_death() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(2)?;
    let child = fork(How::Libc, || {
        std::mem::forget(semaphore.acquire_many_owned(2));
        0
    });
    assert_eq!(child.wait(), 0);
    let permits = semaphore.acquire_many(2)?;
    assert!(permits.iter().all(|permit| Permit::previous_owner_died(permit).is_some()));
    Ok(())
}

#[test]
fn exec_releases_permits() -> Outcome {
    let _alone = alone();
    for by_the_main_thread in [true, false] {
        let (semaphore, step) = (Semaphore::new(2)?, AtomicValue::new(0_u32)?);
        let child = fork(How::Libc, || {
            let take_and_go = || -> () {
                std::mem::forget(semaphore.acquire_many_owned(2));
                step.store(1);
                exec()
            };
            if by_the_main_thread {
                take_and_go();
            }
            thread::scope(|s| drop(s.spawn(take_and_go)));
            0
        });
        wait_for(&step, 1);
        let permits = semaphore.acquire_many(2)?;
        assert!(permits.iter().all(|permit| Permit::previous_owner_died(permit).is_some()));
        child.kill();
    }
    Ok(())
}

#[test]
fn forked_copy_of_a_permit_owns_nothing() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(2)?, AtomicValue::new(0_u32)?);
    let mut permits = Some(semaphore.acquire_many_owned(2)?);
    let child = fork(How::Libc, || {
        drop(permits.take());
        let still = semaphore.available() == 0;
        step.store(1);
        // The child has an owner thread of its own.
        let next = semaphore.acquire_many_owned(2).is_ok_and(|permits| permits.len() == 2);
        i32::from(!(still && next))
    });
    wait_for(&step, 1);
    drop(permits.take());
    assert_eq!(child.wait(), 0);
    assert_eq!(semaphore.available(), 2);
    Ok(())
}

#[test]
fn forked_child_acquires_while_other_threads_did() -> Outcome {
    let _alone = alone();
    let (semaphore, stop) = (Semaphore::new(4)?, AtomicValue::new(0_u32)?);
    thread::scope(|s| -> Outcome {
        for _ in 0..2 {
            s.spawn(|| {
                while stop.load() == 0 {
                    drop(semaphore.acquire_owned().expect("no error"));
                }
            });
        }
        // Threads start and end: at a fork, one may be in the middle of it.
        s.spawn(|| {
            while stop.load() == 0 {
                thread::scope(|inner| drop(inner.spawn(|| ())));
            }
        });
        for _ in 0..50 {
            // The mutex of the parent's owner thread may be locked at this instant.
            let child = fork(How::Libc, || i32::from(semaphore.acquire_owned().is_err()));
            assert_eq!(child.wait(), 0);
        }
        stop.store(1);
        Ok(())
    })?;
    assert_eq!(semaphore.available(), 4);
    Ok(())
}

#[test]
fn process_owns_more_permits_than_a_thread_could_hold() -> Outcome {
    let _alone = alone();
    let semaphores: Vec<Semaphore> = (0..9).map(|_| Semaphore::new(127)).collect::<Result<_, _>>()?;
    let all = semaphores.iter().map(|semaphore| semaphore.acquire_many_owned(127));
    let permits: Vec<Vec<OwnedPermit>> = all.collect::<Result<_, _>>()?;
    assert!(permits.iter().map(Vec::len).sum::<usize>() > MAX_HELD);
    assert!(semaphores.iter().all(|semaphore| semaphore.available() == 0));
    drop(permits);
    assert!(semaphores.iter().all(|semaphore| semaphore.available() == 127));
    Ok(())
}

#[test]
fn no_more_permits_are_held_than_exist() -> Outcome {
    const ROUNDS: u64 = 500;
    const PERMITS: u64 = 2;
    fn work(semaphore: &Semaphore, inside: &AtomicValue<u64>, done: &AtomicValue<u64>) {
        let enter = || assert!(inside.fetch_add(1) < PERMITS);
        let leave = || {
            done.fetch_add(1);
            inside.fetch_sub(1);
        };
        thread::scope(|s| {
            let (give, take) = std::sync::mpsc::channel::<OwnedPermit>();
            // One thread acquires and another releases; a third holds its permits itself.
            s.spawn(move || {
                for _ in 0..ROUNDS {
                    let permit = semaphore.acquire_owned().expect("no error");
                    enter();
                    give.send(permit).expect("the other thread");
                }
            });
            s.spawn(move || {
                for permit in take {
                    leave();
                    drop(permit);
                }
            });
            s.spawn(move || {
                for _ in 0..ROUNDS {
                    let permit = semaphore.acquire().expect("no error");
                    enter();
                    leave();
                    drop(permit);
                }
            });
        });
    }
    fn child((semaphore, inside, done): (Semaphore, AtomicValue<u64>, AtomicValue<u64>)) {
        work(&semaphore, &inside, &done);
    }
    let _alone = alone();
    let semaphore = Semaphore::new(2)?;
    let (inside, done) = (AtomicValue::new(0_u64)?, AtomicValue::new(0_u64)?);
    let start = |_| spawn(child, (semaphore.clone(), inside.clone(), done.clone()));
    let children: Vec<_> = (0..2).map(start).collect();
    work(&semaphore, &inside, &done);
    children.iter().for_each(value);
    assert_eq!((done.load(), inside.load(), semaphore.available()), (3 * 2 * ROUNDS, 0, 2));
    Ok(())
}

#[test]
fn processes_killed_at_random_leave_all_permits_free() -> Outcome {
    const KILLS: u32 = 150;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let (semaphore, rounds) = (Semaphore::new(3)?, AtomicValue::new(0_u64)?);
    let worker = |seed: u64| {
        fork(How::Libc, || {
            let mut dice = Dice::new(seed);
            let mut kept: Vec<OwnedPermit> = Vec::new();
            loop {
                match dice.below(4) {
                    0 if kept.is_empty() => kept = semaphore.acquire_many_owned(2).expect("no error\n"),
                    1 => drop(kept.pop()),
                    2 if kept.is_empty() => drop(semaphore.acquire().expect("no error\n")),
                    _ => kept.extend(semaphore.try_acquire_owned().expect("no error\n")),
                }
                kept.truncate(2);
                rounds.fetch_add(1);
            }
        })
    };
    let mut workers: Vec<Forked> = (0..5).map(|seed| worker(seed + 1)).collect();
    for kill in 0..KILLS {
        let seen = rounds.load();
        wait_until(|| rounds.load() > seen + dice.below(100));
        workers.swap_remove(usize::try_from(dice.below(5))?).kill();
        workers.push(worker(u64::from(kill) + 100));
    }
    workers.into_iter().for_each(Forked::kill);
    assert_eq!((semaphore.acquire_many(3)?.len(), semaphore.available()), (3, 0));
    Ok(())
}
