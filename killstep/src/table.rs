//! What was found, as rows and as the last line.

use std::fmt;
use std::time::Duration;

/// One operation's line of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// The case's name.
    pub operation: String,
    /// How many steps the operation took, alone.
    pub steps: u64,
    /// How many different shared states it went through, the first included.
    pub states: u64,
    /// How many victims were killed.
    pub kills: u64,
    /// Kills after which somebody waited in vain.
    pub hangs: u64,
    /// Kills after which the object was neither as before nor as after.
    pub torn: u64,
    /// Kills after which something confirmed was gone or doubled.
    pub lost: u64,
    /// Kills after which something stayed taken.
    pub leaked: u64,
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
        line(&["operation", "steps", "states", "kills", "hangs", "torn", "lost", "leaked", "worst wake"])
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers =
            [self.steps, self.states, self.kills, self.hangs, self.torn, self.lost, self.leaked].map(|number| number.to_string());
        let mut cells = vec![self.operation.as_str()];
        cells.extend(numbers.iter().map(String::as_str));
        let wake = self.worst_wake.map_or_else(|| "-".to_owned(), |wake| format!("{:.1} ms", wake.as_secs_f64() * 1e3));
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
    pub zoo: Vec<Planted>,
}

impl Report {
    /// Whether anything was swept at all, every case to its end and without a fault, and every planted bug was found.
    #[must_use]
    pub fn passed(&self) -> bool {
        let any = !(self.rows.is_empty() && self.zoo.is_empty());
        any && self.rows.iter().all(|row| row.faults() == 0 && row.broken.is_none())
            && self.zoo.iter().all(|planted| planted.found)
    }

    /// The line that sums all up:
    /// `killstep: N operations, N kills, N hangs, N torn, N lost, N leaked, zoo F/P`, F of P planted bugs being found.
    #[must_use]
    pub fn summary(&self) -> String {
        let sum = |field: fn(&Row) -> u64| self.rows.iter().map(field).sum::<u64>();
        format!(
            "killstep: {} operations, {} kills, {} hangs, {} torn, {} lost, {} leaked, zoo {}/{}",
            self.rows.len(),
            sum(|row| row.kills),
            sum(|row| row.hangs),
            sum(|row| row.torn),
            sum(|row| row.lost),
            sum(|row| row.leaked),
            self.zoo.iter().filter(|planted| planted.found).count(),
            self.zoo.len(),
        )
    }

    pub(crate) fn add_planted(&mut self, bug: &str, test: &str, found: bool) {
        match self.zoo.iter_mut().find(|planted| planted.bug == bug) {
            Some(planted) if found && !planted.found => {
                planted.test = test.to_owned();
                planted.found = true;
            }
            Some(_) => {}
            None => self.zoo.push(Planted { bug: bug.to_owned(), test: test.to_owned(), found }),
        }
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.found { "found by" } else { "NOT FOUND by" };
        write!(f, "zoo: {:<44} {verdict} {}", self.bug, self.test)
    }
}

fn line(cells: &[&str]) -> String {
    let mut line = format!("{:<44}", cells[0]);
    for (cell, width) in cells[1..].iter().zip([7, 7, 7, 6, 6, 6, 7, 11]) {
        line.push_str(&format!(" {cell:>width$}"));
    }
    line
}
