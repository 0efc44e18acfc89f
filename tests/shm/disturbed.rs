//! Signals during every operation, and clocks that can be set.
#![allow(unsafe_code, reason = "signals, as a C program sends them")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::robust::{Deadline, EventCount};
use multiproc::shm::{Gc, Namespace};
use multiproc::{ErrorKind, GetError, Lock, Options, PutError, Queue, SharedMemory, Transit, Value};

use crate::common::{Outcome, Space, alone, spawn, tid, value};

static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// Runs `body` while another thread sends signals to this one, whose handler interrupts system calls. Also
/// returns the number of signals.
fn bombarded<R>(every: Duration, body: impl FnOnce() -> R) -> (R, u64) {
    extern "C" fn count(_: i32) {
        SIGNALS.fetch_add(1, SeqCst);
    }
    // SAFETY: zeros are a valid value of this plain struct.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(i32) as usize;
    // SAFETY: a handler that only counts; without SA_RESTART.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
    let (victim, done, before) = (tid().cast_signed(), AtomicBool::new(false), SIGNALS.load(SeqCst));
    thread::scope(|s| {
        s.spawn(|| {
            while !done.load(SeqCst) {
                // SAFETY: no arguments.
                let pid = unsafe { libc::getpid() };
                // SAFETY: numbers only; the thread lives as long as this scope.
                unsafe { libc::syscall(libc::SYS_tgkill, pid, victim, libc::SIGUSR1) };
                thread::sleep(every);
            }
        });
        let result = body();
        done.store(true, SeqCst);
        (result, SIGNALS.load(SeqCst) - before)
    })
}

#[test]
fn operations_work_under_many_signals() -> Outcome {
    type Arguments = (PathBuf, Lock, Value<u64>, Queue<u8>, Queue<u8>);
    fn child((directory, lock, shared, empty, full): Arguments) -> Result<u64, String> {
        let namespace = Namespace::at(directory).expect("the parent's");
        let options = Options::new().namespace(&namespace);
        let round = |number: u64| -> Outcome {
            let made: Value<u64> = options.create("named", number)?;
            let found: Value<u64> = options.open("named")?;
            assert_eq!(found.get()?, number);
            drop(options.open_or_create::<Value<u64>>("named", 0)?);
            drop(options.anonymous::<SharedMemory>(100_000)?);
            let transit = Transit::begin();
            let bytes = postcard::to_stdvec(&made)?;
            transit.sent();
            drop((made, found));
            assert_eq!(postcard::from_bytes::<Value<u64>>(&bytes)?.get()?, number);
            let _other: Lock = options.open_or_create("named", ())?;
            options.unlink("named")?;
            assert_eq!(Gc::new().run(&namespace)?.kept, ["parents"]);

            // Waits for a lock that another process holds, and for messages that never come. A wait that
            // started anew at each signal would never end.
            let limit = Duration::from_millis(3);
            let waits: [&dyn Fn() -> bool; 5] = [
                &|| lock.lock_timeout(limit).is_ok_and(|guard| guard.is_none()),
                &|| shared.lock_timeout(limit).is_ok_and(|guard| guard.is_none()),
                &|| empty.get_timeout(limit) == Err(GetError::Empty),
                &|| full.put_timeout(2, limit) == Err(PutError::Full(2)),
                &|| !EventCount::new().wait_until(Deadline::after(limit), || false),
            ];
            for (which, wait) in waits.iter().enumerate() {
                let begun = Instant::now();
                assert!(wait(), "wait {which}");
                let took = begun.elapsed();
                assert!(took >= limit && took < Duration::from_secs(10), "wait {which} took {took:?}");
            }
            Ok(())
        };
        let (result, signals) = bombarded(Duration::from_micros(100), || (0..60).try_for_each(round));
        result.map(|()| signals).map_err(|error| error.to_string())
    }
    let _alone = alone();
    let space = Space::new();
    let _parents: Value<u64> = space.options().create("parents", 7)?;
    let (lock, shared) = (Lock::new()?, Value::new(0_u64)?);
    let (empty, full) = (Queue::new(1)?, Queue::new(1)?);
    full.put(1)?;
    let (_guard, _copy) = (lock.lock()?, shared.lock()?);
    let child =
        spawn(child, (space.namespace().path().to_owned(), lock.clone(), shared.clone(), empty, full));
    let signals = value(&child)?;
    println!("{signals} signals");
    assert!(signals > 500, "only {signals} signals");
    Ok(())
}

#[test]
fn large_objects_can_be_made_under_many_signals() -> Outcome {
    // A signal undoes what `fallocate` has done. If one call took longer than the time between two signals,
    // it would never succeed.
    const MEGABYTES: usize = 192;
    fn child((): ()) -> Result<u64, (bool, String)> {
        let (made, signals) = bombarded(Duration::from_micros(500), || SharedMemory::new(MEGABYTES << 20));
        made.map(|_| signals).map_err(|error| (error.kind() == ErrorKind::NoSpace, error.to_string()))
    }
    let _alone = alone();
    match value(&spawn(child, ())) {
        Err((true, _)) => println!("skipped: no space for {MEGABYTES} MiB of shared memory"),
        result => println!("{} signals", result.map_err(|(_, text)| text)?),
    }
    Ok(())
}

#[test]
fn processes_can_be_spawned_under_many_signals() -> Outcome {
    fn grandchild(text: String) -> String {
        text + "!"
    }
    fn child((): ()) -> u64 {
        let (_, signals) = bombarded(Duration::from_micros(200), || {
            for round in 0..20 {
                // Once with a large argument, which is sent in another way.
                let text = "x".repeat(if round == 10 { 100_000 } else { 10 });
                assert_eq!(value(&spawn(grandchild, text.clone())), text + "!");
            }
        });
        signals
    }
    let _alone = alone();
    println!("{} signals", value(&spawn(child, ())));
    Ok(())
}

/// The wall clock can be set at any time. A test that sets it would disturb the machine, so this one checks
/// that no source file reads it.
#[test]
fn no_source_reads_a_clock_that_can_be_set() -> Outcome {
    fn sources(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                sources(&path, found)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
        Ok(())
    }
    // `Instant` is CLOCK_MONOTONIC here. It and CLOCK_BOOTTIME cannot be set. A futex wait with
    // FUTEX_CLOCK_REALTIME could end early or late.
    const WALL: [&str; 9] = [
        "SystemTime",
        "UNIX_EPOCH",
        "CLOCK_REALTIME",
        "CLOCK_TAI",
        "gettimeofday",
        "libc::time(",
        "pthread_mutex_timedlock",
        "sem_timedwait",
        ".modified()",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for crate_ in fs::read_dir(root)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("Cargo.toml").exists())
    {
        // Only the crates that users' programs contain.
        if !["killstep", "models", "benches"].iter().any(|name| crate_.ends_with(name)) {
            sources(&crate_.join("src"), &mut files)?;
        }
    }
    assert!(files.len() > 30, "{files:?}");
    let mut uses = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file)?;
        uses.extend(WALL.iter().filter(|word| text.contains(**word)).map(|word| (file, word)));
    }
    assert!(uses.is_empty(), "{uses:?}");
    Ok(())
}
