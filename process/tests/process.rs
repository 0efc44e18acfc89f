//! A process and its handle, from `spawn` to the end, under libtest.

mod common;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{self, Read as _};
use std::panic;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcReceiver, IpcSender, IpcSharedMemory};
use multiproc_process::{Builder, Exit, JoinError, Process};

use common::{LONG, Outcome, exists, inheritable_descriptors, open_descriptors, wait_until, watchdog};

multiproc_process::test_support!();

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

#[test]
fn value_is_returned() -> Outcome {
    let _watchdog = watchdog();
    let process = Process::spawn(add, (20, 22))?;
    assert_ne!(process.pid(), process::id());
    assert_eq!(process.join()?, Exit::Value(42));
    Ok(())
}

fn add((a, b): (u64, u64)) -> u64 {
    a + b
}

#[test]
fn closure_that_captures_nothing_can_be_spawned() -> Outcome {
    let _watchdog = watchdog();
    let process = Process::spawn(|text: String| text.len(), "hello".to_owned())?;
    assert_eq!(process.join()?.value(), Some(5));
    Ok(())
}

#[test]
fn value_is_returned_once() -> Outcome {
    let _watchdog = watchdog();
    let process = Process::spawn(add, (1, 2))?;
    assert_eq!(process.join()?, Exit::Value(3));
    assert!(matches!(process.join(), Err(JoinError::ValueTaken { pid }) if pid == process.pid()));
    Ok(())
}

#[test]
fn panic_is_returned_with_message_and_location() -> Outcome {
    let _watchdog = watchdog();
    let line = line!() + 1;
    let process = Process::spawn(|number: u32| -> u32 { panic!("{number} is too much") }, 7)?;
    let expected: Exit<u32> =
        Exit::Panic { message: "7 is too much".to_owned(), location: Some(format!("{}:{line}:57", file!())) };
    assert_eq!(process.join()?, expected);
    // Unlike a value it is returned again.
    assert_eq!(process.join()?, expected);
    Ok(())
}

#[test]
fn panic_without_text_or_resumed_is_returned() -> Outcome {
    let _watchdog = watchdog();
    let process = Process::<()>::spawn(|()| panic::panic_any(7_u8), ())?;
    let Exit::Panic { message, location: Some(_) } = process.join()? else { return Err("no panic".into()) };
    assert_eq!(message, "a value that is no text");
    // The hook saw another panic, whose location would be wrong.
    let process = Process::spawn(
        |()| {
            drop(panic::catch_unwind(|| panic!("caught")));
            panic::resume_unwind(Box::new("resumed"))
        },
        (),
    )?;
    assert_eq!(process.join()?, Exit::<()>::Panic { message: "resumed".to_owned(), location: None });
    Ok(())
}

#[test]
fn panic_of_another_thread_is_not_returned() -> Outcome {
    let _watchdog = watchdog();
    let process = Process::spawn(|()| thread::spawn(|| panic!("elsewhere")).join().is_err(), ())?;
    assert_eq!(process.join()?, Exit::Value(true));
    Ok(())
}

#[test]
fn exit_code_is_returned() -> Outcome {
    let _watchdog = watchdog();
    for code in [0, 1, 7, 255] {
        let process = Process::spawn(leave, code)?;
        assert_eq!(process.join()?, Exit::Code(code));
        assert_eq!(process.join()?, Exit::Code(code));
    }
    Ok(())
}

#[allow(clippy::exit, reason = "the test is about exit codes")]
fn leave(code: i32) {
    process::exit(code)
}

#[test]
fn signal_is_returned() -> Outcome {
    let _watchdog = watchdog();
    let process = Process::<()>::spawn(|()| process::abort(), ())?;
    assert_eq!(process.join()?, Exit::<()>::Signal(SIGABRT));
    Ok(())
}

#[test]
fn large_argument_and_result_arrive() -> Outcome {
    let _watchdog = watchdog();
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|i| i.to_le_bytes()[1]).collect();
    let process = Process::spawn(
        |mut bytes: Vec<u8>| {
            bytes.reverse();
            bytes
        },
        bytes.clone(),
    )?;
    // The child ends before its parent reads the result.
    wait_until(|| !process.is_alive());
    let returned = process.join()?.value().ok_or("no value")?;
    assert!(returned.iter().eq(bytes.iter().rev()));
    Ok(())
}

#[test]
fn sizes_around_the_limit_of_a_message_arrive() -> Outcome {
    let _watchdog = watchdog();
    for length in [0, 1, 16_379, 16_380, 16_381, 16_382, 16_383, 16_384, 16_385, 70_000, 212_992, 300_000] {
        let process = Process::spawn(|bytes: Vec<u8>| bytes, vec![7; length])?;
        assert_eq!(process.join()?, Exit::Value(vec![7; length]));
    }
    Ok(())
}

#[test]
fn join_timeout_waits_no_longer_than_its_timeout() -> Outcome {
    let _watchdog = watchdog();
    let (release, wait) = ipc::channel::<u32>()?;
    let process = Process::spawn(wait_for, wait)?;
    let before = Instant::now();
    let timeout = Duration::from_millis(50);
    assert_eq!(process.join_timeout(timeout)?, None);
    assert!(before.elapsed() >= timeout);
    release.send(7)?;
    assert_eq!(process.join_timeout(Duration::MAX)?, Some(Exit::Value(7)));
    assert!(matches!(process.join_timeout(LONG), Err(JoinError::ValueTaken { .. })));
    Ok(())
}

/// Returns the message that it receives.
fn wait_for(receiver: IpcReceiver<u32>) -> u32 {
    receiver.recv().unwrap_or(u32::MAX)
}

#[test]
fn try_join_and_is_alive_do_not_wait() -> Outcome {
    let _watchdog = watchdog();
    let (release, wait) = ipc::channel::<u32>()?;
    let process = Process::spawn(wait_for, wait)?;
    assert_eq!(process.try_join()?, None);
    assert!(process.is_alive());
    release.send(1)?;
    wait_until(|| !process.is_alive());
    assert_eq!(process.try_join()?, Some(Exit::Value(1)));
    assert!(!process.is_alive());
    Ok(())
}

#[test]
fn terminate_sends_sigterm() -> Outcome {
    let _watchdog = watchdog();
    let (_release, wait) = ipc::channel::<u32>()?;
    let process = Process::spawn(wait_for, wait)?;
    process.terminate()?;
    assert_eq!(process.join()?, Exit::Signal(SIGTERM));
    Ok(())
}

#[test]
fn kill_sends_sigkill() -> Outcome {
    let _watchdog = watchdog();
    let (_release, wait) = ipc::channel::<u32>()?;
    let process = Process::spawn(wait_for, wait)?;
    process.kill()?;
    assert_eq!(process.join()?, Exit::Signal(SIGKILL));
    // And again, after the process has ended.
    process.kill()?;
    process.terminate()?;
    assert_eq!(process.join()?, Exit::Signal(SIGKILL));
    Ok(())
}

#[test]
fn kill_ends_joins_of_other_threads() -> Outcome {
    let _watchdog = watchdog();
    let (_release, wait) = ipc::channel::<u32>()?;
    let process = Process::spawn(wait_for, wait)?;
    thread::scope(|scope| {
        let joins: Vec<_> = (0..3).map(|_| scope.spawn(|| process.join())).collect();
        process.kill()?;
        for join in joins {
            assert!(matches!(join.join(), Ok(Ok(Exit::Signal(SIGKILL)))));
        }
        Ok(())
    })
}

#[test]
fn value_that_was_sent_counts_though_the_child_is_killed() -> Outcome {
    let _watchdog = watchdog();
    // The child's function returns, and a thread-local's destructor delays the exit. Or the child is killed
    // before that: either way the value is sent.
    let (sent, is_sent) = ipc::channel::<()>()?;
    let process = Process::spawn(
        |sent: IpcSender<()>| {
            LAST_WORDS.set(Some(sent));
            7_u32
        },
        sent,
    )?;
    // Both are legal: the exit handlers ran, or the channel closed with the process.
    drop(is_sent.recv());
    process.kill()?;
    assert_eq!(process.join()?, Exit::Value(7));
    Ok(())
}

thread_local! {
    static LAST_WORDS: std::cell::Cell<Option<IpcSender<()>>> = const { std::cell::Cell::new(None) };
}

#[test]
fn fifty_children_run_at_once() -> Outcome {
    let _watchdog = watchdog();
    let mut processes = Vec::new();
    let mut releases = Vec::new();
    for _ in 0..50 {
        let (release, wait) = ipc::channel::<u32>()?;
        processes.push(Process::spawn(wait_for, wait)?);
        releases.push(release);
    }
    assert_eq!(processes.iter().map(Process::pid).collect::<HashSet<_>>().len(), 50);
    assert!(processes.iter().all(Process::is_alive));
    for (number, release) in (0..).zip(&releases) {
        release.send(number)?;
    }
    for (number, process) in (0..).zip(&processes) {
        assert_eq!(process.join()?, Exit::Value(number));
    }
    Ok(())
}

#[test]
fn fifty_threads_spawn_at_once() -> Outcome {
    let _watchdog = watchdog();
    thread::scope(|scope| {
        let add_one = |number| move || Process::spawn(add, (number, 1))?.join().map_err(|error| error.into());
        let threads: Vec<_> = (0..50).map(|number| scope.spawn(add_one(number))).collect();
        for (number, thread) in (0..).zip(threads) {
            let exit: Result<Exit<u64>, Box<dyn std::error::Error + Send + Sync>> =
                thread.join().map_err(|_| "a thread panicked")?;
            assert_eq!(exit.map_err(|error| error.to_string())?, Exit::Value(number + 1));
        }
        Ok(())
    })
}

#[test]
fn children_spawn_children() -> Outcome {
    let _watchdog = watchdog();
    let exit = Process::spawn(descend, 4)?.join()?;
    let Exit::Value(chain) = exit else { return Err(format!("{exit:?}").into()) };
    assert_eq!(chain.len(), 5);
    // Each is the parent of the next.
    assert_eq!(chain[0].0, process::id());
    assert!(chain.windows(2).all(|pair| pair[0].1 == pair[1].0), "{chain:?}");
    Ok(())
}

/// Spawns a chain of descendants; returns the parent's and its own process id of each.
fn descend(further: u32) -> Vec<(u32, u32)> {
    let mut chain = vec![(multiproc_process::parent_pid().unwrap_or(0), process::id())];
    if further > 0 {
        match Process::spawn(descend, further - 1).map(|child| child.join()) {
            Ok(Ok(Exit::Value(rest))) => chain.extend(rest),
            other => panic!("{other:?}"),
        }
    }
    chain
}

#[test]
fn descriptors_do_not_accumulate() -> Outcome {
    let _watchdog = watchdog();
    // In a process of its own: here the other tests open descriptors.
    let exit = Process::spawn(
        |()| {
            // The first spawn opens the namespace, which stays open.
            drop(Process::spawn(add, (1, 1)).expect("it starts").join());
            let before = open_descriptors();
            let mut counts = Vec::new();
            let mut children = Vec::new();
            for _ in 0..20 {
                let child = Process::spawn(|()| open_descriptors(), ()).expect("it starts");
                counts.push(child.join().expect("it ends").value().expect("it counts"));
                let (release, wait) = ipc::channel::<u32>().expect("there are descriptors");
                children
                    .push((release, Builder::new().daemon(true).spawn(wait_for, wait).expect("it starts")));
            }
            let alive = children.len();
            for (release, child) in children {
                release.send(0).expect("it waits");
                child.join().expect("it ends");
            }
            (counts, before, alive, inheritable_descriptors(), open_descriptors())
        },
        (),
    )?;
    let (counts, before, alive, inheritable, after) = exit.join()?.value().ok_or("no value")?;
    assert_eq!(alive, 20);
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    // Standard input, output and error, what `cargo` or the shell has left open, and the channel for the
    // result.
    assert_eq!(counts[0], inheritable + 1);
    assert_eq!(before, after);
    Ok(())
}

#[test]
fn child_dropped_while_alive_goes_on_and_leaves_no_zombie() -> Outcome {
    let _watchdog = watchdog();
    let (answer, answers) = ipc::channel::<u32>()?;
    let (release, wait) = ipc::channel::<u32>()?;
    let process = Process::spawn(
        |(wait, answer): (IpcReceiver<u32>, IpcSender<u32>)| answer.send(wait_for(wait)).is_ok(),
        (wait, answer),
    )?;
    let pid = process.pid();
    drop(process);
    assert!(exists(pid));
    release.send(7)?;
    assert_eq!(answers.recv()?, 7);
    wait_until(|| !exists(pid));
    Ok(())
}

#[test]
fn child_dropped_after_its_end_leaves_no_zombie() -> Outcome {
    let _watchdog = watchdog();
    for _ in 0..10 {
        let process = Process::spawn(add, (1, 1))?;
        wait_until(|| !process.is_alive());
        let pid = process.pid();
        assert!(exists(pid));
        drop(process);
        assert!(!exists(pid));
    }
    Ok(())
}

#[test]
fn many_dropped_children_leave_no_zombies() -> Outcome {
    let _watchdog = watchdog();
    let pids: Vec<u32> = (0..20)
        .map(|_| Process::spawn(add, (1, 1)).map(|process| process.pid()))
        .collect::<Result<_, _>>()?;
    wait_until(|| !pids.iter().any(|pid| exists(*pid)));
    Ok(())
}

#[test]
fn channels_and_shared_memory_arrive() -> Outcome {
    type Arguments = (IpcSender<IpcSharedMemory>, IpcReceiver<u32>, IpcSharedMemory, Vec<u8>);
    let _watchdog = watchdog();
    let (sender, memory_from_child) = ipc::channel()?;
    let (to_child, receiver) = ipc::channel()?;
    let process = Process::spawn(
        |(sender, receiver, memory, large): Arguments| {
            let (back, from_child) = ipc::channel::<u32>().expect("there are descriptors");
            back.send(receiver.recv().expect("the parent sends")).expect("this process holds the other end");
            sender
                .send(IpcSharedMemory::from_bytes(&[&memory, &large[..3]].concat()))
                .expect("the parent listens");
            from_child
        },
        (sender, receiver, IpcSharedMemory::from_bytes(b"abc"), vec![b'd'; 100_000]),
    )?;
    to_child.send(7)?;
    assert_eq!(&memory_from_child.recv()?[..], b"abcddd");
    let from_child = process.join()?.value().ok_or("no value")?;
    assert_eq!(from_child.recv()?, 7);
    // The child had the only sender.
    assert!(from_child.recv().is_err());
    Ok(())
}

#[test]
fn child_has_the_documented_environment() -> Outcome {
    let _watchdog = watchdog();
    let process = Builder::new().name("a name of its own").spawn(
        |()| {
            let mut input = Vec::new();
            let read = io::stdin().read_to_end(&mut input).map_err(|error| error.to_string());
            let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
            let line = |key: &str| {
                status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
            };
            (
                read,
                env::args().next(),
                env::current_dir().ok(),
                env::vars().collect::<Vec<_>>(),
                line("SigBlk:"),
                fs::read_to_string("/proc/thread-self/comm").unwrap_or_default(),
                multiproc_process::name().map(str::to_owned),
                multiproc_process::parent_pid(),
            )
        },
        (),
    )?;
    assert_eq!(process.name(), Some("a name of its own"));
    let (input, program, directory, variables, mask, title, name, parent) =
        process.join()?.value().ok_or("no value")?;
    assert_eq!(input, Ok(0));
    assert_eq!(program, env::args().next());
    assert_eq!(directory, Some(env::current_dir()?));
    assert_eq!(variables.into_iter().collect::<HashSet<_>>(), env::vars().collect::<HashSet<_>>());
    assert_eq!(mask.trim_start_matches('0'), "");
    assert_eq!(title, "a name of its o\n");
    assert_eq!(name.as_deref(), Some("a name of its own"));
    assert_eq!(parent, Some(process::id()));
    Ok(())
}
