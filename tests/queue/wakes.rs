//! Many sleepers: a message wakes one of them, not all; a burst wakes as many as it needs, and nobody is forgotten.
#![allow(clippy::cast_possible_truncation, reason = "counts of a short test")]

use std::thread;
use std::time::{Duration, Instant};

use multiproc::queue::JoinableQueue;
use multiproc::robust::BRIEF;
use multiproc::{AtomicValue, Process, Queue};

use crate::common::{Dice, Outcome, spawn, value, wait_for};
use crate::kit::{naps, wait_until_blocked, watchdog};

const SLEEPERS: u32 = 16;

/// All threads of all of them sleep.
fn wait_until_asleep(crew: &[Process<u32>], step: &AtomicValue<u32>) {
    crew.iter().for_each(|process| wait_until_blocked(process.pid(), step, SLEEPERS));
}

const MESSAGES: u32 = 100;

/// How often one of them goes to sleep for one message, in the mean.
fn naps_per_message(crew: &[Process<u32>], step: &AtomicValue<u32>, put: impl Fn()) -> f64 {
    let all = || crew.iter().map(|process| naps(process.pid())).sum::<u64>();
    let (mut woken, mut belts) = (0, 0);
    for number in 0..MESSAGES {
        wait_until_asleep(crew, step);
        // Behind their first, brief sleep, which would be that of the last one only: nobody stirs for longer than that.
        let mut asleep = all();
        let mut begun = Instant::now();
        while begun.elapsed() < BRIEF * 2 {
            thread::sleep(BRIEF);
            if all() != asleep {
                (asleep, begun) = (all(), Instant::now());
            }
        }
        put();
        wait_for(step, SLEEPERS + number + 1);
        thread::sleep(BRIEF * 2);
        woken += all() - asleep;
        // Each looks round once a second, whatever happens.
        belts += begun.elapsed().as_micros() as u64 * u64::from(SLEEPERS);
    }
    (woken as f64 - belts as f64 / 1e6) / f64::from(MESSAGES)
}

/// What a message may cost: its taker's next sleep, which is brief, and the long one after that; and now and then a collision, or a passer-by.
const FEW: f64 = 4.0;

#[test]
fn message_wakes_one_of_many() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (Queue::<u32>::new(100)?, AtomicValue::new(0)?);
    fn serve((queue, step): (Queue<u32>, AtomicValue<u32>)) -> u32 {
        step.fetch_add(1);
        queue.iter().inspect(|message| assert!(message.is_ok() && step.fetch_add(1) < u32::MAX)).count().try_into().unwrap()
    }
    let crew: Vec<_> = (0..SLEEPERS).map(|_| spawn(serve, (queue.clone(), step.clone()))).collect();
    let naps = naps_per_message(&crew, &step, || queue.put(7).unwrap());
    queue.close();
    assert_eq!(crew.iter().map(value).sum::<u32>(), MESSAGES);
    assert!(naps < FEW, "{naps} sleeps for each message");
    Ok(())
}

#[test]
fn job_wakes_one_of_many() -> Outcome {
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
    let crew: Vec<_> = (0..SLEEPERS).map(|_| spawn(serve, (queue.clone(), step.clone()))).collect();
    let naps = naps_per_message(&crew, &step, || queue.put(7).unwrap());
    queue.close();
    assert_eq!(crew.iter().map(value).sum::<u32>(), MESSAGES);
    assert!(naps < FEW, "{naps} sleeps for each job");
    Ok(())
}

#[test]
fn room_wakes_one_of_many() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = (Queue::<u32>::new(1)?, AtomicValue::new(0)?);
    queue.put(0)?;
    fn produce((queue, step): (Queue<u32>, AtomicValue<u32>)) -> u32 {
        step.fetch_add(1);
        let put = |number: &u32| queue.put(*number).is_ok() && step.fetch_add(1) < u32::MAX;
        (1..u32::MAX).take_while(put).count().try_into().unwrap()
    }
    let crew: Vec<_> = (0..SLEEPERS).map(|_| spawn(produce, (queue.clone(), step.clone()))).collect();
    let naps = naps_per_message(&crew, &step, || assert!(queue.get().is_ok()));
    queue.close();
    assert_eq!(crew.iter().map(value).sum::<u32>(), MESSAGES);
    assert!(naps < FEW, "{naps} sleeps for each place");
    Ok(())
}

/// When a crowd waits for room, a few fill it at a time, and the others sleep on: not each sleeps for each two or three of its messages.
#[test]
fn crowd_of_producers_takes_turns() -> Outcome {
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
    // Besides, a brief sleep ends by itself, and is followed by another.
    let by_themselves = CROWD * (1 + begun.elapsed().as_micros() as u64 / BRIEF.as_micros() as u64);
    let sleeps = queue.counters().put_sleeps;
    assert!(sleeps <= CROWD * EACH / 16 + by_themselves, "{sleeps} sleeps, {by_themselves} of them at most by themselves");
    Ok(())
}

#[test]
fn burst_wakes_as_many_as_it_needs() -> Outcome {
    let _watchdog = watchdog();
    const ROUNDS: u32 = 60;
    let (queue, step, gate) = (Queue::<u32>::new(100)?, AtomicValue::new(0)?, AtomicValue::new(0)?);
    // Each takes one, and does not come back before all have one.
    fn serve((queue, step, gate): (Queue<u32>, AtomicValue<u32>, AtomicValue<u32>)) -> u32 {
        step.fetch_add(1);
        let mut count = 0;
        for round in &queue {
            step.fetch_add(1);
            wait_for(&gate, round.unwrap());
            count += 1;
        }
        count
    }
    let crew: Vec<_> = (0..SLEEPERS).map(|_| spawn(serve, (queue.clone(), step.clone(), gate.clone()))).collect();
    let mut dice = Dice::of_this_run();
    let mut slow = 0;
    for round in 1..=ROUNDS {
        wait_until_asleep(&crew, &step);
        let (begun, mut left) = (Instant::now(), SLEEPERS);
        while left > 0 {
            let some = 1 + u32::try_from(dice.below(u64::from(left)))?;
            queue.put_many(vec![round; some as usize])?;
            left -= some;
        }
        wait_for(&step, SLEEPERS * (round + 1));
        // Who is forgotten looks round after a second.
        slow += u32::from(begun.elapsed() > Duration::from_millis(900));
        gate.store(round);
    }
    queue.close();
    assert_eq!(crew.iter().map(value).sum::<u32>(), ROUNDS * SLEEPERS);
    // The machine may stand still once.
    assert!(slow <= 1, "{slow} of {ROUNDS} bursts left somebody asleep");
    Ok(())
}
