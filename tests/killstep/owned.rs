//! Process-owned permits: if the process is killed with them, or while a thread transfers them, all of them
//! come back soon.

use std::sync::{Mutex, PoisonError};

use multiproc::{OwnedPermit, Semaphore};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::semaphores::{
    A_MOMENT, ALL, GO, HELD, PEER, gatherer, its, late_sleeper, let_go, next_ones, peers_too, sleeper,
    stands_still, woken_one,
};
use crate::support::{FUTEX, SOON, WAITV, await_asleep, nothing_left, ours, peers_go_on, wait_for};

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Semaphore>> {
    vec![
        case(ALL, "owned/acquire_owned+release", |semaphore, _| drop(semaphore.acquire_owned()), next_ones)
            .sampled(3),
        // The first in its process: it starts the owner thread in the middle.
        unwarmed(
            ALL,
            "owned/acquire_owned, the first",
            |semaphore, _| drop(semaphore.acquire_owned()),
            next_ones,
        ),
        case(
            ALL,
            "owned/try_acquire_owned",
            |semaphore, _| drop((semaphore.try_acquire_owned(), semaphore.try_acquire_owned())),
            next_ones,
        ),
        case(
            ALL,
            "owned/try_acquire_owned, none free",
            |semaphore, _| drop(semaphore.try_acquire_owned()),
            woken_one,
        )
        .peer(holder)
        .release(let_go)
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
        case(
            ALL,
            "owned/acquire_owned_timeout, times out",
            |semaphore, _| drop(semaphore.acquire_owned_timeout(A_MOMENT)),
            woken_one,
        )
        .peer(holder)
        .release(|_, _| ())
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
        case(
            ALL,
            "owned/acquire_many_owned",
            |semaphore, _| drop(semaphore.acquire_many_owned(ALL)),
            next_ones,
        )
        .recoverer(|semaphore, _| drop(semaphore.acquire_many(ALL))),
        case(
            ALL,
            "owned/try_acquire_many_owned",
            |semaphore, _| drop(semaphore.try_acquire_many_owned(ALL)),
            next_ones,
        ),
        case(
            ALL,
            "owned/acquire_many_owned_timeout, times out, one gathered",
            |semaphore, _| drop(semaphore.acquire_many_owned_timeout(ALL, A_MOMENT)),
            woken_one,
        )
        .peer(|semaphore, cells| hold(semaphore, cells, 1))
        .release(|_, _| ())
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
        unwarmed(1, "owned/release, another waits", release, woken_one)
            .warm(|semaphore, cells| hold_until_asleep(semaphore, cells, 1))
            .peer(|semaphore, cells| sleeper(semaphore, cells, 0))
            .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
        unwarmed(ALL, "owned/release, a gatherer asleep", release, woken_one)
            .warm(|semaphore, cells| hold_until_asleep(semaphore, cells, 1))
            .peer(|semaphore, cells| gatherer(semaphore, cells, 0))
            .recoverer(|semaphore, _| drop(semaphore.acquire_many_timeout(ALL, std::time::Duration::ZERO)))
            .frozen(|semaphore, kill| {
                stands_still(semaphore, kill)?;
                // The gatherer needs them all.
                if its(semaphore, kill) == 0 { peers_go_on(kill, 1) } else { Ok(()) }
            }),
        case(
            ALL,
            "owned/acquire_owned, asleep, woken",
            |semaphore, _| drop(semaphore.acquire_owned()),
            |semaphore, kill| {
                kill.cells().set(GO, 1);
                kill.must_wake(1)?;
                woken_one(semaphore, kill)
            },
        )
        .peer(holder)
        .late_peer(|semaphore, cells| late_sleeper(semaphore, cells, 0))
        .release(let_go)
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 2)),
    ]
}

fn case(
    permits: usize,
    name: &str,
    victim: impl Fn(&Semaphore, &Cells) + 'static,
    survive: impl Fn(&Semaphore, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Semaphore> {
    unwarmed(permits, name, victim, survive).warm(|_, _| multiproc::robust::ProcessOwned::ready().unwrap())
}

/// In a process that has no owner thread yet.
fn unwarmed(
    permits: usize,
    name: &str,
    victim: impl Fn(&Semaphore, &Cells) + 'static,
    survive: impl Fn(&Semaphore, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Semaphore> {
    Case::new(name, move || Semaphore::new(permits).unwrap(), victim, survive)
        .recoverer(|semaphore, _| drop(semaphore.try_acquire()))
        .frozen(stands_still)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

/// What the victim's process has taken before its steps count.
static TAKEN: Mutex<Vec<OwnedPermit>> = Mutex::new(Vec::new());

fn taken() -> std::sync::MutexGuard<'static, Vec<OwnedPermit>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hold_until_asleep(semaphore: &Semaphore, cells: &Cells, sleepers: usize) {
    *taken() = semaphore.acquire_many_owned(semaphore.permits()).unwrap();
    cells.set(HELD, 1);
    (0..sleepers).for_each(|number| await_asleep(cells, PEER + number, &[FUTEX, WAITV].concat()));
}

/// Gives all of it back.
fn release(_: &Semaphore, _: &Cells) {
    taken().clear();
}

fn holder(semaphore: &Semaphore, cells: &Cells) {
    hold(semaphore, cells, ALL);
}

fn hold(semaphore: &Semaphore, cells: &Cells, count: usize) {
    let permits = semaphore.acquire_many_owned(count).unwrap();
    cells.set(HELD, 1);
    wait_for(cells, GO);
    drop(permits);
}
