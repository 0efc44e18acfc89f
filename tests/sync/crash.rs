//! A lock whose owner is killed, in every situation; and a lock whose memory another process overwrites.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::robust::MAX_HELD;
use multiproc::shm::Namespace;
use multiproc::{AtomicValue, Lock, LockGuard, Options};

use crate::common::{
    Dice, Forked, How, Outcome, Space, alone, fork, kill, signal, spawn, value, wait_for, wait_until,
};

/// Takes a lock, sets `step`, and waits to be killed.
fn holder((lock, step, tid): (Lock, AtomicValue<u32>, AtomicValue<u32>)) {
    let _guard = lock.lock().expect("no error");
    tid.store(crate::common::tid());
    step.store(1);
    wait_for(&step, u32::MAX);
}

#[test]
fn lock_of_a_killed_owner_is_free_and_names_it_once() -> Outcome {
    let _alone = alone();
    let (lock, step, tid) = (Lock::new()?, AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
    let child = spawn(holder, (lock.clone(), step.clone(), tid.clone()));
    wait_for(&step, 1);
    kill(&child);
    assert!(!lock.is_locked() && lock.owner().is_none());
    let guard = lock.lock()?;
    let death = LockGuard::previous_owner_died(&guard).expect("it was killed");
    assert_eq!((death.pid(), death.tid()), (Some(child.pid()), Some(tid.load())));
    // Only the next owner gets the death.
    drop(guard);
    assert!(LockGuard::previous_owner_died(&lock.lock()?).is_none());
    Ok(())
}

#[test]
fn each_way_to_lock_reports_the_killed_owner() -> Outcome {
    let _alone = alone();
    for verb in 0..3 {
        let (lock, step, tid) = (Lock::new()?, AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
        let child = spawn(holder, (lock.clone(), step.clone(), tid));
        wait_for(&step, 1);
        kill(&child);
        let guard = match verb {
            0 => lock.try_lock()?,
            1 => lock.lock_timeout(Duration::ZERO)?,
            _ => lock.lock_timeout(Duration::from_secs(100))?,
        };
        let guard = guard.expect("a dead owner is no owner");
        assert!(LockGuard::previous_owner_died(&guard).is_some());
    }
    Ok(())
}

#[test]
fn killed_owner_wakes_its_waiters_and_one_gets_the_death() -> Outcome {
    const WAITERS: u32 = 3;
    fn waiter((lock, step, died): (Lock, AtomicValue<u32>, AtomicValue<u32>)) {
        step.fetch_add(1);
        let guard = lock.lock().expect("no error");
        if LockGuard::previous_owner_died(&guard).is_some() {
            died.fetch_add(1);
        }
    }
    let _alone = alone();
    let (lock, step, died) = (Lock::new()?, AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
    let owner = spawn(holder, (lock.clone(), step.clone(), AtomicValue::new(0)?));
    wait_for(&step, 1);
    let start = |_| spawn(waiter, (lock.clone(), step.clone(), died.clone()));
    let waiters: Vec<_> = (0..WAITERS).map(start).collect();
    wait_for(&step, 1 + WAITERS);
    thread::sleep(Duration::from_millis(5));
    kill(&owner);
    waiters.iter().for_each(value);
    // All got the lock, and one of them the death.
    assert_eq!(died.load(), 1);
    assert!(!lock.is_locked());
    Ok(())
}

#[test]
fn death_is_noticed_at_once() -> Outcome {
    const ROUNDS: usize = 20;
    let _alone = alone();
    let (lock, step) = (Lock::new()?, AtomicValue::new(0_u32)?);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        step.store(0);
        let owner = fork(How::Libc, || {
            let _guard = lock.lock();
            step.store(1);
            wait_for(&step, u32::MAX);
            0
        });
        wait_for(&step, 1);
        took.push(thread::scope(|s| {
            let waiter = s.spawn(|| {
                assert!(lock.lock().is_ok_and(|guard| LockGuard::previous_owner_died(&guard).is_some()));
                Instant::now()
            });
            thread::sleep(Duration::from_millis(2));
            let killed = Instant::now();
            owner.kill();
            waiter.join().expect("no panic").saturating_duration_since(killed)
        }));
    }
    took.sort();
    println!("{took:?}");
    // The kernel reports the death; by the waiter's liveness poll it would take half a second on average.
    assert!(took[ROUNDS / 2] < Duration::from_millis(100), "{took:?}");
    Ok(())
}

#[test]
fn killed_waiter_leaves_no_trace() -> Outcome {
    const ROUNDS: u32 = 50;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let lock = Lock::new()?;
    for _ in 0..ROUNDS {
        let step = AtomicValue::new(0_u32)?;
        let guard = lock.lock()?;
        let waiter = || {
            fork(How::Libc, || {
                step.fetch_add(1);
                let _guard = lock.lock();
                0
            })
        };
        let (victim, survivor) = (waiter(), waiter());
        wait_for(&step, 2);
        thread::sleep(Duration::from_micros(dice.below(200)));
        // The victim is killed while it sleeps, after it was woken, or while it holds the lock.
        drop(guard);
        (0..dice.below(3_000)).for_each(|_| std::hint::spin_loop());
        signal(victim.pid(), libc::SIGKILL);
        victim.wait();
        assert_eq!(survivor.wait(), 0);
        drop(lock.lock()?);
    }
    Ok(())
}

#[test]
fn killed_process_releases_a_thousand_locks() -> Outcome {
    fn child((directory, step): (PathBuf, AtomicValue<u32>)) {
        let namespace = Namespace::at(directory).expect("the parent's");
        let options = Options::new().namespace(&namespace);
        let open = |at| options.open(&format!("lock-{at}")).expect("it is there");
        let locks: Vec<Lock> = (0..MAX_HELD).map(open).collect();
        let mut guards: Vec<_> = locks.iter().map(|lock| lock.lock().expect("it is free")).collect();
        // Some are released and taken again, so that the list is in no order.
        let mut dice = Dice::new(1);
        for _ in 0..300 {
            let at = usize::try_from(dice.below(MAX_HELD as u64)).expect("small");
            let last = guards.len() - 1;
            guards.swap(at, last);
            guards.pop();
            let free = locks.iter().find(|lock| !lock.is_locked()).expect("one was released");
            guards.push(free.lock().expect("it is free"));
        }
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let space = Space::new();
    let options = space.options();
    let create = |at| options.create(&format!("lock-{at}"), ());
    let locks: Vec<Lock> = (0..MAX_HELD).map(create).collect::<Result<_, _>>()?;
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (space.namespace().path().to_owned(), step.clone()));
    wait_for(&step, 1);
    assert!(locks.iter().all(Lock::is_locked));
    let pid = child.pid();
    kill(&child);
    for lock in &locks {
        let guard = lock.try_lock()?.expect("a dead owner is no owner");
        assert_eq!(LockGuard::previous_owner_died(&guard).and_then(|death| death.pid()), Some(pid));
    }
    Ok(())
}

#[test]
fn owners_killed_at_random_break_no_exclusion() -> Outcome {
    const KILLS: u32 = 200;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    // Two counters that only the lock keeps equal. An owner that gets a death repairs them.
    let (lock, first, second) = (Lock::new()?, AtomicValue::new(0_u64)?, AtomicValue::new(0_u64)?);
    let inside = AtomicValue::new(0_u32)?;
    let worker = || {
        fork(How::Libc, || {
            loop {
                let guard = lock.lock().expect("no error\n");
                let before = inside.swap(std::process::id());
                match LockGuard::previous_owner_died(&guard) {
                    Some(_) => second.store(first.load()),
                    None => {
                        assert_eq!(before, 0, "two at once\n");
                        assert_eq!(first.load(), second.load(), "a death was not reported\n");
                    }
                }
                first.fetch_add(1);
                second.fetch_add(1);
                inside.store(0);
            }
        })
    };
    let mut workers: Vec<Forked> = (0..3).map(|_| worker()).collect();
    for _ in 0..KILLS {
        let seen = first.load();
        wait_until(|| first.load() > seen + dice.below(200));
        workers.swap_remove(usize::try_from(dice.below(3))?).kill();
        workers.push(worker());
    }
    workers.into_iter().for_each(Forked::kill);
    drop(lock.lock()?);
    Ok(())
}

/// The offset of a lock's word, owner and link in its file: after the header.
const LOCK: u64 = 1024;

#[test]
fn overwritten_lock_neither_hangs_nor_crashes() -> Outcome {
    /// Takes the lock with time-outs until `stop` is set; returns how often it got the lock.
    fn child((directory, stop): (PathBuf, AtomicValue<u32>)) -> u64 {
        let namespace = Namespace::at(directory).expect("the parent's");
        let lock: Lock = Options::new().namespace(&namespace).open("hostile").expect("it is there");
        let mut took = 0;
        while stop.load() == 0 {
            let start = Instant::now();
            let guard = lock.lock_timeout(Duration::from_millis(3));
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
            took += u64::from(guard.is_ok_and(|guard| guard.is_some()));
            let _ = (lock.owner(), lock.is_locked());
        }
        took
    }
    let _alone = alone();
    let space = Space::new();
    let _lock: Lock = space.options().create("hostile", ())?;
    let file = std::fs::OpenOptions::new().write(true).open(space.file("hostile"))?;
    let stop = AtomicValue::new(0_u32)?;
    let start = |_| spawn(child, (space.namespace().path().to_owned(), stop.clone()));
    let children: Vec<_> = (0..2).map(start).collect();
    let mut dice = Dice::of_this_run();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        // Several words or one; meaningful values, or random ones.
        for offset in (0..64).step_by(8) {
            let word = match dice.below(6) {
                0 => 0,
                1 => u64::MAX,
                2 => 0x8000_0000,
                3 => u64::from(children[0].pid()) | 0x8000_0000,
                4 => 0x4000_0000,
                _ => dice.next(),
            };
            if dice.below(2) == 0 {
                file.write_all_at(&word.to_le_bytes(), LOCK + offset)?;
            }
        }
        thread::sleep(Duration::from_micros(dice.below(2_000)));
    }
    stop.store(1);
    let took: u64 = children.iter().map(value).sum();
    println!("taken {took} times");
    Ok(())
}

#[test]
fn lock_is_taken_from_an_owner_that_does_not_exist() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    // The largest possible thread id, and an impossible one; with and without the waiters bit.
    let words = [0x003f_ffff_u64, 0x3fff_ffff, 0x8000_0000 | 0x3fff_ffff];
    // Each depends on the liveness poll, once a second; so all run at once.
    thread::scope(|s| {
        for word in words {
            let space = &space;
            s.spawn(move || {
                let name = format!("hostile-{word}");
                let lock: Lock = space.options().create(&name, ()).expect("a lock");
                let file = std::fs::OpenOptions::new().write(true).open(space.file(&name)).expect("its file");
                file.write_all_at(&word.to_le_bytes(), LOCK).expect("to write");
                assert!(lock.try_lock().expect("no error").is_none());
                let start = Instant::now();
                let guard =
                    lock.lock_timeout(Duration::from_secs(60)).expect("no error").expect("no owner exists");
                assert!(LockGuard::previous_owner_died(&guard).is_some());
                println!("after {:?}", start.elapsed());
            });
        }
    });
    Ok(())
}

#[test]
fn overwritten_links_do_not_crash_their_owner() -> Outcome {
    fn child((directory, step): (PathBuf, AtomicValue<u32>)) {
        let namespace = Namespace::at(directory).expect("the parent's");
        let options = Options::new().namespace(&namespace);
        let open = |at| options.open(&format!("lock-{at}")).expect("it is there");
        let locks: Vec<Lock> = (0..5).map(open).collect();
        let guards: Vec<_> = locks.iter().map(|lock| lock.lock().expect("it is free")).collect();
        step.store(1);
        wait_for(&step, 2);
        // Releases work as usual: links are written, never read.
        drop(guards);
    }
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    for round in 0..12 {
        let space = Space::new();
        let options = space.options();
        let create = |at| options.create(&format!("lock-{at}"), ());
        let locks: Vec<Lock> = (0..5).map(create).collect::<Result<_, _>>()?;
        let step = AtomicValue::new(0_u32)?;
        let child = spawn(child, (space.namespace().path().to_owned(), step.clone()));
        wait_for(&step, 1);
        for at in 0..5 {
            let file = std::fs::OpenOptions::new().write(true).open(space.file(&format!("lock-{at}")))?;
            let link = if dice.below(2) == 0 { dice.next() } else { dice.next() & 0x7fff_ffff_fff8 };
            file.write_all_at(&link.to_le_bytes(), LOCK + 32)?;
        }
        if round % 6 == 0 {
            // The kernel's walk ends after the innermost lock. Waiters take the other locks from the dead
            // owner.
            kill(&child);
            thread::scope(|s| {
                for lock in &locks {
                    s.spawn(|| {
                        let guard = lock.lock_timeout(Duration::from_secs(60));
                        assert!(guard.is_ok_and(|guard| guard.is_some()));
                    });
                }
            });
        } else {
            step.store(2);
            value(&child);
            for lock in &locks {
                assert!(LockGuard::previous_owner_died(&lock.lock()?).is_none());
            }
        }
    }
    Ok(())
}
