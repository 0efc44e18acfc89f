//! Helpers that the tests of the queue share: messages whose content can be checked, and the state of other
//! processes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use multiproc::shm::{Namespace, gc};
use multiproc::{AtomicValue, Queue};

use crate::common::{self, Dice, signal, states, stop, wait_for, wait_until};

/// Ends the program if the test hangs, and removes objects that killed processes have left. Declare it first,
/// so that it is dropped last.
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

/// Returns message `number` of `producer`: the two numbers determine its length and each byte.
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

/// Returns producer and number of a message.
///
/// # Panics
///
/// Panics if the message is torn.
pub(crate) fn read(bytes: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (producer, number) = (number(0), number(4));
    assert_eq!(bytes, message(producer, number), "torn");
    (producer, number)
}

/// Returns whether all threads of a process sleep.
pub(crate) fn is_asleep(pid: u32) -> bool {
    let states = states(pid);
    !states.is_empty() && states.iter().all(|state| *state == 'S')
}

/// Waits until the step counter has reached `at_least` and the process sleeps.
pub(crate) fn wait_until_blocked(pid: u32, step: &AtomicValue<u32>, at_least: u32) {
    wait_for(step, at_least);
    wait_until(|| is_asleep(pid));
}

/// Continues a stopped process.
pub(crate) fn go_on(pid: u32) {
    signal(pid, libc::SIGCONT);
}

/// Returns how often the threads of a process have gone to sleep so far.
pub(crate) fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let number = |line: &str| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok();
    let sleeps = |status: String| status.lines().find_map(number);
    tasks.filter_map(|task| sleeps(fs::read_to_string(task.path().join("status")).ok()?)).sum()
}

/// Stops and continues a child until it is stopped in the middle of a put or a get.
pub(crate) fn stop_inside(pid: u32, raw: &RawQueue, side: Side) {
    let mut dice = Dice::new(u64::from(pid));
    loop {
        stop(pid);
        if raw.holder(side) != 0 {
            return;
        }
        go_on(pid);
        (0..dice.below(10_000)).for_each(|_| std::hint::spin_loop());
    }
}

/// The two sides of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Producers,
    Consumers,
}

/// The file of a named queue, read and written directly.
pub(crate) struct RawQueue(File);

impl RawQueue {
    /// The offset of the object in the file.
    pub(crate) const OBJECT: u64 = 1024;
    /// The word of the object whose high half holds the end of the log's memory.
    pub(crate) const TOP: u64 = 11;
    const SIDE: u64 = 128;
    /// The offset of the words after a side's lock and event count.
    const AFTER_LOCK: u64 = 40;

    pub(crate) fn open<T: ?Sized>(queue: &Queue<T>) -> Self {
        Self::named(queue.name().unwrap())
    }

    pub(crate) fn named(name: &str) -> Self {
        let path = Namespace::current().unwrap().path().join(name);
        Self(File::options().read(true).write(true).open(path).unwrap())
    }

    /// Returns the thread that holds the lock of a side; 0 if none does.
    pub(crate) fn holder(&self, side: Side) -> u32 {
        let at = match side {
            Side::Producers => Self::OBJECT,
            Side::Consumers => Self::OBJECT + Self::SIDE,
        };
        u32::try_from(self.word(at) & 0x3fff_ffff).unwrap()
    }

    /// Returns the head of the log, which each get moves.
    pub(crate) fn head(&self) -> u64 {
        self.word(Self::OBJECT + Self::SIDE + Self::AFTER_LOCK)
    }

    /// Returns the end of a small queue's initial memory.
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
