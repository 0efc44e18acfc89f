//! Many producers and consumers in processes of their own: order, exactness, and no process left asleep.

use std::time::{Duration, Instant};

use multiproc::robust::BRIEF;
use multiproc::shm::Namespace;
use multiproc::{AtomicValue, Capacity, GetError, Process, PutError, Queue};

use crate::common::{Dice, Outcome, kill, spawn, value, wait_until};
use crate::kit::{is_asleep, message, read, sleeps, wait_until_blocked, watchdog};

#[test]
fn every_message_arrives_once_and_in_order() -> Outcome {
    let _watchdog = watchdog();
    for (capacity, each) in [(1, 3000_u32), (3, 10_000), (10_000, 50_000)] {
        let queue: Queue<[u8]> = Queue::new(Capacity::messages(capacity).bytes(1 << 16))?;
        fn produce((queue, producer, count): (Queue<[u8]>, u32, u32)) {
            (0..count).for_each(|number| queue.put_bytes(&message(producer, number)).unwrap());
        }
        fn consume(queue: Queue<[u8]>) -> Vec<(u32, u32)> {
            let mut seen = Vec::new();
            let mut bytes = Vec::new();
            loop {
                match queue.get_into(&mut bytes) {
                    Ok(()) => seen.push(read(&bytes)),
                    Err(error) => {
                        assert_eq!(error, GetError::Closed);
                        return seen;
                    }
                }
            }
        }
        let consumers: Vec<_> = (0..2).map(|_| spawn(consume, queue.clone())).collect();
        let producers: Vec<_> =
            (0..2).map(|producer| spawn(produce, (queue.clone(), producer, each))).collect();
        producers.iter().for_each(value);
        queue.close();
        let mut count = 0;
        let mut all = vec![0_u8; 2 * each as usize];
        for consumer in &consumers {
            let mut next = [0; 2];
            for (producer, number) in value(consumer) {
                let next = &mut next[producer as usize];
                assert!(*next <= number, "order of producer {producer}");
                *next = number + 1;
                all[(producer * each + number) as usize] += 1;
                count += 1;
            }
        }
        assert_eq!(count, 2 * each);
        assert!(all.iter().all(|times| *times == 1));
    }
    Ok(())
}

#[test]
fn try_get_is_exact() -> Outcome {
    let _watchdog = watchdog();
    const PLAYERS: u32 = 3;
    // As many tokens as processes: if a process has none, a token is in the queue at every instant.
    let queue = Queue::<u32>::new(PLAYERS as usize)?;
    for token in 0..PLAYERS {
        queue.put(token)?;
    }
    fn play((queue, patient): (Queue<u32>, bool)) {
        for _ in 0..20_000 {
            let token = loop {
                match if patient { queue.get() } else { queue.try_get() } {
                    Ok(token) => break token,
                    Err(GetError::Busy) => {}
                    Err(error) => panic!("{error}, with {} in it", queue.len()),
                }
            };
            while let Err(error) = queue.try_put(token) {
                assert!(matches!(error, PutError::Busy(_)), "{error}");
            }
        }
    }
    let players: Vec<_> = (0..PLAYERS).map(|player| spawn(play, (queue.clone(), player == 0))).collect();
    players.iter().for_each(value);
    assert_eq!(queue.len(), PLAYERS as usize);
    Ok(())
}

/// Adds itself to `step`, then takes and acknowledges messages until the queue is closed.
fn serve((jobs, done, step): (Queue<u32>, Queue<u32>, AtomicValue<u32>)) -> u32 {
    step.fetch_add(1);
    let mut count = 0;
    for job in &jobs {
        done.put(job.unwrap()).unwrap();
        count += 1;
    }
    count
}

#[test]
fn bursts_reach_blocked_consumers() -> Outcome {
    let _watchdog = watchdog();
    const CONSUMERS: u32 = 8;
    let (jobs, done, step) = (Queue::new(100)?, Queue::new(100)?, AtomicValue::new(0)?);
    let start = |_| spawn(serve, (jobs.clone(), done.clone(), step.clone()));
    let consumers: Vec<_> = (0..CONSUMERS).map(start).collect();
    let mut dice = Dice::of_this_run();
    let mut slowest = Duration::ZERO;
    let mut sent = 0;
    for round in 0..300 {
        if round % 10 == 0 {
            consumers.iter().for_each(|consumer| wait_until_blocked(consumer.pid(), &step, CONSUMERS));
        }
        let burst = 1 + u32::try_from(dice.below(20))?;
        let begun = Instant::now();
        (0..burst).try_for_each(|n| jobs.put(sent + n))?;
        let mut back = (0..burst).map(|_| done.get()).collect::<Result<Vec<_>, _>>()?;
        slowest = slowest.max(begun.elapsed());
        back.sort_unstable();
        assert!(back.into_iter().eq(sent..sent + burst));
        sent += burst;
    }
    jobs.close();
    assert_eq!(consumers.iter().map(value).sum::<u32>(), sent);
    // The liveness poll comes once a second: a round that does not depend on it is much shorter.
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
    Ok(())
}

#[test]
fn producers_of_unequal_messages_get_room() -> Outcome {
    let _watchdog = watchdog();
    const EACH: usize = 100;
    let (queue, step): (Queue<[u8]>, _) =
        (Queue::new(Capacity::messages(1000).bytes(4096))?, AtomicValue::new(0)?);
    queue.put_bytes(&[0; 4000])?;
    fn produce((queue, length, step): (Queue<[u8]>, usize, AtomicValue<u32>)) {
        step.fetch_add(1);
        (0..EACH).for_each(|_| queue.put_bytes(&vec![1; length]).unwrap());
    }
    let lengths = [4, 4000, 16, 2000, 4, 3000, 100, 4080];
    let producers = lengths.map(|length| spawn(produce, (queue.clone(), length, step.clone())));
    producers.iter().for_each(|producer| wait_until_blocked(producer.pid(), &step, 8));
    let mut slowest = Duration::ZERO;
    for n in 0..=EACH * lengths.len() {
        if n % 50 == 0 {
            // No producer can go on until this process takes a message.
            wait_until(|| producers.iter().all(|producer| !producer.is_alive() || is_asleep(producer.pid())));
        }
        let begun = Instant::now();
        queue.get_bytes()?;
        slowest = slowest.max(begun.elapsed());
    }
    producers.iter().for_each(value);
    assert!(queue.is_empty());
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
    Ok(())
}

#[test]
fn close_wakes_all_waiting_processes() -> Outcome {
    let _watchdog = watchdog();
    for _ in 0..5 {
        let (empty, full, step) = (Queue::new(1)?, Queue::new(1)?, AtomicValue::new(0)?);
        full.put(0)?;
        fn get((queue, step): (Queue<u8>, AtomicValue<u32>)) {
            step.fetch_add(1);
            assert_eq!(queue.get(), Err(GetError::Closed));
        }
        fn put((queue, step): (Queue<u8>, AtomicValue<u32>)) {
            step.fetch_add(1);
            assert_eq!(queue.put(7), Err(PutError::Closed(7)));
        }
        let getters = [(); 4].map(|()| spawn(get, (empty.clone(), step.clone())));
        let putters = [(); 4].map(|()| spawn(put, (full.clone(), step.clone())));
        getters.iter().chain(&putters).for_each(|child| wait_until_blocked(child.pid(), &step, 8));
        let begun = Instant::now();
        empty.close();
        full.close();
        getters.iter().chain(&putters).for_each(value);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!((full.get(), full.get()), (Ok(0), Err(GetError::Closed)));
    }
    Ok(())
}

#[test]
fn idle_waiters_wake_about_once_per_second() -> Outcome {
    let _watchdog = watchdog();
    let (empty, full, step) = (Queue::<u8>::new(1)?, Queue::<u8>::new(1)?, AtomicValue::new(0)?);
    full.put(0)?;
    fn get((queue, step): (Queue<u8>, AtomicValue<u32>)) {
        step.fetch_add(1);
        let _ = queue.get();
    }
    fn put((queue, step): (Queue<u8>, AtomicValue<u32>)) {
        step.fetch_add(1);
        let _ = queue.put(7);
    }
    let pair = |_| [spawn(get, (empty.clone(), step.clone())), spawn(put, (full.clone(), step.clone()))];
    let waiters: Vec<Process<()>> = (0..2).flat_map(pair).collect();
    waiters.iter().for_each(|child| wait_until_blocked(child.pid(), &step, 4));
    let sleeps = || waiters.iter().map(|child| sleeps(child.pid())).collect::<Vec<_>>();
    // Until their brief sleeps are over.
    std::thread::sleep(24 * BRIEF);
    let before = sleeps();
    // The test is about three idle seconds.
    std::thread::sleep(Duration::from_secs(3));
    let sleeps: Vec<u64> = sleeps().iter().zip(before).map(|(now, then)| now - then).collect();
    waiters.iter().for_each(kill);
    // About one a second, and a few for the end of the brief sleeps.
    assert!(sleeps.iter().all(|sleeps| *sleeps <= 8), "{sleeps:?}");
    Ok(())
}

#[test]
fn killed_process_leaves_no_file() -> Outcome {
    let _watchdog = watchdog();
    let name = crate::common::unique("left");
    let queue: Queue<u8> = Queue::create(&name, 3)?;
    let file = Namespace::current()?.path().join(&name);
    let step = AtomicValue::new(0)?;
    fn get((queue, step): (Queue<u8>, AtomicValue<u32>)) {
        step.fetch_add(1);
        let _ = queue.get();
    }
    let child = spawn(get, (queue.clone(), step.clone()));
    wait_until_blocked(child.pid(), &step, 1);
    drop(queue);
    assert!(file.exists());
    kill(&child);
    // A killed process cannot clean up; the next `open` of the name does. (Another test may just have forked:
    // its child has all mappings of this process.)
    wait_until(|| Queue::<u8>::open(&name).is_err());
    assert!(!file.exists());
    Ok(())
}
