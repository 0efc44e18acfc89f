//! Handles of multiproc objects as arguments and results: the object arrives, whichever process drops its
//! handle first.

mod common;

use std::process;
use std::thread;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use multiproc_process::{Exit, Process, SpawnError};
use multiproc_queue::Queue;
use multiproc_shm::{AtomicValue, Value};
use multiproc_sync::Lock;
use serde::{Deserialize, Serialize};

use common::{Outcome, watchdog};

multiproc_process::test_support!();

#[test]
fn value_as_an_argument() -> Outcome {
    let _watchdog = watchdog();
    let value = Value::new(20_u64)?;
    let process =
        Process::spawn(|value: Value<u64>| value.update(|number| *number += 22).is_ok(), value.clone())?;
    assert_eq!(process.join()?, Exit::Value(true));
    assert_eq!(value.get()?, 42);
    Ok(())
}

#[test]
fn value_as_a_result_outlives_its_maker() -> Outcome {
    let _watchdog = watchdog();
    let process = Process::spawn(|number: u64| Value::new(number).expect("there is room"), 42)?;
    // Once the child has ended, no process has the value open.
    while process.is_alive() {
        thread::yield_now();
    }
    let value = process.join()?.value().ok_or("no value")?;
    assert_eq!(value.get()?, 42);
    Ok(())
}

#[test]
fn moved_handle_keeps_its_object_in_the_child() -> Outcome {
    let _watchdog = watchdog();
    let (release, released) = ipc::channel::<()>()?;
    let process = Process::spawn(
        |(value, released): (Value<u64>, IpcReceiver<()>)| {
            released.recv().expect("the parent sends");
            value.get().unwrap_or(0)
        },
        (Value::new(42_u64)?, released),
    )?;
    // The parent has moved its only handle into the arguments.
    release.send(())?;
    assert_eq!(process.join()?, Exit::Value(42));
    Ok(())
}

#[test]
fn queue_and_lock_between_children() -> Outcome {
    #[derive(Serialize, Deserialize)]
    struct Shared {
        lock: Lock,
        counter: AtomicValue<u64>,
        results: Queue<u64>,
    }
    const ROUNDS: u64 = 100;
    const CHILDREN: u64 = 4;
    fn work(shared: Shared) -> Result<(), String> {
        for _ in 0..ROUNDS {
            let _guard = shared.lock.lock().map_err(|error| error.to_string())?;
            // Two steps, which only the lock keeps together.
            let before = shared.counter.load();
            shared.counter.store(before + 1);
        }
        shared.results.put(u64::from(process::id())).map_err(|error| error.to_string())
    }
    let _watchdog = watchdog();
    let (lock, counter, results) = (Lock::new()?, AtomicValue::new(0_u64)?, Queue::new(64)?);
    let shared = || Shared { lock: lock.clone(), counter: counter.clone(), results: results.clone() };
    let children =
        (0..CHILDREN).map(|_| Process::spawn(work, shared())).collect::<Result<Vec<_>, SpawnError>>()?;
    for child in &children {
        assert_eq!(child.join()?, Exit::Value(Ok(())));
    }
    assert_eq!(counter.load(), ROUNDS * CHILDREN);
    let mut reported = (0..CHILDREN).map(|_| results.get()).collect::<Result<Vec<_>, _>>()?;
    let mut pids: Vec<u64> = children.iter().map(|child| child.pid().into()).collect();
    reported.sort_unstable();
    pids.sort_unstable();
    assert_eq!(reported, pids);
    Ok(())
}

#[test]
fn killed_child_does_not_keep_its_lock() -> Outcome {
    let _watchdog = watchdog();
    let lock = Lock::new()?;
    let (report, reports) = ipc::channel::<bool>()?;
    let process: Process<()> = Process::spawn(
        |(lock, report): (Lock, IpcSender<bool>)| {
            let guard = lock.lock();
            report.send(guard.is_ok()).expect("the parent listens");
            loop {
                thread::park();
            }
        },
        (lock.clone(), report),
    )?;
    assert!(reports.recv()?);
    process.kill()?;
    assert_eq!(process.join()?, Exit::Signal(9));
    drop(lock.lock()?);
    Ok(())
}
