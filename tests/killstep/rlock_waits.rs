//! Waiting for a condition with an `RLock` that is held twice: a process that is killed there leaves a free
//! lock, at whatever depth.

use std::time::{Duration, Instant};

use multiproc::{Condition, RLock, RLockGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{SOON, ignore, keeps_its_lock, nothing_left, ours};

type Pair = (Condition, RLock);

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

fn cases() -> Vec<Case<'static, Pair>> {
    vec![
        case("condition/wait, with an RLock held twice, times out", wait_until_timeout, usable),
        case("condition/wait, with an RLock held twice, notified", wait, usable)
            .release(|pair, _| ignore(pair.0.notify_one())),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Pair, &Cells) + 'static,
    survive: impl Fn(&Pair, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Pair> {
    Case::new(name, || (Condition::new().unwrap(), RLock::new().unwrap()), victim, survive)
        .recoverer(|pair, _| ignore(pair.1.lock().map(drop)))
        .frozen(stands_still)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

fn wait((condition, lock): &Pair, _: &Cells) {
    let _outer = lock.lock().unwrap();
    drop(condition.wait(lock.lock().unwrap()));
}

fn wait_until_timeout((condition, lock): &Pair, _: &Cells) {
    let _outer = lock.lock().unwrap();
    drop(condition.wait_timeout(lock.lock().unwrap(), Duration::ZERO));
}

/// The lock is free soon, and the next owner holds it once; none waits in the condition.
fn usable((condition, lock): &Pair, kill: &Kill<'_>) -> Result<(), Fault> {
    let (begin, soon) = (Instant::now(), kill.patience());
    let guard = lock.lock_timeout(soon)?.filter(|_| begin.elapsed() < soon);
    let Some(_guard) = guard else { return Err(Fault::Hang(format!("{lock:?}"))) };
    if lock.depth() != 1 {
        return Err(Fault::Torn(format!("taken once: {lock:?}")));
    }
    // A waiter whose death is not noticed yet counts, and may be notified.
    let unnoticed = usize::from(kill.mode() == Mode::Missed);
    if condition.waiters() > unnoticed || condition.notify_one()? > unnoticed {
        return Err(Fault::Lost(format!("a dead waiter was notified, or is counted: {condition:?}")));
    }
    Ok(())
}

/// While the victim stands still, no process takes the lock from it, at whatever depth.
fn stands_still((_, lock): &Pair, kill: &Kill<'_>) -> Result<(), Fault> {
    keeps_its_lock(
        kill,
        || lock.owner().map(|owner| owner.tid),
        |limit| {
            let guard = if limit.is_zero() { lock.try_lock() } else { lock.lock_timeout(limit) }?;
            Ok(guard.map(|guard| RLockGuard::previous_owner_died(&guard).is_some()))
        },
    )
}
