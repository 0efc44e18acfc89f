//! The log under a queue: every length, every position at which it wraps, and counters that start again at
//! zero.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod kit;

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;

use multiproc_queue::{Capacity, Queue};
use multiproc_shm::Namespace;

use kit::{Outcome, Random, pattern, unique, watchdog};

#[test]
fn every_length_arrives() -> Outcome {
    let queue: Queue<[u8]> = Queue::new(Capacity::messages(100).bytes(1 << 16))?;
    assert_eq!(queue.longest_message(), (4 << 30) - 16);
    let powers = (9..18).flat_map(|power| (1 << power) - 10..(1 << power) + 10);
    let mut message = Vec::new();
    // Longer than the limit, and longer than the initial capacity.
    for length in (0..=600).chain(powers).chain([1 << 20, (5 << 20) + 3]) {
        let sent = pattern(length as u64, length);
        queue.try_put_bytes(&sent)?;
        queue.get_into(&mut message)?;
        assert_eq!(message, sent, "length {length}");
        queue.try_put_bytes(&sent)?;
        assert_eq!(queue.try_get_bytes()?, sent, "length {length}");
    }
    assert!(queue.is_empty());
    Ok(())
}

#[test]
fn every_length_arrives_at_every_position() -> Outcome {
    // 512 words: each record of up to 70 words begins at each of them.
    let queue: Queue<[u8]> = Queue::new(Capacity::messages(3).bytes(4096))?;
    for words in 0..70_usize {
        for spare in [0, 1, 7] {
            let sent = pattern(words as u64, (words * 8).saturating_sub(spare));
            // 512 and an odd number have no common divisor: two rounds pass every position.
            for _ in 0..1024 {
                queue.try_put_bytes(&sent)?;
                if (words + 1).is_multiple_of(2) {
                    queue.try_put_bytes(b"")?;
                }
                assert_eq!(queue.try_get_bytes()?, sent);
                if (words + 1).is_multiple_of(2) {
                    assert_eq!(queue.try_get_bytes()?, b"");
                }
            }
        }
    }
    Ok(())
}

/// Puts random lengths through a nearly full log, and compares with a deque.
fn churn(queue: &Queue<[u8]>, messages: u64, random: &mut Random) -> Outcome {
    let mut expected = VecDeque::new();
    let mut next = 0;
    while next < messages || !expected.is_empty() {
        let wants_put = next < messages && random.below(5) < 3;
        if wants_put {
            let length = if random.below(50) == 0 { random.below(9000) } else { random.below(300) };
            let message = pattern(next, length);
            match queue.try_put_bytes(&message) {
                Ok(()) => {
                    expected.push_back(message);
                    next += 1;
                }
                Err(error) => assert!(error.is_full() && !expected.is_empty(), "{error}"),
            }
        } else if let Some(message) = expected.pop_front() {
            assert_eq!(queue.try_get_bytes()?, message);
        }
        assert_eq!(queue.len(), expected.len());
    }
    Ok(())
}

#[test]
fn random_lengths_wrap_around() -> Outcome {
    for (seed, bytes) in [(1, 4096), (2, 1 << 13), (3, 1 << 16)] {
        let queue = Queue::new(Capacity::messages(1000).bytes(bytes))?;
        churn(&queue, 100_000, &mut Random(seed))?;
    }
    Ok(())
}

/// Where the words of a queue are in its file.
const PRODUCERS: u64 = 1024;
const CONSUMERS: u64 = PRODUCERS + 128;
const BESIDE: u64 = 40;

fn place(position: u32, count: u32) -> u64 {
    u64::from(position) | u64::from(count) << 32
}

/// Makes an empty queue look as if this many messages had passed through it.
fn aged(capacity: Capacity, place: u64, announced: u32) -> Result<Queue<[u8]>, Box<dyn std::error::Error>> {
    let name = unique("aged");
    let queue = Queue::create(&name, capacity)?;
    let file = File::options().write(true).open(Namespace::current()?.path().join(&name))?;
    for side in [PRODUCERS, CONSUMERS] {
        file.write_all_at(&place.to_le_bytes(), side + BESIDE)?;
        file.write_all_at(&(u64::from(announced) << 32).to_le_bytes(), side)?;
    }
    assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (0, true, false));
    Ok(queue)
}

#[test]
fn counters_wrap_at_zero() -> Outcome {
    let starts = [
        (u32::MAX, u32::MAX),
        (u32::MAX - 5, 17),
        (17, u32::MAX - 5),
        (u32::MAX - 400_000, u32::MAX - 50_000),
        (u32::MAX / 2 - 9, u32::MAX / 2 - 9),
    ];
    for (position, count) in starts {
        let queue = aged(Capacity::messages(60).bytes(1 << 14), place(position, count), u32::MAX - 3)?;
        churn(&queue, 100_000, &mut Random(4))?;
    }
    Ok(())
}

#[test]
fn counters_wrap_at_zero_among_threads() -> Outcome {
    let _watchdog = watchdog();
    // Capacity 2: every thread sleeps all the time, so the epochs pass zero as well.
    for (capacity, messages) in [(2, 20_000_u64), (1000, 100_000)] {
        let start = place(u32::MAX - 50_000, u32::MAX - 5_000);
        let queue = &aged(Capacity::messages(capacity).bytes(1 << 13), start, u32::MAX - 300)?;
        let sum: u64 = thread::scope(|scope| {
            for producer in 0..2 {
                scope.spawn(move || {
                    for n in (producer..messages).step_by(2) {
                        queue.put_bytes(&pattern(n, 8 + (n % 90) as usize)).unwrap();
                    }
                });
            }
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(move || {
                        let take = |_| {
                            let message = queue.get_bytes().unwrap();
                            let first = u64::from_le_bytes(message[..8].try_into().unwrap());
                            assert!(message.len() >= 8);
                            first & 0xffff
                        };
                        (0..messages / 2).map(take).sum::<u64>()
                    })
                })
                .collect();
            consumers.into_iter().map(|consumer| consumer.join().unwrap()).sum()
        });
        let expected = (0..messages).map(|n| Random(n).next() & 0xffff).sum();
        assert_eq!(sum, expected);
        assert!(queue.is_empty());
    }
    Ok(())
}
