//! The contract of an event between processes, also when one of them dies; CPython's tests of it are among
//! these.
#![allow(clippy::print_stdout, reason = "a test prints what it measured")]

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{AtomicValue, ErrorKind, Event, Queue};

use crate::common::{
    Dice, Forked, How, Outcome, alone, fork, signal, spawn, unique, value, wait_for, wait_until,
};

/// Forks a child that waits for the event and exits with 0.
fn waiter(event: &Event) -> Forked {
    fork(How::Libc, || {
        event.wait();
        0
    })
}

/// Waits until all of these sleep, in `futex` or `futex_waitv`.
fn wait_until_asleep(children: &[Forked]) {
    let sleeps = |child: &Forked| {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", child.pid())).unwrap_or_default();
        let number = call.split(' ').next().and_then(|number| number.parse::<i64>().ok());
        number.is_some_and(|number| [libc::SYS_futex, libc::SYS_futex_waitv].contains(&number))
    };
    wait_until(|| children.iter().all(sleeps));
}

#[test]
fn event_is_found_by_name() -> Outcome {
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
fn handle_in_a_message_arrives() -> Outcome {
    fn child((events, step): (Queue<Event>, AtomicValue<u32>)) {
        let event = events.get().expect("an event");
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
fn set_wakes_all_waiters_though_cleared_at_once() -> Outcome {
    let _alone = alone();
    for _ in 0..20 {
        let event = Event::new()?;
        let children: Vec<Forked> = (0..4).map(|_| waiter(&event)).collect();
        wait_until_asleep(&children);
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
fn two_processes_take_turns_by_events() -> Outcome {
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
fn killed_waiter_takes_no_wake_up_with_it() -> Outcome {
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    for _ in 0..50 {
        let event = Event::new()?;
        let mut children: Vec<Forked> = (0..3).map(|_| waiter(&event)).collect();
        if dice.below(2) == 0 {
            wait_until_asleep(&children);
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
fn killed_setter_leaves_no_waiter_asleep() -> Outcome {
    const ROUNDS: u32 = 100;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let mut slowest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let (event, step) = (Event::new()?, AtomicValue::new(0_u32)?);
        let mut children: Vec<Forked> = (0..3).map(|_| waiter(&event)).collect();
        wait_until_asleep(&children);
        let setter = fork(How::Libc, || {
            step.store(1);
            event.set();
            wait_for(&step, u32::MAX);
            0
        });
        wait_for(&step, 1);
        (0..dice.below(2_000)).for_each(|_| std::hint::spin_loop());
        // A waiter that the setter may just have woken is killed with it.
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
fn second_set_wakes_the_waiters_of_a_stopped_setter() -> Outcome {
    let _alone = alone();
    // Wherever the first setter is stopped.
    for spins in [0, 200, 2_000] {
        let (event, step) = (Event::new()?, AtomicValue::new(0_u32)?);
        let children: Vec<Forked> = (0..2).map(|_| waiter(&event)).collect();
        wait_until_asleep(&children);
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

/// CPython's `_TestEvent`.
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
        let text = |set: bool| format!("Event {{ object: event (anonymous), set: {set}, waiters: 0 }}");
        assert_eq!(format!("{event:?}"), text(false));
        event.set();
        assert_eq!(format!("{event:?}"), text(true));
        event.clear();
        assert_eq!(format!("{event:?}"), text(false));
        Ok(())
    }
}

#[test]
fn set_wakes_threads_of_this_process() -> Outcome {
    let event = Event::new()?;
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| event.wait());
        }
        event.set();
    });
    Ok(())
}
