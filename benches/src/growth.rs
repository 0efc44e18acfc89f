//! `queue/growth/…`: whether the cost of a message grows with the number of producers, of waiting messages,
//! or of earlier messages.

use multiproc::{Capacity, Queue};

use crate::harness::{OURS, Row};
use crate::peers;
use crate::queue::{Get as _, Ours, Put as _, Traffic, ours, run};
use crate::race::{How, Place, race};

/// The numbers of messages that wait at once. Those in `MANY` only with `--long`: they take a gigabyte, and
/// minutes.
const WAITING: [u64; 4] = [1, 100, 10_000, 1_000_000];
const MANY: [u64; 2] = [10_000_000, 100_000_000];
/// The least number of messages in a run.
const AT_LEAST: u64 = 200_000;
const PRODUCERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Bytes of a message.
const SIZE: usize = 64;
const SMALL: usize = 8;

pub(crate) fn rows(long: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = PRODUCERS.into_iter().map(producers_row).collect();
    let many = MANY.into_iter().filter(|_| long);
    rows.extend(WAITING.into_iter().chain(many.clone()).map(waiting_row));
    rows.extend(many.map(through_row));
    rows
}

/// This many producers, one consumer.
fn producers_row(producers: usize) -> Row {
    let mut row = Row::new(format!("queue/growth/{producers}p1c"), Place::Cross);
    let traffic = move |messages: u64| {
        let each = (messages / producers as u64).max(1);
        Traffic { producers, consumers: 1, size: SIZE, warm_up: each / 10, each }
    };
    row.add(OURS, How::Processes, move |n| {
        let queue = ours(SIZE)?;
        let same = queue.clone();
        run(
            traffic(n),
            How::Processes,
            move |_| Ok(queue.clone()),
            move |_| Ok(Ours::new(same.clone(), SIZE)),
        )
    });
    peers::crossbeam_queue(&mut row, traffic);
    row
}

/// One process puts this many messages and then gets them, several times if they are few.
fn waiting_row(waiting: u64) -> Row {
    let mut row = Row::new(format!("queue/growth/waiting-{:e}", waiting as f64), Place::Cross);
    row.add_fixed(OURS, How::Processes, waiting.max(AT_LEAST), move |messages| {
        let queue: Queue<[u8]> = Queue::new(Capacity::unbounded()).map_err(|problem| problem.to_string())?;
        let laps = messages / waiting;
        let finish = race(
            How::Processes,
            Place::Cross,
            vec![Box::new(move |lap| {
                let (mut put, mut get) = (queue.clone(), Ours::new(queue, SMALL));
                lap.ready();
                lap.start();
                for _ in 0..laps {
                    (0..waiting).try_for_each(|number| put.put(&number.to_ne_bytes()))?;
                    for number in 0..waiting {
                        if !get.get(|message| message == number.to_ne_bytes())? {
                            return Err(format!("message {number} was changed on the way"));
                        }
                    }
                }
                lap.stop();
                Ok(())
            })],
        )?;
        Ok(finish.each(laps * waiting))
    });
    row
}

/// This many messages in one run, from one producer to one consumer.
fn through_row(messages: u64) -> Row {
    let mut row = Row::new(format!("queue/growth/through-{:e}", messages as f64), Place::Cross);
    let traffic = |each| Traffic { producers: 1, consumers: 1, size: SMALL, warm_up: 0, each };
    row.add_fixed(OURS, How::Processes, messages, move |n| {
        let queue = ours(SMALL)?;
        let same = queue.clone();
        run(
            traffic(n),
            How::Processes,
            move |_| Ok(queue.clone()),
            move |_| Ok(Ours::new(same.clone(), SMALL)),
        )
    });
    row
}
