//! What the command line asks for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Mode;

/// What to sweep, and how thoroughly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Args {
    /// Kill after every step instead of once per distinct state, and sweep every case in every [`Mode`]
    /// (`--all`).
    pub all: bool,
    /// Kill at every distinct state of every case, also of those with very many, and try the other modes as
    /// each case is [sampled](crate::Case::sampled) (`--whole`).
    pub whole: bool,
    /// One mode alone, swept wholly (`--mode MODE`).
    pub mode: Option<Mode>,
    /// Only cases and planted bugs whose names begin so, wholly (`--only PREFIX`).
    pub only: Option<String>,
    /// One kill per case, after this step (`--step K`). In [`Mode::Double`] one for each state of the
    /// recoverer follows.
    pub step: Option<u64>,
    /// The planted bugs too (`--planted`).
    pub planted: bool,
    /// What chooses the states of a sample (`--seed TEXT`): a number, or any text, such as the hash of a
    /// commit.
    pub seed: Option<String>,
    /// So many processes sweep, each on a CPU of its own (`--workers N`); there are never more of them than
    /// CPUs. Without it the driver itself sweeps, one case after the other.
    pub workers: Option<usize>,
    /// Begin no attempt after so long (`--minutes N`), and leave out what the record says was swept at this
    /// commit.
    pub limit: Option<Duration>,
    /// Begin with what was not swept for the longest time, at whatever commit (`--stale`).
    pub stale: bool,
    /// Only print what was swept when (`--record`).
    pub record: bool,
    /// The file that remembers what was swept when (`--record-file PATH`).
    pub record_file: Option<PathBuf>,
    /// What the record calls the swept version (`--commit NAME`).
    pub commit: Option<String>,
    /// This process does what a coordinating one orders (`--worker`, which [`Sweep`](crate::Sweep) itself
    /// adds).
    pub(crate) worker: bool,
}

/// The command line was not understood; its `Display` says what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

const USAGE: &str = "usage: [--all | --whole | --mode kill|double|freeze|missed] [--only PREFIX] [--step K] \
    [--planted] \
    [--seed TEXT] [--workers N] [--minutes N] [--stale] [--record] [--record-file PATH] [--commit NAME]";

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{USAGE}", self.0)
    }
}

impl std::error::Error for UsageError {}

impl Args {
    /// Reads this process's command line.
    ///
    /// # Errors
    /// [`UsageError`] for anything that its text does not list.
    pub fn from_env() -> Result<Self, UsageError> {
        Self::parse(std::env::args().skip(1))
    }

    /// Reads these words, the program's name not among them.
    ///
    /// # Errors
    /// As [`from_env`](Args::from_env).
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut operand = || words.next().ok_or_else(|| UsageError(format!("{word} needs a value")));
            match word.as_str() {
                "--all" => args.all = true,
                "--whole" => args.whole = true,
                "--planted" => args.planted = true,
                "--stale" => args.stale = true,
                "--record" => args.record = true,
                "--worker" => args.worker = true,
                "--mode" => {
                    let name = operand()?;
                    args.mode = Some(
                        Mode::named(&name)
                            .ok_or_else(|| UsageError(format!("--mode {name}: no such mode")))?,
                    );
                }
                "--only" => args.only = Some(operand()?),
                "--seed" => args.seed = Some(operand()?),
                "--commit" => args.commit = Some(operand()?),
                "--record-file" => args.record_file = Some(operand()?.into()),
                "--step" => args.step = Some(number(&word, &operand()?)?),
                "--workers" => args.workers = Some(number(&word, &operand()?)?),
                "--minutes" => {
                    let (minutes, bad) =
                        (number::<f64>(&word, &operand()?)?, |_| UsageError(format!("{word}: no such time")));
                    args.limit = Some(Duration::try_from_secs_f64(60.0 * minutes).map_err(bad)?);
                }
                _ => return Err(UsageError(format!("unknown argument {word}"))),
            }
        }
        Ok(args)
    }

    /// Whether `--only` lets a case of this name through.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Whether this process sweeps, and does not start workers that do. A driver that runs on one CPU does so
    /// only then: workers get the CPUs of the process that starts them.
    #[must_use]
    pub fn sweeps_itself(&self) -> bool {
        self.worker || (self.workers.is_none() && self.record_path().is_none())
    }

    /// How much of a mode is wanted.
    pub(crate) fn extent(&self, mode: Mode) -> Extent {
        match self.mode {
            Some(chosen) if chosen == mode => Extent::Whole,
            Some(_) => Extent::Nothing,
            None if self.all && self.step.is_none() => {
                if mode == Mode::Kill {
                    Extent::Steps
                } else {
                    Extent::Whole
                }
            }
            None if mode == Mode::Kill && (self.whole || self.only.is_some() || self.step.is_some()) => {
                Extent::Whole
            }
            None if mode == Mode::Kill => Extent::Part,
            None if self.step.is_some() => Extent::Nothing,
            None => Extent::Sample,
        }
    }

    /// Where the record is, if this run keeps one.
    pub(crate) fn record_path(&self) -> Option<PathBuf> {
        let needed = self.limit.is_some() || self.stale || self.record;
        self.record_file.clone().or_else(|| needed.then(|| PathBuf::from("target/killstep-record.tsv")))
    }
}

fn number<N: std::str::FromStr>(flag: &str, text: &str) -> Result<N, UsageError> {
    text.parse().map_err(|_| UsageError(format!("{flag} {text}: not a number")))
}

/// How much of a mode is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every step.
    Steps,
    /// Every distinct state.
    Whole,
    /// Every distinct state of a case with few, and a part of the others'.
    Part,
    /// As many states as the case has `sampled`.
    Sample,
    Nothing,
}

impl Extent {
    /// As the record names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Whole => "states",
            Self::Part => "part",
            Self::Sample => "sample",
            Self::Nothing => "nothing",
        }
    }
}
