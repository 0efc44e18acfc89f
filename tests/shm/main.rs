//! The ground floor across processes: names, lifetimes, `Value`, `AtomicValue` and the wait words.
#![allow(clippy::print_stdout, reason = "a test tells what it has seen, or why it is skipped")]

#[path = "../common/mod.rs"]
mod common;

mod across;
mod contract;
mod crash;
mod options;
mod ordinary;
mod placed;
mod words;

multiproc::test_support!();
