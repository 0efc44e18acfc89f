//! Jobs among threads: which thread holds one, how it returns, when all are done. (Processes: the workspace's
//! `tests/queue`.)
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod kit;

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_queue::{
    Capacity, GetError, JobLimits, JoinableQueue, MAX_LEASES, NothingTaken, PutError, Queue,
};
use serde::{Deserialize, Serialize};

use kit::{Outcome, Random, Sleeper, pattern, unique, watchdog};

/// Ends a thread that holds a job, without running its destructors.
fn die_with_a_job(queue: &JoinableQueue<u32>) -> u32 {
    let queue = queue.clone();
    thread::spawn(move || {
        let job = queue.get().unwrap();
        let number = *job;
        std::mem::forget(job);
        number
    })
    .join()
    .unwrap()
}

#[test]
fn returned_job_is_leased_before_new_ones() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(JobLimits::from(10).unlimited_deliveries())?;
    (0..4).try_for_each(|number| queue.put(number))?;
    let (first, second) = (queue.get()?, queue.get()?);
    assert_eq!((*first, *second, queue.len(), queue.leased(), queue.unfinished()), (0, 1, 2, 2, 4));
    drop(second);
    assert_eq!((queue.len(), queue.leased(), queue.unfinished()), (2, 1, 4));
    let second = queue.get()?;
    assert_eq!((*second, second.attempts()), (1, 2));
    let holder = second.last_holder().unwrap();
    assert_eq!((holder.pid(), holder.died(), holder.signal()), (Some(std::process::id()), false, None));
    first.retry();
    second.done();
    let first = queue.get()?;
    assert_eq!((*first, first.attempts()), (0, 2));
    assert_eq!(*queue.get()?, 2);
    assert_eq!(queue.unfinished(), 3);
    Ok(())
}

#[test]
fn jobs_of_a_thread_that_ends_return() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(10)?;
    queue.put(7_u32)?;
    assert_eq!(die_with_a_job(&queue), 7);
    let job = queue.try_get()?;
    let holder = job.last_holder().unwrap();
    assert_eq!((*job, job.attempts(), holder.died()), (7, 2, true));
    job.done();
    assert_eq!(queue.unfinished(), 0);
    Ok(())
}

#[test]
fn job_of_a_panicking_thread_returns() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(10)?;
    queue.put(7_u32)?;
    let worked = panic::catch_unwind(AssertUnwindSafe(|| {
        let _job = queue.get().unwrap();
        panic!("on purpose");
    }));
    assert!(worked.is_err());
    assert_eq!(queue.try_get()?.attempts(), 2);
    Ok(())
}

#[test]
fn into_inner_returns_the_changed_value() -> Outcome {
    let queue = JoinableQueue::new(10)?;
    queue.put(vec![1, 2])?;
    let mut job = queue.get()?;
    job.push(3);
    assert_eq!(*job, [1, 2, 3]);
    // The next holder gets what was put.
    job.retry();
    assert_eq!(queue.get()?.into_inner(), [1, 2]);
    assert_eq!(queue.unfinished(), 0);
    Ok(())
}

#[test]
fn join_waits_for_the_last_job() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(10)?;
    queue.join()?;
    assert!(queue.join_timeout(Duration::ZERO)?);
    queue.put(1_u32)?;
    queue.put(2)?;
    let begin = Instant::now();
    assert!(!queue.join_timeout(Duration::from_millis(20))?);
    assert!(begin.elapsed() >= Duration::from_millis(20));
    let (first, second) = (queue.get()?, queue.get()?);
    let other = queue.clone();
    let joiner = Sleeper::start(move || other.join());
    first.done();
    assert!(!joiner.is_done());
    second.done();
    joiner.join()?;
    assert_eq!(queue.unfinished(), 0);
    Ok(())
}

#[test]
fn join_ends_when_the_last_job_becomes_a_dead_letter() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(JobLimits::from(10).max_deliveries(1))?;
    queue.put(1_u32)?;
    queue.get()?.retry();
    let other = queue.clone();
    let joiner = Sleeper::start(move || other.join());
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    joiner.join()?;
    assert_eq!((queue.unfinished(), queue.dead_letters().len()), (0, 1));
    Ok(())
}

/// CPython's `test_task_done`, and its error.
#[test]
fn task_done() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(Capacity::unbounded())?;
    assert_eq!(queue.task_done(), Err(NothingTaken));
    thread::scope(|scope| -> Outcome {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(_number) = queue.take().unwrap() {
                    queue.task_done().unwrap();
                }
                queue.task_done().unwrap();
            });
        }
        (0..10).try_for_each(|number| queue.put(Some(number)))?;
        queue.join()?;
        (0..4).try_for_each(|_| queue.put(None))?;
        Ok(())
    })?;
    assert_eq!(queue.unfinished(), 0);
    assert_eq!(queue.task_done(), Err(NothingTaken));
    Ok(())
}

#[test]
fn task_done_ends_the_oldest_lease_of_this_thread() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(10)?;
    (0..3).try_for_each(|number: u32| queue.put(number))?;
    let job = queue.get()?;
    assert_eq!((queue.take()?, queue.take()?), (1, 2));
    thread::scope(|scope| scope.spawn(|| assert_eq!(queue.task_done(), Err(NothingTaken))).join().unwrap());
    queue.task_done()?;
    assert_eq!(queue.unfinished(), 2);
    queue.task_done()?;
    // `task_done` does not concern a `Job`.
    assert_eq!(queue.task_done(), Err(NothingTaken));
    job.done();
    assert_eq!(queue.unfinished(), 0);
    // A job that was taken and not done returns when its thread ends.
    queue.put(4)?;
    thread::scope(|scope| scope.spawn(|| assert_eq!(queue.take().unwrap(), 4)).join().unwrap());
    let job = queue.try_get()?;
    assert_eq!((*job, job.attempts()), (4, 2));
    Ok(())
}

#[test]
fn dead_letters() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(JobLimits::from(100).max_deliveries(2))?;
    assert!(queue.dead_letters().is_empty() && queue.dead_letters().take()?.is_none());
    (0..3).try_for_each(|number: u32| queue.put(number))?;
    // Its holder gave it back once, and died with it once.
    for number in 0..3 {
        let job = queue.get()?;
        assert_eq!(*job, number);
        job.retry();
        assert_eq!(die_with_a_job(&queue), number);
    }
    assert_eq!((queue.unfinished(), queue.dead_letters().len()), (1, 2));
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    assert_eq!((queue.unfinished(), queue.dead_letters().len()), (0, 3));
    let letters = queue.dead_letters().list()?;
    assert_eq!(letters.iter().map(|letter| letter.value().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(letters.iter().all(|letter| letter.attempts() == 2 && letter.last_holder().died()));
    assert_eq!(letters[0].last_holder().pid(), Some(std::process::id()));
    assert_eq!(queue.dead_letters().take()?.unwrap().value()?, 0);
    assert_eq!(queue.dead_letters().len(), 2);
    // A replayed dead letter counts as new and is leased before others.
    queue.put(9)?;
    assert_eq!(queue.dead_letters().replay()?, 2);
    assert_eq!((queue.unfinished(), queue.dead_letters().len()), (3, 0));
    let mut revived: Vec<_> = (0..2).map(|_| queue.get().unwrap()).collect();
    assert!(revived.iter().all(|job| job.attempts() == 1 && job.last_holder().is_none()));
    revived.sort_by_key(|job| **job);
    assert_eq!(revived.iter().map(|job| **job).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(*queue.get()?, 9);
    Ok(())
}

#[test]
fn many_dead_letters() -> Outcome {
    let _watchdog = watchdog();
    const LETTERS: usize = 3000;
    let queue = JoinableQueue::new(JobLimits::from(LETTERS).max_deliveries(1))?;
    for number in 0..LETTERS {
        queue.put(pattern(number as u64, number % 300))?;
        queue.get()?.retry();
    }
    assert!(queue.try_get().is_err());
    assert_eq!(queue.dead_letters().len(), LETTERS);
    let mut seen = 0;
    while !queue.dead_letters().is_empty() {
        seen += queue.dead_letters().replay()?;
        while let Ok(job) = queue.try_get() {
            job.done();
        }
    }
    assert_eq!((seen, queue.unfinished()), (LETTERS, 0));
    Ok(())
}

/// A value that cannot be decoded.
#[derive(Debug, Serialize)]
struct Odd(u32);

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number % 2 == 1 { Ok(Self(number)) } else { Err(serde::de::Error::custom("even")) }
    }
}

#[test]
fn undecodable_job_counts_as_a_delivery() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(JobLimits::from(100).max_deliveries(3))?;
    (2..4).try_for_each(|number| queue.put(Odd(number)))?;
    for _ in 0..3 {
        assert!(matches!(queue.get(), Err(GetError::Decode { bytes, .. }) if bytes == [2]));
    }
    assert_eq!(queue.get()?.into_inner().0, 3);
    let letters = queue.dead_letters().list()?;
    assert_eq!((letters.len(), letters[0].bytes(), letters[0].attempts()), (1, &[2_u8][..], 3));
    assert!(letters[0].value().is_err());
    // The iterator goes on after it.
    queue.put(Odd(4))?;
    queue.put(Odd(5))?;
    queue.close();
    let read: Vec<_> = queue.iter().map(|job| job.map(|job| job.into_inner().0).is_ok()).collect();
    assert_eq!(read, [false, false, false, true]);
    Ok(())
}

#[test]
fn get_is_closed_once_all_jobs_are_done() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(10)?;
    queue.put(1_u32)?;
    queue.put(2)?;
    let first = queue.get()?;
    queue.close();
    assert!(queue.is_closed());
    assert!(matches!(queue.put(3), Err(PutError::Closed(3))));
    let second = queue.get()?;
    // A thread need not wait for a job that it holds itself.
    assert!(matches!(queue.get(), Err(GetError::Closed)));
    // Another thread waits for that job, and gets it when it returns.
    let others = queue.clone();
    let waiter = Sleeper::start(move || {
        others.iter().map(|job| job.map(|job| job.into_inner())).collect::<Result<Vec<_>, _>>()
    });
    first.done();
    assert!(!waiter.is_done());
    second.retry();
    assert_eq!(waiter.join()?, [2]);
    assert!(matches!(queue.try_get(), Err(GetError::Closed)));
    queue.join()?;
    Ok(())
}

#[test]
fn waits_on_a_closed_queue_end_with_its_last_job() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(10)?;
    queue.put(1_u32)?;
    let job = queue.get()?;
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            Sleeper::start(move || queue.get().map(|job| job.into_inner()))
        })
        .collect();
    queue.close();
    assert!(waiters.iter().all(|waiter| !waiter.is_done()));
    let begin = Instant::now();
    job.done();
    for waiter in waiters {
        assert_eq!(waiter.join(), Err(GetError::Closed));
    }
    assert!(begin.elapsed() < Duration::from_millis(900), "by the liveness poll");
    Ok(())
}

#[test]
fn get_waits_at_the_maximum_of_leases() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(Capacity::unbounded())?;
    (0..MAX_LEASES + 2).try_for_each(|number| queue.put(number))?;
    let mut jobs: Vec<_> = (0..MAX_LEASES).map(|_| queue.get()).collect::<Result<_, _>>()?;
    assert_eq!((queue.leased(), queue.len()), (MAX_LEASES, 2));
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    assert!(matches!(queue.get_timeout(Duration::from_millis(10)), Err(GetError::Empty)));
    let other = queue.clone();
    let waiter = Sleeper::start(move || other.get().map(|job| job.into_inner()));
    let begin = Instant::now();
    jobs.swap_remove(17).done();
    assert_eq!(waiter.join()?, MAX_LEASES);
    assert!(begin.elapsed() < Duration::from_millis(900), "by the liveness poll");
    drop(jobs);
    assert_eq!(queue.unfinished(), MAX_LEASES);
    Ok(())
}

#[test]
fn long_jobs() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<Vec<u8>> = JoinableQueue::new(JobLimits::from(4).longest_job(5 << 20))?;
    assert_eq!(queue.longest_job(), 8 << 20);
    let mut random = Random(5);
    for round in 0..30 {
        let job = pattern(round, if round % 3 == 0 { random.below(4 << 20) } else { random.below(10_000) });
        queue.put(job.clone())?;
        let leased = queue.get()?;
        assert_eq!(*leased, job);
        leased.retry();
        let again = queue.get()?;
        assert_eq!(*again, job);
        again.done();
    }
    assert!(matches!(queue.put(vec![0; 8 << 20]), Err(PutError::TooLarge { longest: 8_388_608, .. })));
    assert_eq!(queue.unfinished(), 0);
    Ok(())
}

#[test]
fn impossible_limits_are_an_error() -> Outcome {
    let none = |limits: JobLimits| JoinableQueue::<u32>::new(limits).map(drop).unwrap_err().to_string();
    assert!(none(JobLimits::from(0)).contains("a capacity of 0 messages"));
    assert!(none(JobLimits::from(1).longest_job(0)).contains("jobs of 0 bytes"));
    assert!(none(JobLimits::from(1).longest_job((4 << 30) + 1)).contains("jobs of 4294967297 bytes"));
    let name = unique("jobs");
    let queue = JoinableQueue::<u32>::create(&name, JobLimits::from(3).max_deliveries(7))?;
    assert_eq!(
        (queue.name(), queue.capacity(), queue.max_deliveries()),
        (Some(name.as_str()), Some(3), Some(7))
    );
    assert!(JoinableQueue::<u64>::open(&name).is_err() && Queue::<u32>::open(&name).is_err());
    assert!(JoinableQueue::<u32>::open_or_create(&name, JobLimits::from(3).max_deliveries(8)).is_err());
    assert_eq!(JoinableQueue::<u32>::open(&name)?.max_deliveries(), Some(7));
    assert!(format!("{queue:?}").contains("unfinished: 0"));
    assert_eq!(JoinableQueue::<u32>::new(Capacity::unbounded())?.capacity(), None);
    Ok(())
}

#[test]
fn handles_in_a_returned_job_are_still_valid() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<Queue<u32>> = JoinableQueue::new(10)?;
    let inner = Queue::new(3)?;
    inner.put(5)?;
    queue.put(inner)?;
    // Only the job has it now.
    for attempt in 1..=4 {
        let job = queue.get()?;
        assert_eq!((job.attempts(), job.len()), (attempt, 1));
        job.retry();
    }
    assert_eq!(queue.get()?.into_inner().get()?, 5);
    Ok(())
}

#[test]
fn waiting_consumer_notices_a_death_at_once() -> Outcome {
    let _watchdog = watchdog();
    for _ in 0..20 {
        let queue = JoinableQueue::new(10)?;
        queue.put(7_u32)?;
        let (dying, waiting) = (queue.clone(), queue.clone());
        let go = std::sync::Arc::new(std::sync::Barrier::new(2));
        let (taken, end) = (std::sync::Arc::new(std::sync::Barrier::new(2)), go.clone());
        let has = taken.clone();
        let holder = thread::spawn(move || {
            std::mem::forget(dying.get().unwrap());
            has.wait();
            end.wait();
        });
        taken.wait();
        let waiter = Sleeper::start(move || waiting.get().map(|job| (*job, job.attempts())));
        // Past the brief sleep, which does not notice deaths.
        thread::sleep(Duration::from_millis(8));
        let begin = Instant::now();
        go.wait();
        assert_eq!(waiter.join()?, (7, 2));
        assert!(begin.elapsed() < Duration::from_millis(900), "by the liveness poll");
        holder.join().unwrap();
    }
    Ok(())
}

/// Every job is done once, and none is leased twice at a time, however many are given back.
#[test]
fn no_job_is_lost_by_threads_that_give_back_and_die() -> Outcome {
    let _watchdog = watchdog();
    const JOBS: u32 = 6000;
    for capacity in [Capacity::messages(3), Capacity::messages(1000), Capacity::unbounded()] {
        let queue: &JoinableQueue<u32> =
            &JoinableQueue::new(JobLimits::from(capacity).unlimited_deliveries())?;
        let out: &Vec<AtomicUsize> = &(0..JOBS).map(|_| AtomicUsize::new(0)).collect();
        let workers: Vec<Vec<u32>> = thread::scope(|scope| {
            let work = |seed: u64| {
                move || {
                    let mut random = Random(seed);
                    let mut done = Vec::new();
                    for job in queue.iter() {
                        let job = job.unwrap();
                        assert_eq!(out[*job as usize].fetch_add(1, SeqCst), 0, "out twice");
                        let number = *job;
                        if random.below(4) == 0 {
                            out[number as usize].fetch_sub(1, SeqCst);
                            drop(job);
                        } else {
                            done.push(number);
                            out[number as usize].fetch_sub(1, SeqCst);
                            job.done();
                        }
                    }
                    done
                }
            };
            let workers: Vec<_> = (0..3).map(|seed| scope.spawn(work(seed))).collect();
            let mortals = scope.spawn(|| {
                for _ in 0..100 {
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            if let Ok(job) = queue.try_get() {
                                assert_eq!(out[*job as usize].fetch_add(1, SeqCst), 0, "out twice");
                                out[*job as usize].fetch_sub(1, SeqCst);
                                std::mem::forget(job);
                            }
                        });
                    });
                }
            });
            (0..JOBS).for_each(|number| queue.put(number).unwrap());
            mortals.join().unwrap();
            queue.join().unwrap();
            assert_eq!(queue.unfinished(), 0);
            queue.close();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let mut times = HashMap::new();
        workers.iter().flatten().for_each(|number| *times.entry(*number).or_insert(0) += 1);
        assert!(times.len() == JOBS as usize && times.values().all(|times| *times == 1));
        assert!(out.iter().all(|out| out.load(Relaxed) == 0));
    }
    Ok(())
}
