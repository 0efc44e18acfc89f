//! [`Deadline`]: when to stop waiting.

use std::time::Duration;

use crate::sys;

/// An absolute time of `CLOCK_MONOTONIC`. It is fixed when the call begins, so a signal, a spurious wake-up
/// or a change of the wall clock does not move it.
///
/// ```
/// use multiproc_robust::Deadline;
/// use std::time::Duration;
///
/// assert!(Deadline::NOW.has_passed());
/// assert!(!Deadline::after(Duration::from_secs(60)).has_passed());
/// assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// Has always passed: do not wait.
    pub const NOW: Self = Self(0);
    /// Never passes: wait as long as it takes.
    pub const NEVER: Self = Self(u64::MAX);

    /// Returns the time `duration` from now. Zero is [`NOW`](Self::NOW), an overflow is
    /// [`NEVER`](Self::NEVER).
    pub fn after(duration: Duration) -> Self {
        if duration.is_zero() {
            return Self::NOW;
        }
        u64::try_from(duration.as_nanos())
            .map_or(Self::NEVER, |ns| Self(sys::monotonic_ns().saturating_add(ns)))
    }

    /// Returns whether the time has come.
    pub fn has_passed(self) -> bool {
        self == Self::NOW || (self != Self::NEVER && sys::monotonic_ns() >= self.0)
    }

    /// Returns the earlier of this and `longest` from now: a slice of a longer wait.
    pub fn within(self, longest: Duration) -> Self {
        self.min(Self::after(longest))
    }

    /// Returns how much time is left; `None` for [`NEVER`](Self::NEVER).
    pub fn remaining(self) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_nanos(self.0.saturating_sub(sys::monotonic_ns())))
    }

    /// Returns seconds and nanoseconds, as the kernel takes them; `None` for [`NEVER`](Self::NEVER).
    pub(crate) fn timespec(self) -> sys::Limit {
        let part = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        (self != Self::NEVER).then(|| (part(self.0 / 1_000_000_000), part(self.0 % 1_000_000_000)))
    }
}
