//! `Lock`, `RLock` and semaphores across processes: exclusion, time, death in every form, forks, and memory that others write.
#![allow(clippy::print_stdout, reason = "a test tells what it has seen, or why it is skipped")]

#[path = "../common/mod.rs"]
mod common;

mod across;
mod barrier;
mod bounded;
mod condition;
mod condition_rlock;
mod contract;
mod cpython_condition;
mod crash;
mod event;
mod owned;
mod rlock;
mod rwlock;
mod semaphore;
mod waiters;

multiproc::test_support!();
