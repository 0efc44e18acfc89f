//! An array of counters in an ordinary file: it survives the program, even if the program's processes are
//! killed.
//!
//! `cargo run --example file_array`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::path::PathBuf;

use multiproc::shm::ValueGuard;
use multiproc::{Handle, Options, Process, Value};

/// How often each letter was seen.
type Counters = Value<[u64; 26]>;

/// One run of the program: counts the letters of a text, and dies while it holds the lock, in the middle of a
/// change.
fn run(path: PathBuf) {
    let counters: Counters = Options::new().open_or_create_file(path, [0; 26]).expect("the file");
    for letter in "thequickbrownfoxjumpsoverthelazydog".bytes() {
        counters.update(|all| all[usize::from(letter - b'a')] += 1).expect("the lock");
    }
    // To the disk: after this the counts survive a power cut.
    counters.sync().expect("a disk");
    let mut guard = counters.lock().expect("the lock");
    guard[0] = u64::MAX;
    std::process::abort();
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let path = std::env::temp_dir().join(format!("multiproc-letters-{}", std::process::id()));
    for _ in 0..3 {
        let exit = Process::spawn(run, path.clone())?.join()?;
        println!("a run ended: {exit:?}");
    }
    // No process has it open now. The next day, at the next start:
    let counters: Counters = Options::new().open_file(&path)?;
    let all = counters.lock()?;
    let died = ValueGuard::previous_owner_died(&all);
    println!("the last owner of the lock died: {died:?}; letters: {:?}", *all);
    assert_eq!((all[0], all.iter().sum::<u64>()), (3, 3 * 35));
    std::fs::remove_file(path)?;
    Ok(())
}
