//! Values: before or after, never between.

use multiproc::{AtomicValue, Value};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{SOON, ignore, nothing_left, ours};

type Four = [u64; 4];
const OLD: Four = [1; 4];
const NEW: Four = [2; 4];

pub(crate) fn run(sweep: &mut Sweep, double: bool) {
    for case in cases() {
        sweep.run(&case);
    }
    if double {
        for case in heirs() {
            sweep.run(&case);
        }
    }
    for case in atomic_cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Value<Four>>> {
    vec![
        case("value/set", |value, _| ignore(value.set(NEW)), before_or_after),
        case("value/lock+commit", |value, _| *value.lock().unwrap() = NEW, before_or_after),
        case("value/replace", |value, _| ignore(value.replace(NEW)), before_or_after),
        case("value/compare_exchange", |value, _| ignore(value.compare_exchange(OLD, NEW)), before_or_after),
        case("value/try_lock+commit", |value, _| *value.try_lock().unwrap().unwrap() = NEW, before_or_after),
        case("value/lock_timeout+commit", |value, _| *value.lock_timeout(SOON).unwrap().unwrap() = NEW, before_or_after),
        case(
            "value/update, another waits",
            |value, _| ignore(value.update(|four| *four = NEW)),
            |value, kill| {
                kill.must_wake(0)?;
                match value.get()? {
                    sum if sum == OLD.map(|one| one + 10) && !kill.finished() => usable(value),
                    sum if sum == NEW.map(|two| two + 10) => usable(value),
                    other => Err(Fault::Torn(format!("{other:?}"))),
                }
            },
        )
        .late_peer(|value, _| ignore(value.update(|four| *four = four.map(|number| number + 10)))),
        case(
            "value/get",
            |value, _| ignore(value.get()),
            |value, _| if value.get()? == OLD { usable(value) } else { Err(Fault::Torn("a read changed it".into())) },
        ),
    ]
}

/// Double kills.
fn heirs() -> Vec<Case<'static, Value<Four>>> {
    vec![
        case("value/set, then an heir", |value, _| ignore(value.set(NEW)), before_or_after)
            .heir(|value, _| ignore(value.set(NEW))),
    ]
}

fn atomic_cases() -> Vec<Case<'static, AtomicValue<u64>>> {
    let case = |name: &str, victim: fn(&AtomicValue<u64>)| {
        Case::new(
            name,
            || AtomicValue::new(1_u64).unwrap(),
            move |value: &AtomicValue<u64>, _: &Cells| victim(value),
            |value: &AtomicValue<u64>, kill: &Kill<'_>| match value.load() {
                1 if kill.finished() => Err(Fault::Lost("it had returned".into())),
                1 | 2 => Ok(()),
                other => Err(Fault::Torn(other.to_string())),
            },
        )
        .watch(|_| ours())
        .finally(nothing_left)
    };
    vec![
        case("atomic/store", |value| value.store(2)),
        case("atomic/swap", |value| ignore(value.swap(2))),
        case("atomic/compare_exchange", |value| ignore(value.compare_exchange(1, 2))),
        case("atomic/fetch_update", |value| ignore(value.fetch_update(|number| number + 1))),
        case("atomic/fetch_add", |value| ignore(value.fetch_add(1))),
        case("atomic/fetch_sub", |value| ignore(value.fetch_sub(u64::MAX))),
        case("atomic/fetch_max", |value| ignore(value.fetch_max(2))),
        case("atomic/fetch_min", |value| {
            value.fetch_min(2);
            value.store(2);
        }),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Value<Four>, &Cells) + 'static,
    survive: impl Fn(&Value<Four>, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Value<Four>> {
    Case::new(name, || Value::new(OLD).unwrap(), victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
}

fn before_or_after(value: &Value<Four>, kill: &Kill<'_>) -> Result<(), Fault> {
    match value.get()? {
        OLD if kill.finished() => Err(Fault::Lost("it had returned".into())),
        OLD | NEW => usable(value),
        other => Err(Fault::Torn(format!("{other:?}"))),
    }
}

fn usable(value: &Value<Four>) -> Result<(), Fault> {
    for number in 3..6 {
        let Some(mut guard) = value.lock_timeout(SOON)? else { return Err(Fault::Hang("nobody gets it any more".into())) };
        *guard = [number; 4];
        drop(guard);
        if value.get()? != [number; 4] {
            return Err(Fault::Lost(format!("{number}")));
        }
    }
    Ok(())
}
