//! Runs the example that shares memory with Python, with the installed Python; and shows the trap that its
//! script avoids.
#![allow(clippy::print_stdout, reason = "a test prints why it is skipped")]

#[path = "../examples/numpy_buffer.rs"]
mod example;

use std::process::Command;

use multiproc::SharedMemory;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs a script with the Python that the example would use; `None` if there is none.
fn python(script: &str, argument: &str) -> Option<String> {
    let program = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(program).args(["-c", script, argument]).output().ok();
    let Some(output) = output.filter(|output| output.status.success()) else {
        println!("skipped: no python3 with multiprocessing.shared_memory here");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn example_runs() -> Outcome {
    let Some(_) = python("import multiprocessing.shared_memory", "") else { return Ok(()) };
    example::main()
}

/// An attachment of Python may destroy the block when it ends. An attachment of Rust does not, and keeps the
/// bytes when the name is gone.
#[test]
fn attachment_of_python_may_destroy_the_block_and_rusts_does_not() -> Outcome {
    const MAKE: &str = "
from multiprocessing import resource_tracker, shared_memory
block = shared_memory.SharedMemory(create=True, size=5000)
block.buf[:4] = b'made'
resource_tracker.unregister(block._name, 'shared_memory')
print(block.name)";
    const ATTACH: &str = "
import sys
from multiprocessing import shared_memory
shared_memory.SharedMemory(sys.argv[1]).close()";
    let Some(name) = python(MAKE, "") else { return Ok(()) };
    let block = SharedMemory::attach_os(&name)?;
    assert_eq!((block.len(), &block.to_vec()[..4]), (5000, &b"made"[..]));
    // An attachment of Rust is made and dropped: the name stays.
    drop(SharedMemory::attach_os(&name)?);
    assert!(SharedMemory::attach_os(&name).is_ok());
    // An attachment of Python is made and closed. Before Python 3.13 its tracker takes the block for its own,
    // and unlinks the name.
    python(ATTACH, &name).ok_or("it was there before")?;
    let gone = SharedMemory::attach_os(&name).is_err();
    println!("this Python {} a block that it attaches to", if gone { "destroys" } else { "keeps" });
    block.write_at(0, b"rust")?;
    assert_eq!(&block.to_vec()[..4], b"rust");
    let _ = std::fs::remove_file(format!("/dev/shm/{name}"));
    Ok(())
}
