//! The sweep: one run of each case finds its states; one attempt per state (or step, or pair of states)
//! follows, and an oracle judges each.

use std::collections::HashSet;
use std::env;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use crate::args::Extent;
use crate::machine::Machine;
use crate::sample::{Choice, FIXED_SEED, spread};
use crate::victim::Target;
use crate::workers::{self, Kind, Orders, Unit, say_text, write_line};
use crate::{Args, Case, Fault, Mode, Report, Row};

/// The exit code of [`Sweep::finish`] where the system does not allow ptrace, so that nothing was tested.
pub const NO_PTRACE: u8 = 77;

/// A case is given up after as many hangs: each costs a whole watchdog.
const HANGS_SHOWN: u64 = 10;
/// As many faults of one case are printed one by one.
const FAULTS_SHOWN: usize = 3;

/// A run over many cases: sweeps each, prints its rows, and remembers them.
///
/// With [`workers`](Args::workers), a [limit](Args::limit) or a record, the driver only notes the cases.
/// [`finish`](Self::finish) then starts the driver's program anew, once per CPU, and these processes sweep.
///
/// The process must have one thread, as `main` has at its beginning: all other processes are forked from it.
#[expect(missing_debug_implementations, reason = "holds a whole symbol table")]
pub struct Sweep {
    pub(crate) args: Args,
    pub(crate) report: Report,
    machine: Result<Machine, String>,
    pub(crate) headed: bool,
    /// How many cases and hunts the driver has come to.
    calls: usize,
    part: Part,
}

/// The part of this process.
enum Part {
    /// It sweeps each case at once.
    Alone,
    /// It notes the units, which others do.
    Coordinator(Vec<Unit>),
    /// It does the units for which it has orders.
    Worker(Orders),
}

impl Sweep {
    /// A sweep as `args` want it, after a look whether this system allows ptrace at all.
    #[must_use]
    pub fn new(args: Args) -> Self {
        let part = match &args {
            args if args.worker => Part::Worker(Orders::new()),
            args if args.sweeps_itself() => Part::Alone,
            _ => Part::Coordinator(Vec::new()),
        };
        let machine = Machine::new().map_err(|error| error.to_string());
        Self { args, report: Report::default(), machine, headed: false, calls: 0, part }
    }

    /// Why nothing can be swept here, if so.
    #[must_use]
    pub fn unable(&self) -> Option<&str> {
        self.machine.as_ref().err().map(String::as_str)
    }

    /// Sweeps one case in each mode that is wanted, prints a row and the faults of each, and returns the
    /// first row. Returns `None` if `--only` leaves the case out, if nothing can be swept here, or if other
    /// processes sweep it later.
    pub fn run<S>(&mut self, case: &Case<'_, S>) -> Option<Row> {
        let mut first = None;
        for mode in Mode::ALL {
            self.calls += 1;
            let extent = self.args.extent(mode);
            let sampled_not = extent == Extent::Sample && case.sampled == 0;
            if extent == Extent::Nothing || sampled_not || !self.args.wants(&case.name) {
                continue;
            }
            if let Some(reason) = case.left_out(mode) {
                if extent != Extent::Sample && !self.args.worker {
                    write_line(&format!("  not in mode {mode}: {}: {reason}", case.name));
                }
                continue;
            }
            let (from, deadline) = match &mut self.part {
                Part::Alone => (0, None),
                Part::Coordinator(units) => {
                    units.push(Unit {
                        number: self.calls,
                        name: case.name.clone(),
                        kind: Kind::Sweep(mode, 0),
                    });
                    continue;
                }
                Part::Worker(orders) => match orders.of(self.calls) {
                    Some((Kind::Sweep(_, from), deadline)) => (from, deadline),
                    _ => continue,
                },
            };
            let Ok(machine) = &mut self.machine else { return None };
            let worker = matches!(self.part, Part::Worker(_));
            if !worker && !std::mem::replace(&mut self.headed, true) {
                write_line(&Row::heading());
            }
            let say = if worker { say_text } else { write_line };
            let scope = Scope { args: &self.args, from, deadline, enough: u64::MAX };
            let row = sweep(machine, case, mode, &scope, say);
            if worker {
                workers::say_row(&row);
                workers::say_done();
            }
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

    /// Under `--planted`, sweeps a case in which `bug` is built in, in one mode, until it is found. A bug
    /// that is given to several cases is found when a case finds it.
    pub fn planted_bug<S>(&mut self, bug: &str, mode: Mode, case: &Case<'_, S>) {
        let test = if mode == Mode::Kill { case.name.clone() } else { format!("{}, mode {mode}", case.name) };
        if !self.has_turn(bug, &case.name, false) {
            return;
        }
        let Ok(machine) = &mut self.machine else { return };
        let mut args = self.args.clone();
        args.mode = Some(mode);
        let say = if matches!(self.part, Part::Worker(_)) { say_text } else { write_line };
        let row = sweep(machine, case, mode, &Scope { args: &args, from: 0, deadline: None, enough: 1 }, say);
        self.planted(bug, &test, row.faults() != 0);
    }

    /// Under `--planted`, has a planted bug hunted by other means: `hunter` tells whether it was found. With
    /// workers, a hunt that needs all CPUs to itself is `alone`: it runs when no other worker is left.
    pub fn hunt(&mut self, bug: &str, test: &str, alone: bool, hunter: impl FnOnce() -> bool) {
        if self.has_turn(bug, test, alone) {
            let found = hunter();
            self.planted(bug, test, found);
        }
    }

    /// Whether a hunt takes place in this process and now.
    fn has_turn(&mut self, bug: &str, test: &str, alone: bool) -> bool {
        self.calls += 1;
        if !self.args.planted || self.machine.is_err() || !(self.args.wants(bug) || self.args.wants(test)) {
            return false;
        }
        match &mut self.part {
            Part::Alone => true,
            Part::Coordinator(units) => {
                units.push(Unit { number: self.calls, name: bug.to_owned(), kind: Kind::Hunt(alone) });
                false
            }
            Part::Worker(orders) => orders.of(self.calls).is_some(),
        }
    }

    fn planted(&mut self, bug: &str, test: &str, found: bool) {
        if matches!(self.part, Part::Worker(_)) {
            workers::say_bug(bug, test, found);
            workers::say_done();
        }
        self.report.add_planted(bug, test, found);
    }

    /// What was found until now.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Has the noted cases swept by workers, if so wanted. Prints the planted bugs, the sums of each mode and
    /// the last line. The exit code is 0 when all is well, 1 when something was found (or a planted bug was
    /// not), [`NO_PTRACE`] when nothing could be swept here.
    #[must_use]
    pub fn finish(mut self) -> ExitCode {
        if let Part::Worker(_) = self.part {
            return ExitCode::SUCCESS;
        }
        if let Err(reason) = &self.machine {
            write_line(&format!(
                "killstep: NOTHING WAS TESTED, this system does not let us trace a child: {reason}"
            ));
            return ExitCode::from(NO_PTRACE);
        }
        if let Part::Coordinator(units) = std::mem::replace(&mut self.part, Part::Alone) {
            match self.coordinate(units) {
                Ok(None) => {}
                Ok(Some(code)) => return code,
                Err(error) => {
                    write_line(&format!("killstep: the record: {error}"));
                    return ExitCode::FAILURE;
                }
            }
        }
        for planted in &self.report.planted {
            write_line(&planted.to_string());
        }
        for line in self.report.modes() {
            write_line(&line);
        }
        if let Some(line) = self.report.parts(self.seed()) {
            write_line(&line);
        }
        write_line(&self.report.summary());
        ExitCode::from(u8::from(!self.report.passed()))
    }

    fn seed(&self) -> &str {
        self.args.seed.as_deref().unwrap_or(FIXED_SEED)
    }
}

/// How a case is swept.
struct Scope<'a> {
    args: &'a Args,
    /// The first step or state.
    from: u64,
    /// When to begin no more attempts.
    deadline: Option<Instant>,
    /// After how many faults to end.
    enough: u64,
}

/// Sweeps a case in one mode until enough faults are found, and prints its row.
fn sweep<S>(machine: &mut Machine, case: &Case<'_, S>, mode: Mode, scope: &Scope<'_>, say: fn(&str)) -> Row {
    let begin = Instant::now();
    let mut row = Row { operation: case.name.clone(), mode, ..Row::default() };
    let mut faults = Vec::new();
    if let Err(error) = fill(machine, case, scope, &mut row, &mut faults) {
        row.broken = Some(error.to_string());
    }
    row.took = begin.elapsed();
    let planted = scope.enough == 1;
    if !planted {
        say(&row.to_string());
    }
    if let Some(reason) = &row.broken {
        say(&format!("  BROKEN {} in mode {mode}: {reason}", case.name));
    }
    if let Some(next) = row.next {
        say(&format!("  the time is over: {} in mode {mode} goes on at {next}", case.name));
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
    scope: &Scope<'_>,
    row: &mut Row,
    faults: &mut Vec<(u64, String)>,
) -> io::Result<()> {
    let mut rehearsal = machine.rehearse(case)?;
    (row.steps, row.states) = (rehearsal.steps, rehearsal.changes + 1);
    let mut seen = HashSet::new();
    'sweep: for (number, target) in targets(case, scope, row) {
        if scope.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            row.next = Some(number);
            break;
        }
        for recoverer in recoverers(case, scope, row) {
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
            if row.faults() >= scope.enough {
                break 'sweep;
            }
            if row.hangs >= HANGS_SHOWN {
                let text =
                    format!("given up after {HANGS_SHOWN} hangs, at step {} of {}", outcome.step, row.steps);
                return Err(io::Error::other(text));
            }
            match (outcome.ended, outcome.recoverer_ended) {
                (true, true) => break 'sweep,
                (false, true) => break,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Where the victim is disturbed, each with its number, in order. The sweep ends when the victim has come to
/// its end.
fn targets<S>(
    case: &Case<'_, S>,
    scope: &Scope<'_>,
    row: &mut Row,
) -> Box<dyn Iterator<Item = (u64, Target)>> {
    if let Some(step) = scope.args.step {
        return Box::new(std::iter::once((step, Target::Step(step))));
    }
    let (from, states) = (scope.from, row.states);
    let choice = Choice::new(scope.args.seed.as_deref().unwrap_or(FIXED_SEED), &case.name);
    let state = |state| (state, Target::State(state));
    match scope.args.extent(row.mode) {
        Extent::Steps => Box::new((from..).map(|step| (step, Target::Step(step)))),
        Extent::Whole => Box::new((from..).map(state)),
        Extent::Part => {
            row.parts = Choice::parts(states);
            Box::new(choice.part(states).skip_while(move |state| *state < from).map(state))
        }
        _ => Box::new(choice.spread(case.sampled, states).skip_while(move |state| *state < from).map(state)),
    }
}

/// After how many of its changes the recoverer is killed.
fn recoverers<S>(case: &Case<'_, S>, scope: &Scope<'_>, row: &Row) -> Box<dyn Iterator<Item = u64>> {
    match scope.args.extent(row.mode) {
        _ if row.mode != Mode::Double => Box::new(0..1),
        Extent::Whole => Box::new(0..),
        // From the first on: the attempt there tells whether the victim has left what an earlier victim left.
        _ => Box::new(spread(case.sampled, row.states)),
    }
}
