//! `docs/DEATH.md` promises that each of its rows is shown by something; here is that these things exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot read a source has failed")]

use std::fs;
use std::path::Path;

/// A file of this workspace.
fn source(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// `area/file::test`: the test, in whichever of its places it is; or why not.
fn check_test(file: &str, test: &str) -> Result<(), String> {
    let in_crate = file.split_once('/').map(|(area, file)| format!("{area}/tests/{file}.rs"));
    let text = source(&format!("tests/{file}.rs")).or_else(|| source(&in_crate?)).ok_or(format!("no file {file}"))?;
    if text.contains(&format!("fn {test}()")) { Ok(()) } else { Err(format!("no test {test} in {file}")) }
}

/// A case of the kill-step table.
fn check_case(name: &str) -> Result<(), String> {
    let cases = [
        "locks",
        "rlocks",
        "rlock_waits",
        "semaphores",
        "owned",
        "bounded",
        "conditions",
        "rwlocks",
        "values",
        "arrays",
        "words",
        "queues",
        "batches",
        "reserved",
        "kinds",
        "jobs",
        "roles",
        "names",
        "blocks",
        "placed",
        "events",
        "barriers",
    ]
    .map(|file| source(&format!("tests/killstep/{file}.rs")).unwrap());
    if cases.iter().any(|text| text.contains(&format!("\"{name}\""))) { Ok(()) } else { Err(format!("no case {name:?}")) }
}

#[test]
fn what_shows_each_row_exists() {
    const CASES: [&str; 20] = [
        "jobs/",
        "lock/",
        "condition/",
        "rwlock/",
        "rlock/",
        "semaphore/",
        "owned/",
        "bounded/",
        "value/",
        "atomic/",
        "array/",
        "seq/",
        "bell/",
        "queue/",
        "name/",
        "block/",
        "placed/",
        "file/",
        "event/",
        "barrier/",
    ];
    let text = source("docs/DEATH.md").unwrap();
    let spans = |line: &str| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    // What is cut by an ellipsis explains how to read the others.
    let named = text.lines().flat_map(spans).filter(|span| !span.contains('…') && span != "area/file::test");
    let (mut shown, mut missing) = (0, Vec::new());
    for span in named {
        let found = match span.split_once("::") {
            Some((file, test)) if file == "wordcount" || file.contains('/') => check_test(file, test),
            None if CASES.iter().any(|case| span.starts_with(case)) => check_case(&span),
            _ => continue,
        };
        shown += 1;
        missing.extend(found.err());
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(shown > 100, "only {shown} were found: is the document still written as it was?");
}
