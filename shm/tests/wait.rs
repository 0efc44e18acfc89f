//! The wait words between threads: who is woken, and when a wait ends by itself.
#![allow(clippy::items_after_statements, reason = "a test's constants stand where they are used")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_shm::{Bell, Deadline, Seq};

use common::{Outcome, wait_until, watchdog};

const SHORT: Duration = Duration::from_millis(30);

#[test]
fn seq_condition_that_is_true_already() {
    let seq = Seq::new();
    assert!(seq.wait_until(Deadline::NOW, || true));
    assert!(seq.wait_until(Deadline::NEVER, || true));
}

#[test]
fn seq_timeout() {
    let seq = Seq::new();
    let start = Instant::now();
    assert!(!seq.wait_until(Deadline::NOW, || false));
    assert!(!seq.wait_until(Deadline::after(SHORT), || false));
    assert!(start.elapsed() >= SHORT);
    // Nobody is left counted as a sleeper.
    assert!(!seq.wake_one());
    assert_eq!(seq.wake_all(), 0);
}

#[test]
fn seq_wake_all_reaches_all() {
    let _watchdog = watchdog();
    let (seq, flag, asleep) = (Seq::new(), AtomicBool::new(false), AtomicU32::new(0));
    let start = Instant::now();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                asleep.fetch_add(1, SeqCst);
                assert!(seq.wait_until(Deadline::NEVER, || flag.load(SeqCst)));
            });
        }
        wait_until(|| asleep.load(SeqCst) == 4);
        flag.store(true, SeqCst);
        seq.wake_all();
    });
    assert!(start.elapsed() < common::LONG);
}

#[test]
fn seq_wake_one_at_a_time() {
    const ROUNDS: u32 = 300;
    let _watchdog = watchdog();
    let (seq, tokens, taken) = (Seq::new(), AtomicU32::new(0), AtomicU32::new(0));
    let take = || tokens.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
    let start = Instant::now();
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    assert!(seq.wait_until(Deadline::NEVER, take));
                    taken.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..3 * ROUNDS {
            tokens.fetch_add(1, SeqCst);
            seq.wake_one();
            // Each token finds a taker without another wake.
            wait_until(|| taken.load(SeqCst) > round);
        }
    });
    // A wake that got lost would have cost a second, the belt's time; a few may be the machine's.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn seq_ping_pong() {
    const ROUNDS: u32 = 3_000;
    let _watchdog = watchdog();
    let (seq, turn) = (Seq::new(), AtomicU32::new(0));
    thread::scope(|s| {
        for me in 0..2 {
            let (seq, turn) = (&seq, &turn);
            s.spawn(move || {
                for round in 0..ROUNDS {
                    assert!(seq.wait_until(Deadline::NEVER, || turn.load(SeqCst) == 2 * round + me));
                    turn.fetch_add(1, SeqCst);
                    seq.wake_all();
                }
            });
        }
    });
    assert_eq!(turn.load(SeqCst), 2 * ROUNDS);
}

#[test]
fn bell_is_a_level() -> Outcome {
    let bell = Bell::new();
    assert!(!bell.is_rung());
    assert!(!bell.wait(Deadline::NOW)?);
    bell.ring()?;
    bell.ring()?;
    assert!(bell.is_rung());
    assert!(bell.wait(Deadline::NOW)?);
    assert!(bell.wait(Deadline::NEVER)?);
    bell.silence();
    bell.silence();
    assert!(!bell.is_rung());
    assert!(!bell.wait(Deadline::NOW)?);
    Ok(())
}

#[test]
fn bell_timeout() -> Outcome {
    let bell = Bell::new();
    let start = Instant::now();
    assert!(!bell.wait(Deadline::after(SHORT))?);
    assert!(start.elapsed() >= SHORT);
    // It can be rung and silenced as if nobody had waited.
    bell.ring()?;
    assert!(bell.wait(Deadline::NOW)?);
    bell.silence();
    assert!(!bell.is_rung());
    Ok(())
}

#[test]
fn bell_reaches_all_who_sleep() -> Outcome {
    let _watchdog = watchdog();
    let (bell, near) = (Bell::new(), AtomicU32::new(0));
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                near.fetch_add(1, SeqCst);
                assert_eq!(bell.wait(Deadline::NEVER), Ok(true));
            });
        }
        wait_until(|| near.load(SeqCst) == 4);
        bell.ring()
    })?;
    Ok(())
}

#[test]
fn bell_rounds() -> Outcome {
    const ROUNDS: u32 = 500;
    let _watchdog = watchdog();
    // Two bells, rung in turn: each round waits for an answer.
    let (there, back) = (Bell::new(), Bell::new());
    let start = Instant::now();
    thread::scope(|s| {
        let echo = s.spawn(|| -> Result<(), multiproc_shm::AcquireError> {
            for _ in 0..ROUNDS {
                assert!(there.wait(Deadline::NEVER)?);
                there.silence();
                back.ring()?;
            }
            Ok(())
        });
        for _ in 0..ROUNDS {
            there.ring()?;
            assert!(back.wait(Deadline::NEVER)?);
            back.silence();
        }
        echo.join().expect("no panic")
    })?;
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn spin_gives_up() {
    // A partner on our own CPU cannot run while we spin; any other may come, but not for ever.
    assert!(!multiproc_shm::spin(multiproc_shm::NO_CPU, 1, 1, || false));
    assert!(
        multiproc_shm::spin(multiproc_shm::NO_CPU, 1, 1, || true) || thread::available_parallelism().is_ok_and(|n| n.get() == 1)
    );
}
