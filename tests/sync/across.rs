//! Locks over forks and execs, beside libc's own robust mutexes, under many signals, and while their owner is
//! stopped.
#![allow(unsafe_code, reason = "forks, execs and signals, as a C program uses them")]

use std::mem::MaybeUninit;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::robust::{Deadline, EventCount, RawEvent};
use multiproc::{AtomicValue, ErrorKind, Lock, LockGuard, Value};

use crate::common::{
    Dice, How, Outcome, alone, exec, fork, signal, spawn, stop, tid, value, wait_for, with_one_thread,
};

#[test]
fn stopped_owner_keeps_its_lock() -> Outcome {
    fn child((lock, step): (Lock, AtomicValue<u32>)) {
        let _guard = lock.lock().expect("no error");
        step.store(1);
        wait_for(&step, 2);
    }
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let child = spawn(child, (lock.clone(), step.clone()));
    wait_for(&step, 1);
    stop(child.pid());
    step.store(2);
    // Longer than a second, the interval of a waiter's liveness poll.
    assert!(lock.lock_timeout(Duration::from_millis(1300))?.is_none());
    assert_eq!(lock.owner().and_then(|owner| owner.pid), Some(child.pid()));
    signal(child.pid(), libc::SIGCONT);
    assert!(LockGuard::previous_owner_died(&lock.lock()?).is_none());
    value(&child);
    Ok(())
}

#[test]
fn stopped_waiter_delays_other_waiters_by_at_most_a_second() -> Outcome {
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let guard = lock.lock()?;
    let waiter = || {
        fork(How::Libc, || {
            step.fetch_add(1);
            let _guard = lock.lock().expect("no error\n");
            step.fetch_add(1);
            0
        })
    };
    let (stopped, other) = (waiter(), waiter());
    wait_for(&step, 2);
    thread::sleep(Duration::from_millis(2));
    stop(stopped.pid());
    drop(guard);
    // The wake-up may have gone to the stopped waiter.
    assert_eq!(other.wait(), 0);
    assert_eq!(step.load(), 3);
    signal(stopped.pid(), libc::SIGCONT);
    assert_eq!(stopped.wait(), 0);
    Ok(())
}

#[test]
fn forked_copy_of_a_guard_owns_nothing() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let (lock, other, step) = (Lock::new()?, Lock::new()?, AtomicValue::new(0_u32)?);
            let mut guard = Some(lock.lock()?);
            let child = fork(how, || {
                // The copy is dropped; the lock is still the parent's.
                drop(guard.take());
                let still =
                    lock.owner().and_then(|owner| owner.pid) != Some(process::id()) && lock.is_locked();
                let none = lock.try_lock().is_ok_and(|guard| guard.is_none());
                // The child can take another lock, and this lock once it is free.
                let owner = || other.owner().and_then(|owner| owner.pid);
                let mine = other.lock().is_ok_and(|_| owner() == Some(process::id()));
                step.store(1);
                let next = lock.lock().is_ok_and(|guard| LockGuard::previous_owner_died(&guard).is_none());
                i32::from(!(still && none && mine && next))
            });
            wait_for(&step, 1);
            assert_eq!(lock.owner().map(|owner| (owner.pid, owner.tid)), Some((Some(process::id()), tid())));
            drop(guard.take());
            assert_eq!(child.wait(), 0, "{how:?}");
        }
        Ok(())
    })
}

#[test]
fn forked_copy_of_a_value_guard_commits_nothing() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let shared = Value::new(1_u64)?;
            let mut guard = Some(shared.lock()?);
            let child = fork(how, || {
                if let Some(copy) = guard.as_deref_mut() {
                    *copy = 99;
                }
                drop(guard.take());
                i32::from(shared.get() != Ok(1))
            });
            assert_eq!(child.wait(), 0, "{how:?}");
            if let Some(mine) = guard.as_deref_mut() {
                *mine += 1;
            }
            drop(guard.take());
            assert_eq!(shared.get()?, 2);
        }
        Ok(())
    })
}

#[test]
fn forked_child_that_dies_with_a_copy_of_a_guard_changes_nothing() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
            let guard = lock.lock()?;
            let child = fork(how, || {
                // This sets up the child's own robust list, beside the inherited memory.
                drop(Lock::new().expect("a lock\n").lock());
                step.store(1);
                wait_for(&step, 2);
                0
            });
            wait_for(&step, 1);
            child.kill();
            assert_eq!(lock.owner().map(|owner| owner.tid), Some(tid()), "{how:?}");
            drop(guard);
            assert!(LockGuard::previous_owner_died(&lock.lock()?).is_none());
        }
        Ok(())
    })
}

#[test]
fn forked_child_is_an_owner_like_any_other() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let (locks, step) = ([Lock::new()?, Lock::new()?, Lock::new()?], AtomicValue::new(0_u32)?);
            // The parent's own list also holds a lock.
            let held = locks[0].lock()?;
            let child = fork(how, || {
                let _guards = [locks[1].lock(), locks[2].lock()];
                step.store(1);
                wait_for(&step, 2);
                0
            });
            let pid = child.pid();
            wait_for(&step, 1);
            child.kill();
            for lock in &locks[1..] {
                let guard = lock.lock()?;
                let death = LockGuard::previous_owner_died(&guard).expect("it was killed");
                assert_eq!((death.pid(), death.tid()), (Some(pid), Some(pid)), "{how:?}");
            }
            drop(held);
            assert!(LockGuard::previous_owner_died(&locks[0].lock()?).is_none());
        }
        Ok(())
    })
}

#[test]
fn raw_fork_of_a_thread_that_never_locked_is_refused() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        // The child cannot find its robust list. It is refused at once, before it holds a lock that the
        // kernel would not release at its death.
        let code = thread::spawn(|| {
            let child = fork(How::Raw, || {
                let refused = Lock::new().is_err_and(|error| error.kind() == ErrorKind::Unsupported);
                i32::from(!refused)
            });
            child.wait()
        });
        assert_eq!(code.join().expect("no panic"), 0);
        Ok(())
    })
}

#[test]
fn fork_of_a_forked_owner_owns_nothing() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            let lock = Lock::new()?;
            drop(lock.lock()?);
            let child = fork(how, || {
                std::mem::forget(lock.lock());
                let grandchild = fork(how, || i32::from(!lock.try_lock().is_ok_and(|guard| guard.is_none())));
                let owner = || lock.owner().and_then(|owner| owner.pid);
                i32::from(grandchild.wait() != 0 || owner() != Some(process::id()))
            });
            assert_eq!(child.wait(), 0, "{how:?}");
            // The child ended by `_exit`, and still held the lock.
            assert!(LockGuard::previous_owner_died(&lock.lock()?).is_some());
        }
        Ok(())
    })
}

#[test]
fn exec_by_the_main_thread_releases_its_locks() -> Outcome {
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let child = fork(How::Libc, || {
        std::mem::forget(lock.lock());
        step.store(1);
        exec()
    });
    wait_for(&step, 1);
    // The owner's process cannot be named: its thread has not ended.
    assert!(LockGuard::previous_owner_died(&lock.lock()?).is_some());
    child.kill();
    Ok(())
}

#[test]
fn exec_by_another_thread_releases_its_locks() -> Outcome {
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let child = fork(How::Libc, || {
        thread::scope(|s| {
            s.spawn(|| -> () {
                std::mem::forget(lock.lock());
                step.store(1);
                // The kernel first gives this thread the main thread's id, and then does not recognise its
                // locks.
                exec()
            });
        });
        0
    });
    wait_for(&step, 1);
    let start = Instant::now();
    let guard = lock.lock()?;
    assert!(LockGuard::previous_owner_died(&guard).is_some());
    println!("after {:?}", start.elapsed());
    child.kill();
    Ok(())
}

#[test]
fn exec_by_another_thread_releases_the_main_threads_locks() -> Outcome {
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let child = fork(How::Libc, || {
        std::mem::forget(lock.lock());
        thread::scope(|s| {
            s.spawn(|| -> () {
                step.store(1);
                exec()
            });
        });
        0
    });
    wait_for(&step, 1);
    assert!(LockGuard::previous_owner_died(&lock.lock()?).is_some());
    child.kill();
    Ok(())
}

/// Robust mutexes of libc's own, in memory that a forked child shares.
struct Mutexes<const N: usize>(*mut [libc::pthread_mutex_t; N]);

impl<const N: usize> Mutexes<N> {
    fn new() -> Self {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let length = size_of::<[libc::pthread_mutex_t; N]>();
        // SAFETY: a new mapping changes no existing memory.
        let memory = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        let this = Self(memory.cast());
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: a place for attributes.
        unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
        // SAFETY: just initialised.
        unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED) };
        // SAFETY: as above.
        unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST) };
        for at in 0..N {
            // SAFETY: a place for a mutex, and attributes.
            unsafe { libc::pthread_mutex_init(this.at(at), attributes.as_ptr()) };
        }
        this
    }

    fn at(&self, at: usize) -> *mut libc::pthread_mutex_t {
        assert!(at < N);
        self.0.cast::<libc::pthread_mutex_t>().wrapping_add(at)
    }

    fn lock(&self, at: usize) -> i32 {
        // SAFETY: an initialised mutex.
        unsafe { libc::pthread_mutex_lock(self.at(at)) }
    }

    fn unlock(&self, at: usize) {
        // SAFETY: an initialised mutex that this thread holds.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.at(at)) }, 0);
    }
}

impl<const N: usize> Drop for Mutexes<N> {
    fn drop(&mut self) {
        // SAFETY: the mapping made above.
        unsafe { libc::munmap(self.0.cast(), size_of::<[libc::pthread_mutex_t; N]>()) };
    }
}

/// The number of locks of each kind in the next test.
const EACH_KIND: usize = 10;

#[test]
fn locks_work_beside_robust_mutexes_of_libc() -> Outcome {
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    for round in 0..30 {
        let theirs = Mutexes::<EACH_KIND>::new();
        let ours: Vec<Lock> = (0..EACH_KIND).map(|_| Lock::new()).collect::<Result<_, _>>()?;
        // The locks that the child holds at its end, one bit each: libc's, then ours.
        let holds = AtomicValue::new(0_u32)?;
        let seed = dice.next();
        let child = fork(How::Libc, || {
            let mut dice = Dice::new(seed);
            let mut held = 0_u32;
            // Either kind may come first on the list.
            for _ in 0..round * 10 + 1 {
                let at = usize::try_from(dice.below(2 * EACH_KIND as u64)).unwrap_or(0);
                let is_held = held & 1 << at != 0;
                match (at.checked_sub(EACH_KIND), is_held) {
                    (None, false) => assert_eq!(theirs.lock(at), 0),
                    (None, true) => theirs.unlock(at),
                    // SAFETY: unlocked by this thread below, or by its death; the handles outlive both.
                    (Some(at), false) => assert_eq!(unsafe { ours[at].raw_lock() }.ok(), Some(false)),
                    // SAFETY: no guard is alive.
                    (Some(at), true) => assert!(unsafe { ours[at].raw_unlock() }),
                }
                held ^= 1 << at;
            }
            holds.store(held | 1 << 31);
            wait_for(&holds, u32::MAX);
            0
        });
        wait_for(&holds, 1 << 31);
        let held = holds.load();
        child.kill();
        for at in 0..EACH_KIND {
            let expected = if held & 1 << at != 0 { (libc::EOWNERDEAD, 0) } else { (0, libc::EINVAL) };
            let locked = theirs.lock(at);
            // SAFETY: held by this thread.
            let consistent = unsafe { libc::pthread_mutex_consistent(theirs.at(at)) };
            assert_eq!((locked, consistent), expected, "libc's {at} of {held:b}");
            theirs.unlock(at);
        }
        for (at, lock) in ours.iter().enumerate() {
            let died = LockGuard::previous_owner_died(&lock.lock()?).is_some();
            assert_eq!(died, held & 1 << (EACH_KIND + at) != 0, "ours {at} of {held:b}");
        }
    }
    Ok(())
}

#[test]
fn thread_that_ends_with_locks_of_both_kinds_releases_both() -> Outcome {
    let _alone = alone();
    let theirs = Mutexes::<2>::new();
    let (first, second) = (Lock::new()?, Lock::new()?);
    let address = theirs.0.expose_provenance();
    thread::scope(|s| {
        s.spawn(|| {
            let same = Mutexes::<2>(ptr::with_exposed_provenance_mut(address));
            let theirs = std::mem::ManuallyDrop::new(same);
            assert_eq!(theirs.lock(0), 0);
            std::mem::forget(first.lock());
            assert_eq!(theirs.lock(1), 0);
            std::mem::forget(second.lock());
        });
    });
    for lock in [&first, &second] {
        assert!(LockGuard::previous_owner_died(&lock.lock()?).is_some());
    }
    for at in 0..2 {
        assert_eq!(theirs.lock(at), libc::EOWNERDEAD);
        // SAFETY: held by this thread.
        unsafe { libc::pthread_mutex_consistent(theirs.at(at)) };
        theirs.unlock(at);
    }
    Ok(())
}

/// Starts a timer whose signal interrupts this process's system calls every millisecond.
fn signal_every_millisecond() {
    extern "C" fn count(_: i32) {
        SIGNALS.fetch_add(1, SeqCst);
    }
    // SAFETY: all zero is a valid value of this plain struct.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(i32) as usize;
    // SAFETY: a handler that only counts; without SA_RESTART.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) }, 0);
    let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: a plain struct.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) }, 0);
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

#[test]
fn deadlines_hold_under_many_signals() -> Outcome {
    let _alone = alone();
    let (lock, shared) = (Lock::new()?, Value::new(1_u64)?);
    let (_guard, _copy) = (lock.lock()?, shared.lock()?);
    // Forked, so that the signals interrupt its only thread.
    let child = fork(How::Libc, || {
        signal_every_millisecond();
        let limit = Duration::from_millis(150);
        let (count, event) = (EventCount::new(), RawEvent::new());
        let waits: [&dyn Fn() -> bool; 4] = [
            &|| lock.lock_timeout(limit).is_ok_and(|guard| guard.is_some()),
            &|| shared.lock_timeout(limit).is_ok_and(|guard| guard.is_some()),
            &|| count.wait_until(Deadline::after(limit), || false),
            &|| event.wait(Deadline::after(limit)),
        ];
        for wait in waits {
            let (start, before) = (Instant::now(), SIGNALS.load(SeqCst));
            assert!(!wait(), "it should have timed out\n");
            assert!(start.elapsed() >= limit, "too early: {:?}\n", start.elapsed());
            // A wait that started again at each signal would never end.
            assert!(start.elapsed() < Duration::from_secs(20), "too late: {:?}\n", start.elapsed());
            assert!(SIGNALS.load(SeqCst) > before + 1, "no signals came\n");
        }
        // Objects can be made meanwhile, too.
        for number in 0..50 {
            let made = Value::new([number; 1000]).expect("a value\n");
            assert_eq!(made.get(), Ok([number; 1000]));
        }
        0
    });
    assert_eq!(child.wait(), 0);
    Ok(())
}
