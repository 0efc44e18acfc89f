//! What the tests of the queue share: messages that prove themselves, and a look at what other processes are doing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use multiproc::shm::{Namespace, gc};
use multiproc::{AtomicValue, Queue};

use crate::common::{self, Dice, signal, wait_for, wait_until};

/// Ends the program if the test hangs, and clears away what its killed processes could not: declare it first, so that it goes last.
#[must_use]
pub(crate) fn watchdog() -> impl Sized {
    struct Sweep;
    impl Drop for Sweep {
        fn drop(&mut self) {
            assert!(gc().is_ok() || std::thread::panicking());
        }
    }
    (Sweep, common::watchdog())
}

/// The message with this number of this producer: its length and each byte follow from the two.
pub(crate) fn message(producer: u32, number: u32) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(producer) << 32 | u64::from(number));
    let mut bytes = [producer.to_le_bytes(), number.to_le_bytes()].concat();
    let length = 8 + usize::try_from(dice.below(200)).unwrap();
    while bytes.len() < length {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Producer and number of a message.
///
/// # Panics
///
/// If it is torn.
pub(crate) fn read(bytes: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (producer, number) = (number(0), number(4));
    assert_eq!(bytes, message(producer, number), "torn");
    (producer, number)
}

/// The state letters of all threads of a process.
fn states(pid: u32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit(") ").next()?.chars().next()).collect()
}

/// Whether all threads of a process sleep.
pub(crate) fn sleeps(pid: u32) -> bool {
    let states = states(pid);
    !states.is_empty() && states.iter().all(|state| *state == 'S')
}

/// Waits until a child has come so far, and then sleeps.
pub(crate) fn wait_until_blocked(pid: u32, step: &AtomicValue<u32>, at_least: u32) {
    wait_for(step, at_least);
    wait_until(|| sleeps(pid));
}

/// Stops a process, and returns when it stands still.
pub(crate) fn stop(pid: u32) {
    signal(pid, libc::SIGSTOP);
    wait_until(|| states(pid).iter().all(|state| *state == 'T'));
}

/// Lets it go on.
pub(crate) fn go_on(pid: u32) {
    signal(pid, libc::SIGCONT);
}

/// How often the threads of a process have gone to sleep so far.
pub(crate) fn naps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let naps = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
    };
    tasks.filter_map(|task| naps(fs::read_to_string(task.path().join("status")).ok()?)).sum()
}

/// Stops a child again and again, until it stands in the middle of a put or a get.
pub(crate) fn stop_inside(pid: u32, naked: &Naked, side: Side) {
    let mut dice = Dice::new(u64::from(pid));
    loop {
        stop(pid);
        if naked.holder(side) != 0 {
            return;
        }
        go_on(pid);
        (0..dice.below(10_000)).for_each(|_| std::hint::spin_loop());
    }
}

/// The two sides of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Producers,
    Consumers,
}

/// The file of a named queue, seen past all its rules.
pub(crate) struct Naked(File);

impl Naked {
    /// Where the object begins.
    pub(crate) const OBJECT: u64 = 1024;
    /// The word of the object that says, in its high half, how far the log has memory.
    pub(crate) const TOP: u64 = 11;
    const SIDE: u64 = 128;
    const BESIDE: u64 = 40;

    pub(crate) fn open<T: ?Sized>(queue: &Queue<T>) -> Self {
        Self::named(queue.name().unwrap())
    }

    pub(crate) fn named(name: &str) -> Self {
        let path = Namespace::current().unwrap().path().join(name);
        Self(File::options().read(true).write(true).open(path).unwrap())
    }

    /// The thread that holds the lock of a side; 0 if nobody does.
    pub(crate) fn holder(&self, side: Side) -> u32 {
        let at = match side {
            Side::Producers => Self::OBJECT,
            Side::Consumers => Self::OBJECT + Self::SIDE,
        };
        u32::try_from(self.word(at) & 0x3fff_ffff).unwrap()
    }

    /// How much has been taken: moves with each get.
    pub(crate) fn head(&self) -> u64 {
        self.word(Self::OBJECT + Self::SIDE + Self::BESIDE)
    }

    /// Where the memory ends that a small queue has from the beginning.
    pub(crate) fn end(&self) -> u64 {
        self.0.metadata().unwrap().len().min(Self::OBJECT + 256 + (16 << 10))
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, at).unwrap();
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    }
}
