//! The queue between processes: what it promises, how it waits, and what is left of it when somebody dies.
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
mod reserve;
mod roles;
mod stopped;
mod wakes;

multiproc::test_support!();
