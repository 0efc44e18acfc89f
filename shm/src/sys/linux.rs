//! Linux with glibc.
#![allow(unsafe_code, reason = "system calls")]

use std::io;

/// What an error means for which `io::ErrorKind` has no stable name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OsError {
    /// The process or the system has too many open files.
    TooManyFiles,
    /// A symbolic link where none is followed, or no directory where one must be.
    WrongPath,
    /// A directory or a socket where a file must be.
    WrongFileType,
}

/// Seconds since the machine started, including sleep. All processes of the machine see the same clock.
pub(crate) fn boot_seconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.unsigned_abs()
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    // SAFETY: the buffer has N bytes; the kernel never cuts requests of up to 256 bytes short.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(got) == Ok(N) { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn effective_user() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() }
}

pub(crate) fn classify(error: &io::Error) -> Option<OsError> {
    match error.raw_os_error()? {
        libc::EMFILE | libc::ENFILE => Some(OsError::TooManyFiles),
        libc::ELOOP | libc::ENOTDIR => Some(OsError::WrongPath),
        libc::EISDIR | libc::ENXIO => Some(OsError::WrongFileType),
        _ => None,
    }
}
