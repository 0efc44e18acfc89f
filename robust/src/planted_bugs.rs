//! Planted bugs: faults that the tests must find. In an ordinary build [`is_planted`] is the constant
//! `false`.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "test only")]
#[allow(missing_docs, reason = "each name says it; the code that asks shows it")]
pub enum Bug {
    MissingWake,
    WakeBeforeStore,
    PendingAfterCas,
    TwoStoreCommit,
    LengthReadTwice,
    UnlinkWithoutInode,
    NonRobust,
    WriterUnsigned,
    RecoveryWithoutPending,
    StoppedTakenForDead,
    NoLivenessPoll,
    PendingClearedBeforeWake,
    WokenNotifiesNone,
    CountedBeforeSigned,
    DeathNotifiedToOne,
    NotifiedUpToWithoutWaitersBit,
    DeadNotificationForgotten,
    MutexWithoutLook,
    PermitsWithoutLivenessPoll,
    SignedTooEarly,
    SignatureClearedLate,
    LeasedBeforeHead,
    LeasesUnwatched,
    HalfMovedUnseen,
    OwnerThreadWithoutPending,
    DisconnectNotNotified,
    NextMemberUnwatched,
}

/// Returns whether this bug is switched on: by the environment variable `MULTIPROC_PLANTED_BUG`, and only in
/// builds with `--cfg multiproc_planted_bugs`.
#[cfg(multiproc_planted_bugs)]
pub fn is_planted(bug: Bug) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("MULTIPROC_PLANTED_BUG").ok()).as_deref() == Some(&format!("{bug:?}"))
}

/// Returns whether this bug is switched on: never in this build.
#[cfg(not(multiproc_planted_bugs))]
#[inline]
pub const fn is_planted(_: Bug) -> bool {
    false
}
