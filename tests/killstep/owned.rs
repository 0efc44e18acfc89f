//! Permits of a process: killed with them, or between a thread's and the process's hands, all of them come back, soon.

use std::time::{Duration, Instant};

use multiproc::{Permit, Semaphore};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{FUTEX, SOON, WAITV, await_asleep, killed_only, killed_twice, nothing_left, ours, sign, wait_for};

/// Cells: 0 "the holder may let go", 1 "the permits are held"; peers sign from 10 on.
const GO: usize = 0;
const HELD: usize = 1;
const PEER: usize = 10;

/// How many permits there are.
const ALL: usize = 2;
const A_MOMENT: Duration = Duration::from_millis(30);

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
        case(ALL, "owned/acquire_owned+release", |semaphore, _| drop(semaphore.acquire_owned()), alone),
        // The first in its process: the keeper's thread is started in the midst of it.
        Case::new("owned/acquire_owned, the first", make(ALL), |semaphore, _| drop(semaphore.acquire_owned()), alone)
            .watch(|_| ours())
            .wake_within(SOON)
            .finally(nothing_left),
        case(
            ALL,
            "owned/try_acquire_owned",
            |semaphore, _| drop((semaphore.try_acquire_owned(), semaphore.try_acquire_owned())),
            alone,
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
        case(ALL, "owned/acquire_many_owned", |semaphore, _| drop(semaphore.acquire_many_owned(ALL)), alone),
        case(ALL, "owned/try_acquire_many_owned", |semaphore, _| drop(semaphore.try_acquire_many_owned(ALL)), alone),
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
        case(ALL, "owned/acquire_many_owned, then an heir", |semaphore, _| drop(semaphore.acquire_many_owned(ALL)), alone)
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

fn let_go(_: &Semaphore, cells: &Cells) {
    cells.set(GO, 1);
}

fn sleeper(semaphore: &Semaphore, cells: &Cells, number: usize) {
    wait_for(cells, HELD);
    late_sleeper(semaphore, cells, number);
}

fn late_sleeper(semaphore: &Semaphore, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    drop(semaphore.acquire());
}

fn gatherer(semaphore: &Semaphore, cells: &Cells, number: usize) {
    wait_for(cells, HELD);
    sign(cells, PEER + number);
    drop(semaphore.acquire_many(ALL));
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

/// No peer was there.
fn alone(semaphore: &Semaphore, _: &Kill<'_>) -> Result<(), Fault> {
    next_ones(semaphore)
}

/// The first peer goes on.
fn woken_one(semaphore: &Semaphore, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.cells().set(GO, 1);
    kill.must_wake(0)?;
    next_ones(semaphore)
}

/// All permits are there, soon, and only the first holder of each may be told of a death.
fn next_ones(semaphore: &Semaphore) -> Result<(), Fault> {
    for turn in 0..3 {
        let begin = Instant::now();
        // At the end of a sleep a waiter looks whether the holders live: that is the belt, and not what is tested here.
        let all = semaphore.acquire_many_timeout(semaphore.permits(), SOON)?.filter(|_| begin.elapsed() < SOON);
        let Some(all) = all else { return Err(Fault::Hang(format!("they are not there any more, {semaphore:?}"))) };
        if turn > 0 && all.iter().any(|permit| Permit::previous_owner_died(permit).is_some()) {
            return Err(Fault::Torn("a second owner died?".into()));
        }
    }
    Ok(())
}
