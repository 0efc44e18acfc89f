//! Linux 5.4 or later: `waitid` must know `P_PIDFD`.
#![allow(unsafe_code, reason = "system calls and the C library")]

use std::env;
use std::ffi::{CStr, OsStr, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;
use std::slice;
use std::time::Duration;

use multiproc_robust::Deadline;

/// The main program, as the dynamic linker (or the static start-up code) has loaded it.
#[derive(Debug, Default)]
pub(crate) struct RawImage {
    /// The difference between an address in memory and the virtual address in the file.
    pub(crate) base: usize,
    /// The program's code.
    pub(crate) executable: Vec<Range<usize>>,
    /// The program's constants: mapped from the file, readable, not writable.
    pub(crate) constant: Vec<Range<usize>>,
    /// The linker's build-id, if the linker has left one.
    pub(crate) build_id: Option<Vec<u8>>,
}

/// `dl_iterate_phdr(3)`: its first object is the main program.
pub(crate) fn main_image() -> Option<RawImage> {
    let mut image: Option<RawImage> = None;
    // SAFETY: `first_object` gets the pointer to `image` that it expects, for the length of this call.
    unsafe { libc::dl_iterate_phdr(Some(first_object), (&raw mut image).cast()) };
    image
}

/// The callback of [`main_image`]: reads the first object and stops.
unsafe extern "C" fn first_object(info: *mut libc::dl_phdr_info, _: usize, out: *mut c_void) -> c_int {
    // SAFETY: the C library lends a filled structure for the length of the call.
    let info = unsafe { &*info };
    // SAFETY: `main_image` passes its own `Option<RawImage>`.
    let out = unsafe { &mut *out.cast::<Option<RawImage>>() };
    // SAFETY: `dlpi_phdr` points to `dlpi_phnum` program headers, mapped for as long as the program lives.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let mut image = RawImage { base: address(info.dlpi_addr), ..RawImage::default() };
    for header in headers {
        let start = image.base.wrapping_add(address(header.p_vaddr));
        let range = start..start.saturating_add(address(header.p_memsz));
        match header.p_type {
            libc::PT_LOAD => {
                if header.p_flags & libc::PF_X != 0 {
                    image.executable.push(range.clone());
                }
                if header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R {
                    image.constant.push(range);
                }
            }
            libc::PT_NOTE => {
                // SAFETY: a PT_NOTE segment lies inside a mapped, constant PT_LOAD of the main program.
                let notes =
                    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance::<u8>(start), range.len()) };
                image.build_id = image.build_id.or_else(|| build_id(notes));
            }
            _ => {}
        }
    }
    *out = Some(image);
    1
}

/// An ELF word as an address; 32-bit programs have 32-bit words.
#[allow(clippy::cast_possible_truncation, reason = "an ELF address of this process fits its usize")]
fn address(word: impl Into<u64>) -> usize {
    word.into() as usize
}

/// Returns the note of type `NT_GNU_BUILD_ID` by "GNU". A note is three words (name length, content length,
/// type), the name and the content, each padded to four bytes.
fn build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let word = |notes: &[u8], at: usize| Some(u32::from_ne_bytes(notes.get(at..at + 4)?.try_into().ok()?));
    loop {
        let name_length = usize::try_from(word(notes, 0)?).ok()?;
        let length = usize::try_from(word(notes, 4)?).ok()?;
        let kind = word(notes, 8)?;
        let name = 12;
        let content = name + name_length.next_multiple_of(4);
        let end = content.checked_add(length)?;
        if kind == NT_GNU_BUILD_ID && notes.get(name..name + name_length)? == b"GNU\0" {
            return notes.get(content..end).map(<[u8]>::to_vec);
        }
        notes = notes.get(end.next_multiple_of(4)..)?;
    }
}

/// `memmem(3)`: returns the bytes after the first `needle` in this range of the main program's constants.
pub(crate) fn find(range: &Range<usize>, needle: &[u8]) -> Option<&'static [u8]> {
    let start = ptr::with_exposed_provenance::<u8>(range.start);
    // SAFETY: `main_image` listed the range as mapped, readable and never written; the main program is never
    // unmapped.
    let haystack: &'static [u8] = unsafe { slice::from_raw_parts(start, range.len()) };
    // SAFETY: both slices are readable for their lengths.
    let found = unsafe {
        libc::memmem(haystack.as_ptr().cast(), haystack.len(), needle.as_ptr().cast(), needle.len())
    };
    let at = found.addr().checked_sub(range.start)?;
    haystack.get(at + needle.len()..)
}

/// `pidfd_open(2)`; always close-on-exec.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    check(fd)?;
    // SAFETY: the kernel has just returned this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A signal that can be sent to a child.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Terminate,
    Kill,
}

/// `pidfd_send_signal(2)`; does nothing to a process that has ended.
pub(crate) fn pidfd_signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let signal = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
    };
    let fd = process.as_raw_fd();
    // SAFETY: a null siginfo is allowed; it means what kill(2) would send.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, ptr::null::<c_void>(), 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}

/// The result of an attempt to reap a child.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reaped {
    /// The child runs.
    NotYet,
    /// The child has ended, and its zombie has been removed.
    Ended(ExitStatus),
    /// The child has ended, but its status is lost: another part of the program waited for any child, or
    /// ignores SIGCHLD.
    ByAnother,
}

/// `waitid(P_PIDFD, WEXITED | WNOHANG)`.
pub(crate) fn pidfd_reap(process: BorrowedFd<'_>) -> io::Result<Reaped> {
    let id = libc::id_t::try_from(process.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: all zero is a valid siginfo_t; the kernel leaves it so if no child has ended.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `info` may be written.
    let result = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::WNOHANG) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(Reaped::ByAnother) } else { Err(error) };
    }
    // SAFETY: waitid fills the SIGCHLD part, and all zero is a valid value of that part.
    if unsafe { info.si_pid() } == 0 {
        return Ok(Reaped::NotYet);
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let raw = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok(Reaped::Ended(ExitStatus::from_raw(raw)))
}

/// `ppoll(2)`: returns which of these can be read or have been closed by the peer; none if the deadline has
/// passed. A signal does not end the wait.
pub(crate) fn wait_readable(descriptors: &[BorrowedFd<'_>], deadline: Deadline) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let count = libc::nfds_t::try_from(polled.len()).map_err(io::Error::other)?;
    loop {
        let limit = deadline.remaining().map(timespec);
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `polled` has `count` entries, the time outlives the call, and no signal mask is passed.
        let result = unsafe { libc::ppoll(polled.as_mut_ptr(), count, limit, ptr::null()) };
        if result >= 0 {
            return Ok(polled.iter().map(|entry| entry.revents != 0).collect());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    let seconds = duration.as_secs().try_into().unwrap_or(libc::time_t::MAX);
    libc::timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() }
}

/// `socketpair(2)` of whole messages, close-on-exec.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    })?;
    // SAFETY: the kernel has just returned this descriptor.
    let ours = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: the kernel has just returned this descriptor.
    let theirs = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((ours, theirs))
}

/// `send(2)` of one message; a closed peer is an error, never a SIGPIPE.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    // SAFETY: the message is readable for its length.
    let sent =
        unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `recv(2)`: waits for one message; an empty one means that the peer has closed its end. A message longer
/// than `limit` is cut.
pub(crate) fn receive(socket: BorrowedFd<'_>, limit: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; limit];
    loop {
        // SAFETY: the buffer is writable for its length.
        let length = unsafe { libc::recv(socket.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), 0) };
        if let Ok(length) = usize::try_from(length) {
            message.truncate(length);
            return Ok(message);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            // The peer closed its end with messages from this process unread.
            io::ErrorKind::ConnectionReset => return Ok(Vec::new()),
            _ => return Err(error),
        }
    }
}

/// Returns whether a descriptor is a Unix socket of whole messages, as [`socket_pair`] makes them.
pub(crate) fn is_control_socket(fd: BorrowedFd<'_>) -> bool {
    let option = |name| {
        let (mut value, mut length): (c_int, libc::socklen_t) = (0, 4);
        let (fd, out) = (fd.as_raw_fd(), (&raw mut value).cast());
        // SAFETY: `value` has the four bytes that `length` states.
        let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, out, &raw mut length) };
        (result == 0).then_some(value)
    };
    option(libc::SO_DOMAIN) == Some(libc::AF_UNIX) && option(libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET)
}

/// Replaces descriptor 0 by `/dev/null`.
pub(crate) fn replace_stdin() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    // SAFETY: no pointers; descriptor 0 is replaced in one step.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })
}

/// Replaces descriptor 1 by an inherited descriptor, and closes the latter.
pub(crate) fn replace_stdout(inherited: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; a number that is no descriptor is refused by the kernel.
    check(unsafe { libc::dup2(inherited, 1) })?;
    // SAFETY: dup2 has found the descriptor open, and the parent passed it on for this process to own.
    drop(unsafe { OwnedFd::from_raw_fd(inherited) });
    Ok(())
}

/// Clears close-on-exec on `fd` in the child that `command` starts, and only there. `fd` must stay open until
/// the child is started.
pub(crate) fn let_child_inherit(command: &mut Command, fd: RawFd) {
    let clear = move || {
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })
    };
    // SAFETY: between fork and exec the closure calls only fcntl, which is allowed there, and allocates
    // nothing.
    unsafe { command.pre_exec(clear) };
}

/// `setenv(3)`. To be called before the program has a second thread.
pub(crate) fn set_variable(name: &str, value: &OsStr) {
    // SAFETY: only `init` calls this, in a spawned child, at the first line of `main`, as its documentation
    // demands.
    unsafe { env::set_var(name, value) };
}

/// `unsetenv(3)`. To be called before the program has a second thread.
pub(crate) fn remove_variable(name: &str) {
    // SAFETY: only `init` calls this, in a spawned child, at the first line of `main`, as its documentation
    // demands.
    unsafe { env::remove_var(name) };
}

/// Runs `work` so that a write to a closed socket returns an error, even if the program has reset SIGPIPE to
/// its default, which kills. The signal is blocked in this thread meanwhile, and a new one is consumed before
/// the mask is restored.
pub(crate) fn without_sigpipe<T>(work: impl FnOnce() -> T) -> T {
    let pipe = signal_set(&[libc::SIGPIPE]);
    let was_pending = sigpipe_is_pending();
    let before = change_mask(libc::SIG_BLOCK, &pipe);
    let result = work();
    if !was_pending && sigpipe_is_pending() {
        let now = timespec(Duration::ZERO);
        // SAFETY: the set and the time are valid; no siginfo is asked for.
        unsafe { libc::sigtimedwait(&raw const pipe, ptr::null_mut(), &raw const now) };
    }
    change_mask(libc::SIG_SETMASK, &before);
    result
}

/// Blocks every signal in this thread.
pub(crate) fn block_signals() {
    // SAFETY: all zero is a valid sigset_t.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set may be written.
    unsafe { libc::sigfillset(&raw mut all) };
    change_mask(libc::SIG_BLOCK, &all);
}

/// Unblocks every signal in this thread: `exec` keeps the mask of the thread that forked.
pub(crate) fn unblock_signals() {
    change_mask(libc::SIG_SETMASK, &signal_set(&[]));
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: all zero is a valid sigset_t.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set may be written.
    unsafe { libc::sigemptyset(&raw mut set) };
    for &signal in signals {
        // SAFETY: as above.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// `pthread_sigmask(3)`; returns the previous mask.
fn change_mask(how: c_int, set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = signal_set(&[]);
    // SAFETY: both sets are valid; the call fails only for an unknown `how`.
    unsafe { libc::pthread_sigmask(how, ptr::from_ref(set), &raw mut before) };
    before
}

fn sigpipe_is_pending() -> bool {
    let mut pending = signal_set(&[]);
    // SAFETY: the set may be written.
    unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: the set may be read.
    unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) == 1 }
}

/// Sets the name of this process in `ps` and `top`: `exec` of `/proc/self/exe` leaves "exe". The kernel cuts
/// it at 15 bytes.
pub(crate) fn set_process_title(title: &CStr) {
    // SAFETY: the title is a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, title.as_ptr()) };
}

/// `_exit(2)`: ends every thread now, without destructors, exit handlers or flushes.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests {
    /// An address in a shared library, for the tests of `image.rs`.
    pub(crate) fn a_function_of_the_c_library() -> usize {
        libc::getpid as *const () as usize
    }
}
