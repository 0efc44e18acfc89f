//! How long children and daemons live, and what the death of their parent does to them.

mod common;

use std::process;
use std::thread;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use multiproc_process::{Builder, Exit, Process};

use common::{Outcome, exists, runs, wait_until, watchdog};

multiproc_process::test_support!();

/// The channels that the process in the middle passes to its child: on the first the child reports its
/// process id, and the second releases it.
type Channels = (IpcSender<u32>, IpcReceiver<()>);

/// Reports its process id, waits, and reports it again.
fn live((report, released): Channels) {
    report.send(process::id()).expect("the test listens");
    // A death may have closed the other end: the tests are about that.
    let _ = released.recv();
    let _ = report.send(process::id());
}

/// Starts a child and ends in one of several ways.
fn parent((channels, daemon, end): (Channels, bool, End)) {
    let child = Builder::new().daemon(daemon).spawn(live, channels).expect("it starts");
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

/// A parent with a child, the child's reports, and the sender that releases the child.
type Family = (Process<()>, IpcReceiver<u32>, IpcSender<()>);

fn family(daemon: bool, end: End) -> Result<Family, Box<dyn std::error::Error>> {
    let (report, reports) = ipc::channel()?;
    let (release, released) = ipc::channel()?;
    Ok((Process::spawn(parent, ((report, released), daemon, end))?, reports, release))
}

#[test]
fn daemon_ends_when_its_parent_is_killed() -> Outcome {
    let _watchdog = watchdog();
    let (parent, child, _release) = family(true, End::Wait)?;
    let pid = child.recv()?;
    parent.kill()?;
    assert_eq!(parent.join()?, Exit::Signal(9));
    // Only the daemon holds the other end.
    assert!(child.recv().is_err());
    wait_until(|| !runs(pid));
    Ok(())
}

#[test]
fn daemon_ends_when_its_parent_returns_or_aborts() -> Outcome {
    let _watchdog = watchdog();
    for (end, exit) in [(End::Return, Exit::Value(())), (End::Abort, Exit::Signal(6))] {
        let (parent, child, _release) = family(true, end)?;
        // The daemon may end before its first report.
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
fn child_outlives_its_killed_parent() -> Outcome {
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
    let (report, reports) = ipc::channel()?;
    let (release, released) = ipc::channel()?;
    let start = move || Builder::new().daemon(true).spawn(live, (report, released)).map(drop);
    thread::spawn(start).join().map_err(|_| "the thread panicked")??;
    let pid = reports.recv()?;
    release.send(())?;
    assert_eq!(reports.recv()?, pid);
    wait_until(|| !exists(pid));
    Ok(())
}
