//! Barriers: whoever dies, each round ends for all of its parties in the same way, soon.

use std::time::{Duration, Instant};

use multiproc::sync::Broken;
use multiproc::{Barrier, BarrierError};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{SOON, WAITV, await_asleep, ignore, killed_only, nothing_left, ours, sign, wait_for};

/// Cells: 0 "the victim's operation has begun to release"; peers sign from 10 on, and tell their verdicts from 20 on.
const ACTED: usize = 0;
const PEER: usize = 10;
const VERDICT: usize = 20;

/// What a peer was told.
const RELEASED: u64 = 1;
const DIED: u64 = 2;
const BROKEN: u64 = 3;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&killed_only(case));
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Barrier>> {
    vec![
        case("barrier/wait, alone", 1, |barrier, _| ignore(barrier.wait()), |barrier, _| usable(barrier)),
        case(
            "barrier/wait, the first",
            2,
            |barrier, _| ignore(barrier.wait()),
            |barrier, kill| {
                // A dead one was there: told to who comes, or never seen.
                match barrier.wait_timeout(Duration::from_millis(1)).map_err(|error| error.cause()) {
                    Err(Broken::TimedOut) if !kill.finished() => {}
                    Err(Broken::PartyDied(_)) => {}
                    other => return Err(Fault::Torn(format!("{other:?}"))),
                }
                usable(barrier)
            },
        ),
        case("barrier/wait, the last of two", 2, last, |barrier, kill| same_for_all(barrier, kill, 1))
            .peer(|barrier, cells| party(barrier, cells, 0))
            .warm(|_, cells| asleep(cells, 1)),
        case("barrier/wait, the last of three", 3, last, |barrier, kill| same_for_all(barrier, kill, 2))
            .peer(|barrier, cells| party(barrier, cells, 0))
            .peer(|barrier, cells| party(barrier, cells, 1))
            .warm(|_, cells| asleep(cells, 2)),
        case("barrier/wait, the last of three, then an heir", 3, last, |barrier, kill| same_for_all(barrier, kill, 2))
            .peer(|barrier, cells| party(barrier, cells, 0))
            .peer(|barrier, cells| party(barrier, cells, 1))
            .heir(|barrier, _| ignore(barrier.wait_timeout(Duration::from_millis(1)))),
        case(
            "barrier/wait_with, the last of three",
            3,
            |barrier, cells| ignore(barrier.wait_with(|| cells.set(ACTED, 1))),
            |barrier, kill| {
                same_for_all(barrier, kill, 2)?;
                let released = kill.cells().get(VERDICT) == RELEASED;
                if released && kill.cells().get(ACTED) == 0 {
                    return Err(Fault::Lost("released before the action".into()));
                }
                Ok(())
            },
        )
        .peer(|barrier, cells| party(barrier, cells, 0))
        .peer(|barrier, cells| party(barrier, cells, 1))
        .warm(|_, cells| asleep(cells, 2)),
        // Asleep, then woken by the last one, and killed on its way out: the others are released all the same.
        case(
            "barrier/wait, asleep, woken",
            3,
            |barrier, _| ignore(barrier.wait()),
            |barrier, kill| same_for_all(barrier, kill, 1),
        )
        .peer(|barrier, cells| party(barrier, cells, 0))
        .release(|barrier, _| ignore(barrier.wait())),
        case(
            "barrier/wait_timeout, in vain",
            3,
            |barrier, _| ignore(barrier.wait_timeout(Duration::from_millis(30))),
            |barrier, kill| same_for_all(barrier, kill, 1),
        )
        .peer(|barrier, cells| party(barrier, cells, 0))
        .release(|_, _| ()),
        case(
            "barrier/wait_timeout_with, in vain",
            2,
            |barrier, _| ignore(barrier.wait_timeout_with(Duration::ZERO, || ())),
            |barrier, _| usable(barrier),
        ),
        case(
            "barrier/abort",
            2,
            |barrier, _| barrier.abort(),
            |barrier, kill| {
                if kill.finished() && !barrier.is_broken() {
                    return Err(Fault::Lost("the abort".into()));
                }
                usable(barrier)
            },
        ),
        case("barrier/abort, two asleep", 3, |barrier, _| barrier.abort(), aborted)
            .peer(|barrier, cells| party(barrier, cells, 0))
            .peer(|barrier, cells| party(barrier, cells, 1))
            .warm(|_, cells| asleep(cells, 2)),
        case("barrier/reset, two asleep", 3, |barrier, _| barrier.reset(), aborted)
            .peer(|barrier, cells| party(barrier, cells, 0))
            .peer(|barrier, cells| party(barrier, cells, 1))
            .warm(|_, cells| asleep(cells, 2)),
        case(
            "barrier/reset, broken",
            2,
            |barrier, _| barrier.reset(),
            |barrier, kill| {
                if kill.finished() && barrier.is_broken() {
                    return Err(Fault::Lost("the reset".into()));
                }
                usable(barrier)
            },
        )
        .warm(|barrier, _| barrier.abort()),
    ]
}

fn case(
    name: &str,
    parties: usize,
    victim: impl Fn(&Barrier, &Cells) + 'static,
    survive: impl Fn(&Barrier, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Barrier> {
    Case::new(name, move || Barrier::new(parties).unwrap(), victim, survive)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

fn last(barrier: &Barrier, _: &Cells) {
    ignore(barrier.wait());
}

fn party(barrier: &Barrier, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    let verdict = match barrier.wait().map_err(|error: BarrierError| error.cause()) {
        Ok(_) => RELEASED,
        Err(Broken::PartyDied(_)) => DIED,
        Err(_) => BROKEN,
    };
    cells.set(VERDICT + number, verdict);
}

fn asleep(cells: &Cells, peers: usize) {
    (0..peers).for_each(|peer| await_asleep(cells, PEER + peer, WAITV));
}

/// A dead party ends the round by itself, or had not begun; all get the same verdict.
fn same_for_all(barrier: &Barrier, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    let cells = kill.cells();
    let killed = Instant::now();
    while barrier.waiting() != 0 && killed.elapsed() < SOON / 5 {
        std::thread::sleep(Duration::from_micros(100));
    }
    // Nobody was told, and those who wait are as many as before: then it had not arrived.
    if barrier.waiting() == peers && !kill.finished() {
        barrier.abort();
    }
    for peer in 0..peers {
        kill.must_wake(peer)?;
        wait_for(cells, VERDICT + peer);
    }
    let verdicts: Vec<u64> = (0..peers).map(|peer| cells.get(VERDICT + peer)).collect();
    if verdicts.iter().any(|verdict| *verdict != verdicts[0]) {
        return Err(Fault::Torn(format!("{verdicts:?}")));
    }
    usable(barrier)
}

fn aborted(barrier: &Barrier, kill: &Kill<'_>) -> Result<(), Fault> {
    if barrier.waiting() == 2 && !barrier.is_broken() {
        if kill.finished() {
            return Err(Fault::Lost("what it was told to do".into()));
        }
        barrier.abort();
    }
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    usable(barrier)
}

/// After a reset it has room for all of its parties, twice.
fn usable(barrier: &Barrier) -> Result<(), Fault> {
    barrier.reset();
    if barrier.is_broken() || barrier.waiting() != 0 {
        return Err(Fault::Torn(format!("after a reset: {barrier:?}")));
    }
    std::thread::scope(|s| {
        let round = || -> Result<(), BarrierError> { (0..2).try_for_each(|_| barrier.wait_timeout(SOON).map(|_| ())) };
        let others: Vec<_> = (1..barrier.parties()).map(|_| s.spawn(round)).collect();
        let mine = round();
        others.into_iter().map(|other| other.join().unwrap()).chain([mine]).collect::<Result<(), _>>()
    })
    .map_err(|error| Fault::Hang(error.to_string()))
}
