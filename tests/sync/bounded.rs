//! `BoundedSemaphore`: a count that any process may raise; and CPython's tests of semaphores.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::sync::AcquireError;
use multiproc::{AtomicValue, BoundedSemaphore, ErrorKind};

use crate::common::{Dice, How, Outcome, alone, fork, signal, spawn, unique, value, wait_for};

#[test]
fn names_and_refusals() -> Outcome {
    let _alone = alone();
    let name = unique("bounded");
    assert_eq!(BoundedSemaphore::new(3, 2).expect_err("more than the limit").kind(), ErrorKind::Invalid);
    let made = BoundedSemaphore::create(&name, 1, 2)?;
    assert_eq!(
        BoundedSemaphore::create(&name, 1, 2).expect_err("it is there").kind(),
        ErrorKind::AlreadyExists
    );
    let other_limit = BoundedSemaphore::open_or_create(&name, 1, 3).expect_err("of another limit");
    assert_eq!(other_limit.kind(), ErrorKind::Mismatch);
    assert_eq!(multiproc::Semaphore::open(&name).expect_err("of another kind").kind(), ErrorKind::WrongKind);
    let (opened, either) = (BoundedSemaphore::open(&name)?, BoundedSemaphore::open_or_create(&name, 1, 2)?);
    assert!(opened.try_acquire() && !either.try_acquire());
    made.release(0)?;
    assert_eq!(either.available(), 0);
    assert_eq!(made.release(3).expect_err("two at most").cause(), AcquireError::TooMany);
    assert_eq!(
        made.release(u32::MAX).expect_err("two at most").to_string(),
        format!("bounded {name:?}: there are not so many permits")
    );
    made.release(2)?;
    assert_eq!((opened.available(), opened.name()), (2, Some(name.as_str())));
    BoundedSemaphore::unlink(&name)?;
    assert_eq!(BoundedSemaphore::open(&name).expect_err("its name is gone").kind(), ErrorKind::NotFound);
    let all = BoundedSemaphore::new(u32::MAX, u32::MAX)?;
    assert!(all.release(1).is_err() && all.try_acquire() && all.release(1).is_ok());
    Ok(())
}

#[test]
fn process_acquires_what_another_process_releases() -> Outcome {
    const ROUNDS: u32 = 2_000;
    fn child((tokens, back): (BoundedSemaphore, BoundedSemaphore)) {
        for _ in 0..ROUNDS {
            tokens.acquire();
            back.release(1).expect("below the limit");
        }
    }
    let _alone = alone();
    let (tokens, back) = (BoundedSemaphore::new(0, 4)?, BoundedSemaphore::new(4, 4)?);
    let children: Vec<_> = (0..2).map(|_| spawn(child, (tokens.clone(), back.clone()))).collect();
    for _ in 0..2 * ROUNDS {
        back.acquire();
        tokens.release(1)?;
    }
    children.iter().for_each(value);
    assert_eq!((tokens.available(), back.available()), (0, 4));
    Ok(())
}

#[test]
fn release_of_many_wakes_as_many() -> Outcome {
    const WAITERS: u32 = 4;
    let _alone = alone();
    let (tokens, step) = (BoundedSemaphore::new(0, 10)?, AtomicValue::new(0_u32)?);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        step.store(0);
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                fork(How::Libc, || {
                    step.fetch_add(1);
                    tokens.acquire();
                    step.fetch_add(100);
                    0
                })
            })
            .collect();
        wait_for(&step, WAITERS);
        thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        tokens.release(1)?;
        wait_for(&step, 100);
        tokens.release(WAITERS - 1)?;
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.wait(), 0));
        took.push(start.elapsed());
        assert_eq!(tokens.available(), 0);
    }
    took.sort();
    // By their liveness poll, once a second, each round would take a second.
    assert!(took[10] < Duration::from_millis(500), "{took:?}");
    Ok(())
}

#[test]
fn killed_waiter_takes_at_most_one_permit() -> Outcome {
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    for _ in 0..40 {
        let (tokens, step) = (BoundedSemaphore::new(0, 2)?, AtomicValue::new(0_u32)?);
        let waiter = || {
            fork(How::Libc, || {
                step.fetch_add(1);
                tokens.acquire();
                0
            })
        };
        let (victim, survivor) = (waiter(), waiter());
        wait_for(&step, 2);
        thread::sleep(Duration::from_micros(dice.below(200)));
        tokens.release(2)?;
        (0..dice.below(3_000)).for_each(|_| std::hint::spin_loop());
        signal(victim.pid(), libc::SIGKILL);
        victim.wait();
        assert_eq!(survivor.wait(), 0);
        assert!(tokens.available() <= 1);
    }
    Ok(())
}

#[test]
fn permit_of_a_killed_process_stays_taken_until_released() -> Outcome {
    let _alone = alone();
    let (tokens, step) = (BoundedSemaphore::new(2, 2)?, AtomicValue::new(0_u32)?);
    let holder = fork(How::Libc, || {
        tokens.acquire();
        step.store(1);
        wait_for(&step, 2);
        0
    });
    wait_for(&step, 1);
    holder.kill();
    assert_eq!(tokens.available(), 1);
    // Any other process may release it.
    tokens.release(1)?;
    assert_eq!(tokens.available(), 2);
    Ok(())
}

/// CPython's `_TestSemaphore`: tests of `Semaphore` and `BoundedSemaphore`.
mod test_semaphore {
    use super::*;

    fn two_of_two(semaphore: &BoundedSemaphore) -> Outcome {
        assert_eq!(semaphore.available(), 2);
        semaphore.acquire();
        assert_eq!(semaphore.available(), 1);
        semaphore.acquire();
        assert_eq!(semaphore.available(), 0);
        assert!(!semaphore.try_acquire());
        assert_eq!(semaphore.available(), 0);
        semaphore.release(1)?;
        assert_eq!(semaphore.available(), 1);
        semaphore.release(1)?;
        assert_eq!(semaphore.available(), 2);
        Ok(())
    }

    #[test]
    fn test_semaphore() -> Outcome {
        let _alone = alone();
        let semaphore = BoundedSemaphore::new(2, BoundedSemaphore::NO_LIMIT)?;
        two_of_two(&semaphore)?;
        for count in 3..=4 {
            semaphore.release(1)?;
            assert_eq!(semaphore.available(), count);
        }
        Ok(())
    }

    #[test]
    fn test_bounded_semaphore() -> Outcome {
        let _alone = alone();
        let semaphore = BoundedSemaphore::new(2, 2)?;
        two_of_two(&semaphore)?;
        assert_eq!(semaphore.release(1).expect_err("one too many").cause(), AcquireError::TooMany);
        Ok(())
    }

    #[test]
    fn test_timeout() -> Outcome {
        let _alone = alone();
        let semaphore = BoundedSemaphore::new(0, 1)?;
        assert!(!semaphore.try_acquire());
        for timeout in [0, 82, 35].map(Duration::from_millis) {
            let start = Instant::now();
            assert!(!semaphore.acquire_timeout(timeout));
            assert!(start.elapsed() >= timeout);
        }
        Ok(())
    }
}
