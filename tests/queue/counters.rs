//! The counters of a queue, which all processes share.

use std::time::Duration;

use multiproc::{AtomicValue, GetError, JobLimits, JoinableQueue, Queue};

use crate::common::{Dice, Outcome, kill, spawn, unique, value, wait_for, wait_until};
use crate::kit::{RawQueue, Side, message, read, stop_inside, wait_until_blocked, watchdog};

#[test]
fn puts_and_gets_of_all_processes_are_counted() -> Outcome {
    const EACH: u32 = 20_000;
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(100)?;
    fn produce((queue, producer): (Queue<[u8]>, u32)) -> u64 {
        let mut bytes = 0;
        for number in 0..EACH {
            let message = message(producer, number);
            queue.put_bytes(&message).unwrap();
            bytes += message.len() as u64;
        }
        bytes
    }
    fn consume(queue: Queue<[u8]>) -> u64 {
        let mut count = 0;
        while queue.get_bytes().is_ok() {
            count += 1;
        }
        count
    }
    let producers = [0, 1].map(|producer| spawn(produce, (queue.clone(), producer)));
    let consumers = [(); 2].map(|()| spawn(consume, queue.clone()));
    let bytes: u64 = producers.iter().map(value).sum();
    queue.close();
    let taken: u64 = consumers.iter().map(value).sum();
    let counters = queue.counters();
    assert_eq!((counters.puts, counters.gets, counters.bytes), (u64::from(2 * EACH), taken, bytes));
    assert_eq!((taken, counters.deaths), (u64::from(2 * EACH), 0));
    Ok(())
}

#[test]
fn sleeps_are_counted() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (Queue::new(1)?, AtomicValue::new(0)?);
    fn get((queue, step): (Queue<u8>, AtomicValue<u32>)) -> Result<u8, String> {
        step.fetch_add(1);
        queue.get().map_err(|error| error.to_string())
    }
    let child = spawn(get, (queue.clone(), step.clone()));
    wait_until_blocked(child.pid(), &step, 1);
    let asleep = queue.counters();
    assert!(asleep.get_sleeps >= 1 && asleep.put_sleeps == 0, "{asleep:?}");
    queue.put(1)?;
    assert_eq!(value(&child), Ok(1));
    queue.put(2)?;
    assert!(queue.put_timeout(3, Duration::from_millis(20)).is_err());
    assert!(queue.counters().put_sleeps >= 1);
    assert_eq!((queue.get(), queue.try_get()), (Ok(2), Err(GetError::Empty)));
    Ok(())
}

#[test]
fn deaths_are_counted() -> Outcome {
    let _watchdog = watchdog();
    for (round, side) in [Side::Producers, Side::Consumers, Side::Producers].into_iter().enumerate() {
        let queue: Queue<[u8]> = Queue::create(&unique("deaths"), 100)?;
        let raw = RawQueue::open(&queue);
        fn put_and_get(queue: Queue<[u8]>) {
            let mut dice = Dice::new(7);
            loop {
                queue.put_bytes(&message(1, u32::try_from(dice.below(1000)).unwrap())).unwrap();
                read(&queue.get_bytes().unwrap());
            }
        }
        let child = spawn(put_and_get, queue.clone());
        wait_until(|| raw.head() != 0);
        stop_inside(child.pid(), &raw, side);
        kill(&child);
        let before = queue.counters();
        queue.put_bytes(&message(2, 0))?;
        read(&queue.get_bytes()?);
        let after = queue.counters();
        assert_eq!(before.deaths, 0, "round {round}");
        assert_eq!(after.deaths, 1, "round {round}");
        // Messages are exact: what the child put and did not get is still there.
        while queue.try_get_bytes().is_ok() {}
        let end = queue.counters();
        assert_eq!((end.puts, end.gets), (after.puts, after.puts));
        assert_eq!(after.puts, before.puts + 1);
    }
    Ok(())
}

#[test]
fn deliveries_to_killed_processes_are_counted() -> Outcome {
    const JOBS: u32 = 20;
    let _watchdog = watchdog();
    type Desk = (JoinableQueue<[u8]>, AtomicValue<u32>);
    let (queue, step): Desk =
        (JoinableQueue::new(JobLimits::from(100).max_deliveries(3))?, AtomicValue::new(0)?);
    fn hold((queue, step): Desk) {
        let jobs: Vec<_> = (0..3).map(|_| queue.get_bytes().unwrap()).collect();
        step.fetch_add(1);
        wait_for(&step, 100);
        jobs.into_iter().for_each(multiproc::Job::done);
    }
    (0..JOBS).try_for_each(|number| queue.put_bytes(&number.to_ne_bytes()))?;
    for round in 1..=4 {
        let child = spawn(hold, (queue.clone(), step.clone()));
        wait_for(&step, round);
        kill(&child);
        // The same three jobs, until they become dead letters.
        let counters = queue.counters();
        let expected = if round < 4 { (3, 3 * u64::from(round - 1), 0) } else { (6, 6, 3) };
        assert_eq!((counters.gets, counters.redelivered, counters.dead_lettered), expected, "round {round}");
    }
    fn work(queue: JoinableQueue<[u8]>) -> u64 {
        let mut again = 0;
        for job in queue.iter_bytes() {
            let job = job.unwrap();
            again += u64::from(job.attempts() > 1);
            job.done();
        }
        again
    }
    let workers = [(); 2].map(|()| spawn(work, queue.clone()));
    queue.join()?;
    queue.close();
    assert_eq!(workers.iter().map(value).sum::<u64>(), 3);
    let counters = queue.counters();
    let jobs = u64::from(JOBS);
    assert_eq!((counters.puts, counters.gets, counters.bytes), (jobs, jobs, 4 * jobs));
    assert_eq!((counters.redelivered, counters.dead_lettered, counters.deaths), (9, 3, 0));
    Ok(())
}
