//! `queue/plain/64`, `queue/typed/64` and `queue/jobs…/64`: the messages are values, of 64 bytes in memory.

use multiproc::{JoinableQueue, Plain, Pod, Queue, Zeroable, bytemuck};
use serde::{Deserialize, Serialize};

use crate::harness::{OURS, Row};
use crate::os::Scratch;
use crate::peers::{crossbeam_vectors, limit, queues};
use crate::queue::{Get, Put, Traffic, capacity, run};
use crate::race::{How, Place};

const SIZE: usize = size_of::<Sample>();

/// A typical message: a number, a few measured values, a mark.
#[derive(Clone, Copy, Debug, Pod, Zeroable, Serialize, Deserialize)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C)]
pub(crate) struct Sample {
    stamp: u64,
    values: [f64; 6],
    mark: u64,
}

const _: () = assert!(SIZE == 64);

pub(crate) fn rows(scratch: &Scratch) -> Vec<Row> {
    vec![plain(scratch), typed(), jobs(1), jobs(2)]
}

/// The value through a `JoinableQueue`: each message is leased, and done at once.
fn jobs(users: usize) -> Row {
    let mut row = Row::new(format!("queue/jobs{users}/{SIZE}"), Place::Cross);
    let traffic = move |n: u64| Traffic { producers: users, consumers: users, ..traffic(n / users as u64) };
    row.add(OURS, How::Processes, move |n| {
        let queue = JoinableQueue::<Sample>::new(capacity(SIZE)).map_err(|problem| problem.to_string())?;
        let same = queue.clone();
        run(traffic(n), How::Processes, move |_| Ok(queue.clone()), move |_| Ok(same.clone()))
    });
    crossbeam_vectors(&mut row, traffic);
    row
}

fn traffic(each: u64) -> Traffic {
    Traffic { producers: 1, consumers: 1, size: SIZE, warm_up: each / 10, each }
}

/// The value travels as its bytes.
fn plain(scratch: &Scratch) -> Row {
    let mut row = Row::new(format!("queue/plain/{SIZE}"), Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let queue = Queue::<Plain<Sample>>::new(capacity(SIZE)).map_err(|problem| problem.to_string())?;
        let same = queue.clone();
        run(
            traffic(n),
            How::Processes,
            move |_| Ok(queue.clone()),
            move |_| Ok(Taker(same.clone(), Sample::zeroed())),
        )
    });
    row.add("limit", How::Processes, |n| limit::queue(traffic(n)));
    queues(&mut row, traffic, scratch);
    row
}

/// The value travels through serde, as it would through any channel of bytes.
fn typed() -> Row {
    let mut row = Row::new(format!("queue/typed/{SIZE}"), Place::Cross);
    row.add(OURS, How::Processes, |n| {
        let queue = Queue::<Sample>::new(capacity(SIZE)).map_err(|problem| problem.to_string())?;
        let same = queue.clone();
        run(traffic(n), How::Processes, move |_| Ok(queue.clone()), move |_| Ok(same.clone()))
    });
    crossbeam_vectors(&mut row, traffic);
    row
}

fn sample(message: &[u8]) -> Result<Sample, String> {
    bytemuck::try_pod_read_unaligned(message).map_err(|problem| problem.to_string())
}

impl Put for Queue<Plain<Sample>> {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        // The worker's memory already holds the value in this form.
        let sample = bytemuck::try_from_bytes(message).map_err(|problem| problem.to_string())?;
        self.put_plain(sample).map_err(|problem| problem.to_string())
    }
}

/// This library's queue, and the place that its values are copied to.
struct Taker(Queue<Plain<Sample>>, Sample);

impl Get for Taker {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        self.0.get_plain_into(&mut self.1).map_err(|problem| problem.to_string())?;
        Ok(look(bytemuck::bytes_of(&self.1)))
    }
}

impl Put for JoinableQueue<Sample> {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        Self::put(self, sample(message)?).map_err(|problem| problem.to_string())
    }
}

impl Get for JoinableQueue<Sample> {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let job = Self::get(self).map_err(|problem| problem.to_string())?;
        let result = look(bytemuck::bytes_of(&*job));
        job.done();
        Ok(result)
    }
}

impl Put for Queue<Sample> {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        Self::put(self, sample(message)?).map_err(|problem| problem.to_string())
    }
}

impl Get for Queue<Sample> {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let sample = Self::get(self).map_err(|problem| problem.to_string())?;
        Ok(look(bytemuck::bytes_of(&sample)))
    }
}
