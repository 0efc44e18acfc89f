//! `spawn/join`: starting a process that does nothing, and waiting for its end.

use std::env;
use std::ffi::OsStr;
use std::process::{self, Command};

use multiproc::process::{Exit, Process};

use crate::harness::{OURS, Row};
use crate::os;
use crate::peers::python;
use crate::race::{How, Place};

/// The argument that makes this program end at once.
const NOTHING: &str = "--nothing";

/// The first line of `main`: does not return in a process that a row has started.
pub(crate) fn become_child() {
    if env::args_os().nth(1).is_some_and(|argument| argument == NOTHING) {
        #[allow(clippy::exit, reason = "there is nothing to be dropped yet")]
        process::exit(0);
    }
    multiproc::init();
    #[cfg(feature = "rivals")]
    crate::peers::procspawn::init();
}

pub(crate) fn rows() -> Vec<Row> {
    let mut row = Row::new("spawn/join", Place::Free);
    row.add_slow(OURS, How::Processes, 20, |n| {
        run(n, |number| {
            let process =
                Process::spawn(|number: u64| number + 1, number).map_err(|problem| problem.to_string())?;
            match process.join() {
                Ok(Exit::Value(answer)) if answer == number + 1 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    });
    row.add_slow("limit", How::Processes, 20, |n| run(n, |_| command("/proc/self/exe", &[NOTHING])));
    row.add_slow("command", How::Processes, 20, |n| run(n, |_| command("true", &[])));
    #[cfg(feature = "rivals")]
    crate::peers::procspawn::spawn(&mut row);
    if python::is_here() {
        row.add_slow("python", How::Processes, 20, python::spawn);
    }
    vec![row]
}

/// Here the parent reads the clock, because the row measures the parent's wait.
pub(crate) fn run(processes: u64, start_and_join: impl Fn(u64) -> Result<(), String>) -> Result<f64, String> {
    (0..processes / 10).try_for_each(&start_and_join)?;
    let start = os::now();
    (0..processes).try_for_each(&start_and_join)?;
    Ok((os::now() - start) as f64 / processes as f64)
}

fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(arguments).status().map_err(|problem| problem.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
