//! `Array` and `AtomicArray` across processes: exclusive access, and whole or reported half written after a
//! kill.

use multiproc::robust::AcquireError;
use multiproc::{Array, ArrayError, ArrayLockError, AtomicArray, AtomicValue, ErrorKind, Queue, Value};

use crate::common::{Dice, How, Outcome, alone, fork, kill, spawn, unique, value, wait_for, with_one_thread};

/// Large enough for a copy by assembly, and not a whole number of words.
const LARGE: usize = 4001;

#[test]
fn array_is_exclusive_between_processes() -> Outcome {
    const ROUNDS: u32 = 2_000;
    fn child((array, ready): (Array<u32>, AtomicValue<u32>)) -> Result<(), ArrayError> {
        ready.fetch_add(1);
        wait_for(&ready, 4);
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                for index in 0..array.len() {
                    array.update(index, |it| *it += 1)?;
                }
            } else {
                let mut guard = array.lock()?;
                assert!(guard.previous_owner_died().is_none());
                let next: Vec<u32> = guard.iter().map(|it| it + 1).collect();
                guard.copy_from(&next)?;
            }
        }
        Ok(())
    }
    // The result of a child is sent by serde, which errors do not support.
    fn shown(args: (Array<u32>, AtomicValue<u32>)) -> Result<(), String> {
        child(args).map_err(|error| error.to_string())
    }
    let _alone = alone();
    let (array, ready) = (Array::new(7)?, AtomicValue::new(0_u32)?);
    let children: Vec<_> = (0..4).map(|_| spawn(shown, (array.clone(), ready.clone()))).collect();
    for child in &children {
        assert_eq!(value(child), Ok(()));
    }
    assert_eq!(array.to_vec()?, [4 * ROUNDS; 7]);
    Ok(())
}

#[test]
fn array_is_never_read_half_written() -> Outcome {
    const ROUNDS: u16 = 1_000;
    fn writer(array: Array<u16>) {
        for round in 1..=ROUNDS {
            match round % 3 {
                0 => array.fill(round).expect("no owner dies"),
                1 => array.copy_from(&vec![round; array.len()]).expect("no owner dies"),
                _ => {
                    let mut guard = array.lock().expect("no owner dies");
                    (0..guard.len()).for_each(|index| guard.set(index, round).expect("it is there"));
                }
            }
        }
    }
    let _alone = alone();
    let array = Array::new(LARGE)?;
    let child = spawn(writer, array.clone());
    let mut last = 0;
    while last < ROUNDS {
        let all = array.to_vec()?;
        assert!(all.iter().all(|it| *it == all[0]) && all[0] >= last, "after {last}: {all:?}");
        last = all[0];
    }
    value(&child);
    Ok(())
}

#[test]
fn array_is_found_by_name_and_in_a_message() -> Outcome {
    type Mailbox = Queue<(Array<i16>, AtomicArray<u8>)>;
    fn child((name, mailbox): (String, Mailbox)) -> Result<Vec<i16>, String> {
        let found = Array::<i16>::open(&name).map_err(|error| error.to_string())?;
        found.set(0, -5).map_err(|error| error.to_string())?;
        let wrong = Array::<i16>::open_or_create(&name, 4).map(drop).expect_err("another length");
        assert_eq!(wrong.kind(), ErrorKind::Mismatch);
        let (sent, hits) = mailbox.get().map_err(|error| error.to_string())?;
        hits.store(1, 7).map_err(|error| error.to_string())?;
        sent.to_vec().map_err(|error| error.to_string())
    }
    let _alone = alone();
    let name = unique("array");
    let named = Array::<i16>::create(&name, 3)?;
    let mailbox = Mailbox::new(1)?;
    let hits = AtomicArray::new(3)?;
    let child = spawn(child, (name, mailbox.clone()));
    mailbox.put((Array::from_slice(&[1, 2, 3])?, hits.clone()))?;
    assert_eq!(value(&child), Ok(vec![1, 2, 3]));
    assert_eq!((named.to_vec()?, hits.to_vec()), (vec![-5, 0, 0], vec![0, 7, 0]));
    Ok(())
}

#[test]
fn no_addition_of_four_processes_is_lost() -> Outcome {
    const ROUNDS: u32 = 20_000;
    fn child((sums, ready): (AtomicArray<u16>, AtomicValue<u32>)) {
        ready.fetch_add(1);
        wait_for(&ready, 4);
        for round in 0..ROUNDS {
            sums.fetch_add(round as usize % 2, 1).expect("it is there");
        }
    }
    let _alone = alone();
    let (sums, ready) = (AtomicArray::new(3)?, AtomicValue::new(0_u32)?);
    let children: Vec<_> = (0..4).map(|_| spawn(child, (sums.clone(), ready.clone()))).collect();
    children.iter().for_each(value);
    let half = u16::try_from(2 * ROUNDS % (1 << 16))?;
    assert_eq!(sums.to_vec(), [half, half, 0]);
    Ok(())
}

/// Holds the array, with or without a write, until it is killed.
fn victim((array, step, writes): (Array<u64>, AtomicValue<u32>, bool)) {
    let mut guard = array.lock().expect("it is free");
    if writes {
        guard.set(0, 5).expect("it is there");
    }
    step.store(1);
    wait_for(&step, u32::MAX);
}

#[test]
fn array_of_a_killed_writer_is_half_written_until_recovered() -> Outcome {
    let _alone = alone();
    let (array, step) = (Array::new(4)?, AtomicValue::new(0_u32)?);
    let child = spawn(victim, (array.clone(), step.clone(), true));
    wait_for(&step, 1);
    let pid = child.pid();
    kill(&child);
    for _ in 0..3 {
        let Err(ArrayLockError::OwnerDied(died)) = array.lock() else { panic!("half written") };
        assert_eq!(died.writer().pid(), Some(pid));
        let Err(ArrayError::HalfWritten(half)) = array.clone().get(0).map(drop).or(Err(died.into_static()))
        else {
            panic!("half written");
        };
        assert_eq!(half.writer().pid(), Some(pid));
    }
    // A process that is killed while it repairs the array.
    let repairer = fork(How::Libc, || {
        let mut guard = array.lock().or_else(ArrayLockError::recover).expect("it is free");
        guard.fill(9).expect("its own guard");
        step.store(2);
        wait_for(&step, u32::MAX);
        0
    });
    wait_for(&step, 2);
    let pid = repairer.pid();
    repairer.kill();
    let Err(ArrayLockError::OwnerDied(died)) = array.lock() else { panic!("half written again") };
    assert_eq!((died.writer().pid(), died.guard().get(0)), (Some(pid), Some(9)));
    drop(died.recover());
    assert_eq!(array.to_vec()?, [9; 4]);
    Ok(())
}

#[test]
fn killed_owner_that_wrote_nothing_leaves_the_array_whole() -> Outcome {
    let _alone = alone();
    let (array, step) = (Array::from_slice(&[1, 2, 3, 4])?, AtomicValue::new(0_u32)?);
    let child = spawn(victim, (array.clone(), step.clone(), false));
    wait_for(&step, 1);
    let pid = child.pid();
    kill(&child);
    let guard = array.lock().map_err(ArrayLockError::into_static)?;
    assert_eq!(
        (guard.previous_owner_died().and_then(|death| death.pid()), guard.to_vec()),
        (Some(pid), vec![1, 2, 3, 4])
    );
    Ok(())
}

#[test]
fn killed_writer_leaves_the_array_whole_or_reported() -> Outcome {
    const ROUNDS: u64 = 150;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let array = Array::new(LARGE)?;
    let mut half_written = 0;
    for _ in 0..ROUNDS {
        let go = AtomicValue::new(0_u32)?;
        let writer = fork(How::Libc, || {
            let mut next = array.get(0).expect("repaired\n");
            loop {
                next += 1;
                if next % 2 == 0 { array.fill(next) } else { array.copy_from(&vec![next; LARGE]) }
                    .expect("no other owner\n");
                go.store(1);
            }
        });
        wait_for(&go, 1);
        (0..dice.below(20_000)).for_each(|_| std::hint::spin_loop());
        writer.kill();
        let mut guard = match array.lock() {
            Ok(guard) => guard,
            Err(ArrayLockError::OwnerDied(died)) => {
                half_written += 1;
                let mut guard = died.recover();
                let first = guard.get(0).unwrap_or(0);
                guard.fill(first)?;
                guard
            }
            Err(error) => return Err(error.into_static().into()),
        };
        let all = guard.to_vec();
        assert!(all.iter().all(|it| *it == all[0]), "torn without a report: {all:?}");
        guard.set(0, all[0])?;
    }
    println!("{half_written} of {ROUNDS} were killed while they wrote");
    Ok(())
}

#[test]
fn waiters_go_on_while_writers_are_killed() -> Outcome {
    const ROUNDS: u64 = 60;
    /// Adds one to all elements until it is killed. Repairs a half-written array by its first element.
    fn work(array: &Array<u64>, done: &AtomicArray<u64>, index: usize) -> i32 {
        loop {
            let mut guard = match array.lock() {
                Ok(guard) => guard,
                Err(ArrayLockError::OwnerDied(died)) => died.recover(),
                Err(error) => panic!("{error}\n"),
            };
            let all = guard.to_vec();
            if guard.fill(all[0] + 1).is_err() {
                return 1;
            }
            drop(guard);
            done.fetch_add(index, 1).expect("it is there");
        }
    }
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let (array, done) = (Array::new(500)?, AtomicArray::new(3)?);
    let start = |index: usize| fork(How::Libc, || work(&array, &done, index));
    let mut workers: Vec<_> = (0..3).map(start).collect();
    for _ in 0..ROUNDS {
        (0..dice.below(20_000)).for_each(|_| std::hint::spin_loop());
        let which = usize::try_from(dice.below(3))?;
        let worker = std::mem::replace(&mut workers[which], start(which));
        worker.kill();
        // All three go on, the new one included.
        let before = done.to_vec();
        crate::common::wait_until(|| done.to_vec().iter().zip(&before).all(|(now, before)| now > before));
    }
    workers.into_iter().for_each(crate::common::Forked::kill);
    let guard = array.lock().or_else(ArrayLockError::recover)?;
    assert!(guard.get(0) >= Some(done.to_vec().iter().sum()), "no addition is lost");
    Ok(())
}

#[test]
fn forked_copy_of_an_array_guard_changes_nothing() -> Outcome {
    let _alone = alone();
    with_one_thread(|| {
        for how in [How::Libc, How::Raw] {
            for written in [false, true] {
                let array = Array::from_slice(&[1_u64, 2, 3])?;
                let mut guard = Some(array.lock().map_err(ArrayLockError::into_static)?);
                if let Some(mine) = guard.as_mut().filter(|_| written) {
                    mine.set(0, 1)?;
                }
                let child = fork(how, || {
                    let copy = guard.as_mut().expect("a copy\n");
                    let errors = [
                        copy.set(0, 99),
                        copy.fill(99),
                        copy.write_at(1, &[99]),
                        copy.copy_from(&[9; 3]),
                        copy.swap(0, 1),
                    ];
                    let refused = |error: &Result<(), ArrayError>| match error {
                        Err(ArrayError::Lock(error)) => error.cause() == AcquireError::NotHeld,
                        _ => false,
                    };
                    let right = errors.iter().all(refused) && copy.to_vec() == [1, 2, 3];
                    drop(guard.take());
                    i32::from(!right)
                });
                assert_eq!(child.wait(), 0, "{how:?}");
                // This process still holds the lock.
                assert!(array.owner().is_some());
                guard.take().ok_or("no guard")?.set(1, 7)?;
                assert_eq!(array.to_vec()?, [1, 7, 3]);
            }
        }
        Ok(())
    })
}

#[test]
fn killed_exchanger_never_tears_a_value() -> Outcome {
    const ROUNDS: u64 = 80;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let shared = Value::new([0_u64; 300])?;
    for _ in 0..ROUNDS {
        let go = AtomicValue::new(0_u32)?;
        let exchanger = fork(How::Libc, || {
            let mut seen = shared.get().expect("no error\n");
            loop {
                let next = [seen[0] + 1; 300];
                seen =
                    shared.compare_exchange(seen, next).expect("no error\n").map_or_else(|now| now, |_| next);
                go.store(1);
            }
        });
        wait_for(&go, 1);
        (0..dice.below(10_000)).for_each(|_| std::hint::spin_loop());
        exchanger.kill();
        let now = shared.get()?;
        assert!(now.iter().all(|word| *word == now[0]), "torn: {now:?}");
    }
    Ok(())
}
