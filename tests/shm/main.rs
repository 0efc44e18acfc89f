//! Objects in shared memory across processes: names, lifetimes, `Value`, `Array`, `SharedMemory` and the wait
//! words.
#![allow(clippy::print_stdout, reason = "a test says what it has seen, or why it is skipped")]

#[path = "../common/mod.rs"]
mod common;

mod across;
mod arrays;
mod contract;
mod cpython_shared_memory;
mod cpython_values;
mod crash;
mod disturbed;
mod in_flight;
mod limits;
mod options;
mod ordinary;
mod placed;
mod shared_memory;
mod storm;
mod words;

multiproc::test_support!();
