//! Permits of a process: killed with them, or between a thread's and the process's hands, all of them come back, soon.

use multiproc::Semaphore;
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::semaphores::{A_MOMENT, ALL, GO, HELD, PEER, gatherer, late_sleeper, let_go, next_ones, sleeper, woken_one};
use crate::support::{FUTEX, SOON, WAITV, await_asleep, killed_only, killed_twice, nothing_left, ours, wait_for};

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&killed_only(case));
    }
    for case in heirs() {
        sweep.run(&killed_twice(case));
    }
}

fn cases() -> Vec<Case<'static, Semaphore>> {
    vec![
        case(ALL, "owned/acquire_owned+release", |semaphore, _| drop(semaphore.acquire_owned()), next_ones),
        // The first in its process: the keeper's thread is started in the midst of it.
        Case::new("owned/acquire_owned, the first", make(ALL), |semaphore, _| drop(semaphore.acquire_owned()), next_ones)
            .watch(|_| ours())
            .wake_within(SOON)
            .finally(nothing_left),
        case(
            ALL,
            "owned/try_acquire_owned",
            |semaphore, _| drop((semaphore.try_acquire_owned(), semaphore.try_acquire_owned())),
            next_ones,
        ),
        case(ALL, "owned/try_acquire_owned, in vain", |semaphore, _| drop(semaphore.try_acquire_owned()), woken_one)
            .peer(holder)
            .release(let_go),
        case(
            ALL,
            "owned/acquire_owned_timeout, in vain",
            |semaphore, _| drop(semaphore.acquire_owned_timeout(A_MOMENT)),
            woken_one,
        )
        .peer(holder)
        .release(|_, _| ()),
        case(ALL, "owned/acquire_many_owned", |semaphore, _| drop(semaphore.acquire_many_owned(ALL)), next_ones),
        case(ALL, "owned/try_acquire_many_owned", |semaphore, _| drop(semaphore.try_acquire_many_owned(ALL)), next_ones),
        case(
            ALL,
            "owned/acquire_many_owned_timeout, in vain, one gathered",
            |semaphore, _| drop(semaphore.acquire_many_owned_timeout(ALL, A_MOMENT)),
            woken_one,
        )
        .peer(|semaphore, cells| hold(semaphore, cells, 1))
        .release(|_, _| ()),
        // Taken for the process, and given back to one that waits for it.
        case(
            1,
            "owned/release, another waits",
            |semaphore, cells| {
                let permit = semaphore.acquire_owned();
                cells.set(HELD, 1);
                await_asleep(cells, PEER, &[FUTEX, WAITV].concat());
                drop(permit);
            },
            |semaphore, kill| {
                kill.cells().set(HELD, 1);
                woken_one(semaphore, kill)
            },
        )
        .peer(|semaphore, cells| sleeper(semaphore, cells, 0)),
        case(
            ALL,
            "owned/release, a gatherer asleep",
            |semaphore, cells| {
                let permits = semaphore.acquire_many_owned(ALL);
                cells.set(HELD, 1);
                await_asleep(cells, PEER, &[FUTEX, WAITV].concat());
                drop(permits);
            },
            |semaphore, kill| {
                kill.cells().set(HELD, 1);
                woken_one(semaphore, kill)
            },
        )
        .peer(|semaphore, cells| gatherer(semaphore, cells, 0)),
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
        .release(let_go),
    ]
}

/// Double kills: the one who takes over is killed, too, at each of its states.
fn heirs() -> Vec<Case<'static, Semaphore>> {
    vec![
        case(ALL, "owned/acquire_many_owned, then an heir", |semaphore, _| drop(semaphore.acquire_many_owned(ALL)), next_ones)
            .heir(|semaphore, _| drop(semaphore.acquire_many(ALL))),
    ]
}

fn make(permits: usize) -> impl Fn() -> Semaphore {
    move || Semaphore::new(permits).unwrap()
}

fn case(
    permits: usize,
    name: &str,
    victim: impl Fn(&Semaphore, &Cells) + 'static,
    survive: impl Fn(&Semaphore, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Semaphore> {
    Case::new(name, make(permits), victim, survive)
        .warm(|_, _| multiproc::shm::Kept::ready().unwrap())
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
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
