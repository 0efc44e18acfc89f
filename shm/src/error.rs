//! [`Error`]: why an object could not be made, found, attached or removed, in all crates.

use std::fmt;
use std::io;

use crate::sys::{self, OsError};

/// Why an object could not be made, found, attached or removed.
///
/// It says what was tried, on which object, and why it failed.
///
/// ```
/// use multiproc_shm::{ErrorKind, Value};
///
/// let error = Value::<u64>::open("not-made").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(error.to_string().starts_with(r#"open value "not-made": no such object"#));
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    object: String,
    detail: Option<String>,
    source: Option<io::Error>,
}

/// The reason in an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `create` of a name that is in use.
    AlreadyExists,
    /// `open` or `unlink` of a name that is not in use.
    NotFound,
    /// A name outside `[A-Za-z0-9_.-]{1,200}`, or one with a leading dot.
    BadName,
    /// The name belongs to an object of another kind.
    WrongKind,
    /// The object was made by a build with another layout.
    WrongVersion,
    /// The object has other parameters, or elements of another type.
    Mismatch,
    /// The object was made in another pid namespace, where thread ids mean other threads.
    OtherPidNamespace,
    /// The object of a handle in a message has gone. Its name may belong to another object now.
    Stale,
    /// The file system has no space for it. Nothing was left behind.
    NoSpace,
    /// A parameter that is not possible: zero, too large.
    Invalid,
    /// Another process holds the namespace's lock: most likely it was stopped in the middle of an `open`.
    Busy,
    /// Permissions of the directory, the file, or a sandbox.
    Denied,
    /// The bytes are not an object of this crate.
    Corrupt,
    /// The kernel or libc lacks what is needed.
    Unsupported,
    /// In caller-provided memory: the object is being placed, or the process that placed it died before it
    /// was ready. Place it again.
    NotReady,
    /// Caller-provided memory whose address is not a multiple of what the object needs.
    Misaligned,
    /// Caller-provided memory that is smaller than the object.
    TooSmall,
    /// Too many open files, too many mappings, no memory.
    Exhausted,
    /// Any other error of the operating system.
    Os,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str, object: impl fmt::Display) -> Self {
        Self { kind, operation, object: object.to_string(), detail: None, source: None }
    }

    pub(crate) fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Adds a fact to the detail.
    pub(crate) fn also(mut self, fact: impl fmt::Display) -> Self {
        self.detail =
            Some(self.detail.map_or_else(|| fact.to_string(), |detail| format!("{detail}; {fact}")));
        self
    }

    pub(crate) fn os(operation: &'static str, object: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ErrorKind::NoSpace
            }
            io::ErrorKind::OutOfMemory => ErrorKind::Exhausted,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => match sys::classify(&source) {
                Some(OsError::TooManyFiles) => ErrorKind::Exhausted,
                Some(OsError::WrongPath) => ErrorKind::Denied,
                Some(OsError::WrongFileType) => ErrorKind::Corrupt,
                None => ErrorKind::Os,
            },
        };
        let mut error = Self::new(kind, operation, object);
        error.source = Some(source);
        error
    }

    /// Returns the reason, to be matched on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the object's name: empty for an anonymous object, a path for a namespace.
    pub fn object(&self) -> &str {
        &self.object
    }
}

impl ErrorKind {
    fn message(self) -> &'static str {
        match self {
            Self::AlreadyExists => "already exists",
            Self::NotFound => "no such object",
            Self::BadName => "bad name",
            Self::WrongKind => "is of another kind",
            Self::WrongVersion => "has another layout version",
            Self::Mismatch => "was made with other parameters",
            Self::OtherPidNamespace => "was made in another pid namespace",
            Self::Stale => "the object has gone",
            Self::NoSpace => "no space left in the file system",
            Self::Invalid => "invalid parameter",
            Self::Busy => "held by another process",
            Self::Denied => "permission denied",
            Self::Corrupt => "not an object of multiproc",
            Self::Unsupported => "not supported here",
            Self::NotReady => "is not ready",
            Self::Misaligned => "the memory is not aligned",
            Self::TooSmall => "the memory is too small",
            Self::Exhausted => "out of descriptors or memory",
            Self::Os => "operating system error",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.object, self.kind)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
