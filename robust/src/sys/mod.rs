//! The system: one function per call of the kernel or libc.
//!
//! A platform supplies: `futex_wait`, `futex_waitv`, `futex_wake`, `waiters_on`, `gettid`, `robust_list`,
//! `set_robust_list`, `start_parked_thread`, `thread_exists`, `is_thread_of_this_process`, `wiped_on_fork`,
//! `monotonic_ns`, `cpus_online`, `is_bound_to_one_cpu`, `cpu`. No other file of this crate names libc, an
//! operating system or an errno.

#[cfg(all(target_os = "linux", target_env = "gnu", target_endian = "little", target_pointer_width = "64"))]
mod futex;
#[cfg(all(target_os = "linux", target_env = "gnu", target_endian = "little", target_pointer_width = "64"))]
mod linux;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_endian = "little",
    target_pointer_width = "64"
))]
pub(crate) use {futex::*, linux::*};

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_endian = "little",
    target_pointer_width = "64"
)))]
compile_error!("multiproc-robust supports 64-bit little-endian Linux with glibc");
