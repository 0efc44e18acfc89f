//! The wait words between threads: who is woken, and when a wait ends by itself.
#![allow(clippy::items_after_statements, reason = "a test's constants stand where they are used")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::{Deadline, EventCount, RawEvent};

use common::{Outcome, wait_until, watchdog};

const SHORT: Duration = Duration::from_millis(30);

#[test]
fn seq_condition_that_is_true_already() {
    let seq = EventCount::new();
    assert!(seq.wait_until(Deadline::NOW, || true));
    assert!(seq.wait_until(Deadline::NEVER, || true));
}

#[test]
fn seq_timeout() {
    let seq = EventCount::new();
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
    let (seq, flag, asleep) = (EventCount::new(), AtomicBool::new(false), AtomicU32::new(0));
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
    let (seq, tokens, taken) = (EventCount::new(), AtomicU32::new(0), AtomicU32::new(0));
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
    let (seq, turn) = (EventCount::new(), AtomicU32::new(0));
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
fn event_is_a_level() -> Outcome {
    let event = RawEvent::new();
    assert!(!event.is_set());
    assert!(!event.wait(Deadline::NOW));
    event.set();
    event.set();
    assert!(event.is_set());
    assert!(event.wait(Deadline::NOW));
    assert!(event.wait(Deadline::NEVER));
    event.clear();
    event.clear();
    assert!(!event.is_set());
    assert!(!event.wait(Deadline::NOW));
    Ok(())
}

#[test]
fn event_timeout() -> Outcome {
    let event = RawEvent::new();
    let start = Instant::now();
    assert!(!event.wait(Deadline::after(SHORT)));
    assert!(start.elapsed() >= SHORT);
    // It can be is_heard and silenced as if nobody had waited.
    event.set();
    assert!(event.wait(Deadline::NOW));
    event.clear();
    assert!(!event.is_set());
    Ok(())
}

#[test]
fn event_reaches_all_who_sleep() -> Outcome {
    let _watchdog = watchdog();
    let (event, near) = (RawEvent::new(), AtomicU32::new(0));
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                near.fetch_add(1, SeqCst);
                assert!(event.wait(Deadline::NEVER));
            });
        }
        wait_until(|| near.load(SeqCst) == 4);
        event.set()
    });
    Ok(())
}

#[test]
fn event_rounds() -> Outcome {
    const ROUNDS: u32 = 500;
    let _watchdog = watchdog();
    // Two bells, is_heard in turn: each round waits for an answer.
    let (there, back) = (RawEvent::new(), RawEvent::new());
    let start = Instant::now();
    thread::scope(|s| {
        let echo = s.spawn(|| -> Result<(), multiproc_robust::AcquireError> {
            for _ in 0..ROUNDS {
                assert!(there.wait(Deadline::NEVER));
                there.clear();
                back.set();
            }
            Ok(())
        });
        for _ in 0..ROUNDS {
            there.set();
            assert!(back.wait(Deadline::NEVER));
            back.clear();
        }
        echo.join().expect("no panic")
    })?;
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn spin_gives_up() {
    // A partner on our own CPU cannot run while we spin; any other may come, but not for ever.
    assert!(!multiproc_robust::spin(multiproc_robust::NO_CPU, 1, 1, || false));
    assert!(
        multiproc_robust::spin(multiproc_robust::NO_CPU, 1, 1, || true)
            || thread::available_parallelism().is_ok_and(|n| n.get() == 1)
    );
}
