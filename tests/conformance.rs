//! Checks `docs/CONFORMANCE.md`: each of our tests that it names for one of CPython's exists, in the module
//! named after its class.
#![allow(clippy::unwrap_used, reason = "a test that cannot read a source has failed")]

use std::fs;
use std::path::Path;

/// Looks for `area/file::module::test` or `area/file::test`; returns the reason if it is not there.
fn check(test: &str) -> Result<(), String> {
    let parts: Vec<&str> = test.split("::").collect();
    let (file, modules, name) = match parts[..] {
        [file, ref modules @ .., name] => (file, modules, name),
        _ => return Err(format!("{test}: no file and test")),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs"));
    let text = fs::read_to_string(path).map_err(|_| format!("{test}: no file {file}"))?;
    let mut place = &text[..];
    for module in modules {
        let begin = place.find(&format!("mod {module} {{")).ok_or(format!("{test}: no module {module}"))?;
        let end = place[begin..].find("\n}\n").map_or(place.len(), |length| begin + length);
        place = &place[begin..end];
    }
    let is_test = place.split("#[test]").skip(1).any(|after| {
        let function =
            after.trim_start().lines().find(|line| line.trim_start().starts_with("fn ")).unwrap_or_default();
        function.trim_start().starts_with(&format!("fn {name}()"))
    });
    if is_test { Ok(()) } else { Err(format!("{test}: no such test")) }
}

#[test]
fn tests_named_in_conformance_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFORMANCE.md");
    let text = fs::read_to_string(path).unwrap();
    // A row: CPython's test, our test, and a note.
    let cells = |line: &'_ str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(cells);
    let (mut mapped, mut problems) = (0, Vec::new());
    for row in rows {
        let [_, theirs, ours, note, _] = &row[..] else {
            problems.push(format!("not a row of three columns: {row:?}"));
            continue;
        };
        match ours.trim_matches('`') {
            "–" if note.is_empty() => problems.push(format!("{theirs}: no test, and no reason")),
            "–" => {}
            test => {
                mapped += 1;
                problems.extend(check(test).err());
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(mapped > 10, "only {mapped} were found: has the form of the document changed?");
}
