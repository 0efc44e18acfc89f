#![doc = include_str!("../README.md")]
#![allow(missing_docs, missing_debug_implementations, reason = "written with the guards, next")]

mod counts;
mod grow;
#[cfg(test)]
mod hostile;
mod log;
mod members;
mod memory;
mod messages;
mod record;
mod reserve;
mod side_table;
mod sink;
#[cfg(test)]
mod tests;
mod view;
mod wait;

pub use counts::*;
pub use log::*;
pub use members::*;
pub use memory::*;
pub use messages::*;
pub use record::*;
pub use reserve::*;
pub use side_table::*;
pub use sink::*;
pub use view::*;
pub use wait::*;
