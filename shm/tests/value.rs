//! `Value` between threads: the guard's private copy, its commit, and the effects of a panic.

mod common;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::AcquireError;
use multiproc_shm::{Value, ValueGuard};

use common::{Outcome, watchdog};

#[test]
fn operations_return_what_they_promise() -> Outcome {
    let value = Value::new(1_u64)?;
    assert_eq!(value.get()?, 1);
    value.set(2)?;
    assert_eq!(value.replace(3)?, 2);
    assert_eq!(value.update(|it| *it += 1)?, 4);
    *value.lock()? *= 10;
    assert_eq!(value.get()?, 40);
    assert!(value.owner().is_none());
    assert_eq!(format!("{value:?}"), "Value { object: value (anonymous), value: Ok(40), owner: None }");
    Ok(())
}

#[test]
fn guard_holds_a_private_copy_until_it_is_dropped() -> Outcome {
    let value = Value::new([1_u32; 3])?;
    let mut guard = value.lock()?;
    guard[1] = 9;
    assert_eq!((*guard, value.get()?), ([1, 9, 1], [1, 1, 1]));
    assert!(ValueGuard::previous_owner_died(&guard).is_none());
    drop(guard);
    assert_eq!(value.get()?, [1, 9, 1]);
    Ok(())
}

#[test]
fn values_of_every_size_come_back() -> Outcome {
    fn check<const N: usize>() -> Outcome {
        let mut bytes = [0_u8; N];
        let value = Value::new(bytes)?;
        for round in 0..4_u8 {
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = round.wrapping_mul(31).wrapping_add(u8::try_from(at % 251)?);
            }
            value.set(bytes)?;
            assert_eq!(value.get()?, bytes, "{N} bytes");
        }
        Ok(())
    }
    check::<1>()?;
    check::<3>()?;
    check::<8>()?;
    check::<9>()?;
    check::<255>()?;
    check::<256>()?;
    check::<257>()?;
    check::<4095>()?;
    check::<4096>()?;
    check::<10_007>()?;
    // A value may have no bytes.
    let empty = Value::new([0_u8; 0])?;
    empty.set([])?;
    assert_eq!(empty.get()?, [0_u8; 0]);
    Ok(())
}

#[test]
fn locking_twice_in_one_thread_is_an_error() -> Outcome {
    let value = Value::new(1_u64)?;
    let guard = value.lock()?;
    for error in [
        value.lock().map(drop),
        value.set(2),
        value.try_lock().map(drop),
        value.clone().update(|_| ()).map(drop),
    ] {
        let error = error.expect_err("this thread holds it");
        assert_eq!(error.cause(), AcquireError::AlreadyHeld);
        assert_eq!(error.to_string(), "value (anonymous): already held by this thread");
    }
    // Reading is allowed.
    assert_eq!(value.get()?, 1);
    drop(guard);
    value.set(2)?;
    Ok(())
}

#[test]
fn panic_in_update_changes_nothing() -> Outcome {
    let value = Value::new([1_u64; 100])?;
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let _ = value.update(|it| {
            it[..50].fill(2);
            panic::resume_unwind(Box::new("on purpose"));
        });
    }));
    assert!(caught.is_err());
    assert_eq!(value.get()?, [1; 100]);
    // The lock is free, and no owner has died.
    let guard = value.lock()?;
    assert!(ValueGuard::previous_owner_died(&guard).is_none());
    Ok(())
}

#[test]
fn panic_with_a_guard_changes_nothing() -> Outcome {
    let value = Value::new(1_u64)?;
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut guard = value.lock().expect("it is free");
        *guard = 2;
        panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(caught.is_err());
    assert_eq!(value.get()?, 1);
    Ok(())
}

#[test]
fn drop_during_an_older_panic_commits() -> Outcome {
    struct Late(Value<u64>);
    impl Drop for Late {
        fn drop(&mut self) {
            assert!(thread::panicking());
            self.0.set(5).expect("it is free");
        }
    }
    let value = Value::new(1_u64)?;
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let _late = Late(value.clone());
        panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(caught.is_err());
    assert_eq!(value.get()?, 5);
    Ok(())
}

#[test]
fn no_update_of_several_threads_is_lost() -> Outcome {
    const ROUNDS: u64 = 5_000;
    let _watchdog = watchdog();
    let value = Value::new([0_u64; 5])?;
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                (0..ROUNDS).for_each(|_| drop(value.update(|it| it.iter_mut().for_each(|word| *word += 1))))
            });
        }
    });
    assert_eq!(value.get()?, [4 * ROUNDS; 5]);
    Ok(())
}

#[test]
fn readers_never_see_half_of_a_commit() -> Outcome {
    let _watchdog = watchdog();
    let value = Value::new([0_u64; 64])?;
    let (done, ready) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|s| {
        s.spawn(|| {
            let mut number = 0;
            let mut begun = None;
            // For 150 ms after both readers have begun.
            while begun.is_none_or(|begun: Instant| begun.elapsed() < Duration::from_millis(150)) {
                number += 1;
                value.set([number; 64]).expect("it is free");
                if begun.is_none() && ready.load(Ordering::Relaxed) == 2 {
                    begun = Some(Instant::now());
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        for _ in 0..2 {
            s.spawn(|| {
                let (mut reads, mut last) = (0_u64, 0);
                while !done.load(Ordering::Relaxed) {
                    let it = value.get().expect("no lock is held for long");
                    assert!(it.iter().all(|word| *word == it[0]), "torn: {it:?}");
                    assert!(it[0] >= last, "older than the value before: {} after {last}", it[0]);
                    last = it[0];
                    reads += 1;
                    if reads == 1 {
                        ready.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Ok(())
}

#[test]
fn lock_attempts_time_out() -> Outcome {
    let _watchdog = watchdog();
    let value = Value::new(1_u64)?;
    let _guard = value.lock()?;
    thread::scope(|s| {
        s.spawn(|| {
            assert!(value.try_lock().expect("no error").is_none());
            assert!(value.lock_timeout(Duration::ZERO).expect("no error").is_none());
            let start = Instant::now();
            assert!(value.lock_timeout(Duration::from_millis(30)).expect("no error").is_none());
            assert!(start.elapsed() >= Duration::from_millis(30));
        });
    });
    Ok(())
}

#[test]
fn thread_that_ends_with_a_guard_changes_nothing() -> Outcome {
    let _watchdog = watchdog();
    let value = Value::new(1_u64)?;
    let ended = thread::scope(|s| {
        let thread = s.spawn(|| {
            let mut guard = value.lock().expect("it is free");
            *guard = 2;
            std::mem::forget(guard);
            // SAFETY: no arguments.
            #[allow(unsafe_code, reason = "std has no thread ids")]
            unsafe { libc::gettid() }.cast_unsigned()
        });
        thread.join().expect("no panic")
    });
    let guard = value.lock()?;
    let death = ValueGuard::previous_owner_died(&guard).expect("its thread ended");
    assert_eq!((death.pid(), death.tid()), (Some(std::process::id()), Some(ended)));
    assert_eq!(*guard, 1);
    Ok(())
}

#[test]
fn compare_exchange() -> Outcome {
    let value = Value::new([1_u64; 5])?;
    assert_eq!(value.compare_exchange([1; 5], [2; 5])?, Ok([1; 5]));
    assert_eq!(value.compare_exchange([1; 5], [3; 5])?, Err([2; 5]));
    assert_eq!(value.get()?, [2; 5]);
    let _watchdog = watchdog();
    let sum = Value::new([0_u64; 2])?;
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..1_000 {
                    let mut seen = sum.get().expect("no error");
                    while let Err(now) = sum.compare_exchange(seen, seen.map(|it| it + 1)).expect("no error")
                    {
                        seen = now;
                    }
                }
            });
        }
    });
    assert_eq!(sum.get()?, [4_000; 2]);
    Ok(())
}
