//! `Lock`, `RLock` and semaphores across processes: exclusion, time, death in every form, forks, and memory that others write.
#![allow(clippy::print_stdout, reason = "a test tells what it has seen, or why it is skipped")]

#[path = "../common/mod.rs"]
mod common;

mod across;
mod bounded;
mod contract;
mod crash;
mod rlock;
mod semaphore;

multiproc::test_support!();
