//! The queue between processes: its contract, how it waits, and its state after the death of a process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../queue/tests/kit/history.rs"]
mod history;

mod across;
mod contract;
mod counters;
mod cpython_queue;
mod crash;
mod exact;
mod holders;
mod hostile;
mod hostile_jobs;
mod kit;
mod linear;
mod members;
mod reserve;
mod stopped;
mod wakes;

multiproc::test_support!();
