//! The robust lock between threads of one process, and the list of the locks that one thread holds.
#![allow(unsafe_code, reason = "to take a bare robust lock is to promise that it stays mapped")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::{AcquireError, Acquired, Deadline, MAX_HELD, RobustLock};

use common::{wait_until, watchdog};

const SHORT: Duration = Duration::from_millis(30);

/// Returns locks that are never freed, so that a thread may end while it holds some.
fn locks(count: usize) -> &'static [RobustLock] {
    Vec::leak(std::iter::repeat_with(RobustLock::new).take(count).collect())
}

fn take(lock: &'static RobustLock, deadline: Deadline) -> Result<Acquired, AcquireError> {
    // SAFETY: it is never freed.
    unsafe { lock.acquire(deadline) }
}

fn new_lock() -> &'static RobustLock {
    &locks(1)[0]
}

fn tid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }.cast_unsigned()
}

#[test]
fn lock_names_its_owner_while_it_is_held() {
    let lock = new_lock();
    assert!(!lock.is_held() && lock.owner().is_none());
    assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
    assert!(lock.is_held() && lock.is_held_by_this_thread());
    let owner = lock.owner().expect("it is held");
    assert_eq!((owner.pid, owner.tid), (Some(std::process::id()), tid()));
    assert!(lock.release());
    assert!(!lock.is_held() && !lock.is_held_by_this_thread() && lock.owner().is_none());
}

#[test]
fn release_of_a_lock_not_held_does_nothing() {
    let lock = new_lock();
    assert!(!lock.release());
    assert_eq!(take(lock, Deadline::NOW), Ok(Acquired::Clean));
    thread::scope(|s| {
        s.spawn(|| {
            assert!(lock.is_held() && !lock.is_held_by_this_thread());
            assert!(!lock.release());
        });
    });
    assert!(lock.is_held_by_this_thread());
    assert!(lock.release());
    assert!(!lock.release());
}

#[test]
fn second_acquire_by_the_owner_fails() {
    let lock = new_lock();
    assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
    for deadline in [Deadline::NOW, Deadline::NEVER, Deadline::after(SHORT)] {
        assert_eq!(take(lock, deadline), Err(AcquireError::AlreadyHeld));
    }
    assert!(lock.release());
    assert_eq!(take(lock, Deadline::NOW), Ok(Acquired::Clean));
    assert!(lock.release());
}

#[test]
fn acquire_times_out() {
    let _watchdog = watchdog();
    let lock = new_lock();
    assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
    thread::scope(|s| {
        s.spawn(|| {
            assert_eq!(take(lock, Deadline::NOW), Err(AcquireError::TimedOut));
            let start = Instant::now();
            assert_eq!(take(lock, Deadline::after(SHORT)), Err(AcquireError::TimedOut));
            assert!(start.elapsed() >= SHORT);
        });
    });
    assert!(lock.release());
}

#[test]
fn timeout_may_exceed_the_liveness_poll() {
    let _watchdog = watchdog();
    let lock = new_lock();
    assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
    thread::scope(|s| {
        s.spawn(|| {
            let start = Instant::now();
            // The liveness poll, once a second, finds the owner alive.
            assert_eq!(take(lock, Deadline::after(Duration::from_millis(1200))), Err(AcquireError::TimedOut));
            assert!(start.elapsed() >= Duration::from_millis(1200));
        });
    });
    assert!(lock.release());
}

#[test]
fn threads_exclude_each_other() {
    const ROUNDS: u64 = 20_000;
    let _watchdog = watchdog();
    let lock = new_lock();
    let (count, inside) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
                    assert!(!inside.swap(true, Relaxed), "two owners at once");
                    // Two steps, which only the lock makes atomic.
                    count.store(count.load(Relaxed) + 1, Relaxed);
                    inside.store(false, Relaxed);
                    assert!(lock.release());
                }
            });
        }
    });
    assert_eq!(count.load(Relaxed), 4 * ROUNDS);
    assert!(!lock.is_held());
}

#[test]
fn sleeping_waiters_are_woken() {
    const ROUNDS: u64 = 300;
    let _watchdog = watchdog();
    let (first, second) = (new_lock(), new_lock());
    let start = Instant::now();
    // A waiter for the second lock sleeps, since the owner holds it for a while.
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    assert_eq!(take(first, Deadline::NEVER), Ok(Acquired::Clean));
                    assert_eq!(take(second, Deadline::NEVER), Ok(Acquired::Clean));
                    thread::yield_now();
                    assert!(first.release());
                    thread::yield_now();
                    assert!(second.release());
                }
            });
        }
    });
    // Each lost wake-up would cost a second.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn thread_holds_at_most_a_thousand_locks() {
    let locks = locks(MAX_HELD + 1);
    for lock in &locks[..MAX_HELD] {
        assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
    }
    for deadline in [Deadline::NOW, Deadline::NEVER] {
        assert_eq!(take(&locks[MAX_HELD], deadline), Err(AcquireError::TooManyHeld));
    }
    assert!(!locks[MAX_HELD].is_held());
    // After one release there is room for one lock.
    assert!(locks[500].release());
    assert_eq!(take(&locks[MAX_HELD], Deadline::NEVER), Ok(Acquired::Clean));
    for (at, lock) in locks.iter().enumerate() {
        assert_eq!(lock.release(), at != 500, "lock {at}");
    }
}

/// Takes all locks, and releases them in this order. After each release, checks that the others are still
/// held.
fn check_release_in(order: impl Fn(&mut [usize])) {
    const COUNT: usize = 200;
    let locks = locks(COUNT);
    for _ in 0..2 {
        for lock in locks {
            assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
        }
        let mut left: Vec<usize> = (0..COUNT).collect();
        order(&mut left);
        while let Some(at) = left.pop() {
            assert!(locks[at].release(), "lock {at}");
            assert!(!locks[at].is_held());
            assert!(left.iter().all(|other| locks[*other].is_held_by_this_thread()));
        }
    }
}

#[test]
fn locks_can_be_released_innermost_first() {
    check_release_in(|_| ());
}

#[test]
fn locks_can_be_released_outermost_first() {
    check_release_in(|order| order.reverse());
}

#[test]
fn locks_can_be_released_in_any_order() {
    check_release_in(shuffle);
}

/// Shuffles, the same way each time.
fn shuffle(order: &mut [usize]) {
    order.sort_by_key(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
}

/// What a dead owner left is not what its next owner wrote, though that one comes in the midst of the look.
#[test]
fn death_is_not_acknowledged_with_words_of_the_next_owner() {
    let [lock] = locks(1) else { unreachable!("one lock") };
    let owner = thread::spawn(move || {
        assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
        lock.guarded[0].store(1, SeqCst);
    });
    owner.join().expect("no panic");
    let read = || {
        assert!(matches!(take(lock, Deadline::NOW), Ok(Acquired::OwnerDied(_))));
        lock.guarded[0].store(2, SeqCst);
        lock.guarded[0].load(SeqCst)
    };
    assert!(!lock.acknowledge_death(read, |_, word| panic!("acknowledged with {word}")));
    assert!(lock.release());
    // Without a new owner it is acknowledged, once.
    let owner = thread::spawn(move || assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean)));
    owner.join().expect("no panic");
    let mut left = 0;
    assert!(lock.acknowledge_death(|| lock.guarded[0].load(SeqCst), |_, word| left = word));
    assert_eq!(left, 2);
    assert!(!lock.acknowledge_death(|| (), |_, ()| panic!("acknowledged twice")));
}

#[test]
fn locks_of_an_ended_thread_are_released() {
    let _watchdog = watchdog();
    let locks = locks(MAX_HELD);
    let ended = thread::spawn(move || {
        for lock in locks {
            assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
        }
        // Releases every seventh lock.
        for lock in locks.iter().step_by(7) {
            assert!(lock.release());
        }
        tid()
    });
    let ended = ended.join().expect("no panic");
    for (at, lock) in locks.iter().enumerate() {
        match take(lock, Deadline::NEVER) {
            Ok(Acquired::Clean) => assert_eq!(at % 7, 0, "lock {at}"),
            Ok(Acquired::OwnerDied(death)) => {
                assert_ne!(at % 7, 0, "lock {at}");
                assert_eq!((death.pid(), death.tid()), (Some(std::process::id()), Some(ended)));
            }
            Err(error) => panic!("lock {at}: {error}"),
        }
    }
    for lock in locks {
        assert!(lock.release());
    }
    // The death is reported once.
    assert_eq!(take(&locks[1], Deadline::NOW), Ok(Acquired::Clean));
    assert!(locks[1].release());
}

#[test]
fn end_of_the_owner_thread_wakes_a_waiter() {
    let _watchdog = watchdog();
    let lock = new_lock();
    let (held, waits) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|s| {
        s.spawn(|| {
            assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
            held.store(true, Relaxed);
            wait_until(|| waits.load(Relaxed));
        });
        s.spawn(|| {
            wait_until(|| held.load(Relaxed));
            waits.store(true, Relaxed);
            assert!(matches!(take(lock, Deadline::NEVER), Ok(Acquired::OwnerDied(_))));
            assert!(lock.release());
        });
    });
}

#[test]
fn many_threads_use_the_lock_one_after_another() {
    let _watchdog = watchdog();
    // Each thread sets up its block, and returns it for the next thread.
    let lock = new_lock();
    for _ in 0..200 {
        thread::spawn(move || {
            assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
            assert!(lock.release());
        })
        .join()
        .expect("no panic");
    }
}

#[test]
fn lock_can_be_taken_while_the_thread_ends() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            let lock = new_lock();
            assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
            assert!(lock.release());
            // One more, which this thread never releases.
            assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
            LEFT.store(std::ptr::from_ref(lock).cast_mut(), Relaxed);
        }
    }
    thread_local! {
        static BEFORE: Late = const { Late };
    }
    static LEFT: std::sync::atomic::AtomicPtr<RobustLock> =
        std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());
    let _watchdog = watchdog();
    thread::spawn(|| {
        // Registered before the end of this thread's list is, hence dropped after it.
        BEFORE.with(|_| ());
        let lock = new_lock();
        assert_eq!(take(lock, Deadline::NEVER), Ok(Acquired::Clean));
        assert!(lock.release());
    })
    .join()
    .expect("no panic");
    // SAFETY: a lock that is never freed.
    let left = unsafe { &*LEFT.load(Relaxed) };
    assert!(matches!(take(left, Deadline::NEVER), Ok(Acquired::OwnerDied(_))));
    assert!(left.release());
}
