//! SIGKILL at each system call of a child on its way to its function, and at each system call of a parent
//! that spawns: the survivor gets its answer or ends, and nothing stays behind.
//!
//! This process is the tracer. It counts the stops before and after each system call of the victim, and kills
//! the victim at the n-th stop, for every n until the victim completes.
#![allow(unsafe_code, reason = "ptrace")]
#![allow(clippy::print_stdout, reason = "a test program prints its results")]

mod common;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use multiproc_process::{Builder, Exit, Process, SpawnError};

use common::{Outcome, OwnNamespace, open_descriptors, run_tests};

fn main() {
    multiproc_process::init();
    let namespace = OwnNamespace::make();
    // SAFETY: there is no other thread yet.
    unsafe { env::set_var("MULTIPROC_DIR", &namespace.0) };
    let code = run_tests(&[
        ("child_killed_at_each_system_call", child_killed_at_each_system_call),
        ("child_killed_with_large_arguments", child_killed_with_large_arguments),
        ("parent_of_a_daemon_killed_at_each_system_call", parent_of_a_daemon_killed),
        ("parent_of_a_child_killed_at_each_system_call", parent_of_a_child_killed),
    ]);
    drop(namespace);
    code.leave()
}

fn child_killed_at_each_system_call() -> Outcome {
    child_killed(1, None)
}

fn child_killed_with_large_arguments() -> Outcome {
    // More than a socket holds. The steps before the arguments are the same as in the test above.
    child_killed(1 << 20, Some(250))
}

/// Kills the child at each stop, or at each of the `last` stops.
fn child_killed(size: usize, last: Option<u32>) -> Outcome {
    let (go, wait) = ipc::channel()?;
    let (answer, answers) = ipc::channel()?;
    let parent = Process::spawn(spawn_on_demand, (wait, answer, size))?;
    let tracer = Tracer::seize(parent.pid(), Victim::Child)?;
    let spawn = |kill_at| {
        go.send(())?;
        let mut answer: Option<String> = None;
        let stops = tracer.run(kill_at, || {
            answer = answers.try_recv().ok();
            answer.is_some()
        })?;
        Ok::<_, Box<dyn std::error::Error>>((stops, answer.ok_or("the parent ended")?))
    };
    let mut counts = BTreeMap::new();
    let all = spawn(None)?.0;
    let first = last.map_or(1, |last| all.saturating_sub(last).max(1));
    let mut stops = all;
    for kill_at in first.. {
        let answer;
        (stops, answer) = spawn(Some(kill_at))?;
        if answer.starts_with("unexpected") {
            return Err(format!("killed at stop {kill_at}: {answer}").into());
        }
        *counts.entry(answer).or_insert(0) += 1;
        assert_eq!(namespace_entries(), [""; 0], "killed at stop {kill_at}");
        if stops < kill_at {
            break;
        }
    }
    println!(
        "child with {size} bytes of arguments: killed at each stop from {first} to {stops}; \
         its parent: {counts:?}"
    );
    assert!(stops > 100 && counts.len() == 3, "{counts:?}");
    drop(go);
    tracer.run(None, || false)?;
    Ok(())
}

/// Spawns on every message, and sends the result.
fn spawn_on_demand((go, answers, size): (IpcReceiver<()>, IpcSender<String>, usize)) {
    // As in programs that should end quietly when `head` closes their output. A write to a dead child must
    // not kill this process.
    // SAFETY: this is the default.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut descriptors = None;
    while go.recv().is_ok() {
        let answer = match Process::spawn(|bytes: Vec<u8>| bytes, vec![7; size]) {
            Err(SpawnError::Died { status, .. }) if status.signal() == Some(libc::SIGKILL) => {
                "it died before its function".to_owned()
            }
            Err(error) => format!("unexpected: {error:?}"),
            Ok(child) => match child.join() {
                Ok(Exit::Signal(libc::SIGKILL)) => "it died in its function".to_owned(),
                Ok(Exit::Value(bytes)) if bytes == vec![7; size] => "value".to_owned(),
                other => format!("unexpected: {other:?}").chars().take(200).collect(),
            },
        };
        // No error path leaves a descriptor open. The first spawn opens the namespace.
        let now = open_descriptors();
        let before = *descriptors.get_or_insert(now);
        let answer =
            if now == before { answer } else { format!("unexpected: {now} descriptors, not {before}") };
        if answers.send(answer).is_err() {
            break;
        }
    }
}

fn parent_of_a_daemon_killed() -> Outcome {
    parent_killed(true)
}

fn parent_of_a_child_killed() -> Outcome {
    parent_killed(false)
}

fn parent_killed(daemon: bool) -> Outcome {
    let mut stops = 0;
    for kill_at in 1.. {
        let (go, wait) = ipc::channel()?;
        let (_release, end) = ipc::channel()?;
        let parent = Process::spawn(spawn_once, (wait, daemon, end))?;
        let tracer = Tracer::seize(parent.pid(), Victim::Parent)?;
        go.send(())?;
        // Returns when both processes have ended, or fails.
        stops = tracer
            .run(Some(kill_at), || false)
            .map_err(|error| format!("killed at stop {kill_at}: {error}"))?;
        if stops < kill_at {
            break;
        }
    }
    println!("parent of a {}: killed at each of {stops} stops", if daemon { "daemon" } else { "child" });
    assert!(stops > 50, "{stops}");
    // If both were killed, they have left their directory: the next process that spawns removes it.
    Process::spawn(|()| Process::spawn(|()| (), ()).is_ok(), ())?.join()?;
    assert_eq!(namespace_entries(), [""; 0]);
    Ok(())
}

/// A child that is no daemon returns at once. A daemon waits, and ends only because its parent ends.
fn spawn_once((go, daemon, end): (IpcReceiver<()>, bool, IpcReceiver<()>)) {
    drop(go.recv());
    let function = if daemon { |end: IpcReceiver<()>| drop(end.recv()) } else { |_: IpcReceiver<()>| () };
    let child = Builder::new().daemon(daemon).spawn(function, end).expect("the child is not killed");
    if !daemon {
        drop(child.join());
    }
}

fn namespace_entries() -> Vec<String> {
    let directory = env::var_os("MULTIPROC_DIR").unwrap_or_default();
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Traces a process that spawns, and all its descendants.
struct Tracer {
    parent: libc::pid_t,
    victim: Victim,
}

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Parent,
    Child,
}

impl Tracer {
    fn seize(parent: u32, victim: Victim) -> io::Result<Self> {
        const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC;
        let parent = libc::pid_t::try_from(parent).map_err(io::Error::other)?;
        ptrace(libc::PTRACE_SEIZE, parent, OPTIONS)?;
        if victim == Victim::Parent {
            // A running process can be made to stop at system calls only after it has stopped for another
            // reason.
            ptrace(libc::PTRACE_INTERRUPT, parent, 0)?;
        }
        Ok(Self { parent, victim })
    }

    /// Lets the processes run until `done` or until none is left, and kills the victim at stop `kill_at`.
    /// Returns the number of stops.
    fn run(
        &self,
        kill_at: Option<u32>,
        mut done: impl FnMut() -> bool,
    ) -> Result<u32, Box<dyn std::error::Error>> {
        const HANGS: Duration = Duration::from_secs(20);
        let begun = Instant::now();
        let (mut stops, mut idle) = (0, 0);
        loop {
            let mut status = 0;
            // SAFETY: `status` may be written. This program has no other children than the parent and the
            // processes it traces.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
            if pid < 0 {
                let error = io::Error::last_os_error();
                return if error.raw_os_error() == Some(libc::ECHILD) {
                    Ok(stops)
                } else {
                    Err(error.into())
                };
            }
            if pid == 0 {
                if done() {
                    return Ok(stops);
                }
                if begun.elapsed() > HANGS {
                    return Err(self.give_up());
                }
                idle += 1;
                if idle < 1000 {
                    thread::yield_now()
                } else {
                    thread::sleep(Duration::from_micros(100))
                }
                continue;
            }
            idle = 0;
            if !libc::WIFSTOPPED(status) {
                continue;
            }
            let process = leader_of(pid);
            let is_victim = (process == self.parent) == (self.victim == Victim::Parent);
            let (event, signal) = (status >> 16, libc::WSTOPSIG(status));
            let at_system_call = event == 0 && signal == libc::SIGTRAP | 0x80;
            if at_system_call {
                stops += 1;
                if Some(stops) == kill_at {
                    kill(process);
                    continue;
                }
            }
            let resume = if is_victim { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
            // An error means that this program has killed the process meanwhile.
            let _ = ptrace(resume, pid, if at_system_call || event != 0 { 0 } else { signal });
        }
    }

    fn give_up(&self) -> Box<dyn std::error::Error> {
        let all = process_tree(process::id());
        for (pid, _) in &all {
            kill(*pid);
        }
        kill(self.parent);
        format!("it hangs: {all:?}").into()
    }
}

/// Returns all descendants, and the state and system call of each.
fn process_tree(root: u32) -> Vec<(libc::pid_t, String)> {
    let children = fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap_or_default();
    let mut all = Vec::new();
    for child in children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()) {
        let what = |file: &str| fs::read_to_string(format!("/proc/{child}/{file}")).unwrap_or_default();
        all.push((child.cast_signed(), format!("{} in {}", what("stat"), what("syscall"))));
        all.extend(process_tree(child));
    }
    all
}

fn leader_of(thread: libc::pid_t) -> libc::pid_t {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok()).unwrap_or(thread)
}

fn kill(process: libc::pid_t) {
    // SAFETY: no pointers. The process is a descendant, and its zombie has not been reaped.
    unsafe { libc::kill(process, libc::SIGKILL) };
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, data: libc::c_int) -> io::Result<()> {
    // SAFETY: none of the requests used here reads or writes this process's memory.
    let result =
        unsafe { libc::ptrace(request, pid, ptr::null_mut::<libc::c_void>(), libc::c_long::from(data)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
