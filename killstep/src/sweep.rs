//! The sweep: for each case one run to find its states, then one attempt per state (or step, or pair of states), each followed by the oracle.

use std::collections::HashSet;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::args::Extent;
use crate::machine::Machine;
use crate::victim::Target;
use crate::{Args, Case, Fault, Mode, Report, Row};

/// The exit code of [`Sweep::finish`] where the system does not allow ptrace, so that nothing was tested.
pub const NO_PTRACE: u8 = 77;

/// A case is given up after so many hangs: each costs a whole watchdog.
const HANGS_SHOWN: u64 = 10;
/// So many faults of one case are printed one by one.
const FAULTS_SHOWN: usize = 3;

/// A run over many cases: sweeps each, prints its row at once, and remembers it.
///
/// The process must have one thread, as `main` has at its beginning: all other processes are forked from it.
#[expect(missing_debug_implementations, reason = "holds a whole symbol table")]
pub struct Sweep {
    args: Args,
    report: Report,
    machine: Result<Machine, String>,
    headed: bool,
}

impl Sweep {
    /// A sweep as `args` want it, after a look whether this system allows ptrace at all.
    #[must_use]
    pub fn new(args: Args) -> Self {
        Self { args, report: Report::default(), machine: Machine::new().map_err(|error| error.to_string()), headed: false }
    }

    /// Why nothing can be swept here, if so.
    #[must_use]
    pub fn unable(&self) -> Option<&str> {
        self.machine.as_ref().err().map(String::as_str)
    }

    /// Sweeps one case in each mode that is wanted, prints a row and the faults of each, and returns the first row; `None` when `--only` does not want it or
    /// nothing can be swept here.
    pub fn run<S>(&mut self, case: &Case<'_, S>) -> Option<Row> {
        let machine = self.machine.as_mut().ok().filter(|_| self.args.wants(&case.name))?;
        let mut first = None;
        for mode in Mode::ALL {
            let extent = self.args.extent(mode);
            match case.left_out(mode) {
                _ if extent == Extent::Nothing || (extent == Extent::Sample && case.sampled == 0) => continue,
                Some(reason) => {
                    if extent == Extent::Whole {
                        say(&format!("  not in mode {mode}: {}: {reason}", case.name));
                    }
                    continue;
                }
                None => {}
            }
            if !std::mem::replace(&mut self.headed, true) {
                say(&Row::heading());
            }
            let row = sweep(machine, case, &self.args, mode, u64::MAX);
            self.report.rows.push(row.clone());
            first.get_or_insert(row);
        }
        first
    }

    /// Whether the planted bugs are wanted (`--planted`).
    #[must_use]
    pub fn wants_planted_bugs(&self) -> bool {
        self.args.planted
    }

    /// Under `--planted`, sweeps a case in which `bug` is built in, in one mode, until it is found. A bug given to several cases is found when one finds it.
    pub fn planted_bug<S>(&mut self, bug: &str, mode: Mode, case: &Case<'_, S>) {
        let wanted = self.args.planted && (self.args.wants(bug) || self.args.wants(&case.name));
        if let Some(machine) = self.machine.as_mut().ok().filter(|_| wanted) {
            let mut args = self.args.clone();
            args.mode = Some(mode);
            let row = sweep(machine, case, &args, mode, 1);
            let test = if mode == Mode::Kill { case.name.clone() } else { format!("{}, mode {mode}", case.name) };
            self.planted(bug, &test, row.faults() != 0);
        }
    }

    /// Adds a planted bug that was tried by other means.
    pub fn planted(&mut self, bug: &str, test: &str, found: bool) {
        self.report.add_planted(bug, test, found);
    }

    /// What was found until now.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Prints the planted bugs, the sums of each mode and the last line. The exit code is 0 when all is well, 1 when something was found (or a planted bug was not),
    /// [`NO_PTRACE`] when nothing could be swept here.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        if let Err(reason) = &self.machine {
            say(&format!("killstep: NOTHING WAS TESTED, this system does not let us trace a child: {reason}"));
            return ExitCode::from(NO_PTRACE);
        }
        for planted in &self.report.planted {
            say(&planted.to_string());
        }
        for line in self.report.modes() {
            say(&line);
        }
        say(&self.report.summary());
        ExitCode::from(u8::from(!self.report.passed()))
    }
}

/// Sweeps a case in one mode until `enough` faults are found, and prints its row.
fn sweep<S>(machine: &mut Machine, case: &Case<'_, S>, args: &Args, mode: Mode, enough: u64) -> Row {
    let mut row = Row { operation: case.name.clone(), mode, ..Row::default() };
    let mut faults = Vec::new();
    if let Err(error) = fill(machine, case, args, enough, &mut row, &mut faults) {
        row.broken = Some(error.to_string());
    }
    let planted = enough == 1;
    if !planted {
        say(&row.to_string());
    }
    if let Some(reason) = &row.broken {
        say(&format!("  BROKEN {} in mode {mode}: {reason}", case.name));
    }
    for (step, text) in faults.iter().take(if planted { 1 } else { FAULTS_SHOWN }) {
        say(&format!("  FAULT {} {text}", case.name));
        if !planted {
            let program = env::args().next().unwrap_or_default();
            say(&format!("    repeat: {program} --mode {mode} --only '{}' --step {step}", case.name));
        }
    }
    if let (false, [(first, _), .., (last, _)]) = (planted, faults.as_slice()) {
        say(&format!("  {} faults in all, between steps {first} and {last}", faults.len()));
    }
    row
}

fn fill<S>(
    machine: &mut Machine,
    case: &Case<'_, S>,
    args: &Args,
    enough: u64,
    row: &mut Row,
    faults: &mut Vec<(u64, String)>,
) -> io::Result<()> {
    let mut rehearsal = machine.rehearse(case)?;
    (row.steps, row.states) = (rehearsal.steps, rehearsal.changes + 1);
    let begin = std::time::Instant::now();
    let mut seen = HashSet::new();
    'sweep: for target in targets(case, args, row) {
        for recoverer in recoverers(case, args, row) {
            let outcome = machine.attempt(case, &mut rehearsal, row.mode, target, recoverer, &mut seen)?;
            if outcome.repeated {
                row.repeated += 1;
                if outcome.ended {
                    break 'sweep;
                }
                break;
            }
            row.kills += if row.mode == Mode::Double { 2 } else { 1 };
            row.worst_wake = row.worst_wake.max(outcome.wake);
            if let Some(fault) = &outcome.fault {
                match fault {
                    Fault::Hang(_) => row.hangs += 1,
                    Fault::Torn(_) => row.torn += 1,
                    Fault::Lost(_) => row.lost += 1,
                    Fault::Leaked(_) => row.leaked += 1,
                }
                faults.push((outcome.step, format!("{}: {fault}", outcome.place)));
            }
            if row.faults() >= enough {
                break 'sweep;
            }
            if row.hangs >= HANGS_SHOWN {
                return Err(io::Error::other(format!("given up after {HANGS_SHOWN} hangs, at step {} of {}", outcome.step, row.steps)));
            }
            match (outcome.ended, outcome.recoverer_ended) {
                (true, true) => break 'sweep,
                (false, true) => break,
                _ => {}
            }
        }
    }
    say(&format!("TIME {:?} strayed {} {}", begin.elapsed(), rehearsal.strayed_in_all, rehearsal.path.is_none()));
    Ok(())
}

/// Where the victim is disturbed, one after the other; the sweep ends when it has come to its end.
fn targets<S>(case: &Case<'_, S>, args: &Args, row: &Row) -> Box<dyn Iterator<Item = Target>> {
    if let Some(step) = args.step {
        return Box::new(std::iter::once(Target::Step(step)));
    }
    match args.extent(row.mode) {
        Extent::Whole if args.all && row.mode == Mode::Kill => Box::new((0..).map(Target::Step)),
        Extent::Whole => Box::new((0..).map(Target::State)),
        _ => Box::new(spread(case.sampled, row.states).map(Target::State)),
    }
}

/// After how many of its changes the recoverer is killed.
fn recoverers<S>(case: &Case<'_, S>, args: &Args, row: &Row) -> Box<dyn Iterator<Item = u64>> {
    match args.extent(row.mode) {
        _ if row.mode != Mode::Double => Box::new(0..1),
        Extent::Whole => Box::new(0..),
        _ => Box::new(spread(case.sampled, row.states)),
    }
}

/// So many of the numbers below `states`, the first among them.
fn spread(count: u64, states: u64) -> impl Iterator<Item = u64> {
    let count = count.min(states);
    (0..count).map(move |number| number * states / count)
}

fn say(line: &str) {
    // Where nobody reads, nobody misses it.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
