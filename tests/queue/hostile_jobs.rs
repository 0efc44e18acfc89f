//! Random words over those of a joinable queue, before and while processes use it. As for a plain queue,
//! these may get errors, wrong jobs and duplicates. They do not crash, hang past a time-out, or ask for
//! absurd amounts of memory.

use std::time::{Duration, Instant};

use multiproc::queue::{JobLimits, JoinableQueue};
use multiproc::{AtomicValue, Capacity, GetError, PutError};

use crate::common::{Dice, Outcome, spawn, unique, value};
use crate::hostile::{LONGEST, peak};
use crate::kit::{RawQueue, watchdog};

const TIMEOUT: Duration = Duration::from_millis(20);
/// Offsets in words of the object: after the two logs the words that all leases share, then the leases, then
/// their notes.
const SHARED: u64 = 64;
const LEASES: u64 = SHARED + 16;
const NOTES: u64 = LEASES + 120 * 8;
const END: u64 = NOTES + 120 * 8;
/// The log's initial memory, in words.
const LOG: u64 = 2 << 10;

type Jobs = JoinableQueue<Vec<u8>>;

fn jobs() -> Result<(Jobs, RawQueue), Box<dyn std::error::Error>> {
    let limits =
        JobLimits::from(Capacity::messages(100).bytes(1 << 14)).max_deliveries(3).longest_job(1 << 16);
    let queue: Jobs = JoinableQueue::create(&unique("hostile"), limits)?;
    let raw = RawQueue::named(queue.name().unwrap());
    Ok((queue, raw))
}

/// Makes one random call, and accepts every answer.
fn call(queue: &Jobs, dice: &mut Dice) {
    let kind = dice.below(16);
    let begun = Instant::now();
    match kind {
        0..3 => ignore(queue.put_timeout(vec![7; usize::try_from(dice.below(3000)).unwrap()], TIMEOUT)),
        3..5 => ignore(queue.try_put(vec![1; 500])),
        5..10 => match if kind < 7 { queue.try_get() } else { queue.get_timeout(TIMEOUT) } {
            Ok(job) => {
                assert!(job.len() <= 1 << 17);
                assert!(job.last_holder().is_none_or(|holder| !format!("{holder:?}").is_empty()));
                match dice.below(4) {
                    0 => job.retry(),
                    // While this process holds a second job.
                    1 => drop(queue.try_get().map(|other| (other.done(), job.done()))),
                    _ => job.done(),
                }
            }
            Err(error) => ignore_get(&error),
        },
        10 => drop(queue.task_done()),
        11 => drop(queue.join_timeout(TIMEOUT).map_err(|error| ignore_get(&error))),
        12 => assert!(queue.len() <= 100 && queue.leased() <= 120 && queue.unfinished() <= 220),
        13 => drop(format!("{queue:?} {}", queue.is_closed())),
        14 => match queue.dead_letters().list() {
            Ok(letters) => letters.iter().for_each(|letter| drop((letter.value(), format!("{letter:?}")))),
            Err(error) => ignore_get(&error),
        },
        _ => drop((queue.dead_letters().take(), queue.dead_letters().replay())),
    }
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
    assert!(took < LONGEST, "call {kind} took {took} ms");
}

fn ignore<T>(result: Result<(), PutError<T>>) {
    if let Err(error) = result {
        assert!(!error.to_string().is_empty());
    }
}

fn ignore_get(error: &GetError) {
    assert!(!error.to_string().is_empty());
}

/// Overwrites a word of the object by a value that may be meaningful. `locks`: also lock words, whose waiters
/// then wait until they find that the owner does not exist.
fn scribble(raw: &RawQueue, dice: &mut Dice, locks: bool) {
    let word = match dice.below(6) {
        0 => 0,
        1 => dice.below(6),
        2 => dice.below(6) | dice.below(4) << 32,
        3 => dice.below(1 << 15),
        4 => u64::MAX,
        _ => dice.next(),
    };
    // Mostly the leases that are in use.
    let leases = if dice.below(4) == 0 { 960 } else { 40 };
    let at = match dice.below(8) {
        0 => dice.below(SHARED),
        1 => SHARED + dice.below(16),
        2..4 => LEASES + dice.below(leases),
        4 => NOTES + dice.below(leases),
        _ => END + dice.below(LOG),
    };
    let is_lock = (at < SHARED && at % 16 < 5) || ((LEASES..NOTES).contains(&at) && (at - LEASES) % 8 < 5);
    // A wrong end of a log's memory makes a get copy as much as the longest message has, so it is limited.
    let is_top = at == RawQueue::TOP || at == 32 + RawQueue::TOP;
    let word = match (is_lock, is_top) {
        (true, _) if !locks => return,
        // A thread id that does not exist: a lock of a living thread would stay held, and some calls have no
        // time-out.
        (true, _) if word != 0 => word | 0x2000_0000,
        (_, true) => word & 0x1_ffff_ffff_ffff,
        _ => word,
    };
    raw.write(RawQueue::OBJECT + at * 8, &word.to_le_bytes());
}

/// Makes random calls until `done` is set.
fn work((queue, number, calls, done): (Jobs, u64, AtomicValue<u32>, AtomicValue<u32>)) {
    let mut dice = Dice::new(number);
    while done.load() == 0 {
        call(&queue, &mut dice);
        calls.fetch_add(1);
    }
}

#[test]
fn random_words_over_jobs_in_use_do_no_harm() -> Outcome {
    let _watchdog = watchdog();
    let (queue, raw) = jobs()?;
    let done = AtomicValue::new(0)?;
    let calls = [(); 4].map(|()| AtomicValue::new(0).unwrap());
    let start = |number: u64| {
        let calls = &calls[usize::try_from(number).unwrap()];
        spawn(work, (queue.clone(), number, calls.clone(), done.clone()))
    };
    let users = [0, 1, 2, 3].map(start);
    let mut dice = Dice::of_this_run();
    let mut round = 0;
    while round < 3000 || calls.iter().any(|calls| calls.load() < 50) {
        scribble(&raw, &mut dice, round % 50 == 0);
        (0..dice.below(10_000)).for_each(|_| std::hint::spin_loop());
        round += 1;
    }
    let peaks = users.each_ref().map(|child| peak(child.pid()));
    done.store(1);
    users.iter().for_each(value);
    assert!(peaks.iter().all(|peak| *peak < 200 << 10), "{peaks:?} KiB");
    Ok(())
}

#[test]
fn random_words_before_and_between_calls_do_no_harm() -> Outcome {
    let _watchdog = watchdog();
    let mut dice = Dice::of_this_run();
    for _ in 0..60 {
        let (queue, raw) = jobs()?;
        (0..dice.below(30)).for_each(|_| call(&queue, &mut dice));
        (0..dice.below(200)).for_each(|_| scribble(&raw, &mut dice, false));
        for _ in 0..dice.below(30) {
            call(&queue, &mut dice);
            if dice.below(4) == 0 {
                scribble(&raw, &mut dice, false);
            }
        }
    }
    Ok(())
}

#[test]
fn cleared_lock_of_a_leased_job_does_no_harm() -> Outcome {
    let _watchdog = watchdog();
    let (queue, raw) = jobs()?;
    queue.put(vec![1])?;
    let job = queue.get()?;
    raw.write(RawQueue::OBJECT + LEASES * 8, &0_u64.to_le_bytes());
    // The job looks as if its holder had died: this thread gets it a second time.
    let begun = Instant::now();
    let again = queue.get_timeout(TIMEOUT);
    assert!(begun.elapsed() < Duration::from_millis(LONGEST));
    job.done();
    match again {
        Ok(again) => again.done(),
        Err(error) => ignore_get(&error),
    }
    queue.put(vec![2])?;
    queue.get()?.done();
    assert_eq!((queue.leased(), queue.join_timeout(TIMEOUT)), (0, Ok(true)));
    Ok(())
}

#[test]
fn dead_letter_log_that_jumps_back_is_an_error() -> Outcome {
    let _watchdog = watchdog();
    /// The offset of the dead-letter log in words; 2^30 words lie before it.
    const DEAD_LETTERS: u64 = END + (1 << 30);
    let (queue, raw) = jobs()?;
    queue.put(vec![1])?;
    (0..3).try_for_each(|_| queue.get().map(|job| job.retry()))?;
    assert_eq!((queue.try_get().is_err(), queue.dead_letters().len()), (true, 1));
    // After the only letter, which has a header and three words: a jump back to the beginning.
    let jump = u64::from(u32::MAX);
    raw.write(RawQueue::OBJECT + (DEAD_LETTERS + 4) * 8, &jump.to_le_bytes());
    assert!(queue.dead_letters().list().is_err());
    Ok(())
}
