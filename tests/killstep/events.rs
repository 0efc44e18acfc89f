//! Events: after any death, a set that happened wakes every waiter, soon.

use std::time::{Duration, Instant};

use multiproc::Event;
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{
    BRIEFLY, FUTEX, SOON, WAITV, await_asleep, ignore, in_time, nothing_left, ours, peers_go_on, sign,
};

/// Cells: 0 "`set` has returned"; peers sign from 10 on.
const SET: usize = 0;
const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Event>> {
    vec![
        case("event/set", set, |event, kill| {
            if kill.finished() && !event.is_set() {
                return Err(Fault::Lost("the set".into()));
            }
            usable(event, kill)
        })
        .sampled(3),
        case("event/set, one asleep", set, heard_by_one)
            .peer(|event, cells| waiter(event, cells, 0))
            .warm(|_, cells| asleep(cells, 1, WAITV))
            .frozen(|event, kill| heard_of_itself(event, kill, 1)),
        case("event/set, two asleep", set, heard_by_two)
            .peer(|event, cells| waiter(event, cells, 0))
            .peer(|event, cells| waiter(event, cells, 1))
            .warm(|_, cells| asleep(cells, 2, WAITV))
            .frozen(|event, kill| set_by_another(event, kill, 2))
            .sampled(3),
        case("event/set, two briefly asleep", set, heard_by_two)
            .peer(|event, cells| waiter(event, cells, 0))
            .peer(|event, cells| waiter(event, cells, 1))
            .warm(|_, cells| asleep(cells, 2, FUTEX))
            .frozen(|event, kill| heard_of_itself(event, kill, 2)),
        // The barger comes to wait, or finds it set, wherever the victim stands.
        case("event/set, two asleep and a barger", set, |event, kill| {
            set_if_it_was_not(event, kill);
            kill.must_wake(2)?;
            heard_by_two(event, kill)
        })
        .peer(|event, cells| waiter(event, cells, 0))
        .peer(|event, cells| waiter(event, cells, 1))
        .warm(|_, cells| asleep(cells, 2, WAITV))
        .late_peer(|event, _| event.wait())
        .frozen(|event, kill| heard_of_itself(event, kill, 3)),
        case(
            "event/set+clear, two asleep",
            |event, cells| {
                set(event, cells);
                event.clear();
            },
            heard_by_two,
        )
        .peer(|event, cells| waiter(event, cells, 0))
        .peer(|event, cells| waiter(event, cells, 1))
        .warm(|_, cells| asleep(cells, 2, WAITV))
        .frozen(|event, kill| heard_of_itself(event, kill, 2)),
        case("event/clear", |event, _| event.clear(), usable).warm(|event, _| event.set()).frozen(
            |event, kill| {
                waits_in_time(event, kill)?;
                set_by_another(event, kill, 0)
            },
        ),
        case(
            "event/wait, woken",
            |event, _| event.wait(),
            |event, kill| {
                event.set();
                heard_by_two(event, kill)
            },
        )
        .peer(|event, cells| waiter(event, cells, 0))
        .peer(|event, cells| waiter(event, cells, 1))
        .release(|event, _| event.set())
        .frozen(|event, kill| set_by_another(event, kill, 2)),
        // Killed asleep, or woken by a set that is cleared at once, beside another sleeping process.
        case("event/wait, woken by set+clear", |event, _| event.wait(), heard_by_one)
            .peer(|event, cells| waiter(event, cells, 0))
            .release(|event, cells| {
                set(event, cells);
                event.clear();
            })
            .frozen(|event, kill| set_by_another(event, kill, 1)),
        case(
            "event/wait_timeout, times out",
            |event, _| ignore(event.wait_timeout(Duration::from_millis(30))),
            heard_by_one,
        )
        .peer(|event, cells| waiter(event, cells, 0))
        .release(|_, _| ())
        .frozen(|event, kill| {
            waits_in_time(event, kill)?;
            set_by_another(event, kill, 1)
        }),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Event, &Cells) + 'static,
    survive: impl Fn(&Event, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Event> {
    Case::new(name, || Event::new().unwrap(), victim, survive)
        .frozen(waits_in_time)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

fn set(event: &Event, cells: &Cells) {
    event.set();
    cells.set(SET, 1);
}

fn waiter(event: &Event, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    event.wait();
}

fn asleep(cells: &Cells, peers: usize, calls: &[i64]) {
    (0..peers).for_each(|peer| await_asleep(cells, PEER + peer, calls));
}

fn heard_by_one(event: &Event, kill: &Kill<'_>) -> Result<(), Fault> {
    set_if_it_was_not(event, kill);
    kill.must_wake(0)?;
    usable(event, kill)
}

fn heard_by_two(event: &Event, kill: &Kill<'_>) -> Result<(), Fault> {
    set_if_it_was_not(event, kill);
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    usable(event, kill)
}

/// What the dead process has set, if only for a moment, is not set again here: its own set must wake the
/// waiters.
fn set_if_it_was_not(event: &Event, kill: &Kill<'_>) {
    if !event.is_set() && kill.cells().get(SET) == 0 {
        event.set();
    }
}

/// While the victim stands still, a wait for an event that does not come ends in time, and a wait for a set
/// event ends at once.
fn waits_in_time(event: &Event, _: &Kill<'_>) -> Result<(), Fault> {
    let begin = Instant::now();
    let (before, raised) = (event.is_set(), event.wait_timeout(BRIEFLY));
    in_time("to wait", begin, BRIEFLY)?;
    match (before, raised) {
        (true, false) => Err(Fault::Lost("it was set".into())),
        (false, true) => Err(Fault::Torn("it was not set".into())),
        (false, false) if begin.elapsed() < BRIEFLY => Err(Fault::Torn("the time-out came early".into())),
        _ => Ok(()),
    }
}

/// The victim stands still before its own set has woken every waiter: the others wake within a second.
fn heard_of_itself(event: &Event, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    waits_in_time(event, kill)?;
    if event.is_set() || kill.cell(SET) != 0 { peers_go_on(kill, peers) } else { Ok(()) }
}

/// The victim stands still at any point; the set of another process wakes every waiter at once.
fn set_by_another(event: &Event, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    let begin = Instant::now();
    event.set();
    if !event.wait_timeout(SOON) {
        return Err(Fault::Lost("a set beside the stopped victim".into()));
    }
    (0..peers).try_for_each(|peer| kill.must_wake(peer).map(drop))?;
    in_time("to set it", begin, Duration::ZERO)
}

fn usable(event: &Event, kill: &Kill<'_>) -> Result<(), Fault> {
    event.clear();
    if event.is_set() || event.wait_timeout(Duration::from_millis(1)) {
        return Err(Fault::Torn("it was cleared".into()));
    }
    event.set();
    if event.is_set() && event.wait_timeout(kill.patience()) {
        Ok(())
    } else {
        Err(Fault::Hang("it was set".into()))
    }
}
