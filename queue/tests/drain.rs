//! `drain`: takes everything that is in the queue, once and in order, while others put and get.
#![allow(clippy::unwrap_used, reason = "a test")]

mod kit;

use std::thread;

use multiproc_queue::{Capacity, GetError, Messages, Queue};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use kit::{Outcome, pattern, watchdog};

#[test]
fn drain_of_an_empty_queue_is_empty() -> Outcome {
    let queue = Queue::<u32>::new(3)?;
    assert_eq!(queue.drain()?, []);
    queue.put(1)?;
    queue.close();
    // What was put before the close is still there. Then the queue is empty, which is no error here.
    assert_eq!(queue.drain()?, [Ok(1)]);
    assert_eq!(queue.drain()?, []);
    assert_eq!(queue.get(), Err(GetError::Closed));
    Ok(())
}

#[test]
fn drain_takes_all_in_order() -> Outcome {
    let _watchdog = watchdog();
    // More messages than one lock takes at a time.
    let queue = Queue::unbounded()?;
    let numbers: Vec<u32> = (0..100_000).collect();
    queue.put_many(numbers.clone())?;
    assert_eq!(queue.drain()?.into_iter().collect::<Result<Vec<_>, _>>()?, numbers);
    assert!(queue.is_empty());
    Ok(())
}

#[test]
fn drain_takes_messages_of_any_length() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::unbounded()?;
    let lengths = [0, 1, 70_000, 8, 300_000, 0, 5];
    for (number, length) in lengths.into_iter().enumerate() {
        queue.put_bytes(&pattern(number as u64, length))?;
    }
    let mut messages = Messages::new();
    messages.push(b"before");
    queue.drain_into(&mut messages)?;
    let expected = lengths.into_iter().enumerate().map(|(number, length)| pattern(number as u64, length));
    assert!(messages.iter().skip(1).map(<[u8]>::to_vec).eq(expected));
    assert_eq!(messages.get(0), Some(&b"before"[..]));
    queue.drain_into(&mut messages)?;
    assert_eq!(messages.len(), 1 + lengths.len());
    Ok(())
}

/// A value that can always be encoded, and decoded if it is even.
#[derive(Debug, PartialEq, Serialize)]
struct Even(u8);

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        if number % 2 == 0 { Ok(Self(number)) } else { Err(D::Error::custom("odd")) }
    }
}

#[test]
fn undecodable_message_is_an_error_among_the_results() -> Outcome {
    let queue = Queue::new(3)?;
    queue.put_many([2, 3, 4].map(Even))?;
    let all = queue.drain()?;
    assert_eq!((&all[0], &all[2], all.len()), (&Ok(Even(2)), &Ok(Even(4)), 3));
    assert!(matches!(&all[1], Err(GetError::Decode { bytes, .. }) if bytes == &[3]), "{:?}", all[1]);
    Ok(())
}

#[test]
fn drain_makes_room() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::new(4)?;
    queue.put_many(0..4)?;
    let producers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            kit::Sleeper::start(move || queue.put(4).unwrap())
        })
        .collect();
    let mut count = queue.drain()?.len();
    assert!(count >= 4);
    producers.into_iter().for_each(kit::Sleeper::join);
    count += queue.drain()?.len();
    assert_eq!(count, 7);
    Ok(())
}

#[test]
fn concurrent_puts_and_drains_lose_nothing() -> Outcome {
    const EACH: u32 = 20_000;
    let _watchdog = watchdog();
    for capacity in [Capacity::messages(3), Capacity::messages(500).bytes(4096), Capacity::unbounded()] {
        let queue = Queue::<(u32, u32)>::new(capacity)?;
        let seen = thread::scope(|scope| {
            let producers = [0, 1].map(|producer| {
                let queue = &queue;
                scope.spawn(move || (0..EACH).for_each(|number| queue.put((producer, number)).unwrap()))
            });
            let takers = [(); 2].map(|()| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    let mut take = || match queue.drain() {
                        Ok(some) => seen.extend(some.into_iter().map(Result::unwrap)),
                        Err(error) => assert_eq!(error, GetError::Busy),
                    };
                    while !queue.is_closed() {
                        take();
                    }
                    take();
                    seen
                })
            });
            producers.into_iter().for_each(|producer| producer.join().unwrap());
            queue.close();
            takers.map(|taker| taker.join().unwrap())
        });
        for of_one in &seen {
            for producer in [0, 1] {
                assert!(of_one.iter().filter(|(by, _)| *by == producer).is_sorted(), "out of order");
            }
        }
        let mut all = seen.concat();
        // One of the last drains may have been refused while another consumer held the lock.
        all.extend(queue.drain()?.into_iter().map(Result::unwrap));
        all.sort_unstable();
        assert!(
            all.into_iter()
                .eq([0, 1].into_iter().flat_map(|producer| (0..EACH).map(move |number| (producer, number))))
        );
    }
    Ok(())
}
