//! A process writes random bytes over the whole object while others use it. Those may get errors and wrong
//! messages. They do not crash, hang past their time-outs, or ask for absurd amounts of memory.

use std::fs;
use std::time::{Duration, Instant};

use multiproc::{AtomicValue, Capacity, GetError, PutError, Queue};

use crate::common::{Dice, Outcome, spawn, unique, value};
use crate::kit::{RawQueue, watchdog};

const TIMEOUT: Duration = Duration::from_millis(50);
/// The longest that a call with that time-out may take, in milliseconds. About 60 ms is usual; 2,600 ms were
/// seen once, on two crowded CPUs.
pub(crate) const LONGEST: u64 = 5000;

/// Works until `done` is set; returns the duration of the longest call in milliseconds, and the kind of that
/// call.
fn use_it(
    (queue, number, calls, done): (Queue<[u8]>, u32, AtomicValue<u32>, AtomicValue<u32>),
) -> (u64, u64) {
    let mut dice = Dice::new(u64::from(number));
    let mut longest = (0, 0);
    while done.load() == 0 {
        let begun = Instant::now();
        let kind = dice.below(8);
        match (number % 2, kind) {
            (0, 0) => ignore_put(queue.try_put_bytes(&[1; 500])),
            (0, length) => {
                let message = vec![7; 300 * usize::try_from(length).unwrap()];
                ignore_put(queue.put_bytes_timeout(&message, TIMEOUT));
            }
            (_, 0) => ignore_get(queue.try_get_bytes()),
            (_, 1) => assert!(queue.len() <= queue.capacity().unwrap()),
            (_, 2) => drop(format!("{queue:?} {} {}", queue.is_empty(), queue.is_full())),
            _ => ignore_get(queue.get_bytes_timeout(TIMEOUT)),
        }
        longest = longest.max((u64::try_from(begun.elapsed().as_millis()).unwrap(), kind));
        calls.fetch_add(1);
    }
    longest
}

fn ignore_put(result: Result<(), PutError<()>>) {
    if let Err(error) = result {
        assert!(!error.to_string().is_empty());
    }
}

fn ignore_get(result: Result<Vec<u8>, GetError>) {
    match result {
        Ok(bytes) => assert!(bytes.len() <= 1 << 20),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Returns the most memory that a process ever had, in KiB.
pub(crate) fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let number = |line: &str| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok();
    status.lines().find_map(number).unwrap_or(0)
}

/// Lets two producers and two consumers work while `scribble` writes into the object, for this many rounds.
fn while_scribbling(rounds: u32, mut scribble: impl FnMut(&RawQueue, &mut Dice)) -> Outcome {
    let queue: Queue<[u8]> = Queue::create(&unique("hostile"), Capacity::messages(100).bytes(1 << 14))?;
    let raw = RawQueue::open(&queue);
    let done = AtomicValue::new(0)?;
    let calls = [(); 4].map(|()| AtomicValue::new(0).unwrap());
    let start = |number| spawn(use_it, (queue.clone(), number, calls[number as usize].clone(), done.clone()));
    let users = [0, 1, 2, 3].map(start);
    let mut dice = Dice::of_this_run();
    let mut round = 0;
    while round < rounds || calls.iter().any(|calls| calls.load() < 20) {
        scribble(&raw, &mut dice);
        (0..dice.below(20_000)).for_each(|_| std::hint::spin_loop());
        round += 1;
    }
    let peaks = users.each_ref().map(|child| peak(child.pid()));
    done.store(1);
    for child in &users {
        let (longest, kind) = value(child);
        assert!(longest < LONGEST, "a call of {longest} ms (kind {kind})");
    }
    assert!(peaks.iter().all(|peak| *peak < 100 << 10), "{peaks:?} KiB");
    Ok(())
}

/// Limits the word that holds the end of the log's memory. A wrong value there makes a get copy as much as
/// the longest message has, which would take these tests too long.
fn sane_top(at: u64, word: u64) -> u64 {
    if at == RawQueue::TOP { word & 0x1_ffff_ffff_ffff } else { word }
}

#[test]
fn random_bytes_everywhere_do_no_harm() -> Outcome {
    let _watchdog = watchdog();
    while_scribbling(1000, |raw, dice| {
        let first = dice.below((raw.end() - RawQueue::OBJECT) / 8);
        let length = (1 + dice.below(64)).min((raw.end() - RawQueue::OBJECT) / 8 - first);
        let bytes: Vec<u8> =
            (first..first + length).flat_map(|at| sane_top(at, dice.next()).to_le_bytes()).collect();
        raw.write(RawQueue::OBJECT + first * 8, &bytes);
    })
}

#[test]
fn random_words_in_the_fixed_part_do_no_harm() -> Outcome {
    let _watchdog = watchdog();
    while_scribbling(1000, |raw, dice| {
        let word = match dice.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << dice.below(64),
            _ => dice.next(),
        };
        let at = dice.below(32);
        raw.write(RawQueue::OBJECT + at * 8, &sane_top(at, word).to_le_bytes());
    })
}

#[test]
fn random_words_in_the_log_do_no_harm() -> Outcome {
    let _watchdog = watchdog();
    while_scribbling(1000, |raw, dice| {
        let at = RawQueue::OBJECT + 256 + dice.below((raw.end() - RawQueue::OBJECT - 256) / 8) * 8;
        let word = if dice.below(2) == 0 { dice.next() } else { dice.below(1 << 15) };
        raw.write(at, &word.to_le_bytes());
    })
}

#[test]
fn zeros_everywhere_do_no_harm() -> Outcome {
    let _watchdog = watchdog();
    while_scribbling(200, |raw, _| {
        raw.write(RawQueue::OBJECT, &vec![0; usize::try_from(raw.end() - RawQueue::OBJECT).unwrap()]);
    })
}
