//! What the command line asks for.

use std::fmt;

/// What to sweep, and how thoroughly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Args {
    /// Kill at every step instead of once per distinct state (`--all`).
    pub all: bool,
    /// Only cases and planted bugs whose names begin so (`--only PREFIX`).
    pub only: Option<String>,
    /// One kill per case, at this step (`--step K`).
    pub step: Option<u64>,
    /// The planted bugs too (`--zoo`).
    pub zoo: bool,
}

/// The command line was not understood; its `Display` says what may be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nusage: [--all] [--only PREFIX] [--step K] [--zoo]", self.0)
    }
}

impl std::error::Error for UsageError {}

impl Args {
    /// Reads this process's command line.
    ///
    /// # Errors
    /// [`UsageError`] for anything but `--all`, `--only PREFIX`, `--step K` and `--zoo`.
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
                "--zoo" => args.zoo = true,
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
}
