//! Planted bugs, each found by the test named beside it.
//!
//! The bugs are in the product behind `--cfg multiproc_planted_bugs` and are switched on by name, one process
//! each: `MULTIPROC_PLANTED_BUG=MissingWake`. This program, built without them, starts the one built with
//! them (`KILLSTEP_ZOO`) for each. The one bug that takes three living processes and no death is planted in
//! the model of the lock (`KILLSTEP_MODELS`).

use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use multiproc::{Capacity, GetError, Queue, Value};
use multiproc_killstep::{Args, Case, Mode, Sweep};

use crate::{
    arrays, barriers, conditions, events, jobs, locks, members, owned, rwlocks, semaphores, support, values,
    words,
};

/// Bug, what finds it, and how: a case with this name, or a test below.
const BUGS: &[(&str, &str, Hunt)] = &[
    ("MissingWake", "lock/unlock, two asleep", Hunt::Cases),
    ("WakeBeforeStore", "raw_event/set, heard", Hunt::Cases),
    ("PendingAfterCas", "lock/lock+unlock", Hunt::Cases),
    ("NonRobust", "lock/lock+unlock", Hunt::Cases),
    ("TwoStoreCommit", "value/set", Hunt::Cases),
    ("WriterUnsigned", "array/fill", Hunt::Cases),
    ("RecoveryWithoutPending", "lock/lock+unlock", Hunt::Only(Mode::Double)),
    ("StoppedTakenForDead", "lock/lock+unlock", Hunt::Only(Mode::Freeze)),
    ("NoLivenessPoll", "lock/lock+unlock", Hunt::Only(Mode::Missed)),
    ("PendingClearedBeforeWake", "event/set, two asleep", Hunt::Cases),
    ("WokenNotifiesNone", "event/set, two asleep", Hunt::Cases),
    ("CountedBeforeSigned", "barrier/wait, the last of three", Hunt::Cases),
    ("DeathNotifiedToOne", "barrier/wait, the last of three", Hunt::Cases),
    ("NotifiedUpToWithoutWaitersBit", "condition/notify_one, two wait", Hunt::Cases),
    ("DeadNotificationForgotten", "condition/wait, notified, another waits", Hunt::Cases),
    ("MutexWithoutLook", "semaphore/acquire, asleep in the mutex", Hunt::Only(Mode::Freeze)),
    ("PermitsWithoutLivenessPoll", "semaphore/acquire+release", Hunt::Only(Mode::Missed)),
    ("SignedTooEarly", "rwlock/write, asleep for a reader", Hunt::Cases),
    ("SignatureClearedLate", "rwlock/write+unlock", Hunt::Only(Mode::Freeze)),
    ("OwnerThreadWithoutPending", "owned/acquire_owned+release", Hunt::Cases),
    ("LeasedBeforeHead", "jobs/get", Hunt::Cases),
    ("LeasesUnwatched", "jobs/task_done, another sleeps", Hunt::Cases),
    ("HalfMovedUnseen", "jobs/get, dead-letters the last, one joins", Hunt::Cases),
    ("DisconnectNotNotified", "queue/producer, two consumers asleep", Hunt::Cases),
    ("NextMemberUnwatched", "queue/consumer, two producers asleep", Hunt::Cases),
    (
        "LengthReadTwice",
        "planted_bugs.rs: lengths that change under the reader",
        Hunt::Test(length_changes, true),
    ),
    (
        "UnlinkWithoutInode",
        "planted_bugs.rs: the last user of a name that is another's by now",
        Hunt::Test(name_changes_hands, false),
    ),
];

/// The bug that is planted in the model of the lock.
const MODEL_BUG: &str = "ClearIgnoresEpoch";
/// Far longer than any hunt takes.
const LONGEST_HUNT: Duration = Duration::from_secs(300);

enum Hunt {
    Cases,
    /// By this mode of the case, and not by single kills.
    Only(Mode),
    /// Tells whether it found something wrong. With `true` its processes race on several CPUs, so that it
    /// must run alone.
    Test(fn() -> bool, bool),
}

/// In the driver: every bug in a process of its own.
pub(crate) fn all(sweep: &mut Sweep) {
    let program = std::env::var("KILLSTEP_PLANTED").unwrap_or_default();
    for (bug, finder, hunt) in BUGS {
        let test =
            if let Hunt::Only(mode) = hunt { format!("{finder}, mode {mode}") } else { (*finder).to_owned() };
        sweep.hunt(bug, &test, matches!(hunt, Hunt::Test(_, true)), || {
            let mut command = Command::new(&program);
            command
                .env("MULTIPROC_PLANTED_BUG", bug)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().is_ok_and(|mut hunter| found_in_time(&mut hunter))
        });
    }
    let models = std::env::var("KILLSTEP_MODELS").unwrap_or_default();
    sweep.hunt(MODEL_BUG, "models: the lock without an epoch", false, || {
        let model = Command::new(&models)
            .args(["lock", MODEL_BUG])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        model.is_ok_and(|status| status.success())
    });
}

/// Whether a hunt found its bug. A hunt that has not ended by then hangs in the bug, unnoticed: it has found
/// nothing.
fn found_in_time(hunter: &mut Child) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < LONGEST_HUNT {
        match hunter.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(Some(status)) => return status.code() == Some(1),
            Err(_) => break,
        }
    }
    let _ = hunter.kill();
    let _ = hunter.wait();
    false
}

/// In the process with one bug: exit code 1 if something was found.
pub(crate) fn one(bug: &str, args: &Args) -> ExitCode {
    let Some((_, finder, hunt)) = BUGS.iter().find(|(name, ..)| *name == bug) else {
        return ExitCode::from(2);
    };
    if let Hunt::Test(test, _) = hunt {
        return ExitCode::from(u8::from(test()));
    }
    // Each case is swept until something is found.
    let found = |mode| {
        let mut args = args.clone();
        (args.only, args.planted, args.workers) = (Some((*finder).to_owned()), true, None);
        let mut sweep = Sweep::new(args);
        hunt_in(&mut sweep, bug, mode, &locks::cases());
        hunt_in(&mut sweep, bug, mode, &values::cases());
        hunt_in(&mut sweep, bug, mode, &arrays::cases());
        hunt_in(&mut sweep, bug, mode, &words::cases());
        hunt_in(&mut sweep, bug, mode, &semaphores::cases());
        hunt_in(&mut sweep, bug, mode, &owned::cases());
        hunt_in(&mut sweep, bug, mode, &conditions::cases());
        hunt_in(&mut sweep, bug, mode, &rwlocks::cases());
        hunt_in(&mut sweep, bug, mode, &events::cases());
        hunt_in(&mut sweep, bug, mode, &barriers::cases());
        hunt_in(&mut sweep, bug, mode, &jobs::cases());
        hunt_in(&mut sweep, bug, mode, &members::cases());
        sweep.report().planted.iter().any(|planted| planted.found)
    };
    let verdict = match hunt {
        Hunt::Only(_) if found(Mode::Kill) => 3,
        Hunt::Only(mode) => u8::from(found(*mode)),
        _ => u8::from(found(Mode::Kill)),
    };
    ExitCode::from(verdict)
}

fn hunt_in<S>(sweep: &mut Sweep, bug: &str, mode: Mode, cases: &[Case<'static, S>]) {
    for case in cases {
        if !sweep.report().planted.iter().any(|planted| planted.found) {
            sweep.planted_bug(bug, mode, case);
        }
    }
}

/// A peer rewrites every header of a log again and again, on another CPU; a reader must never believe a
/// length that it did not check.
fn length_changes() -> bool {
    support::all_cpus();
    let begin = Instant::now();
    let mut wrong = false;
    while !wrong && begin.elapsed() < Duration::from_secs(5) {
        wrong = lengths_that_change();
    }
    wrong
}

/// One such log, read to its end: behind the last word that the peer rewrites there is nothing, and a new log
/// is needed.
fn lengths_that_change() -> bool {
    const LOG: usize = 4096;
    const LIE: u64 = 4800;
    let name = format!("planted-{}", std::process::id());
    let queue: Queue<[u8]> = Queue::create(&name, Capacity::messages(2).bytes(LOG)).unwrap();
    queue.put_bytes(b"12345678").unwrap();
    let path = multiproc::shm::Namespace::current().unwrap().path().join(&name);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    // SAFETY: this program has one thread.
    let scribbler = unsafe { libc::fork() };
    if scribbler == 0 {
        // The log lies behind the segment's header (1,024 B) and the two sides (256 B).
        const START: usize = 1280;
        let (protection, length) = (libc::PROT_READ | libc::PROT_WRITE, START + LOG);
        // SAFETY: a new mapping of a file that is long enough.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        loop {
            for lie in [9, LIE + 1] {
                for record in (0..LOG).step_by(16) {
                    let word = memory.cast::<u8>().wrapping_add(START + record).cast::<u64>();
                    // SAFETY: an aligned word inside the mapping.
                    unsafe { word.write_volatile(lie) };
                }
            }
        }
    }
    let mut wrong = false;
    let mut message = Vec::with_capacity(2 * LOG);
    loop {
        match queue.get_into_timeout(&mut message, Duration::from_millis(100)) {
            // At most as much as can be there.
            Ok(()) if message.len() <= LOG => {}
            Ok(()) => {
                wrong = true;
                break;
            }
            Err(GetError::Empty) => break,
            // An impossible length: the peer is about to write another.
            Err(_) => {}
        }
    }
    // SAFETY: our own child.
    unsafe { libc::kill(scribbler, libc::SIGKILL) };
    let mut status = 0;
    // SAFETY: as above.
    unsafe { libc::waitpid(scribbler, &raw mut status, 0) };
    wrong
}

/// A name is unlinked and made anew; a process that drops the old object must not remove the new object's
/// name.
fn name_changes_hands() -> bool {
    let name = format!("planted-{}", std::process::id());
    let old = Value::create(&name, 1_u64).unwrap();
    Value::<u64>::unlink(&name).unwrap();
    let new = Value::create(&name, 2_u64).unwrap();
    drop(old);
    let lost = Value::<u64>::open(&name).is_err();
    drop(new);
    lost
}
