//! Processes that cannot be started, results that cannot be returned, and the text of each error.
#![allow(
    unsafe_code,
    reason = "a C function where a Rust one is expected, and signals as a C program sets them"
)]

mod common;

use std::fs::{self, File};
use std::iter;
use std::os::fd::AsRawFd as _;
use std::process;
use std::ptr;
use std::time::Duration;

use ipc_channel::ipc;
use multiproc_process::{Builder, Exit, JoinError, Process, SpawnError};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use common::{Outcome, open_descriptors, watchdog};

multiproc_process::test_support!();

#[test]
#[expect(clippy::disallowed_methods, reason = "no safe cast makes a Rust function of a C function")]
fn function_of_a_shared_library_is_refused() {
    let _watchdog = watchdog();
    // SAFETY: it is never called; on this platform it could be.
    let abs = unsafe { std::mem::transmute::<*const (), fn(i32) -> i32>(libc::abs as *const ()) };
    let error = Process::spawn(abs, -7).expect_err("a child could not find it");
    assert!(matches!(error, SpawnError::OutsideImage { function: "fn(i32) -> i32" }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "cannot start `fn(i32) -> i32`: it lies outside of the main program; \
         wrap it in a function of your own"
    );
}

/// A value whose (de)serialisation fails at the given place.
#[derive(Debug, PartialEq)]
struct Picky(Where);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Where {
    Nowhere,
    Serialising,
    Deserialising,
    PanicsDeserialising,
}

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == Where::Serialising {
            Err(S::Error::custom("on purpose"))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Where::deserialize(deserializer)? {
            Where::Deserialising => Err(D::Error::custom("on purpose")),
            Where::PanicsDeserialising => panic!("on purpose"),
            other => Ok(Self(other)),
        }
    }
}

#[test]
fn arguments_that_do_not_serialise_are_an_error() -> Outcome {
    let _watchdog = watchdog();
    for (at, word) in [
        (Where::Serialising, "cannot be serialised"),
        (Where::Deserialising, "cannot be deserialised"),
        (Where::PanicsDeserialising, "on purpose"),
    ] {
        let error = Process::spawn(|_: Picky| (), Picky(at)).expect_err("they do not serialise");
        assert!(
            matches!(&error, SpawnError::Arguments { message, .. } if message.contains(word)),
            "{error:?}"
        );
        assert!(error.to_string().starts_with("arguments of `fn(failures::Picky)`: "), "{error}");
    }
    assert_eq!(Process::spawn(|_: Picky| 7, Picky(Where::Nowhere))?.join()?, Exit::Value(7));
    Ok(())
}

#[test]
fn result_that_does_not_serialise_is_an_error() -> Outcome {
    let _watchdog = watchdog();
    for at in [Where::Serialising, Where::Deserialising, Where::PanicsDeserialising] {
        let process = Process::spawn(Picky, at)?;
        // Every `join` returns the error.
        for _ in 0..2 {
            let error = process.join().expect_err("it does not serialise");
            assert!(matches!(&error, JoinError::Result { pid, .. } if *pid == process.pid()), "{error:?}");
        }
    }
    assert_eq!(Process::spawn(Picky, Where::Nowhere)?.join()?, Exit::Value(Picky(Where::Nowhere)));
    Ok(())
}

#[test]
fn types_that_need_a_self_describing_format_are_an_error() {
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u32),
    }
    let _watchdog = watchdog();
    let error = Process::spawn(|Untagged::Number(number)| number, Untagged::Number(7))
        .expect_err("postcard's format does not name types");
    // postcard's message about `deserialize_any`.
    assert!(error.to_string().contains("never implement"), "{error}");
}

#[test]
fn start_timeout_of_zero_is_an_error() {
    let _watchdog = watchdog();
    let error = Builder::new()
        .start_timeout(Duration::ZERO)
        .spawn(|()| (), ())
        .expect_err("no child starts that fast");
    assert!(matches!(error, SpawnError::InitNotReached { code: None, .. }), "{error:?}");
    assert!(error.to_string().contains("still ran"), "{error}");
}

#[test]
fn lost_exit_status_is_an_error_but_a_result_is_not_lost() -> Outcome {
    let _watchdog = watchdog();
    // In a process of its own: the whole program ignores SIGCHLD.
    let process = Process::spawn(
        |()| {
            // SAFETY: ignoring a signal is always allowed.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let value = matches!(start(|number: u32| number, 7).join(), Ok(Exit::Value(7)));
            let panic =
                matches!(start::<u32, ()>(|number| panic!("{number}"), 7).join(), Ok(Exit::Panic { .. }));
            let lost = start(leave, 3);
            let lost = matches!(lost.join(), Err(JoinError::StatusLost { pid }) if pid == lost.pid());
            (value, panic, lost)
        },
        (),
    )?;
    assert_eq!(process.join()?, Exit::Value((true, true, true)));
    Ok(())
}

#[allow(clippy::exit, reason = "the test is about exit codes")]
fn leave(code: i32) {
    process::exit(code)
}

fn start<A, R>(function: fn(A) -> R, args: A) -> Process<R>
where
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    Process::spawn(function, args).expect("it starts")
}

#[test]
fn spawn_without_descriptors_fails_and_leaves_nothing() -> Outcome {
    fn limit(soft: libc::rlim_t) {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: 1024 };
        // SAFETY: the structure is valid.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    }
    let _watchdog = watchdog();
    // In a process of its own: the whole program runs out of descriptors.
    let process = Process::spawn(
        |()| {
            let large = || vec![7_u8; 100_000];
            // The limit is on descriptor numbers, and this process may have inherited some with gaps below.
            let highest = fs::read_dir("/proc/self/fd").expect("there are descriptors").flatten();
            let highest =
                highest.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max().unwrap_or(0);
            let null = || File::open("/dev/null").expect("there are descriptors");
            let _fill: Vec<File> =
                iter::repeat_with(null).take_while(|file| file.as_raw_fd() < highest).collect();
            let before = open_descriptors();
            let mut failed = 0;
            for more in 0..24 {
                limit(libc::rlim_t::try_from(before + more).expect("they are few"));
                // A child has the same limit, and needs fewer descriptors than this process.
                match Process::spawn(|bytes: Vec<u8>| bytes.len(), large()) {
                    Ok(child) => assert!(child.join().is_ok()),
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        failed += 1;
                    }
                }
            }
            limit(1024);
            let child =
                Process::spawn(|bytes: Vec<u8>| bytes.len(), large()).expect("there are descriptors again");
            let length = child.join().ok().and_then(Exit::value);
            drop(child);
            let namespace = multiproc_shm::Namespace::current().expect("there are descriptors again");
            let ours = format!(".scratch-{}-", process::id());
            let left = fs::read_dir(namespace.path()).expect("it is there").flatten();
            let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)).count();
            (failed, length, open_descriptors() - before, left)
        },
        (),
    )?;
    let Exit::Value((failed, length, more, left)) = process.join()? else { return Err("no value".into()) };
    assert!(failed > 3, "{failed}");
    assert_eq!(length, Some(100_000));
    // Only the namespace stays open.
    assert!(more <= 1, "{more} more are open");
    assert_eq!(left, 0);
    Ok(())
}

#[test]
fn signals_blocked_by_the_parent_are_not_blocked_in_the_child() -> Outcome {
    let _watchdog = watchdog();
    let change = |how, set: &libc::sigset_t| {
        // SAFETY: the set is valid.
        unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) };
    };
    // SAFETY: all zero is a valid set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set may be written.
    unsafe { libc::sigfillset(&raw mut set) };
    change(libc::SIG_BLOCK, &set);
    let (_release, wait) = ipc::channel::<u32>()?;
    let process = Process::spawn(|wait: ipc::IpcReceiver<u32>| wait.recv().unwrap_or(0), wait)?;
    change(libc::SIG_UNBLOCK, &set);
    process.terminate()?;
    assert_eq!(process.join()?, Exit::Signal(libc::SIGTERM));
    Ok(())
}
