//! `waiters()`: as many as sleep, in whatever process; who is killed is not counted, and nobody is woken by being counted.

use std::time::Duration;

use multiproc::{AtomicValue, BoundedSemaphore, Event, Lock, RLock, RwLock, Semaphore};

use crate::common::{Forked, How, Outcome, alone, fork, wait_until};

/// Three wait in processes of their own, one is killed, and `go` lets the others go on: nobody waits in the end. `counted` is asked often.
fn counted(wait: impl Fn(), waiters: impl Fn() -> usize, go: impl FnOnce()) -> Outcome {
    let woken = AtomicValue::new(0_u32)?;
    let waiter = || {
        fork(How::Libc, || {
            wait();
            woken.fetch_add(1);
            0
        })
    };
    let mut sleepers: Vec<Forked> = Vec::new();
    assert_eq!(waiters(), 0);
    for number in 1..=3 {
        sleepers.push(waiter());
        wait_until(|| waiters() == number);
    }
    sleepers.remove(1).kill();
    // The dead one was in the midst of the queue.
    wait_until(|| waiters() == 2);
    for _ in 0..1000 {
        // One that sleeps wakes once a second, and sleeps again.
        assert!(waiters() <= 2);
    }
    assert_eq!(woken.load(), 0);
    go();
    for sleeper in sleepers {
        assert_eq!(sleeper.wait(), 0);
    }
    assert_eq!((woken.load(), waiters()), (2, 0));
    Ok(())
}

#[test]
fn of_a_lock() -> Outcome {
    let _alone = alone();
    let lock = Lock::new()?;
    let mut guard = Some(lock.lock()?);
    counted(|| drop(lock.lock().expect("no error\n")), || lock.waiters(), || drop(guard.take()))
}

#[test]
fn of_an_rlock() -> Outcome {
    let _alone = alone();
    let lock = RLock::new()?;
    let mut guards = Some((lock.lock()?, lock.lock()?));
    counted(|| drop(lock.lock().expect("no error\n")), || lock.waiters(), || drop(guards.take()))
}

#[test]
fn of_readers_for_a_writer() -> Outcome {
    let _alone = alone();
    let lock = RwLock::new()?;
    let mut guard = Some(lock.write()?);
    counted(|| drop(lock.read().expect("no error\n")), || lock.waiters(), || drop(guard.take()))
}

#[test]
fn of_writers_for_a_reader() -> Outcome {
    let _alone = alone();
    let lock = RwLock::new()?;
    let mut guard = Some(lock.read()?);
    // One of them in the turnstile, the others before it.
    counted(|| drop(lock.write().expect("no error\n")), || lock.waiters(), || drop(guard.take()))
}

#[test]
fn of_a_semaphore() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(2)?;
    let mut permits = Some(semaphore.acquire_many(2)?);
    counted(|| drop(semaphore.acquire().expect("no error\n")), || semaphore.waiters(), || drop(permits.take()))
}

#[test]
fn of_permits_of_a_process() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(1)?;
    let mut permit = Some(semaphore.acquire_owned()?);
    counted(|| drop(semaphore.acquire_owned().expect("no error\n")), || semaphore.waiters(), || drop(permit.take()))
}

#[test]
fn of_a_bounded_semaphore() -> Outcome {
    let _alone = alone();
    let tokens = BoundedSemaphore::new(0, BoundedSemaphore::NO_LIMIT)?;
    counted(|| tokens.acquire(), || tokens.waiters(), || tokens.release(2).expect("no limit"))
}

#[test]
fn of_an_event() -> Outcome {
    let _alone = alone();
    let event = Event::new()?;
    counted(|| event.wait(), || event.waiters(), || event.set())
}

#[test]
fn who_gives_up_waits_no_more() -> Outcome {
    let _alone = alone();
    let (lock, event) = (Lock::new()?, Event::new()?);
    let _guard = lock.lock()?;
    let child = fork(How::Libc, || {
        let in_vain = lock.lock_timeout(Duration::from_millis(20)).is_ok_and(|guard| guard.is_none());
        i32::from(!in_vain || event.wait_timeout(Duration::from_millis(20)))
    });
    assert_eq!(child.wait(), 0);
    assert_eq!((lock.waiters(), event.waiters()), (0, 0));
    Ok(())
}
