//! Names of objects.

use std::ffi::{CStr, CString};
use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::sys;

/// A checked name: a single path component, which cannot lead out of the namespace's directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(CString);

const LONGEST: usize = 200;

impl Name {
    /// A name that a user chose: `[A-Za-z0-9_.-]{1,200}` without a leading dot.
    pub(crate) fn chosen(name: &str, operation: &'static str) -> Result<Self, Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let problem = if name.is_empty() {
            "empty"
        } else if name.len() > LONGEST {
            "longer than 200 bytes"
        } else if name.starts_with('.') {
            "a leading dot is reserved"
        } else if !name.bytes().all(plain) {
            "only A-Z a-z 0-9 _ . - are allowed"
        } else {
            return Self::of(name.to_owned(), operation);
        };
        let shown: String = name.chars().take(LONGEST).collect();
        Err(Error::new(ErrorKind::BadName, operation, format_args!("{shown:?}")).with_detail(problem))
    }

    /// A name from a message or a directory. It may be a reserved one, made by this crate.
    pub(crate) fn existing(name: &str, operation: &'static str) -> Result<Self, Error> {
        match name.strip_prefix('.') {
            Some(rest) => Self::chosen(rest, operation).and_then(|_| Self::of(name.to_owned(), operation)),
            None => Self::chosen(name, operation),
        }
    }

    /// A random name for an anonymous object.
    pub(crate) fn anonymous(operation: &'static str) -> Result<Self, Error> {
        Self::random(".a-", operation)
    }

    /// A random name for a file that is not complete.
    pub(crate) fn temporary(operation: &'static str) -> Result<Self, Error> {
        Self::random(TEMPORARY, operation)
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.as_str().starts_with(TEMPORARY)
    }

    fn random(prefix: &str, operation: &'static str) -> Result<Self, Error> {
        let bytes = sys::random::<16>().map_err(|e| Error::os(operation, "a random name", e))?;
        Self::of(format!("{prefix}{:032x}", u128::from_ne_bytes(bytes)), operation)
    }

    fn of(name: String, operation: &'static str) -> Result<Self, Error> {
        CString::new(name)
            .map(Self)
            .map_err(|_| Error::new(ErrorKind::BadName, operation, "a name with a NUL"))
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

const TEMPORARY: &str = ".t-";

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_str().starts_with('.') {
            f.write_str("(anonymous)")
        } else {
            write!(f, "{:?}", self.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "jobs", "A.b-c_9", "x.", &"n".repeat(200)] {
            assert_eq!(Name::chosen(good, "open").unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "/a", "a\0b", "ä", "a b", "a\n", "a*", &"n".repeat(201)]
        {
            let error = Name::chosen(bad, "open").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadName, "{bad:?}");
        }
        assert!(Name::existing("../x", "open").is_err());
        assert!(Name::existing("..x", "open").is_err());
    }
}
