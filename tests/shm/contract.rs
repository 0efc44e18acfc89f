//! Promises to several processes at once: of names, of the two value types, of the wait words.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use multiproc::robust::{AcquireError, Deadline, Park, Side, SidePeer, Waiter};
use multiproc::shm::ValueGuard;
use multiproc::{AtomicValue, Capacity, ErrorKind, Lock, Queue, Value};

use crate::common::{Outcome, alone, spawn, unique, value, wait_for, wait_until};
use crate::words::{Words, WordsBlock};

#[test]
fn open_or_create_by_eight_processes_is_one_object() -> Outcome {
    const ROUNDS: u64 = 100;
    fn child((name, ready, go): (String, AtomicValue<u32>, AtomicValue<u32>)) -> Result<u64, String> {
        ready.fetch_add(1);
        wait_for(&go, 1);
        let sum = Value::open_or_create(&name, 1000_u64).map_err(|error| error.to_string())?;
        for _ in 0..ROUNDS {
            sum.update(|it| *it += 1).map_err(|error| error.to_string())?;
        }
        // Keeps the handle until all have one.
        ready.fetch_add(1);
        wait_for(&go, 2);
        sum.get().map_err(|error| error.to_string())
    }
    let _alone = alone();
    let name = unique("eight");
    let (ready, go) = (AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
    let children: Vec<_> = (0..8).map(|_| spawn(child, (name.clone(), ready.clone(), go.clone()))).collect();
    wait_for(&ready, 8);
    go.store(1);
    wait_for(&ready, 16);
    go.store(2);
    for child in &children {
        assert_eq!(value(child), Ok(1000 + 8 * ROUNDS));
    }
    assert_eq!(Value::<u64>::open(&name).expect_err("its users have gone").kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn errors_of_two_processes_name_both_objects() -> Outcome {
    fn child(name: String) -> Vec<String> {
        let errors = [
            Value::create(&name, 1_u32).map(drop),
            Value::<u64>::open(&name).map(drop),
            AtomicValue::<u32>::open(&name).map(drop),
            Lock::open(&name).map(drop),
            Queue::<u32>::open(&name).map(drop),
            Queue::<u32>::open_or_create(&name, 8).map(drop),
        ];
        errors
            .into_iter()
            .map(|result| result.map_or_else(|error| error.to_string(), |()| "worked".to_owned()))
            .collect()
    }
    let _alone = alone();
    let name = unique("verbs");
    let _value = Value::create(&name, 5_u32)?;
    let errors = value(&spawn(child, name.clone()));
    let wanted = [
        format!("create value {name:?}: already exists"),
        format!(
            "open value {name:?}: was made with other parameters: it holds u32 (4 bytes, aligned to 4), \
             not u64 (8 bytes, aligned to 8)"
        ),
        format!("open atomic value {name:?}: is of another kind: it is a value"),
        format!("open lock {name:?}: is of another kind: it is a value"),
        format!("open queue {name:?}: is of another kind: it is a value"),
        format!("open queue {name:?}: is of another kind: it is a value"),
    ];
    assert_eq!(errors, wanted);
    Ok(())
}

#[test]
fn other_capacity_is_a_mismatch() -> Outcome {
    fn child(name: String) -> (Option<usize>, Vec<String>) {
        let same = Queue::<u32>::open_or_create(&name, Capacity::messages(8).bytes(4096))
            .map(|queue| queue.capacity());
        let same = same.ok().flatten();
        let others = [
            Queue::<u32>::open_or_create(&name, Capacity::messages(9).bytes(4096)),
            Queue::<u32>::open_or_create(&name, Capacity::messages(8).bytes(8192)),
            Queue::open_or_create(&name, Capacity::messages(8).bytes(4096))
                .map(|_: Queue<String>| unreachable!("another type")),
        ];
        (
            same,
            others
                .into_iter()
                .map(|result| format!("{:?}", result.map_err(|error| error.kind()).map(drop)))
                .collect(),
        )
    }
    let _alone = alone();
    let name = unique("capacity");
    let _queue = Queue::<u32>::create(&name, Capacity::messages(8).bytes(4096))?;
    let (same, others) = value(&spawn(child, name));
    assert_eq!(same, Some(8));
    assert_eq!(others, ["Err(Mismatch)"; 3]);
    Ok(())
}

#[test]
fn handles_keep_an_object_that_another_process_unlinks() -> Outcome {
    fn child(name: String) -> Result<Value<u64>, String> {
        Value::<u64>::unlink(&name).map_err(|error| error.to_string())?;
        Value::create(&name, 2).map_err(|error| error.to_string())
    }
    let _alone = alone();
    let name = unique("unlinked");
    let old = Value::create(&name, 1_u64)?;
    // The child has ended, and has returned the object it made.
    let new = value(&spawn(child, name.clone()))?;
    old.set(3)?;
    assert_eq!((old.get()?, new.get()?, Value::<u64>::open(&name)?.get()?), (3, 2, 2));
    Ok(())
}

#[test]
fn value_is_exclusive_between_processes() -> Outcome {
    const ROUNDS: u64 = 3_000;
    fn child((sum, ready): (Value<[u64; 3]>, AtomicValue<u32>)) {
        ready.fetch_add(1);
        wait_for(&ready, 4);
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                sum.update(|it| it.iter_mut().for_each(|word| *word += 1)).expect("no error");
            } else {
                let mut guard = sum.lock().expect("no error");
                assert!(ValueGuard::previous_owner_died(&guard).is_none());
                guard.iter_mut().for_each(|word| *word += 1);
            }
        }
    }
    let _alone = alone();
    let (sum, ready) = (Value::new([0_u64; 3])?, AtomicValue::new(0_u32)?);
    let children: Vec<_> = (0..4).map(|_| spawn(child, (sum.clone(), ready.clone()))).collect();
    children.iter().for_each(value);
    assert_eq!(sum.get()?, [4 * ROUNDS; 3]);
    Ok(())
}

/// Large enough for a copy by assembly, and more than a page.
type Big = [u64; 1000];

#[test]
fn value_is_never_read_half_written() -> Outcome {
    fn writer((shared, stop, ready): (Value<Big>, AtomicValue<u32>, AtomicValue<u32>)) -> u64 {
        let mut number = 0;
        while stop.load() == 0 {
            number += 1;
            shared.set([number; 1000]).expect("no error");
            if number == 1 {
                ready.fetch_add(1);
            }
        }
        number
    }
    fn reader(
        (shared, stop, ready): (Value<Big>, AtomicValue<u32>, AtomicValue<u32>),
    ) -> Result<u64, String> {
        let (mut reads, mut last) = (0, 0);
        while stop.load() == 0 {
            let it = shared.get().map_err(|error| error.to_string())?;
            if it.iter().any(|word| *word != it[0]) || it[0] < last {
                return Err(format!("after {last}: {it:?}"));
            }
            last = it[0];
            reads += 1;
            if reads == 1 {
                ready.fetch_add(1);
            }
        }
        Ok(reads)
    }
    let _alone = alone();
    let (shared, stop, ready) = (Value::new([0; 1000])?, AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
    let handles = || (shared.clone(), stop.clone(), ready.clone());
    let writing = spawn(writer, handles());
    let reading: Vec<_> = (0..3).map(|_| spawn(reader, handles())).collect();
    // For 300 ms after all of them have begun.
    wait_for(&ready, 4);
    let start = Instant::now();
    wait_until(|| start.elapsed() > Duration::from_millis(300));
    stop.store(1);
    assert!(value(&writing) > 0);
    for reader in &reading {
        assert!(value(reader)? > 0);
    }
    Ok(())
}

#[test]
fn no_addition_of_four_processes_is_lost() -> Outcome {
    const ROUNDS: u32 = 20_000;
    fn child(
        (wide, narrow, largest, ready): (
            AtomicValue<u64>,
            AtomicValue<u16>,
            AtomicValue<u32>,
            AtomicValue<u32>,
        ),
    ) {
        let index = ready.fetch_add(1);
        wait_for(&ready, 4);
        for round in 0..ROUNDS {
            wide.fetch_add(3);
            narrow.fetch_add(1);
            largest.fetch_max(4 * round + index);
        }
    }
    let _alone = alone();
    let (wide, narrow) = (AtomicValue::new(0_u64)?, AtomicValue::new(0_u16)?);
    let (largest, ready) = (AtomicValue::new(0_u32)?, AtomicValue::new(0_u32)?);
    let handles = || (wide.clone(), narrow.clone(), largest.clone(), ready.clone());
    let children: Vec<_> = (0..4).map(|_| spawn(child, handles())).collect();
    children.iter().for_each(value);
    assert_eq!(wide.load(), 4 * 3 * u64::from(ROUNDS));
    assert_eq!(u32::from(narrow.load()), 4 * ROUNDS % (1 << 16));
    assert_eq!(largest.load(), 4 * ROUNDS - 1);
    Ok(())
}

#[test]
fn event_count_lets_two_processes_alternate() -> Outcome {
    const ROUNDS: u64 = 2_000;
    fn child(words: Words) {
        play(&words, 1);
    }
    fn play(words: &Words, parity: u64) {
        for round in 0..ROUNDS {
            assert!(
                words.count.wait_until(Deadline::NEVER, || words.cells[0].load(SeqCst) == 2 * round + parity)
            );
            words.cells[0].fetch_add(1, SeqCst);
            words.count.wake_one();
        }
    }
    let _alone = alone();
    let words = Words::new()?;
    let start = Instant::now();
    let child = spawn(child, words.clone());
    play(&words, 0);
    value(&child);
    assert_eq!(words.cells[0].load(SeqCst), 2 * ROUNDS);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn event_count_wakes_all_processes() -> Outcome {
    fn child(words: Words) -> bool {
        words.cells[1].fetch_add(1, SeqCst);
        words.count.wait_until(Deadline::NEVER, || words.cells[0].load(SeqCst) != 0)
    }
    let _alone = alone();
    let words = Words::new()?;
    let children: Vec<_> = (0..3).map(|_| spawn(child, words.clone())).collect();
    wait_until(|| words.cells[1].load(SeqCst) == 3);
    words.cells[0].store(1, SeqCst);
    words.count.wake_all();
    assert!(children.iter().all(value));
    Ok(())
}

#[test]
fn event_wakes_processes_that_sleep() -> Outcome {
    fn child(words: Words) -> Option<bool> {
        words.cells[1].fetch_add(1, SeqCst);
        words.event.wait(Deadline::NEVER).then_some(true)
    }
    let _alone = alone();
    let words = Words::new()?;
    let children: Vec<_> = (0..3).map(|_| spawn(child, words.clone())).collect();
    wait_until(|| words.cells[1].load(SeqCst) == 3);
    words.event.set();
    assert!(children.iter().all(|child| value(child) == Some(true)));
    Ok(())
}

/// Waits until the cell of `words` is ready and acts on it: `mine` is this process's side, `other` the
/// opposite one.
#[allow(unsafe_code, reason = "entering a bare side promises that its memory stays")]
pub(crate) fn turn(
    words: &WordsBlock,
    [mine, other]: [&Side; 2],
    deadline: Deadline,
    ready: impl Fn(u64) -> bool,
    mut act: impl FnMut(&std::sync::atomic::AtomicU64),
) -> Result<(), AcquireError> {
    let ready = || ready(words.cells[0].load(SeqCst));
    let mut brief = true;
    loop {
        // SAFETY: the handle lives longer than this call.
        let _how = unsafe { mine.enter(deadline) }?;
        let acted = ready();
        if acted {
            act(&words.cells[0]);
        }
        assert!(mine.leave(other, Asked(&ready)));
        if acted {
            return Ok(());
        }
        if !other.park(mine, Park::new(brief, deadline), &Asked(&ready))? {
            return Err(AcquireError::TimedOut);
        }
        brief = false;
    }
}

/// A thread at the cell, which both sides look at in the same way.
struct Asked<F>(F);

impl<F: Fn() -> bool> SidePeer for Asked<F> {
    fn more(&self, _: bool) -> bool {
        (self.0)()
    }

    fn worth_it(&self) -> bool {
        true
    }

    fn news(&self) -> bool {
        true
    }
}

impl<F: Fn() -> bool> Waiter for Asked<F> {
    fn ready(&self) -> bool {
        (self.0)()
    }

    fn news(&self) -> bool {
        true
    }

    fn woken(&self) {}
}

/// Puts into an empty cell.
pub(crate) fn put(words: &WordsBlock, number: u64, deadline: Deadline) -> Result<(), AcquireError> {
    turn(words, [&words.puts, &words.takes], deadline, |it| it == 0, |cell| cell.store(number, SeqCst))
}

/// Takes from a full cell.
pub(crate) fn take(words: &WordsBlock, deadline: Deadline) -> Result<u64, AcquireError> {
    let mut number = 0;
    turn(words, [&words.takes, &words.puts], deadline, |it| it != 0, |cell| number = cell.swap(0, SeqCst))?;
    Ok(number)
}

#[test]
fn sides_let_two_processes_alternate() -> Outcome {
    const ROUNDS: u64 = 3_000;
    fn child(words: Words) -> bool {
        (1..=ROUNDS).all(|round| take(&words, Deadline::NEVER) == Ok(round))
    }
    let _alone = alone();
    let words = Words::new()?;
    let child = spawn(child, words.clone());
    for round in 1..=ROUNDS {
        put(&words, round, Deadline::NEVER)?;
    }
    assert!(value(&child));
    assert!(!words.puts.has_waiters() && !words.takes.has_waiters());
    Ok(())
}
