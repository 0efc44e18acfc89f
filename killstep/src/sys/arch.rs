//! What differs between processors: where the program counter is, and how a breakpoint and a system call
//! look.
#![allow(clippy::cast_possible_truncation, reason = "64-bit processors only: an address fits")]

/// The registers of a stopped thread.
pub(super) type Registers = libc::user_regs_struct;

#[cfg(target_arch = "x86_64")]
mod imp {
    use super::Registers;

    /// `syscall`.
    pub(in crate::sys) const SYSCALL: &[u8] = &[0x0f, 0x05];
    /// `int3`.
    pub(in crate::sys) const BREAKPOINT: &[u8] = &[0xcc];
    /// How far behind the breakpoint's address the program counter stands when it was hit.
    pub(in crate::sys) const BREAKPOINT_ADVANCES: usize = 1;

    pub(in crate::sys) fn program_counter(registers: &Registers) -> usize {
        registers.rip as usize
    }

    pub(in crate::sys) fn set_program_counter(registers: &mut Registers, to: usize) {
        registers.rip = to as u64;
    }

    /// Prepares a system call, and forgets a system call that may have been interrupted.
    pub(in crate::sys) fn set_call(registers: &mut Registers, number: libc::c_long, arguments: [u64; 2]) {
        registers.rax = number.unsigned_abs();
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi] = arguments;
    }

    /// Where a function just entered returns to: the address on top of the stack.
    pub(in crate::sys) fn return_address(
        registers: &Registers,
        peek: impl FnOnce(usize) -> Option<u64>,
    ) -> Option<usize> {
        peek(registers.rsp as usize).map(|address| address as usize)
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use super::Registers;

    /// `svc #0`.
    pub(in crate::sys) const SYSCALL: &[u8] = &0xd400_0001_u32.to_le_bytes();
    /// `brk #0`.
    pub(in crate::sys) const BREAKPOINT: &[u8] = &0xd420_0000_u32.to_le_bytes();
    /// How far behind the breakpoint's address the program counter stands when it was hit.
    pub(in crate::sys) const BREAKPOINT_ADVANCES: usize = 0;

    pub(in crate::sys) fn program_counter(registers: &Registers) -> usize {
        registers.pc as usize
    }

    pub(in crate::sys) fn set_program_counter(registers: &mut Registers, to: usize) {
        registers.pc = to as u64;
    }

    /// Prepares a system call, for a child that was not interrupted in another call.
    pub(in crate::sys) fn set_call(registers: &mut Registers, number: libc::c_long, arguments: [u64; 2]) {
        registers.regs[8] = number.unsigned_abs();
        [registers.regs[0], registers.regs[1]] = arguments;
    }

    /// Where a function just entered returns to: the link register.
    pub(in crate::sys) fn return_address(
        registers: &Registers,
        _peek: impl FnOnce(usize) -> Option<u64>,
    ) -> Option<usize> {
        Some(registers.regs[30] as usize)
    }
}

pub(super) use imp::*;
