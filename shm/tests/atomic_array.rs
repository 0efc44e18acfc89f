//! `AtomicArray`: every operation, every element type, and sums from several threads.

mod common;

use std::thread;

use multiproc_shm::{AtomicArray, ErrorKind};

use common::{Outcome, unique, watchdog};

#[test]
fn operations_return_what_they_promise() -> Outcome {
    let array = AtomicArray::from_slice(&[5_u64, 6])?;
    assert_eq!((array.len(), array.is_empty(), array.load(1)?), (2, false, 6));
    array.store(0, 6)?;
    assert_eq!(array.swap(0, 7)?, 6);
    assert_eq!(array.compare_exchange(0, 7, 8)?, Ok(7));
    assert_eq!(array.compare_exchange(0, 7, 9)?, Err(8));
    assert_eq!(array.fetch_update(0, |it| it * 2)?, 8);
    assert_eq!(array.to_vec(), [16, 6]);
    assert_eq!(format!("{array:?}"), "AtomicArray { object: atomic array (anonymous), elements: [16, 6] }");
    Ok(())
}

/// For each integer type: additions wrap around at the boundaries, and leave the neighbours unchanged.
macro_rules! integers {
    ($($int:ident)*) => {$(
        #[test]
        fn $int() -> Outcome {
            let array = AtomicArray::from_slice(&[1, $int::MAX, 2])?;
            assert_eq!(array.fetch_add(1, 1)?, $int::MAX);
            assert_eq!(array.load(1)?, $int::MIN);
            assert_eq!(array.fetch_sub(1, 1)?, $int::MIN);
            assert_eq!(array.load(1)?, $int::MAX);
            array.store(1, 3)?;
            assert_eq!((array.fetch_max(1, 5)?, array.fetch_max(1, 4)?, array.fetch_min(1, 2)?), (3, 5, 5));
            assert_eq!(array.compare_exchange(1, 2, $int::MIN)?, Ok(2));
            assert_eq!(array.to_vec(), [1, $int::MIN, 2]);
            Ok(())
        }
    )*};
}
integers!(u8 u16 u32 u64 i8 i16 i32 i64);

#[test]
fn index_out_of_range_is_an_error() -> Outcome {
    let array = AtomicArray::from_slice(&[1_u32, 2])?;
    let errors = [
        array.load(2).map(drop),
        array.store(2, 9),
        array.swap(2, 9).map(drop),
        array.compare_exchange(2, 1, 9).map(drop),
        array.fetch_update(2, |_| unreachable!("there is no such element")).map(drop),
        array.fetch_add(2, 1).map(drop),
        array.fetch_sub(2, 1).map(drop),
        array.fetch_max(2, 1).map(drop),
        array.fetch_min(2, 1).map(drop),
    ];
    for error in errors {
        let error = error.expect_err("there are two");
        assert_eq!((error.asked(), error.length()), (2..3, 2));
    }
    assert!(array.load(usize::MAX).is_err());
    assert_eq!(array.to_vec(), [1, 2]);
    let none = AtomicArray::<u8>::new(0)?;
    assert!(none.is_empty() && none.to_vec().is_empty() && none.load(0).is_err());
    Ok(())
}

#[test]
fn constructors_make_and_find_by_name() -> Outcome {
    let name = unique("atomic-array");
    let array = AtomicArray::<f64>::create(&name, 3)?;
    array.store(1, 0.5)?;
    let found = AtomicArray::<f64>::open(&name)?;
    assert_eq!((found.to_vec(), found.name()), (vec![0.0, 0.5, 0.0], Some(&*name)));
    assert_eq!(AtomicArray::<f64>::open_or_create(&name, 3)?.load(1)?, 0.5);
    assert_eq!(
        AtomicArray::<f64>::open_or_create(&name, 2).expect_err("another length").kind(),
        ErrorKind::Mismatch
    );
    assert_eq!(AtomicArray::<u64>::open(&name).expect_err("another type").kind(), ErrorKind::Mismatch);
    AtomicArray::<f64>::unlink(&name)?;
    assert_eq!(AtomicArray::<f64>::open(&name).expect_err("no name").kind(), ErrorKind::NotFound);
    assert_eq!(AtomicArray::<u8>::new(usize::MAX).expect_err("too many").kind(), ErrorKind::Invalid);
    Ok(())
}

#[test]
fn no_addition_of_several_threads_is_lost() -> Outcome {
    const ROUNDS: u32 = 20_000;
    let _watchdog = watchdog();
    let (wide, narrow) = (AtomicArray::<u64>::new(3)?, AtomicArray::<u16>::new(3)?);
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for round in 0..ROUNDS {
                    wide.fetch_add(round as usize % 2, 3).expect("it is there");
                    narrow.fetch_add(1, 1).expect("it is there");
                }
            });
        }
    });
    let half = 2 * 3 * u64::from(ROUNDS);
    assert_eq!(wide.to_vec(), [half, half, 0]);
    assert_eq!(
        (u32::from(narrow.load(1)?), narrow.load(0)?, narrow.load(2)?),
        (4 * ROUNDS % (1 << 16), 0, 0)
    );
    Ok(())
}
