//! A driver that starts itself anew: what several workers find together, what seeds choose, and how a slice
//! goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;
use std::{env, thread};

use multiproc_killstep::{Args, Case, Fault, Mode, Sweep};

use crate::{watch, words};

/// Where the oracle of the long case notes what it has seen.
const VISITS: &str = "KIT_VISITS";
/// The states of the long case, which is swept in parts.
const LONG: u64 = 240;

/// The driver, in a process of its own.
pub(crate) fn driver(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let mut sweep = Sweep::new(Args::parse(arguments).expect("arguments of these tests"));
    for number in 0..4 {
        let stores = move |count: u64| {
            Case::new(
                format!("short {number}"),
                words,
                move |words, _| store_all(&words[0], count),
                move |words, _| {
                    // Slow, so that a slice ends in the middle.
                    thread::sleep(Duration::from_millis(1));
                    if number == 2 && words[0].load(Acquire) == 3 {
                        Err(Fault::Torn("as planned".into()))
                    } else {
                        Ok(())
                    }
                },
            )
            .watch(watch)
            .sampled(1)
            .without(Mode::Missed, "three modes are enough")
        };
        sweep.run(&stores(3 + number));
    }
    let long = Case::new(
        "long",
        words,
        |words, _| store_all(&words[0], LONG - 1),
        |words, _| {
            if let Ok(visits) = env::var(VISITS) {
                let mut file = OpenOptions::new().append(true).create(true).open(visits)?;
                file.write_all(format!("{}\n", words[0].load(Acquire)).as_bytes())?;
            }
            Ok(())
        },
    )
    .watch(watch);
    sweep.run(&long);
    sweep.hunt("found", "by a test", false, || true);
    sweep.hunt("found alone", "by a test that races", true, || true);
    sweep.hunt("never found", "by no test", false, || false);
    sweep.finish()
}

/// Stores 1, 2, 3 and so on: few steps even where nothing is optimised.
fn store_all(word: &AtomicU64, count: u64) {
    let mut value = 0;
    while value < count {
        value += 1;
        word.store(value, Release);
    }
}

/// What a driver has printed.
struct Printed {
    /// The rows, without the wake latency.
    rows: BTreeSet<String>,
    summary: String,
    text: String,
    code: Option<i32>,
}

fn drive(arguments: &[&str], visits: Option<&Path>) -> Printed {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.arg("driver").args(arguments);
    if let Some(visits) = visits {
        command.env(VISITS, visits);
    }
    let output = command.output().expect("a driver that starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let modes = Mode::ALL.map(Mode::name);
    let row = |line: &&str| {
        line.split_ascii_whitespace().any(|word| modes.contains(&word)) && !line.starts_with("  ")
    };
    Printed {
        rows: text.lines().filter(row).map(str::to_owned).collect(),
        summary: text.lines().last().unwrap_or_default().to_owned(),
        code: output.status.code(),
        text,
    }
}

/// Two workers print the rows and the sums of one process.
pub(crate) fn same_sums(_: &mut Sweep) -> bool {
    let alone = drive(&["--whole", "--planted"], None);
    let shared = drive(&["--whole", "--planted", "--workers", "2"], None);
    // Five cases are killed; of four of them two more modes try a sample.
    alone.rows.len() == 5 + 4 + 4
        && alone.rows == shared.rows
        && alone.summary == shared.summary
        && alone.summary.contains(" 5 operations, ")
        && alone.summary.ends_with(" planted 2/3")
        && (alone.code, shared.code) == (Some(1), Some(1))
        && shared.text.contains("torn: as planned")
}

/// Seeds that are consecutive numbers visit every state; each visits the first and the last, and not all.
pub(crate) fn seeds_cover_all(_: &mut Sweep) -> bool {
    let directory = Scratch::new();
    let mut union = BTreeSet::new();
    for seed in 0..4 {
        let visits = directory.0.join(format!("visits-{seed}"));
        let printed = drive(&["--seed", &seed.to_string(), "--workers", "2"], Some(&visits));
        let text = fs::read_to_string(&visits).unwrap_or_default();
        let seen: BTreeSet<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let part = seen.len() < 80 && seen.contains(&0) && seen.contains(&(LONG - 1));
        if !part || !printed.text.contains(&format!("one state in 4, as seed {seed} chooses")) {
            return false;
        }
        union.extend(seen);
    }
    union == (0..LONG).collect()
}

/// Slices of a sweep make together what one makes alone: each goes on where the one before has ended.
pub(crate) fn slices(_: &mut Sweep) -> bool {
    let directory = Scratch::new();
    let file = directory.0.join("record.tsv");
    let path = file.to_str().expect("a plain path");
    let slice = ["--all", "--only", "short 2", "--workers", "2", "--commit", "abc", "--record-file", path];
    let whole = drive(&slice[..5], None);
    let begin = |more: &[&str]| drive(&[&slice[..], more].concat(), None);
    let mut count = 0;
    while !begin(&["--minutes", "0.02"]).text.contains("0 of 3 rows are to be swept") {
        count += 1;
        if count == 200 {
            return false;
        }
    }
    let mut kills: BTreeMap<String, u64> = BTreeMap::new();
    let mut interrupted = 0;
    for line in fs::read_to_string(&file).unwrap_or_default().lines().skip(1) {
        let fields: Vec<_> = line.split('\t').collect();
        *kills.entry(format!("{} {}", fields[0], fields[1])).or_default() +=
            fields[6].parse::<u64>().unwrap_or(0);
        interrupted += u64::from(fields[8] != "-");
    }
    let record = begin(&["--record"]);
    // Another commit begins anew; `--stale` does not ask for the commit.
    let anew = drive(&[&slice[..6], &["other", "--record-file", path, "--minutes", "0"]].concat(), None);
    let expected: u64 =
        whole.summary.split(", ").nth(1).and_then(|kills| kills.split(' ').next()?.parse().ok()).unwrap_or(0);
    count > 1
        && interrupted > 0
        && kills.len() == 3
        && kills.values().sum::<u64>() == expected
        && record.summary.contains("3 rows, 0 never swept, 0 unfinished, 2 with faults")
        && record.code == Some(1)
        && anew.text.contains("3 of 3 rows were not begun")
}

/// A directory of one test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let directory = env::temp_dir().join(format!("killstep-kit-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory");
        Self(directory)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
