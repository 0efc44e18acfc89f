#![doc = include_str!("../README.md")]

mod builder;
mod child;
mod child_handle;
mod control_socket;
mod error;
mod handoff;
mod helper_thread;
mod image;
mod init;
mod launch;
mod panic_report;
mod process;
mod sys;
mod this_process;

pub use builder::Builder;
pub use error::{JoinError, SpawnError};
pub use init::{__child_entry, init};
pub use process::{Exit, Process};
pub use this_process::{name, parent_pid};
