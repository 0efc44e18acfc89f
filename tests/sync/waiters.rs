//! `waiters()` counts the waiters that sleep, in all processes. It counts no killed waiter, and wakes none.

use std::time::Duration;

use multiproc::{AtomicValue, BoundedSemaphore, Event, Lock, RLock, RwLock, Semaphore};

use crate::common::{Forked, How, Outcome, alone, fork, wait_until};

/// Lets three processes wait, kills one, and lets the others go on by `go`; `waiters` must be right all the
/// time, and 0 at the end.
fn count_waiters(wait: impl Fn(), waiters: impl Fn() -> usize, go: impl FnOnce()) -> Outcome {
    let woken = AtomicValue::new(0_u32)?;
    let waiter = || {
        fork(How::Libc, || {
            wait();
            woken.fetch_add(1);
            0
        })
    };
    let mut children: Vec<Forked> = Vec::new();
    assert_eq!(waiters(), 0);
    for number in 1..=3 {
        children.push(waiter());
        wait_until(|| waiters() == number);
    }
    // The second waiter was in the middle of the queue.
    children.remove(1).kill();
    wait_until(|| waiters() == 2);
    for _ in 0..1000 {
        // A waiter wakes once a second for its liveness poll, and sleeps again.
        assert!(waiters() <= 2);
    }
    assert_eq!(woken.load(), 0);
    go();
    for child in children {
        assert_eq!(child.wait(), 0);
    }
    assert_eq!((woken.load(), waiters()), (2, 0));
    Ok(())
}

#[test]
fn waiters_of_a_lock_are_counted() -> Outcome {
    let _alone = alone();
    let lock = Lock::new()?;
    let mut guard = Some(lock.lock()?);
    count_waiters(|| drop(lock.lock().expect("no error\n")), || lock.waiters(), || drop(guard.take()))
}

#[test]
fn waiters_of_an_rlock_are_counted() -> Outcome {
    let _alone = alone();
    let lock = RLock::new()?;
    let mut guards = Some((lock.lock()?, lock.lock()?));
    count_waiters(|| drop(lock.lock().expect("no error\n")), || lock.waiters(), || drop(guards.take()))
}

#[test]
fn readers_that_wait_for_a_writer_are_counted() -> Outcome {
    let _alone = alone();
    let lock = RwLock::new()?;
    let mut guard = Some(lock.write()?);
    count_waiters(|| drop(lock.read().expect("no error\n")), || lock.waiters(), || drop(guard.take()))
}

#[test]
fn writers_that_wait_for_a_reader_are_counted() -> Outcome {
    let _alone = alone();
    let lock = RwLock::new()?;
    let mut guard = Some(lock.read()?);
    // One writer has the entry lock, the others wait for it.
    count_waiters(|| drop(lock.write().expect("no error\n")), || lock.waiters(), || drop(guard.take()))
}

#[test]
fn waiters_of_a_semaphore_are_counted() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(2)?;
    let mut permits = Some(semaphore.acquire_many(2)?);
    let wait = || drop(semaphore.acquire().expect("no error\n"));
    count_waiters(wait, || semaphore.waiters(), || drop(permits.take()))
}

#[test]
fn waiters_for_process_owned_permits_are_counted() -> Outcome {
    let _alone = alone();
    let semaphore = Semaphore::new(1)?;
    let mut permit = Some(semaphore.acquire_owned()?);
    let wait = || drop(semaphore.acquire_owned().expect("no error\n"));
    count_waiters(wait, || semaphore.waiters(), || drop(permit.take()))
}

#[test]
fn waiters_of_a_bounded_semaphore_are_counted() -> Outcome {
    let _alone = alone();
    let tokens = BoundedSemaphore::new(0, BoundedSemaphore::NO_LIMIT)?;
    count_waiters(|| tokens.acquire(), || tokens.waiters(), || tokens.release(2).expect("no limit"))
}

#[test]
fn waiters_of_an_event_are_counted() -> Outcome {
    let _alone = alone();
    let event = Event::new()?;
    count_waiters(|| event.wait(), || event.waiters(), || event.set())
}

#[test]
fn timed_out_waiter_is_not_counted() -> Outcome {
    let _alone = alone();
    let (lock, event) = (Lock::new()?, Event::new()?);
    let _guard = lock.lock()?;
    let child = fork(How::Libc, || {
        let timed_out = lock.lock_timeout(Duration::from_millis(20)).is_ok_and(|guard| guard.is_none());
        i32::from(!timed_out || event.wait_timeout(Duration::from_millis(20)))
    });
    assert_eq!(child.wait(), 0);
    assert_eq!((lock.waiters(), event.waiters()), (0, 0));
    Ok(())
}
