//! Members: if a process dies with a membership, or while it registers or disconnects, all waiting peers
//! learn it, soon.

use std::time::{Duration, Instant};

use multiproc::robust::ProcessOwned;
use multiproc::{GetError, PutError};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::queues::{Bytes, PEER, case, empty, full, rest_is_usable};
use crate::support::{WAITV, await_asleep, ignore, sign, wait_for};

/// Cells: what peers got, from 0; their process ids, from `PEER`; that a peer has registered, and that it may
/// disconnect.
const HELD: usize = 20;
const GO: usize = 21;
/// What peers got: a message, or that all peers have disconnected.
const GOT: u64 = 1;
const CLOSED: u64 = 2;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Bytes>> {
    vec![
        case(
            "queue/producer, two consumers asleep",
            empty,
            |queue, _| drop(queue.producer()),
            producers_came_or_not,
        )
        .peer(|queue, cells| consumer(queue, cells, 0))
        .peer(|queue, cells| consumer(queue, cells, 1))
        .warm(|_, cells| two_asleep(cells)),
        case(
            "queue/producer put_bytes, two consumers asleep",
            empty,
            |queue, _| {
                if let Ok(producer) = queue.producer() {
                    ignore(producer.put_bytes(b"m"));
                }
            },
            |queue, kill| {
                producers_came_or_not(queue, kill)?;
                let got = (0..2).filter(|peer| kill.cell(*peer) == GOT).count();
                if got > 1 { Err(Fault::Lost("it was got twice".into())) } else { Ok(()) }
            },
        )
        .peer(|queue, cells| consumer(queue, cells, 0))
        .peer(|queue, cells| consumer(queue, cells, 1))
        .warm(|_, cells| two_asleep(cells)),
        case(
            "queue/consumer, two producers asleep",
            full,
            |queue, _| drop(queue.consumer()),
            |queue, kill| {
                let gone = matches!(
                    queue.producer().map(|producer| producer.try_put_bytes(b"x")),
                    Ok(Err(PutError::Closed(())))
                );
                if !gone {
                    drop(queue.consumer());
                }
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                if (0..2).any(|peer| kill.cell(peer) != CLOSED) {
                    return Err(Fault::Torn("there was no room, but a put".into()));
                }
                rest_is_usable(queue, kill)
            },
        )
        .peer(|queue, cells| producer(queue, cells, 0))
        .peer(|queue, cells| producer(queue, cells, 1))
        .warm(|_, cells| two_asleep(cells)),
        case(
            "queue/consumer get_bytes, asleep, woken by the last producer's end, another asleep",
            empty,
            |queue, cells| consumer(queue, cells, 2),
            |queue, kill| {
                kill.cells().set(GO, 1);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                if kill.cell(1) == CLOSED {
                    rest_is_usable(queue, kill)
                } else {
                    Err(Fault::Torn("not closed".into()))
                }
            },
        )
        .peer(|queue, cells| {
            let producer = queue.producer().unwrap();
            cells.set(HELD, 1);
            wait_for(cells, GO);
            drop(producer);
        })
        .peer(|queue, cells| {
            wait_for(cells, HELD);
            consumer(queue, cells, 1);
        })
        .warm(|_, cells| {
            ProcessOwned::ready().unwrap();
            await_asleep(cells, PEER + 1, WAITV);
        })
        .release(|_, cells| cells.set(GO, 1)),
        case(
            "queue/producer, another is there",
            empty,
            |queue, _| drop(queue.producer()),
            |queue, kill| {
                // The other producer is still registered, so no consumer may get that all have disconnected.
                let consumer = queue.consumer().map_err(|error| Fault::Torn(error.to_string()))?;
                if consumer.try_get_bytes() != Err(GetError::Empty) || queue.producers() == 0 {
                    return Err(Fault::Lost("the other message".into()));
                }
                kill.cells().set(GO, 1);
                kill.must_wake(0)?;
                // A process that never sleeps for long finds out, too.
                let begin = Instant::now();
                while consumer.get_bytes_timeout(Duration::from_millis(1)) != Err(GetError::Closed) {
                    if begin.elapsed() > kill.patience() {
                        return Err(Fault::Hang("not closed".into()));
                    }
                }
                rest_is_usable(queue, kill)
            },
        )
        .peer(|queue, cells| {
            let producer = queue.producer().unwrap();
            cells.set(HELD, 1);
            wait_for(cells, GO);
            drop(producer);
        })
        .warm(|_, cells| {
            ProcessOwned::ready().unwrap();
            wait_for(cells, HELD);
        }),
        case(
            "queue/producer, the last membership",
            empty,
            |queue, _| drop(queue.producer()),
            |queue, kill| {
                let taken = queue.producer().map(drop);
                kill.cells().set(GO, 1);
                kill.must_wake(0)?;
                if taken.is_err() {
                    Err(Fault::Leaked("a place".into()))
                } else {
                    rest_is_usable(queue, kill)
                }
            },
        )
        .peer(|queue, cells| {
            let producers = [(); PLACES - 1].map(|()| queue.producer().unwrap());
            cells.set(HELD, 1);
            wait_for(cells, GO);
            drop(producers);
        })
        .warm(|_, cells| {
            ProcessOwned::ready().unwrap();
            wait_for(cells, HELD);
        }),
    ]
}

fn two_asleep(cells: &Cells) {
    ProcessOwned::ready().unwrap();
    await_asleep(cells, PEER, WAITV);
    await_asleep(cells, PEER + 1, WAITV);
}

/// As many members of one kind there can be.
const PLACES: usize = 60;
/// Memberships that were used before, so that the oracle's own is no first use, which would wake every
/// sleeping process.
const USED: usize = 4;

fn consumer(queue: &Bytes, cells: &Cells, number: usize) {
    drop([(); USED].map(|()| queue.consumer().unwrap()));
    let consumer = queue.consumer().unwrap();
    sign(cells, PEER + number);
    cells.set(number, if consumer.get_bytes() == Err(GetError::Closed) { CLOSED } else { GOT });
}

fn producer(queue: &Bytes, cells: &Cells, number: usize) {
    drop([(); USED].map(|()| queue.producer().unwrap()));
    let producer = queue.producer().unwrap();
    sign(cells, PEER + number);
    cells.set(number, if producer.put_bytes(b"peer") == Err(PutError::Closed(())) { CLOSED } else { GOT });
}

/// If a producer has registered, all have disconnected by now, and the sleeping consumers learn it without
/// help. If not, a producer registers and disconnects.
fn producers_came_or_not(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let consumer = queue.consumer().map_err(|error| Fault::Torn(error.to_string()))?;
    let mut got = consumer.try_get_bytes();
    if got.is_ok() {
        got = consumer.try_get_bytes();
    }
    match got {
        Err(GetError::Closed) => {}
        Err(GetError::Empty) if kill.finished() => return Err(Fault::Lost("its end".into())),
        Err(GetError::Empty) => drop(queue.producer()),
        other => return Err(Fault::Torn(format!("{other:?}"))),
    }
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    if consumer.get_bytes_timeout(Duration::ZERO) != Err(GetError::Closed) {
        return Err(Fault::Torn("not closed".into()));
    }
    rest_is_usable(queue, kill)
}
