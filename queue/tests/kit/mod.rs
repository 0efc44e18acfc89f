//! What the tests of the queue share: a watchdog, reproducible random numbers, unique names.
#![allow(
    dead_code,
    clippy::print_stderr,
    reason = "each test program uses a part of it; a watchdog must say why it barks"
)]

use std::error::Error;
use std::fs;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Ends the program if a test hangs.
#[must_use = "it watches until it is dropped"]
pub(crate) struct Watchdog(#[allow(dead_code, reason = "its drop is the signal")] mpsc::Sender<()>);

pub(crate) fn watchdog() -> Watchdog {
    const LIMIT: Duration = Duration::from_secs(120);
    let (alive, watch) = mpsc::channel::<()>();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if watch.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs");
            process::abort();
        }
    });
    Watchdog(alive)
}

/// Random numbers that are the same again for the same seed (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("smaller than a usize")
    }
}

/// Returns a name that no other test has.
pub(crate) fn unique(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("test-{what}-{}-{}", process::id(), NUMBER.fetch_add(1, Relaxed))
}

/// Returns bytes that tell their message and their position in it.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// A thread that tells where /proc shows it.
pub(crate) struct Sleeper<R> {
    task: String,
    done: Arc<AtomicBool>,
    thread: thread::JoinHandle<R>,
}

impl<R: Send + 'static> Sleeper<R> {
    /// Starts `work`, and waits until it sleeps or is over.
    pub(crate) fn start(work: impl FnOnce() -> R + Send + 'static) -> Self {
        let (tell, hear) = mpsc::channel();
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let thread = thread::spawn(move || {
            tell.send(fs::read_link("/proc/thread-self").expect("/proc")).expect("a parent");
            let result = work();
            ended.store(true, Relaxed);
            result
        });
        let task = format!("/proc/{}/stat", hear.recv().expect("a thread").display());
        let this = Self { task, done, thread };
        while !this.sleeps() && !this.is_done() {
            thread::yield_now();
        }
        this
    }

    /// Returns whether it waits for something. (Also on a busy machine: a thread that is about to sleep may
    /// be preempted, but is runnable then.)
    pub(crate) fn sleeps(&self) -> bool {
        let stat = fs::read_to_string(&self.task).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    pub(crate) fn join(self) -> R {
        self.thread.join().expect("no panic")
    }
}
