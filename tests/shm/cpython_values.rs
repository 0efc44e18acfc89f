//! CPython's tests of `Value`, `Array`, `sharedctypes` and the heap (`Lib/test/_test_multiprocessing.py`),
//! under their names. The table is in `docs/CONFORMANCE.md`.

use multiproc::{Array, ArrayError, ArrayLockError, AtomicArray, AtomicValue, Pod, Value, Zeroable};
use serde::{Deserialize, Serialize};

use crate::common::{Dice, Outcome, Space, alone, spawn, value};

/// The text of an error, for the results of children.
fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

/// `_TestValue`.
mod test_value {
    use super::*;

    #[test]
    fn test_value() -> Outcome {
        type Values = (Value<i32>, Value<f64>, Value<i16>, Value<i64>, Value<u8>);
        fn child((i, d, h, q, c): Values) -> Result<(), String> {
            i.set(24234).map_err(text)?;
            d.set(-4.25).map_err(text)?;
            h.set(234).map_err(text)?;
            q.set(1 << 34).map_err(text)?;
            c.set(b'y').map_err(text)
        }
        let _alone = alone();
        let values = (
            Value::new(4343)?,
            Value::new(3.625)?,
            Value::new(-232)?,
            Value::new(1 << 33)?,
            Value::new(b'x')?,
        );
        let (i, d, h, q, c) = &values;
        assert_eq!((i.get()?, d.get()?, h.get()?, q.get()?, c.get()?), (4343, 3.625, -232, 1 << 33, b'x'));
        assert_eq!(value(&spawn(child, values.clone())), Ok(()));
        assert_eq!((i.get()?, d.get()?, h.get()?, q.get()?, c.get()?), (24234, -4.25, 234, 1 << 34, b'y'));
        Ok(())
    }

    #[test]
    fn test_rawvalue() -> Outcome {
        type Values =
            (AtomicValue<i32>, AtomicValue<f64>, AtomicValue<i16>, AtomicValue<i64>, AtomicValue<u8>);
        fn child((i, d, h, q, c): Values) {
            i.store(24234);
            d.store(-4.25);
            h.store(234);
            q.store(1 << 34);
            c.store(b'y');
        }
        let _alone = alone();
        let values = (
            AtomicValue::new(4343)?,
            AtomicValue::new(3.625)?,
            AtomicValue::new(-232)?,
            AtomicValue::new(1 << 33)?,
            AtomicValue::new(b'x')?,
        );
        let (i, d, h, q, c) = &values;
        assert_eq!((i.load(), d.load(), h.load(), q.load(), c.load()), (4343, 3.625, -232, 1 << 33, b'x'));
        value(&spawn(child, values.clone()));
        assert_eq!((i.load(), d.load(), h.load(), q.load(), c.load()), (24234, -4.25, 234, 1 << 34, b'y'));
        Ok(())
    }

    /// `get_lock` is `lock`, and `get_obj` is what its guard refers to. An `AtomicValue` has neither: using
    /// them would not compile.
    #[test]
    fn test_getobj_getlock() -> Outcome {
        let shared = Value::new(5_i32)?;
        let mut guard = shared.lock()?;
        assert!(shared.owner().is_some());
        assert_eq!(*guard, 5);
        *guard = 6;
        drop(guard);
        assert!(shared.owner().is_none());
        assert_eq!(shared.get()?, 6);
        Ok(())
    }
}

/// `_TestArray`.
mod test_array {
    use super::*;

    const SEQUENCE: [i32; 10] = [680, 626, 934, 821, 150, 233, 548, 982, 714, 831];

    /// The child's work, on a plain array.
    fn sums(mut sequence: [i32; 10]) -> [i32; 10] {
        for index in 1..10 {
            sequence[index] += sequence[index - 1];
        }
        sequence
    }

    #[test]
    fn test_array() -> Outcome {
        fn child(array: Array<i32>) -> Result<(), String> {
            for index in 1..array.len() {
                let before = array.get(index - 1).map_err(text)?;
                array.update(index, |it| *it += before).map_err(text)?;
            }
            Ok(())
        }
        let _alone = alone();
        let (mut sequence, array) = (SEQUENCE, Array::from_slice(&SEQUENCE)?);
        assert_eq!((array.len(), array.get(3)?), (10, sequence[3]));
        let mut middle = [0; 5];
        array.read_at(2, &mut middle)?;
        assert_eq!(middle, sequence[2..7]);
        sequence[4..8].copy_from_slice(&[1, 2, 3, 4]);
        array.write_at(4, &[1, 2, 3, 4])?;
        assert_eq!(array.to_vec()?, sequence);
        assert_eq!(value(&spawn(child, array.clone())), Ok(()));
        assert_eq!(array.to_vec()?, sums(sequence));
        Ok(())
    }

    #[test]
    fn test_array_from_size() -> Outcome {
        for _ in 0..3 {
            let array = Array::<i32>::new(10)?;
            assert_eq!((array.len(), array.to_vec()?), (10, vec![0; 10]));
            let numbers: Vec<i32> = (0..10).collect();
            array.copy_from(&numbers)?;
            assert_eq!(array.to_vec()?, numbers);
        }
        Ok(())
    }

    #[test]
    fn test_rawarray() -> Outcome {
        fn child(array: AtomicArray<i32>) -> Result<(), String> {
            for index in 1..array.len() {
                array.fetch_add(index, array.load(index - 1).map_err(text)?).map_err(text)?;
            }
            Ok(())
        }
        let _alone = alone();
        let (mut sequence, array) = (SEQUENCE, AtomicArray::from_slice(&SEQUENCE)?);
        assert_eq!((array.len(), array.load(3)?), (10, sequence[3]));
        assert_eq!(array.to_vec()[2..7], sequence[2..7]);
        sequence[4..8].copy_from_slice(&[1, 2, 3, 4]);
        for (index, value) in (4..8).zip([1, 2, 3, 4]) {
            array.store(index, value)?;
        }
        assert_eq!(array.to_vec(), sequence);
        assert_eq!(value(&spawn(child, array.clone())), Ok(()));
        assert_eq!(array.to_vec(), sums(sequence));
        Ok(())
    }

    /// `get_lock` is `lock`, and `get_obj` is its guard. An `AtomicArray` has neither.
    #[test]
    fn test_getobj_getlock_obj() -> Outcome {
        let numbers: Vec<i32> = (0..10).collect();
        let array = Array::from_slice(&numbers)?;
        let mut guard = array.lock().map_err(ArrayLockError::into_static)?;
        assert!(array.owner().is_some());
        assert_eq!(guard.to_vec(), numbers);
        guard.set(0, 7)?;
        drop(guard);
        assert!(array.owner().is_none());
        assert_eq!(array.get(0)?, 7);
        Ok(())
    }
}

/// `_Foo`: C adds padding behind `x`, which plain data must have as a field.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C)]
struct Foo {
    x: i32,
    padding: u32,
    y: f64,
    z: i64,
}

const FOO: Foo = Foo { x: 3, padding: 0, y: 2.0, z: 0 };

/// Letters followed by zeros, as the `value` of Python's `c_char` array.
fn twice(letters: &[u8]) -> Vec<u8> {
    let value: Vec<u8> = letters.iter().copied().take_while(|letter| *letter != 0).collect();
    let mut doubled = value.repeat(2);
    doubled.resize(letters.len(), 0);
    doubled
}

fn hello(letters: &str) -> Vec<u8> {
    let mut bytes = letters.as_bytes().to_vec();
    bytes.resize(20, 0);
    bytes
}

/// `_TestSharedCTypes`.
mod test_shared_c_types {
    use super::*;

    #[derive(Clone, Serialize, Deserialize)]
    struct Raw {
        x: AtomicValue<i32>,
        y: AtomicValue<f64>,
        z: AtomicValue<i64>,
        foo: Value<Foo>,
        numbers: AtomicArray<f64>,
        string: AtomicArray<u8>,
    }

    /// Without locks, except for the struct of 24 bytes.
    #[test]
    fn test_sharedctypes() -> Outcome {
        fn child(raw: Raw) -> Result<(), String> {
            raw.x.fetch_update(|it| it * 2);
            raw.y.fetch_update(|it| it * 2.0);
            raw.z.fetch_update(|it| it * 2);
            raw.foo.update(double).map_err(text)?;
            for (index, letter) in twice(&raw.string.to_vec()).into_iter().enumerate() {
                raw.string.store(index, letter).map_err(text)?;
            }
            for index in 0..raw.numbers.len() {
                raw.numbers.fetch_update(index, |it| it * 2.0).map_err(text)?;
            }
            Ok(())
        }
        let _alone = alone();
        let raw = Raw {
            x: AtomicValue::new(7)?,
            y: AtomicValue::new(1.0 / 3.0)?,
            z: AtomicValue::new(1 << 33)?,
            foo: Value::new(FOO)?,
            numbers: AtomicArray::from_slice(&numbers())?,
            string: AtomicArray::from_slice(&hello("hello"))?,
        };
        assert_eq!(value(&spawn(child, raw.clone())), Ok(()));
        assert_eq!((raw.x.load(), raw.y.load(), raw.z.load()), (14, 2.0 / 3.0, 1 << 34));
        let foo = raw.foo.get()?;
        assert_eq!((foo.x, foo.y), (6, 4.0));
        assert_eq!(raw.numbers.to_vec(), numbers().map(|it| it * 2.0));
        assert_eq!(raw.string.to_vec(), hello("hellohello"));
        Ok(())
    }

    #[derive(Clone, Serialize, Deserialize)]
    struct Locked {
        x: Value<i32>,
        y: Value<f64>,
        z: Value<i64>,
        foo: Value<Foo>,
        numbers: Array<f64>,
        string: Array<u8>,
    }

    #[test]
    fn test_synchronize() -> Outcome {
        fn child(locked: Locked) -> Result<(), String> {
            locked.x.update(|it| *it *= 2).map_err(text)?;
            locked.y.update(|it| *it *= 2.0).map_err(text)?;
            locked.z.update(|it| *it *= 2).map_err(text)?;
            locked.foo.update(double).map_err(text)?;
            let arrays = || -> Result<(), ArrayError> {
                let mut guard = locked.string.lock()?;
                let letters = twice(&guard.to_vec());
                guard.copy_from(&letters)?;
                (0..locked.numbers.len())
                    .try_for_each(|index| locked.numbers.update(index, |it| *it *= 2.0).map(|_| ()))
            };
            arrays().map_err(text)
        }
        let _alone = alone();
        let locked = Locked {
            x: Value::new(7)?,
            y: Value::new(1.0 / 3.0)?,
            z: Value::new(1 << 33)?,
            foo: Value::new(FOO)?,
            numbers: Array::from_slice(&numbers())?,
            string: Array::new(20)?,
        };
        locked.string.write_at(0, b"hello")?;
        assert_eq!(value(&spawn(child, locked.clone())), Ok(()));
        assert_eq!((locked.x.get()?, locked.y.get()?, locked.z.get()?), (14, 2.0 / 3.0, 1 << 34));
        let foo = locked.foo.get()?;
        assert_eq!((foo.x, foo.y), (6, 4.0));
        assert_eq!(locked.numbers.to_vec()?, numbers().map(|it| it * 2.0));
        assert_eq!(locked.string.to_vec()?, hello("hellohello"));
        Ok(())
    }

    #[test]
    fn test_copy() -> Outcome {
        let foo = Value::new(Foo { x: 2, padding: 0, y: 5.0, z: 1 << 33 })?;
        let bar = Value::new(foo.get()?)?;
        foo.set(Foo::zeroed())?;
        assert_eq!(bar.get()?, Foo { x: 2, padding: 0, y: 5.0, z: 1 << 33 });
        Ok(())
    }

    fn double(it: &mut Foo) {
        it.x *= 2;
        it.y *= 2.0;
    }

    fn numbers() -> [f64; 10] {
        std::array::from_fn(|index| u8::try_from(index).map_or(0.0, f64::from))
    }
}

/// `_TestHeap`.
mod test_heap {
    use super::*;

    /// There is no heap: each object is a file. So the test checks that no two of many arrays overlap, and
    /// that dropped ones are gone.
    #[test]
    fn test_heap() -> Outcome {
        const ROUNDS: u64 = 2_000;
        const BLOCKS: usize = 50;
        let _alone = alone();
        let (space, mut dice) = (Space::new(), Dice::of_this_run());
        let mut blocks: Vec<(Array<u64>, u64)> = Vec::new();
        for round in 0..ROUNDS {
            let most = 1 << dice.below(12);
            let length = usize::try_from(dice.below(most))?;
            let block: Array<u64> = space.options().anonymous(length)?;
            assert!(block.to_vec()?.iter().all(|it| *it == 0), "fresh blocks are zeros");
            block.fill(round)?;
            blocks.push((block, round));
            if blocks.len() > BLOCKS {
                drop(blocks.swap_remove(usize::try_from(dice.below(BLOCKS as u64))?));
            }
        }
        assert_eq!(space.entries().len(), BLOCKS);
        for (block, round) in &blocks {
            assert!(block.to_vec()?.iter().all(|it| it == round), "{block:?} is another one's");
        }
        blocks.clear();
        assert_eq!(space.entries(), [""; 0]);
        Ok(())
    }
}
