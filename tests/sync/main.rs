//! `Lock` across processes: exclusion, time, death in every form, forks, and memory that others write.

#[path = "../common/mod.rs"]
mod common;

mod across;
mod contract;
mod crash;

multiproc::test_support!();
