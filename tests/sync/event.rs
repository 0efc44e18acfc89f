//! What an event promises to several processes at once, whoever dies; CPython's tests of it are at the end.
#![allow(clippy::print_stdout, reason = "a test tells what it has seen")]

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{AtomicValue, ErrorKind, Event, Queue};

use crate::common::{Dice, Forked, How, Outcome, alone, fork, signal, spawn, unique, value, wait_for, wait_until};

/// A child that waits for the event and exits with 0.
fn waiter(event: &Event) -> Forked {
    fork(How::Libc, || {
        event.wait();
        0
    })
}

/// Waits until these sleep: the calls are `futex` and `futex_waitv`.
fn asleep(children: &[Forked]) {
    let sleeps = |child: &Forked| {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", child.pid())).unwrap_or_default();
        let number = call.split(' ').next().and_then(|number| number.parse::<i64>().ok());
        number.is_some_and(|number| [libc::SYS_futex, libc::SYS_futex_waitv].contains(&number))
    };
    wait_until(|| children.iter().all(sleeps));
}

#[test]
fn found_by_name() -> Outcome {
    fn child(name: String) {
        Event::open(&name).expect("it is there").set();
    }
    let _alone = alone();
    let name = unique("event");
    let event = Event::create(&name)?;
    assert_eq!(event.name(), Some(name.as_str()));
    assert_eq!(Event::create(&name).expect_err("it exists").kind(), ErrorKind::AlreadyExists);
    assert_eq!(multiproc::Lock::open(&name).expect_err("it is no lock").kind(), ErrorKind::WrongKind);
    let child = spawn(child, name.clone());
    event.wait();
    assert!(Event::open_or_create(&name)?.is_set());
    value(&child);
    Event::unlink(&name)?;
    assert_eq!(Event::open(&name).expect_err("unlinked").kind(), ErrorKind::NotFound);
    assert!(event.is_set());
    Ok(())
}

#[test]
fn handle_in_a_message() -> Outcome {
    fn child((events, step): (Queue<Event>, AtomicValue<u32>)) {
        let event = events.get().expect("one");
        step.store(1);
        event.wait();
    }
    let _alone = alone();
    let (events, event, step) = (Queue::new(1)?, Event::new()?, AtomicValue::new(0_u32)?);
    let child = spawn(child, (events.clone(), step.clone()));
    events.put(event.clone())?;
    wait_for(&step, 1);
    event.set();
    value(&child);
    Ok(())
}

#[test]
fn set_reaches_all_even_if_cleared_at_once() -> Outcome {
    let _alone = alone();
    for _ in 0..20 {
        let event = Event::new()?;
        let children: Vec<Forked> = (0..4).map(|_| waiter(&event)).collect();
        asleep(&children);
        event.set();
        event.clear();
        for child in children {
            assert_eq!(child.wait(), 0);
        }
        assert!(!event.is_set());
    }
    Ok(())
}

#[test]
fn ping_pong() -> Outcome {
    const ROUNDS: u32 = 2_000;
    let _alone = alone();
    let (ping, pong) = (Event::new()?, Event::new()?);
    let child = fork(How::Libc, || {
        for _ in 0..ROUNDS {
            ping.wait();
            ping.clear();
            pong.set();
        }
        0
    });
    for _ in 0..ROUNDS {
        ping.set();
        pong.wait();
        pong.clear();
    }
    assert_eq!(child.wait(), 0);
    Ok(())
}

#[test]
fn killed_waiters_take_no_wake_with_them() -> Outcome {
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    for _ in 0..50 {
        let event = Event::new()?;
        let mut children: Vec<Forked> = (0..3).map(|_| waiter(&event)).collect();
        if dice.below(2) == 0 {
            asleep(&children);
        }
        let victim = children.swap_remove(usize::try_from(dice.below(3))?);
        if dice.below(2) == 0 {
            event.set();
            event.clear();
            event.set();
            (0..dice.below(3_000)).for_each(|_| std::hint::spin_loop());
            signal(victim.pid(), libc::SIGKILL);
        } else {
            signal(victim.pid(), libc::SIGKILL);
            event.set();
        }
        victim.wait();
        for child in children {
            assert_eq!(child.wait(), 0);
        }
    }
    Ok(())
}

#[test]
fn killed_setters_leave_nobody_asleep() -> Outcome {
    const ROUNDS: u32 = 100;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let mut slowest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let (event, step) = (Event::new()?, AtomicValue::new(0_u32)?);
        let mut children: Vec<Forked> = (0..3).map(|_| waiter(&event)).collect();
        asleep(&children);
        let setter = fork(How::Libc, || {
            step.store(1);
            event.set();
            wait_for(&step, u32::MAX);
            0
        });
        wait_for(&step, 1);
        (0..dice.below(2_000)).for_each(|_| std::hint::spin_loop());
        // One of those that it may just have woken dies with it.
        let victim = children.swap_remove(usize::try_from(dice.below(3))?);
        signal(setter.pid(), libc::SIGKILL);
        signal(victim.pid(), libc::SIGKILL);
        let killed = Instant::now();
        setter.wait();
        victim.wait();
        if !event.is_set() {
            event.set();
        }
        for child in children {
            assert_eq!(child.wait(), 0);
        }
        slowest = slowest.max(killed.elapsed());
    }
    println!("slowest: {slowest:?}");
    Ok(())
}

#[test]
fn stopped_setter_can_be_helped() -> Outcome {
    let _alone = alone();
    // Wherever it is stopped: who sets it, too, tells those who wait.
    for spins in [0, 200, 2_000] {
        let (event, step) = (Event::new()?, AtomicValue::new(0_u32)?);
        let children: Vec<Forked> = (0..2).map(|_| waiter(&event)).collect();
        asleep(&children);
        let setter = fork(How::Libc, || {
            step.store(1);
            event.set();
            0
        });
        wait_for(&step, 1);
        (0..spins).for_each(|_| std::hint::spin_loop());
        signal(setter.pid(), libc::SIGSTOP);
        event.set();
        for child in children {
            assert_eq!(child.wait(), 0);
        }
        signal(setter.pid(), libc::SIGCONT);
        assert_eq!(setter.wait(), 0);
    }
    Ok(())
}

/// Of CPython's `_TestEvent`.
mod cpython_event {
    use super::*;

    #[test]
    fn test_event() -> Outcome {
        const TIMEOUT: Duration = Duration::from_millis(82);
        fn child(event: Event) {
            event.set();
        }
        let _alone = alone();
        let event = Event::new()?;
        assert!(!event.is_set());
        assert!(!event.wait_timeout(Duration::ZERO));
        let start = Instant::now();
        assert!(!event.wait_timeout(TIMEOUT));
        assert!(start.elapsed() >= TIMEOUT);
        event.set();
        assert!(event.is_set());
        event.wait();
        assert!(event.wait_timeout(TIMEOUT) && event.wait_timeout(Duration::ZERO));
        event.clear();
        assert!(!event.is_set());
        let child = spawn(child, event.clone());
        event.wait();
        value(&child);
        Ok(())
    }

    #[test]
    fn test_repr() -> Outcome {
        let event = Event::new()?;
        assert_eq!(format!("{event:?}"), "Event { object: event (anonymous), set: false, waiters: 0 }");
        event.set();
        assert_eq!(format!("{event:?}"), "Event { object: event (anonymous), set: true, waiters: 0 }");
        event.clear();
        assert_eq!(format!("{event:?}"), "Event { object: event (anonymous), set: false, waiters: 0 }");
        Ok(())
    }
}

#[test]
fn threads_hear_it_too() -> Outcome {
    let event = Event::new()?;
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| event.wait());
        }
        event.set();
    });
    Ok(())
}
