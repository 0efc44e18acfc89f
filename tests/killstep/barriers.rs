//! Barriers: whatever participant dies, each round ends for all of them in the same way, soon.

use std::time::{Duration, Instant};

use multiproc::sync::Broken;
use multiproc::{Barrier, BarrierError};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{
    BRIEFLY, SOON, WAITV, await_asleep, ignore, in_time, nothing_left, ours, peers_go_on, sign, wait_for,
};

/// Cells: 0 "the victim's operation has begun to release"; peers sign from 10 on, and note their verdicts
/// from 20 on.
const ACTED: usize = 0;
const PEER: usize = 10;
const VERDICT: usize = 20;
/// The victim's number there.
const MINE: usize = 9;

/// What a peer's wait returned.
const RELEASED: u64 = 1;
const DIED: u64 = 2;
const BROKEN: u64 = 3;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Barrier>> {
    vec![
        case("barrier/wait, alone", 1, |barrier, _| ignore(barrier.wait()), usable),
        case(
            "barrier/wait, the first",
            2,
            |barrier, _| ignore(barrier.wait()),
            |barrier, kill| {
                // The dead participant had arrived: the next caller learns it, or it was never seen.
                match barrier.wait_timeout(Duration::from_millis(1)).map_err(|error| error.cause()) {
                    Err(Broken::TimedOut) if !kill.finished() => {}
                    Err(Broken::PartyDied(_)) => {}
                    // It had arrived, and died unnoticed: no call asks the system for each participant that
                    // is there.
                    Ok(_) if kill.mode() == Mode::Missed => {}
                    other => return Err(Fault::Torn(format!("{other:?}"))),
                }
                usable(barrier, kill)
            },
        ),
        case("barrier/wait, the last of two", 2, last, |barrier, kill| same_for_all(barrier, kill, 1))
            .peer(|barrier, cells| party(barrier, cells, 0))
            .warm(|_, cells| asleep(cells, 1))
            .recoverer(|barrier, _| ignore(barrier.wait_timeout(Duration::from_millis(1))))
            .frozen(|barrier, kill| aborted_by_another(barrier, kill, 1)),
        case("barrier/wait, the last of three", 3, last, |barrier, kill| same_for_all(barrier, kill, 2))
            .peer(|barrier, cells| party(barrier, cells, 0))
            .peer(|barrier, cells| party(barrier, cells, 1))
            .warm(|_, cells| asleep(cells, 2))
            .recoverer(|barrier, _| ignore(barrier.wait_timeout(Duration::from_millis(1))))
            .frozen(|barrier, kill| waits_for_it(barrier, kill, 2))
            .sampled(3),
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
        .warm(|_, cells| asleep(cells, 2))
        // The round that the recoverer ends, where the victim had not arrived yet, has an action, too.
        .recoverer(|barrier, cells| {
            ignore(barrier.wait_timeout_with(Duration::from_millis(1), || cells.set(ACTED, 1)));
        })
        .frozen(|barrier, kill| aborted_by_another(barrier, kill, 2)),
        // Asleep, then woken by the last participant, and killed on its way out: the others are released all
        // the same.
        case("barrier/wait, asleep, woken", 3, last, |barrier, kill| same_for_all(barrier, kill, 1))
            .peer(|barrier, cells| party(barrier, cells, 0))
            .release(|barrier, _| ignore(barrier.wait()))
            .recoverer(|barrier, _| ignore(barrier.wait_timeout(Duration::from_millis(1))))
            .frozen(|barrier, kill| third_in_a_hurry(barrier, kill, 1)),
        case(
            "barrier/wait_timeout, times out",
            3,
            |barrier, _| ignore(barrier.wait_timeout(Duration::from_millis(30))),
            |barrier, kill| same_for_all(barrier, kill, 1),
        )
        .peer(|barrier, cells| party(barrier, cells, 0))
        .release(|_, _| ())
        .recoverer(|barrier, _| ignore(barrier.wait_timeout(Duration::from_millis(1))))
        .frozen(|barrier, kill| aborted_by_another(barrier, kill, 1)),
        case(
            "barrier/wait_timeout_with, times out",
            2,
            |barrier, _| ignore(barrier.wait_timeout_with(Duration::ZERO, || ())),
            usable,
        ),
        case(
            "barrier/abort",
            2,
            |barrier, _| barrier.abort(),
            |barrier, kill| {
                if kill.finished() && !barrier.is_broken() {
                    return Err(Fault::Lost("the abort".into()));
                }
                usable(barrier, kill)
            },
        ),
        case("barrier/abort, two asleep", 3, |barrier, _| barrier.abort(), aborted)
            .peer(|barrier, cells| party(barrier, cells, 0))
            .peer(|barrier, cells| party(barrier, cells, 1))
            .warm(|_, cells| asleep(cells, 2))
            .frozen(|barrier, kill| aborted_by_another(barrier, kill, 2)),
        case("barrier/reset, two asleep", 3, |barrier, _| barrier.reset(), aborted)
            .peer(|barrier, cells| party(barrier, cells, 0))
            .peer(|barrier, cells| party(barrier, cells, 1))
            .warm(|_, cells| asleep(cells, 2))
            .frozen(|barrier, kill| aborted_by_another(barrier, kill, 2)),
        case(
            "barrier/reset, broken",
            2,
            |barrier, _| barrier.reset(),
            |barrier, kill| {
                if kill.finished() && barrier.is_broken() {
                    return Err(Fault::Lost("the reset".into()));
                }
                usable(barrier, kill)
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
        .frozen(|barrier, kill| waits_for_it(barrier, kill, 0))
        .watch(|_| ours())
        .wake_within(SOON)
        // Two liveness polls, one after the other.
        .watchdog(Duration::from_secs(6))
        .finally(nothing_left)
}

/// The victim: notes its verdict, too.
fn last(barrier: &Barrier, cells: &Cells) {
    note_verdict(barrier, cells, MINE);
}

fn party(barrier: &Barrier, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    note_verdict(barrier, cells, number);
}

fn note_verdict(barrier: &Barrier, cells: &Cells, number: usize) {
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

/// The death of a participant ends the round, or the victim had not begun; all get the same verdict.
fn same_for_all(barrier: &Barrier, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    let cells = kill.cells();
    let killed = Instant::now();
    // A death that the kernel has missed is noticed within a second.
    let notice = if kill.mode() == Mode::Missed { Duration::from_millis(1500) } else { SOON / 5 };
    while barrier.waiting() != 0 && killed.elapsed() < notice {
        std::thread::sleep(Duration::from_micros(100));
    }
    // No wait has returned, and as many processes wait as before: then the victim had not arrived.
    if barrier.waiting() == peers && !kill.finished() && !kill.recoverer_finished() {
        barrier.abort();
    }
    for peer in 0..peers {
        kill.must_wake(peer)?;
        wait_for(cells, VERDICT + peer);
    }
    let verdicts: Vec<u64> = (0..peers).map(|peer| cells.get(VERDICT + peer)).collect();
    let mine = cells.get(VERDICT + MINE);
    if verdicts.iter().any(|verdict| *verdict != verdicts[0]) || (mine != 0 && mine != verdicts[0]) {
        return Err(Fault::Torn(format!("{verdicts:?}, and the victim {mine}")));
    }
    if kill.mode() == Mode::Freeze && verdicts[0] == DIED {
        return Err(Fault::Torn("no process died".into()));
    }
    usable(barrier, kill)
}

fn aborted(barrier: &Barrier, kill: &Kill<'_>) -> Result<(), Fault> {
    if barrier.waiting() == 2 && !barrier.is_broken() {
        if kill.finished() {
            return Err(Fault::Lost("the abort or reset".into()));
        }
        barrier.abort();
    }
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    usable(barrier, kill)
}

/// After a reset all participants pass two rounds.
fn usable(barrier: &Barrier, kill: &Kill<'_>) -> Result<(), Fault> {
    match two_rounds(barrier, kill) {
        // A process that takes the claim of a dead participant whose death the kernel has missed finds the
        // round that this had noted, and that may be the current round.
        Err(_) if kill.mode() == Mode::Missed => two_rounds(barrier, kill),
        done => done,
    }
}

fn two_rounds(barrier: &Barrier, kill: &Kill<'_>) -> Result<(), Fault> {
    barrier.reset();
    if barrier.is_broken() || barrier.waiting() != 0 {
        return Err(Fault::Torn(format!("after a reset: {barrier:?}")));
    }
    let patience = kill.patience();
    std::thread::scope(|s| {
        let round = || -> Result<(), BarrierError> {
            (0..2).try_for_each(|_| barrier.wait_timeout(patience).map(|_| ()))
        };
        let others: Vec<_> = (1..barrier.parties()).map(|_| s.spawn(round)).collect();
        let mine = round();
        others.into_iter().map(|other| other.join().unwrap()).chain([mine]).collect::<Result<(), _>>()
    })
    .map_err(|error| Fault::Hang(format!("{error}; the victim was {}", kill.victim())))
}

/// While the victim stands still it is not taken for dead: the others wait for it, or, if it has released
/// them, go on within a second.
fn waits_for_it(barrier: &Barrier, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    if peers > 0 && barrier.waiting() == 0 {
        return peers_go_on(kill, peers);
    }
    std::thread::sleep(BRIEFLY);
    match (0..peers).find(|peer| kill.cell(VERDICT + peer) == DIED) {
        Some(peer) => Err(Fault::Torn(format!("peer {peer} got a death that did not happen"))),
        None => Ok(()),
    }
}

/// While the victim stands still another process breaks the barrier: the waits of the others end at once if
/// the victim had not ended the round, else within a second.
fn aborted_by_another(barrier: &Barrier, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    let (begin, ended) = (Instant::now(), barrier.waiting() == 0);
    barrier.abort();
    in_time("to abort", begin, Duration::ZERO)?;
    if !ended {
        (0..peers).try_for_each(|peer| kill.must_wake(peer).map(drop))?;
    }
    peers_go_on(kill, peers)
}

/// While the victim stands still another participant comes for a moment: it is the last of three, or breaks
/// the barrier in time. The waits of the others end.
fn third_in_a_hurry(barrier: &Barrier, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    let begin = Instant::now();
    match barrier.wait_timeout(BRIEFLY).map_err(|error| error.cause()) {
        Err(Broken::TimedOut) if begin.elapsed() < BRIEFLY => {
            return Err(Fault::Torn("the time-out came early".into()));
        }
        Ok(_) | Err(Broken::TimedOut) => {}
        other => return Err(Fault::Torn(format!("{other:?} beside the stopped victim"))),
    }
    in_time("to wait for the others", begin, BRIEFLY)?;
    peers_go_on(kill, peers)
}
