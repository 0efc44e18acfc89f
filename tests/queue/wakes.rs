//! Many waiters: a message wakes one of them, not all; a burst wakes as many as it needs, and leaves none
//! asleep.
#![allow(clippy::cast_possible_truncation, reason = "counts of a short test")]

use std::thread;
use std::time::{Duration, Instant};

use multiproc::queue::JoinableQueue;
use multiproc::robust::BRIEF;
use multiproc::{AtomicValue, Process, Queue};

use crate::common::{Dice, Outcome, spawn, value, wait_for};
use crate::kit::{sleeps, wait_until_blocked, watchdog};

const WAITERS: u32 = 16;

/// Waits until all threads of all waiters sleep.
fn wait_until_asleep(waiters: &[Process<u32>], step: &AtomicValue<u32>) {
    waiters.iter().for_each(|process| wait_until_blocked(process.pid(), step, WAITERS));
}

const MESSAGES: u32 = 100;

/// Returns how many sleeps of all waiters together one message costs, in the mean.
fn sleeps_per_message(waiters: &[Process<u32>], step: &AtomicValue<u32>, put: impl Fn()) -> f64 {
    let all = || waiters.iter().map(|process| sleeps(process.pid())).sum::<u64>();
    let (mut woken, mut polls) = (0, 0);
    for number in 0..MESSAGES {
        wait_until_asleep(waiters, step);
        // Until the brief sleeps of all are over: no waiter has gone to sleep for longer than such a sleep
        // takes.
        let mut asleep = all();
        let mut begun = Instant::now();
        while begun.elapsed() < BRIEF * 2 {
            thread::sleep(BRIEF);
            if all() != asleep {
                (asleep, begun) = (all(), Instant::now());
            }
        }
        put();
        wait_for(step, WAITERS + number + 1);
        thread::sleep(BRIEF * 2);
        woken += all() - asleep;
        // Each waiter also wakes for its liveness poll, once a second.
        polls += begun.elapsed().as_micros() as u64 * u64::from(WAITERS);
    }
    (woken as f64 - polls as f64 / 1e6) / f64::from(MESSAGES)
}

/// The most sleeps that a message may cost: its consumer's next, brief sleep and the long one after that; now
/// and then a collision, or a waiter that finds the message taken.
const FEW: f64 = 4.0;

#[test]
fn message_wakes_one_of_many_consumers() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (Queue::<u32>::new(100)?, AtomicValue::new(0)?);
    fn serve((queue, step): (Queue<u32>, AtomicValue<u32>)) -> u32 {
        step.fetch_add(1);
        let mut count = 0;
        for message in &queue {
            assert!(message.is_ok());
            step.fetch_add(1);
            count += 1;
        }
        count
    }
    let consumers: Vec<_> = (0..WAITERS).map(|_| spawn(serve, (queue.clone(), step.clone()))).collect();
    let sleeps = sleeps_per_message(&consumers, &step, || queue.put(7).unwrap());
    queue.close();
    assert_eq!(consumers.iter().map(value).sum::<u32>(), MESSAGES);
    assert!(sleeps < FEW, "{sleeps} sleeps for each message");
    Ok(())
}

#[test]
fn job_wakes_one_of_many_consumers() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (JoinableQueue::<u32>::new(100)?, AtomicValue::new(0)?);
    fn serve((queue, step): (JoinableQueue<u32>, AtomicValue<u32>)) -> u32 {
        step.fetch_add(1);
        let mut count = 0;
        for job in queue.iter() {
            job.unwrap().done();
            step.fetch_add(1);
            count += 1;
        }
        count
    }
    let consumers: Vec<_> = (0..WAITERS).map(|_| spawn(serve, (queue.clone(), step.clone()))).collect();
    let sleeps = sleeps_per_message(&consumers, &step, || queue.put(7).unwrap());
    queue.close();
    assert_eq!(consumers.iter().map(value).sum::<u32>(), MESSAGES);
    assert!(sleeps < FEW, "{sleeps} sleeps for each job");
    Ok(())
}

#[test]
fn room_wakes_one_of_many_producers() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (Queue::<u32>::new(1)?, AtomicValue::new(0)?);
    queue.put(0)?;
    fn produce((queue, step): (Queue<u32>, AtomicValue<u32>)) -> u32 {
        step.fetch_add(1);
        let put = |number: &u32| queue.put(*number).is_ok() && step.fetch_add(1) < u32::MAX;
        (1..u32::MAX).take_while(put).count().try_into().unwrap()
    }
    let producers: Vec<_> = (0..WAITERS).map(|_| spawn(produce, (queue.clone(), step.clone()))).collect();
    let sleeps = sleeps_per_message(&producers, &step, || assert!(queue.get().is_ok()));
    queue.close();
    assert_eq!(producers.iter().map(value).sum::<u32>(), MESSAGES);
    assert!(sleeps < FEW, "{sleeps} sleeps for each message taken");
    Ok(())
}

/// When many producers wait for room, a few at a time fill it and the others sleep on. Otherwise each would
/// sleep once for two or three messages.
#[test]
fn many_waiting_producers_take_turns() -> Outcome {
    let _watchdog = watchdog();
    const CROWD: u64 = 48;
    const EACH: u64 = 2000;
    let queue = Queue::<u32>::new(1024)?;
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| (0..EACH).for_each(|_| queue.put(7).unwrap()));
        }
        for _ in 0..CROWD * EACH {
            assert_eq!(queue.get(), Ok(7));
        }
    });
    // A brief sleep also ends by time, and is followed by another.
    let by_time = CROWD * (1 + begun.elapsed().as_micros() as u64 / BRIEF.as_micros() as u64);
    let sleeps = queue.counters().put_sleeps;
    assert!(
        sleeps <= CROWD * EACH / 16 + by_time,
        "{sleeps} sleeps, at most {by_time} of which ended by time"
    );
    Ok(())
}

#[test]
fn burst_wakes_as_many_as_it_needs() -> Outcome {
    let _watchdog = watchdog();
    const ROUNDS: u32 = 60;
    let (queue, step, all_have_one) = (Queue::<u32>::new(100)?, AtomicValue::new(0)?, AtomicValue::new(0)?);
    // Each consumer takes one message, and takes no other before all have one.
    fn serve((queue, step, all_have_one): (Queue<u32>, AtomicValue<u32>, AtomicValue<u32>)) -> u32 {
        step.fetch_add(1);
        let mut count = 0;
        for round in &queue {
            step.fetch_add(1);
            wait_for(&all_have_one, round.unwrap());
            count += 1;
        }
        count
    }
    let start = |_| spawn(serve, (queue.clone(), step.clone(), all_have_one.clone()));
    let consumers: Vec<_> = (0..WAITERS).map(start).collect();
    let mut dice = Dice::of_this_run();
    let mut slow = 0;
    for round in 1..=ROUNDS {
        wait_until_asleep(&consumers, &step);
        let (begun, mut left) = (Instant::now(), WAITERS);
        while left > 0 {
            let some = 1 + u32::try_from(dice.below(u64::from(left)))?;
            queue.put_many(vec![round; some as usize])?;
            left -= some;
        }
        wait_for(&step, WAITERS * (round + 1));
        // A consumer that was left asleep finds its message by its liveness poll, after a second.
        slow += u32::from(begun.elapsed() > Duration::from_millis(900));
        all_have_one.store(round);
    }
    queue.close();
    assert_eq!(consumers.iter().map(value).sum::<u32>(), ROUNDS * WAITERS);
    // The whole machine may pause once.
    assert!(slow <= 1, "{slow} of {ROUNDS} bursts left a consumer asleep");
    Ok(())
}
