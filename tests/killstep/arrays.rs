//! Arrays: as before, as after, or reported as half written; never half written without a report.

use multiproc::{Array, ArrayError, ArrayGuard, ArrayLockError, AtomicArray};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{SOON, ignore, nothing_left, ours};

/// Three words: what no single store can write.
type Three = [u64; 3];
const OLD: Three = [1; 3];
const NEW: Three = [2; 3];
/// Why a case is not frozen.
const FIRST: &str =
    "a peer that comes while the victim stands before its lock is overwritten, as it should be";
/// So many that they are copied by assembly: 312 bytes.
const MANY: usize = 13;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases().into_iter().chain(recoveries()) {
        sweep.run(&case.without(
            Mode::Double,
            "the next process after a writer must recover: `array/fill, then a recoverer`",
        ));
    }
    for case in recoverers() {
        sweep.run(&case);
    }
    for case in small_cases() {
        sweep.run(&case);
    }
    for case in atomic_cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Array<Three>>> {
    vec![
        case("array/fill", |array, _| array.fill(NEW).unwrap(), whole_or_reported),
        case("array/copy_from", |array, _| array.copy_from(&[NEW; MANY]).unwrap(), whole_or_reported),
        case("array/write_at", |array, _| array.write_at(0, &[NEW; MANY]).unwrap(), whole_or_reported),
        case("array/lock+set", |array, _| set_all(&mut array.lock().unwrap()), whole_or_reported),
        case(
            "array/try_lock+set",
            |array, _| set_all(&mut array.try_lock().unwrap().unwrap()),
            whole_or_reported,
        ),
        case(
            "array/lock_timeout+set",
            |array, _| set_all(&mut array.lock_timeout(SOON).unwrap().unwrap()),
            whole_or_reported,
        ),
        case(
            "array/lock+as_mut_slice",
            |array, _| fill_in_place(&mut array.lock().unwrap()),
            whole_or_reported,
        ),
        case("array/set, of three words", |array, _| array.set(1, NEW).unwrap(), one_or_reported),
        case(
            "array/update, of three words",
            |array, _| ignore(array.update(1, |it| *it = NEW).unwrap()),
            one_or_reported,
        ),
        case("array/swap", |array, _| array.lock().unwrap().swap(0, 1).unwrap(), swapped_or_reported)
            .warm(|array, _| array.set(0, NEW).unwrap()),
        case("array/get", |array, _| ignore(array.get(1)), untouched),
        case("array/to_vec", |array, _| ignore(array.to_vec()), untouched),
        case("array/copy_to", |array, _| array.copy_to(&mut [OLD; MANY]).unwrap(), untouched),
        case("array/read_at", |array, _| array.read_at(1, &mut [OLD; 2]).unwrap(), untouched),
        case("array/write_at, out of range", |array, _| ignore(array.write_at(1, &[NEW; MANY])), untouched),
        case("array/fill, another waits", |array, _| array.fill(NEW).unwrap(), passed_on)
            .late_peer(|array, _| add_ten(array))
            .without(Mode::Freeze, FIRST),
        case(
            "array/lock+set, two wait",
            |array, _| set_all(&mut array.lock().unwrap()),
            |array, kill| {
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                // The process that gets the report begins anew, and the other adds to that.
                all_equal(array, &[OLD.map(|one| one + 20), NEW.map(|two| two + 20)])
            },
        )
        .late_peer(|array, _| add_ten(array))
        .late_peer(|array, _| add_ten(array))
        .without(Mode::Freeze, FIRST),
    ]
}

/// The array is half written, and the victim repairs it.
fn recoveries() -> Vec<Case<'static, Array<Three>>> {
    let case = |name: &str,
                victim: fn(&Array<Three>, &Cells),
                survive: fn(&Array<Three>, &Kill<'_>) -> Result<(), Fault>| {
        let arrange = || {
            let array = Array::from_slice(&[OLD; MANY]).unwrap();
            half_write(&array);
            array
        };
        Case::new(name, arrange, victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
    };
    vec![
        case("array/recover+fill", |array, _| recovered(array).fill(NEW).unwrap(), new_or_reported),
        case(
            "array/recover",
            |array, _| drop(recovered(array)),
            |array, kill| match array.lock() {
                Ok(guard) if guard.get(MANY - 1) == Some(NEW) => Ok(()),
                Ok(_) => Err(Fault::Torn("another array".into())),
                Err(_) if kill.finished() => Err(Fault::Lost("it had been recovered".into())),
                Err(error) => repair(array, error),
            },
        ),
        case(
            "array/refused",
            |array, _| ignore(array.get(0)),
            |array, _| match array.lock() {
                Ok(_) => Err(Fault::Torn("no report any more".into())),
                Err(error) => repair(array, error),
            },
        ),
        case("array/recover+fill, another waits", |array, _| recovered(array).fill(NEW).unwrap(), passed_on)
            .late_peer(|array, _| add_ten(array))
            .without(Mode::Freeze, FIRST),
    ]
}

/// Double kills.
fn recoverers() -> Vec<Case<'static, Array<Three>>> {
    let recoverer = |array: &Array<Three>, _: &Cells| recovered(array).fill(NEW).unwrap();
    vec![
        case(
            "array/fill, then a recoverer",
            |array, _| array.fill(NEW).unwrap(),
            |array, kill| match array.lock() {
                Err(_) if kill.recoverer_finished() => Err(Fault::Lost("it had been recovered".into())),
                Err(error) => repair(array, error),
                Ok(guard) => match guard.to_vec() {
                    all if all == [NEW; MANY] || all == [OLD; MANY] && !kill.recoverer_finished() => Ok(()),
                    other => Err(Fault::Torn(format!("no report: {other:?}"))),
                },
            },
        )
        .recoverer(recoverer),
    ]
}

/// Elements of one word: a death in `set` or `update` is never reported.
fn small_cases() -> Vec<Case<'static, Array<u32>>> {
    let case = |name: &str, victim: fn(&Array<u32>)| {
        Case::new(
            name,
            || Array::from_slice(&[1_u32, 2, 3]).unwrap(),
            move |array: &Array<u32>, _: &Cells| victim(array),
            |array: &Array<u32>, kill: &Kill<'_>| match array.to_vec()?[..] {
                [1, 2, 3] if kill.finished() => Err(Fault::Lost("it had returned".into())),
                [1, 2, 3] | [1, 9, 3] => Ok(()),
                ref other => Err(Fault::Torn(format!("{other:?}"))),
            },
        )
        .watch(|_| ours())
        .finally(nothing_left)
    };
    vec![
        case("array/set", |array| array.set(1, 9).unwrap()),
        case("array/update", |array| ignore(array.update(1, |it| *it = 9).unwrap())),
    ]
}

fn atomic_cases() -> Vec<Case<'static, AtomicArray<u32>>> {
    let case = |name: &str, victim: fn(&AtomicArray<u32>)| {
        Case::new(
            name,
            || AtomicArray::from_slice(&[7_u32, 1, 7]).unwrap(),
            move |array: &AtomicArray<u32>, _: &Cells| victim(array),
            |array: &AtomicArray<u32>, kill: &Kill<'_>| match array.to_vec()[..] {
                [7, 1, 7] if kill.finished() => Err(Fault::Lost("it had returned".into())),
                [7, 1 | 2, 7] => Ok(()),
                ref other => Err(Fault::Torn(format!("{other:?}"))),
            },
        )
        .watch(|_| ours())
        .finally(nothing_left)
    };
    vec![
        case("array/atomic store", |array| array.store(1, 2).unwrap()),
        case("array/atomic swap", |array| ignore(array.swap(1, 2))),
        case("array/atomic compare_exchange", |array| ignore(array.compare_exchange(1, 1, 2))),
        case("array/atomic fetch_update", |array| ignore(array.fetch_update(1, |number| number + 1))),
        case("array/atomic fetch_add", |array| ignore(array.fetch_add(1, 1))),
        case("array/atomic fetch_sub", |array| ignore(array.fetch_sub(1, u32::MAX))),
        case("array/atomic fetch_max", |array| ignore(array.fetch_max(1, 2))),
        case("array/atomic fetch_min", |array| {
            ignore(array.fetch_min(1, 2));
            array.store(1, 2).unwrap();
        }),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Array<Three>, &Cells) + 'static,
    survive: impl Fn(&Array<Three>, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Array<Three>> {
    let arrange = || Array::from_slice(&[OLD; MANY]).unwrap();
    Case::new(name, arrange, victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
}

fn set_all(guard: &mut ArrayGuard<'_, Three>) {
    (0..guard.len()).for_each(|index| guard.set(index, NEW).unwrap());
}

fn fill_in_place(guard: &mut ArrayGuard<'_, Three>) {
    // SAFETY: no other thread touches the array while the victim has it.
    unsafe { guard.as_mut_slice() }.fill(NEW);
}

fn recovered(array: &Array<Three>) -> ArrayGuard<'_, Three> {
    match array.lock() {
        Ok(guard) => guard,
        Err(error) => error.recover().unwrap(),
    }
}

/// Left half written by a thread that ended with its guard.
fn half_write(array: &Array<Three>) {
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut guard = array.lock().unwrap();
            guard.set(MANY - 1, NEW).unwrap();
            std::mem::forget(guard);
        });
    });
}

fn add_ten(array: &Array<Three>) {
    let mut guard = match array.lock() {
        Ok(guard) => guard,
        Err(error) => {
            let mut guard = error.recover().unwrap();
            guard.fill(OLD).unwrap();
            guard
        }
    };
    let more: Vec<Three> = guard.iter().map(|three| three.map(|number| number + 10)).collect();
    guard.copy_from(&more).unwrap();
}

fn whole_or_reported(array: &Array<Three>, kill: &Kill<'_>) -> Result<(), Fault> {
    expect(array, kill, &[OLD; MANY], &[NEW; MANY])
}

fn one_or_reported(array: &Array<Three>, kill: &Kill<'_>) -> Result<(), Fault> {
    let mut new = [OLD; MANY];
    new[1] = NEW;
    expect(array, kill, &[OLD; MANY], &new)
}

fn swapped_or_reported(array: &Array<Three>, kill: &Kill<'_>) -> Result<(), Fault> {
    let [mut old, mut new] = [[OLD; MANY]; 2];
    old[0] = NEW;
    new[1] = NEW;
    expect(array, kill, &old, &new)
}

fn untouched(array: &Array<Three>, _: &Kill<'_>) -> Result<(), Fault> {
    let all = array.to_vec()?;
    if all == [OLD; MANY] { usable(array) } else { Err(Fault::Torn("a look changed it".into())) }
}

fn new_or_reported(array: &Array<Three>, kill: &Kill<'_>) -> Result<(), Fault> {
    expect(array, kill, &[NEW; MANY], &[NEW; MANY])
}

/// Before, after, or reported: then with the victim's id, again and again, until the array is recovered.
fn expect(array: &Array<Three>, kill: &Kill<'_>, old: &[Three], new: &[Three]) -> Result<(), Fault> {
    match array.lock() {
        Ok(guard) => match guard.to_vec() {
            all if all == new => {}
            all if all == old && kill.finished() => return Err(Fault::Lost("it had returned".into())),
            all if all == old => {}
            other => return Err(Fault::Torn(format!("no report: {other:?}"))),
        },
        Err(error) if kill.finished() => return Err(Fault::Torn(format!("it had ended: {error}"))),
        Err(error) => return repair(array, error),
    }
    usable(array)
}

/// The error of a half-written array comes again, until a process recovers the array.
fn repair(array: &Array<Three>, error: ArrayLockError<'_, Three>) -> Result<(), Fault> {
    let ArrayError::HalfWritten(half) = error.into_static() else {
        return Err(Fault::Torn("no lock".into()));
    };
    let Err(ArrayLockError::OwnerDied(died)) = array.lock() else {
        return Err(Fault::Torn("reported only once".into()));
    };
    if died.writer() != half.writer() || half.writer().pid().is_none() {
        return Err(Fault::Torn(format!("{half:?}, then {died:?}")));
    }
    died.recover().fill(OLD)?;
    usable(array)
}

fn passed_on(array: &Array<Three>, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(0)?;
    // A victim that came first and ended, a victim that did not, and a victim that came after the waiter.
    let after = [OLD.map(|one| one + 10), NEW.map(|two| two + 10)];
    all_equal(array, if kill.finished() { &after[1..] } else { &after })
}

fn all_equal(array: &Array<Three>, allowed: &[Three]) -> Result<(), Fault> {
    let all = array.to_vec()?;
    let sound = all.iter().all(|three| *three == all[0]) && allowed.contains(&all[0]);
    if sound { usable(array) } else { Err(Fault::Torn(format!("{all:?}"))) }
}

fn usable(array: &Array<Three>) -> Result<(), Fault> {
    for number in 3..6 {
        let guard = array.lock_timeout(SOON).map_err(ArrayLockError::into_static)?;
        let Some(mut guard) = guard else { return Err(Fault::Hang("no process gets it any more".into())) };
        guard.fill([number; 3])?;
        drop(guard);
        if array.to_vec()? != [[number; 3]; MANY] {
            return Err(Fault::Lost(format!("{number}")));
        }
    }
    Ok(())
}
