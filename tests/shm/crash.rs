//! SIGKILL of makers, of last users, of writers, and of processes that should have woken others.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::robust::{AcquireError, Acquired, Deadline};
use multiproc::shm::{Gc, Namespace, Transit, ValueGuard};
use multiproc::{AtomicValue, ErrorKind, Options, Value};

use crate::common::{
    Dice, Forked, How, Outcome, Space, alone, fork, kill, spawn, value, wait_for, wait_until,
};
use crate::contract::{put, take};
use crate::words::Words;

/// Makes an object, reports it, and waits to be killed.
fn maker((directory, name, step): (PathBuf, String, AtomicValue<u32>)) {
    let namespace = Namespace::at(directory).expect("the parent's");
    let _made: Value<u64> = Options::new().namespace(&namespace).create(&name, 7).expect("a value");
    step.store(1);
    wait_for(&step, u32::MAX);
}

/// Leaves a file under this name, by killing its only user.
fn leftover(space: &Space, name: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(maker, (space.namespace().path().to_owned(), name.to_owned(), step.clone()));
    wait_for(&step, 1);
    kill(&child);
    Ok(fs::metadata(space.file(name))?.ino())
}

#[test]
fn open_does_not_find_the_object_of_a_killed_last_user() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    leftover(&space, "left")?;
    let error = space.options().open::<Value<u64>>("left").expect_err("no process uses it");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // `open` has removed the leftover.
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn name_of_a_killed_last_user_can_be_made_again() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let old = leftover(&space, "left")?;
    let made: Value<u64> = space.options().create("left", 1)?;
    // Another file, not the old one again.
    assert_ne!(fs::metadata(space.file("left"))?.ino(), old);
    assert_eq!(made.get()?, 1);
    drop(made);

    let old = leftover(&space, "left")?;
    let made: Value<u8> = space.options().open_or_create("left", 2)?;
    assert_ne!(fs::metadata(space.file("left"))?.ino(), old);
    assert_eq!(made.get()?, 2);
    Ok(())
}

#[test]
fn sweep_removes_the_objects_of_killed_users() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let _used: Value<u64> = space.options().create("used", 1)?;
    drop(space.options().persistent(true).create::<Value<u64>>("kept", 1)?);
    // All start before the first is killed, because each new process begins with a sweep.
    let makers = ["a", "b", "c"].map(|name| {
        let step = AtomicValue::new(0_u32).expect("a value");
        (spawn(maker, (space.namespace().path().to_owned(), name.to_owned(), step.clone())), step)
    });
    makers.iter().for_each(|(_, step)| wait_for(step, 1));
    makers.iter().for_each(|(child, _)| kill(child));
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let dry = Gc::new().dry_run(true).run(space.namespace())?;
    assert_eq!(
        (sorted(dry.removed), sorted(dry.kept)),
        (vec!["a".into(), "b".into(), "c".into()], vec!["kept".into(), "used".into()])
    );
    assert_eq!(space.entries(), ["a", "b", "c", "kept", "used"]);
    let report = Gc::new().run(space.namespace())?;
    assert_eq!(sorted(report.removed), ["a", "b", "c"]);
    assert_eq!(space.entries(), ["kept", "used"]);
    Ok(())
}

#[test]
fn first_creation_of_a_process_sweeps() -> Outcome {
    fn child(directory: PathBuf) {
        let namespace = Namespace::at(directory).expect("the parent's");
        drop(Options::new().namespace(&namespace).create::<Value<u64>>("other", 1).expect("a value"));
    }
    let _alone = alone();
    let space = Space::new();
    leftover(&space, "left")?;
    value(&spawn(child, space.namespace().path().to_owned()));
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn killed_user_leaves_objects_that_others_use() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(maker, (space.namespace().path().to_owned(), "shared".to_owned(), step.clone()));
    wait_for(&step, 1);
    let mine: Value<u64> = space.options().open("shared")?;
    kill(&child);
    assert_eq!(Gc::new().run(space.namespace())?.removed, [""; 0]);
    assert_eq!(space.options().open::<Value<u64>>("shared")?.get()?, 7);
    drop(mine);
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn persistent_object_survives_a_killed_user() -> Outcome {
    fn child((directory, step): (PathBuf, AtomicValue<u32>)) {
        let namespace = Namespace::at(directory).expect("the parent's");
        let made: Value<u64> =
            Options::new().namespace(&namespace).persistent(true).create("kept", 7).expect("a value");
        let _guard = made.lock().expect("it is free");
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let space = Space::new();
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (space.namespace().path().to_owned(), step.clone()));
    wait_for(&step, 1);
    let pid = child.pid();
    kill(&child);
    assert_eq!(Gc::new().in_flight_age(Duration::ZERO).run(space.namespace())?.removed, [""; 0]);
    let found: Value<u64> = space.options().open("kept")?;
    let guard = found.lock()?;
    assert_eq!(ValueGuard::previous_owner_died(&guard).and_then(|death| death.pid()), Some(pid));
    assert_eq!(*guard, 7);
    Ok(())
}

#[test]
fn handle_in_flight_survives_its_killed_sender() -> Outcome {
    fn child((directory, mailbox, step): (PathBuf, PathBuf, AtomicValue<u32>)) {
        let namespace = Namespace::at(directory).expect("the parent's");
        let made: Value<u64> = Options::new().namespace(&namespace).anonymous(7).expect("a value");
        let transit = Transit::begin();
        let bytes = postcard::to_stdvec(&made).expect("a handle can be serialised");
        fs::write(mailbox, bytes).expect("to write");
        transit.sent();
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let space = Space::new();
    let mailbox = space.file("mailbox");
    for received in [true, false] {
        let step = AtomicValue::new(0_u32)?;
        let child = spawn(child, (space.namespace().path().to_owned(), mailbox.clone(), step.clone()));
        wait_for(&step, 1);
        kill(&child);
        let bytes = fs::read(&mailbox)?;
        fs::remove_file(&mailbox)?;
        assert_eq!(Gc::new().run(space.namespace())?.removed, [""; 0]);
        if received {
            let received: Value<u64> = postcard::from_bytes(&bytes)?;
            assert_eq!(received.get()?, 7);
        } else {
            assert_eq!(Gc::new().in_flight_age(Duration::ZERO).run(space.namespace())?.removed.len(), 1);
            assert!(postcard::from_bytes::<Value<u64>>(&bytes).is_err());
        }
        assert!(space.entries().is_empty());
    }
    Ok(())
}

#[test]
fn reference_of_a_killed_receiver_expires() -> Outcome {
    fn child(step: AtomicValue<u32>) {
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let space = Space::new();
    let made: Value<u64> = space.options().anonymous(7)?;
    let transit = Transit::begin();
    let _lost = postcard::to_stdvec(&made)?;
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, step.clone());
    transit.sent();
    drop(made);
    wait_for(&step, 1);
    kill(&child);
    // The reference keeps the object until it expires.
    assert_eq!(Gc::new().run(space.namespace())?.removed, [""; 0]);
    assert_eq!(Gc::new().in_flight_age(Duration::ZERO).run(space.namespace())?.removed.len(), 1);
    Ok(())
}

/// Large enough for a copy by assembly.
type Big = [u64; 1000];

#[test]
fn killed_writer_never_tears_a_value() -> Outcome {
    const ROUNDS: u64 = 150;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let shared = Value::new([0_u64; 1000])?;
    let (mut last, mut died) = (0, 0);
    for _ in 0..ROUNDS {
        let go = AtomicValue::new(0_u32)?;
        let writer = fork(How::Libc, || {
            loop {
                let done = shared.update(|it: &mut Big| {
                    let next = it[0] + 1;
                    it.fill(next);
                });
                assert!(done.is_ok());
                go.store(1);
            }
        });
        wait_for(&go, 1);
        spin(dice.below(20_000));
        writer.kill();
        let now = shared.get()?;
        assert!(now.iter().all(|word| *word == now[0]), "torn: {now:?}");
        assert!(now[0] > last, "{} after {last}", now[0]);
        last = now[0];
        // Its lock is free. The next owner may learn of a death, and finds the same value.
        let guard = shared.lock()?;
        died += u64::from(ValueGuard::previous_owner_died(&guard).is_some());
        assert_eq!(guard[..], now[..]);
    }
    println!("{died} of {ROUNDS} were killed holding the lock");
    Ok(())
}

/// Spins for this many steps.
fn spin(steps: u64) {
    (0..steps).for_each(|_| std::hint::spin_loop());
}

#[test]
fn killed_setter_of_an_event_strands_no_waiter() -> Outcome {
    const ROUNDS: u64 = 200;
    fn waiter((words, index): (Words, usize)) {
        for round in 1.. {
            assert!(words.event.wait(Deadline::NEVER));
            // cells[0]: the round; cells[1..=2]: the last round of each waiter; u64::MAX ends the test.
            words.cells[index].store(round, SeqCst);
            wait_until(|| words.cells[0].load(SeqCst) > round);
            if words.cells[0].load(SeqCst) == u64::MAX {
                return;
            }
        }
    }
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let words = Words::new()?;
    let waiters = [1, 2].map(|index| spawn(waiter, (words.clone(), index)));
    let (mut done, mut slow) = (0, 0);
    for round in 1..=ROUNDS {
        words.cells[0].store(round, SeqCst);
        words.cells[3].store(0, SeqCst);
        let setter = fork(How::Libc, || {
            words.cells[3].store(1, SeqCst);
            while words.cells[3].load(SeqCst) != 2 {
                std::hint::spin_loop();
            }
            words.event.set();
            0
        });
        wait_until(|| words.cells[3].load(SeqCst) == 1);
        // Sometimes long enough for the waiters to sleep.
        thread::sleep(Duration::from_micros(dice.below(200)));
        words.cells[3].store(2, SeqCst);
        spin(dice.below(300));
        crate::common::signal(setter.pid(), libc::SIGKILL);
        setter.wait();
        if words.event.is_set() {
            done += 1;
        } else {
            // It was killed before it had set the event.
            words.event.set();
        }
        let start = Instant::now();
        wait_until(|| (1..=2).all(|index| words.cells[index].load(SeqCst) == round));
        slow += u32::from(start.elapsed() > Duration::from_millis(500));
        words.event.clear();
    }
    words.cells[0].store(u64::MAX, SeqCst);
    waiters.iter().for_each(value);
    println!(
        "{done} of {ROUNDS} set the event before they were killed; {slow} rounds took longer than 500 ms"
    );
    assert!(slow < 20, "{slow} rounds were slow");
    Ok(())
}

#[test]
fn killed_waiter_of_an_event_takes_no_wake_up_with_it() -> Outcome {
    const ROUNDS: u64 = 100;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    for _ in 0..ROUNDS {
        let words = Words::new()?;
        let waiter = || {
            fork(How::Libc, || {
                words.cells[0].fetch_add(1, SeqCst);
                i32::from(!words.event.wait(Deadline::NEVER))
            })
        };
        let (victim, survivor) = (waiter(), waiter());
        wait_until(|| words.cells[0].load(SeqCst) == 2);
        thread::sleep(Duration::from_micros(dice.below(200)));
        words.event.set();
        spin(dice.below(2_000));
        crate::common::signal(victim.pid(), libc::SIGKILL);
        victim.wait();
        assert_eq!(survivor.wait(), 0);
    }
    Ok(())
}

#[test]
fn waiters_of_an_event_count_notice_a_change_without_a_wake_up() -> Outcome {
    fn child((words, step): (Words, AtomicValue<u32>)) {
        words.cells[0].store(1, SeqCst);
        // Killed between the change and the wake-up.
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let words = Words::new()?;
    let step = AtomicValue::new(0_u32)?;
    thread::scope(|s| -> Outcome {
        let waiter = s.spawn(|| words.count.wait_until(Deadline::NEVER, || words.cells[0].load(SeqCst) == 1));
        // Long enough, most probably, for the waiter to sleep. The test holds in any case.
        thread::sleep(Duration::from_millis(2));
        let child = spawn(child, (words.clone(), step.clone()));
        wait_for(&step, 1);
        kill(&child);
        assert!(waiter.join().expect("no panic"));
        Ok(())
    })
}

#[test]
fn killed_producers_and_consumers_strand_no_other() -> Outcome {
    const ROUNDS: u64 = 100;
    /// Puts or takes until it is killed.
    fn work(words: &Words, putting: bool) -> i32 {
        loop {
            let done = if putting {
                put(words, 1, Deadline::NEVER).map(|()| 1)
            } else {
                take(words, Deadline::NEVER)
            };
            if done != Ok(1) {
                return 1;
            }
            words.cells[if putting { 1 } else { 2 }].fetch_add(1, SeqCst);
        }
    }
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let words = Words::new()?;
    let start = |which: u64| fork(How::Libc, || work(&words, which.is_multiple_of(2)));
    let mut workers: Vec<Forked> = (0..4).map(start).collect();
    let mut slow = 0;
    for _ in 0..ROUNDS {
        let which = dice.below(4);
        spin(dice.below(5_000));
        workers.swap_remove(usize::try_from(which)?).kill();
        // One producer and one consumer always survive. Both must go on, with a lock whose owner died, and
        // without its wake-up.
        let [puts, takes] = [1, 2].map(|at| words.cells[at].load(SeqCst));
        let begun = Instant::now();
        wait_until(|| words.cells[1].load(SeqCst) > puts && words.cells[2].load(SeqCst) > takes);
        slow += u32::from(begun.elapsed() > Duration::from_millis(500));
        // The new worker replaces the killed one, and does the same work.
        workers.push(start(which));
        let last = workers.len() - 1;
        workers.swap(usize::try_from(which)?, last);
    }
    println!("{slow} of {ROUNDS} rounds took longer than 500 ms");
    assert!(slow < 20, "{slow} rounds were slow");
    Ok(())
}

/// The values of the storms: sixteen equal words, never zero.
type Pattern = [u64; 16];

/// One process of the storm. Until it is killed it makes, finds, drops and perhaps unlinks one name, and
/// checks that every object is complete. Without unlinks, and while it has a handle, the name must mean the
/// same object.
fn storm(space: &Space, unlinks: bool, seed: u64, rounds: Option<u64>) -> i32 {
    let mut dice = Dice::new(seed);
    let mut kept: Vec<(Value<Pattern>, u64)> = Vec::new();
    let mut round = 0;
    while rounds.is_none_or(|rounds| round < rounds) {
        round += 1;
        let fresh = [dice.next() | 1; 16];
        let got: Result<Value<Pattern>, _> = match dice.below(if unlinks { 6 } else { 5 }) {
            0 => space.options().create("storm", fresh),
            1 => space.options().open("storm"),
            2 => space.options().open_or_create("storm", fresh),
            3 | 4 => {
                if !kept.is_empty() {
                    let at = usize::try_from(dice.below(kept.len() as u64)).unwrap_or(0);
                    kept.swap_remove(at);
                }
                continue;
            }
            _ => match space.options().unlink("storm") {
                Err(error) if error.kind() != ErrorKind::NotFound => panic!("unlink: {error}\n"),
                _ => continue,
            },
        };
        match got {
            Ok(handle) => {
                let found = handle.get().expect("its lock is free");
                assert!(
                    found[0] != 0 && found.iter().all(|word| *word == found[0]),
                    "incomplete: {found:?}\n"
                );
                if !unlinks {
                    // No process can have made another object while this one was in use.
                    let inode = fs::metadata(space.file("storm")).expect("its name is there\n").ino();
                    assert!(kept.iter().all(|(_, other)| *other == inode), "split: {inode}, {kept:?}\n");
                    kept.push((handle, inode));
                } else {
                    kept.push((handle, 0));
                }
                kept.truncate(3);
            }
            Err(error) if [ErrorKind::NotFound, ErrorKind::AlreadyExists].contains(&error.kind()) => {}
            Err(error) => panic!("storm: {error}\n"),
        }
        if !unlinks && !kept.is_empty() {
            let inode = fs::metadata(space.file("storm")).map_or(0, |metadata| metadata.ino());
            assert!(
                kept.iter().all(|(_, mine)| *mine == inode),
                "the name means {inode}, not the object in use: {kept:?}\n"
            );
        }
    }
    0
}

fn storm_of_kills(unlinks: bool, kills: u64) -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let mut dice = Dice::of_this_run();
    let start = |seed: u64| fork(How::Libc, || storm(&space, unlinks, seed, None));
    let mut workers: Vec<Forked> = (0..4).map(|_| start(dice.next())).collect();
    for _ in 0..kills {
        thread::sleep(Duration::from_micros(dice.below(3_000)));
        let at = usize::try_from(dice.below(4))?;
        // `kill` fails if the worker has ended by itself, because a check failed.
        workers.swap_remove(at).kill();
        workers.push(start(dice.next()));
    }
    workers.into_iter().for_each(Forked::kill);
    // The namespace still works.
    assert_eq!(storm(&space, unlinks, 1, Some(100)), 0);
    Gc::new().run(space.namespace())?;
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn names_stay_consistent_while_users_are_killed() -> Outcome {
    storm_of_kills(false, 250)
}

#[test]
fn names_stay_consistent_while_users_unlink_and_are_killed() -> Outcome {
    storm_of_kills(true, 250)
}

#[test]
fn makers_killed_at_any_time_leave_no_incomplete_object() -> Outcome {
    const ROUNDS: u64 = 100;
    let _alone = alone();
    let space = Space::new();
    let mut dice = Dice::of_this_run();
    let step = AtomicValue::new(0_u32)?;
    for _ in 0..ROUNDS {
        step.store(0);
        let maker = fork(How::Libc, || {
            loop {
                step.store(1);
                let named: Value<Pattern> =
                    space.options().create("made", [9; 16]).expect("it is not in use\n");
                let anonymous: Value<Pattern> = space.options().anonymous([9; 16]).expect("space\n");
                drop((named, anonymous));
            }
        });
        wait_for(&step, 1);
        spin(dice.below(20_000));
        maker.kill();
        // The object does not exist, or is a complete leftover, which `open` removes.
        let error = space.options().open::<Value<Pattern>>("made").expect_err("its maker is dead");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    Gc::new().run(space.namespace())?;
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
#[allow(unsafe_code, reason = "entering a bare side promises that its memory stays")]
fn next_owner_of_a_side_learns_of_a_death() -> Outcome {
    fn child((words, step): (Words, AtomicValue<u32>)) {
        // SAFETY: the handle lives until the process is killed.
        let how = unsafe { words.puts.enter(Deadline::NEVER) };
        assert_eq!(how, Ok(Acquired::Clean));
        step.store(1);
        wait_for(&step, u32::MAX);
    }
    let _alone = alone();
    let words = Words::new()?;
    let step = AtomicValue::new(0_u32)?;
    let child = spawn(child, (words.clone(), step.clone()));
    wait_for(&step, 1);
    // SAFETY: the handle lives longer.
    let entered = unsafe { words.puts.enter(Deadline::after(Duration::from_millis(20))) };
    assert_eq!(entered, Err(AcquireError::TimedOut));
    let pid = child.pid();
    kill(&child);
    // SAFETY: as above.
    let how = unsafe { words.puts.enter(Deadline::NEVER) }?;
    let Acquired::OwnerDied(death) = how else { panic!("{how:?}") };
    assert_eq!(death.pid(), Some(pid));
    assert!(words.puts.leave_without_peer());
    Ok(())
}
