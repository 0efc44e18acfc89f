//! Recursive locks: whoever dies at whatever depth, the next one gets it, held once.

use multiproc::{RLock, RLockGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{FUTEX, SOON, await_asleep, killed_only, killed_twice, nothing_left, ours, sign, wait_for};

/// Cells: 0 "the holder may let go", 1 "the lock is held"; peers sign from 10 on.
const GO: usize = 0;
const HELD: usize = 1;
const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&killed_only(case));
    }
    sweep.run(&killed_twice(
        case("rlock/lock+unlock, then an heir", |lock, _| twice(lock), |lock, _| next_ones(lock)).heir(|lock, _| twice(lock)),
    ));
}

fn cases() -> Vec<Case<'static, RLock>> {
    vec![
        case("rlock/lock+unlock", |lock, _| twice(lock), |lock, _| next_ones(lock)),
        case("rlock/lock+unlock, held before", |lock, _| twice(lock), |lock, _| next_ones(lock)).warm(|lock, _| hold(lock, 1)),
        case("rlock/try_lock", |lock, _| drop((lock.try_lock(), lock.try_lock())), |lock, _| next_ones(lock)),
        case("rlock/unlock, another waits", |lock, _| unlock(lock, 2), woken_one)
            .warm(|lock, cells| hold_until_asleep(lock, cells, 1))
            .peer(|lock, cells| sleeper(lock, cells, 0)),
        case(
            "rlock/unlock, two asleep and a barger",
            |lock, _| unlock(lock, 2),
            |lock, kill| {
                drop(lock.try_lock()?);
                woken_two(lock, kill)
            },
        )
        .warm(|lock, cells| hold_until_asleep(lock, cells, 2))
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .peer(|lock, cells| sleeper(lock, cells, 1)),
        case(
            "rlock/lock, asleep, woken",
            |lock, _| twice(lock),
            |lock, kill| {
                kill.cells().set(GO, 1);
                woken_two(lock, kill)
            },
        )
        .peer(holder)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .release(|_, cells| cells.set(GO, 1)),
        case(
            "rlock/lock_timeout, in vain",
            |lock, _| drop(lock.lock_timeout(std::time::Duration::from_millis(30))),
            |lock, kill| {
                kill.cells().set(GO, 1);
                woken_two(lock, kill)
            },
        )
        .peer(holder)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .release(|_, _| ()),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&RLock, &Cells) + 'static,
    survive: impl Fn(&RLock, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, RLock> {
    Case::new(name, || RLock::new().unwrap(), victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
}

fn twice(lock: &RLock) {
    let outer = lock.lock();
    let inner = lock.lock();
    drop(outer);
    drop(inner);
}

fn hold(lock: &RLock, times: usize) {
    for _ in 0..times {
        // SAFETY: given back by the victim's operation, or by its death.
        unsafe { lock.raw_lock() }.unwrap();
    }
}

fn unlock(lock: &RLock, times: usize) {
    for _ in 0..times {
        // SAFETY: taken in `warm`, by this thread.
        unsafe { lock.raw_unlock() };
    }
}

fn hold_until_asleep(lock: &RLock, cells: &Cells, sleepers: usize) {
    hold(lock, 2);
    cells.set(HELD, 1);
    (0..sleepers).for_each(|number| await_asleep(cells, PEER + number, FUTEX));
}

fn sleeper(lock: &RLock, cells: &Cells, number: usize) {
    wait_for(cells, HELD);
    sign(cells, PEER + number);
    twice(lock);
}

fn holder(lock: &RLock, cells: &Cells) {
    let guards = (lock.lock().unwrap(), lock.lock().unwrap());
    cells.set(HELD, 1);
    wait_for(cells, GO);
    drop(guards);
}

fn woken_one(lock: &RLock, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(0)?;
    next_ones(lock)
}

fn woken_two(lock: &RLock, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(1)?;
    woken_one(lock, kill)
}

/// The next ones get it, soon, held as often as they took it, and only the first may be told of a death.
fn next_ones(lock: &RLock) -> Result<(), Fault> {
    for turn in 0..3 {
        let begin = std::time::Instant::now();
        // At the end of a sleep a waiter looks whether the owner lives: that is the belt, and not what is tested here.
        let Some(guard) = lock.lock_timeout(SOON)?.filter(|_| begin.elapsed() < SOON) else {
            return Err(Fault::Hang(format!("nobody gets it any more, {lock:?}")));
        };
        let inner = lock.lock()?;
        if lock.depth() != 2 {
            return Err(Fault::Torn(format!("taken twice, {lock:?}")));
        }
        drop(inner);
        if turn > 0 && RLockGuard::previous_owner_died(&guard).is_some() {
            return Err(Fault::Torn("a second owner died?".into()));
        }
        drop(guard);
        if lock.is_locked() {
            return Err(Fault::Torn(format!("given back as often, {lock:?}")));
        }
    }
    Ok(())
}
