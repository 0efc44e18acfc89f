//! `Condition` across processes: which waiters a notification wakes, and where the notification of a killed
//! waiter goes.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::sync::AcquireError;
use multiproc::{Array, ArrayLockError, AtomicValue, Condition, ErrorKind, Lock, LockGuard, Value};

use crate::common::{
    Dice, How, Outcome, alone, fork, kill, signal, spawn, stop, unique, value, wait_for, wait_until,
    watchdog, with_one_thread,
};

/// Waits once, then adds itself to `woken`; returns how many waiters woke before it.
fn sleep((condition, lock, woken): (Condition, Lock, AtomicValue<u32>)) -> u32 {
    let _guard = condition.wait(lock.lock().expect("the lock")).expect("no error");
    woken.fetch_add(1)
}

fn make() -> Result<(Condition, Lock, AtomicValue<u32>), Box<dyn std::error::Error>> {
    Ok((Condition::new()?, Lock::new()?, AtomicValue::new(0)?))
}

#[test]
fn notification_without_a_waiter_is_lost() -> Outcome {
    let (condition, lock, _) = make()?;
    assert_eq!((condition.notify_one()?, condition.notify_all()?, condition.waiters()), (0, 0, 0));
    assert!(!condition.wait_timeout(lock.lock()?, Duration::from_millis(20))?.1);
    Ok(())
}

#[test]
fn condition_is_found_by_name() -> Outcome {
    let name = unique("condition");
    let condition = Condition::create(&name)?;
    assert_eq!(Condition::create(&name).expect_err("is there").kind(), ErrorKind::AlreadyExists);
    assert_eq!(Lock::open(&name).expect_err("another kind").kind(), ErrorKind::WrongKind);
    let (same, lock) = (Condition::open(&name)?, Lock::new()?);
    thread::scope(|s| -> Outcome {
        let waiter = s.spawn(|| drop(condition.wait(lock.lock().expect("the lock")).expect("no error")));
        wait_until(|| same.waiters() == 1);
        assert_eq!(Condition::open_or_create(&name)?.notify_all()?, 1);
        waiter.join().expect("no panic");
        Ok(())
    })?;
    assert!(format!("{condition:?}").contains("waiters: 0") && condition.name() == Some(&name[..]));
    Condition::unlink(&name)?;
    assert_eq!(Condition::open(&name).expect_err("gone").kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn waiters_are_notified_in_the_order_of_their_arrival() -> Outcome {
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    let mut waiters = Vec::new();
    for number in 1..=6 {
        waiters.push(spawn(sleep, (condition.clone(), lock.clone(), woken.clone())));
        wait_until(|| condition.waiters() == number);
    }
    for notified in 1..=6 {
        condition.notify_one()?;
        wait_for(&woken, notified);
    }
    let order: Vec<_> = waiters.iter().map(value).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    Ok(())
}

#[test]
fn value_is_committed_before_the_wait_and_read_again_after() -> Outcome {
    fn child((condition, number): (Condition, Value<u64>)) -> u64 {
        let mut guard = number.lock().expect("the lock");
        *guard = 5;
        let mut guard = condition.wait(guard).expect("no error");
        *guard += 1;
        *guard
    }
    let _alone = alone();
    let (condition, number) = (Condition::new()?, Value::new(0_u64)?);
    let process = spawn(child, (condition.clone(), number.clone()));
    wait_until(|| condition.waiters() == 1);
    assert_eq!(number.replace(10)?, 5);
    condition.notify_one()?;
    assert_eq!((value(&process), number.get()?), (11, 11));
    Ok(())
}

#[test]
fn wait_with_an_array_returns_its_new_content_or_its_dead_writer() -> Outcome {
    fn writer((array, step): (Array<u64>, AtomicValue<u32>)) {
        let mut guard = array.lock().expect("the lock");
        guard.set(0, 1).expect("an element");
        step.store(1);
        wait_for(&step, 2);
    }
    let _alone = alone();
    let (condition, array, step) = (Condition::new()?, Array::<u64>::new(2)?, AtomicValue::new(0)?);
    thread::scope(|s| -> Outcome {
        let waiter = s.spawn(|| {
            let guard = condition.wait(array.lock().expect("whole")).expect("still whole");
            assert_eq!(guard.to_vec(), [7, 8]);
            match condition.wait(guard) {
                Err(ArrayLockError::OwnerDied(died)) => died.writer().pid(),
                other => panic!("{other:?}"),
            }
        });
        wait_until(|| condition.waiters() == 1);
        array.copy_from(&[7, 8])?;
        condition.notify_one()?;
        wait_until(|| condition.waiters() == 1);
        let writer = spawn(writer, (array.clone(), step.clone()));
        wait_for(&step, 1);
        condition.notify_one()?;
        kill(&writer);
        assert_eq!(waiter.join().expect("no panic"), Some(writer.pid()));
        Ok(())
    })
}

#[test]
fn notified_waiter_learns_of_the_killed_owner_of_its_lock() -> Outcome {
    fn owner((lock, step): (Lock, AtomicValue<u32>)) {
        let _guard = lock.lock().expect("the lock");
        step.store(1);
        wait_for(&step, 2);
    }
    let _alone = alone();
    let (condition, lock, step) = make()?;
    thread::scope(|s| -> Outcome {
        let waiter = s.spawn(|| {
            let guard = condition.wait(lock.lock().expect("the lock")).expect("no error");
            LockGuard::previous_owner_died(&guard).and_then(multiproc::Death::pid)
        });
        wait_until(|| condition.waiters() == 1);
        let owner = spawn(owner, (lock.clone(), step.clone()));
        wait_for(&step, 1);
        condition.notify_one()?;
        kill(&owner);
        assert_eq!(waiter.join().expect("no panic"), Some(owner.pid()));
        Ok(())
    })
}

#[test]
fn timed_out_waiter_takes_no_notification_with_it() -> Outcome {
    const TIMEOUT: Duration = Duration::from_millis(30);
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    for _ in 0..20 {
        // The first waiter times out, and leaves.
        let other = thread::scope(|s| -> Result<_, Box<dyn std::error::Error>> {
            let wait =
                || condition.wait_timeout(lock.lock().expect("the lock"), TIMEOUT).expect("no error").1;
            let first = s.spawn(wait);
            // On a busy machine it may have timed out already.
            wait_until(|| condition.waiters() == 1 || first.is_finished());
            let other = spawn(sleep, (condition.clone(), lock.clone(), woken.clone()));
            assert!(!first.join().expect("no panic"));
            Ok(other)
        })?;
        wait_until(|| condition.waiters() == 1);
        assert_eq!(condition.notify_one()?, 1);
        value(&other);
    }
    Ok(())
}

#[test]
fn each_notification_wakes_one_waiter_though_others_time_out() -> Outcome {
    const WAITERS: usize = 4;
    let _watchdog = watchdog();
    let (condition, lock) = (Condition::new()?, Lock::new()?);
    let (mut sent, done) = (0, AtomicValue::new(0_u32)?);
    let received: usize = thread::scope(|s| -> Result<usize, Box<dyn std::error::Error>> {
        let waiters: Vec<_> = (0..WAITERS)
            .map(|number| {
                let (condition, lock, done) = (&condition, &lock, &done);
                s.spawn(move || {
                    let (mut dice, mut received) = (Dice::new(number as u64 + 1), 0);
                    while done.load() == 0 {
                        let timeout = Duration::from_micros(dice.below(300));
                        let guard = lock.lock().expect("the lock");
                        received += usize::from(condition.wait_timeout(guard, timeout).expect("no error").1);
                    }
                    received
                })
            })
            .collect();
        let (mut dice, start) = (Dice::new(99), Instant::now());
        while start.elapsed() < Duration::from_millis(300) {
            sent += condition.notify(usize::try_from(dice.below(4))?)?;
        }
        done.store(1);
        Ok(waiters.into_iter().map(|waiter| waiter.join().expect("no panic")).sum())
    })?;
    assert_eq!(received, sent);
    assert!(sent > 0 && condition.waiters() == 0);
    Ok(())
}

#[test]
fn killed_waiter_is_not_counted() -> Outcome {
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    let mut waiters = Vec::new();
    for number in 1..=3 {
        waiters.push(spawn(sleep, (condition.clone(), lock.clone(), woken.clone())));
        wait_until(|| condition.waiters() == number);
    }
    kill(&waiters[0]);
    kill(&waiters[1]);
    wait_until(|| condition.waiters() == 1);
    assert_eq!(condition.notify(3)?, 1);
    value(&waiters[2]);
    assert_eq!(condition.notify_all()?, 0);
    Ok(())
}

/// Lets `others` + 1 processes wait, and kills the first after it was notified and before it has the lock.
/// Exactly one other waiter gets its notification.
fn kill_the_notified_waiter(others: usize) -> Outcome {
    let (condition, lock, woken) = make()?;
    let mut waiters = Vec::new();
    for number in 1..=others + 1 {
        waiters.push(spawn(sleep, (condition.clone(), lock.clone(), woken.clone())));
        wait_until(|| condition.waiters() == number);
    }
    let guard = lock.lock()?;
    condition.notify_one()?;
    assert_eq!(condition.waiters(), others);
    kill(&waiters.remove(0));
    wait_until(|| condition.waiters() == others - 1);
    drop(guard);
    wait_for(&woken, 1);
    assert_eq!(condition.notify_all()?, others - 1);
    waiters.iter().for_each(|waiter| {
        value(waiter);
    });
    assert_eq!(condition.waiters(), 0);
    Ok(())
}

#[test]
fn notification_of_a_killed_waiter_goes_to_another() -> Outcome {
    let _alone = alone();
    kill_the_notified_waiter(1)?;
    kill_the_notified_waiter(6)
}

#[test]
fn notification_survives_the_death_of_all_waiters_but_one() -> Outcome {
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    let mut waiters = Vec::new();
    for number in 1..=5 {
        waiters.push(spawn(sleep, (condition.clone(), lock.clone(), woken.clone())));
        wait_until(|| condition.waiters() == number);
    }
    let guard = lock.lock()?;
    condition.notify_one()?;
    for (killed, left) in (1..5).zip((0..4).rev()) {
        kill(&waiters[killed - 1]);
        wait_until(|| condition.waiters() == left);
    }
    drop(guard);
    assert_eq!(value(&waiters[4]), 0);
    Ok(())
}

#[test]
fn stopped_waiter_delays_no_other_waiter() -> Outcome {
    let _alone = alone();
    let (condition, lock, woken) = make()?;
    let stopped = spawn(sleep, (condition.clone(), lock.clone(), woken.clone()));
    wait_until(|| condition.waiters() == 1);
    // The waiter still holds the lock when it is first counted: it must not be stopped before it has released
    // it.
    drop(lock.lock()?);
    stop(stopped.pid());
    let other = spawn(sleep, (condition.clone(), lock.clone(), woken.clone()));
    wait_until(|| condition.waiters() == 2);
    assert_eq!(condition.notify_all()?, 2);
    value(&other);
    signal(stopped.pid(), libc::SIGCONT);
    assert_eq!(value(&stopped), 1);
    Ok(())
}

#[test]
fn wait_without_a_free_slot_is_refused() -> Outcome {
    let _watchdog = watchdog();
    let (condition, lock) = (Condition::new()?, Lock::new()?);
    thread::scope(|s| -> Outcome {
        for _ in 0..Condition::MOST {
            s.spawn(|| drop(condition.wait(lock.lock().expect("the lock")).expect("no error")));
        }
        wait_until(|| condition.waiters() == Condition::MOST);
        let refused = condition.wait(lock.lock()?).expect_err("no free slot");
        assert_eq!(refused.cause(), AcquireError::NoFreeSlot);
        assert!(!lock.is_locked() && refused.to_string().contains("condition"));
        assert_eq!(condition.notify(2)?, 2);
        wait_until(|| condition.wait_timeout(lock.lock().expect("the lock"), Duration::ZERO).is_ok());
        assert_eq!(condition.notify_all()?, Condition::MOST - 2);
        Ok(())
    })
}

#[test]
fn forked_copy_of_a_guard_cannot_wait() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        let (condition, lock) = (Condition::new()?, Lock::new()?);
        let mut guard = Some(lock.lock()?);
        let child = fork(How::Libc, || {
            let copy = guard.take().expect("a copy\n");
            i32::from(!condition.wait(copy).is_err_and(|error| error.cause() == AcquireError::NotHeld))
        });
        assert_eq!(child.wait(), 0);
        assert_eq!(condition.waiters(), 0);
        Ok(())
    })
}

/// Takers of items wait for a condition and are killed at random: whenever an item is there and a taker
/// waits, a taker takes it.
#[test]
fn takers_killed_at_random_lose_no_notification() -> Outcome {
    fn taker((condition, stock, taken): (Condition, Value<[u64; 2]>, AtomicValue<u64>)) {
        loop {
            let guard = stock.lock().expect("the lock");
            let mut guard = condition.wait_while(guard, |stock| stock[0] == 0).expect("no error");
            guard[0] -= 1;
            guard[1] += 1;
            drop(guard);
            taken.fetch_add(1);
        }
    }
    const TAKERS: usize = 4;
    let _alone = alone();
    let (condition, stock, taken) = (Condition::new()?, Value::new([0_u64; 2])?, AtomicValue::new(0_u64)?);
    let new = || spawn(taker, (condition.clone(), stock.clone(), taken.clone()));
    let mut takers: Vec<_> = (0..TAKERS).map(|_| new()).collect();
    let mut dice = Dice::of_this_run();
    for _ in 0..60 {
        wait_until(|| condition.waiters() == TAKERS);
        // One item, one notification; and a taker that may be about to take it dies at about that time.
        stock.update(|stock| stock[0] += 1)?;
        condition.notify_one()?;
        let pause = Instant::now();
        let length = Duration::from_micros(dice.below(150));
        while pause.elapsed() < length {
            std::hint::spin_loop();
        }
        let victim = usize::try_from(dice.below(TAKERS as u64))?;
        kill(&takers[victim]);
        // A taker may die when it has seen the item and has the lock. Then its notification is used up, and
        // the item waits for the next one.
        wait_until(|| {
            let stock = stock.get().expect("no error");
            stock[0] == 0 || condition.waiters() == TAKERS - 1
        });
        takers[victim] = new();
        wait_until(|| condition.waiters() == TAKERS || stock.get().is_ok_and(|stock| stock[0] == 0));
        while stock.get()?[0] > 0 {
            condition.notify_one()?;
            thread::yield_now();
        }
    }
    assert_eq!(stock.get()?, [0, 60]);
    Ok(())
}
