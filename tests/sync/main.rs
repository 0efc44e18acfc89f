//! Locks, semaphores, conditions, events and barriers across processes: exclusion, time-outs, deaths of every
//! kind, forks, and memory that other processes overwrite.
#![allow(clippy::print_stdout, reason = "a test prints what it measured, or why it is skipped")]

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
