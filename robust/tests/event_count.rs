//! `EventCount` and `RawEvent` between threads: which waiters are woken, and when a wait ends by itself.
#![allow(clippy::items_after_statements, reason = "a test's constants are declared where they are used")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::{Deadline, EventCount, RawEvent};

use common::{Outcome, wait_until, watchdog};

const SHORT: Duration = Duration::from_millis(30);

#[test]
fn event_count_does_not_wait_for_a_condition_that_holds() {
    let changes = EventCount::new();
    assert!(changes.wait_until(Deadline::NOW, || true));
    assert!(changes.wait_until(Deadline::NEVER, || true));
}

#[test]
fn event_count_wait_times_out() {
    let changes = EventCount::new();
    let start = Instant::now();
    assert!(!changes.wait_until(Deadline::NOW, || false));
    assert!(!changes.wait_until(Deadline::after(SHORT), || false));
    assert!(start.elapsed() >= SHORT);
    // No waiter is left in the count.
    assert!(!changes.wake_one());
    assert_eq!(changes.wake_all(), 0);
}

#[test]
fn event_count_wake_all_wakes_every_waiter() {
    let _watchdog = watchdog();
    let (changes, flag, asleep) = (EventCount::new(), AtomicBool::new(false), AtomicU32::new(0));
    let start = Instant::now();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                asleep.fetch_add(1, SeqCst);
                assert!(changes.wait_until(Deadline::NEVER, || flag.load(SeqCst)));
            });
        }
        wait_until(|| asleep.load(SeqCst) == 4);
        flag.store(true, SeqCst);
        changes.wake_all();
    });
    assert!(start.elapsed() < common::LONG);
}

#[test]
fn event_count_wake_one_loses_no_wake_up() {
    const ROUNDS: u32 = 300;
    let _watchdog = watchdog();
    let (changes, tokens, taken) = (EventCount::new(), AtomicU32::new(0), AtomicU32::new(0));
    let take = || tokens.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
    let start = Instant::now();
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    assert!(changes.wait_until(Deadline::NEVER, take));
                    taken.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..3 * ROUNDS {
            tokens.fetch_add(1, SeqCst);
            changes.wake_one();
            // A waiter takes each token without another wake-up.
            wait_until(|| taken.load(SeqCst) > round);
        }
    });
    // A lost wake-up costs a second, the interval of the liveness poll. A slow machine may cost a few
    // seconds, too.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn event_count_passes_turns_between_two_threads() {
    const ROUNDS: u32 = 3_000;
    let _watchdog = watchdog();
    let (changes, turn) = (EventCount::new(), AtomicU32::new(0));
    thread::scope(|s| {
        for me in 0..2 {
            let (changes, turn) = (&changes, &turn);
            s.spawn(move || {
                for round in 0..ROUNDS {
                    assert!(changes.wait_until(Deadline::NEVER, || turn.load(SeqCst) == 2 * round + me));
                    turn.fetch_add(1, SeqCst);
                    changes.wake_all();
                }
            });
        }
    });
    assert_eq!(turn.load(SeqCst), 2 * ROUNDS);
}

#[test]
fn event_stays_set_until_cleared() -> Outcome {
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
fn event_wait_times_out() -> Outcome {
    let event = RawEvent::new();
    let start = Instant::now();
    assert!(!event.wait(Deadline::after(SHORT)));
    assert!(start.elapsed() >= SHORT);
    // It can be set and cleared as if no thread had waited.
    event.set();
    assert!(event.wait(Deadline::NOW));
    event.clear();
    assert!(!event.is_set());
    Ok(())
}

#[test]
fn event_wakes_every_waiter() -> Outcome {
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
fn two_events_pass_turns_between_two_threads() -> Outcome {
    const ROUNDS: u32 = 500;
    let _watchdog = watchdog();
    // Two events, set in turn: each round waits for an answer.
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
fn spinning_ends_by_itself() {
    // A partner on this CPU cannot run while this thread spins. For any other, spinning ends after a while.
    assert!(!multiproc_robust::spin(multiproc_robust::NO_CPU, 1, 1, || false));
    assert!(
        multiproc_robust::spin(multiproc_robust::NO_CPU, 1, 1, || true)
            || thread::available_parallelism().is_ok_and(|n| n.get() == 1)
    );
}
