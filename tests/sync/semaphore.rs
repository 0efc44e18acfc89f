//! `Semaphore`: no more holders than permits, however holders end; and CPython's tests of semaphores.
#![allow(unsafe_code, reason = "the raw calls")]

use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{process, thread};

use multiproc::robust::MAX_HELD;
use multiproc::sync::AcquireError;
use multiproc::{AtomicValue, ErrorKind, Permit, Semaphore};

use crate::common::{
    Dice, Forked, How, Outcome, alone, exec, fork, kill, signal, spawn, unique, value, wait_for, wait_until,
    with_one_thread,
};

/// Holds `count` permits from step 1 until step 2.
fn holder((semaphore, step, count): (Semaphore, AtomicValue<u32>, usize)) {
    let permits: Vec<_> = (0..count).map(|_| semaphore.acquire().expect("no error")).collect();
    step.fetch_add(1);
    wait_for(&step, 2);
    drop(permits);
}

#[test]
fn all_permits_can_be_held_at_once() -> Outcome {
    let _alone = alone();
    for count in [1, 2, 3, 126, 127] {
        let semaphore = Semaphore::new(count)?;
        assert_eq!((semaphore.permits(), semaphore.available()), (count, count));
        let mut permits: Vec<_> = (0..count).map(|_| semaphore.acquire().expect("it is free")).collect();
        let mut numbers: Vec<_> = permits.iter().map(Permit::number).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..count));
        assert!(semaphore.holders().iter().all(|owner| owner.pid == Some(process::id())));
        assert_eq!((semaphore.available(), semaphore.holders().len()), (0, count));
        assert!(semaphore.try_acquire()?.is_none());
        // This thread holds all of them, so a wait would never end.
        for refused in [semaphore.acquire().map(drop), semaphore.acquire_timeout(Duration::MAX).map(drop)] {
            assert_eq!(refused.expect_err("held by itself").cause(), AcquireError::AlreadyHeld);
        }
        drop(permits.swap_remove(count / 2));
        assert_eq!(semaphore.available(), 1);
        permits.push(semaphore.try_acquire()?.expect("one is free"));
        drop(permits);
        assert_eq!(semaphore.available(), count);
    }
    Ok(())
}

#[test]
fn names_and_refusals() -> Outcome {
    let _alone = alone();
    let name = unique("semaphore");
    for count in [0, 128, usize::MAX] {
        assert_eq!(Semaphore::new(count).expect_err("too few or too many").kind(), ErrorKind::Invalid);
    }
    let made = Semaphore::create(&name, 3)?;
    assert_eq!(Semaphore::create(&name, 3).expect_err("it is there").kind(), ErrorKind::AlreadyExists);
    let other_size = Semaphore::open_or_create(&name, 4).expect_err("of another size");
    assert_eq!(other_size.kind(), ErrorKind::Mismatch);
    assert_eq!(multiproc::Lock::open(&name).expect_err("of another kind").kind(), ErrorKind::WrongKind);
    let (opened, either) = (Semaphore::open(&name)?, Semaphore::open_or_create(&name, 3)?);
    assert_eq!((opened.name(), opened.permits()), (Some(name.as_str()), 3));
    let all = (made.acquire()?, opened.acquire()?, either.acquire()?);
    assert_eq!(made.available(), 0);
    drop(all);
    Semaphore::unlink(&name)?;
    assert_eq!(Semaphore::open(&name).expect_err("its name is gone").kind(), ErrorKind::NotFound);
    // SAFETY: released below, by this thread.
    let number = unsafe { made.raw_acquire() }?;
    // SAFETY: taken above, once.
    assert!(unsafe { made.raw_release(number) });
    for refused in [number, 1000] {
        // SAFETY: refused.
        assert!(!unsafe { made.raw_release(refused) });
    }
    Ok(())
}

#[test]
fn no_more_permits_are_held_than_exist() -> Outcome {
    const ROUNDS: u64 = 1_000;
    const PERMITS: u64 = 2;
    fn work(semaphore: &Semaphore, inside: &AtomicValue<u64>, done: &AtomicValue<u64>) {
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..ROUNDS {
                        let permit = semaphore.acquire().expect("no error");
                        assert!(
                            inside.fetch_add(1) < PERMITS && Permit::previous_owner_died(&permit).is_none()
                        );
                        done.fetch_add(1);
                        inside.fetch_sub(1);
                    }
                });
            }
        });
    }
    fn child((semaphore, inside, done): (Semaphore, AtomicValue<u64>, AtomicValue<u64>)) {
        work(&semaphore, &inside, &done);
    }
    let _alone = alone();
    let semaphore = Semaphore::new(2)?;
    let (inside, done) = (AtomicValue::new(0_u64)?, AtomicValue::new(0_u64)?);
    let start = |_| spawn(child, (semaphore.clone(), inside.clone(), done.clone()));
    let children: Vec<_> = (0..3).map(start).collect();
    work(&semaphore, &inside, &done);
    children.iter().for_each(value);
    assert_eq!((done.load(), inside.load(), semaphore.available()), (4 * 2 * ROUNDS, 0, 2));
    Ok(())
}

#[test]
fn acquire_many_gets_all_or_none() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(4)?, AtomicValue::new(0_u32)?);
    assert!(semaphore.acquire_many(0)?.is_empty());
    let five = semaphore.acquire_many(5).map(drop);
    assert_eq!(five.expect_err("there are four").cause(), AcquireError::TooMany);
    let child = spawn(holder, (semaphore.clone(), step.clone(), 2));
    wait_for(&step, 1);
    assert!(semaphore.try_acquire_many(3)?.is_none());
    let start = Instant::now();
    assert!(semaphore.acquire_many_timeout(3, Duration::from_millis(30))?.is_none());
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(semaphore.available(), 2);
    let two = semaphore.try_acquire_many(2)?.expect("they are free");
    assert_eq!((two.len(), semaphore.available()), (2, 0));
    // This thread holds two: it can wait for two more, and never gets three.
    let three = semaphore.acquire_many(3).map(drop);
    assert_eq!(three.expect_err("this thread holds two").cause(), AcquireError::AlreadyHeld);
    step.store(2);
    let others = semaphore.acquire_many(2)?;
    value(&child);
    drop((two, others));
    assert_eq!(semaphore.acquire_many(4)?.len(), 4);
    assert_eq!(semaphore.available(), 4);
    Ok(())
}

#[test]
fn concurrent_acquire_many_does_not_deadlock() -> Outcome {
    const ROUNDS: usize = 300;
    fn child((semaphore, held, count): (Semaphore, AtomicValue<u64>, usize)) {
        for _ in 0..ROUNDS {
            let permits = semaphore.acquire_many(count).expect("no error");
            assert!(held.fetch_add(count as u64) + count as u64 <= 5);
            held.fetch_sub(count as u64);
            drop(permits);
        }
    }
    let _alone = alone();
    let (semaphore, held) = (Semaphore::new(5)?, AtomicValue::new(0_u64)?);
    // Together, any two of the first three want more than there are.
    let children: Vec<_> =
        [3, 4, 5, 1].map(|count| spawn(child, (semaphore.clone(), held.clone(), count))).into();
    children.iter().for_each(value);
    assert_eq!((semaphore.available(), held.load()), (5, 0));
    Ok(())
}

#[test]
fn each_release_wakes_a_waiter() -> Outcome {
    const WAITERS: u32 = 4;
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(2)?, AtomicValue::new(0_u32)?);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        step.store(0);
        let mut permits = semaphore.acquire_many(2)?;
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                fork(How::Libc, || {
                    step.fetch_add(1);
                    let permit = semaphore.acquire().expect("no error\n");
                    step.fetch_add(100);
                    wait_for(&step, 1000);
                    i32::from(Permit::previous_owner_died(&permit).is_some())
                })
            })
            .collect();
        wait_for(&step, WAITERS);
        thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        permits.pop();
        wait_for(&step, 100 + WAITERS);
        permits.pop();
        wait_for(&step, 200 + WAITERS);
        took.push(start.elapsed());
        step.store(1000);
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.wait(), 0));
        assert_eq!(semaphore.available(), 2);
    }
    took.sort();
    // By the liveness poll, once a second, each round would take a second.
    assert!(took[10] < Duration::from_millis(500), "{took:?}");
    Ok(())
}

#[test]
fn permits_of_a_killed_process_are_free_and_name_it_once() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(3)?, AtomicValue::new(0_u32)?);
    let child = spawn(holder, (semaphore.clone(), step.clone(), 3));
    wait_for(&step, 1);
    assert_eq!(semaphore.holders().iter().filter(|owner| owner.pid == Some(child.pid())).count(), 3);
    kill(&child);
    assert_eq!((semaphore.available(), semaphore.holders().len()), (3, 0));
    let second = || Ok::<_, multiproc::LockError>(semaphore.try_acquire()?.expect("it is free"));
    let permits = [semaphore.acquire()?, second()?, semaphore.acquire_many(1)?.remove(0)];
    for permit in &permits {
        assert_eq!(Permit::previous_owner_died(permit).and_then(|death| death.pid()), Some(child.pid()));
    }
    drop(permits);
    assert!(semaphore.acquire_many(3)?.iter().all(|permit| Permit::previous_owner_died(permit).is_none()));
    Ok(())
}

#[test]
fn killed_process_wakes_waiters_for_its_permit() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(2)?, AtomicValue::new(0_u32)?);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        step.store(0);
        let _mine = semaphore.acquire()?;
        let owner = fork(How::Libc, || {
            let _permit = semaphore.acquire();
            step.store(1);
            wait_for(&step, u32::MAX);
            0
        });
        wait_for(&step, 1);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                fork(How::Libc, || {
                    step.fetch_add(1);
                    let permit = semaphore.acquire().expect("no error\n");
                    i32::from(Permit::previous_owner_died(&permit).is_some())
                })
            })
            .collect();
        wait_for(&step, 4);
        thread::sleep(Duration::from_millis(2));
        let killed = Instant::now();
        owner.kill();
        // All got the permit, and one of them the death.
        assert_eq!(waiters.into_iter().map(Forked::wait).sum::<i32>(), 1);
        took.push(killed.elapsed());
    }
    took.sort();
    // The kernel reports the death; by the waiters' liveness poll it would take half a second on average.
    assert!(took[10] < Duration::from_millis(300), "{took:?}");
    Ok(())
}

#[test]
fn killed_waiter_leaves_no_trace() -> Outcome {
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let semaphore = Semaphore::new(2)?;
    for _ in 0..60 {
        let step = AtomicValue::new(0_u32)?;
        let permits = semaphore.acquire_many(2)?;
        let wanted = usize::try_from(dice.below(2))? + 1;
        let waiter = |count: usize| {
            fork(How::Libc, || {
                step.fetch_add(1);
                let _permits = semaphore.acquire_many(count);
                0
            })
        };
        let (victim, survivor, other) = (waiter(wanted), waiter(1), waiter(2));
        wait_for(&step, 3);
        thread::sleep(Duration::from_micros(dice.below(200)));
        // The victim is killed with the semaphore's mutex, waiting for that mutex, after it was woken, or
        // with its permits.
        drop(permits);
        (0..dice.below(3_000)).for_each(|_| std::hint::spin_loop());
        signal(victim.pid(), libc::SIGKILL);
        victim.wait();
        assert_eq!((survivor.wait(), other.wait(), semaphore.available()), (0, 0, 2));
    }
    Ok(())
}

#[test]
fn stopped_waiter_delays_other_waiters_by_at_most_a_second() -> Outcome {
    let _alone = alone();
    let (semaphore, step) = (Semaphore::new(2)?, AtomicValue::new(0_u32)?);
    let permits = semaphore.acquire_many(2)?;
    let waiter = || {
        fork(How::Libc, || {
            step.fetch_add(1);
            i32::from(semaphore.acquire().is_err())
        })
    };
    let stopped = waiter();
    wait_for(&step, 1);
    thread::sleep(Duration::from_millis(2));
    let other = waiter();
    wait_for(&step, 2);
    signal(stopped.pid(), libc::SIGSTOP);
    // The stopped waiter has the semaphore's mutex, and may have been woken.
    drop(permits);
    assert_eq!(other.wait(), 0);
    signal(stopped.pid(), libc::SIGCONT);
    assert_eq!(stopped.wait(), 0);
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
fn thread_holds_at_most_a_thousand_permits() -> Outcome {
    let _alone = alone();
    let semaphores: Vec<Semaphore> = (0..8).map(|_| Semaphore::new(127)).collect::<Result<_, _>>()?;
    let mut permits = Vec::new();
    let error = semaphores.iter().find_map(|semaphore| {
        (0..127).find_map(|_| match semaphore.acquire() {
            Ok(permit) => {
                permits.push(permit);
                None
            }
            Err(error) => Some(error),
        })
    });
    assert_eq!((error.expect("too many").cause(), permits.len()), (AcquireError::TooManyHeld, MAX_HELD));
    permits.truncate(MAX_HELD - 2);
    // The semaphore's mutex counts as a held lock, too. The refused call keeps none of its permits.
    let last = &semaphores[7];
    let two = last.acquire_many(2).map(drop);
    assert_eq!(two.expect_err("too many").cause(), AcquireError::TooManyHeld);
    assert_eq!(last.acquire_many(1)?.len(), 1);
    drop(permits);
    assert!(semaphores.iter().all(|semaphore| semaphore.available() == 127));
    Ok(())
}

#[test]
fn thread_that_ends_releases_its_permits() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(3)?;
    thread::scope(|s| {
        s.spawn(|| std::mem::forget(semaphore.acquire_many(2)));
    });
    let permits = semaphore.acquire_many(3)?;
    assert_eq!(permits.iter().filter(|permit| Permit::previous_owner_died(permit).is_some()).count(), 2);
    Ok(())
}

#[test]
fn leaked_permits_stay_held_without_a_handle() -> Outcome {
    let _alone = alone();
    let name = unique("leaked-permit");
    let (taken, go) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|s| -> Outcome {
        let leaker = s.spawn(|| {
            let semaphore = Semaphore::create(&name, 100).expect("a semaphore");
            std::mem::forget(semaphore.acquire_many(70));
            drop(semaphore);
            taken.wait();
            go.wait();
        });
        taken.wait();
        // Their owner still has the semaphore mapped, so it can be opened.
        let semaphore = Semaphore::open(&name)?;
        assert_eq!(semaphore.available(), 30);
        go.wait();
        leaker.join().expect("no panic");
        assert_eq!(semaphore.acquire_many(100)?.len(), 100);
        Ok(())
    })
}

#[test]
fn forked_copy_of_a_permit_owns_nothing() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let (semaphore, step) = (Semaphore::new(2)?, AtomicValue::new(0_u32)?);
            let mut permits = Some(semaphore.acquire_many(2)?);
            let child = fork(how, || {
                // The copies are dropped; the permits are still the parent's.
                drop(permits.take());
                let none = semaphore.try_acquire().is_ok_and(|permit| permit.is_none());
                let still = semaphore.available() == 0 && none;
                step.store(1);
                let next = semaphore.acquire_many(2).is_ok_and(|permits| permits.len() == 2);
                i32::from(!(still && next))
            });
            wait_for(&step, 1);
            let holders = semaphore.holders();
            assert_eq!(holders.iter().filter(|owner| owner.pid == Some(process::id())).count(), 2);
            drop(permits.take());
            assert_eq!(child.wait(), 0, "{how:?}");
        }
        Ok(())
    })
}

#[test]
fn exec_releases_permits() -> Outcome {
    let _alone = alone();
    for by_the_main_thread in [true, false] {
        let (semaphore, step) = (Semaphore::new(2)?, AtomicValue::new(0_u32)?);
        let child = fork(How::Libc, || {
            let take_and_go = || -> () {
                std::mem::forget(semaphore.acquire_many(2));
                step.store(1);
                exec()
            };
            if by_the_main_thread {
                take_and_go();
            }
            // The kernel does not recognise the locks of this thread; the liveness poll releases them.
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
fn holders_killed_at_random_break_no_exclusion() -> Outcome {
    const KILLS: u32 = 200;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let (semaphore, rounds) = (Semaphore::new(3)?, AtomicValue::new(0_u64)?);
    // The holder of each permit: the next holder finds 0 here, unless the previous one died.
    let inside: Vec<AtomicValue<u32>> = (0..3).map(|_| AtomicValue::new(0)).collect::<Result<_, _>>()?;
    let worker = |seed: u64| {
        fork(How::Libc, || {
            let mut dice = Dice::new(seed);
            loop {
                let count = usize::try_from(dice.below(4)).unwrap_or(0).clamp(1, 2);
                let permits = semaphore.acquire_many(count).expect("no error\n");
                let one = if count == 1 { None } else { semaphore.try_acquire().expect("no error\n") };
                for permit in permits.iter().chain(&one) {
                    let before = inside[Permit::number(permit)].swap(process::id());
                    assert!(before == 0 || Permit::previous_owner_died(permit).is_some(), "two at once\n");
                }
                rounds.fetch_add(1);
                permits.iter().chain(&one).for_each(|permit| inside[Permit::number(permit)].store(0));
            }
        })
    };
    let mut workers: Vec<Forked> = (0..6).map(|seed| worker(seed + 1)).collect();
    for kill in 0..KILLS {
        let seen = rounds.load();
        wait_until(|| rounds.load() > seen + dice.below(100));
        workers.swap_remove(usize::try_from(dice.below(6))?).kill();
        workers.push(worker(u64::from(kill) + 100));
    }
    workers.into_iter().for_each(Forked::kill);
    assert_eq!((semaphore.available(), semaphore.acquire_many(3)?.len()), (3, 3));
    Ok(())
}

/// CPython's `_TestSemaphore`: tests of `Semaphore` and `BoundedSemaphore`.
mod test_semaphore {
    use super::*;

    fn two_of_two(semaphore: &Semaphore) -> Outcome {
        assert_eq!(semaphore.available(), 2);
        let first = semaphore.acquire()?;
        assert_eq!(semaphore.available(), 1);
        let second = semaphore.acquire()?;
        assert_eq!(semaphore.available(), 0);
        assert!(semaphore.try_acquire()?.is_none());
        assert_eq!(semaphore.available(), 0);
        drop(first);
        assert_eq!(semaphore.available(), 1);
        drop(second);
        assert_eq!(semaphore.available(), 2);
        Ok(())
    }

    #[test]
    fn test_semaphore() -> Outcome {
        let _alone = alone();
        two_of_two(&Semaphore::new(2)?)
    }

    #[test]
    fn test_bounded_semaphore() -> Outcome {
        let _alone = alone();
        let semaphore = Semaphore::new(2)?;
        two_of_two(&semaphore)?;
        // One release too many is possible only by a raw call, and is refused.
        for number in 0..3 {
            // SAFETY: refused, since nothing is held.
            assert!(!unsafe { semaphore.raw_release(number) });
        }
        assert_eq!(semaphore.available(), 2);
        Ok(())
    }

    #[test]
    fn test_timeout() -> Outcome {
        let _alone = alone();
        let (semaphore, step) = (Semaphore::new(1)?, AtomicValue::new(0_u32)?);
        let child = spawn(holder, (semaphore.clone(), step.clone(), 1));
        wait_for(&step, 1);
        for timeout in [Duration::ZERO, Duration::from_millis(82), Duration::from_millis(35)] {
            let start = Instant::now();
            assert!(semaphore.try_acquire()?.is_none());
            assert!(semaphore.acquire_timeout(timeout)?.is_none());
            assert!(start.elapsed() >= timeout);
        }
        step.store(2);
        value(&child);
        Ok(())
    }
}
