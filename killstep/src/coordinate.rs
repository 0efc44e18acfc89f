//! The coordinating process: which units are to be done, and what their results are.

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use crate::record::{Key, Record};
use crate::workers::{self, Kind, Said, Unit, write_line};
use crate::{Args, Row, Sweep};

impl Sweep {
    /// Has the units done. An exit code: there was nothing to do.
    pub(crate) fn coordinate(&mut self, mut units: Vec<Unit>) -> io::Result<Option<ExitCode>> {
        let args = self.args.clone();
        let key = |unit: &Unit| match unit.kind {
            Kind::Sweep(mode, _) => Some((unit.name.clone(), mode, args.extent(mode).name().to_owned())),
            Kind::Hunt(_) => None,
        };
        let commit = args.commit.clone().unwrap_or_else(|| "unknown".to_owned());
        let mut record = args.record_path().map(|path| Record::open(path, commit)).transpose()?;
        if let Some(record) = &record {
            if args.record {
                let keys: Vec<Key> = units.iter().filter_map(key).collect();
                record.summary(&keys).iter().for_each(|line| write_line(line));
                return Ok(Some(ExitCode::from(u8::from(record.faulty(&keys)))));
            }
            let wanted = units.len();
            plan(&mut units, record, &args, key);
            if wanted != units.len() {
                write_line(&format!(
                    "{} of {wanted} rows are to be swept; the others were, at this commit",
                    units.len()
                ));
            }
            if units.is_empty() {
                return Ok(Some(ExitCode::SUCCESS));
            }
        }
        let (planned, mut begun, mut trouble) = (units.len(), 0, None);
        let deadline = args.limit.map(|limit| Instant::now() + limit);
        let (report, headed) = (&mut self.report, &mut self.headed);
        workers::perform(units, args.workers.unwrap_or(1), deadline, |unit, said| {
            begun += 1;
            let said = said.unwrap_or_else(|error| vec![lost(unit, &error)]);
            for thing in said {
                match thing {
                    Said::Text(line) => {
                        if !std::mem::replace(headed, true) {
                            write_line(&Row::heading());
                        }
                        write_line(&line);
                    }
                    Said::Row(row) => {
                        if let (Some(record), Some((.., extent))) = (&mut record, key(unit)) {
                            trouble = record.append(&row, &extent).err().or(trouble.take());
                        }
                        report.rows.push(*row);
                    }
                    Said::Bug(bug, test, found) => report.add_planted(&bug, &test, found),
                }
            }
        });
        if begun < planned {
            write_line(&format!("the time is over: {} of {planned} rows were not begun", planned - begun));
        }
        trouble.map_or(Ok(None), Err)
    }
}

/// Leaves out what was done, and puts first what comes first.
fn plan(units: &mut Vec<Unit>, record: &Record, args: &Args, key: impl Fn(&Unit) -> Option<Key>) {
    for unit in units.iter_mut() {
        if let (Some(key), Kind::Sweep(_, from)) = (key(unit), &mut unit.kind) {
            *from = if args.stale { record.resume_anywhere(&key) } else { 0 };
        }
    }
    if args.stale {
        let last = |unit: &Unit| key(unit).and_then(|key| record.last_whole(&key).map(str::to_owned));
        units.sort_by_cached_key(last);
    } else if args.limit.is_some() {
        units.retain_mut(|unit| {
            let Some(key) = key(unit) else { return true };
            let Some(next) = record.resume(&key) else { return false };
            unit.kind = Kind::Sweep(key.1, next);
            true
        });
    }
}

/// What is reported of a unit in which the worker died.
fn lost(unit: &Unit, error: &io::Error) -> Said {
    match unit.kind {
        Kind::Sweep(mode, _) => {
            write_line(&format!("  BROKEN {} in mode {mode}: {error}", unit.name));
            let broken = Some(error.to_string());
            Said::Row(Box::new(Row { operation: unit.name.clone(), mode, broken, ..Row::default() }))
        }
        Kind::Hunt(_) => Said::Bug(unit.name.clone(), error.to_string(), false),
    }
}
