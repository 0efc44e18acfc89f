//! `RwLock` across processes: which owners exclude each other, which waiters go first, and what killed owners
//! leave.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::sync::AcquireError;
use multiproc::{AtomicValue, ErrorKind, Lock, ReadGuard, RwLock, Value, WriteGuard};

use crate::common::{Dice, Outcome, alone, kill, spawn, unique, value, wait_for, wait_until, watchdog};

fn reader((lock, step): (RwLock, AtomicValue<u32>)) {
    let _guard = lock.read().expect("no error");
    step.fetch_add(1);
    wait_for(&step, 100);
}

fn writer((lock, step): (RwLock, AtomicValue<u32>)) {
    let _guard = lock.write().expect("no error");
    step.fetch_add(1);
    wait_for(&step, 100);
}

#[test]
fn rwlock_is_found_by_name() -> Outcome {
    let name = unique("rwlock");
    let lock = RwLock::create(&name)?;
    assert_eq!(RwLock::create(&name).expect_err("is there").kind(), ErrorKind::AlreadyExists);
    assert_eq!(Lock::open(&name).expect_err("another kind").kind(), ErrorKind::WrongKind);
    drop(RwLock::open(&name)?.read()?);
    assert!(lock.name() == Some(&name[..]) && format!("{lock:?}").contains("readers: 0"));
    RwLock::unlink(&name)?;
    Ok(())
}

#[test]
fn many_readers_or_one_writer_hold_the_lock() -> Outcome {
    let _alone = alone();
    let (lock, step) = (RwLock::new()?, AtomicValue::new(0_u32)?);
    let readers: Vec<_> = (0..3).map(|_| spawn(reader, (lock.clone(), step.clone()))).collect();
    wait_for(&step, 3);
    assert_eq!(lock.readers(), 3);
    let mine = lock.try_read()?.expect("one more");
    let refused = || lock.try_write().map(|guard| guard.is_none());
    assert!(thread::scope(|s| s.spawn(refused).join().expect("no panic"))?);
    assert_eq!(lock.try_write().expect_err("this thread reads").cause(), AcquireError::AlreadyHeld);
    drop(mine);
    assert!(lock.write_timeout(Duration::from_millis(30))?.is_none());
    step.store(100);
    readers.iter().for_each(value);
    let mine = lock.try_write()?.expect("it is free");
    assert_eq!(lock.read().expect_err("this thread writes").cause(), AcquireError::AlreadyHeld);
    step.store(0);
    let other = spawn(writer, (lock.clone(), step.clone()));
    drop(mine);
    wait_for(&step, 1);
    assert!(lock.try_read()?.is_none() && lock.try_write()?.is_none());
    assert!(lock.read_timeout(Duration::from_millis(30))?.is_none());
    assert_eq!(lock.writer().and_then(|owner| owner.pid), Some(other.pid()));
    step.store(100);
    value(&other);
    assert!(lock.try_read()?.is_some());
    Ok(())
}

#[test]
fn readers_see_no_half_made_change() -> Outcome {
    fn work((lock, cells): (RwLock, multiproc::AtomicArray<u64>)) {
        for n in 0..2000 {
            if n % 4 == 0 {
                let _guard = lock.write().expect("no error");
                cells.fetch_add(0, 1).expect("a cell");
                cells.fetch_add(1, 1).expect("a cell");
            } else {
                let _guard = lock.read().expect("no error");
                assert_eq!(cells.load(0).ok(), cells.load(1).ok());
            }
        }
    }
    let _alone = alone();
    let (lock, cells) = (RwLock::new()?, multiproc::AtomicArray::new(2)?);
    let workers: Vec<_> = (0..4).map(|_| spawn(work, (lock.clone(), cells.clone()))).collect();
    workers.iter().for_each(value);
    assert_eq!((cells.load(0)?, lock.readers()), (2000, 0));
    Ok(())
}

#[test]
fn waiting_writer_keeps_new_readers_out() -> Outcome {
    let _alone = alone();
    let lock = RwLock::new()?;
    let (readers, writers) = (AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
    let old = spawn(reader, (lock.clone(), readers.clone()));
    wait_for(&readers, 1);
    let writer = spawn(writer, (lock.clone(), writers.clone()));
    wait_until(|| lock.writer().and_then(|owner| owner.pid) == Some(writer.pid()));
    assert!(lock.read_timeout(Duration::from_millis(30))?.is_none());
    readers.store(100);
    value(&old);
    // Now the writer has the lock.
    wait_for(&writers, 1);
    writers.store(100);
    value(&writer);
    assert!(lock.try_read()?.is_some());
    Ok(())
}

#[test]
fn writer_gets_the_lock_though_readers_never_pause() -> Outcome {
    let _watchdog = watchdog();
    let (lock, stop) = (RwLock::new()?, AtomicU32::new(0));
    thread::scope(|s| -> Outcome {
        for _ in 0..3 {
            s.spawn(|| {
                while stop.load(SeqCst) == 0 {
                    drop(lock.read().expect("no error"));
                }
            });
        }
        for _ in 0..100 {
            drop(lock.write()?);
        }
        stop.store(1, SeqCst);
        Ok(())
    })
}

#[test]
fn killed_readers_release_the_lock() -> Outcome {
    let _alone = alone();
    let (lock, step) = (RwLock::new()?, AtomicValue::new(0_u32)?);
    let readers: Vec<_> = (0..3).map(|_| spawn(reader, (lock.clone(), step.clone()))).collect();
    wait_for(&step, 3);
    thread::scope(|s| -> Outcome {
        let writer = s.spawn(|| lock.write().map(|guard| WriteGuard::previous_owner_died(&guard)));
        wait_until(|| lock.writer().is_some());
        readers.iter().for_each(kill);
        assert!(writer.join().expect("no panic")?.is_none(), "readers leave nothing half done");
        Ok(())
    })?;
    assert_eq!(lock.readers(), 0);
    Ok(())
}

#[test]
fn killed_writer_is_reported_until_another_has_finished() -> Outcome {
    let _alone = alone();
    let (lock, step) = (RwLock::new()?, AtomicValue::new(0_u32)?);
    let writer = spawn(writer, (lock.clone(), step.clone()));
    wait_for(&step, 1);
    kill(&writer);
    for _ in 0..2 {
        let death = ReadGuard::previous_owner_died(&lock.read()?).expect("it was killed");
        assert_eq!(death.pid(), Some(writer.pid()));
    }
    assert!(WriteGuard::previous_owner_died(&lock.write()?).is_some());
    assert!(WriteGuard::previous_owner_died(&lock.write()?).is_none());
    assert!(ReadGuard::previous_owner_died(&lock.read()?).is_none());
    Ok(())
}

#[test]
fn killed_waiting_writer_lets_readers_in() -> Outcome {
    let _alone = alone();
    let (lock, step) = (RwLock::new()?, AtomicValue::new(0_u32)?);
    let mine = lock.read()?;
    let waiting = spawn(writer, (lock.clone(), step.clone()));
    wait_until(|| lock.writer().is_some());
    kill(&waiting);
    let another = lock.read()?;
    assert!(ReadGuard::previous_owner_died(&another).is_none());
    drop((mine, another));
    assert!(lock.try_write()?.is_some());
    Ok(())
}

#[test]
fn reader_without_a_free_slot_is_refused() -> Outcome {
    let lock = RwLock::new()?;
    let guards: Vec<_> = (0..RwLock::READERS).map(|_| lock.read()).collect::<Result<_, _>>()?;
    assert_eq!(lock.readers(), RwLock::READERS);
    assert_eq!(lock.read().expect_err("no free slot").cause(), AcquireError::NoFreeSlot);
    drop(guards);
    assert!(lock.try_write()?.is_some());
    Ok(())
}

#[test]
fn owners_killed_at_random_break_no_exclusion() -> Outcome {
    /// Reads and writes. A pair that is half changed must be reported as a dead writer's; the next write
    /// repairs it.
    fn worker((lock, pair, done): (RwLock, Value<[u64; 2]>, AtomicValue<u32>)) {
        while done.load() == 0 {
            let guard = lock.read().expect("no error");
            let seen = pair.get().expect("no error");
            assert!(seen[0] == seen[1] || ReadGuard::previous_owner_died(&guard).is_some());
            drop(guard);
            let guard = lock.write().expect("no error");
            let seen = pair.get().expect("no error");
            assert!(seen[0] == seen[1] || WriteGuard::previous_owner_died(&guard).is_some());
            pair.update(|pair| pair[0] += 1).expect("no error");
            pair.update(|pair| pair[1] = pair[0]).expect("no error");
        }
    }
    let _alone = alone();
    let (lock, pair, done) = (RwLock::new()?, Value::new([0_u64; 2])?, AtomicValue::new(0_u32)?);
    let new = || spawn(worker, (lock.clone(), pair.clone(), done.clone()));
    let mut workers: Vec<_> = (0..3).map(|_| new()).collect();
    let mut dice = Dice::of_this_run();
    for _ in 0..40 {
        let before = pair.get()?[0];
        wait_until(|| pair.get().is_ok_and(|pair| pair[0] > before));
        let (pause, length) = (Instant::now(), Duration::from_micros(dice.below(200)));
        while pause.elapsed() < length {
            std::hint::spin_loop();
        }
        let victim = usize::try_from(dice.below(3))?;
        kill(&workers[victim]);
        workers[victim] = new();
    }
    done.store(1);
    workers.iter().for_each(value);
    assert_eq!(lock.readers(), 0);
    Ok(())
}
