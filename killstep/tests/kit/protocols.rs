//! Single kills in tiny protocols: the kit finds nothing in the sound ones, and the fault of each of the
//! others.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use multiproc_killstep::{Case, Fault, SharedWords, Sweep};

use crate::primitives::{futex_wait, futex_wake, hold, lock, release, robust_mutex, unlock};
use crate::{quiet, watch, words};

/// Two slots and a word that says which of them counts.
pub(crate) fn one_store(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "one store",
        words,
        |words, _| {
            let spare = 1 - words[0].load(Relaxed);
            for at in 0..4 {
                words[8 + 8 * spare as usize + at].store(7, Relaxed);
            }
            words[0].store(spare, Release);
        },
        |words, kill| {
            let slot = words[0].load(Acquire) as usize;
            let values: Vec<_> = (0..4).map(|at| words[8 + 8 * slot + at].load(Relaxed)).collect();
            match values[..] {
                [0, 0, 0, 0] if kill.finished() => Err(Fault::Lost("the write had returned".into())),
                [0, 0, 0, 0] | [7, 7, 7, 7] => Ok(()),
                _ => Err(Fault::Torn(format!("{values:?}"))),
            }
        },
    )
    .watch(watch);
    let row = sweep.run(&case).expect("wanted");
    quiet(&row) && row.states == 6 && row.kills >= 6
}

pub(crate) fn two_stores(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "two stores",
        words,
        |words, _| {
            words[0].store(1, Release);
            words[8].store(1, Release);
        },
        |words, _| match (words[0].load(Acquire), words[8].load(Acquire)) {
            (a, b) if a == b => Ok(()),
            both => Err(Fault::Torn(format!("{both:?}"))),
        },
    )
    .watch(watch);
    let row = sweep.run(&case).expect("wanted");
    // Between the two stores there is one state, of one or more instructions.
    row.states == 3
        && row.torn >= 1
        && row.torn < row.kills
        && row.hangs + row.lost + row.leaked == 0
        && row.broken.is_none()
}

pub(crate) fn orphaned_lock(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "orphaned lock",
        words,
        |words, _| {
            lock(&words[0]);
            words[8].store(1, Relaxed);
            unlock(&words[0]);
        },
        |words, _| {
            lock(&words[0]);
            unlock(&words[0]);
            Ok(())
        },
    )
    .watch(watch)
    .watchdog(Duration::from_millis(50))
    .wake_within(Duration::from_millis(50));
    let row = sweep.run(&case).expect("wanted");
    row.hangs >= 2 && row.hangs == row.faults()
}

pub(crate) fn lost(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "lost",
        words,
        |_, cells| cells.set(3, 1),
        |words, kill| match (kill.finished(), kill.cell(3), words[0].load(Acquire)) {
            (true, 1, 0) => Err(Fault::Lost("confirmed, and not there".into())),
            (true, 0, _) => Err(Fault::Torn("a cell does not outlive its writer".into())),
            _ => Ok(()),
        },
    );
    let row = sweep.run(&case).expect("wanted");
    row.lost == 1 && row.faults() == 1
}

pub(crate) fn released(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "released",
        words,
        |words, _| {
            words[8].store(1, Relaxed);
            while words[0].load(Acquire) == 0 {
                futex_wait(&words[0], 0, None);
            }
            words[8].store(2, Relaxed);
        },
        |words, kill| {
            // Facts of a later stage prove an earlier one.
            let stage = words[8].load(Acquire);
            let released = words[0].load(Acquire);
            let right = if kill.blocked() { stage == 1 && released == 0 } else { stage < 2 || released == 1 };
            if right && (!kill.finished() || stage == 2) {
                Ok(())
            } else {
                Err(Fault::Torn(format!("{stage} {released}")))
            }
        },
    )
    .watch(watch);
    let asleep = sweep.run(&case).expect("wanted");
    let case = case.release(|words, _| {
        words[0].store(1, Release);
        futex_wake(&words[0]);
    });
    let through = sweep.run(&case).expect("wanted");
    quiet(&asleep) && quiet(&through) && through.steps > asleep.steps && through.states > asleep.states
}

pub(crate) fn timed(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "timed sleep",
        words,
        |words, _| {
            futex_wait(&words[0], 0, Some(Duration::from_millis(60)));
            words[8].store(1, Release);
        },
        |words, kill| {
            if kill.finished() == (words[8].load(Acquire) == 1) || !kill.finished() {
                Ok(())
            } else {
                Err(Fault::Torn("out".into()))
            }
        },
    )
    .watch(watch)
    .release(|_, _| ());
    let row = sweep.run(&case).expect("wanted");
    quiet(&row) && row.states >= 4
}

pub(crate) fn clocks(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "clocks",
        words,
        |words, _| {
            for at in 0..3 {
                words[at].store(Instant::now().elapsed().as_nanos() as u64 | 1, Relaxed);
            }
        },
        |words, kill| {
            let set = words[..3].iter().filter(|word| word.load(Relaxed) != 0).count();
            if set == 3 || !kill.finished() { Ok(()) } else { Err(Fault::Torn(format!("{set} of 3"))) }
        },
    )
    .watch(watch)
    .max_steps(20_000);
    let row = sweep.run(&case).expect("wanted");
    quiet(&row) && row.states == 4
}

/// A flag and a wake, without anything that would wake a waiter in place of a dead process.
pub(crate) fn woken(sweep: &mut Sweep) -> bool {
    let case = |wait: bool| {
        Case::new(
            "wake",
            words,
            |words: &SharedWords, _: &_| {
                words[0].store(1, Release);
                futex_wake(&words[0]);
            },
            move |words, kill| {
                if wait && words[0].load(Acquire) == 1 {
                    kill.must_wake(0)?;
                }
                words[0].store(1, Release);
                futex_wake(&words[0]);
                Ok(())
            },
        )
        .peer(|words, cells| {
            while words[0].load(Acquire) == 0 {
                futex_wait(&words[0], 0, None);
            }
            cells.add(0, 1);
        })
        .watch(watch)
        .wake_within(Duration::from_millis(40))
    };
    let sound = sweep.run(&case(false)).expect("wanted");
    let missing = sweep.run(&case(true)).expect("wanted");
    quiet(&sound) && missing.hangs >= 1 && missing.hangs == missing.faults()
}

/// The kernel wakes a waiter when the owner of a robust mutex dies: seen as a wake latency.
pub(crate) fn robust(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "robust mutex",
        || {
            let words = words();
            robust_mutex(&words);
            words
        },
        |words, cells| {
            hold(words);
            cells.set(0, 1);
            release(words);
            cells.set(0, 2);
        },
        |_, kill| if kill.cell(0) == 1 { kill.must_wake(0).map(drop) } else { Ok(()) },
    )
    .late_peer(|words, _| {
        hold(words);
        release(words);
    })
    .watch(watch)
    .watchdog(Duration::from_millis(300));
    let row = sweep.run(&case).expect("wanted");
    // glibc loses the wake in a few places of its unlock; that it wakes at most others is enough for us.
    row.kills >= 8 && row.worst_wake.is_some() && row.torn + row.lost + row.leaked == 0
}
