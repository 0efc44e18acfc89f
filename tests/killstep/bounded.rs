//! Bounded semaphores: a release has happened or it has not, an acquire has taken one or none, and nobody sleeps beside a count.

use std::time::Duration;

use multiproc::BoundedSemaphore;
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{ignore, killed_only, nothing_left, ours};

/// How much there is at first, and at most.
const FIRST: u32 = 1;
const MOST: u32 = 3;
/// Longer than the look that those who wait take once a second.
const A_WHILE: Duration = Duration::from_millis(2500);

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&killed_only(case));
    }
}

fn cases() -> Vec<Case<'static, BoundedSemaphore>> {
    vec![
        case("bounded/acquire", FIRST, |tokens, _| tokens.acquire(), |tokens, kill| left(tokens, kill, FIRST, FIRST - 1)),
        case(
            "bounded/try_acquire",
            FIRST,
            |tokens, _| ignore(tokens.try_acquire()),
            |tokens, kill| left(tokens, kill, FIRST, FIRST - 1),
        ),
        case(
            "bounded/try_acquire, in vain",
            0,
            |tokens, _| ignore(tokens.try_acquire()),
            |tokens, kill| left(tokens, kill, 0, 0),
        ),
        case("bounded/release", FIRST, |tokens, _| drop(tokens.release(2)), |tokens, kill| left(tokens, kill, FIRST, FIRST + 2)),
        case(
            "bounded/release, too many",
            FIRST,
            |tokens, _| drop(tokens.release(MOST)),
            |tokens, kill| left(tokens, kill, FIRST, FIRST),
        ),
        case(
            "bounded/release, another waits",
            0,
            |tokens, _| drop(tokens.release(1)),
            |tokens, kill| {
                if !kill.finished() {
                    // Before the change or after it; if after, the sleeper takes that one, and this is the next.
                    drop(tokens.release(1));
                }
                kill.must_wake(0)?;
                usable(tokens)
            },
        )
        .peer(|tokens, _| tokens.acquire()),
        case(
            "bounded/release, two wait",
            0,
            |tokens, _| drop(tokens.release(2)),
            |tokens, kill| {
                if !kill.finished() && tokens.available() == 0 {
                    drop(tokens.release(2));
                }
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                usable(tokens)
            },
        )
        .peer(|tokens, _| tokens.acquire())
        .peer(|tokens, _| tokens.acquire()),
        // Killed in its sleep, or woken: the other one gets the second at least.
        case(
            "bounded/acquire, asleep, woken",
            0,
            |tokens, _| tokens.acquire(),
            |tokens, kill| {
                drop(tokens.release(2));
                kill.must_wake(0)?;
                usable(tokens)
            },
        )
        .peer(|tokens, _| tokens.acquire())
        .release(|tokens, _| drop(tokens.release(1))),
        case(
            "bounded/acquire_timeout, in vain",
            0,
            |tokens, _| ignore(tokens.acquire_timeout(Duration::from_millis(30))),
            |tokens, kill| left(tokens, kill, 0, 0),
        )
        .release(|_, _| ()),
    ]
}

fn case(
    name: &str,
    first: u32,
    victim: impl Fn(&BoundedSemaphore, &Cells) + 'static,
    survive: impl Fn(&BoundedSemaphore, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, BoundedSemaphore> {
    let make = move || BoundedSemaphore::new(first, MOST).unwrap();
    Case::new(name, make, victim, survive).watch(|_| ours()).wake_within(A_WHILE).finally(nothing_left)
}

/// The count is what it was, or what it should become; the latter, if the victim had finished.
fn left(tokens: &BoundedSemaphore, kill: &Kill<'_>, before: u32, after: u32) -> Result<(), Fault> {
    let count = tokens.available();
    if count != after && (kill.finished() || count != before) {
        return Err(Fault::Torn(format!("{count}, not {before} or {after}")));
    }
    usable(tokens)
}

/// All of it can be taken, filled up again, and no further.
fn usable(tokens: &BoundedSemaphore) -> Result<(), Fault> {
    while tokens.try_acquire() {}
    tokens.release(MOST)?;
    if tokens.release(1).is_ok() || !tokens.acquire_timeout(A_WHILE) || tokens.available() != MOST - 1 {
        return Err(Fault::Lost(format!("{tokens:?}")));
    }
    Ok(())
}
