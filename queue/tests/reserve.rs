//! Reserved messages, and messages that are read in place: order, capacity, aborted records, and which thread
//! waits for which.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod kit;

use std::collections::VecDeque;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use kit::{Outcome, Random, Sleeper, pattern, watchdog};
use multiproc_queue::{Capacity, GetError, MAX_RESERVED, Messages, PutError, Queue, Reserved};
use multiproc_shm::Options;

const SHORT: Duration = Duration::from_millis(20);

fn fill(mut place: Reserved<'_>, bytes: &[u8]) {
    place.write_at(0, bytes);
    place.commit().unwrap();
}

/// A queue in memory that cannot grow, so that records lie in two pieces.
fn fixed(bytes: usize) -> (PathBuf, Queue<[u8]>) {
    let path = Path::new("/dev/shm").join(kit::unique("reserve"));
    let queue = Options::new().create_file(&path, Capacity::unbounded().bytes(bytes)).unwrap();
    (path, queue)
}

#[test]
fn messages_keep_the_order_of_the_reservations() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(10)?;
    let first = queue.reserve(5)?;
    let second = queue.reserve(6)?;
    queue.put_bytes(b"third")?;
    fill(second, b"second");
    assert_eq!((queue.try_get_bytes(), queue.is_empty(), queue.len()), (Err(GetError::Empty), true, 3));
    fill(first, b"first");
    let got: Vec<_> = std::iter::from_fn(|| queue.try_get_bytes().ok()).collect();
    assert_eq!(got, [&b"first"[..], b"second", b"third"]);
    assert_eq!((queue.is_empty(), queue.len()), (true, 0));
    let counters = queue.counters();
    assert_eq!((counters.puts, counters.gets, counters.bytes), (3, 3, 16));
    Ok(())
}

#[test]
fn aborted_reservation_is_skipped() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(10)?;
    drop(queue.reserve(100)?);
    assert_eq!(queue.try_get_bytes(), Err(GetError::Empty));
    assert_eq!((queue.is_empty(), queue.len()), (true, 0), "passed over");
    for get in 0..4 {
        let first = queue.reserve(1)?;
        queue.put_bytes(b"a")?;
        let second = queue.reserve(0)?;
        queue.put_bytes(b"b")?;
        drop(second);
        drop(first);
        // Other reservations have the locks by now.
        let later = [queue.reserve(1)?, queue.reserve(1)?];
        let mut messages = Messages::new();
        for expected in [b"a", b"b"] {
            let message = match get {
                0 => queue.get_bytes()?,
                1 => queue.get_with(|message| message.to_vec())?,
                2 => {
                    let mut message = Vec::with_capacity(9);
                    queue.get_into(&mut message)?;
                    message
                }
                _ => {
                    messages.clear();
                    queue.get_many_into(&mut messages, 9)?;
                    assert_eq!(messages.len(), 1);
                    messages.get(0).unwrap().to_vec()
                }
            };
            assert_eq!(message, expected);
        }
        assert_eq!((queue.try_get_bytes(), queue.len()), (Err(GetError::Empty), 2));
        drop(later);
        assert_eq!((queue.try_get_bytes(), queue.len()), (Err(GetError::Empty), 0));
    }
    Ok(())
}

#[test]
fn reservation_counts_against_the_capacity() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(Capacity::messages(2).bytes(4096))?;
    let first = queue.reserve(10)?;
    let second = queue.try_reserve(4000)?;
    assert!(queue.is_full());
    assert_eq!(queue.try_put_bytes(b"x"), Err(PutError::Full(())));
    assert_eq!(queue.reserve_timeout(1, SHORT).err(), Some(PutError::Full(())));
    drop(first);
    // An aborted record takes up room until a get has skipped it.
    assert_eq!(queue.try_put_bytes(b"x"), Err(PutError::Full(())));
    assert_eq!(queue.try_get_bytes(), Err(GetError::Empty));
    assert_eq!(queue.try_reserve(1000).err(), Some(PutError::Full(())), "bytes");
    queue.put_bytes(b"x")?;
    fill(second, &[9; 4000]);
    assert_eq!((queue.get_bytes()?, queue.get_bytes()?), (vec![9; 4000], b"x".to_vec()));
    let longest = queue.longest_message();
    assert!(matches!(queue.reserve(longest + 1), Err(PutError::TooLarge { .. })));
    assert!(matches!(queue.reserve(usize::MAX), Err(PutError::TooLarge { .. })));
    Ok(())
}

#[test]
fn every_way_to_write_and_to_read_in_place() -> Outcome {
    let _watchdog = watchdog();
    let (path, small) = fixed(4096);
    let grows: Queue<[u8]> = Queue::new(100)?;
    let mut random = Random(7);
    for round in 0..3000_usize {
        for queue in [&small, &grows] {
            let bytes = pattern(round as u64, random.below(if round % 50 == 0 { 4000 } else { 300 }));
            // Between bytes of older messages.
            let mut place = queue.reserve(bytes.len())?;
            assert_eq!((place.len(), place.is_empty()), (bytes.len(), bytes.is_empty()));
            match round % 3 {
                0 => {
                    let cut = random.below(bytes.len() + 1);
                    place.write_at(cut, &bytes[cut..]);
                    place.write_at(0, &bytes[..cut]);
                }
                1 => {
                    let cut = random.below(bytes.len() + 1);
                    place.write_all(&bytes[..cut])?;
                    place.write_all(&bytes[cut..])?;
                    assert_eq!(place.write(b"more")?, 0);
                }
                _ => {
                    // SAFETY: no process misbehaves here.
                    let [first, second] = unsafe { place.as_mut_slices() };
                    first.copy_from_slice(&bytes[..first.len()]);
                    second.copy_from_slice(&bytes[first.len()..]);
                }
            }
            place.commit()?;
            let read = queue.get_with(|message| {
                assert_eq!(message.len(), bytes.len());
                match round % 4 {
                    0 => message.to_vec(),
                    1 => {
                        let mut out = vec![0; bytes.len()];
                        let cut = random.below(bytes.len() + 1);
                        message.read_at(cut, &mut out[cut..]);
                        message.read_at(0, &mut out[..cut]);
                        out
                    }
                    // SAFETY: no process misbehaves here.
                    _ => unsafe { message.as_slices() }.concat(),
                }
            })?;
            assert!(read == bytes, "round {round}");
        }
    }
    drop(small);
    std::fs::remove_file(path)?;
    Ok(())
}

#[test]
fn jumps_growth_and_aborted_records_match_a_model() -> Outcome {
    let _watchdog = watchdog();
    let (path, small) = fixed(8192);
    let bounded: Queue<[u8]> = Queue::new(Capacity::messages(20).bytes(8192))?;
    let free: Queue<[u8]> = Queue::unbounded()?;
    for (seed, queue) in (0..).zip([&small, &bounded, &free]) {
        let mut random = Random(seed);
        /// What is in the log: a message, or the number of a reservation.
        enum Entry {
            Message(Vec<u8>),
            Open(u64),
            Hole,
        }
        let mut model: VecDeque<Entry> = VecDeque::new();
        let mut open: Vec<(u64, Reserved<'_>)> = Vec::new();
        for number in 0..20_000_u64 {
            let length = if random.below(40) == 0 { random.below(5000) } else { random.below(200) };
            match random.below(8) {
                0 | 1 => {
                    let bytes = pattern(number, length);
                    if queue.try_put_bytes(&bytes).is_ok() {
                        model.push_back(Entry::Message(bytes));
                    }
                }
                2 | 3 => match queue.try_reserve(length) {
                    Ok(place) => {
                        model.push_back(Entry::Open(number));
                        open.push((number, place));
                    }
                    Err(PutError::Busy(())) => assert_eq!(open.len(), MAX_RESERVED),
                    Err(error) => assert!(error.is_full(), "{error}"),
                },
                4 | 5 if !open.is_empty() => {
                    let (number, place) = open.swap_remove(random.below(open.len()));
                    let entry = model
                        .iter_mut()
                        .find(|entry| matches!(entry, Entry::Open(open) if *open == number))
                        .unwrap();
                    if random.below(4) == 0 {
                        *entry = Entry::Hole;
                    } else {
                        let bytes = pattern(number, place.len());
                        fill(place, &bytes);
                        *entry = Entry::Message(bytes);
                    }
                }
                _ => {
                    let got = queue.try_get_with(|message| message.to_vec());
                    while matches!(model.front(), Some(Entry::Hole)) {
                        model.pop_front();
                    }
                    match model.front() {
                        Some(Entry::Message(bytes)) => {
                            assert!(got.as_ref() == Ok(bytes), "{number}");
                            model.pop_front();
                        }
                        _ => assert_eq!(got, Err(GetError::Empty)),
                    }
                }
            }
            assert_eq!(queue.len(), model.len());
        }
    }
    drop(small);
    std::fs::remove_file(path)?;
    Ok(())
}

#[test]
fn panicking_reader_leaves_the_message() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(10)?;
    queue.put_bytes(b"here")?;
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| queue.get_with(|_| panic!("on purpose"))));
    assert!(panicked.is_err());
    let nested = queue.get_with(|message| {
        assert!(matches!(queue.try_get_bytes(), Err(GetError::Broken { .. })), "this thread has the lock");
        queue.put_bytes(b"and another").unwrap();
        message.to_vec()
    })?;
    assert_eq!((nested, queue.get_bytes()?), (b"here".to_vec(), b"and another".to_vec()));
    assert_eq!(queue.try_get_with(|_| ()), Err(GetError::Empty));
    assert_eq!(queue.get_with_timeout(SHORT, |_| ()), Err(GetError::Empty));
    let outside = panic::catch_unwind(AssertUnwindSafe(|| queue.reserve(3).unwrap().write_at(1, b"abc")));
    assert!(outside.is_err());
    assert_eq!(queue.try_get_bytes(), Err(GetError::Empty), "given up");
    Ok(())
}

#[test]
fn closed_queue_waits_for_its_reservations() -> Outcome {
    let _watchdog = watchdog();
    for commit in [true, false] {
        let queue: Queue<[u8]> = Queue::new(10)?;
        let place = queue.reserve(1)?;
        let same = queue.clone();
        let sleepers: Vec<_> = (0..3)
            .map(|_| {
                let queue = same.clone();
                Sleeper::start(move || queue.get_bytes())
            })
            .collect();
        queue.close();
        assert_eq!(queue.reserve(1).err(), Some(PutError::Closed(())));
        assert_eq!(queue.get_bytes_timeout(SHORT), Err(GetError::Empty), "something may still come");
        if commit {
            fill(place, b"x");
        } else {
            drop(place);
        }
        let got: Vec<_> = sleepers.into_iter().map(Sleeper::join).collect();
        let closed = got.iter().filter(|got| **got == Err(GetError::Closed)).count();
        assert_eq!(closed, if commit { 2 } else { 3 }, "{got:?}");
        assert_eq!(queue.try_get_bytes(), Err(GetError::Closed));
    }
    Ok(())
}

#[test]
fn commit_and_abort_wake_waiting_consumers() -> Outcome {
    let _watchdog = watchdog();
    for commit in [true, false] {
        let queue: Queue<[u8]> = Queue::new(10)?;
        let start = |n: usize| {
            let queue = queue.clone();
            (0..n)
                .map(|_| {
                    Sleeper::start({
                        let queue = queue.clone();
                        move || queue.get_bytes()
                    })
                })
                .collect::<Vec<_>>()
        };
        // Before the first reservation there is nothing to watch.
        let mut sleepers = start(2);
        let place = queue.reserve(1)?;
        sleepers.extend(start(1));
        queue.put_bytes(b"b")?;
        queue.put_bytes(b"c")?;
        if commit {
            fill(place, b"a");
        } else {
            drop(place);
            queue.put_bytes(b"d")?;
        }
        let mut got: Vec<_> = sleepers.into_iter().map(|sleeper| sleeper.join().unwrap()).collect();
        got.sort();
        assert_eq!(got.concat(), if commit { b"abc" } else { b"bcd" });
    }
    Ok(())
}

#[test]
fn waits_for_room_and_for_a_reservation_do_not_wake_each_other() -> Outcome {
    let _watchdog = watchdog();
    const EACH: u32 = 4;
    let queue: Queue<[u8]> = Queue::new(2)?;
    let place = queue.reserve(1)?;
    queue.put_bytes(b"b")?;
    let start = |what: fn(&Queue<[u8]>) -> bool| {
        let queue = queue.clone();
        Sleeper::start(move || what(&queue))
    };
    let waiting: Vec<_> = (0..EACH)
        .flat_map(|_| {
            let reserve = |queue: &Queue<[u8]>| queue.reserve(1).and_then(Reserved::commit).is_ok();
            [
                start(|queue| queue.get_bytes().is_ok()),
                start(|queue| queue.put_bytes(b"c").is_ok()),
                start(reserve),
            ]
        })
        .collect();
    let sleeps = || queue.counters().put_sleeps + queue.counters().get_sleeps;
    let before = sleeps();
    // An attempt without progress may wake another thread, and that one the next.
    for _ in 0..10 {
        assert_eq!(queue.try_put_bytes(b"d"), Err(PutError::Full(())));
        assert_eq!(queue.try_reserve(1).err(), Some(PutError::Full(())));
        assert_eq!(queue.try_get_bytes(), Err(GetError::Empty));
    }
    thread::sleep(Duration::from_millis(300));
    let more = sleeps() - before;
    assert!(more < 1000, "{more} times to sleep again, for nothing");
    fill(place, b"a");
    for _ in 0..EACH + 2 {
        queue.get_bytes()?;
    }
    assert!(waiting.into_iter().all(Sleeper::join));
    Ok(())
}

#[test]
fn reservations_beyond_the_maximum_wait() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(100)?;
    let mut places: Vec<_> = (0..MAX_RESERVED).map(|_| queue.reserve(1).unwrap()).collect();
    assert_eq!(queue.reserve(1).err(), Some(PutError::Busy(())), "this thread has them all");
    assert_eq!(queue.try_reserve(1).err(), Some(PutError::Busy(())));
    let other = |timeout| {
        let queue = queue.clone();
        Sleeper::start(move || match timeout {
            Some(timeout) => queue.reserve_timeout(1, timeout).map(|place| fill(place, b"y")),
            None => queue.reserve(1).map(|place| fill(place, b"y")),
        })
    };
    assert_eq!(other(Some(SHORT)).join(), Err(PutError::Busy(())));
    let waiting = [other(None), other(None)];
    fill(places.swap_remove(3), b"x");
    drop(places.swap_remove(1));
    assert!(waiting.into_iter().all(|waiting| waiting.join().is_ok()));
    let more: Vec<_> = (0..2).map(|_| queue.reserve(1).unwrap()).collect();
    let closed = other(None);
    queue.close();
    assert_eq!(closed.join(), Err(PutError::Closed(())));
    drop((places, more));
    let got: Vec<_> = std::iter::from_fn(|| queue.get_bytes().ok()).flatten().collect();
    assert_eq!(got, b"xyy");
    Ok(())
}

#[test]
fn concurrent_reservations_lose_nothing() -> Outcome {
    let _watchdog = watchdog();
    const EACH: u64 = 3000;
    let (path, small) = fixed(1 << 16);
    for queue in [small, Queue::new(Capacity::messages(16).bytes(1 << 14))?, Queue::new(1)?] {
        let sum = Arc::new(AtomicU64::new(0));
        let committed = Arc::new(AtomicU32::new(0));
        let producers: Vec<_> = (0..4_u64)
            .map(|producer| {
                let (queue, committed) = (queue.clone(), Arc::clone(&committed));
                thread::spawn(move || {
                    let mut random = Random(producer);
                    for number in 0..EACH {
                        let bytes = pattern(producer << 32 | number, 16 + random.below(150));
                        let whole = [&(producer << 32 | number).to_le_bytes()[..], &bytes].concat();
                        match random.below(4) {
                            0 => queue.put_bytes(&whole).unwrap(),
                            1 => {
                                drop(queue.reserve(whole.len()).unwrap());
                                continue;
                            }
                            _ => fill(queue.reserve(whole.len()).unwrap(), &whole),
                        }
                        committed.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        let consumers: Vec<_> = (0..3)
            .map(|consumer| {
                let (queue, sum) = (queue.clone(), Arc::clone(&sum));
                thread::spawn(move || {
                    let mut last = [None; 4];
                    loop {
                        let got = if consumer == 0 {
                            queue.get_with(|message| message.to_vec())
                        } else {
                            queue.get_bytes()
                        };
                        let Ok(message) = got else { break };
                        let id = u64::from_le_bytes(message[..8].try_into().unwrap());
                        assert!(message[8..] == pattern(id, message.len() - 8), "torn");
                        let (producer, number) = ((id >> 32) as usize, id & 0xffff_ffff);
                        assert!(last[producer] < Some(number), "out of order");
                        last[producer] = Some(number);
                        sum.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|thread| thread.join().unwrap());
        queue.close();
        consumers.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(sum.load(SeqCst), u64::from(committed.load(SeqCst)));
    }
    std::fs::remove_file(path)?;
    Ok(())
}
