//! What the processes of the storm do.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use multiproc::queue::{JobLimits, JoinableQueue};
use multiproc::{Capacity, GetError, Messages, PutError, Queue};
use serde::{Deserialize, Serialize};

use crate::common::Dice;
use crate::jobs;
use crate::notes::{Board, Note, Notebook, Stage, What, give_way, now};

/// Which side waits for the other most of the time.
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

/// What the messages of a phase are like.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// As many as the queue holds.
    pub(crate) messages: usize,
    /// Limit of bytes of the queue.
    pub(crate) bytes: Option<usize>,
    /// Bytes of the longest message; but most have [`USUAL`] at most.
    pub(crate) longest: usize,
    /// Messages that one call puts or gets, at most.
    pub(crate) at_once: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Messages,
    /// Jobs, which are delivered so often at most; 0: without limit.
    Jobs(u16),
}

/// What the processes put to and get from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    Messages(Queue<[u8]>),
    Jobs(JoinableQueue<Vec<u8>>),
}

impl Line {
    pub(crate) fn new(shape: Shape) -> Self {
        let capacity = Capacity::messages(shape.messages);
        let capacity = shape.bytes.map_or(capacity, |bytes| capacity.bytes(bytes));
        let limits = JobLimits::from(capacity);
        match shape.kind {
            Kind::Messages => Self::Messages(Queue::new(capacity).unwrap()),
            Kind::Jobs(0) => Self::Jobs(JoinableQueue::new(limits.unlimited_deliveries()).unwrap()),
            Kind::Jobs(most) => Self::Jobs(JoinableQueue::new(limits.max_deliveries(most)).unwrap()),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) line: Line,
    pub(crate) me: u32,
    pub(crate) pace: Pace,
    pub(crate) shape: Shape,
    pub(crate) seed: u64,
    pub(crate) directory: PathBuf,
    pub(crate) board: Board,
}

/// The message after which a consumer returns.
pub(crate) const LAST: &[u8] = b"last";

/// What a consumer writes instead of a producer that it cannot read.
pub(crate) const TORN: u32 = u32::MAX;

/// Most messages have at most so many bytes.
pub(crate) const USUAL: usize = 616;
const SMALLEST: usize = 16;

/// Where this process notes what it does.
pub(crate) fn notebook(directory: &std::path::Path, role: Role, me: u32) -> Notebook {
    Notebook::open(directory, &format!("{role:?}-{me}"))
}

/// Producer, number, checksum, and bytes of which no two messages have the same.
fn message(producer: u32, number: u32, longest: usize) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(producer) << 32 | u64::from(number));
    let longest = if dice.below(32) == 0 { longest } else { USUAL };
    let length = SMALLEST + usize::try_from(dice.below((longest - SMALLEST + 1) as u64)).unwrap();
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
pub(crate) fn read(bytes: &[u8]) -> Option<(u32, u32)> {
    let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (producer, number) = (half(0)?, half(4)?);
    let sum = u64::from(half(8)?) | u64::from(half(12)?) << 32;
    (sum == checksum(bytes)).then_some((producer, number))
}

/// Over length, head and body: FNV-1a by words.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let begun = step(step(0xcbf2_9ce4_8422_2325, bytes.len() as u64), word(&bytes[..8]));
    bytes[SMALLEST..].chunks(8).fold(begun, |sum, bytes| step(sum, word(bytes)))
}

/// Now and then the side that the other waits for takes its time.
pub(crate) fn dawdle(dice: &mut Dice) {
    match dice.below(100) {
        0..10 => thread::sleep(Duration::from_micros(dice.below(500))),
        10 => thread::sleep(Duration::from_millis(dice.below(12))),
        pauses => (0..pauses * 20).for_each(|_| std::hint::spin_loop()),
    }
}

pub(crate) fn produce(job: Job) {
    give_way();
    let mut dice = Dice::new(job.seed);
    let notebook = notebook(&job.directory, Role::Producer, job.me);
    let mut next = 0;
    while job.board.stage.load() == Stage::WORK {
        let count = 1 + usize::try_from(dice.below(job.shape.at_once as u64)).unwrap();
        let messages: Vec<Vec<u8>> =
            (next..).take(count).map(|n| message(job.me, n, job.shape.longest)).collect();
        notebook.set_inside(true);
        match &job.line {
            Line::Messages(queue) => put(queue, &messages, &mut dice),
            Line::Jobs(queue) => {
                messages.into_iter().for_each(|message| jobs::put(queue, message, &mut dice))
            }
        }
        notebook.set_inside(false);
        notebook.count(count);
        next += u32::try_from(count).unwrap();
        job.board.moves.fetch_add(count as u64);
        if job.pace == Pace::MostlyEmpty {
            dawdle(&mut dice);
        }
    }
}

/// Puts all of them, in one of several ways.
fn put(queue: &Queue<[u8]>, mut messages: &[Vec<u8>], dice: &mut Dice) {
    let timeouts = [200_u64, 20_000].map(|most| Duration::from_micros(dice.below(most)));
    while let [first, rest @ ..] = messages {
        if rest.is_empty() {
            while let Err(error) = match dice.below(10) {
                0 => queue.try_put_bytes(first),
                1 => queue.put_bytes_timeout(first, timeouts[0]),
                2 => queue.put_bytes_timeout(first, timeouts[1]),
                _ => queue.put_bytes(first),
            } {
                assert!(matches!(error, PutError::Full(()) | PutError::Busy(())), "{error}");
            }
            return;
        }
        let mut many = Messages::new();
        messages.iter().for_each(|message| many.push(message));
        match match dice.below(10) {
            0 => queue.try_put_many_bytes(&many),
            1 => queue.put_many_bytes_timeout(&many, timeouts[0]),
            2 => queue.put_many_bytes_timeout(&many, timeouts[1]),
            _ => queue.put_many_bytes(&many),
        } {
            Ok(()) => return,
            Err(PutError::Full(done) | PutError::Busy(done)) => messages = &messages[done..],
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn consume(job: Job) {
    give_way();
    let notebook = notebook(&job.directory, Role::Consumer, job.me);
    match &job.line {
        Line::Messages(queue) => get_all(&job, queue, &notebook),
        Line::Jobs(queue) => jobs::work(&job, queue, &notebook),
    }
}

fn get_all(job: &Job, queue: &Queue<[u8]>, notebook: &Notebook) {
    let mut dice = Dice::new(job.seed);
    let mut messages = Messages::with_capacity(64 << 10);
    loop {
        messages.clear();
        let begun = now();
        notebook.set_inside(true);
        let got = get(queue, &mut messages, job.shape.at_once, &mut dice);
        notebook.set_inside(false);
        let ended = now();
        assert!(matches!(got, Ok(()) | Err(GetError::Empty | GetError::Busy)), "{got:?}");
        let last = messages.iter().filter(|message| *message == LAST).count();
        for message in messages.iter().filter(|message| *message != LAST) {
            let (producer, number) = read(message).unwrap_or((TORN, 0));
            notebook.add(Note { what: What::Finished, producer, number, begun, ended });
        }
        job.board.moves.fetch_add(messages.len() as u64);
        if last > 0 {
            // One for each consumer.
            (1..last).for_each(|_| queue.put_bytes(LAST).unwrap());
            return;
        }
        if job.pace == Pace::MostlyFull {
            dawdle(&mut dice);
        }
    }
}

/// Gets some, or none, in one of several ways.
fn get(
    queue: &Queue<[u8]>,
    messages: &mut Messages,
    at_once: usize,
    dice: &mut Dice,
) -> Result<(), GetError> {
    let timeouts = [200_u64, 20_000].map(|most| Duration::from_micros(dice.below(most)));
    if at_once > 1 {
        return match dice.below(10) {
            0 => queue.try_get_many_into(messages, at_once),
            1 => queue.get_many_into_timeout(messages, at_once, timeouts[0]),
            2 => queue.get_many_into_timeout(messages, at_once, timeouts[1]),
            _ => queue.get_many_into(messages, at_once),
        };
    }
    let bytes = match dice.below(10) {
        0 => queue.try_get_bytes(),
        1 => queue.get_bytes_timeout(timeouts[0]),
        2 => queue.get_bytes_timeout(timeouts[1]),
        _ => queue.get_bytes(),
    }?;
    messages.push(&bytes);
    Ok(())
}
