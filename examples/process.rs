//! Functions of this program in other processes, and the four ways in which they can end.
//!
//! `cargo run --example process`
#![allow(clippy::print_stdout, clippy::exit, reason = "an example prints, and ends in every way")]

use std::{error::Error, process, thread, time::Duration};

use multiproc::{Process, process::Exit};

fn primes_below(bound: u32) -> Vec<u32> {
    (2..bound).filter(|n| (2..*n).all(|d| n % d != 0)).collect()
}

fn fail(message: String) {
    panic!("{message}");
}

fn leave(code: i32) {
    process::exit(code);
}

fn stay(_: ()) {
    loop {
        thread::park();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();

    let child = Process::spawn(primes_below, 30)?;
    println!("process {} looks for primes", child.pid());
    let Exit::Value(primes) = child.join()? else { return Err("no value".into()) };
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    println!("a value: {primes:?}");

    let Exit::Panic { message, location } = Process::spawn(fail, "as promised".to_owned())?.join()? else {
        return Err("no panic".into());
    };
    assert_eq!(message, "as promised");
    println!("a panic: {message}, at {}", location.unwrap_or_default());

    assert!(matches!(Process::spawn(leave, 7)?.join()?, Exit::Code(7)));
    println!("an exit code: 7");

    let child = Process::spawn(stay, ())?;
    assert!(child.join_timeout(Duration::from_millis(50))?.is_none());
    assert!(child.is_alive());
    child.kill()?;
    assert!(matches!(child.join()?, Exit::Signal(9)));
    println!("a signal: 9");
    Ok(())
}
