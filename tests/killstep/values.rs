//! Values: before or after, never between.

use multiproc::shm::ValueGuard;
use multiproc::{AtomicValue, Value};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{SOON, ignore, keeps_its_lock, nothing_left, ours};

type Four = [u64; 4];
const OLD: Four = [1; 4];
const NEW: Four = [2; 4];

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
    for case in atomic_cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Value<Four>>> {
    vec![
        case("value/set", |value, _| ignore(value.set(NEW)), before_or_after).sampled(3),
        case("value/lock+commit", |value, _| *value.lock().unwrap() = NEW, before_or_after),
        case("value/replace", |value, _| ignore(value.replace(NEW)), before_or_after),
        case("value/compare_exchange", |value, _| ignore(value.compare_exchange(OLD, NEW)), before_or_after),
        case("value/try_lock+commit", |value, _| *value.try_lock().unwrap().unwrap() = NEW, before_or_after),
        case(
            "value/lock_timeout+commit",
            |value, _| *value.lock_timeout(SOON).unwrap().unwrap() = NEW,
            before_or_after,
        ),
        case(
            "value/update, another waits",
            |value, _| ignore(value.update(|four| *four = NEW)),
            |value, kill| {
                kill.must_wake(0)?;
                match value.get()? {
                    sum if sum == OLD.map(|one| one + 10) && !finished(kill) => usable(value, kill),
                    sum if sum == NEW.map(|two| two + 10) => usable(value, kill),
                    // The peer came before the recoverer, or before the victim that stood still.
                    NEW if matches!(kill.mode(), Mode::Double | Mode::Freeze) => usable(value, kill),
                    other => Err(Fault::Torn(format!("{other:?}"))),
                }
            },
        )
        .late_peer(|value, _| ignore(value.update(|four| *four = four.map(|number| number + 10))))
        .frozen(|value, kill| {
            unharmed(value, kill, &[OLD, NEW, OLD.map(|one| one + 10), NEW.map(|two| two + 10)])
        }),
        case(
            "value/get",
            |value, _| ignore(value.get()),
            |value, kill| {
                if value.get()? == OLD {
                    usable(value, kill)
                } else {
                    Err(Fault::Torn("a read changed it".into()))
                }
            },
        ),
    ]
}

fn atomic_cases() -> Vec<Case<'static, AtomicValue<u64>>> {
    let case = |name: &str, victim: fn(&AtomicValue<u64>)| {
        let adds = ["fetch_update", "fetch_add", "fetch_sub"].iter().any(|add| name.ends_with(add));
        Case::new(
            name,
            || AtomicValue::new(1_u64).unwrap(),
            move |value: &AtomicValue<u64>, _: &Cells| victim(value),
            move |value: &AtomicValue<u64>, kill: &Kill<'_>| match value.load() {
                1 if finished(kill) => Err(Fault::Lost("it had returned".into())),
                2 if adds && kill.finished() && kill.recoverer_finished() => {
                    Err(Fault::Lost("both had returned".into()))
                }
                1 | 2 => Ok(()),
                3 if adds && kill.mode() == Mode::Double => Ok(()),
                other => Err(Fault::Torn(other.to_string())),
            },
        )
        .frozen(|value, _| match value.load() {
            1 | 2 => Ok(()),
            other => Err(Fault::Torn(other.to_string())),
        })
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
    Case::new(name, || Value::new(OLD).unwrap(), victim, survive)
        .frozen(|value, kill| unharmed(value, kill, &[OLD, NEW]))
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

/// Whether any operation had returned.
fn finished(kill: &Kill<'_>) -> bool {
    kill.finished() || kill.recoverer_finished()
}

fn before_or_after(value: &Value<Four>, kill: &Kill<'_>) -> Result<(), Fault> {
    match value.get()? {
        OLD if finished(kill) => Err(Fault::Lost("it had returned".into())),
        OLD | NEW => usable(value, kill),
        other => Err(Fault::Torn(format!("{other:?}"))),
    }
}

/// While the victim stands still, readers go on, and no lock is taken from writers.
fn unharmed(value: &Value<Four>, kill: &Kill<'_>, possible: &[Four]) -> Result<(), Fault> {
    let found = value.get()?;
    if !possible.contains(&found) {
        return Err(Fault::Torn(format!("{found:?}")));
    }
    keeps_its_lock(
        kill,
        || value.owner().map(|owner| owner.tid),
        |limit| {
            let guard = if limit.is_zero() { value.try_lock() } else { value.lock_timeout(limit) }?;
            Ok(guard.map(|guard| ValueGuard::previous_owner_died(&guard).is_some()))
        },
    )
}

fn usable(value: &Value<Four>, kill: &Kill<'_>) -> Result<(), Fault> {
    for number in 3..6 {
        let Some(mut guard) = value.lock_timeout(kill.patience())? else {
            return Err(Fault::Hang("no process gets it any more".into()));
        };
        *guard = [number; 4];
        drop(guard);
        if value.get()? != [number; 4] {
            return Err(Fault::Lost(format!("{number}")));
        }
    }
    Ok(())
}
