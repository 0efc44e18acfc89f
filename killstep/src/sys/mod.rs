//! The kernel, one function per system call or `/proc` file.
//!
//! Each platform supplies: `Child` (`fork`, `kill`, `wait`, `wait_stop`, `wait_stop_until`, `poll_stop`),
//! `map_words`, `words`, `unmap_words`, `monotonic_ns`, `activity`, `allowed_cpus`, `run_on`, `trace_me`,
//! `stop_self`, `pause`, `set_trace_options`, `resume`, `program_counter`, `is_syscall`, `run_to_caller`,
//! `run_to`, `read_memory`, `robust_list`, `stop`, `forget_robust_list`. No other file of this crate names
//! libc, an operating system or a register.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod trace;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use linux::*;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use trace::*;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("multiproc-killstep supports Linux on x86-64 and aarch64");
