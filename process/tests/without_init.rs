//! A test program without `test_support!` cannot start processes, and starts none.

use multiproc_process::{Process, SpawnError};

#[test]
fn spawn_without_init_is_an_error() {
    let error = Process::spawn(|number: u32| number, 7).expect_err("a child would run the tests again");
    assert!(matches!(error, SpawnError::NotInitialised { function: "fn(u32) -> u32" }), "{error:?}");
    assert!(error.to_string().contains("call `multiproc::init()`"), "{error}");
}
