//! Who lives how long: children, daemons, and those that their parent's death finds.

mod common;

use std::process;
use std::thread;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use multiproc_process::{Builder, Exit, Process};

use common::{Outcome, exists, runs, wait_until, watchdog};

multiproc_process::test_support!();

/// What a parent in the middle passes to its child: the child's way to tell that it lives, and its reason to end.
type Lines = (IpcSender<u32>, IpcReceiver<()>);

/// Tells its pid, waits, and tells it again.
fn live((tell, wait): Lines) {
    tell.send(process::id()).expect("somebody listens");
    // The other end may be closed by a death: that is the point.
    let _ = wait.recv();
    let _ = tell.send(process::id());
}

/// Starts a child and ends in one of several ways.
fn parent((lines, daemon, end): (Lines, bool, End)) {
    let child = Builder::new().daemon(daemon).spawn(live, lines).expect("it starts");
    match end {
        End::Return => drop(child),
        End::Wait => drop(child.join()),
        End::Abort => process::abort(),
    }
}

#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
enum End {
    Return,
    Wait,
    Abort,
}

/// A parent with a child, the child's line, and what releases the child.
type Family = (Process<()>, IpcReceiver<u32>, IpcSender<()>);

fn family(daemon: bool, end: End) -> Result<Family, Box<dyn std::error::Error>> {
    let (tell, hear) = ipc::channel()?;
    let (release, wait) = ipc::channel()?;
    Ok((Process::spawn(parent, ((tell, wait), daemon, end))?, hear, release))
}

#[test]
fn daemon_ends_when_its_parent_is_killed() -> Outcome {
    let _watchdog = watchdog();
    let (parent, child, _release) = family(true, End::Wait)?;
    let pid = child.recv()?;
    parent.kill()?;
    assert_eq!(parent.join()?, Exit::Signal(9));
    // Nobody but the daemon holds the other end.
    assert!(child.recv().is_err());
    wait_until(|| !runs(pid));
    Ok(())
}

#[test]
fn daemon_ends_when_its_parent_returns_or_aborts() -> Outcome {
    let _watchdog = watchdog();
    for (end, exit) in [(End::Return, Exit::Value(())), (End::Abort, Exit::Signal(6))] {
        let (parent, child, _release) = family(true, end)?;
        // It may be killed before it has said a word.
        let pid = child.recv();
        assert_eq!(parent.join()?, exit);
        assert!(child.recv().is_err());
        if let Ok(pid) = pid {
            wait_until(|| !runs(pid));
        }
    }
    Ok(())
}

#[test]
fn others_outlive_their_parent() -> Outcome {
    let _watchdog = watchdog();
    let (parent, child, release) = family(false, End::Wait)?;
    let pid = child.recv()?;
    parent.kill()?;
    assert_eq!(parent.join()?, Exit::Signal(9));
    release.send(())?;
    assert_eq!(child.recv()?, pid);
    assert!(child.recv().is_err());
    Ok(())
}

#[test]
fn daemon_outlives_its_handle_and_the_thread_that_started_it() -> Outcome {
    let _watchdog = watchdog();
    let (tell, hear) = ipc::channel()?;
    let (release, wait) = ipc::channel()?;
    let started = thread::spawn(move || Builder::new().daemon(true).spawn(live, (tell, wait)).map(drop)).join();
    started.map_err(|_| "the thread panicked")??;
    let pid = hear.recv()?;
    release.send(())?;
    assert_eq!(hear.recv()?, pid);
    wait_until(|| !exists(pid));
    Ok(())
}
