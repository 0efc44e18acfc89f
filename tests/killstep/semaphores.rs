//! Semaphores: whether a process dies holding permits, waiting for them or gathering them, all of them come
//! back soon.

use std::time::{Duration, Instant};

use multiproc::{Permit, Semaphore};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{
    BRIEFLY, FUTEX, SOON, WAITV, await_asleep, in_time, nothing_left, ours, peers_go_on, sign, wait_for,
};

/// Cells: 0 "the holder may let go", 1 "the permits are held", 2 and 3 the victim's; peers sign from 10 on.
pub(crate) const GO: usize = 0;
pub(crate) const HELD: usize = 1;
const MINE: usize = 2;
pub(crate) const PEER: usize = 10;

/// How many permits there are.
pub(crate) const ALL: usize = 2;
pub(crate) const A_MOMENT: Duration = Duration::from_millis(30);

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Semaphore>> {
    vec![
        case("semaphore/acquire+release", |semaphore, _| drop(semaphore.acquire()), next_ones).sampled(3),
        case(
            "semaphore/try_acquire",
            |semaphore, _| drop((semaphore.try_acquire(), semaphore.try_acquire())),
            next_ones,
        ),
        case("semaphore/try_acquire, none free", |semaphore, _| drop(semaphore.try_acquire()), woken_one)
            .peer(holder)
            .release(let_go)
            .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
        case("semaphore/acquire_many", |semaphore, _| drop(semaphore.acquire_many(ALL)), next_ones),
        case("semaphore/try_acquire_many", |semaphore, _| drop(semaphore.try_acquire_many(ALL)), next_ones),
        case_of(1, "semaphore/release, another waits", release, woken_one)
            .warm(|semaphore, cells| hold_until_asleep(semaphore, cells, 1))
            .peer(|semaphore, cells| sleeper(semaphore, cells, 0))
            .recoverer(|semaphore, _| drop(semaphore.acquire()))
            .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
        case_of(1, "semaphore/release, two asleep and a barger", release, |semaphore, kill| {
            drop(semaphore.try_acquire()?);
            woken_two(semaphore, kill)
        })
        .warm(|semaphore, cells| hold_until_asleep(semaphore, cells, 2))
        .peer(|semaphore, cells| sleeper(semaphore, cells, 0))
        .peer(|semaphore, cells| sleeper(semaphore, cells, 1))
        .recoverer(|semaphore, _| drop(semaphore.acquire()))
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 2)),
        case("semaphore/release, a gatherer asleep", release, woken_one)
            .warm(|semaphore, cells| hold_until_asleep(semaphore, cells, 1))
            .peer(|semaphore, cells| gatherer(semaphore, cells, 0))
            .recoverer(|semaphore, _| drop(semaphore.acquire_many_timeout(ALL, Duration::ZERO)))
            .frozen(|semaphore, kill| {
                stands_still(semaphore, kill)?;
                // The gatherer needs them all.
                if its(semaphore, kill) == 0 { peers_go_on(kill, 1) } else { Ok(()) }
            }),
        // The victim sleeps in the mutex, the peer behind it: the permit for which the victim was woken is
        // the peer's.
        case(
            "semaphore/acquire, asleep in the mutex, woken",
            |semaphore, _| drop(semaphore.acquire()),
            woken_all,
        )
        .peer(holder)
        .late_peer(|semaphore, cells| late_sleeper(semaphore, cells, 0))
        .release(let_go)
        .recoverer(|semaphore, _| drop(semaphore.try_acquire()))
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 2)),
        // The other way round.
        case(
            "semaphore/acquire, asleep behind the mutex, woken",
            |semaphore, _| drop(semaphore.acquire()),
            woken_all,
        )
        .peer(holder)
        .peer(|semaphore, cells| sleeper(semaphore, cells, 0))
        .release(let_go)
        .recoverer(|semaphore, _| drop(semaphore.try_acquire()))
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 2)),
        case(
            "semaphore/acquire_many, asleep, woken",
            |semaphore, _| drop(semaphore.acquire_many(ALL)),
            woken_all,
        )
        .peer(holder)
        .late_peer(|semaphore, cells| late_sleeper(semaphore, cells, 0))
        .release(let_go)
        .recoverer(|semaphore, _| drop(semaphore.try_acquire()))
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 2)),
        case(
            "semaphore/acquire_timeout, times out",
            |semaphore, _| drop(semaphore.acquire_timeout(A_MOMENT)),
            woken_all,
        )
        .peer(holder)
        .peer(|semaphore, cells| sleeper(semaphore, cells, 0))
        .release(|_, _| ())
        .recoverer(|semaphore, _| drop(semaphore.try_acquire()))
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 2)),
        case(
            "semaphore/acquire_timeout, times out in the mutex",
            |semaphore, _| drop(semaphore.acquire_timeout(A_MOMENT)),
            woken_one,
        )
        .peer(holder)
        .release(|_, _| ())
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
        case(
            "semaphore/acquire_many_timeout, times out, one gathered",
            |semaphore, _| drop(semaphore.acquire_many_timeout(ALL, A_MOMENT)),
            woken_one,
        )
        .peer(|semaphore, cells| hold(semaphore, cells, 1))
        .release(|_, _| ())
        .frozen(|semaphore, kill| peers_too(semaphore, kill, 1)),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Semaphore, &Cells) + 'static,
    survive: impl Fn(&Semaphore, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Semaphore> {
    case_of(ALL, name, victim, survive)
}

fn case_of(
    permits: usize,
    name: &str,
    victim: impl Fn(&Semaphore, &Cells) + 'static,
    survive: impl Fn(&Semaphore, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Semaphore> {
    Case::new(name, move || Semaphore::new(permits).unwrap(), victim, survive)
        .frozen(stands_still)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

pub(crate) fn let_go(_: &Semaphore, cells: &Cells) {
    cells.set(GO, 1);
}

/// Gives all the victim's permits back.
fn release(semaphore: &Semaphore, cells: &Cells) {
    for at in 0..semaphore.permits() {
        // SAFETY: taken in `warm`, by this thread.
        unsafe { semaphore.raw_release(usize::try_from(cells.get(MINE + at)).unwrap()) };
    }
}

fn hold_until_asleep(semaphore: &Semaphore, cells: &Cells, sleepers: usize) {
    for at in 0..semaphore.permits() {
        // SAFETY: given back by the victim's operation, or by its death.
        let number = unsafe { semaphore.raw_acquire() }.unwrap();
        cells.set(MINE + at, number as u64);
    }
    cells.set(HELD, 1);
    (0..sleepers).for_each(|number| await_asleep(cells, PEER + number, &[FUTEX, WAITV].concat()));
}

pub(crate) fn sleeper(semaphore: &Semaphore, cells: &Cells, number: usize) {
    wait_for(cells, HELD);
    late_sleeper(semaphore, cells, number);
}

pub(crate) fn late_sleeper(semaphore: &Semaphore, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    drop(semaphore.acquire());
}

pub(crate) fn gatherer(semaphore: &Semaphore, cells: &Cells, number: usize) {
    wait_for(cells, HELD);
    sign(cells, PEER + number);
    drop(semaphore.acquire_many(ALL));
}

fn holder(semaphore: &Semaphore, cells: &Cells) {
    hold(semaphore, cells, ALL);
}

fn hold(semaphore: &Semaphore, cells: &Cells, count: usize) {
    let permits = semaphore.acquire_many(count).unwrap();
    cells.set(HELD, 1);
    wait_for(cells, GO);
    drop(permits);
}

/// The first peer goes on.
pub(crate) fn woken_one(semaphore: &Semaphore, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.cells().set(GO, 1);
    kill.must_wake(0)?;
    next_ones(semaphore, kill)
}

fn woken_two(semaphore: &Semaphore, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(1)?;
    woken_one(semaphore, kill)
}

/// The holder and a sleeper go on.
fn woken_all(semaphore: &Semaphore, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.cells().set(GO, 1);
    woken_two(semaphore, kill)
}

/// All permits are there soon, one by one and together, and only the first holder of each may be notified of
/// a death.
pub(crate) fn next_ones(semaphore: &Semaphore, kill: &Kill<'_>) -> Result<(), Fault> {
    for turn in 0..3 {
        let begin = Instant::now();
        // At the end of a sleep a waiter looks whether the holders live. This liveness poll is not what is
        // tested here (but for `Mode::Missed`, which is patient).
        let soon = kill.patience();
        let all =
            semaphore.acquire_many_timeout(semaphore.permits(), soon)?.filter(|_| begin.elapsed() < soon);
        let Some(all) = all else {
            return Err(Fault::Hang(format!("they are not there any more, {semaphore:?}")));
        };
        let reported = all.iter().any(|permit| Permit::previous_owner_died(permit).is_some());
        if reported && (turn > 0 || kill.mode() == Mode::Freeze) {
            return Err(Fault::Torn(
                if turn > 0 { "a second owner died?" } else { "no process died" }.into(),
            ));
        }
        drop(all);
        let first = semaphore.acquire_timeout(soon)?;
        let mut others = Vec::new();
        while let Some(other) = semaphore.try_acquire()? {
            others.push(other);
        }
        if first.is_none() || 1 + others.len() != semaphore.permits() || semaphore.available() != 0 {
            return Err(Fault::Lost(format!("a permit, {semaphore:?}")));
        }
    }
    Ok(())
}

/// How many permits the victim holds, by its thread or as a process.
pub(crate) fn its(semaphore: &Semaphore, kill: &Kill<'_>) -> usize {
    semaphore.holders().iter().filter(|owner| owner.pid == Some(kill.victim())).count()
}

/// While the victim stands still it keeps what it has, other processes get what is free, and time-outs hold,
/// also if it stands in the mutex.
pub(crate) fn stands_still(semaphore: &Semaphore, kill: &Kill<'_>) -> Result<(), Fault> {
    let before = its(semaphore, kill);
    let begin = Instant::now();
    let free = semaphore.available();
    let one = semaphore.acquire_timeout(BRIEFLY)?;
    in_time("to wait for a permit", begin, BRIEFLY)?;
    match &one {
        Some(permit) if Permit::previous_owner_died(permit).is_some() => {
            return Err(Fault::Torn("the stopped victim was taken for dead".into()));
        }
        None if free > 0 && semaphore.available() > 0 => {
            return Err(Fault::Hang("a free permit is not to be had".into()));
        }
        None if begin.elapsed() < BRIEFLY => return Err(Fault::Torn("the time-out came early".into())),
        _ => {}
    }
    drop(one);
    let begin = Instant::now();
    let all = semaphore.acquire_many_timeout(semaphore.permits(), BRIEFLY)?;
    in_time("to wait for all permits", begin, BRIEFLY)?;
    if all.is_some() && before > 0 {
        return Err(Fault::Torn("a permit was taken from the stopped victim".into()));
    }
    drop(all);
    // A process that polls looks at the holders now and then, too.
    for _ in 0..130 {
        drop(semaphore.try_acquire()?);
    }
    if its(semaphore, kill) == before {
        Ok(())
    } else {
        Err(Fault::Torn("the stopped victim has other permits now".into()))
    }
}

/// The same, and the peers, which hold some or want one each, go on unless the victim has them all.
pub(crate) fn peers_too(semaphore: &Semaphore, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    stands_still(semaphore, kill)?;
    kill.cells().set(GO, 1);
    if its(semaphore, kill) < semaphore.permits() { peers_go_on(kill, peers) } else { Ok(()) }
}
