//! The wait words: whoever should hear it, hears it.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use multiproc::shm::{Bell, Deadline, Seq};
use multiproc_killstep::{Case, Cells, Fault, Kill, Region, SharedWords, Sweep};

use crate::support::{SOON, ignore, peers_go_on};

/// The words under test in plain shared memory, and a flag beside them.
#[repr(C)]
pub(crate) struct Words {
    seq: Seq,
    bell: Bell,
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
        case("seq/wake_all", announce, heard_at_once_or_within_the_belt)
            .peer(|words, _| wait_for_flag(words))
            .peer(|words, _| wait_for_flag(words))
            .frozen(|words, kill| if words.flag.load(SeqCst) == 1 { peers_go_on(kill, 2) } else { Ok(()) })
            .wake_within(Duration::from_millis(1500)),
        case(
            "seq/wake_one",
            |words, _| {
                words.flag.store(1, SeqCst);
                words.seq.wake_one();
            },
            heard_at_once_or_within_the_belt_by_one,
        )
        .peer(|words, _| wait_for_flag(words))
        .frozen(|words, kill| if words.flag.load(SeqCst) == 1 { peers_go_on(kill, 1) } else { Ok(()) })
        .wake_within(Duration::from_millis(1500)),
        case(
            "seq/wait_until",
            |words, _| wait_for_flag(words),
            |words, kill| {
                announce(words, kill.cells());
                kill.must_wake(0).map(|_| ())
            },
        )
        .peer(|words, _| wait_for_flag(words))
        .release(announce)
        .frozen(|words, kill| {
            announce(words, kill.cells());
            peers_go_on(kill, 1)
        }),
        case("bell/ring", |words, _| ignore(words.bell.ring()), rung)
            .peer(wait_for_bell)
            .peer(wait_for_bell)
            .frozen(if_rung_peers_go_on),
        // What must wake them is judged apart, so that the latency of the death itself is measured.
        case(
            "bell/ring, heard",
            |words, _| ignore(words.bell.ring()),
            |words, kill| {
                if words.bell.is_rung() {
                    kill.must_wake(0)?;
                    kill.must_wake(1)?;
                }
                if kill.finished() && !words.bell.is_rung() {
                    return Err(Fault::Lost("the ring".into()));
                }
                rung(words, kill)
            },
        )
        .peer(wait_for_bell)
        .peer(wait_for_bell)
        .frozen(if_rung_peers_go_on)
        .sampled(2),
        case("bell/wait, woken", wait_for_bell, |words, kill| {
            words.bell.ring()?;
            kill.must_wake(0)?;
            kill.must_wake(1)?;
            rung(words, kill)
        })
        .peer(wait_for_bell)
        .peer(wait_for_bell)
        .release(|words, _| ignore(words.bell.ring()))
        .frozen(|words, kill| {
            words.bell.ring()?;
            peers_go_on(kill, 2)
        }),
        case("bell/silence", |words, _| words.bell.silence(), rung),
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

fn announce(words: &Place, _: &Cells) {
    words.flag.store(1, SeqCst);
    words.seq.wake_all();
}

fn wait_for_flag(words: &Words) {
    words.seq.wait_until(Deadline::NEVER, || words.flag.load(SeqCst) == 1);
}

fn wait_for_bell(words: &Place, _: &Cells) {
    let _ = words.bell.wait(Deadline::NEVER);
}

fn heard_at_once_or_within_the_belt(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    if words.flag.load(SeqCst) == 0 {
        announce(words, kill.cells());
    }
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    Ok(())
}

fn heard_at_once_or_within_the_belt_by_one(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    if words.flag.load(SeqCst) == 0 {
        announce(words, kill.cells());
    }
    kill.must_wake(0).map(|_| ())
}

fn if_rung_peers_go_on(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    if words.bell.is_rung() { peers_go_on(kill, 2) } else { Ok(()) }
}

fn rung(words: &Place, kill: &Kill<'_>) -> Result<(), Fault> {
    words.bell.ring()?;
    if words.bell.wait(Deadline::after(kill.patience()))? { Ok(()) } else { Err(Fault::Hang("a rung bell is not heard".into())) }
}
