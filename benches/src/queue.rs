//! `queue/…`: messages from producers to consumers.
#![allow(unsafe_code, reason = "messages in place")]

use std::hint::black_box;

use multiproc::{Messages, Queue};

use crate::harness::{OURS, Row};
use crate::os::Scratch;
use crate::peers::{limit, python};
use crate::race::{How, Job, Lap, Place, race};

/// The sending end of a rival's queue, in its worker.
pub(crate) trait Put {
    fn put(&mut self, message: &[u8]) -> Result<(), String>;
}

/// The receiving end. It waits by the rival's own blocking call.
pub(crate) trait Get {
    /// Takes a message and passes it to `look`.
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String>;
}

/// The messages of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) producers: usize,
    pub(crate) consumers: usize,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Messages of each producer before the clock starts.
    pub(crate) warm_up: u64,
    /// Messages of each producer while the clock runs.
    pub(crate) each: u64,
}

/// Returns how many messages a queue holds.
pub(crate) const fn capacity(size: usize) -> usize {
    if size >= 65536 { 64 } else { 1024 }
}

pub(crate) fn rows(scratch: &Scratch) -> Vec<Row> {
    let mut rows = Vec::new();
    for users in [1, 2] {
        for size in [8, 64, 1024, 65536] {
            rows.push(row(users, size, scratch));
        }
    }
    rows.extend([8, 64].map(|size| batch_row(size, scratch)));
    rows.push(reserve_row(scratch));
    rows
}

/// The number of messages that this library puts or gets in one call in `queue/batch32/SIZE`. The rivals have
/// no such call, or none that waits: they move one message at a time.
const BATCH: usize = 32;

fn batch_row(size: usize, scratch: &Scratch) -> Row {
    let mut row = Row::new(format!("queue/batch{BATCH}/{size}"), Place::Cross);
    let traffic = move |messages: u64| {
        let whole = 10 * BATCH as u64;
        let each = messages.next_multiple_of(whole);
        Traffic { producers: 1, consumers: 1, size, warm_up: each / 10, each }
    };
    row.add(OURS, How::Processes, move |n| {
        let queue = ours(size)?;
        let same = queue.clone();
        let put = move |_| {
            Ok(Batch { queue: queue.clone(), messages: Messages::with_capacity(BATCH * size), next: 0 })
        };
        let get = move |_| {
            Ok(Batch { queue: same.clone(), messages: Messages::with_capacity(BATCH * size), next: 0 })
        };
        run(traffic(n), How::Processes, put, get)
    });
    row.add("limit", How::Processes, move |n| limit::queue(traffic(n)));
    crate::peers::queues(&mut row, traffic, scratch);
    row
}

/// Messages that are written and read in place. The limit is one copy of the bytes into bare shared memory,
/// and reading them there. The rivals copy twice.
fn reserve_row(scratch: &Scratch) -> Row {
    const SIZE: usize = 65536;
    let mut row = Row::new(format!("queue/reserve/{SIZE}"), Place::Cross);
    let traffic = |messages: u64| Traffic {
        producers: 1,
        consumers: 1,
        size: SIZE,
        warm_up: messages / 10,
        each: messages.max(1),
    };
    row.add(OURS, How::Processes, move |n| {
        let queue = ours(SIZE)?;
        let same = queue.clone();
        run(
            traffic(n),
            How::Processes,
            move |_| Ok(InPlace(queue.clone())),
            move |_| Ok(InPlace(same.clone())),
        )
    });
    row.add("limit", How::Processes, move |n| limit::queue(traffic(n)));
    crate::peers::queues(&mut row, traffic, scratch);
    row
}

struct InPlace(Queue<[u8]>);

impl Put for InPlace {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        let mut reserved = self.0.reserve(message.len()).map_err(|problem| format!("{problem:?}"))?;
        // SAFETY: no process overwrites it; the queue grows, so the reservation lies in one piece.
        let [bytes, _] = unsafe { reserved.as_mut_slices() };
        bytes.copy_from_slice(message);
        reserved.commit().map_err(|problem| format!("{problem:?}"))
    }
}

impl Get for InPlace {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        // SAFETY: no process overwrites it; the queue grows, so the message lies in one piece.
        let seen = self.0.get_with(|message| look(unsafe { message.as_slices() }[0]));
        seen.map_err(|problem| problem.to_string())
    }
}

/// This library's queue, and the messages of one call.
struct Batch {
    queue: Queue<[u8]>,
    messages: Messages,
    next: usize,
}

impl Put for Batch {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        self.messages.push(message);
        if self.messages.len() == BATCH {
            self.queue.put_many_bytes(&self.messages).map_err(|problem| format!("{problem:?}"))?;
            self.messages.clear();
        }
        Ok(())
    }
}

impl Get for Batch {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        if self.next == self.messages.len() {
            self.messages.clear();
            self.next = 0;
            self.queue.get_many_into(&mut self.messages, BATCH).map_err(|problem| problem.to_string())?;
        }
        self.next += 1;
        self.messages.get(self.next - 1).map(look).ok_or_else(|| "no message".to_owned())
    }
}

fn row(users: usize, size: usize, scratch: &Scratch) -> Row {
    let mut row = Row::new(format!("queue/{users}p{users}c/{size}"), Place::Cross);
    let traffic = move |messages: u64| {
        let each = (messages / users as u64).max(1);
        Traffic { producers: users, consumers: users, size, warm_up: each / 10, each }
    };
    row.add(OURS, How::Processes, move |n| {
        let queue = ours(size)?;
        let same = queue.clone();
        run(
            traffic(n),
            How::Processes,
            move |_| Ok(queue.clone()),
            move |_| Ok(Ours::new(same.clone(), size)),
        )
    });
    if users == 1 {
        row.add("limit", How::Processes, move |n| limit::queue(traffic(n)));
    }
    crate::peers::queues(&mut row, traffic, scratch);
    if python::is_here() {
        row.add_slow("python", How::Processes, 500, move |n| python::queue(traffic(n)));
    }
    row
}

/// Runs the traffic. `put` makes a producer's end and `get` a consumer's, each in the worker that uses it.
pub(crate) fn run<P, G>(
    traffic: Traffic,
    how: How,
    put: impl Fn(usize) -> Result<P, String> + Clone + Send + 'static,
    get: impl Fn(usize) -> Result<G, String> + Clone + Send + 'static,
) -> Result<f64, String>
where
    P: Put + 'static,
    G: Get + 'static,
{
    let mut jobs: Vec<Job> = Vec::new();
    for producer in 0..traffic.producers {
        let put = put.clone();
        jobs.push(Box::new(move |lap| produce(traffic, producer, put(producer)?, lap)));
    }
    for consumer in 0..traffic.consumers {
        let get = get.clone();
        jobs.push(Box::new(move |lap| consume(traffic, get(consumer)?, lap)));
    }
    traffic.finish(race(how, Place::Cross, jobs)?)
}

/// Runs the traffic like [`run`], with ends that cannot be copied: one producer and one consumer.
pub(crate) fn run_pair<P, G>(traffic: Traffic, how: How, put: P, get: G) -> Result<f64, String>
where
    P: Put + Send + 'static,
    G: Get + Send + 'static,
{
    let producer: Job = Box::new(move |lap| produce(traffic, 0, put, lap));
    let consumer: Job = Box::new(move |lap| consume(traffic, get, lap));
    traffic.finish(race(how, Place::Cross, vec![producer, consumer])?)
}

impl Traffic {
    fn finish(self, finish: crate::race::Finish) -> Result<f64, String> {
        let per_producer: u64 = (0..self.warm_up + self.each).sum();
        let producers = self.producers as u64;
        let ids: u64 = (0..producers).sum::<u64>() * (self.warm_up + self.each);
        // Consumers add up the stamps of the messages that they got.
        if finish.noted != per_producer * producers + (ids << PRODUCER) {
            return Err("messages were lost or changed".to_owned());
        }
        Ok(finish.each(self.each * producers))
    }
}

/// A stamp is the number of the producer, from this bit on, and the number of the message below.
const PRODUCER: u32 = 48;
/// The bytes of a cache line. One word of each cache line of a message is read, so that the payload really
/// arrives.
const LINE: usize = 64;

fn produce(traffic: Traffic, producer: usize, mut queue: impl Put, lap: &Lap) -> Result<(), String> {
    let mut message = vec![7u8; traffic.size];
    let last = traffic.size - 8;
    let mut send = |number: u64| {
        let stamp = ((producer as u64) << PRODUCER | number).to_ne_bytes();
        message[..8].copy_from_slice(&stamp);
        message[last..].copy_from_slice(&stamp);
        queue.put(black_box(&message))
    };
    lap.ready();
    for number in 0..traffic.warm_up {
        send(number)?;
    }
    lap.start();
    for number in traffic.warm_up..traffic.warm_up + traffic.each {
        send(number)?;
    }
    lap.stop();
    Ok(())
}

fn consume(traffic: Traffic, mut queue: impl Get, lap: &Lap) -> Result<(), String> {
    let share = |count: u64| count * traffic.producers as u64 / traffic.consumers as u64;
    // The next number that each producer may send to this consumer.
    let mut next = vec![0u64; traffic.producers];
    let mut sum = 0u64;
    let mut receive = || {
        let (length, first, last) = queue.get(look)?;
        let (producer, number) = ((first >> PRODUCER) as usize, first & ((1 << PRODUCER) - 1));
        if length != traffic.size || first != last || producer >= traffic.producers {
            return Err("a message was changed on the way".to_owned());
        }
        if number < next[producer] || (traffic.consumers == 1 && number != next[producer]) {
            return Err("messages came out of order".to_owned());
        }
        next[producer] = number + 1;
        sum = sum.wrapping_add(first);
        Ok(())
    };
    lap.ready();
    for _ in 0..share(traffic.warm_up) {
        receive()?;
    }
    lap.start();
    for _ in 0..share(traffic.each) {
        receive()?;
    }
    lap.stop();
    lap.note(sum);
    Ok(())
}

/// Returns the length, and the first and the last word.
#[inline]
fn look(message: &[u8]) -> (usize, u64, u64) {
    let number = |word: &[u8]| u64::from_ne_bytes(word.try_into().unwrap_or_default());
    let word = |at: usize| message.get(at..at + 8).map_or(0, number);
    let mut lines = 0;
    for line in (0..message.len()).step_by(LINE) {
        lines ^= word(line);
    }
    black_box(lines);
    (message.len(), word(0), word(message.len().wrapping_sub(8)))
}

/// Makes this library's queue for messages of this size.
pub(crate) fn ours(size: usize) -> Result<Queue<[u8]>, String> {
    Queue::new(capacity(size)).map_err(|problem| problem.to_string())
}

impl Put for Queue<[u8]> {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        self.put_bytes(message).map_err(|problem| format!("{problem:?}"))
    }
}

/// This library's queue, and the memory that messages are copied to.
pub(crate) struct Ours {
    queue: Queue<[u8]>,
    message: Vec<u8>,
}

impl Ours {
    pub(crate) fn new(queue: Queue<[u8]>, size: usize) -> Self {
        Self { queue, message: Vec::with_capacity(size) }
    }
}

impl Get for Ours {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        self.queue.get_into(&mut self.message).map_err(|problem| problem.to_string())?;
        Ok(look(&self.message))
    }
}
