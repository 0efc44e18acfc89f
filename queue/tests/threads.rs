//! A queue among threads: order, exactness, time-outs that race with wake-ups, sleeping threads. (Processes:
//! the workspace's `tests/queue`.)
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "kit/history.rs"]
mod history;
mod kit;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_queue::{Capacity, GetError, PutError, Queue};

use history::{Step, What};
use kit::{Outcome, Random, Sleeper, watchdog};

/// Producer and number of a message.
type Message = (u8, u32);

#[test]
fn every_message_arrives_once_and_in_order() -> Outcome {
    let _watchdog = watchdog();
    const EACH: u32 = 30_000;
    for capacity in [1, 2, 7, 1000] {
        let each = if capacity < 5 { EACH / 10 } else { EACH };
        let queue = &Queue::<Message>::new(capacity)?;
        let got: Vec<Vec<Message>> = thread::scope(|scope| {
            let producers: Vec<_> = (0..4)
                .map(|producer| {
                    scope.spawn(move || (0..each).for_each(|number| queue.put((producer, number)).unwrap()))
                })
                .collect();
            let consumers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| queue.iter().map(Result::unwrap).collect())).collect();
            producers.into_iter().for_each(|producer| producer.join().unwrap());
            queue.close();
            consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
        });
        let mut count = HashMap::new();
        for messages in &got {
            let mut last = [None; 4];
            for (producer, number) in messages {
                assert!(last[usize::from(*producer)] < Some(*number), "order of producer {producer}");
                last[usize::from(*producer)] = Some(*number);
                *count.entry((*producer, *number)).or_insert(0) += 1;
            }
        }
        assert_eq!(count.len(), 4 * each as usize);
        assert!(count.values().all(|times| *times == 1));
    }
    Ok(())
}

#[test]
fn recorded_history_is_that_of_a_fifo() -> Outcome {
    let _watchdog = watchdog();
    const EACH: u64 = 20_000;
    for (capacity, seed) in [(1, 1), (3, 2), (100, 3), (100_000, 4)] {
        let queue = &Queue::<u64>::new(capacity)?;
        let taken = &AtomicU64::new(0);
        let epoch = Instant::now();
        let now = || u64::try_from(epoch.elapsed().as_nanos()).expect("a short test");
        let mut steps = thread::scope(|scope| {
            let producers: Vec<_> = (0..2)
                .map(|producer| {
                    scope.spawn(move || {
                        let mut random = Random(seed * 10 + producer);
                        let put = |number| {
                            let value = number * 2 + producer;
                            (0..random.below(200)).for_each(|_| std::hint::spin_loop());
                            let begun = now();
                            queue.put(value).unwrap();
                            Step { call: 0, begun, ended: now(), what: What::Put(value) }
                        };
                        (0..EACH).map(put).collect::<Vec<_>>()
                    })
                })
                .collect();
            let consumers: Vec<_> = (0..2)
                .map(|consumer| {
                    scope.spawn(move || {
                        let mut random = Random(seed * 100 + consumer);
                        let mut steps = Vec::new();
                        while taken.load(Relaxed) < 2 * EACH {
                            (0..random.below(200)).for_each(|_| std::hint::spin_loop());
                            let timeout = Duration::from_nanos(random.below(100_000) as u64);
                            let begun = now();
                            let result = if random.below(2) == 0 {
                                queue.get_timeout(timeout)
                            } else {
                                queue.try_get()
                            };
                            let what = match result {
                                Ok(value) => What::Got(vec![value]),
                                Err(GetError::Empty) => What::Empty,
                                Err(GetError::Busy) => continue,
                                Err(error) => panic!("{error}"),
                            };
                            taken.fetch_add(u64::from(what != What::Empty), Relaxed);
                            steps.push(Step { call: 0, begun, ended: now(), what });
                        }
                        steps
                    })
                })
                .collect();
            producers
                .into_iter()
                .chain(consumers)
                .flat_map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        (0..).zip(&mut steps).for_each(|(call, step)| step.call = call);
        assert_eq!(history::left(&steps), 0);
        history::check(&steps, Some(capacity))?;
    }
    Ok(())
}

#[test]
fn timeout_that_races_with_a_wake_loses_no_message() -> Outcome {
    let _watchdog = watchdog();
    const MESSAGES: usize = 100_000;
    let queue = &Queue::<usize>::new(10)?;
    let seen: usize = thread::scope(|scope| {
        let patient = scope.spawn(|| queue.iter().map(Result::unwrap).count());
        let hasty = scope.spawn(|| {
            let mut random = Random(1);
            let mut seen = 0;
            loop {
                match queue.get_timeout(Duration::from_nanos(random.below(80_000) as u64)) {
                    Ok(_) => seen += 1,
                    Err(GetError::Empty | GetError::Busy) => {}
                    Err(GetError::Closed) => return seen,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let producers: Vec<_> = (0..2)
            .map(|producer| {
                scope.spawn(move || {
                    let mut random = Random(2 + producer);
                    for number in 0..MESSAGES / 2 {
                        if random.below(20) == 0 {
                            thread::yield_now();
                        }
                        // One of the producers has short time-outs, too.
                        if producer == 0 {
                            queue.put(number).unwrap();
                            continue;
                        }
                        while let Err(error) =
                            queue.put_timeout(number, Duration::from_nanos(random.below(80_000) as u64))
                        {
                            assert!(matches!(error, PutError::Full(_) | PutError::Busy(_)), "{error}");
                        }
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        queue.close();
        patient.join().unwrap() + hasty.join().unwrap()
    });
    assert_eq!(seen, MESSAGES);
    Ok(())
}

#[test]
fn try_get_is_exact() -> Outcome {
    let _watchdog = watchdog();
    const PARTIES: u32 = 4;
    // As many tokens as threads: a thread that has none knows that one is in the queue, at every instant.
    let queue = &Queue::<u32>::new(PARTIES as usize)?;
    for token in 0..PARTIES {
        queue.put(token)?;
    }
    thread::scope(|scope| {
        for party in 0..PARTIES {
            scope.spawn(move || {
                for _ in 0..20_000 {
                    let token = loop {
                        // Some wait in get while others ask.
                        match if party == 0 { queue.get() } else { queue.try_get() } {
                            Ok(token) => break token,
                            Err(GetError::Busy) => {}
                            Err(error) => panic!("{error}, with {} in it", queue.len()),
                        }
                    };
                    assert!(!queue.is_full());
                    while let Err(error) = queue.try_put(token) {
                        assert!(matches!(error, PutError::Busy(_)), "{error}");
                    }
                    assert!(!queue.is_empty());
                }
            });
        }
    });
    assert_eq!(queue.len(), PARTIES as usize);
    Ok(())
}

#[test]
fn len_is_exact_for_an_instant() -> Outcome {
    let _watchdog = watchdog();
    // Two tokens inside and one on its way: never more than three, never fewer than two.
    let queue = &Queue::<u32>::new(3)?;
    queue.put(0)?;
    queue.put(0)?;
    thread::scope(|scope| {
        let mover = scope.spawn(|| {
            for n in 0..100_000 {
                queue.put(n).unwrap();
                queue.get().unwrap();
            }
        });
        while !mover.is_finished() {
            let len = queue.len();
            assert!((2..=3).contains(&len), "{len} messages");
            assert!(!queue.is_empty());
        }
    });
    Ok(())
}

#[test]
fn close_wakes_every_waiting_thread() -> Outcome {
    let _watchdog = watchdog();
    for _ in 0..20 {
        let empty: Queue<u8> = Queue::new(1)?;
        let full: Queue<u8> = Queue::new(1)?;
        full.put(0)?;
        let start = |queue: &Queue<u8>| queue.clone();
        let getters: Vec<_> =
            (0..4).map(|_| start(&empty)).map(|queue| Sleeper::start(move || queue.get())).collect();
        let putters: Vec<_> =
            (0..4).map(|_| start(&full)).map(|queue| Sleeper::start(move || queue.put(1))).collect();
        assert!(!getters.iter().any(Sleeper::is_done) && !putters.iter().any(Sleeper::is_done));
        let begun = Instant::now();
        empty.close();
        full.close();
        for getter in getters {
            assert_eq!(getter.join(), Err(GetError::Closed));
        }
        for putter in putters {
            assert_eq!(putter.join(), Err(PutError::Closed(1)));
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!((full.get(), full.get()), (Ok(0), Err(GetError::Closed)));
    }
    Ok(())
}

#[test]
fn close_loses_no_message() -> Outcome {
    let _watchdog = watchdog();
    for round in 0..300 {
        let queue = &Queue::<u32>::new(5)?;
        let (put, got) = thread::scope(|scope| {
            let producers: Vec<_> =
                (0..2).map(|_| scope.spawn(|| (0..).take_while(|n| queue.put(*n).is_ok()).count())).collect();
            let consumers: Vec<_> =
                (0..2).map(|_| scope.spawn(|| queue.iter().map(Result::unwrap).count())).collect();
            (0..round * 50).for_each(|_| std::hint::spin_loop());
            queue.close();
            let sum = |threads: Vec<thread::ScopedJoinHandle<'_, usize>>| {
                threads.into_iter().map(|t| t.join().unwrap()).sum::<usize>()
            };
            (sum(producers), sum(consumers))
        });
        assert_eq!(put, got);
    }
    Ok(())
}

#[test]
fn producers_of_unequal_messages_all_get_room() -> Outcome {
    let _watchdog = watchdog();
    const EACH: usize = 300;
    let queue: Queue<[u8]> = Queue::new(Capacity::messages(1000).bytes(4096))?;
    queue.put_bytes(&[0; 4000])?;
    let producers: Vec<_> = [4, 4000, 16, 2000, 4, 3000, 100, 4080]
        .into_iter()
        .map(|length| {
            let mine = queue.clone();
            Sleeper::start(move || (0..EACH).for_each(|_| mine.put_bytes(&vec![1; length]).unwrap()))
        })
        .collect();
    for _ in 0..=EACH * producers.len() {
        // At each message a producer could be left asleep: then the watchdog ends the test.
        queue.get_bytes()?;
    }
    producers.into_iter().for_each(Sleeper::join);
    assert!(queue.is_empty());
    Ok(())
}
