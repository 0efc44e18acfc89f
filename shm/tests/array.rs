//! `Array` between threads: elements, ranges, and the effects of a death or a panic.

mod common;

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::AcquireError;
use multiproc_shm::{Array, ArrayError, ArrayLockError, ErrorKind, Options, OwnerDied};

use common::{Outcome, Space, unique, watchdog};

/// Returns the guard, or an error that borrows nothing.
macro_rules! lock {
    ($array:expr) => {
        $array.lock().map_err(ArrayLockError::into_static)?
    };
}

/// Leaves an array as an owner that dies: does `change` and ends the thread while it holds the guard.
fn die_holding(array: &Array<u64>, change: fn(&mut multiproc_shm::ArrayGuard<'_, u64>)) {
    thread::scope(|s| {
        s.spawn(|| {
            let mut guard = match array.lock() {
                Ok(guard) => guard,
                Err(error) => error.recover().expect("it is free"),
            };
            change(&mut guard);
            std::mem::forget(guard);
        });
    });
}

fn is_half_written<T>(result: Result<T, ArrayError>) -> bool {
    matches!(result, Err(ArrayError::HalfWritten(_)))
}

fn is_out_of_range<T>(result: Result<T, ArrayError>) -> bool {
    matches!(result, Err(ArrayError::OutOfRange(_)))
}

#[test]
fn operations_return_what_they_promise() -> Outcome {
    let array = Array::from_slice(&[1_u64, 2, 3])?;
    assert_eq!((array.len(), array.is_empty(), array.get(1)?), (3, false, 2));
    array.set(1, 5)?;
    assert_eq!(array.update(1, |it| *it += 1)?, 6);
    assert_eq!(array.to_vec()?, [1, 6, 3]);
    array.copy_from(&[7, 8, 9])?;
    array.write_at(1, &[10, 11])?;
    let mut two = [0; 2];
    array.read_at(0, &mut two)?;
    let mut all = [0; 3];
    array.copy_to(&mut all)?;
    assert_eq!((two, all), ([7, 10], [7, 10, 11]));
    array.fill(4)?;
    assert_eq!(array.to_vec()?, [4; 3]);
    assert!(array.owner().is_none() && array.name().is_none());
    assert_eq!(format!("{array:?}"), "Array { object: array (anonymous), len: 3, owner: None }");
    Ok(())
}

#[test]
fn guard_reads_and_writes_elements() -> Outcome {
    let array = Array::from_slice(&[1_u32, 2, 3, 4])?;
    let mut guard = lock!(array);
    assert_eq!((guard.len(), guard.is_empty(), guard.get(3), guard.get(4)), (4, false, Some(4), None));
    guard.set(0, 9)?;
    guard.swap(0, 3)?;
    assert_eq!(guard.iter().rev().collect::<Vec<_>>(), [9, 3, 2, 4]);
    guard.write_at(2, &[7])?;
    assert_eq!((guard.to_vec(), guard.iter().len()), (vec![4, 2, 7, 9], 4));
    guard.copy_from(&[1, 2, 3, 4])?;
    let mut middle = [0; 2];
    guard.read_at(1, &mut middle)?;
    assert_eq!(middle, [2, 3]);
    guard.fill(6)?;
    assert_eq!(format!("{guard:?}"), "[6, 6, 6, 6]");
    assert!(guard.previous_owner_died().is_none());
    assert!(array.owner().is_some());
    drop(guard);
    assert_eq!(array.to_vec()?, [6; 4]);
    Ok(())
}

#[test]
#[allow(unsafe_code, reason = "the two unsafe functions")]
fn slices_reach_the_elements_in_shared_memory() -> Outcome {
    let array = Array::from_slice(&[3_u16, 1, 2])?;
    let mut guard = lock!(array);
    // SAFETY: no other thread knows this array.
    unsafe { guard.as_mut_slice() }.sort_unstable();
    // SAFETY: as above.
    assert_eq!(unsafe { guard.as_slice() }, [1, 2, 3]);
    drop(guard);
    assert_eq!(array.to_vec()?, [1, 2, 3]);
    Ok(())
}

#[test]
fn elements_of_every_size_come_back() -> Outcome {
    fn check<const N: usize>() -> Outcome {
        let element = |seed: usize| {
            std::array::from_fn::<u8, N, _>(|at| u8::try_from((seed * 31 + at * 7) % 251).unwrap_or(0))
        };
        for length in [0, 1, 2, 7, 64, 5000 / N.max(1)] {
            let elements: Vec<[u8; N]> = (0..length).map(element).collect();
            let array = Array::from_slice(&elements)?;
            assert_eq!(array.to_vec()?, elements, "{N} bytes, {length} elements");
            for index in 0..length.min(70) {
                array.set(index, element(index + 1000))?;
                assert_eq!(array.get(index)?, element(index + 1000));
                assert!(index == 0 || array.get(index - 1)? == element(index + 999));
                assert!(index + 1 == length || array.get(index + 1)? == elements[index + 1]);
            }
            array.fill(element(77))?;
            assert_eq!(array.to_vec()?, vec![element(77); length]);
            array.copy_from(&elements)?;
            let mut back = vec![element(5); length / 2];
            array.read_at(length / 3, &mut back)?;
            assert_eq!(back, elements[length / 3..length / 3 + length / 2]);
        }
        Ok(())
    }
    check::<0>()?;
    check::<1>()?;
    check::<2>()?;
    check::<3>()?;
    check::<4>()?;
    check::<8>()?;
    check::<12>()?;
    check::<257>()?;
    check::<5000>()
}

#[test]
fn new_array_holds_zeros() -> Outcome {
    for _ in 0..3 {
        let array = Array::<f64>::new(600)?;
        assert_eq!(array.to_vec()?, [0.0; 600]);
        array.fill(1.5)?;
    }
    Ok(())
}

#[test]
fn array_may_have_no_elements() -> Outcome {
    let array = Array::<u64>::new(0)?;
    assert!(array.is_empty() && array.to_vec()?.is_empty());
    array.fill(1)?;
    array.copy_from(&[])?;
    array.write_at(0, &[])?;
    assert!(is_out_of_range(array.get(0)) && is_out_of_range(array.write_at(1, &[])));
    Ok(())
}

#[test]
fn out_of_range_changes_nothing() -> Outcome {
    let array = Array::from_slice(&[1_u64, 2, 3])?;
    assert!(
        is_out_of_range(array.get(3))
            && is_out_of_range(array.set(3, 9))
            && is_out_of_range(array.get(usize::MAX))
    );
    assert!(is_out_of_range(array.update(3, |_| unreachable!("there is no such element"))));
    assert!(is_out_of_range(array.copy_from(&[9; 2])) && is_out_of_range(array.copy_from(&[9; 4])));
    assert!(is_out_of_range(array.copy_to(&mut [0; 4])) && is_out_of_range(array.read_at(2, &mut [0; 2])));
    assert!(
        is_out_of_range(array.write_at(2, &[9; 2])) && is_out_of_range(array.write_at(usize::MAX, &[9; 2]))
    );
    assert!(is_out_of_range(lock!(array).swap(0, 3)) && is_out_of_range(lock!(array).swap(3, 0)));
    assert_eq!(array.to_vec()?, [1, 2, 3]);
    let Err(ArrayError::OutOfRange(error)) = array.write_at(2, &[9; 2]) else { panic!("out of range") };
    assert_eq!((error.asked(), error.length()), (2..4, 3));
    assert_eq!(error.to_string(), "array (anonymous): no elements 2..4 in 3");
    Ok(())
}

#[test]
fn constructors_make_and_find_by_name() -> Outcome {
    let name = unique("array");
    let array = Array::<u32>::create(&name, 3)?;
    array.set(1, 7)?;
    let found = Array::<u32>::open(&name)?;
    assert_eq!((found.len(), found.to_vec()?, found.name()), (3, vec![0, 7, 0], Some(&*name)));
    assert_eq!(Array::<u32>::open_or_create(&name, 3)?.get(1)?, 7);
    let kind =
        |result: Result<Array<u32>, multiproc_shm::Error>| result.map(drop).expect_err("another one").kind();
    assert_eq!(kind(Array::open_or_create(&name, 4)), ErrorKind::Mismatch);
    assert_eq!(kind(Array::create(&name, 3)), ErrorKind::AlreadyExists);
    assert_eq!(Array::<i32>::open(&name).expect_err("another type").kind(), ErrorKind::Mismatch);
    Array::<u32>::unlink(&name)?;
    assert_eq!(kind(Array::open(&name)), ErrorKind::NotFound);
    assert_eq!(kind(Array::new(usize::MAX)), ErrorKind::Invalid);
    assert_eq!(kind(Array::new(1 << 50)), ErrorKind::Invalid);

    let space = Space::new();
    let kept: Array<u8> = space.options().persistent(true).create("kept", 5)?;
    kept.fill(3)?;
    drop(kept);
    assert_eq!(space.options().open::<Array<u8>>("kept")?.to_vec()?, [3; 5]);
    assert_eq!(Options::new().anonymous::<Array<u8>>(2)?.len(), 2);
    Ok(())
}

#[test]
fn locking_twice_in_one_thread_is_an_error() -> Outcome {
    let array = Array::<u64>::new(2)?;
    let guard = lock!(array);
    for error in [array.get(0).map(drop), array.set(0, 1), array.fill(1), array.clone().to_vec().map(drop)] {
        let Err(ArrayError::Lock(error)) = error else { panic!("{error:?}") };
        assert_eq!(error.cause(), AcquireError::AlreadyHeld);
        assert_eq!(error.to_string(), "array (anonymous): already held by this thread");
    }
    assert!(matches!(array.try_lock(), Err(ArrayLockError::Lock(_))));
    drop(guard);
    array.set(0, 1)?;
    Ok(())
}

#[test]
fn lock_attempts_time_out() -> Outcome {
    let _watchdog = watchdog();
    let array = Array::<u64>::new(2)?;
    let _guard = lock!(array);
    thread::scope(|s| {
        s.spawn(|| {
            assert!(array.try_lock().expect("no error").is_none());
            let start = Instant::now();
            assert!(array.lock_timeout(Duration::from_millis(30)).expect("no error").is_none());
            assert!(start.elapsed() >= Duration::from_millis(30));
        });
    });
    Ok(())
}

#[test]
fn no_update_of_several_threads_is_lost() -> Outcome {
    const ROUNDS: u64 = 3_000;
    let _watchdog = watchdog();
    let array = Array::<u64>::new(5)?;
    thread::scope(|s| {
        for thread in 0..4 {
            let array = &array;
            s.spawn(move || {
                for round in 0..ROUNDS {
                    if (round + thread) % 2 == 0 {
                        (0..5).for_each(|index| assert!(array.update(index, |it| *it += 1).is_ok()));
                    } else {
                        let mut guard = array.lock().expect("no owner dies");
                        (0..5).for_each(|index| {
                            guard.set(index, guard.get(index).unwrap_or(0) + 1).expect("it is there")
                        });
                    }
                }
            });
        }
    });
    assert_eq!(array.to_vec()?, [4 * ROUNDS; 5]);
    Ok(())
}

#[test]
fn array_of_a_dead_writer_is_half_written_until_recovered() -> Outcome {
    let _watchdog = watchdog();
    let array = Array::<u64>::new(3)?;
    die_holding(&array, |guard| guard.set(1, 5).expect("it is there"));
    // Every method reports it, and none but `recover` changes that.
    assert!(
        is_half_written(array.get(0)) && is_half_written(array.set(0, 1)) && is_half_written(array.to_vec())
    );
    assert!(
        is_half_written(array.update(0, |_| unreachable!("half written"))) && is_half_written(array.fill(1))
    );
    assert!(is_half_written(array.try_lock().map(drop).map_err(Into::into)));
    assert!(is_half_written(array.lock_timeout(Duration::from_secs(1)).map(drop).map_err(Into::into)));
    let Err(ArrayLockError::OwnerDied(died)) = array.lock() else { panic!("half written") };
    assert_eq!((died.writer().pid(), died.guard().to_vec()), (Some(std::process::id()), vec![0, 5, 0]));
    let text = format!("array (anonymous): half written: process {} (thread ", std::process::id());
    assert!(died.to_string().starts_with(&text), "{died}");
    let error = died.into_static();
    let ArrayError::HalfWritten(half) = &error else { panic!("{error}") };
    assert_eq!(half.writer().pid(), Some(std::process::id()));
    assert!(error.to_string().starts_with(&text), "{error}");
    // It can be sent to another thread.
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    assert!(thread::spawn(move || error.to_string()).join().is_ok());

    let mut guard = array.lock().or_else(ArrayLockError::recover)?;
    guard.set(1, 0)?;
    drop(guard);
    assert_eq!(array.to_vec()?, [0; 3]);
    Ok(())
}

#[test]
fn recovering_without_a_write_makes_the_array_whole() -> Outcome {
    let _watchdog = watchdog();
    let array = Array::<u64>::new(3)?;
    die_holding(&array, |guard| guard.set(1, 5).expect("it is there"));
    drop(array.lock().or_else(ArrayLockError::recover)?);
    assert_eq!(array.to_vec()?, [0, 5, 0]);
    Ok(())
}

#[test]
fn array_stays_half_written_if_its_recoverer_dies() -> Outcome {
    let _watchdog = watchdog();
    let array = Array::<u64>::new(3)?;
    die_holding(&array, |guard| guard.set(1, 5).expect("it is there"));
    // One recovers and writes nothing, one writes, and one finds the array whole first.
    die_holding(&array, |_| ());
    assert!(is_half_written(array.get(0)));
    die_holding(&array, |guard| guard.fill(7).expect("no fork"));
    assert!(is_half_written(array.get(0)));
    drop(array.lock().or_else(ArrayLockError::recover)?);
    assert_eq!(array.to_vec()?, [7; 3]);
    die_holding(&array, |guard| guard.fill(8).expect("no fork"));
    assert!(is_half_written(array.get(0)));
    Ok(())
}

#[test]
fn dead_owner_that_wrote_nothing_leaves_the_array_whole() -> Outcome {
    let _watchdog = watchdog();
    let array = Array::<u64>::new(3)?;
    die_holding(&array, |guard| assert!(guard.get(1) == Some(0) && guard.write_at(3, &[1]).is_err()));
    let guard = lock!(array);
    assert_eq!(guard.previous_owner_died().and_then(|death| death.pid()), Some(std::process::id()));
    drop(guard);
    assert!(lock!(array).previous_owner_died().is_none());
    Ok(())
}

#[test]
fn panic_after_a_write_leaves_the_array_half_written() -> Outcome {
    let array = Array::<u64>::new(3)?;
    let panicking = |work: &dyn Fn()| panic::catch_unwind(AssertUnwindSafe(work)).is_err();
    assert!(panicking(&|| {
        let _guard = array.lock().expect("it is free");
        panic::resume_unwind(Box::new("on purpose"));
    }));
    assert_eq!(array.to_vec()?, [0; 3]);
    assert!(panicking(&|| drop(array.update(1, |it| {
        *it = 5;
        panic::resume_unwind(Box::new("on purpose"));
    }))));
    assert_eq!(array.to_vec()?, [0; 3]);
    assert!(panicking(&|| {
        let mut guard = array.lock().expect("it is free");
        guard.set(1, 5).expect("it is there");
        panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(is_half_written(array.get(0)));
    assert!(panicking(&|| {
        let _guard = array.lock().or_else(ArrayLockError::recover).expect("it is free");
        panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(is_half_written(array.get(0)));
    drop(array.lock().or_else(ArrayLockError::recover)?);
    assert_eq!(array.to_vec()?, [0, 5, 0]);
    Ok(())
}

#[test]
fn write_during_an_older_panic_leaves_the_array_whole() -> Outcome {
    struct Late(Array<u64>);
    impl Drop for Late {
        fn drop(&mut self) {
            assert!(thread::panicking());
            self.0.fill(5).expect("it is free");
        }
    }
    let array = Array::<u64>::new(3)?;
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let _late = Late(array.clone());
        panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(caught.is_err());
    assert_eq!(array.to_vec()?, [5; 3]);
    Ok(())
}

#[test]
fn all_waiters_get_the_lock_of_a_dead_writer() -> Outcome {
    let _watchdog = watchdog();
    let array = Array::<u64>::new(3)?;
    thread::scope(|s| {
        let (notify, begun) = std::sync::mpsc::channel();
        let array = &array;
        s.spawn(move || {
            let mut guard = array.lock().expect("it is free");
            guard.set(0, 1).expect("it is there");
            notify.send(()).expect("the main thread receives");
            std::mem::forget(guard);
        });
        begun.recv().expect("a message");
        for _ in 0..4 {
            s.spawn(move || {
                let mut guard = match array.lock() {
                    Ok(guard) => guard,
                    Err(error) => error.recover().expect("it is free"),
                };
                guard.set(1, guard.get(1).unwrap_or(0) + 1).expect("it is there");
            });
        }
    });
    assert_eq!(array.to_vec()?, [1, 4, 0]);
    Ok(())
}

#[test]
fn errors_can_be_sent_to_other_threads() {
    fn is_static<T: Send + Sync + 'static>() {}
    is_static::<ArrayError>();
    is_static::<Array<u64>>();
    fn is_error<T: std::error::Error>() {}
    is_error::<ArrayLockError<'_, u64>>();
    is_error::<OwnerDied<'_, u64>>();
}
