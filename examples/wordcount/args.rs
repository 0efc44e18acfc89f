//! The command line.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    str::FromStr,
    thread,
};

/// The text that `--help` prints, and that follows the message of a usage error.
pub const USAGE: &str = "\
usage: wordcount [OPTION…] [PATH…]

Counts the words in files, and in the files below directories, with several processes.
Without a PATH: in this repository, without target/ and .git/.

  --workers N   worker processes (default: one per CPU)
  --kill K      kill -9 K workers during the run, at random moments, and replace each
  --seed S      with --kill: repeat the choices of an earlier run
  --check       count again in this process alone, and compare everything
  --help        print this

exit code: 0 done; 1 the run failed, or --check found a difference; 2 usage error";

const MOST_WORKERS: usize = 256;

/// The parsed command line.
#[derive(Debug, PartialEq)]
pub struct Args {
    /// Empty: this repository.
    pub paths: Vec<PathBuf>,
    pub workers: usize,
    pub kills: usize,
    pub seed: Option<u64>,
    pub check: bool,
    pub help: bool,
}

impl Args {
    /// Reads the arguments (without the program's name); the error is a message for the user.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let workers = cpus.min(MOST_WORKERS);
        let mut parsed = Self { paths: Vec::new(), workers, kills: 0, seed: None, check: false, help: false };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--workers") => parsed.workers = number("--workers", args.next())?,
                Some("--kill") => parsed.kills = number("--kill", args.next())?,
                Some("--seed") => parsed.seed = Some(number("--seed", args.next())?),
                Some("--check") => parsed.check = true,
                Some("--help" | "-h") => parsed.help = true,
                Some("--") => parsed.paths.extend(args.by_ref().map(PathBuf::from)),
                _ if arg.as_encoded_bytes().starts_with(b"-") => {
                    return Err(format!("unknown option {}", arg.display()));
                }
                _ => parsed.paths.push(arg.into()),
            }
        }
        if !(1..=MOST_WORKERS).contains(&parsed.workers) {
            return Err(format!("--workers: from 1 to {MOST_WORKERS}"));
        }
        if parsed.seed.is_some() && parsed.kills == 0 {
            return Err("--seed without --kill has nothing to repeat".into());
        }
        Ok(parsed)
    }
}

fn number<T: FromStr>(option: &str, value: Option<OsString>) -> Result<T, String> {
    let value = value.ok_or_else(|| format!("{option} needs a number"))?;
    OsStr::to_str(&value)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("{option}: {} is no number for it", value.display()))
}
