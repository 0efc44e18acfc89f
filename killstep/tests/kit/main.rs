//! Tests of the kit on tiny protocols: it finds nothing in the sound ones, and the mistake in each of the
//! others.
#![allow(unsafe_code, reason = "protocols of its own, on bare futexes and a libc mutex")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "calls that belong together")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test program talks")]

mod modes;
mod primitives;
mod protocols;
mod sweeps;
mod workers;

use std::env;
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use multiproc_killstep::{Args, Mode, NO_PTRACE, Region, Row, SharedWords, Sweep};

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        Some("denied") => return sweeps::denied(),
        Some("driver") => return workers::driver(env::args().skip(2)),
        _ => {}
    }
    let (mut failed, mut count) = (Vec::new(), 1);
    for all in [false, true] {
        let mut args = Args::default();
        (args.all, args.planted, args.mode) = (all, true, Some(Mode::Kill));
        let mut sweep = Sweep::new(args);
        if let Some(reason) = sweep.unable() {
            eprintln!("ptrace is not allowed here: {reason}");
            return sweep.finish();
        }
        let begin = Instant::now();
        // Unoptimised operations have ten times the steps, and their cost grows with the square.
        let tests = if all && cfg!(debug_assertions) { &TESTS[1..2] } else { TESTS };
        count += tests.len();
        for (what, test) in tests {
            let row = test(&mut sweep);
            if !row {
                failed.push(format!("{what} (all: {all})"));
            }
        }
        println!("{}, in {:.1?}", sweep.report().summary(), begin.elapsed());
    }
    let mut unused = Sweep::new(Args::default());
    for (what, test) in DRIVEN {
        count += 1;
        if !test(&mut unused) {
            failed.push((*what).to_owned());
        }
    }
    let status = Command::new("/proc/self/exe").arg("denied").status().map(|status| status.code());
    if !matches!(status, Ok(Some(code)) if code == i32::from(NO_PTRACE)) {
        failed.push(format!("denied: {status:?}"));
    }
    for what in &failed {
        eprintln!("FAILED: {what}");
    }
    println!("kit: {count} tests, {} failed", failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}

type Test = fn(&mut Sweep) -> bool;

const TESTS: &[(&str, Test)] = &[
    ("one commit store is sound", protocols::one_store),
    ("two commit stores are torn", protocols::two_stores),
    ("a lock without recovery hangs", protocols::orphaned_lock),
    ("a confirmed write that is not there is lost", protocols::lost),
    ("a victim is killed asleep, and after its release", protocols::released),
    ("a timed sleep ends by itself", protocols::timed),
    ("clocks in the vDSO do not livelock", protocols::clocks),
    ("a waiter is woken, and the missing wake is found", protocols::woken),
    ("libc's robust mutex wakes a late peer", protocols::robust),
    ("a recoverer is killed in its repair", modes::recoverers),
    ("states that leave the same are left out", modes::repetitions),
    ("a lock is stolen from a stopped owner", modes::stolen),
    ("a victim is stopped asleep", modes::frozen_asleep),
    ("a cleanup that the kernel misses", modes::missed),
    ("modes: samples and exceptions", modes::extents),
    ("a file left behind is leaked", sweeps::leaked),
    ("killed at system calls", sweeps::syscalls),
    ("a survivor that panics or crashes", sweeps::survivor_dies),
    ("a case that cannot be swept is broken", sweeps::broken),
    ("--only and --step", sweeps::only),
    ("planted bugs are counted", sweeps::planted_bugs),
];

/// These start drivers of their own, so once is enough.
const DRIVEN: &[(&str, Test)] = &[
    ("two workers find what one process finds", workers::same_sums),
    ("four seeds visit every state", workers::seeds_cover_all),
    ("slices make a whole", workers::slices),
];

pub(crate) fn words() -> SharedWords {
    SharedWords::new(64).expect("memory for 64 words")
}

pub(crate) fn watch(words: &SharedWords) -> Vec<Region> {
    vec![Region::of::<[AtomicU64]>(words)]
}

pub(crate) fn quiet(row: &Row) -> bool {
    row.faults() == 0 && row.broken.is_none()
}
