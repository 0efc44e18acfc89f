//! The ways in which a victim is disturbed.

use std::fmt;

/// What happens to the victim at each of its states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// It is killed.
    #[default]
    Kill,
    /// It is killed, and so is its [recoverer](crate::Case::recoverer), at each of *its* states: every pair
    /// of crash states.
    Double,
    /// It is stopped, as by SIGSTOP; others use the object meanwhile ([`frozen`](crate::Case::frozen)), and
    /// then it goes on to its end.
    Freeze,
    /// It is killed, and the kernel does not walk its robust list. That happens after an exec by another
    /// thread, or when the OOM killer's reaper came first.
    Missed,
}

impl Mode {
    /// All of them, as they are swept.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Double, Self::Freeze, Self::Missed];

    /// The mode of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// As `--mode` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Double => "double",
            Self::Freeze => "freeze",
            Self::Missed => "missed",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
