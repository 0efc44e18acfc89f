//! Several processes sweep at once, each a copy of the driver on a CPU of its own.
//!
//! The coordinating process notes which units of work there are (a case in a mode, or the hunt for a planted
//! bug) and hands them out, one at a time. A worker is the same program with the same arguments and
//! `--worker`. It comes to the same cases in the same order, so a unit is known by its number. Orders come on
//! the worker's standard input, and results go to its standard output.
//!
//! Two sweeps disturb each other as little as two programs on two CPUs: they share no object, no namespace
//! and no CPU, and there are never more workers than CPUs. Time limits (watchdogs, wake limits) are therefore
//! those of a sweep alone. No fault is tried a second time, since a rare hang would not be found again. A
//! hunt in which processes must race runs at the end, when no other worker is left.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::{Mode, Row, sys};

/// A unit of work.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// Which call of the driver it is.
    pub(crate) number: usize,
    /// The case or the bug.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// What is done in a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A case is swept in this mode, from this step or state on.
    Sweep(Mode, u64),
    /// A planted bug is hunted; `true`: while nothing else runs.
    Hunt(bool),
}

/// What a worker says of a unit.
#[derive(Debug)]
pub(crate) enum Said {
    /// A line for people.
    Text(String),
    /// A swept case.
    Row(Box<Row>),
    /// A hunted bug: its name, the test, and whether it was found.
    Bug(String, String, bool),
}

/// The orders of a worker, as it reads them.
pub(crate) struct Orders {
    current: Option<(usize, Kind, Option<Instant>)>,
    ended: bool,
}

impl Orders {
    pub(crate) fn new() -> Self {
        Self { current: None, ended: false }
    }

    /// What to do in unit `number`, and until when; `None`: nothing, since it is another worker's or no
    /// worker's.
    pub(crate) fn of(&mut self, number: usize) -> Option<(Kind, Option<Instant>)> {
        if self.current.is_none() && !self.ended {
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line).unwrap_or(0);
            self.current = parse_order(line.trim_end());
            self.ended = read == 0 || self.current.is_none();
        }
        self.current.take_if(|(wanted, ..)| *wanted == number).map(|(_, kind, deadline)| (kind, deadline))
    }
}

fn order(unit: &Unit, left: Option<Duration>) -> String {
    let left = left.map_or_else(|| "-".to_owned(), |left| left.as_millis().to_string());
    match unit.kind {
        Kind::Sweep(mode, from) => format!("{}\t{mode}\t{from}\t{left}\n", unit.number),
        Kind::Hunt(alone) => format!("{}\thunt\t{}\t{left}\n", unit.number, u8::from(alone)),
    }
}

fn parse_order(line: &str) -> Option<(usize, Kind, Option<Instant>)> {
    let fields: Vec<_> = line.split('\t').collect();
    let [number, mode, from, left] = fields[..] else { return None };
    let from = from.parse().ok()?;
    let kind = if mode == "hunt" { Kind::Hunt(from == 1) } else { Kind::Sweep(Mode::named(mode)?, from) };
    let deadline = left.parse().ok().map(|left| Instant::now() + Duration::from_millis(left));
    Some((number.parse().ok()?, kind, deadline))
}

// What a worker writes: lines that begin with one of these words. Any other line is text of the driver's own.
const TEXT: &str = "text";
const ROW: &str = "row";
const BUG: &str = "bug";
const DONE: &str = "done";

pub(crate) fn say_text(line: &str) {
    write_line(&format!("{TEXT}\t{}", line.replace('\n', " ")));
}

pub(crate) fn say_row(row: &Row) {
    let numbers = [
        row.steps,
        row.states,
        row.kills,
        row.repeated,
        row.hangs,
        row.torn,
        row.lost,
        row.leaked,
        row.parts,
    ];
    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    let optional = |number: Option<u128>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let (wake, next) =
        (optional(row.worst_wake.map(|wake| wake.as_nanos())), optional(row.next.map(u128::from)));
    let broken = row.broken.as_deref().unwrap_or("-").replace(['\n', '\t'], " ");
    let fields = [row.operation.as_str(), row.mode.name(), &numbers.join("\t"), &wake, &next];
    write_line(&format!("{ROW}\t{}\t{}\t{broken}", fields.join("\t"), row.took.as_nanos()));
}

pub(crate) fn say_bug(bug: &str, test: &str, found: bool) {
    write_line(&format!("{BUG}\t{bug}\t{test}\t{}", u8::from(found)));
}

pub(crate) fn say_done() {
    write_line(DONE);
}

/// Writes a line at once: where no process reads, none misses it.
pub(crate) fn write_line(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// What a line says; `None`: the unit is done.
fn hear(line: &str) -> Option<Said> {
    let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
    let fields: Vec<_> = rest.split('\t').collect();
    match (word, &fields[..]) {
        (DONE, _) => None,
        (TEXT, _) => Some(Said::Text(rest.to_owned())),
        (BUG, [bug, test, found]) => Some(Said::Bug((*bug).to_owned(), (*test).to_owned(), *found == "1")),
        (ROW, fields) => {
            Some(hear_row(fields).map_or_else(|| Said::Text(line.to_owned()), |row| Said::Row(Box::new(row))))
        }
        _ => Some(Said::Text(line.to_owned())),
    }
}

fn hear_row(fields: &[&str]) -> Option<Row> {
    let [name, mode, numbers @ .., wake, next, took, broken] = fields else { return None };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>().ok()?;
    let [steps, states, kills, repeated, hangs, torn, lost, leaked, parts] = numbers[..] else { return None };
    Some(Row {
        operation: (*name).to_owned(),
        mode: Mode::named(mode)?,
        steps,
        states,
        kills,
        repeated,
        hangs,
        torn,
        lost,
        leaked,
        parts,
        worst_wake: wake.parse().ok().map(Duration::from_nanos),
        next: next.parse().ok(),
        took: Duration::from_nanos(took.parse().ok()?),
        broken: (*broken != "-").then(|| (*broken).to_owned()),
    })
}

/// A running worker.
struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    results: BufReader<ChildStdout>,
    /// The unit that it did last: it cannot go back.
    last: usize,
}

impl Worker {
    fn start(program: &PathBuf, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let missing = || io::Error::other("a pipe that was asked for is not there");
        let (orders, results) = (child.stdin.take(), child.stdout.take().ok_or_else(missing)?);
        Ok(Self { child, orders, results: BufReader::new(results), last: 0 })
    }

    /// Has a unit done. The worker may die in it: then what it said before is lost.
    fn perform(&mut self, unit: &Unit, left: Option<Duration>) -> io::Result<Vec<Said>> {
        self.last = unit.number;
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        orders.write_all(order(unit, left).as_bytes())?;
        let mut said = Vec::new();
        loop {
            let mut line = String::new();
            if self.results.read_line(&mut line)? == 0 {
                let status = self.child.wait()?;
                return Err(io::Error::other(format!("the worker died ({status})")));
            }
            match hear(line.trim_end_matches('\n')) {
                Some(thing) => said.push(thing),
                None => return Ok(said),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // No more orders: the worker comes to its end.
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// Has all units done by `count` workers, and passes on what they say, unit by unit. No unit begins after
/// `deadline`.
pub(crate) fn perform(
    units: Vec<Unit>,
    count: usize,
    deadline: Option<Instant>,
    mut done: impl FnMut(&Unit, io::Result<Vec<Said>>) + Send,
) {
    let program = env::current_exe().unwrap_or_else(|_| env::args_os().next().unwrap_or_default().into());
    let arguments: Vec<_> = env::args().skip(1).collect();
    let cpus = sys::allowed_cpus();
    let count = count.min(cpus.len()).max(1);
    let (alone, together): (VecDeque<_>, VecDeque<_>) =
        units.into_iter().partition(|unit| unit.kind == Kind::Hunt(true));
    let done = Mutex::new(&mut done);
    for (units, count) in [(together, count), (alone, 1)] {
        let units = Mutex::new(units);
        thread::scope(|scope| {
            for cpu in cpus.iter().take(count) {
                let (program, arguments, units, done) = (&program, &arguments, &units, &done);
                // A worker is on the CPU of the thread that starts it.
                scope.spawn(move || {
                    sys::run_on(&[*cpu]);
                    let mut worker: Option<Worker> = None;
                    let next = || {
                        let in_time = deadline.is_none_or(|deadline| Instant::now() < deadline);
                        let mut units = units.lock().unwrap_or_else(PoisonError::into_inner);
                        units.pop_front().filter(|_| in_time)
                    };
                    while let Some(unit) = next() {
                        worker.take_if(|worker| worker.last >= unit.number);
                        let left =
                            deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                        let result = match &mut worker {
                            Some(worker) => worker.perform(&unit, left),
                            None => Worker::start(program, arguments)
                                .and_then(|started| worker.insert(started).perform(&unit, left)),
                        };
                        if result.is_err() {
                            worker = None;
                        }
                        done.lock().unwrap_or_else(PoisonError::into_inner)(&unit, result);
                    }
                });
            }
        });
    }
}
