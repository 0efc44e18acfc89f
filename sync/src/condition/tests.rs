//! A test that holds a condition's mutex for longer than any operation does, which takes private parts.

use std::sync::mpsc;

use super::*;
use crate::Lock;

#[test]
fn mutex_whose_owner_stands_still_delays_no_time_out() -> Result<(), Box<dyn std::error::Error>> {
    let (condition, lock) = (&Condition::new()?, &Lock::new()?);
    let (held, is_held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    std::thread::scope(|s| {
        let waiter = s.spawn(|| {
            let guard = lock.lock().expect("the lock");
            condition.wait_timeout(guard, Duration::from_millis(100)).expect("no error").1
        });
        while condition.waiters() == 0 {
            std::thread::yield_now();
        }
        s.spawn(move || {
            let locked = condition.lock_mutex(Deadline::NEVER).expect("the mutex");
            held.send(()).expect("the test waits");
            let _ = released.recv();
            drop(locked);
        });
        is_held.recv().expect("the owner of the mutex");
        assert!(!waiter.join().expect("no panic"), "no thread has notified it");
        // Nor does the mutex delay a thread that comes now.
        let guard = lock.lock().expect("the lock");
        let (guard, notified) = condition.wait_timeout(guard, Duration::ZERO).expect("no error");
        drop(guard);
        assert!(!notified);
        drop(release);
    });
    // The waiter that has left in this way is not counted, and takes no notification.
    assert_eq!(condition.waiters(), 0);
    assert_eq!(condition.notify_one()?, 0);
    std::thread::scope(|s| {
        let waiter = s.spawn(|| {
            let guard = lock.lock().expect("the lock");
            condition.wait_timeout(guard, Duration::MAX).expect("no error").1
        });
        while condition.waiters() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(condition.notify_one().expect("no error"), 1);
        assert!(waiter.join().expect("no panic"));
    });
    assert!(condition.shared.slots().used().iter().all(|lock| WaitSlot(lock).is_free()));
    Ok(())
}
