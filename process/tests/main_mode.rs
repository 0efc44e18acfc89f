//! Programs with a `main` of their own: programs that call `init` as they should, and programs that do not.
//! Each test starts this program again in a role.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, reason = "programs print and exit")]

mod common;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use multiproc_process::{Builder, Exit, Process, SpawnError};

use common::{Outcome, OwnNamespace, run_tests, runs};

fn main() {
    match env::var("MAIN_MODE_ROLE").as_deref() {
        // In these roles, the child does not call `init`.
        Ok("never calls init") => never_calls_init(),
        Ok("forgets init") if env::var_os("MULTIPROC_CHILD").is_some() => forgotten(),
        Ok("stays without init") if env::var_os("MULTIPROC_CHILD").is_some() => {
            thread::sleep(Duration::from_secs(3600))
        }
        _ => {}
    }
    multiproc_process::init();
    match env::var("MAIN_MODE_ROLE").as_deref() {
        Ok("doubles") => println!("{:?}", doubled(21)),
        Ok("deletes itself") => {
            fs::remove_file(env::current_exe().expect("there is /proc")).expect("it is a copy");
            println!("{:?}", doubled(21));
        }
        Ok("speaks without a newline") => {
            println!("{:?}", Process::spawn(|()| print!("half a line "), ()).map(|child| child.join().ok()))
        }
        Ok("forgets init") => println!("{:?}", Process::spawn(double, 21).map(drop)),
        Ok("stays without init") => stays_without_init(),
        _ => run_tests(&[
            ("smoke", smoke),
            ("flushes_at_exit", flushes_at_exit),
            ("init_never_called", init_never_called),
            ("init_forgotten_by_the_child", init_forgotten_by_the_child),
            ("init_not_reached_in_time", init_not_reached_in_time),
            ("marker_without_a_control_socket_is_ignored", marker_without_a_control_socket_is_ignored),
            ("program_deleted_while_it_runs", program_deleted_while_it_runs),
            ("spawn_works_with_odd_directories", spawn_works_with_odd_directories),
            ("rendezvous_directories_of_killed_processes_are_removed", leftovers_are_removed),
            ("child_has_one_thread_and_no_extra_descriptors", child_has_one_thread_and_no_extra_descriptors),
        ])
        .leave(),
    }
}

fn double(number: u64) -> u64 {
    number * 2
}

fn doubled(number: u64) -> Result<Option<u64>, String> {
    let child = Process::spawn(double, number).map_err(|error| error.to_string())?;
    Ok(child.join().map_err(|error| error.to_string())?.value())
}

/// Runs a program in a role, and checks that its namespace is empty afterwards.
fn play(
    program: &Path,
    role: &str,
    namespace: &OwnNamespace,
    set: impl FnOnce(&mut Command),
) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.env("MAIN_MODE_ROLE", role).env("MULTIPROC_DIR", &namespace.0).stdin(Stdio::null());
    set(&mut command);
    let output = command.output()?;
    assert_eq!(namespace.entries(), [""; 0], "{output:?}");
    Ok(output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn play_here(role: &str) -> Result<String, Box<dyn std::error::Error>> {
    Ok(said(&play(&env::current_exe()?, role, &OwnNamespace::make(), |_| ())?))
}

fn smoke() -> Outcome {
    assert_eq!(play_here("doubles")?, "Ok(Some(42))\n");
    Ok(())
}

fn flushes_at_exit() -> Outcome {
    assert_eq!(play_here("speaks without a newline")?, "half a line Ok(Some(Value(())))\n");
    Ok(())
}

fn never_calls_init() {
    println!("{}", Process::spawn(double, 21).expect_err("there is no init"));
    process::exit(0);
}

fn init_never_called() -> Outcome {
    assert!(
        play_here("never calls init")?.starts_with("cannot start `fn(u64) -> u64`: call `multiproc::init()`")
    );
    Ok(())
}

/// A child that has not called `init` tries to start a child as well, as its `main` would do.
fn forgotten() {
    let refused = matches!(Process::spawn(double, 21), Err(SpawnError::NotInitialised { .. }));
    process::exit(if refused { 33 } else { 34 });
}

fn init_forgotten_by_the_child() -> Outcome {
    let answer = play_here("forgets init")?;
    assert!(
        answer.starts_with("Err(InitNotReached { pid: ") && answer.ends_with("code: Some(33) })\n"),
        "{answer}"
    );
    Ok(())
}

fn stays_without_init() {
    match Builder::new().start_timeout(Duration::from_millis(100)).spawn(double, 21) {
        Err(SpawnError::InitNotReached { pid, code: None }) if !runs(pid) => println!("as it should be"),
        other => println!("{other:?}"),
    }
}

fn init_not_reached_in_time() -> Outcome {
    assert_eq!(play_here("stays without init")?, "as it should be\n");
    Ok(())
}

/// A program may inherit the marker from a child that did not call `init`.
fn marker_without_a_control_socket_is_ignored() -> Outcome {
    let marker = format!("{}:{}", env!("CARGO_PKG_VERSION"), process::id());
    let output = play(&env::current_exe()?, "doubles", &OwnNamespace::make(), |program| {
        program.env("MULTIPROC_CHILD", marker);
    })?;
    assert_eq!(said(&output), "Ok(Some(42))\n");
    Ok(())
}

fn program_deleted_while_it_runs() -> Outcome {
    let namespace = OwnNamespace::make();
    let copy = PathBuf::from(format!("{}-copy", namespace.0.display()));
    fs::copy(env::current_exe()?, &copy)?;
    let output = play(&copy, "deletes itself", &namespace, |_| ());
    if copy.exists() {
        fs::remove_file(&copy)?;
    }
    assert_eq!(said(&output?), "Ok(Some(42))\n");
    Ok(())
}

fn spawn_works_with_odd_directories() -> Outcome {
    let program = env::current_exe()?;
    // No directory for temporary files.
    let output = play(&program, "doubles", &OwnNamespace::make(), |program| {
        program.env("TMPDIR", "/nowhere");
    })?;
    assert_eq!(said(&output), "Ok(Some(42))\n");
    // A path much longer than a socket's path may be.
    let outer = OwnNamespace::make();
    fs::create_dir(&outer.0)?;
    let inner = OwnNamespace(outer.0.join("x".repeat(200)));
    assert_eq!(said(&play(&program, "doubles", &inner, |_| ())?), "Ok(Some(42))\n");
    // A relative path.
    let output = play(&program, "doubles", &inner, |program| {
        program.env("MULTIPROC_DIR", "relative").current_dir(&outer.0);
    })?;
    assert_eq!(said(&output), "Ok(Some(42))\n");
    Ok(())
}

fn leftovers_are_removed() -> Outcome {
    let namespace = OwnNamespace::make();
    assert_eq!(said(&play(&env::current_exe()?, "doubles", &namespace, |_| ())?), "Ok(Some(42))\n");
    for number in 0..3 {
        let left = namespace.0.join(format!(".scratch-4194304-{number}"));
        fs::create_dir_all(left.join(".tmpabcdef"))?;
        fs::write(left.join(".tmpabcdef/socket"), "")?;
    }
    assert_eq!(said(&play(&env::current_exe()?, "doubles", &namespace, |_| ())?), "Ok(Some(42))\n");
    Ok(())
}

/// Beside the inherited descriptors, a child has the one for its result, and here the one that lists them.
fn child_has_one_thread_and_no_extra_descriptors() -> Outcome {
    let count = |directory: &str| fs::read_dir(directory).map_or(0, Iterator::count);
    let exit = Process::spawn(
        |directories: Vec<String>| {
            directories
                .iter()
                .map(|directory| fs::read_dir(directory).map_or(0, Iterator::count))
                .collect::<Vec<_>>()
        },
        vec!["/proc/self/task".to_owned(), "/proc/self/fd".to_owned()],
    )?;
    let Exit::Value(counts) = exit.join()? else { return Err("no value".into()) };
    assert_eq!(counts[0], 1);
    assert!(
        counts[1] <= common::inheritable_descriptors() + 2,
        "{counts:?}, {} here",
        count("/proc/self/fd")
    );
    Ok(())
}
