//! A struct that several processes change, and a counter that needs no lock.
//!
//! `cargo run --example value`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use multiproc::{AtomicValue, Pod, Process, Value, Zeroable, process::Exit};

const EACH: u32 = 10_000;

/// Two accounts, whose sum never changes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C)]
struct Accounts {
    savings: i64,
    checking: i64,
}

/// Moves money from one account to the other. A process killed in here leaves the accounts as before or as
/// after a transfer: no money is lost.
fn transfer((accounts, transfers): (Value<Accounts>, AtomicValue<u64>)) -> Result<(), String> {
    for n in 0..EACH {
        let amount = i64::from(n % 5);
        let mut held = accounts.lock().map_err(|error| error.to_string())?;
        held.savings -= amount;
        held.checking += amount;
        drop(held); // now, in one step, other processes see the new values
        transfers.fetch_add(1);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let accounts = Value::new(Accounts { savings: 1_000_000, checking: 0 })?;
    let transfers = AtomicValue::new(0)?;

    let mut clerks = Vec::new();
    for _ in 0..3 {
        clerks.push(Process::spawn(transfer, (accounts.clone(), transfers.clone()))?);
    }
    // The sum is right at every look, also after a clerk is killed at work.
    let victim = clerks.remove(0);
    while transfers.load() == 0 {
        std::thread::yield_now();
    }
    victim.kill()?;
    for _ in 0..1_000 {
        let seen = accounts.get()?;
        assert_eq!(seen.savings + seen.checking, 1_000_000);
    }
    for clerk in clerks {
        assert!(matches!(clerk.join()?, Exit::Value(Ok(()))));
    }
    victim.join()?;

    println!("{} transfers: {:?}", transfers.load(), accounts.get()?);
    assert!(transfers.load() >= u64::from(2 * EACH));
    Ok(())
}
