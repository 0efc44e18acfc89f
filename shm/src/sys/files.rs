//! Files and directories, their locks, and their memory.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `mkdir(path, 0700)`. If the directory exists, that is no error.
pub(crate) fn make_directory(path: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    if unsafe { libc::mkdir(path.as_ptr(), 0o700) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

pub(crate) fn open_directory(path: &CStr) -> io::Result<File> {
    // SAFETY: a C string.
    owned(unsafe {
        libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
    })
}

/// Opens the same directory again: a `flock` belongs to one open file.
pub(crate) fn open_directory_again(directory: &File) -> io::Result<File> {
    // SAFETY: an open descriptor and a C string.
    owned(unsafe {
        libc::openat(
            directory.as_raw_fd(),
            c".".as_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    })
}

/// Opens the same file again.
pub(crate) fn open_again(file: &File) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens a file that the user chose, for reading and writing. A FIFO does not block.
pub(crate) fn open_path(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Opens an existing file for reading and writing. It follows no symbolic link, and a FIFO does not block.
pub(crate) fn open_at(directory: &File, name: &CStr) -> io::Result<File> {
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: an open descriptor and a C string.
    owned(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) })
}

/// Makes a file without a name in this directory (`O_TMPFILE`). Fails with `Unsupported` if the file system
/// cannot.
pub(crate) fn open_unnamed(directory: &File) -> io::Result<File> {
    if cfg!(multiproc_force_fallback) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: an open descriptor and a C string.
    let file = owned(unsafe { libc::openat(directory.as_raw_fd(), c".".as_ptr(), flags, 0o600) });
    file.map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT) => io::ErrorKind::Unsupported.into(),
        _ => error,
    })
}

/// Makes a file whose name must not exist.
pub(crate) fn create_at(directory: &File, name: &CStr) -> io::Result<File> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: an open descriptor and a C string.
    owned(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, 0o600) })
}

/// `linkat` of a file without a name: through /proc, else with `AT_EMPTY_PATH`.
pub(crate) fn give_name(file: &File, directory: &File, name: &CStr) -> io::Result<()> {
    let descriptor = file.as_raw_fd();
    let through_proc = CString::new(format!("/proc/self/fd/{descriptor}"))?;
    let target = directory.as_raw_fd();
    // SAFETY: open descriptors and C strings.
    let linked = unsafe {
        libc::linkat(libc::AT_FDCWD, through_proc.as_ptr(), target, name.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    if linked == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOENT) {
        return Err(error);
    }
    // SAFETY: as above.
    let linked =
        unsafe { libc::linkat(descriptor, c"".as_ptr(), target, name.as_ptr(), libc::AT_EMPTY_PATH) };
    if linked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `renameat2(RENAME_NOREPLACE)`.
pub(crate) fn rename_new(directory: &File, from: &CStr, to: &CStr) -> io::Result<()> {
    let fd = directory.as_raw_fd();
    // SAFETY: open descriptors and C strings.
    let renamed = unsafe {
        libc::syscall(libc::SYS_renameat2, fd, from.as_ptr(), fd, to.as_ptr(), libc::RENAME_NOREPLACE)
    };
    if renamed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn remove_at(directory: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: an open descriptor and a C string.
    if unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `flock` without waiting. Returns whether the lock was taken.
pub(crate) fn lock_file(file: &File, exclusive: bool) -> io::Result<bool> {
    let operation = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    loop {
        // SAFETY: an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(false),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// `F_OFD_SETLK` on the first byte, without waiting. Returns whether the lock was taken or released. The lock
/// belongs to the open file and ends with it.
pub(crate) fn lock_first_byte(file: &File, take: bool) -> io::Result<bool> {
    // SAFETY: all zeros is a valid `flock`: from the beginning of the file, no owner.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    let kind = if take { libc::F_WRLCK } else { libc::F_UNLCK };
    range.l_type = i16::try_from(kind).unwrap_or_default();
    range.l_len = 1;
    loop {
        // SAFETY: an open descriptor and a valid range.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// `fallocate` of a file that has its length already. `Unsupported` is no error here: such a file system has
/// no holes.
pub(crate) fn fill_holes(file: &File, length: u64) -> io::Result<()> {
    reserve(file, length)
        .or_else(|error| if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) })
}

/// `fallocate`: reserves the bytes, so that touching them cannot be SIGBUS.
pub(crate) fn reserve(file: &File, length: u64) -> io::Result<()> {
    in_pieces(length, |start, bytes| {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let (start, bytes) =
            (i64::try_from(start).map_err(too_large)?, i64::try_from(bytes).map_err(too_large)?);
        // SAFETY: an open descriptor.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, start, bytes) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    })
}

/// Calls `act` for the bytes from 0 to `length`, in one piece if possible.
///
/// On some kernels a signal interrupts `fallocate` and undoes what it has done. If signals (of a profiler, of
/// a timer) come more often than a piece takes, the pieces must be smaller. After a thousand interruptions of
/// one small piece this is an error, not a hang.
fn in_pieces(length: u64, mut act: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
    const SMALL: u64 = 1 << 16;
    let (mut done, mut piece, mut interrupted) = (0, length, 0);
    while done < length {
        let bytes = piece.min(length - done);
        match act(done, bytes) {
            Ok(()) => (done, interrupted) = (done + bytes, 0),
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted && (bytes > SMALL || interrupted < 1000) =>
            {
                interrupted += 1;
                piece = (piece / 2).max(SMALL);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Translates errors of `MADV_POPULATE_WRITE`: `EFAULT` where a store would be SIGBUS for lack of space,
/// `EINVAL` before Linux 5.14.
pub(crate) fn populate_error(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EFAULT) => io::ErrorKind::StorageFull.into(),
        Some(libc::EINVAL) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}

/// `MADV_POPULATE_WRITE` on caller-provided memory: an error where a store would be SIGBUS. Does nothing if
/// the kernel does not know it.
pub(crate) fn touch(start: *mut u8, length: usize) -> io::Result<()> {
    let page = start.map_addr(|address| address / page_size() * page_size());
    let length = start.addr() - page.addr() + length;
    // SAFETY: the contents stay as they are; the kernel checks the addresses.
    if unsafe { libc::madvise(page.cast(), length, libc::MADV_POPULATE_WRITE) } == 0 {
        return Ok(());
    }
    let error = populate_error(io::Error::last_os_error());
    if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) }
}

/// Returns the bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn owned(descriptor: i32) -> io::Result<File> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just opened, and that nothing else uses.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_that_are_interrupted_become_small_ones() {
        for length in [1, 4096, 1 << 20, (1 << 30) + 1] {
            let (mut end, mut calls) = (0, 0_u64);
            let done = in_pieces(length, |start, bytes| {
                assert_eq!(start, end, "a gap");
                calls += 1;
                if bytes > 300_000 || calls.is_multiple_of(3) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                end += bytes;
                Ok(())
            });
            assert!(done.is_ok() && end == length, "{length}: {done:?} at {end}");
        }
    }

    #[test]
    fn pieces_that_are_always_interrupted_are_an_error() {
        let mut calls = 0;
        let done = in_pieces(1 << 40, |_, _| {
            calls += 1;
            Err(io::ErrorKind::Interrupted.into())
        });
        assert_eq!(done.map_err(|error| error.kind()), Err(io::ErrorKind::Interrupted));
        assert!((1000..2000).contains(&calls), "{calls}");
    }
}
