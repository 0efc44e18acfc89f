//! `RobustMutex`: `lock_api`'s mutex over the robust lock, and what it does where other mutexes hang.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::RobustMutex;
use multiproc_robust::lock_api::MutexGuard;

#[test]
fn mutex_excludes_threads() {
    let total = RobustMutex::new((0_u64, 0_u64));
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..5_000 {
                    let mut guard = total.lock();
                    guard.0 += 1;
                    assert_eq!(guard.0, guard.1 + 1);
                    guard.1 += 1;
                }
            });
        }
    });
    assert_eq!(total.into_inner(), (20_000, 20_000));
}

#[test]
fn mutex_can_be_moved_and_times_out() {
    let mutex = RobustMutex::new(1);
    drop(mutex.lock());
    let mutex = Box::new(mutex);
    let guard = mutex.lock();
    thread::scope(|s| {
        s.spawn(|| {
            let start = Instant::now();
            assert!(mutex.is_locked() && mutex.try_lock().is_none());
            assert!(mutex.try_lock_for(Duration::from_millis(30)).is_none());
            assert!(mutex.try_lock_until(start).is_none());
            assert!(start.elapsed() >= Duration::from_millis(30));
        });
    });
    drop(guard);
    assert_eq!(*mutex.lock(), 1);
    assert!(!mutex.is_locked());
}

#[test]
fn lock_by_the_owner_panics() {
    let mutex = RobustMutex::new(());
    let _guard = mutex.lock();
    assert!(mutex.try_lock().is_none());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(mutex.lock()))).is_err());
    assert!(mutex.is_locked());
}

#[test]
fn panic_with_a_guard_unlocks_the_mutex() {
    let mutex = RobustMutex::new(());
    assert!(
        thread::scope(|s| s
            .spawn(|| {
                let _guard = mutex.lock();
                panic!("on purpose");
            })
            .join())
        .is_err()
    );
    drop(mutex.lock());
}

#[test]
fn mutex_of_a_leaked_guard_is_refused_and_no_thread_hangs() {
    let mutex: &'static RobustMutex<u32> = Box::leak(Box::new(RobustMutex::new(1)));
    let (leaked, ended) = (Barrier::new(2), Barrier::new(2));
    let lent = thread::scope(|s| {
        // Waits for the mutex when the owner ends.
        let waiter = s.spawn(|| {
            leaked.wait();
            ended.wait();
            catch_unwind(AssertUnwindSafe(|| drop(mutex.lock()))).is_err()
        });
        let owner = s.spawn(|| {
            let lent = MutexGuard::leak(mutex.lock());
            leaked.wait();
            ended.wait();
            lent
        });
        let lent = owner.join().expect("no panic");
        assert!(waiter.join().expect("no panic"), "two threads would own it");
        lent
    });
    *lent += 1;
    assert!(mutex.try_lock().is_none() && catch_unwind(AssertUnwindSafe(|| drop(mutex.lock()))).is_err());
}

#[test]
fn mutex_can_be_dropped_while_a_forgotten_guard_holds_it() {
    thread::scope(|s| {
        s.spawn(|| {
            let mutex = RobustMutex::new([7; 100]);
            std::mem::forget(mutex.lock());
            // The mutex is moved and dropped. The lock that the kernel looks at when this thread ends is
            // still there.
            drop(Box::new(mutex));
            let other = RobustMutex::new(());
            drop(other.lock());
        });
    });
}
