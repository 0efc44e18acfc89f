//! Python's multiprocessing, by a script whose workers read the clock themselves, as here.

use std::env;
use std::process::Command;
use std::sync::OnceLock;

use crate::lock::Contest;
use crate::os;
use crate::queue::{Traffic, capacity};
use crate::roundtrip::{IDLE, Trip};

const SCRIPT: &str = include_str!("python.py");

/// Returns whether there is a `python3`; prints a message, once, if not.
pub(crate) fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| {
        let has_python = |path| env::split_paths(&path).any(|folder| folder.join("python3").exists());
        let here = env::var_os("PATH").is_some_and(has_python);
        if !here {
            eprintln!("no python3: its numbers are left out");
        }
        here
    })
}

pub(crate) fn queue(traffic: Traffic) -> Result<f64, String> {
    let Traffic { producers, consumers, size, warm_up, each } = traffic;
    script("queue", &[producers as u64, consumers as u64, size as u64, capacity(size) as u64, warm_up, each])
}

/// Measures a lock of this class: `Lock`, `RLock` or `Semaphore`.
pub(crate) fn lock(class: &str, contest: Contest, sections: u64) -> Result<f64, String> {
    script(class, &[contest.workers as u64, contest.outside, sections])
}

pub(crate) fn locked_add(additions: u64) -> Result<f64, String> {
    script("value", &[additions])
}

pub(crate) fn spawn(processes: u64) -> Result<f64, String> {
    script("spawn", &[processes])
}

pub(crate) fn roundtrip(trip: Trip, requests: u64) -> Result<f64, String> {
    let same = trip.place.cpu(0) == trip.place.cpu(1);
    let idle = if trip.parked { IDLE.as_millis() as u64 } else { 0 };
    script("roundtrip", &[u64::from(same), idle, requests])
}

fn script(role: &str, numbers: &[u64]) -> Result<f64, String> {
    let cpus = os::two_cpus().map(|cpu| cpu.to_string());
    let numbers = numbers.iter().map(u64::to_string);
    let output = Command::new("python3").args(["-c", SCRIPT, role]).args(cpus).args(numbers).output();
    let output = output.map_err(|problem| problem.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(complaint.trim().lines().last().unwrap_or("failed").to_owned());
    }
    text.trim().parse().map_err(|_| format!("printed {text:?}"))
}
