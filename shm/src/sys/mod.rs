//! The kernel: one function for one system call.
//!
//! A platform supplies `boot_seconds`, `random`, `effective_user`, `classify`, `open_directory`,
//! `open_directory_again`, `open_again`, `make_directory`, `open_at`, `create_at`, `open_unnamed`,
//! `give_name`, `rename_new`, `remove_at`, `lock_file`, `lock_first_byte`, `open_path`, `fill_holes`,
//! `reserve`, `populate_error`, `touch`, `page_size`. No other file of this crate names libc, an operating
//! system or an errno.

#[cfg(all(target_os = "linux", target_env = "gnu", target_endian = "little", target_pointer_width = "64"))]
mod files;
#[cfg(all(target_os = "linux", target_env = "gnu", target_endian = "little", target_pointer_width = "64"))]
mod linux;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_endian = "little",
    target_pointer_width = "64"
))]
pub(crate) use {files::*, linux::*};

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_endian = "little",
    target_pointer_width = "64"
)))]
compile_error!("multiproc-shm supports 64-bit little-endian Linux with glibc");
