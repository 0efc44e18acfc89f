//! `AtomicValue`: every operation, every element type, and sums from several threads.

mod common;

use std::thread;

use multiproc_shm::AtomicValue;

use common::{Outcome, watchdog};

#[test]
fn operations_return_what_they_promise() -> Outcome {
    let value = AtomicValue::new(5_u64)?;
    assert_eq!(value.load(), 5);
    value.store(6);
    assert_eq!(value.swap(7), 6);
    assert_eq!(value.compare_exchange(7, 8), Ok(7));
    assert_eq!(value.compare_exchange(7, 9), Err(8));
    assert_eq!(value.fetch_update(|it| it * 2), 8);
    assert_eq!(value.load(), 16);
    assert_eq!(format!("{value:?}"), "AtomicValue { object: atomic value (anonymous), value: 16 }");
    Ok(())
}

/// For each integer type: additions wrap around at the boundaries.
macro_rules! integers {
    ($($int:ident)*) => {$(
        #[test]
        fn $int() -> Outcome {
            let value = AtomicValue::new($int::MAX)?;
            assert_eq!(value.fetch_add(1), $int::MAX);
            assert_eq!(value.load(), $int::MIN);
            assert_eq!(value.fetch_sub(1), $int::MIN);
            assert_eq!(value.load(), $int::MAX);
            value.store(3);
            assert_eq!(value.fetch_max(5), 3);
            assert_eq!(value.fetch_max(4), 5);
            assert_eq!(value.fetch_min(2), 5);
            assert_eq!(value.fetch_min(4), 2);
            assert_eq!(value.fetch_add(7), 2);
            assert_eq!(value.compare_exchange(9, $int::MIN), Ok(9));
            assert_eq!(value.load(), $int::MIN);
            Ok(())
        }
    )*};
}
integers!(u8 u16 u32 u64 i8 i16 i32 i64);

#[test]
fn other_plain_types_work() -> Outcome {
    let float = AtomicValue::new(1.5_f64)?;
    assert_eq!(float.fetch_update(|it| it / 2.0), 1.5);
    assert_eq!(float.load(), 0.75);
    // The bytes are compared, so a NaN equals itself.
    float.store(f64::NAN);
    assert!(float.compare_exchange(f64::NAN, 1.0).is_ok_and(f64::is_nan));

    let odd = AtomicValue::new([1_u8, 2, 3])?;
    assert_eq!(odd.swap([4, 5, 6]), [1, 2, 3]);
    assert_eq!(odd.compare_exchange([4, 5, 6], [7, 8, 9]), Ok([4, 5, 6]));
    assert_eq!(odd.load(), [7, 8, 9]);

    let empty = AtomicValue::new([0_u8; 0])?;
    empty.store([]);
    assert_eq!(empty.load(), [0_u8; 0]);

    let pair = AtomicValue::new([1_u32, 2])?;
    pair.fetch_update(|[a, b]| [b, a]);
    assert_eq!(pair.load(), [2, 1]);
    Ok(())
}

#[test]
fn no_addition_of_several_threads_is_lost() -> Outcome {
    const ROUNDS: u32 = 20_000;
    let _watchdog = watchdog();
    let (wide, narrow) = (AtomicValue::new(0_u64)?, AtomicValue::new(0_u16)?);
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    wide.fetch_add(3);
                    narrow.fetch_add(1);
                }
            });
        }
    });
    assert_eq!(wide.load(), 4 * 3 * u64::from(ROUNDS));
    assert_eq!(u32::from(narrow.load()), 4 * ROUNDS % (1 << 16));
    Ok(())
}
