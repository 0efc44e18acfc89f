//! The ground floor across processes: names, lifetimes, `Value`, `AtomicValue` and the wait words.
#![allow(clippy::print_stdout, reason = "a test tells what it has seen, or why it is skipped")]

#[path = "../common/mod.rs"]
mod common;

mod across;
mod arrays;
mod contract;
mod cpython_shared_memory;
mod cpython_values;
mod crash;
mod disturbed;
mod limits;
mod options;
mod ordinary;
mod placed;
mod shared_memory;
mod storm;
mod tickets;
mod words;

multiproc::test_support!();
