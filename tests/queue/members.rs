//! Memberships: a wait for peers that have all disconnected ends with `Closed`, however those peers ended.
#![allow(unsafe_code, reason = "ends and replaces processes as a C program does")]

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::ptr;
use std::time::{Duration, Instant};

use multiproc::sync::AcquireError;
use multiproc::{AtomicValue, GetError, Options, PutError, Queue, RegistrationError};

use crate::common::{
    Dice, How, Outcome, Space, exec, fork, kill, spawn, value, wait_for, wait_until, with_one_thread,
};
use crate::kit::{message, read, wait_until_blocked, watchdog};

/// The liveness poll comes once a second; a death that the kernel reports is noticed much sooner.
const AT_ONCE: Duration = Duration::from_millis(800);

type Work = (Queue<[u8]>, AtomicValue<u32>, u32);

/// Becomes a producer, puts some messages, adds itself to `step`, and stays.
fn produce((queue, step, me): Work) {
    let producer = queue.producer().unwrap();
    (0..10).for_each(|number| producer.put_bytes(&message(me, number)).unwrap());
    step.fetch_add(1);
    wait_for(&step, u32::MAX);
}

/// Becomes a consumer, adds itself to `step`, and gets until all producers have disconnected.
fn consume((queue, step, _): Work) -> u32 {
    let consumer = queue.consumer().unwrap();
    step.fetch_add(1);
    let mut count = 0;
    loop {
        match consumer.get_bytes() {
            Ok(bytes) => {
                read(&bytes);
                count += 1;
            }
            Err(error) => {
                assert_eq!(error, GetError::Closed);
                return count;
            }
        }
    }
}

#[test]
fn death_of_the_last_producer_ends_waiting_gets() -> Outcome {
    let _watchdog = watchdog();
    let mut slow = 0;
    for _ in 0..10 {
        let (queue, step) = (Queue::new(100)?, AtomicValue::new(0)?);
        let consumers = [(); 3].map(|()| spawn(consume, (queue.clone(), step.clone(), 0)));
        // No producer has come yet: the consumers wait, for longer than the first, brief sleeps.
        consumers.iter().for_each(|consumer| wait_until_blocked(consumer.pid(), &step, 3));
        let producers = [1, 2].map(|me| spawn(produce, (queue.clone(), step.clone(), me)));
        wait_for(&step, 5);
        wait_until(|| queue.is_empty());
        consumers.iter().for_each(|consumer| wait_until_blocked(consumer.pid(), &step, 5));
        assert_eq!((queue.producers(), queue.consumers()), (2, 3));
        kill(&producers[0]);
        assert_eq!(queue.producers(), 1);
        assert!(consumers.iter().all(|consumer| consumer.is_alive()));
        let begun = Instant::now();
        kill(&producers[1]);
        assert_eq!(consumers.iter().map(value).sum::<u32>(), 20);
        slow += u32::from(begun.elapsed() > AT_ONCE);
        assert_eq!((queue.producers(), queue.consumers()), (0, 0));
        assert!(!queue.is_closed());
    }
    assert!(slow <= 1, "{slow} of 10 took a second");
    Ok(())
}

#[test]
fn messages_of_a_disconnected_producer_are_delivered_first() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (Queue::new(100)?, AtomicValue::new(0)?);
    let producer = spawn(produce, (queue.clone(), step.clone(), 1));
    wait_for(&step, 1);
    kill(&producer);
    assert_eq!(value(&spawn(consume, (queue.clone(), step.clone(), 0))), 10);
    // A new producer may come.
    let producer = queue.producer()?;
    let consumer = queue.consumer()?;
    producer.put_bytes(&message(2, 0))?;
    assert_eq!(read(&consumer.get_bytes()?), (2, 0));
    assert_eq!(consumer.try_get_bytes(), Err(GetError::Empty));
    let clone = producer.clone();
    drop(producer);
    assert_eq!(consumer.get_bytes_timeout(Duration::from_millis(20)), Err(GetError::Empty));
    drop(clone);
    assert_eq!(consumer.get_bytes_timeout(Duration::from_millis(20)), Err(GetError::Closed));
    // Without a membership a get waits as before.
    assert_eq!(queue.get_bytes_timeout(Duration::from_millis(20)), Err(GetError::Empty));
    Ok(())
}

#[test]
fn death_of_the_last_consumer_ends_waiting_puts() -> Outcome {
    let _watchdog = watchdog();
    let mut slow = 0;
    for _ in 0..10 {
        let (queue, step) = (Queue::new(3)?, AtomicValue::new(0)?);
        fn fill((queue, step, me): Work) -> u32 {
            let producer = queue.producer().unwrap();
            step.fetch_add(1);
            let mut count = 0;
            loop {
                match producer.put_bytes(&message(me, count)) {
                    Ok(()) => count += 1,
                    Err(error) => {
                        assert_eq!(error, PutError::Closed(()));
                        return count;
                    }
                }
            }
        }
        fn stay((queue, step, _): Work) {
            let _consumer = queue.consumer().unwrap();
            step.fetch_add(1);
            wait_for(&step, u32::MAX);
        }
        let consumers = [(); 2].map(|()| spawn(stay, (queue.clone(), step.clone(), 0)));
        let producers = [1, 2].map(|me| spawn(fill, (queue.clone(), step.clone(), me)));
        wait_until(|| queue.is_full());
        producers.iter().for_each(|producer| wait_until_blocked(producer.pid(), &step, 4));
        kill(&consumers[0]);
        assert!(producers.iter().all(|producer| producer.is_alive()));
        let begun = Instant::now();
        kill(&consumers[1]);
        assert_eq!(producers.iter().map(value).sum::<u32>(), 3);
        slow += u32::from(begun.elapsed() > AT_ONCE);
    }
    assert!(slow <= 1, "{slow} of 10 took a second");
    Ok(())
}

/// Producers connect, disconnect and are killed; after the last one, no consumer waits on.
#[test]
fn many_killed_producers_leave_no_membership() -> Outcome {
    let _watchdog = watchdog();
    fn connect_and_put((queue, step, me): Work) {
        let mut dice = Dice::new(u64::from(me));
        loop {
            let producer = queue.producer().unwrap();
            step.fetch_add(1);
            for _ in 0..dice.below(4) {
                // An error means that no consumer is connected at the moment.
                let _ = producer.put_bytes(&message(me, 0));
            }
        }
    }
    fn connect_and_get((queue, step, _): Work) -> u32 {
        let mut ends = 0;
        while step.load() < u32::MAX / 2 {
            let consumer = queue.consumer().unwrap();
            while consumer.get_bytes().is_ok() {}
            ends += 1;
        }
        ends
    }
    let mut dice = Dice::of_this_run();
    let (queue, step) = (Queue::new(5)?, AtomicValue::new(0)?);
    let consumers = [(); 2].map(|()| spawn(connect_and_get, (queue.clone(), step.clone(), 0)));
    for round in 0..60 {
        let before = step.load();
        let producers =
            [1, 2].map(|me| spawn(connect_and_put, (queue.clone(), step.clone(), me + 2 * round)));
        wait_for(&step, before + 1 + u32::try_from(dice.below(50))?);
        producers.iter().for_each(kill);
        // The killed producers hold no membership, so no consumer waits for them.
        let begun = Instant::now();
        wait_until(|| queue.producers() == 0 || begun.elapsed() > Duration::from_secs(3));
        assert_eq!(queue.producers(), 0, "round {round}");
    }
    step.store(u32::MAX / 2);
    assert!(consumers.iter().map(value).sum::<u32>() > 0);
    Ok(())
}

#[test]
fn exit_and_exec_end_a_membership() -> Outcome {
    let _watchdog = watchdog();
    for leave in [exits, executes] {
        let (queue, step) = (Queue::new(100)?, AtomicValue::new(0)?);
        let consumer = spawn(consume, (queue.clone(), step.clone(), 0));
        wait_until_blocked(consumer.pid(), &step, 1);
        let producer = spawn(leave, (queue.clone(), step.clone(), 1));
        wait_for(&step, 2);
        assert_eq!(value(&consumer), 1);
        let _ = producer.kill();
        let _ = producer.join();
    }
    Ok(())
}

fn exits((queue, step, me): Work) {
    let producer = queue.producer().unwrap();
    producer.put_bytes(&message(me, 0)).unwrap();
    step.fetch_add(1);
    std::mem::forget(producer);
    // SAFETY: this process needs no cleanup.
    unsafe { libc::_exit(0) };
}

fn executes((queue, step, me): Work) {
    let producer = queue.producer().unwrap();
    producer.put_bytes(&message(me, 0)).unwrap();
    step.fetch_add(1);
    exec()
}

#[test]
fn forked_copy_of_a_membership_is_the_parents() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(3)?;
    let (producer, consumer) = (queue.producer()?, queue.consumer()?);
    let child = fork(How::Libc, || {
        drop(producer.clone());
        // A copy of the parent's membership: dropping it ends nothing.
        // SAFETY: read once, and not dropped again, because this process exits.
        drop(unsafe { ptr::read(&raw const producer) });
        i32::from(queue.producers() != 1 || consumer.try_get_bytes() != Err(GetError::Empty))
    });
    assert_eq!(child.wait(), 0);
    assert_eq!((queue.producers(), queue.consumers()), (1, 1));
    drop(producer);
    assert_eq!(consumer.get_bytes(), Err(GetError::Closed));
    Ok(())
}

/// In an ordinary file the memory cannot grow; the locks of the members are there from the beginning.
#[test]
fn death_of_a_producer_is_noticed_in_an_ordinary_file() -> Outcome {
    let _watchdog = watchdog();
    let space = Space::new();
    let path = space.file("ordinary");
    fn keep((path, step): (PathBuf, AtomicValue<u32>)) {
        let queue: Queue<u8> = Options::new().open_file(&path).unwrap();
        let producer = queue.producer().unwrap();
        producer.put(1).unwrap();
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let step = AtomicValue::new(0)?;
    let queue: Queue<u8> = Options::new().create_file(&path, 3.into())?;
    let child = spawn(keep, (path.clone(), step.clone()));
    wait_for(&step, 1);
    let consumer = queue.consumer()?;
    assert_eq!((consumer.get(), consumer.try_get(), queue.producers()), (Ok(1), Err(GetError::Empty), 1));
    kill(&child);
    assert_eq!(consumer.get(), Err(GetError::Closed));
    drop((queue, consumer));
    // The first process that opens the file finds no members.
    let queue: Queue<u8> = Options::new().open_file(&path)?;
    assert_eq!((queue.producers(), queue.consumers()), (0, 0));
    Ok(())
}

/// A thread took the first member's lock, and the machine went down before that was recorded. Now another
/// thread has the same thread id.
#[test]
fn membership_from_before_a_restart_is_not_counted() -> Outcome {
    let _watchdog = watchdog();
    let another_thread = std::process::id();
    // In a process of its own: a child that another test forks here would keep the file in use.
    with_one_thread(|| {
        let space = Space::new();
        let path = space.file("ordinary");
        let queue: Queue<u8> = Options::new().create_file(&path, 3.into())?;
        drop(queue);
        // After the header (1,024 B), the fixed part (256 B) and the log (4,096 B).
        let file = std::fs::OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(&another_thread.to_ne_bytes(), 1024 + 256 + 4096)?;
        let queue: Queue<u8> = Options::new().open_file(&path)?;
        let (producer, consumer) = (queue.producer()?, queue.consumer()?);
        assert_eq!(queue.producers(), 1);
        drop(producer);
        assert_eq!(consumer.try_get(), Err(GetError::Closed));
        Ok(())
    })
}

/// Each producer connects before the previous one disconnects, so at least one is connected at every instant.
#[test]
fn change_of_producers_is_not_a_disconnect() -> Outcome {
    let _watchdog = watchdog();
    fn relay((queue, step, _): Work) {
        let mut producer = queue.producer().unwrap();
        step.store(1);
        while step.load() < u32::MAX {
            // It takes the lock of the producer before the last: the first and the second in turn.
            let next = queue.producer().unwrap();
            drop(producer);
            producer = next;
        }
    }
    let (queue, step) = (Queue::new(3)?, AtomicValue::new(0)?);
    let consumer = queue.consumer()?;
    let child = spawn(relay, (queue.clone(), step.clone(), 0));
    wait_for(&step, 1);
    for look in 0..200_000 {
        assert_eq!(consumer.try_get_bytes(), Err(GetError::Empty), "look {look}");
    }
    step.store(u32::MAX);
    child.join()?;
    assert_eq!(consumer.get_bytes(), Err(GetError::Closed));
    Ok(())
}

#[test]
fn at_most_sixty_producers_are_connected() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<u8> = Queue::new(3)?;
    let mut all: Vec<_> = (0..60).map(|_| queue.producer()).collect::<Result<_, _>>()?;
    let more = queue.producer();
    let Err(RegistrationError::Lock(refused)) = more else {
        return Err("a 61st producer is connected".into());
    };
    assert_eq!(refused.cause(), AcquireError::NoFreeSlot);
    let _consumer = queue.consumer()?;
    all.swap_remove(17);
    all.push(queue.producer()?);
    assert_eq!((queue.producers(), queue.consumers()), (60, 1));
    drop(all);
    assert_eq!(queue.producers(), 0);
    Ok(())
}
