//! Bounded semaphores: a release has happened or has not, an acquire has taken one or none, and no process
//! sleeps while the count is not 0.

use std::time::{Duration, Instant};

use multiproc::BoundedSemaphore;
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{BRIEFLY, ignore, in_time, nothing_left, ours, peers_go_on};

/// How much there is at first, and at most.
const FIRST: u32 = 1;
const MOST: u32 = 3;
/// Longer than the second between two liveness polls.
const A_WHILE: Duration = Duration::from_millis(2500);

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

fn cases() -> Vec<Case<'static, BoundedSemaphore>> {
    vec![
        case(
            "bounded/acquire",
            FIRST,
            |tokens, _| tokens.acquire(),
            |tokens, kill| left(tokens, kill, FIRST, |now| now.saturating_sub(1)),
        ),
        case(
            "bounded/try_acquire",
            FIRST,
            |tokens, _| ignore(tokens.try_acquire()),
            |tokens, kill| left(tokens, kill, FIRST, |now| now.saturating_sub(1)),
        ),
        case(
            "bounded/try_acquire, none free",
            0,
            |tokens, _| ignore(tokens.try_acquire()),
            |tokens, kill| left(tokens, kill, 0, |now| now),
        ),
        case(
            "bounded/release",
            FIRST,
            |tokens, _| drop(tokens.release(2)),
            |tokens, kill| left(tokens, kill, FIRST, |now| if now + 2 <= MOST { now + 2 } else { now }),
        )
        .sampled(3),
        case(
            "bounded/release, too many",
            FIRST,
            |tokens, _| drop(tokens.release(MOST)),
            |tokens, kill| left(tokens, kill, FIRST, |now| now),
        ),
        case(
            "bounded/release, another waits",
            0,
            |tokens, _| drop(tokens.release(1)),
            |tokens, kill| {
                if !kill.finished() && !kill.recoverer_finished() {
                    // Before the change or after it. If after, the sleeping peer takes that permit, and this
                    // is the next.
                    drop(tokens.release(1));
                }
                kill.must_wake(0)?;
                usable(tokens)
            },
        )
        .peer(|tokens, _| tokens.acquire())
        .frozen(|tokens, kill| stands_still(tokens, kill, 1))
        .sampled(3),
        case(
            "bounded/release, two wait",
            0,
            |tokens, _| drop(tokens.release(2)),
            |tokens, kill| {
                if !kill.finished() && !kill.recoverer_finished() && tokens.available() == 0 {
                    drop(tokens.release(2));
                }
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                usable(tokens)
            },
        )
        .peer(|tokens, _| tokens.acquire())
        .peer(|tokens, _| tokens.acquire())
        .frozen(|tokens, kill| stands_still(tokens, kill, 2)),
        // The barger takes one of the two permits, or waits with the others: the process without a permit
        // gets the next.
        case(
            "bounded/release, two wait and a barger",
            0,
            |tokens, _| drop(tokens.release(2)),
            |tokens, kill| {
                let mut more = 3;
                while more > 0 && (0..3).any(|peer| !kill.peer_ended(peer)) {
                    more -= u32::from(tokens.release(1).is_ok());
                }
                (0..3).try_for_each(|peer| kill.must_wake(peer).map(drop))?;
                usable(tokens)
            },
        )
        .peer(|tokens, _| tokens.acquire())
        .peer(|tokens, _| tokens.acquire())
        .late_peer(|tokens, _| tokens.acquire()),
        // The victim is killed asleep, or woken: the other waiter gets the second permit at least.
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
        .release(|tokens, _| drop(tokens.release(1)))
        .frozen(|tokens, kill| {
            tokens.release(1)?;
            peers_go_on(kill, 1)
        }),
        case(
            "bounded/acquire_timeout, times out",
            0,
            |tokens, _| ignore(tokens.acquire_timeout(Duration::from_millis(30))),
            |tokens, kill| left(tokens, kill, 0, |now| now),
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
    Case::new(name, make, victim, survive)
        .without(Mode::Missed, "nothing of it is on the robust list, so every kill is such a one")
        .frozen(|tokens, kill| stands_still(tokens, kill, 0))
        .watch(|_| ours())
        .wake_within(A_WHILE)
        .finally(nothing_left)
}

/// The count has changed as often as the victim and its recoverer had finished, and perhaps once for each
/// that was killed on the way.
fn left(
    tokens: &BoundedSemaphore,
    kill: &Kill<'_>,
    before: u32,
    change: fn(u32) -> u32,
) -> Result<(), Fault> {
    let count = tokens.available();
    let least = usize::from(kill.finished()) + usize::from(kill.recoverer_finished());
    let most = if kill.mode() == Mode::Double { 2 } else { 1 };
    let possible = |times| std::iter::successors(Some(before), |now| Some(change(*now))).nth(times);
    if !(least..=most).any(|times| possible(times) == Some(count)) {
        return Err(Fault::Torn(format!("{count}, from {before}, changed {least} to {most} times")));
    }
    usable(tokens)
}

/// While the victim stands still, what it has added is there for others, waiting peers get it within a
/// second, and time-outs hold.
fn stands_still(tokens: &BoundedSemaphore, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    if tokens.available() > 0 {
        peers_go_on(kill, peers)?;
    }
    let begin = Instant::now();
    let (before, taken) = (tokens.available(), tokens.acquire_timeout(BRIEFLY));
    in_time("to wait for one", begin, BRIEFLY)?;
    if taken != (before > 0) {
        return Err(Fault::Lost(format!("taken {taken}, of {before}")));
    }
    if taken {
        tokens.release(1)?;
    }
    Ok(())
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
