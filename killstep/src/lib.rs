#![doc = include_str!("../README.md")]

mod args;
mod case;
mod control;
mod coordinate;
mod key;
mod machine;
mod mode;
mod path;
mod record;
mod sample;
mod sweep;
mod symbol;
mod sys;
mod table;
mod victim;
mod words;
mod workers;

pub use args::{Args, UsageError};
pub use case::{Case, Fault, Granularity, Region};
pub use control::{Cells, Kill};
pub use mode::Mode;
pub use sweep::{NO_PTRACE, Sweep};
pub use table::{Planted, Report, Row};
pub use words::SharedWords;
