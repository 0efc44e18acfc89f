//! The wait words: a wake-up reaches every process that it is for.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use multiproc::robust::{Deadline, EventCount, RawEvent};
use multiproc_killstep::{Case, Cells, Fault, Kill, Region, SharedWords, Sweep};

use crate::support::{SOON, peers_go_on};

/// The words under test in plain shared memory, with a flag beside them.
#[repr(C)]
pub(crate) struct Words {
    seq: EventCount,
    event: RawEvent,
    flag: AtomicU32,
}

pub(crate) struct Place(SharedWords);

impl std::ops::Deref for Place {
    type Target = Words;

    fn deref(&self) -> &Words {
        // SAFETY: 16 zeroed, aligned words of shared memory; `Words` is atomics only, and all zeros is valid.
        unsafe { &*self.0.as_ptr().cast() }
    }
}

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Place>> {
    vec![
        case("event_count/wake_all", change_and_wake, heard_at_once_or_within_a_second)
            .peer(|words, _| wait_for_flag(words))
            .peer(|words, _| wait_for_flag(words))
            .frozen(|words, kill| if words.flag.load(SeqCst) == 1 { peers_go_on(kill, 2) } else { Ok(()) })
            .wake_within(Duration::from_millis(1500)),
        case(
            "event_count/wake_one",
            |words, _| {
                words.flag.store(1, SeqCst);
                words.seq.wake_one();
            },
            heard_at_once_or_within_a_second_by_one,
        )
        .peer(|words, _| wait_for_flag(words))
        .frozen(|words, kill| if words.flag.load(SeqCst) == 1 { peers_go_on(kill, 1) } else { Ok(()) })
        .wake_within(Duration::from_millis(1500)),
        case(
            "event_count/wait_until",
            |words, _| wait_for_flag(words),
            |words, kill| {
                change_and_wake(words, kill.cells());
                kill.must_wake(0).map(|_| ())
            },
        )
        .peer(|words, _| wait_for_flag(words))
        .release(change_and_wake)
        .frozen(|words, kill| {
            change_and_wake(words, kill.cells());
            peers_go_on(kill, 1)
        }),
        case("raw_event/set", |words, _| words.event.set(), is_heard)
            .peer(wait_for_event)
            .peer(wait_for_event)
            .frozen(if_set_peers_go_on),
        // What must wake them is judged apart, so that the latency of the death itself is measured.
        case(
            "raw_event/set, heard",
            |words, _| words.event.set(),
            |words, kill| {
                if words.event.is_set() {
                    kill.must_wake(0)?;
                    kill.must_wake(1)?;
                }
                if kill.finished() && !words.event.is_set() {
                    return Err(Fault::Lost("the set".into()));
                }
                is_heard(words, kill)
            },
        )
        .peer(wait_for_event)
        .peer(wait_for_event)
        .frozen(if_set_peers_go_on)
        .sampled(3),
        case("raw_event/wait, woken", wait_for_event, |words, kill| {
            words.event.set();
            kill.must_wake(0)?;
            kill.must_wake(1)?;
            is_heard(words, kill)
        })
        .peer(wait_for_event)
        .peer(wait_for_event)
        .release(|words, _| words.event.set())
        .frozen(|words, kill| {
            words.event.set();
            peers_go_on(kill, 2)
        }),
        case("raw_event/clear", |words, _| words.event.clear(), is_heard),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Place, &Cells) + 'static,
    survive: impl Fn(&Place, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Place> {
    Case::new(name, || Place(SharedWords::new(16).unwrap()), victim, survive)
        .watch(|words| vec![Region::of::<Words>(words)])
        .wake_within(SOON)
}

fn change_and_wake(words: &Place, _: &Cells) {
    words.flag.store(1, SeqCst);
    words.seq.wake_all();
}

fn wait_for_flag(words: &Words) {
    words.seq.wait_until(Deadline::NEVER, || words.flag.load(SeqCst) == 1);
}

fn wait_for_event(words: &Place, _: &Cells) {
    let _ = words.event.wait(Deadline::NEVER);
}

fn heard_at_once_or_within_a_second(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    if words.flag.load(SeqCst) == 0 {
        change_and_wake(words, kill.cells());
    }
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    Ok(())
}

fn heard_at_once_or_within_a_second_by_one(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    if words.flag.load(SeqCst) == 0 {
        change_and_wake(words, kill.cells());
    }
    kill.must_wake(0).map(|_| ())
}

fn if_set_peers_go_on(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    if words.event.is_set() { peers_go_on(kill, 2) } else { Ok(()) }
}

fn is_heard(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    words.event.set();
    if words.event.wait(Deadline::after(kill.patience())) {
        Ok(())
    } else {
        Err(Fault::Hang("a is_heard event is not heard".into()))
    }
}
