//! When to stop waiting: an absolute moment of `CLOCK_MONOTONIC`.

use std::time::Duration;

use crate::sys;

/// An absolute moment on `CLOCK_MONOTONIC`, fixed when the call begins, so that neither a signal, a spurious wake-up nor a change of the wall clock moves it.
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
    /// Do not wait at all.
    pub const NOW: Self = Self(0);
    /// Wait as long as it takes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This long from now; zero is [`NOW`](Self::NOW), what overflows is [`NEVER`](Self::NEVER).
    pub fn after(duration: Duration) -> Self {
        if duration.is_zero() {
            return Self::NOW;
        }
        u64::try_from(duration.as_nanos()).map_or(Self::NEVER, |ns| Self(sys::monotonic_ns().saturating_add(ns)))
    }

    /// Whether the moment has come.
    pub fn has_passed(self) -> bool {
        self == Self::NOW || (self != Self::NEVER && sys::monotonic_ns() >= self.0)
    }

    /// The earlier of this and `longest` from now: a slice of a longer wait.
    pub fn within(self, longest: Duration) -> Self {
        self.min(Self::after(longest))
    }

    /// How long is left; `None` for ever.
    pub fn remaining(self) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_nanos(self.0.saturating_sub(sys::monotonic_ns())))
    }

    /// Seconds and nanoseconds for the kernel; `None` for ever.
    pub(crate) fn timespec(self) -> Option<(i64, i64)> {
        let part = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        (self != Self::NEVER).then(|| (part(self.0 / 1_000_000_000), part(self.0 % 1_000_000_000)))
    }
}
