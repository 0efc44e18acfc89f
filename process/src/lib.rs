#![doc = include_str!("../README.md")]

mod builder;
mod child;
mod error;
mod handoff;
mod image;
mod init;
mod kin;
mod meeting;
mod process;
mod sys;

pub use builder::Builder;
pub use error::{JoinError, SpawnError};
pub use init::{__child_entry, init, name, parent_pid};
pub use process::{Exit, Process};
