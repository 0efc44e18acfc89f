//! The modes beside the single kill: each finds what it is made for, and nothing in sound protocols.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};
use std::{fs, thread};

use multiproc_killstep::{Args, Case, Cells, Fault, Mode, Row, SharedWords, Sweep};

use crate::primitives::{futex_wait, futex_wake, hold, release, robust_mutex};
use crate::{quiet, watch, words};

/// A journal: the victim notes its intent, acts, and clears the note; the recoverer rolls forward. Sound only
/// if rolling forward twice is as good as once.
pub(crate) fn recoverers(sweep: &mut Sweep) -> bool {
    let case = |idempotent: bool| {
        Case::new(
            if idempotent { "recoverer, idempotent" } else { "recoverer, adds twice" },
            words,
            |words: &SharedWords, _: &_| {
                words[0].store(1, Release);
                words[8].store(1, Release);
                words[0].store(0, Release);
            },
            |words, kill| {
                if words[0].load(Acquire) == 1 {
                    words[8].store(1, Release);
                    words[0].store(0, Release);
                }
                match words[8].load(Acquire) {
                    0 if !kill.finished() => Ok(()),
                    1 => Ok(()),
                    sum => Err(Fault::Torn(format!(
                        "{sum}, the recoverer had finished: {}",
                        kill.recoverer_finished()
                    ))),
                }
            },
        )
        .recoverer(move |words, _| {
            if words[0].load(Acquire) == 1 {
                if idempotent {
                    words[8].store(1, Release);
                } else {
                    words[8].fetch_add(1, Release);
                }
                words[0].store(0, Release);
            }
        })
        .watch(watch)
    };
    let sound = in_mode(Mode::Double, &case(true));
    let unsound = in_mode(Mode::Double, &case(false));
    // One kill does not show it: the survivor rolls forward in one store.
    let once = sweep.run(&case(false)).expect("wanted");
    quiet(&once)
        && quiet(&sound)
        && sound.kills > 2 * sound.states
        && unsound.torn >= 1
        && unsound.torn == unsound.faults()
}

/// Of states that leave the same, only the first is swept with recoverers.
pub(crate) fn repetitions(_: &mut Sweep) -> bool {
    let case = Case::new(
        "there and back",
        words,
        |words, _| [1, 2, 1, 2, 3].into_iter().for_each(|number| words[0].store(number, Release)),
        |_, _| Ok(()),
    )
    .watch(watch);
    let row = in_mode(Mode::Double, &case);
    quiet(&row) && row.repeated == 2 && row.states == 6
}

/// A lock that knows its owner by process id, and looks whether that lives. A lock that `steals` after a
/// time-out is sound as long as an owner that holds it too long is dead.
pub(crate) fn stolen(sweep: &mut Sweep) -> bool {
    let case = |steals: bool| {
        let add = move |words: &SharedWords, limit: Duration| {
            let taken = take(&words[0], steals, limit);
            if taken {
                let sum = words[8].load(Acquire) + 1;
                // One more state, between the look and the store.
                words[16].store(sum, Release);
                words[8].store(sum, Release);
                words[0].store(0, Release);
            }
            taken
        };
        Case::new(
            if steals { "steals after a time-out" } else { "steals from the dead" },
            words,
            move |words: &SharedWords, _: &_| assert!(add(words, Duration::from_secs(1))),
            move |words, kill| {
                if !add(words, Duration::from_secs(1)) {
                    return Err(Fault::Hang("no process gets it".into()));
                }
                match words[8].load(Acquire) - kill.cell(0) {
                    2 => Ok(()),
                    1 if !kill.finished() => Ok(()),
                    sum => Err(Fault::Lost(format!("{sum}, not 2"))),
                }
            },
        )
        .frozen(move |words, kill| {
            kill.cells().set(0, u64::from(add(words, Duration::from_millis(20))));
            Ok(())
        })
        .watch(watch)
    };
    let found =
        [Mode::Freeze, Mode::Missed].map(|mode| [false, true].map(|steals| in_mode(mode, &case(steals))));
    let [[honest, thief], [polls, polls_and_steals]] = &found;
    quiet(&sweep.run(&case(true)).expect("wanted"))
        && quiet(honest)
        && thief.lost >= 1
        && thief.lost == thief.faults()
        && quiet(polls)
        && quiet(polls_and_steals)
}

pub(crate) fn take(word: &AtomicU64, steals: bool, limit: Duration) -> bool {
    let (me, begin) = (u64::from(std::process::id()), Instant::now());
    let mut owner = 0;
    while let Err(other) = word.compare_exchange(owner, me, Acquire, Relaxed) {
        let alive = fs::read_to_string(format!("/proc/{other}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
        owner = if alive && !(steals && begin.elapsed() > Duration::from_millis(5)) { 0 } else { other };
        if begin.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_micros(100));
    }
    true
}

/// A victim that is stopped asleep goes on as if nothing had happened, and what came meanwhile wakes it.
pub(crate) fn frozen_asleep(_: &mut Sweep) -> bool {
    let case = Case::new(
        "frozen asleep",
        words,
        |words, _| {
            while words[0].load(Acquire) == 0 {
                futex_wait(&words[0], 0, None);
            }
            words[8].fetch_add(1, Release);
        },
        |words, kill| {
            if kill.finished() && words[8].load(Acquire) == 1 && kill.cell(1) == 1 {
                Ok(())
            } else {
                Err(Fault::Lost(format!("{}, finished: {}", words[8].load(Acquire), kill.finished())))
            }
        },
    )
    .frozen(|words, kill| {
        words[0].store(1, Release);
        futex_wake(&words[0]);
        kill.cells().set(1, 1);
        // What stands still does nothing.
        let before = words[8].load(Acquire);
        thread::sleep(Duration::from_millis(3));
        if words[8].load(Acquire) == before { Ok(()) } else { Err(Fault::Torn("it went on".into())) }
    })
    .release(|words, _| {
        words[0].store(1, Release);
        futex_wake(&words[0]);
    })
    .watch(watch);
    let row = in_mode(Mode::Freeze, &case);
    quiet(&row) && row.kills >= 3
}

/// If the kernel does not walk the list, libc's mutex is lost with its owner: it has no liveness poll.
pub(crate) fn missed(_: &mut Sweep) -> bool {
    let case = |polls: bool| {
        Case::new(
            if polls { "cleanup missed, and made good" } else { "cleanup missed" },
            || {
                let words = words();
                robust_mutex(&words);
                words
            },
            |words: &SharedWords, cells: &Cells| {
                hold(words);
                cells.set(0, 1);
                // Held, in some states that can be told apart.
                (1..4).for_each(|number| words[16].store(number, Relaxed));
                cells.set(0, 2);
                release(words);
            },
            move |words, kill| {
                if polls {
                    // By another road.
                    robust_mutex(words);
                }
                if kill.cell(0) != 1 {
                    return Ok(());
                }
                let held = kill.cells();
                hold(words);
                held.set(1, 1);
                release(words);
                Ok(())
            },
        )
        .watch(watch)
        .watchdog(Duration::from_millis(100))
        .poll_within(Duration::from_millis(100))
    };
    let single = in_mode(Mode::Kill, &case(false));
    let (lost, mended) = (in_mode(Mode::Missed, &case(false)), in_mode(Mode::Missed, &case(true)));
    quiet(&single) && quiet(&mended) && lost.hangs >= 3 && lost.hangs == lost.faults()
}

/// What the modes leave out, and what they take a sample of.
pub(crate) fn extents(_: &mut Sweep) -> bool {
    let case = |name: &str| {
        Case::new(
            name,
            words,
            |words: &SharedWords, _: &_| (1..9).for_each(|number| words[0].store(number, Release)),
            |_, _| Ok(()),
        )
        .watch(watch)
    };
    let mut sweep = Sweep::new(Args::default());
    sweep.run(&case("not sampled"));
    sweep.run(&case("sampled").sampled(2).without(Mode::Missed, "as planned"));
    let parsed = |word: &str| Args::parse(["--mode", word].map(str::to_owned)).map(|args| args.mode);
    if parsed("missed") != Ok(Some(Mode::Missed)) || parsed("any").is_ok() {
        return false;
    }
    let rows = &sweep.report().rows;
    let facts: Vec<_> = rows.iter().map(|row| (row.operation.as_str(), row.mode, row.kills)).collect();
    facts
        == [
            ("not sampled", Mode::Kill, 10),
            ("sampled", Mode::Kill, 10),
            ("sampled", Mode::Double, 8),
            ("sampled", Mode::Freeze, 2),
        ]
        && sweep.report().summary().starts_with("killstep: 2 operations, 30 kills,")
}

pub(crate) fn in_mode<S>(mode: Mode, case: &Case<'_, S>) -> Row {
    let mut args = Args::default();
    args.mode = Some(mode);
    Sweep::new(args).run(case).expect("wanted")
}
