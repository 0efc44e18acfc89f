//! Recursive locks: after a death at whatever depth the next waiter gets the lock, held once.

use multiproc::{RLock, RLockGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{
    FUTEX, SOON, await_asleep, keeps_its_lock, nothing_left, ours, peers_go_on, sign, wait_for,
};

/// Cells: 0 "the holder may let go", 1 "the lock is held"; peers sign from 10 on.
const GO: usize = 0;
const HELD: usize = 1;
const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

fn cases() -> Vec<Case<'static, RLock>> {
    vec![
        case("rlock/lock+unlock", |lock, _| twice(lock), next_ones).sampled(3),
        case(
            "rlock/lock+unlock, held before",
            |lock, _| {
                twice(lock);
                unlock(lock, 1);
            },
            next_ones,
        )
        .warm(|lock, _| hold(lock, 1))
        .recoverer(|lock, _| twice(lock)),
        case("rlock/try_lock", |lock, _| drop((lock.try_lock(), lock.try_lock())), next_ones),
        case("rlock/unlock, another waits", |lock, _| unlock(lock, 2), woken_one)
            .warm(|lock, cells| hold_until_asleep(lock, cells, 1))
            .peer(|lock, cells| sleeper(lock, cells, 0))
            .recoverer(|lock, _| twice(lock))
            .frozen(|lock, kill| sleepers_go_on(lock, kill, 1)),
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
        .peer(|lock, cells| sleeper(lock, cells, 1))
        .recoverer(|lock, _| twice(lock))
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 2))
        .sampled(3),
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
        .release(|_, cells| cells.set(GO, 1))
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 2)),
        case(
            "rlock/lock_timeout, times out",
            |lock, _| drop(lock.lock_timeout(std::time::Duration::from_millis(30))),
            |lock, kill| {
                kill.cells().set(GO, 1);
                woken_two(lock, kill)
            },
        )
        .peer(holder)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .release(|_, _| ())
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 2)),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&RLock, &Cells) + 'static,
    survive: impl Fn(&RLock, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, RLock> {
    Case::new(name, || RLock::new().unwrap(), victim, survive)
        .frozen(unharmed)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
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
    next_ones(lock, kill)
}

fn woken_two(lock: &RLock, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(1)?;
    woken_one(lock, kill)
}

/// The next calls get it soon, held as often as they took it, and only the first may report a death.
fn next_ones(lock: &RLock, kill: &Kill<'_>) -> Result<(), Fault> {
    for turn in 0..3 {
        let begin = std::time::Instant::now();
        // At the end of a sleep a waiter looks whether the owner lives. This liveness poll is not what is
        // tested here (but for `Mode::Missed`, which is patient).
        let soon = kill.patience();
        let Some(guard) = lock.lock_timeout(soon)?.filter(|_| begin.elapsed() < soon) else {
            return Err(Fault::Hang(format!("no process gets it any more, {lock:?}")));
        };
        let inner = lock.lock()?;
        if lock.depth() != 2 {
            return Err(Fault::Torn(format!("taken twice, {lock:?}")));
        }
        drop(inner);
        let reported = RLockGuard::previous_owner_died(&guard).is_some();
        if reported && (turn > 0 || kill.mode() == Mode::Freeze) {
            return Err(Fault::Torn(
                if turn > 0 { "a second owner died?" } else { "no process died" }.into(),
            ));
        }
        drop(guard);
        if lock.is_locked() {
            return Err(Fault::Torn(format!("given back as often, {lock:?}")));
        }
    }
    Ok(())
}

/// While the victim stands still.
fn unharmed(lock: &RLock, kill: &Kill<'_>) -> Result<(), Fault> {
    keeps_its_lock(
        kill,
        || lock.owner().map(|owner| owner.tid),
        |limit| {
            let guard = if limit.is_zero() { lock.try_lock() } else { lock.lock_timeout(limit) }?;
            Ok(guard.map(|guard| RLockGuard::previous_owner_died(&guard).is_some()))
        },
    )
}

/// The same with peers that want the lock, too: unless the victim has it, they get it.
fn sleepers_go_on(lock: &RLock, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    unharmed(lock, kill)?;
    kill.cells().set(GO, 1);
    if lock.owner().is_some_and(|owner| owner.tid == kill.victim()) {
        Ok(())
    } else {
        peers_go_on(kill, peers)
    }
}
