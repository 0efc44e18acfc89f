//! Events: whoever dies, a set that happened reaches everybody who waits, soon.

use std::time::Duration;

use multiproc::Event;
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{FUTEX, SOON, WAITV, await_asleep, ignore, killed_only, nothing_left, ours, sign};

/// Cells: 0 "`set` has returned"; peers sign from 10 on.
const SET: usize = 0;
const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&killed_only(case));
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Event>> {
    vec![
        case("event/set", set, |event, kill| {
            if kill.finished() && !event.is_set() {
                return Err(Fault::Lost("the set".into()));
            }
            usable(event)
        }),
        case("event/set, one asleep", set, heard_by_one)
            .peer(|event, cells| waiter(event, cells, 0))
            .warm(|_, cells| asleep(cells, 1, WAITV)),
        case("event/set, two asleep", set, heard_by_two)
            .peer(|event, cells| waiter(event, cells, 0))
            .peer(|event, cells| waiter(event, cells, 1))
            .warm(|_, cells| asleep(cells, 2, WAITV)),
        case("event/set, two briefly asleep", set, heard_by_two)
            .peer(|event, cells| waiter(event, cells, 0))
            .peer(|event, cells| waiter(event, cells, 1))
            .warm(|_, cells| asleep(cells, 2, FUTEX)),
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
        .warm(|_, cells| asleep(cells, 2, WAITV)),
        case("event/set, two asleep, then an heir", set, heard_by_two)
            .peer(|event, cells| waiter(event, cells, 0))
            .peer(|event, cells| waiter(event, cells, 1))
            .heir(set),
        case("event/clear", |event, _| event.clear(), |event, _| usable(event)).warm(|event, _| event.set()),
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
        .release(|event, _| event.set()),
        case("event/wait_timeout, in vain", |event, _| ignore(event.wait_timeout(Duration::from_millis(30))), heard_by_one)
            .peer(|event, cells| waiter(event, cells, 0))
            .release(|_, _| ()),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Event, &Cells) + 'static,
    survive: impl Fn(&Event, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Event> {
    Case::new(name, || Event::new().unwrap(), victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
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
    usable(event)
}

fn heard_by_two(event: &Event, kill: &Kill<'_>) -> Result<(), Fault> {
    set_if_it_was_not(event, kill);
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    usable(event)
}

/// What the dead one has set, if only for a moment, is not set again here: its own set must be heard.
fn set_if_it_was_not(event: &Event, kill: &Kill<'_>) {
    if !event.is_set() && kill.cells().get(SET) == 0 {
        event.set();
    }
}

fn usable(event: &Event) -> Result<(), Fault> {
    event.clear();
    if event.is_set() || event.wait_timeout(Duration::from_millis(1)) {
        return Err(Fault::Torn("it was cleared".into()));
    }
    event.set();
    if event.is_set() && event.wait_timeout(SOON) { Ok(()) } else { Err(Fault::Hang("it was set".into())) }
}
