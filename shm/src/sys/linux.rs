//! Linux with glibc.
#![allow(unsafe_code, reason = "system calls")]

use std::io;

use crate::error::ErrorKind;

/// Seconds since the machine started, sleep included: the same clock for all processes of the machine.
pub(crate) fn boot_seconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.unsigned_abs()
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    // SAFETY: the buffer has N bytes; up to 256 are never cut short.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(got) == Ok(N) { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn effective_user() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() }
}

/// What an errno means that `io::ErrorKind` has no stable name for.
pub(crate) fn kind_of(error: &io::Error) -> Option<ErrorKind> {
    match error.raw_os_error()? {
        libc::EMFILE | libc::ENFILE => Some(ErrorKind::Exhausted),
        // A symbolic link, or something else, where we go through no such thing.
        libc::ELOOP | libc::ENOTDIR => Some(ErrorKind::Denied),
        // A directory or a socket where a file of ours should be.
        libc::EISDIR | libc::ENXIO => Some(ErrorKind::Corrupt),
        _ => None,
    }
}
