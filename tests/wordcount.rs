//! The example `wordcount`, run as a user runs it: counts, exit codes, and kills.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

/// A directory of the test's own; dropping it removes it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("wordcount-test-{}-{number}", process::id()));
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.join(name), content).expect("a scratch file");
        self
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The example's binary. `cargo test` has built it; `cargo test --test wordcount` has not.
fn wordcount() -> Command {
    let test = env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let binary = profile.join("examples/wordcount");
    if !binary.exists() {
        let cargo = Command::new(env!("CARGO")).args(["build", "--example", "wordcount"]).status();
        assert!(cargo.expect("cargo").success());
    }
    Command::new(binary)
}

fn run(paths: &[&Path], options: &[&str]) -> (Option<i32>, String, String) {
    let output = wordcount().args(options).arg("--").args(paths).output();
    let Output { status, stdout, stderr } = output.expect("wordcount to run");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// Returns the number in the line of the report that starts with `what`.
fn number(report: &str, what: &str) -> u64 {
    let line = report.lines().find(|line| line.starts_with(what)).expect("such a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn counts_are_right() {
    let scratch = Scratch::new();
    scratch.file("a", "one Two, two\n").file("b", "TWO; three4").file("empty", "");
    let (code, report, warnings) = run(&[&scratch.0], &["--workers", "2", "--check"]);
    assert_eq!(code, Some(0), "{warnings}");
    assert_eq!(warnings, "");
    assert_eq!(report.lines().next().map(str::trim), Some("3  two"));
    assert_eq!((number(&report, "files"), number(&report, "words"), number(&report, "bytes")), (3, 5, 24));
}

#[test]
fn counts_are_right_though_workers_are_killed() {
    let scratch = Scratch::new();
    for n in 0..200 {
        scratch.file(&format!("{n}"), format!("word{n} and {}", "more ".repeat(n * 10)));
    }
    for seed in ["1", "2", "3"] {
        let options = ["--workers", "3", "--kill", "8", "--seed", seed, "--check"];
        let (code, report, errors) = run(&[&scratch.0], &options);
        assert_eq!(code, Some(0), "seed {seed}: {errors}");
        assert_eq!(number(&report, "files"), 200);
        assert_eq!(report.matches("died").count(), 8, "{report}");
    }
}

#[test]
fn results_larger_than_a_message_arrive() {
    let scratch = Scratch::new();
    let many: String = (0..40_000).map(|n| format!("distinct{n} ")).collect();
    scratch.file("many words", &many).file("one word", "x".repeat(1 << 20)).file("again", &many);
    let (code, report, errors) = run(&[&scratch.0], &["--workers", "2", "--kill", "2", "--check"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(number(&report, "words"), 80_001);
}

#[test]
fn skipped_files_are_named() {
    let scratch = Scratch::new();
    scratch.file("nul", b"a\0b").file("latin1", b"caf\xe9").file("fine", "fine");
    let missing = scratch.0.join("missing");
    let (code, report, warnings) = run(&[&scratch.0, &missing], &["--check"]);
    assert_eq!(code, Some(0), "{warnings}");
    assert_eq!(number(&report, "files"), 1);
    for name in ["nul: binary", "latin1: binary", "missing: No such file"] {
        assert!(warnings.contains(name), "{name} is not in: {warnings}");
    }
}

#[test]
fn no_file_to_count_is_no_error() {
    let scratch = Scratch::new();
    let (code, report, errors) = run(&[&scratch.0], &["--kill", "3", "--check"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(number(&report, "files"), 0);
}

#[test]
fn usage_errors_exit_with_code_2() {
    let all: [&[&str]; 5] =
        [&["--workers"], &["--workers", "0"], &["--kill", "few"], &["--seed", "1"], &["--frobnicate"]];
    for wrong in all {
        let (code, _, errors) = run(&[], wrong);
        assert_eq!(code, Some(2), "{wrong:?}");
        assert!(errors.contains("usage: wordcount"), "{errors}");
    }
}
