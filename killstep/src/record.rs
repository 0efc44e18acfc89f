//! The record: what was swept when, one line per row, so that a long sweep can be made in slices.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Mode, Row};

const HEADING: &str = "case\tmode\textent\tcommit\tdate\tseconds\tkills\tfaults\tnext\n";

/// What is swept of a case: its name, the mode, and how much.
pub(crate) type Key = (String, Mode, String);

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) seconds: u64,
    pub(crate) kills: u64,
    pub(crate) faults: u64,
    /// The step or state with which the next slice goes on; `None`: this line ends the case.
    pub(crate) next: Option<u64>,
}

/// The file, and what it says.
pub(crate) struct Record {
    path: PathBuf,
    commit: String,
    entries: HashMap<Key, Vec<Entry>>,
}

impl Record {
    /// Reads the file, if there is one; `commit` is what new lines will name.
    pub(crate) fn open(path: PathBuf, commit: String) -> io::Result<Self> {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let mut entries: HashMap<Key, Vec<Entry>> = HashMap::new();
        // A line that was cut short by a death is left out, as the heading is.
        for (key, entry) in text.lines().filter_map(parse) {
            entries.entry(key).or_default().push(entry);
        }
        Ok(Self { path, commit, entries })
    }

    /// Appends what a row has shown.
    pub(crate) fn append(&mut self, row: &Row, extent: &str) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        let faults = row.faults() + u64::from(row.broken.is_some());
        let next = row.next.map_or_else(|| "-".to_owned(), |next| next.to_string());
        let (date, seconds) = (now(), row.took.as_secs());
        let line = format!(
            "{}\t{}\t{extent}\t{}\t{date}\t{seconds}\t{}\t{faults}\t{next}\n",
            row.operation, row.mode, self.commit, row.kills
        );
        let heading = if file.metadata()?.len() == 0 { HEADING } else { self.missing_newline(&mut file)? };
        // One write, so that two sweeps do not mix their lines.
        file.write_all(format!("{heading}{line}").as_bytes())?;
        if let Some((key, entry)) = parse(line.trim_end()) {
            self.entries.entry(key).or_default().push(entry);
        }
        Ok(())
    }

    /// A newline, if a death has cut the most recent line short.
    fn missing_newline(&self, _file: &mut File) -> io::Result<&'static str> {
        Ok(if fs::read(&self.path)?.ends_with(b"\n") { "" } else { "\n" })
    }

    /// With which step or state to go on at this commit; `None`: everything is done.
    pub(crate) fn resume(&self, key: &Key) -> Option<u64> {
        let here = self
            .entries
            .get(key)
            .and_then(|entries| entries.iter().rev().find(|entry| entry.commit == self.commit));
        here.map_or(Some(0), |entry| entry.next)
    }

    /// With which step or state to go on at whatever commit: a case that was swept to its end begins anew.
    pub(crate) fn resume_anywhere(&self, key: &Key) -> u64 {
        self.entries.get(key).and_then(|entries| entries.last()).and_then(|entry| entry.next).unwrap_or(0)
    }

    /// When a case was last swept to its end; nothing sorts before every date.
    pub(crate) fn last_whole(&self, key: &Key) -> Option<&str> {
        let whole = |entry: &&Entry| entry.next.is_none();
        self.entries.get(key).and_then(|entries| entries.iter().rfind(whole)).map(|entry| entry.date.as_str())
    }

    /// The most recent sweep of a case: its last line, with the seconds, kills and faults of all its slices.
    fn latest(&self, key: &Key) -> Option<Entry> {
        let (last, before) = self.entries.get(key)?.split_last()?;
        let slices = before.iter().rev().take_while(|entry| entry.next.is_some());
        Some(slices.fold(last.clone(), |mut sum, slice| {
            sum.seconds += slice.seconds;
            sum.kills += slice.kills;
            sum.faults += slice.faults;
            sum
        }))
    }

    /// One line per case: when it was last swept, at which commit, and what was found. The last line sums up.
    pub(crate) fn summary(&self, keys: &[Key]) -> Vec<String> {
        let mut lines = Vec::new();
        let (mut never, mut faulty, mut unfinished) = (0, 0, 0);
        for key in keys {
            let (name, mode, extent) = key;
            let Some(entry) = self.latest(key) else {
                never += 1;
                lines.push(format!("{name:<50} {mode:>6} {extent:>6}  never"));
                continue;
            };
            faulty += u64::from(entry.faults != 0);
            unfinished += u64::from(entry.next.is_some());
            let rest = entry.next.map_or_else(String::new, |next| format!(", goes on at {next}"));
            let commit = entry.commit.get(..12).unwrap_or(&entry.commit);
            lines.push(format!(
                "{name:<50} {mode:>6} {extent:>6}  {} {commit} {} s, {} kills, {} faults{rest}",
                entry.date, entry.seconds, entry.kills, entry.faults
            ));
        }
        lines.push(format!(
            "record: {} rows, {never} never swept, {unfinished} unfinished, {faulty} with faults ({})",
            keys.len(),
            self.path.display()
        ));
        lines
    }

    /// Whether the most recent sweep of one of the cases has found a fault.
    pub(crate) fn faulty(&self, keys: &[Key]) -> bool {
        keys.iter().any(|key| self.latest(key).is_some_and(|entry| entry.faults != 0))
    }
}

fn parse(line: &str) -> Option<(Key, Entry)> {
    let fields: Vec<_> = line.split('\t').collect();
    let [case, mode, extent, commit, date, seconds, kills, faults, next] = fields[..] else { return None };
    let key = (case.to_owned(), Mode::named(mode)?, extent.to_owned());
    let next = if next == "-" { None } else { Some(next.parse().ok()?) };
    let entry = Entry {
        commit: commit.to_owned(),
        date: date.to_owned(),
        seconds: seconds.parse().ok()?,
        kills: kills.parse().ok()?,
        faults: faults.parse().ok()?,
        next,
    };
    Some((key, entry))
}

/// The time in UTC: `2026-11-30T23:59:59Z`.
fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
}

/// Seconds since 1970 as a date. The year begins in March, so that a leap day is its last.
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3_600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_796_083_199), "2026-11-30T23:59:59Z");
    }
}
