//! Rubbish over the words of a joinable queue: while others work with it, and before one works with it. As for a plain queue: errors, wrong jobs, doubles; no crash, no hang past a time-out, no absurd memory.

use std::time::{Duration, Instant};

use multiproc::queue::{JobLimits, JoinableQueue};
use multiproc::{AtomicValue, Capacity, GetError, PutError};

use crate::common::{Dice, Outcome, spawn, unique, value};
use crate::hostile::{LONGEST, peak};
use crate::kit::{Naked, watchdog};

const TIMEOUT: Duration = Duration::from_millis(20);
/// Where things are, in words of the object: the two rings, what all slots share, the slots, their notes.
const LEASES: u64 = 64;
const SLOTS: u64 = LEASES + 16;
const NOTES: u64 = SLOTS + 120 * 8;
const END: u64 = NOTES + 120 * 8;
/// How far the log has memory from the beginning, in words.
const LOG: u64 = 2 << 10;

type Jobs = JoinableQueue<Vec<u8>>;

fn jobs() -> Result<(Jobs, Naked), Box<dyn std::error::Error>> {
    let limits = JobLimits::from(Capacity::messages(100).bytes(1 << 14)).max_deliveries(3).longest_job(1 << 16);
    let queue: Jobs = JoinableQueue::create(&unique("hostile"), limits)?;
    let naked = Naked::named(queue.name().unwrap());
    Ok((queue, naked))
}

/// One call, whatever it says.
fn call(queue: &Jobs, dice: &mut Dice) {
    let kind = dice.below(16);
    let begun = Instant::now();
    match kind {
        0..3 => ignore(queue.put_timeout(vec![7; usize::try_from(dice.below(3000)).unwrap()], TIMEOUT)),
        3..5 => ignore(queue.try_put(vec![1; 500])),
        5..10 => match if kind < 7 { queue.try_get() } else { queue.get_timeout(TIMEOUT) } {
            Ok(job) => {
                assert!(job.len() <= 1 << 17 && job.last_holder().is_none_or(|holder| !format!("{holder:?}").is_empty()));
                match dice.below(4) {
                    0 => job.retry(),
                    // With another one in one's hands.
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

/// Rubbish that may mean something, for a word of the object. `locks`: also over lock words, which makes others wait until they find that nobody has them.
fn scribble(naked: &Naked, dice: &mut Dice, locks: bool) {
    let word = match dice.below(6) {
        0 => 0,
        1 => dice.below(6),
        2 => dice.below(6) | dice.below(4) << 32,
        3 => dice.below(1 << 15),
        4 => u64::MAX,
        _ => dice.next(),
    };
    // Mostly those slots that are in use.
    let slots = if dice.below(4) == 0 { 960 } else { 40 };
    let at = match dice.below(8) {
        0 => dice.below(LEASES),
        1 => LEASES + dice.below(16),
        2..4 => SLOTS + dice.below(slots),
        4 => NOTES + dice.below(slots),
        _ => END + dice.below(LOG),
    };
    let is_lock = (at < LEASES && at % 16 < 5) || ((SLOTS..NOTES).contains(&at) && (at - SLOTS) % 8 < 5);
    // Who lies about how far the two logs have memory makes a get copy as much as the longest message has.
    let is_top = at == Naked::TOP || at == 32 + Naked::TOP;
    match (is_lock, is_top) {
        (true, _) if !locks => {}
        // Nobody's whom there is: else it is held, and some calls have no time-out.
        (true, _) if word != 0 => naked.write(Naked::OBJECT + at * 8, &(word | 0x2000_0000).to_le_bytes()),
        (_, true) => naked.write(Naked::OBJECT + at * 8, &(word & 0x1_ffff_ffff_ffff).to_le_bytes()),
        _ => naked.write(Naked::OBJECT + at * 8, &word.to_le_bytes()),
    }
}

/// Works until it is told to stop.
fn work((queue, role, calls, done): (Jobs, u64, AtomicValue<u32>, AtomicValue<u32>)) {
    let mut dice = Dice::new(role);
    while done.load() == 0 {
        call(&queue, &mut dice);
        calls.fetch_add(1);
    }
}

#[test]
fn rubbish_over_jobs_in_use() -> Outcome {
    let _watchdog = watchdog();
    let (queue, naked) = jobs()?;
    let done = AtomicValue::new(0)?;
    let calls = [(); 4].map(|()| AtomicValue::new(0).unwrap());
    let crew =
        [0, 1, 2, 3].map(|role| spawn(work, (queue.clone(), role, calls[usize::try_from(role).unwrap()].clone(), done.clone())));
    let mut dice = Dice::of_this_run();
    let mut round = 0;
    while round < 3000 || calls.iter().any(|calls| calls.load() < 50) {
        scribble(&naked, &mut dice, round % 50 == 0);
        (0..dice.below(10_000)).for_each(|_| std::hint::spin_loop());
        round += 1;
    }
    let peaks = crew.each_ref().map(|child| peak(child.pid()));
    done.store(1);
    crew.iter().for_each(value);
    assert!(peaks.iter().all(|peak| *peak < 200 << 10), "{peaks:?} KiB");
    Ok(())
}

#[test]
fn jobs_of_rubbish() -> Outcome {
    let _watchdog = watchdog();
    let mut dice = Dice::of_this_run();
    for _ in 0..60 {
        let (queue, naked) = jobs()?;
        (0..dice.below(30)).for_each(|_| call(&queue, &mut dice));
        (0..dice.below(200)).for_each(|_| scribble(&naked, &mut dice, false));
        for _ in 0..dice.below(30) {
            call(&queue, &mut dice);
            if dice.below(4) == 0 {
                scribble(&naked, &mut dice, false);
            }
        }
    }
    Ok(())
}

#[test]
fn lock_of_a_job_in_my_hands_is_wiped() -> Outcome {
    let _watchdog = watchdog();
    let (queue, naked) = jobs()?;
    queue.put(vec![1])?;
    let job = queue.get()?;
    naked.write(Naked::OBJECT + SLOTS * 8, &0_u64.to_le_bytes());
    // It looks as if it had come back: this thread gets it once more.
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
fn dead_letters_in_a_circle() -> Outcome {
    let _watchdog = watchdog();
    /// The word of the dead letters' log, which has 2^30 before it.
    const MORGUE: u64 = END + (1 << 30);
    let (queue, naked) = jobs()?;
    queue.put(vec![1])?;
    (0..3).try_for_each(|_| queue.get().map(|job| job.retry()))?;
    assert_eq!((queue.try_get().is_err(), queue.dead_letters().len()), (true, 1));
    // Behind the only letter, which has three words and a header: back to the beginning.
    let jump = u64::from(u32::MAX);
    naked.write(Naked::OBJECT + (MORGUE + 4) * 8, &jump.to_le_bytes());
    assert!(queue.dead_letters().list().is_err());
    Ok(())
}
