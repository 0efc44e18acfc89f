//! `Lock` between threads of one process.
#![allow(unsafe_code, reason = "the raw pair")]

use std::cell::Cell;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_sync::{AcquireError, ErrorKind, Lock, LockGuard};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const SHORT: Duration = Duration::from_millis(30);

/// A name that no other test has, in this run or another one.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{what}-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed))
}

#[test]
fn lock_is_held_while_its_guard_lives() -> Outcome {
    let lock = Lock::new()?;
    assert!(!lock.is_locked() && lock.owner().is_none() && lock.name().is_none());
    let guard = lock.lock()?;
    assert!(lock.is_locked());
    assert_eq!(lock.owner().and_then(|owner| owner.pid), Some(process::id()));
    assert!(LockGuard::previous_owner_died(&guard).is_none());
    drop(guard);
    assert!(!lock.is_locked());
    assert!(lock.try_lock()?.is_some());
    assert_eq!(format!("{lock:?}"), "Lock { object: lock (anonymous), owner: None, waiters: 0 }");
    Ok(())
}

#[test]
fn names_are_made_found_and_unlinked() -> Outcome {
    let name = unique("verbs");
    assert_eq!(Lock::open(&name).expect_err("there is none").kind(), ErrorKind::NotFound);
    assert_eq!(Lock::unlink(&name).expect_err("there is none").kind(), ErrorKind::NotFound);
    let made = Lock::create(&name)?;
    assert_eq!(made.name(), Some(name.as_str()));
    assert_eq!(Lock::create(&name).expect_err("it exists").kind(), ErrorKind::AlreadyExists);
    let (opened, either) = (Lock::open(&name)?, Lock::open_or_create(&name)?);
    let _guard = made.lock()?;
    for same in [&opened, &either] {
        assert_eq!(same.lock().expect_err("the same lock").cause(), AcquireError::AlreadyHeld);
    }
    Lock::unlink(&name)?;
    let other = Lock::open_or_create(&name)?;
    drop(other.lock()?);
    Ok(())
}

#[test]
fn bad_names_are_refused() {
    for name in ["", ".", "a/b", "a\0b", &"n".repeat(201)] {
        for error in [
            Lock::create(name).map(drop),
            Lock::open(name).map(drop),
            Lock::open_or_create(name).map(drop),
            Lock::unlink(name),
        ] {
            assert_eq!(error.expect_err("a bad name").kind(), ErrorKind::BadName, "{name:?}");
        }
    }
}

#[test]
fn lock_is_not_opened_as_a_value() -> Outcome {
    let name = unique("kind");
    let _lock = Lock::create(&name)?;
    let error = multiproc_shm::Value::<u64>::open(&name).expect_err("it is a lock");
    assert_eq!(error.kind(), ErrorKind::WrongKind);
    assert_eq!(error.to_string(), format!("open value {name:?}: is of another kind: it is a lock"));
    Ok(())
}

#[test]
fn already_held_names_the_lock() -> Outcome {
    let name = unique("mine");
    let lock = Lock::create(&name)?;
    let _guard = lock.lock()?;
    for error in [
        lock.lock().map(drop),
        lock.try_lock().map(drop),
        lock.lock_timeout(SHORT).map(drop),
        lock.clone().lock().map(drop),
    ] {
        let error = error.expect_err("this thread has it");
        assert_eq!(error.cause(), AcquireError::AlreadyHeld);
        assert_eq!(error.to_string(), format!("lock {name:?}: already held by this thread"));
    }
    Ok(())
}

#[test]
fn timeouts_end_waits_for_a_held_lock() -> Outcome {
    let lock = Lock::new()?;
    let _guard = lock.lock()?;
    thread::scope(|s| {
        s.spawn(|| {
            assert!(lock.try_lock().expect("no error").is_none());
            assert!(lock.lock_timeout(Duration::ZERO).expect("no error").is_none());
            let start = Instant::now();
            assert!(lock.lock_timeout(SHORT).expect("no error").is_none());
            assert!(start.elapsed() >= SHORT);
        });
    });
    Ok(())
}

#[test]
fn longest_timeout_never_ends() -> Outcome {
    let lock = Lock::new()?;
    let guard = lock.lock()?;
    thread::scope(|s| {
        let waiter = s.spawn(|| lock.lock_timeout(Duration::MAX).expect("no error").is_some());
        thread::yield_now();
        drop(guard);
        assert!(waiter.join().expect("no panic"));
    });
    Ok(())
}

#[test]
fn threads_exclude_each_other() -> Outcome {
    const ROUNDS: u32 = 10_000;
    struct Unprotected(Cell<u32>);
    // SAFETY: every thread takes the lock first.
    unsafe impl Sync for Unprotected {}

    let (lock, count) = (Lock::new()?, Unprotected(Cell::new(0)));
    let count = &count;
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let _guard = lock.lock().expect("no error");
                    let cell = &count.0;
                    cell.set(cell.get() + 1);
                }
            });
        }
    });
    assert_eq!(count.0.get(), 4 * ROUNDS);
    Ok(())
}

#[test]
fn leaked_guard_is_reported_to_the_next_owner() -> Outcome {
    let lock = Lock::new()?;
    thread::scope(|s| {
        s.spawn(|| std::mem::forget(lock.lock().expect("it is free")));
    });
    let guard = lock.lock()?;
    let death = LockGuard::previous_owner_died(&guard).expect("its thread ended");
    assert_eq!(death.pid(), Some(process::id()));
    assert_ne!(death.tid(), Some(process::id()));
    drop(guard);
    assert!(LockGuard::previous_owner_died(&lock.lock()?).is_none());
    Ok(())
}

#[test]
fn leaked_guard_keeps_the_mapping_without_a_handle() -> Outcome {
    // The mapping stays, for the kernel walks through it when the thread ends.
    for _ in 0..20 {
        let oldest = thread::spawn(|| -> Result<Lock, String> {
            let oldest = Lock::new().map_err(|error| error.to_string())?;
            std::mem::forget(oldest.lock());
            for _ in 0..10 {
                let lock = Lock::new().map_err(|error| error.to_string())?;
                std::mem::forget(lock.lock());
                drop(lock);
            }
            Ok(oldest)
        });
        let oldest = oldest.join().expect("no panic")?;
        // The oldest entry of the robust list: the kernel came that far.
        assert!(LockGuard::previous_owner_died(&oldest.lock()?).is_some());
    }
    Ok(())
}

#[test]
fn raw_unlock_releases_what_raw_lock_took() -> Outcome {
    let lock = Lock::new()?;
    // SAFETY: this thread unlocks it below, and the handle lives.
    assert!(!unsafe { lock.raw_lock() }?);
    assert!(lock.is_locked());
    // SAFETY: as above.
    let again = unsafe { lock.raw_lock() };
    assert_eq!(again.expect_err("this thread has it").cause(), AcquireError::AlreadyHeld);
    thread::scope(|s| {
        // SAFETY: no guard of that thread is alive.
        s.spawn(|| assert!(!unsafe { lock.raw_unlock() }));
    });
    assert!(lock.is_locked());
    // SAFETY: no guard is alive.
    assert!(unsafe { lock.raw_unlock() });
    // SAFETY: as above.
    assert!(!unsafe { lock.raw_unlock() });
    assert!(!lock.is_locked());
    thread::scope(|s| {
        // SAFETY: the thread ends instead of unlocking; the handle lives until then.
        s.spawn(|| assert_eq!(unsafe { lock.raw_lock() }.ok(), Some(false)));
    });
    // SAFETY: unlocked below.
    assert!(unsafe { lock.raw_lock() }?, "the previous owner died");
    // SAFETY: no guard is alive.
    assert!(unsafe { lock.raw_unlock() });
    Ok(())
}

#[test]
fn error_outlives_the_lock() -> Outcome {
    let error = {
        let lock = Lock::new()?;
        let _guard = lock.lock()?;
        lock.lock().map(drop).expect_err("this thread has it")
    };
    fn is_an_error_for_every_thread<E: std::error::Error + Send + Sync + 'static>(_: &E) {}
    is_an_error_for_every_thread(&error);
    assert_eq!(error.to_string(), "lock (anonymous): already held by this thread");
    Ok(())
}
