//! The ground floor across processes: names, lifetimes, `Value`, `AtomicValue` and the wait words.

#[path = "../common/mod.rs"]
mod common;

mod across;
mod contract;
mod crash;
mod words;

multiproc::test_support!();
