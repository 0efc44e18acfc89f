//! Waiting for a condition with an `RLock` that is held twice: who is killed at it leaves a lock that is free, at whatever depth.

use std::time::{Duration, Instant};

use multiproc::{Condition, RLock};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{SOON, ignore, killed_only, killed_twice, nothing_left, ours};

type Pair = (Condition, RLock);

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&killed_only(case));
    }
    sweep.run(&killed_twice(
        case("condition/wait, with an RLock held twice, then an heir", wait_in_vain, usable)
            .heir(|pair, _| ignore(pair.1.lock().map(drop))),
    ));
}

fn cases() -> Vec<Case<'static, Pair>> {
    vec![
        case("condition/wait, with an RLock held twice, in vain", wait_in_vain, usable),
        case("condition/wait, with an RLock held twice, notified", wait, usable).release(|pair, _| ignore(pair.0.notify_one())),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Pair, &Cells) + 'static,
    survive: impl Fn(&Pair, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Pair> {
    Case::new(name, || (Condition::new().unwrap(), RLock::new().unwrap()), victim, survive)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

fn wait((condition, lock): &Pair, _: &Cells) {
    let _outer = lock.lock().unwrap();
    drop(condition.wait(lock.lock().unwrap()));
}

fn wait_in_vain((condition, lock): &Pair, _: &Cells) {
    let _outer = lock.lock().unwrap();
    drop(condition.wait_timeout(lock.lock().unwrap(), Duration::ZERO));
}

/// The lock is free, soon, and held once by who takes it; nobody waits.
fn usable((condition, lock): &Pair, _: &Kill<'_>) -> Result<(), Fault> {
    let begin = Instant::now();
    let guard = lock.lock_timeout(SOON)?.filter(|_| begin.elapsed() < SOON);
    let Some(_guard) = guard else { return Err(Fault::Hang(format!("{lock:?}"))) };
    if lock.depth() != 1 {
        return Err(Fault::Torn(format!("taken once: {lock:?}")));
    }
    if condition.waiters() != 0 || condition.notify_one()? != 0 {
        return Err(Fault::Lost(format!("a dead waiter was called, or is counted: {condition:?}")));
    }
    Ok(())
}
