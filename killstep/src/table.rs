//! What was found, as rows and as the last line.

use std::fmt;
use std::time::Duration;

use crate::Mode;
use crate::sample::SWEPT_WHOLE;

/// One operation's line of the table, in one mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// The case's name.
    pub operation: String,
    /// What happened to its victims.
    pub mode: Mode,
    /// How many steps the operation took, alone.
    pub steps: u64,
    /// How many different shared states it went through, the first included.
    pub states: u64,
    /// How many processes were killed, recoverers among them, or stopped.
    pub kills: u64,
    /// How many states of the victim were left out because they leave the same as an earlier state.
    pub repeated: u64,
    /// Kills after which a process waited for ever.
    pub hangs: u64,
    /// Kills after which the object was neither as before nor as after the operation.
    pub torn: u64,
    /// Kills after which something confirmed was gone or doubled.
    pub lost: u64,
    /// Kills after which something stayed taken.
    pub leaked: u64,
    /// In how many parts the states are swept, of which this run did one; 0 or 1: the row is whole.
    pub parts: u64,
    /// With which step or state to go on, if the time was over before the end.
    pub next: Option<u64>,
    /// How long it took.
    pub took: Duration,
    /// The longest that a peer took to return after the death that had to wake it.
    pub worst_wake: Option<Duration>,
    /// Why the case could not be swept to its end.
    pub broken: Option<String>,
}

impl Row {
    /// Kills that left something wrong.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.hangs + self.torn + self.lost + self.leaked
    }

    pub(crate) fn heading() -> String {
        line(&[
            "operation",
            "mode",
            "steps",
            "states",
            "kills",
            "hangs",
            "torn",
            "lost",
            "leaked",
            "worst wake",
        ])
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [self.steps, self.states, self.kills, self.hangs, self.torn, self.lost, self.leaked]
            .map(|number| number.to_string());
        let mut cells = vec![self.operation.as_str(), self.mode.name()];
        cells.extend(numbers.iter().map(String::as_str));
        let wake = self
            .worst_wake
            .map_or_else(|| "-".to_owned(), |wake| format!("{:.1} ms", wake.as_secs_f64() * 1e3));
        cells.push(&wake);
        f.write_str(&line(&cells))
    }
}

/// A bug built in on purpose, and whether the sweep saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Planted {
    /// What is wrong.
    pub bug: String,
    /// The test that looked for it, or found it.
    pub test: String,
    /// Whether it was found.
    pub found: bool,
}

/// All rows and planted bugs of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The operations, in the order they were swept.
    pub rows: Vec<Row>,
    /// The planted bugs.
    pub planted: Vec<Planted>,
}

impl Report {
    /// Whether anything was swept at all, every case to its end and without a fault, and every planted bug
    /// was found.
    #[must_use]
    pub fn passed(&self) -> bool {
        let any = !(self.rows.is_empty() && self.planted.is_empty());
        any && self.rows.iter().all(|row| row.faults() == 0 && row.broken.is_none())
            && self.planted.iter().all(|planted| planted.found)
    }

    /// The line that sums all up, in all modes:
    /// `killstep: N operations, N kills, N hangs, N torn, N lost, N leaked, planted F/P`, F of P planted bugs
    /// being found.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut operations: Vec<_> = self.rows.iter().map(|row| row.operation.as_str()).collect();
        operations.sort_unstable();
        operations.dedup();
        let found = self.planted.iter().filter(|planted| planted.found).count();
        format!(
            "killstep: {} operations, {}, planted {found}/{}",
            operations.len(),
            numbers(&self.rows),
            self.planted.len()
        )
    }

    /// The same for each mode beside [`Mode::Kill`] that was swept, as one line each.
    pub(crate) fn modes(&self) -> impl Iterator<Item = String> {
        Mode::ALL.into_iter().skip(1).filter_map(|mode| {
            let rows: Vec<_> = self.rows.iter().filter(|row| row.mode == mode).cloned().collect();
            let repeated: u64 = rows.iter().map(|row| row.repeated).sum();
            let left_out = if repeated == 0 {
                String::new()
            } else {
                format!(", {repeated} states left out as repetitions")
            };
            (!rows.is_empty())
                .then(|| format!("{mode}: {} operations, {}{left_out}", rows.len(), numbers(&rows)))
        })
    }

    /// Which part of the states in mode kill was swept, if not all of them.
    pub(crate) fn parts(&self, seed: &str) -> Option<String> {
        let kills = self.rows.iter().filter(|row| row.mode == Mode::Kill);
        let (parts, whole): (Vec<_>, Vec<_>) = kills.partition(|row| row.parts > 1);
        let most = parts.iter().map(|row| row.parts).max()?;
        Some(format!(
            "kill: every state of {} operations; of {} with more than {SWEPT_WHOLE}, \
             one state in {most}, as seed {seed} chooses",
            whole.len(),
            parts.len(),
        ))
    }

    pub(crate) fn add_planted(&mut self, bug: &str, test: &str, found: bool) {
        match self.planted.iter_mut().find(|planted| planted.bug == bug) {
            Some(planted) if found && !planted.found => {
                planted.test = test.to_owned();
                planted.found = true;
            }
            Some(_) => {}
            None => self.planted.push(Planted { bug: bug.to_owned(), test: test.to_owned(), found }),
        }
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.found { "found by" } else { "NOT FOUND by" };
        write!(f, "planted: {:<44} {verdict} {}", self.bug, self.test)
    }
}

fn numbers(rows: &[Row]) -> String {
    let sum = |field: fn(&Row) -> u64| rows.iter().map(field).sum::<u64>();
    format!(
        "{} kills, {} hangs, {} torn, {} lost, {} leaked",
        sum(|row| row.kills),
        sum(|row| row.hangs),
        sum(|row| row.torn),
        sum(|row| row.lost),
        sum(|row| row.leaked),
    )
}

fn line(cells: &[&str]) -> String {
    let mut line = format!("{:<50}", cells[0]);
    for (cell, width) in cells[1..].iter().zip([6, 7, 7, 7, 6, 6, 6, 7, 11]) {
        line.push_str(&format!(" {cell:>width$}"));
    }
    line
}
