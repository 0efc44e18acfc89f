//! Linux: ptrace, and what it reads and writes of a child.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_long, c_void};
use std::ops::Range;
use std::time::{Duration, Instant};
use std::{io, ptr};

use super::arch::{self, Registers};
use super::linux::{Child, SIGTRAP, Status};

/// Makes the parent our tracer.
pub(crate) fn trace_me() -> io::Result<()> {
    // SAFETY: no address is passed.
    check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) })
}

/// Stops this process until its tracer lets it go on.
pub(crate) fn stop_self() {
    // SAFETY: always sound.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Sends SIGSTOP.
pub(crate) fn stop(pid: libc::pid_t) {
    // SAFETY: only our own children are named.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
}

/// Waits for a signal.
pub(crate) fn pause() {
    // SAFETY: always sound.
    unsafe { libc::pause() };
}

/// From now on `pid` dies with us, and its stops at system calls can be told from others.
pub(crate) fn set_trace_options(pid: libc::pid_t) -> io::Result<()> {
    let options = (libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD) as usize;
    // SAFETY: the options are a number, no address is passed.
    check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0_usize, options) })
}

/// How far a stopped process may go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resume {
    Step,
    Syscall,
    Continue,
}

/// Lets the stopped `pid` go on, delivering `signal` when it is not 0.
pub(crate) fn resume(pid: libc::pid_t, how: Resume, signal: c_int) -> io::Result<()> {
    let request = match how {
        Resume::Step => libc::PTRACE_SINGLESTEP,
        Resume::Syscall => libc::PTRACE_SYSCALL,
        Resume::Continue => libc::PTRACE_CONT,
    };
    // SAFETY: the signal is a number, no address is passed.
    check(unsafe { libc::ptrace(request, pid, 0_usize, c_long::from(signal)) })
}

/// Where the stopped `pid` stands.
pub(crate) fn program_counter(pid: libc::pid_t) -> io::Result<usize> {
    registers(pid).map(|registers| arch::program_counter(&registers))
}

/// Whether the instruction at `address` of `pid` enters the kernel.
pub(crate) fn is_syscall(pid: libc::pid_t, address: usize) -> bool {
    let mut bytes = [0; arch::SYSCALL.len()];
    read_memory(pid, &[(address, bytes.len())], &mut bytes) == bytes.len() && bytes == arch::SYSCALL
}

/// Lets the stopped `child`, which has just entered a function, run at full speed until that returns.
pub(crate) fn run_to_caller(child: &mut Child) -> io::Result<Status> {
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "no return address to break at");
    let caller = arch::return_address(&registers(child.pid())?, |address| peek(child.pid(), address))
        .ok_or_else(unreadable)?;
    let original = plant(child.pid(), caller, arch::BREAKPOINT)?;
    resume(child.pid(), Resume::Continue, 0)?;
    let status = child.wait_stop()?;
    if let Status::Stopped(..) = status {
        poke(child.pid(), caller, original)?;
        move_to(child.pid(), caller)?;
    }
    Ok(status)
}

/// Lets the stopped `child` run at full speed until it is about to execute the instruction at `address`.
/// Returns `false` if the child enters the kernel elsewhere than in `vdso`, stops otherwise, or does not
/// arrive within `limit`; it must then be killed.
pub(crate) fn run_to(
    child: &mut Child,
    address: usize,
    vdso: &Range<usize>,
    limit: Duration,
) -> io::Result<bool> {
    let original = plant(child.pid(), address, arch::BREAKPOINT)?;
    let deadline = Instant::now() + limit;
    loop {
        resume(child.pid(), Resume::Syscall, 0)?;
        match child.wait_stop_until(deadline)? {
            // A clock that the vDSO cannot read asks the kernel.
            Some(Status::Stopped(SIGTRAP, true)) if vdso.contains(&program_counter(child.pid())?) => {}
            Some(Status::Stopped(SIGTRAP, false)) => break,
            _ => return Ok(false),
        }
    }
    poke(child.pid(), address, original)?;
    let mut registers = registers(child.pid())?;
    let arrived = arch::program_counter(&registers) == address + arch::BREAKPOINT_ADVANCES;
    if arrived && arch::BREAKPOINT_ADVANCES != 0 {
        arch::set_program_counter(&mut registers, address);
        set_registers(child.pid(), &registers)?;
    }
    Ok(arrived)
}

/// Writes `code` over the instruction at `address`, and returns the word that was there.
fn plant(pid: libc::pid_t, address: usize, code: &[u8]) -> io::Result<u64> {
    let original = peek(pid, address)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no instruction to write over"))?;
    let mut planted = original.to_ne_bytes();
    planted[..code.len()].copy_from_slice(code);
    poke(pid, address, u64::from_ne_bytes(planted))?;
    Ok(original)
}

fn move_to(pid: libc::pid_t, address: usize) -> io::Result<()> {
    let mut registers = registers(pid)?;
    arch::set_program_counter(&mut registers, address);
    set_registers(pid, &registers)
}

/// Copies the ranges (address, length) of `pid`, one after the other, to `into`; how many bytes could be
/// read.
pub(crate) fn read_memory(pid: libc::pid_t, ranges: &[(usize, usize)], into: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote: Vec<_> = ranges
        .iter()
        .map(|&(at, length)| libc::iovec { iov_base: at as *mut c_void, iov_len: length })
        .collect();
    // SAFETY: `local` is valid for writes; the remote ranges belong to another process and are checked by the
    // kernel.
    let read =
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), remote.len() as _, 0) };
    read.max(0).unsigned_abs()
}

/// Where the robust list of the thread `pid` begins.
pub(crate) fn robust_list(pid: libc::pid_t) -> Option<usize> {
    let (mut head, mut length) = (0_usize, 0_usize);
    // SAFETY: both words are valid for the write.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut length) };
    (result == 0 && head != 0).then_some(head)
}

/// Makes the kernel forget the robust list of a stopped child, by a system call in its name. Where the child
/// stood is lost: it must not go on.
pub(crate) fn forget_robust_list(child: &mut Child) -> io::Result<()> {
    let pid = child.pid();
    let mut registers = registers(pid)?;
    let at = arch::program_counter(&registers);
    plant(pid, at, arch::SYSCALL)?;
    // No head, and the length that the kernel insists on.
    arch::set_call(&mut registers, libc::SYS_set_robust_list, [0, 24]);
    set_registers(pid, &registers)?;
    // A signal that was on its way (the SIGSTOP that took it out of a sleep) stops it before the instruction.
    for _ in 0..8 {
        resume(pid, Resume::Step, 0)?;
        match child.wait_stop()? {
            Status::Stopped(..) if program_counter(pid)? == at => {}
            Status::Stopped(..) => return Ok(()),
            status => {
                return Err(io::Error::other(format!(
                    "the victim ended when its robust list was taken away ({status:?})"
                )));
            }
        }
    }
    Err(io::Error::other("the victim makes no step"))
}

fn peek(pid: libc::pid_t, address: usize) -> Option<u64> {
    let mut word = [0; 8];
    (read_memory(pid, &[(address, word.len())], &mut word) == word.len()).then(|| u64::from_ne_bytes(word))
}

fn poke(pid: libc::pid_t, address: usize, word: u64) -> io::Result<()> {
    // SAFETY: the address is the other process's and checked by the kernel.
    check(unsafe { libc::ptrace(libc::PTRACE_POKETEXT, pid, address, word) })
}

fn registers(pid: libc::pid_t) -> io::Result<Registers> {
    let mut registers = std::mem::MaybeUninit::<Registers>::zeroed();
    let into = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of::<Registers>() };
    // SAFETY: `into` describes `registers`, which is valid for the write.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGSET, pid, libc::NT_PRSTATUS, &raw const into) })?;
    // SAFETY: all integers, zeroed and then filled by the kernel.
    Ok(unsafe { registers.assume_init() })
}

fn set_registers(pid: libc::pid_t, registers: &Registers) -> io::Result<()> {
    let from =
        libc::iovec { iov_base: ptr::from_ref(registers).cast_mut().cast(), iov_len: size_of::<Registers>() };
    // SAFETY: `from` describes `registers`, which the kernel only reads.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGSET, pid, libc::NT_PRSTATUS, &raw const from) })
}

fn check(result: c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
