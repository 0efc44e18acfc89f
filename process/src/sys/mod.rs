//! The kernel and the C library, one function per call.
//!
//! Each platform supplies: `main_image`, `find`, `pidfd_open`, `pidfd_signal`, `pidfd_reap`, `wait_readable`,
//! `socket_pair`, `send`, `receive`, `is_control_socket`, `replace_stdin`, `replace_stdout`,
//! `let_child_inherit`, `set_variable`, `remove_variable`, `without_sigpipe`, `block_signals`,
//! `unblock_signals`, `set_process_title`, `exit_now`. No other file of this crate names libc, an operating
//! system or an errno.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
compile_error!("multiproc-process supports Linux 5.4 and later");
