//! What the processes of the storm do.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use multiproc::{AtomicValue, GetError, PutError, Queue};
use serde::{Deserialize, Serialize};

use crate::common::Dice;

/// Who waits for whom most of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    MostlyEmpty,
    Balanced,
    MostlyFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    Consumer,
}

/// How far a phase has come.
pub(crate) struct Stage;

impl Stage {
    pub(crate) const WORK: u32 = 0;
    /// Producers return. Consumers return at the first [`LAST`](crate::roles::LAST) that they get.
    pub(crate) const FINISH: u32 = 1;
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) queue: Queue<[u8]>,
    pub(crate) me: u32,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
    pub(crate) file: PathBuf,
    pub(crate) stage: AtomicValue<u32>,
    /// Messages put and got by everybody.
    pub(crate) moves: AtomicValue<u64>,
}

/// The message after which a consumer returns.
pub(crate) const LAST: &[u8] = b"last";

/// What a consumer writes instead of a producer that it cannot read.
pub(crate) const TORN: u32 = u32::MAX;

const SMALLEST: usize = 16;
const SPREAD: u64 = 601;

/// Producer, number, checksum, and up to 600 bytes of which no two messages have the same.
fn message(producer: u32, number: u32) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(producer) << 32 | u64::from(number));
    let length = SMALLEST + usize::try_from(dice.below(SPREAD)).unwrap();
    let mut bytes = [producer.to_le_bytes(), number.to_le_bytes(), [0; 4], [0; 4]].concat();
    while bytes.len() < length {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(length);
    let sum = checksum(&bytes).to_le_bytes();
    bytes[8..SMALLEST].copy_from_slice(&sum);
    bytes
}

/// Producer and number of a message that is whole.
fn read(bytes: &[u8]) -> Option<(u32, u32)> {
    let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (producer, number) = (half(0)?, half(4)?);
    let sum = u64::from(half(8)?) | u64::from(half(12)?) << 32;
    (sum == checksum(bytes) && bytes.len() < SMALLEST + usize::try_from(SPREAD).ok()?).then_some((producer, number))
}

/// FNV-1a over length, head and body.
fn checksum(bytes: &[u8]) -> u64 {
    let seen = bytes.len().to_le_bytes().into_iter().chain(bytes[..8].iter().copied()).chain(bytes[SMALLEST..].iter().copied());
    seen.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Now and then, whoever is to be waited for takes its time.
fn dawdle(dice: &mut Dice) {
    match dice.below(100) {
        0..10 => thread::sleep(Duration::from_micros(dice.below(500))),
        10 => thread::sleep(Duration::from_millis(dice.below(12))),
        pauses => (0..pauses * 20).for_each(|_| std::hint::spin_loop()),
    }
}

pub(crate) fn produce(job: Job) {
    let mut dice = Dice::new(job.seed);
    let note = File::create(&job.file).unwrap();
    for number in 0.. {
        if job.stage.load() != Stage::WORK {
            return;
        }
        let bytes = message(job.me, number);
        while let Err(error) = match dice.below(10) {
            0 => job.queue.try_put_bytes(&bytes),
            1 => job.queue.put_bytes_timeout(&bytes, Duration::from_micros(dice.below(200))),
            2 => job.queue.put_bytes_timeout(&bytes, Duration::from_millis(dice.below(20))),
            _ => job.queue.put_bytes(&bytes),
        } {
            assert!(matches!(error, PutError::Full(()) | PutError::Busy(())), "{error}");
        }
        note.write_all_at(&(number + 1).to_le_bytes(), 0).unwrap();
        job.moves.fetch_add(1);
        if job.pace == Pace::MostlyEmpty {
            dawdle(&mut dice);
        }
    }
}

pub(crate) fn consume(job: Job) {
    let mut dice = Dice::new(job.seed);
    let mut note = OpenOptions::new().create(true).append(true).open(&job.file).unwrap();
    loop {
        let got = match dice.below(10) {
            0 => job.queue.try_get_bytes(),
            1 => job.queue.get_bytes_timeout(Duration::from_micros(dice.below(200))),
            2 => job.queue.get_bytes_timeout(Duration::from_millis(dice.below(20))),
            _ => job.queue.get_bytes(),
        };
        match got {
            Ok(bytes) if bytes == LAST => return,
            Ok(bytes) => {
                let (producer, number) = read(&bytes).unwrap_or((TORN, 0));
                note.write_all(&[producer.to_le_bytes(), number.to_le_bytes()].concat()).unwrap();
                job.moves.fetch_add(1);
            }
            Err(GetError::Empty | GetError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
        if job.pace == Pace::MostlyFull {
            dawdle(&mut dice);
        }
    }
}
