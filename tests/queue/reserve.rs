//! Reservations that processes fill, and messages that they read in place: killed and stopped in the middle
//! of it.

use std::time::Duration;

use multiproc::{AtomicValue, Capacity, GetError, Queue};

use crate::common::{Dice, Outcome, kill, spawn, stop, value, wait_for};
use crate::kit::{go_on, message, read, wait_until_blocked, watchdog};

const BRIEFLY: Duration = Duration::from_millis(30);

/// Reserves, writes the first half, and waits to be killed or released; then it writes the second half and
/// commits.
fn fill_half((queue, step): (Queue<[u8]>, AtomicValue<u32>)) {
    let mut reserved = queue.reserve(100_000).unwrap();
    reserved.write_at(0, &[1; 50_000]);
    step.store(1);
    wait_for(&step, 2);
    reserved.write_at(50_000, &[1; 50_000]);
    reserved.commit().unwrap();
}

fn get((queue, step): (Queue<[u8]>, AtomicValue<u32>)) -> Vec<u8> {
    step.store(1);
    queue.get_bytes().unwrap()
}

#[test]
fn reservation_of_a_killed_process_is_skipped() -> Outcome {
    let _watchdog = watchdog();
    for _ in 0..20 {
        let (queue, step) = (Queue::new(10)?, AtomicValue::new(0)?);
        let child = spawn(fill_half, (queue.clone(), step.clone()));
        wait_for(&step, 1);
        let waits = AtomicValue::new(0)?;
        let consumer = spawn(get, (queue.clone(), waits.clone()));
        wait_until_blocked(consumer.pid(), &waits, 1);
        queue.put_bytes(b"behind")?;
        assert!(queue.is_empty());
        kill(&child);
        assert_eq!(value(&consumer), b"behind");
        assert_eq!((queue.try_get_bytes(), queue.len()), (Err(GetError::Empty), 0));
    }
    Ok(())
}

#[test]
fn reservation_of_a_stopped_process_is_kept() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step): (Queue<[u8]>, _) = (Queue::new(10)?, AtomicValue::new(0)?);
    let child = spawn(fill_half, (queue.clone(), step.clone()));
    wait_for(&step, 1);
    stop(child.pid());
    queue.put_bytes(b"behind")?;
    // Longer than a second, the interval of a sleeping consumer's liveness poll; and more calls than the
    // interval of a polling consumer's.
    assert_eq!(queue.get_bytes_timeout(Duration::from_millis(1500)), Err(GetError::Empty));
    (0..200).for_each(|_| assert_eq!(queue.try_get_bytes(), Err(GetError::Empty)));
    assert_eq!(queue.get_with_timeout(BRIEFLY, |_| ()), Err(GetError::Empty));
    step.store(2);
    go_on(child.pid());
    assert_eq!((queue.get_bytes()?, queue.get_bytes()?), (vec![1; 100_000], b"behind".to_vec()));
    Ok(())
}

#[test]
fn killed_process_frees_its_reservations_for_a_waiting_one() -> Outcome {
    let _watchdog = watchdog();
    fn reserve((queue, count, step): (Queue<[u8]>, u32, AtomicValue<u32>)) {
        step.store(1);
        let reserved: Vec<_> = (0..count).map(|_| queue.reserve(1).unwrap()).collect();
        step.store(2);
        wait_for(&step, 3);
        drop(reserved);
    }
    let queue: Queue<[u8]> = Queue::new(20)?;
    let [all, more] = [AtomicValue::new(0)?, AtomicValue::new(0)?];
    let child = spawn(reserve, (queue.clone(), 8, all.clone()));
    wait_for(&all, 2);
    let waiting = spawn(reserve, (queue.clone(), 1, more.clone()));
    wait_until_blocked(waiting.pid(), &more, 1);
    kill(&child);
    wait_for(&more, 2);
    more.store(3);
    value(&waiting);
    assert_eq!((queue.try_get_bytes(), queue.len()), (Err(GetError::Empty), 0));
    Ok(())
}

#[test]
fn message_of_a_reader_killed_in_place_stays() -> Outcome {
    let _watchdog = watchdog();
    fn look((queue, step): (Queue<[u8]>, AtomicValue<u32>)) {
        let _ = queue.get_with(|message| {
            step.store(u32::try_from(message.len()).unwrap());
            wait_for(&step, u32::MAX);
        });
    }
    let (queue, step): (Queue<[u8]>, _) = (Queue::new(10)?, AtomicValue::new(0)?);
    queue.put_bytes(&[5; 70_000])?;
    let child = spawn(look, (queue.clone(), step.clone()));
    wait_for(&step, 70_000);
    assert_eq!(queue.try_get_bytes(), Err(GetError::Busy));
    assert_eq!(queue.get_bytes_timeout(BRIEFLY), Err(GetError::Busy));
    queue.put_bytes(b"meanwhile")?;
    kill(&child);
    assert_eq!((queue.get_bytes()?, queue.get_bytes()?), (vec![5; 70_000], b"meanwhile".to_vec()));
    Ok(())
}

/// Puts messages for ever: most of them by a reservation, some after an abandoned reservation, some by
/// `put_bytes` alone.
fn reserve_for_ever((queue, producer, noted): (Queue<[u8]>, u32, AtomicValue<u32>)) {
    let mut dice = Dice::new(u64::from(producer));
    for number in 0.. {
        let bytes = message(producer, number);
        match dice.below(5) {
            0 => queue.put_bytes(&bytes).unwrap(),
            1 => {
                drop(queue.reserve(bytes.len()).unwrap());
                queue.put_bytes(&bytes).unwrap();
            }
            _ => {
                let mut reserved = queue.reserve(bytes.len()).unwrap();
                reserved.write_at(0, &bytes);
                reserved.commit().unwrap();
            }
        }
        noted.store(number + 1);
    }
}

#[test]
fn reserving_producers_killed_at_random_lose_no_message() -> Outcome {
    let _watchdog = watchdog();
    let queue: Queue<[u8]> = Queue::new(Capacity::messages(1000).bytes(1 << 14))?;
    let mut dice = Dice::of_this_run();
    for round in 0..60 {
        // Two at a time: one is killed while the other goes on.
        let [first, second] = [0, 1].map(|n| (round * 2 + n, AtomicValue::new(0).unwrap()));
        let start = |(producer, noted): &(u32, AtomicValue<u32>)| {
            spawn(reserve_for_ever, (queue.clone(), *producer, noted.clone()))
        };
        let children = [start(&first), start(&second)];
        let mut got = [0, 0];
        let mut enter = |bytes: &[u8]| {
            let (producer, number) = read(bytes);
            let got = &mut got[(producer - round * 2) as usize];
            assert_eq!(number, *got, "producer {producer}");
            *got += 1;
        };
        let most = u32::try_from(dice.below(300))?;
        while first.1.load() < most {
            match dice.below(3) {
                0 => enter(&queue.get_bytes()?),
                1 => queue.get_with(|message| enter(&message.to_vec()))?,
                _ => {
                    let got = queue.get_bytes_timeout(Duration::from_micros(50));
                    got.map(|bytes| enter(&bytes)).unwrap_or_default();
                }
            }
        }
        kill(&children[0]);
        (0..200).try_for_each(|_| queue.get_bytes().map(|bytes| enter(&bytes)))?;
        kill(&children[1]);
        while let Ok(bytes) = queue.try_get_bytes() {
            enter(&bytes);
        }
        for (noted, got) in [(first.1.load(), got[0]), (second.1.load(), got[1])] {
            assert!(got == noted || got == noted + 1, "{noted} were put, {got} arrived");
        }
        assert_eq!(queue.len(), 0);
    }
    Ok(())
}
