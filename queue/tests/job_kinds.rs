//! Jobs of bytes and of plain values, Python's `take` and `task_done`, and the counters. (What a job is:
//! `jobs.rs`.)
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod kit;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_queue::{
    Capacity, GetError, Job, JobLimits, JoinableQueue, MAX_LEASES, NothingTaken, Plain, PutError, Queue,
};

use kit::{Outcome, Random, Sleeper, pattern, unique, watchdog};

#[test]
fn returned_jobs_have_the_same_bytes() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<[u8]> = JoinableQueue::new(10)?;
    queue.put_bytes(b"one")?;
    queue.try_put_bytes(b"")?;
    queue.put_bytes_timeout(b"three", Duration::from_secs(9))?;
    let mut job: Job<'_, Vec<u8>, [u8]> = queue.get_bytes()?;
    job.push(b'!');
    assert_eq!((&job[..], job.attempts(), job.last_holder().is_none()), (&b"one!"[..], 1, true));
    job.retry();
    let job = queue.try_get_bytes()?;
    let holder = job.last_holder().unwrap();
    assert_eq!((&job[..], job.attempts(), holder.pid()), (&b"one"[..], 2, Some(std::process::id())));
    assert!(!holder.died());
    assert_eq!(job.into_inner(), b"one");
    assert_eq!(queue.get_bytes_timeout(Duration::from_secs(9))?.into_inner(), b"");
    // One dies with a thread that ends, the other with a thread that panics.
    thread::scope(|scope| scope.spawn(|| std::mem::forget(queue.get_bytes().unwrap())).join().unwrap());
    let worked = panic::catch_unwind(AssertUnwindSafe(|| {
        let job = queue.get_bytes().unwrap();
        assert_eq!((job.attempts(), job.last_holder().unwrap().died()), (2, true));
        panic!("on purpose");
    }));
    assert!(worked.is_err());
    assert_eq!((queue.leased(), queue.unfinished()), (0, 1));
    let job = queue.get_bytes()?;
    assert_eq!((&job[..], job.attempts()), (&b"three"[..], 3));
    job.done();
    queue.join()?;
    assert!(matches!(queue.try_get_bytes(), Err(GetError::Empty)));
    assert!(matches!(queue.get_bytes_timeout(Duration::from_millis(5)), Err(GetError::Empty)));
    Ok(())
}

#[test]
fn refused_bytes_are_an_error() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<[u8]> = JoinableQueue::new(JobLimits::from(1).longest_job(5000))?;
    assert_eq!(queue.longest_job(), 8192);
    queue.put_bytes(&pattern(1, 8192))?;
    assert!(matches!(queue.try_put_bytes(b"x"), Err(PutError::Full(()))));
    let begin = Instant::now();
    assert!(matches!(queue.put_bytes_timeout(b"x", Duration::from_millis(20)), Err(PutError::Full(()))));
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert_eq!(queue.get_bytes()?.into_inner(), pattern(1, 8192));
    assert!(matches!(
        queue.put_bytes(&[0; 8193]),
        Err(PutError::TooLarge { length: 8193, longest: 8192, .. })
    ));
    queue.close();
    assert!(matches!(queue.put_bytes(b"x"), Err(PutError::Closed(()))));
    assert!(matches!(queue.get_bytes(), Err(GetError::Closed)));
    assert!(matches!(queue.try_get_bytes(), Err(GetError::Closed)));
    assert!(queue.iter_bytes().next().is_none());
    Ok(())
}

#[test]
fn queue_of_bytes_cannot_be_opened_as_one_of_values() -> Outcome {
    let name = unique("bytes");
    let queue = JoinableQueue::<[u8]>::create(&name, 10)?;
    queue.put_bytes(b"by name")?;
    assert!(JoinableQueue::<Vec<u8>>::open(&name).is_err() && Queue::<[u8]>::open(&name).is_err());
    assert_eq!(JoinableQueue::<[u8]>::open(&name)?.get_bytes()?.into_inner(), b"by name");
    Ok(())
}

#[test]
fn dead_letters_of_bytes() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<[u8]> = JoinableQueue::new(JobLimits::from(10).max_deliveries(2))?;
    for job in [&b"poison"[..], b"arsenic"] {
        queue.put_bytes(job)?;
        (0..2).try_for_each(|_| queue.get_bytes().map(Job::retry))?;
    }
    assert!(matches!(queue.try_get_bytes(), Err(GetError::Empty)));
    let letters = queue.dead_letters().list()?;
    let seen: Vec<_> = letters.iter().map(|letter| (letter.bytes(), letter.attempts())).collect();
    assert_eq!(seen, [(&b"poison"[..], 2), (b"arsenic", 2)]);
    assert_eq!(queue.dead_letters().take()?.unwrap().bytes(), b"poison");
    assert_eq!(queue.dead_letters().replay()?, 1);
    let job = queue.get_bytes()?;
    assert_eq!((&job[..], job.attempts()), (&b"arsenic"[..], 1));
    job.done();
    queue.join()?;
    assert_eq!(queue.counters().dead_lettered, 2);
    Ok(())
}

#[test]
fn plain_values() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<Plain<[u16; 3]>> = JoinableQueue::new(JobLimits::from(3).max_deliveries(1))?;
    queue.put_plain(&[1, 2, 3])?;
    queue.try_put_plain(&[4, 5, 6])?;
    queue.put_plain_timeout(&[7, 8, 9], Duration::from_secs(9))?;
    assert!(matches!(queue.try_put_plain(&[0; 3]), Err(PutError::Full(()))));
    let first = queue.get_plain()?;
    assert_eq!((*first, queue.try_get_plain()?.into_inner()), ([1, 2, 3], [4, 5, 6]));
    assert_eq!(queue.get_plain_timeout(Duration::from_secs(9))?.into_inner(), [7, 8, 9]);
    drop(first);
    assert!(matches!(queue.try_get_plain(), Err(GetError::Empty)));
    assert_eq!(queue.dead_letters().list()?[0].plain()?, [1, 2, 3]);
    queue.close();
    queue.dead_letters().replay()?;
    let all: Result<Vec<_>, _> = queue.iter_plain().map(|job| job.map(Job::into_inner)).collect();
    assert_eq!(all?, [[1, 2, 3]]);
    Ok(())
}

#[test]
fn take_try_take_and_take_timeout() -> Outcome {
    let _watchdog = watchdog();
    let queue = JoinableQueue::new(10)?;
    assert!(matches!(queue.try_take(), Err(GetError::Empty)));
    let begin = Instant::now();
    assert!(matches!(queue.take_timeout(Duration::from_millis(20)), Err(GetError::Empty)));
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert_eq!(queue.task_done(), Err(NothingTaken));
    (1..=3).try_for_each(|number: u32| queue.put(number))?;
    assert_eq!((queue.try_take()?, queue.take_timeout(Duration::from_secs(9))?, queue.take()?), (1, 2, 3));
    assert_eq!((queue.leased(), queue.unfinished()), (3, 3));
    (0..3).try_for_each(|_| queue.task_done())?;
    assert_eq!(queue.task_done(), Err(NothingTaken));
    queue.join()?;
    let other = queue.clone();
    let waiter = Sleeper::start(move || {
        let taken = other.take_timeout(Duration::from_secs(60));
        other.task_done().unwrap();
        taken
    });
    queue.put(4)?;
    assert_eq!(waiter.join()?, 4);
    assert_eq!(queue.unfinished(), 0);
    queue.close();
    assert!(matches!(queue.try_take(), Err(GetError::Closed)));
    Ok(())
}

#[test]
fn counters_of_one_thread() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<[u8]> = JoinableQueue::new(JobLimits::from(10).max_deliveries(3))?;
    assert_eq!(queue.counters(), Default::default());
    queue.put_bytes(b"five!")?;
    queue.put_bytes(b"ten bytes!")?;
    for again in 0..3 {
        queue.get_bytes()?.retry();
        let counters = queue.counters();
        assert_eq!((counters.gets, counters.redelivered, counters.dead_lettered), (1, again, 0));
    }
    // The first is a dead letter, the second new.
    queue.get_bytes()?.done();
    let counters = queue.counters();
    assert_eq!((counters.puts, counters.gets, counters.bytes), (2, 2, 15));
    assert_eq!((counters.redelivered, counters.dead_lettered, counters.deaths), (2, 1, 0));
    // The first lease of a replayed dead letter counts neither as a get nor as a redelivery.
    queue.dead_letters().replay()?;
    queue.get_bytes()?.retry();
    assert_eq!(queue.counters(), counters);
    queue.get_bytes()?.done();
    assert_eq!(queue.counters().redelivered, 3);
    assert!(matches!(queue.get_bytes_timeout(Duration::from_millis(20)), Err(GetError::Empty)));
    let counters = queue.counters();
    assert!(counters.get_sleeps >= 1 && counters.put_sleeps == 0, "{counters:?}");
    let full: JoinableQueue<[u8]> = JoinableQueue::new(1)?;
    full.put_bytes(b"")?;
    assert!(full.put_bytes_timeout(b"", Duration::from_millis(20)).is_err());
    assert!(full.counters().put_sleeps >= 1 && full.counters().get_sleeps == 0);
    Ok(())
}

/// A consumer that finds a job but no free lease sleeps, is counted, and goes on with the first lease that is
/// free.
#[test]
fn consumer_that_waits_for_a_lease_is_counted() -> Outcome {
    let _watchdog = watchdog();
    let queue: JoinableQueue<[u8]> = JoinableQueue::new(Capacity::unbounded())?;
    (0..=MAX_LEASES).try_for_each(|_| queue.put_bytes(b"job"))?;
    let jobs: Vec<_> = (0..MAX_LEASES).map(|_| queue.get_bytes()).collect::<Result<_, _>>()?;
    assert_eq!(queue.counters().get_sleeps, 0);
    let other = queue.clone();
    let waiter = Sleeper::start(move || other.get_bytes().map(Job::into_inner));
    while queue.counters().get_sleeps == 0 {
        thread::yield_now();
    }
    jobs.into_iter().for_each(Job::done);
    assert_eq!(waiter.join()?, b"job");
    assert_eq!(queue.counters().gets, MAX_LEASES as u64 + 1);
    Ok(())
}

/// The counters are the sums of what each thread has seen, whichever of them gives jobs back, dies with them
/// or lets them become dead letters.
#[test]
fn counters_add_up_among_many_threads() -> Outcome {
    let _watchdog = watchdog();
    const JOBS: u32 = 3000;
    for deliveries in [None, Some(2)] {
        let limits = JobLimits::from(50);
        let limits = deliveries.map_or(limits.unlimited_deliveries(), |most| limits.max_deliveries(most));
        let queue: &JoinableQueue<[u8]> = &JoinableQueue::new(limits)?;
        let (first, again, done) = (&AtomicUsize::new(0), &AtomicUsize::new(0), &AtomicUsize::new(0));
        let bytes = AtomicU64::new(0);
        let seen = |job: &Job<'_, Vec<u8>, [u8]>| {
            assert_eq!(&job[4..], pattern(u64::from(number_of(job)), job.len() - 4));
            let which = if job.attempts() == 1 { first } else { again };
            which.fetch_add(1, SeqCst);
        };
        thread::scope(|scope| {
            for seed in 0..3 {
                scope.spawn(move || {
                    let mut random = Random(seed);
                    for job in queue.iter_bytes() {
                        let job = job.unwrap();
                        seen(&job);
                        if random.below(3) == 0 {
                            job.retry();
                        } else {
                            job.done();
                            done.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
            let mortals = scope.spawn(|| {
                for _ in 0..50 {
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            if let Ok(job) = queue.try_get_bytes() {
                                seen(&job);
                                std::mem::forget(job);
                            }
                        });
                    });
                }
            });
            let mut random = Random(9);
            for number in 0..JOBS {
                let mut job = number.to_ne_bytes().to_vec();
                job.extend(pattern(u64::from(number), random.below(300)));
                bytes.fetch_add(job.len() as u64, SeqCst);
                queue.put_bytes(&job).unwrap();
            }
            mortals.join().unwrap();
            queue.join().unwrap();
            queue.close();
        });
        let counters = queue.counters();
        let count = |of: &AtomicUsize| of.load(SeqCst) as u64;
        assert_eq!(
            (counters.puts, counters.gets, counters.bytes),
            (u64::from(JOBS), count(first), bytes.load(SeqCst))
        );
        assert_eq!((counters.gets, counters.redelivered), (u64::from(JOBS), count(again)));
        assert_eq!((counters.dead_lettered, counters.deaths), (u64::from(JOBS) - count(done), 0));
        assert_eq!(counters.dead_lettered, queue.dead_letters().len() as u64);
        assert_eq!(counters.dead_lettered == 0, deliveries.is_none());
    }
    Ok(())
}

fn number_of(job: &[u8]) -> u32 {
    u32::from_ne_bytes(job[..4].try_into().unwrap())
}
