//! Checks `docs/DEATH.md`: the test or kill-step case that it names for each row exists.
#![allow(clippy::unwrap_used, reason = "a test that cannot read a source has failed")]

use std::fs;
use std::path::Path;

/// The directory of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text of a file of this workspace.
fn source(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

/// Looks for `area/file::test` below `tests/` and in the crate; returns the reason if it is not there.
fn check_test(file: &str, test: &str) -> Result<(), String> {
    let in_crate = file.split_once('/').map(|(area, file)| format!("{area}/tests/{file}.rs"));
    let text = source(&format!("tests/{file}.rs"))
        .or_else(|| source(&in_crate?))
        .ok_or(format!("no file {file}"))?;
    // A test program with a `main` of its own has a table of names instead.
    let is_there = text.contains(&format!("fn {test}()")) || text.contains(&format!("(\"{test}\", "));
    if is_there { Ok(()) } else { Err(format!("no test {test} in {file}")) }
}

/// Returns the text of all files with cases of the kill-step table.
fn case_files() -> Vec<String> {
    // These hold no cases, but may name some.
    const OTHERS: [&str; 4] = ["main", "operations", "planted_bugs", "support"];
    let paths = fs::read_dir(root().join("tests/killstep")).unwrap().map(|entry| entry.unwrap().path());
    let with_cases = paths.filter(|path| !OTHERS.contains(&path.file_stem().unwrap().to_str().unwrap()));
    with_cases.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// Whether a span is meant as a case: `object/operation`, where that is not a path of this workspace.
fn is_case(span: &str) -> bool {
    let area = span.split_once('/').map_or("", |(area, _)| area);
    let is_word = !area.is_empty() && area.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let path = span.split(' ').next().unwrap_or_default();
    is_word && !span.ends_with(".rs") && !root().join(path).exists()
}

#[test]
fn tests_named_in_death_exist() {
    let text = source("docs/DEATH.md").unwrap();
    let cases = case_files();
    let spans = |line: &str| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    // A span with an ellipsis explains how to read the others.
    let is_pattern = |span: &String| span.contains('…') || span == "area/file::test";
    let named = text.lines().flat_map(spans).filter(|span| !is_pattern(span));
    let (mut shown, mut missing) = (0, Vec::new());
    for span in named {
        let found = match span.split_once("::") {
            Some((file, test)) if file == "wordcount" || file.contains('/') => check_test(file, test),
            None if is_case(&span) => {
                let quoted = format!("\"{span}\"");
                let is_there = cases.iter().any(|text| text.contains(&quoted));
                if is_there { Ok(()) } else { Err(format!("no case {span:?}")) }
            }
            _ => continue,
        };
        shown += 1;
        missing.extend(found.err());
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(shown > 100, "only {shown} were found: has the form of the document changed?");
}
