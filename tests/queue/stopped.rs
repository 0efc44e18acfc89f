//! Stopped processes (SIGSTOP). A process that is stopped while it sleeps delays no other process. A process
//! that is stopped in the middle of a put or a get delays others, whose time-outs hold, and its lock is not
//! taken from it.

use std::path::Path;
use std::time::{Duration, Instant};

use multiproc::{AtomicValue, Capacity, GetError, PutError, Queue};

use crate::common::{Dice, Outcome, spawn, stop, unique, value, wait_for, wait_until};
use crate::kit::{RawQueue, Side, go_on, message, read, stop_inside, wait_until_blocked, watchdog};

#[test]
fn stopped_waiting_consumer_delays_no_message() -> Outcome {
    let _watchdog = watchdog();
    let (jobs, done, step) = (Queue::new(10)?, Queue::new(10)?, AtomicValue::new(0)?);
    type Work = (Queue<u32>, Queue<(u8, u32)>, AtomicValue<u32>, u8);
    fn serve((jobs, done, step, me): Work) -> u32 {
        step.fetch_add(1);
        jobs.iter().map(|job| done.put((me, job.unwrap())).unwrap()).count().try_into().unwrap()
    }
    let [stopped, other] = [0, 1].map(|me| spawn(serve, (jobs.clone(), done.clone(), step.clone(), me)));
    for round in 0..5 {
        wait_until_blocked(stopped.pid(), &step, 2);
        wait_until_blocked(other.pid(), &step, 2);
        stop(stopped.pid());
        for n in round * 1000..round * 1000 + 500 {
            jobs.put(n)?;
            assert_eq!(done.get()?, (1, n), "the stopped process did it");
        }
        go_on(stopped.pid());
        // Both consumers take part again.
        for n in 0..500 {
            jobs.put(n)?;
            assert_eq!(done.get()?.1, n);
        }
    }
    jobs.close();
    assert_eq!(value(&stopped) + value(&other), 5000);
    Ok(())
}

#[test]
fn one_running_consumer_of_many_stopped_ones_gets_all() -> Outcome {
    let _watchdog = watchdog();
    const CONSUMERS: u32 = 8;
    let jobs = Queue::<u32>::create(&unique("stopped"), 100)?;
    let (done, step) = (AtomicValue::new(0)?, AtomicValue::new(0)?);
    let raw = RawQueue::open(&jobs);
    // A consumer reports a finished job by one atomic step: it cannot be stopped in the middle of that.
    fn serve((jobs, done, step): (Queue<u32>, AtomicValue<u32>, AtomicValue<u32>)) -> Vec<u32> {
        step.fetch_add(1);
        jobs.iter().map(Result::unwrap).inspect(|_| assert!(done.fetch_add(1) < u32::MAX)).collect()
    }
    let start = |_| spawn(serve, (jobs.clone(), done.clone(), step.clone()));
    let consumers: Vec<_> = (0..CONSUMERS).map(start).collect();
    let mut dice = Dice::of_this_run();
    let mut sent = 0;
    for _ in 0..80 {
        consumers.iter().for_each(|process| wait_until_blocked(process.pid(), &step, CONSUMERS));
        let running = consumers[usize::try_from(dice.below(u64::from(CONSUMERS)))?].pid();
        let stopped = || consumers.iter().map(|process| process.pid()).filter(|pid| *pid != running);
        // Some are stopped before the messages come, and some just as they are woken.
        let late = stopped().filter(|_| dice.below(2) == 0).collect::<Vec<_>>();
        stopped().filter(|pid| !late.contains(pid)).for_each(stop);
        let burst = 1 + u32::try_from(dice.below(20))?;
        jobs.put_many((sent..sent + burst).collect::<Vec<_>>())?;
        sent += burst;
        late.into_iter().for_each(stop);
        // A consumer that is stopped in the middle of a get does delay the others.
        let holder = raw.holder(Side::Consumers);
        if !stopped().any(|pid| Path::new(&format!("/proc/{pid}/task/{holder}")).exists()) {
            wait_until(|| jobs.is_empty());
        }
        stopped().for_each(go_on);
        wait_for(&done, sent);
    }
    jobs.close();
    let mut all: Vec<u32> = consumers.iter().flat_map(value).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..sent));
    Ok(())
}

#[test]
fn stopped_waiting_producer_delays_no_message() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (Queue::new(1)?, AtomicValue::new(0)?);
    queue.put((9, 0))?;
    fn produce((queue, step, me): (Queue<(u8, u32)>, AtomicValue<u32>, u8)) {
        step.fetch_add(1);
        (0..500).for_each(|n| queue.put((me, n)).unwrap());
    }
    let [stopped, other] = [0, 1].map(|me| spawn(produce, (queue.clone(), step.clone(), me)));
    wait_until_blocked(stopped.pid(), &step, 2);
    wait_until_blocked(other.pid(), &step, 2);
    stop(stopped.pid());
    assert_eq!(queue.get()?, (9, 0));
    for n in 0..500 {
        assert_eq!(queue.get()?, (1, n));
    }
    value(&other);
    assert_eq!(queue.try_get(), Err(GetError::Empty));
    go_on(stopped.pid());
    for n in 0..500 {
        assert_eq!(queue.get()?, (0, n));
    }
    value(&stopped);
    Ok(())
}

#[test]
fn producer_stopped_in_a_put_keeps_its_lock_and_timeouts_hold() -> Outcome {
    let _watchdog = watchdog();
    const COUNT: u32 = 100_000;
    let queue: Queue<[u8]> = Queue::create(&unique("stopped"), Capacity::messages(100).bytes(1 << 14))?;
    let raw = RawQueue::open(&queue);
    let step = AtomicValue::new(0)?;
    fn produce((queue, step): (Queue<[u8]>, AtomicValue<u32>)) {
        for number in 0.. {
            if step.load() == 2 {
                return;
            }
            queue.put_bytes(&message(0, number)).unwrap();
            step.compare_exchange(0, 1).ok();
        }
    }
    let child = spawn(produce, (queue.clone(), step.clone()));
    wait_for(&step, 1);
    let drain = {
        let queue = queue.clone();
        std::thread::spawn(move || {
            let mut next = [0; 2];
            loop {
                match queue.get_bytes() {
                    Ok(bytes) => {
                        let (producer, number) = read(&bytes);
                        assert_eq!(number, next[producer as usize], "producer {producer}");
                        next[producer as usize] += 1;
                    }
                    Err(error) => {
                        assert_eq!(error, GetError::Closed);
                        return next;
                    }
                }
            }
        })
    };
    stop_inside(child.pid(), &raw, Side::Producers);
    let holder = raw.holder(Side::Producers);
    wait_until(|| queue.is_empty());
    let begun = Instant::now();
    assert_eq!(queue.try_put_bytes(&message(1, 0)), Err(PutError::Busy(())));
    assert!(begun.elapsed() < Duration::from_secs(1));
    // The longest is more than a second, the interval of the liveness poll.
    for timeout in [1, 100, 1500].map(Duration::from_millis) {
        let begun = Instant::now();
        assert_eq!(queue.put_bytes_timeout(&message(1, 0), timeout), Err(PutError::Busy(())));
        assert!(begun.elapsed() >= timeout);
        assert!(begun.elapsed() < timeout + Duration::from_secs(1));
    }
    assert_eq!(raw.holder(Side::Producers), holder);
    go_on(child.pid());
    (0..COUNT / 100).try_for_each(|number| queue.put_bytes(&message(1, number)))?;
    step.store(2);
    value(&child);
    queue.close();
    let next = drain.join().unwrap();
    assert_eq!(next[1], COUNT / 100);
    Ok(())
}

#[test]
fn consumer_stopped_in_a_get_keeps_its_lock_and_timeouts_hold() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::create(&unique("stopped"), Capacity::messages(100).bytes(1 << 14))?;
    let raw = RawQueue::open(&queue);
    let done = Queue::<(u32, u32)>::new(1000)?;
    fn consume((queue, done): (Queue<[u8]>, Queue<(u32, u32)>)) {
        while let Ok(bytes) = queue.get_bytes() {
            done.put(read(&bytes)).unwrap();
        }
    }
    let child = spawn(consume, (queue.clone(), done.clone()));
    let feed = {
        let (queue, done) = (queue.clone(), done.clone());
        std::thread::spawn(move || {
            // Until the consumer is stopped, no other process takes messages.
            for number in 0..u32::MAX {
                if queue.put_bytes(&message(0, number)).is_err() {
                    return number;
                }
                if number >= 50 {
                    assert_eq!(done.get(), Ok((0, number - 50)));
                }
            }
            0
        })
    };
    stop_inside(child.pid(), &raw, Side::Consumers);
    let holder = raw.holder(Side::Consumers);
    let begun = Instant::now();
    let tried = queue.try_get_bytes();
    assert!(begun.elapsed() < Duration::from_secs(1));
    // It may have been stopped before its message came, or after it had taken it.
    assert!(matches!(tried, Err(GetError::Busy | GetError::Empty)), "{tried:?}");
    for timeout in [1, 100, 1500].map(Duration::from_millis) {
        let begun = Instant::now();
        assert_eq!(queue.get_bytes_timeout(timeout), Err(GetError::Busy));
        assert!(begun.elapsed() >= timeout);
        assert!(begun.elapsed() < timeout + Duration::from_secs(1));
    }
    assert_eq!(raw.holder(Side::Consumers), holder);
    go_on(child.pid());
    // The consumer goes on: the head moves again.
    let head = raw.head();
    wait_until(|| raw.head() != head);
    queue.close();
    value(&child);
    let sent = feed.join().unwrap();
    let rest = (sent - 50..sent).map(|number| (0, number));
    let mut got = std::iter::from_fn(|| done.try_get().ok());
    assert!(rest.eq(got.by_ref()), "the last fifty");
    Ok(())
}
