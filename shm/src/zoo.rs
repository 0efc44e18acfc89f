//! Planted bugs, for the tests that must find them. In an ordinary build [`planted`] is the constant `false`.

/// A deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "test only")]
#[allow(missing_docs, reason = "each name says it; the place that asks shows it")]
pub enum Bug {
    MissingWake,
    WakeBeforeStore,
    PendingAfterCas,
    TwoStoreCommit,
    LengthReadTwice,
    UnlinkWithoutInode,
    NonRobust,
    WriterUnsigned,
    HeirWithoutPending,
    StoppedTakenForDead,
    NoBelt,
    PendingClearedBeforeWake,
    WokenTellsNobody,
    CountedBeforeSigned,
    DeathToldToOne,
    HorizonWithoutAlarm,
    DeadCallForgotten,
    GateWithoutLook,
    PermitsWithoutBelt,
    SignedTooEarly,
    SignatureClearedLate,
    OutBeforeHead,
    SlotsUnwatched,
    HalfMovedUnseen,
    KeeperWithoutPending,
    GoneToldToNobody,
    NextSeatUnwatched,
}

/// Whether this bug is switched on (environment `MULTIPROC_ZOO`, only in builds with `--cfg multiproc_zoo`).
#[cfg(multiproc_zoo)]
pub fn planted(bug: Bug) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("MULTIPROC_ZOO").ok()).as_deref() == Some(&format!("{bug:?}"))
}

/// Whether this bug is switched on: never in this build.
#[cfg(not(multiproc_zoo))]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}
