//! What the command line asks for.

use std::fmt;

use crate::Mode;

/// What to sweep, and how thoroughly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Args {
    /// Kill at every step instead of once per distinct state, and sweep every case in every [`Mode`] (`--all`).
    pub all: bool,
    /// One mode alone, swept wholly (`--mode MODE`). Without it, and without `--all`: kills, and of the others what a case
    /// [samples](crate::Case::sampled).
    pub mode: Option<Mode>,
    /// Only cases and planted bugs whose names begin so (`--only PREFIX`).
    pub only: Option<String>,
    /// One kill per case, at this step (`--step K`); in [`Mode::Double`] it is followed by each of its recoverer's.
    pub step: Option<u64>,
    /// The planted bugs too (`--planted`).
    pub planted: bool,
}

/// The command line was not understood; its `Display` says what may be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nusage: [--all] [--mode kill|double|freeze|missed] [--only PREFIX] [--step K] [--planted]", self.0)
    }
}

impl std::error::Error for UsageError {}

impl Args {
    /// Reads this process's command line.
    ///
    /// # Errors
    /// [`UsageError`] for anything but `--all`, `--mode MODE`, `--only PREFIX`, `--step K` and `--planted`.
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
                "--planted" => args.planted = true,
                "--mode" => {
                    let name = operand()?;
                    let mode = Mode::ALL.into_iter().find(|mode| mode.name() == name);
                    args.mode = Some(mode.ok_or_else(|| UsageError(format!("--mode {name}: no such mode")))?);
                }
                "--only" => args.only = Some(operand()?),
                "--step" => {
                    let number = operand()?;
                    args.step = Some(number.parse().map_err(|_| UsageError(format!("--step {number}: not a number")))?);
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

    /// How much of a mode is wanted.
    pub(crate) fn extent(&self, mode: Mode) -> Extent {
        match self.mode {
            Some(chosen) if chosen == mode => Extent::Whole,
            Some(_) => Extent::Nothing,
            None if mode == Mode::Kill || (self.all && self.step.is_none()) => Extent::Whole,
            None if self.step.is_some() => Extent::Nothing,
            None => Extent::Sample,
        }
    }
}

/// How much of a mode is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Sample,
    Nothing,
}
