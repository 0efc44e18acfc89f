//! `roundtrip/…`: a message of 64 bytes to a server, and one back.

use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

use multiproc::Queue;

use crate::harness::{OURS, Row};
use crate::os::{self, Scratch};
use crate::peers::limit::{CacheLines, Futexes};
use crate::peers::{self, python};
use crate::queue::{Get, Ours, Put, ours};
use crate::race::{How, Job, Lap, Place, race};

/// Bytes of a message.
pub(crate) const SIZE: usize = 64;
/// Long enough for the peer to fall asleep, however long it spins.
pub(crate) const IDLE: Duration = Duration::from_millis(12);
/// Requests of a run in which both sides sleep between two of them.
const PARKED_REQUESTS: u64 = 30;

/// The circumstances of a round trip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trip {
    pub(crate) place: Place,
    /// Whether both sides sleep before each request. The value is then the median of the requests, else their
    /// mean.
    pub(crate) parked: bool,
}

pub(crate) fn rows(scratch: &Scratch) -> Vec<Row> {
    [("cross", Place::Cross, false), ("same", Place::Same, false), ("parked", Place::Cross, true)]
        .map(|(name, place, parked)| row(name, Trip { place, parked }, scratch))
        .into()
}

fn row(name: &str, trip: Trip, scratch: &Scratch) -> Row {
    let mut row = Row::new(format!("roundtrip/{name}"), trip.place);
    trip.add(&mut row, OURS, How::Processes, move |n| {
        let (there, back) = (ours(SIZE)?, ours(SIZE)?);
        let ends = |put: &Queue<[u8]>, get: &Queue<[u8]>| (put.clone(), Ours::new(get.clone(), SIZE));
        let (client, server) = (ends(&there, &back), ends(&back, &there));
        trip.run(How::Processes, n, || Ok(client), || Ok(server))
    });
    trip.add(&mut row, "limit", How::Processes, move |n| {
        if trip.place == Place::Cross && !trip.parked {
            let lines: &'static CacheLines = os::shared();
            let client = move || Ok(infallible(|i| lines.ask(i)));
            trip.exchange(How::Processes, n, client, move || Ok(infallible(|i| lines.answer(i))))
        } else {
            let words: &'static Futexes = os::shared();
            let client = move || Ok(infallible(|i| words.ask(i)));
            trip.exchange(How::Processes, n, client, move || Ok(infallible(|i| words.answer(i))))
        }
    });
    peers::roundtrips(&mut row, trip, scratch);
    if python::is_here() {
        let run = move |n| python::roundtrip(trip, n);
        if trip.parked {
            row.add_fixed("python", How::Processes, PARKED_REQUESTS, run);
        } else {
            row.add_slow("python", How::Processes, 200, run);
        }
    }
    row
}

/// Makes a step of a closure that cannot fail.
pub(crate) fn infallible(step: impl Fn(u64)) -> impl FnMut(u64) -> Result<(), String> {
    move |number| {
        step(number);
        Ok(())
    }
}

impl Trip {
    /// Adds a rival, whose number of requests in a run depends on these circumstances.
    pub(crate) fn add(
        self,
        row: &mut Row,
        name: &'static str,
        how: How,
        run: impl Fn(u64) -> Result<f64, String> + 'static,
    ) {
        if self.parked {
            row.add_fixed(name, how, PARKED_REQUESTS, run);
        } else {
            row.add(name, how, run);
        }
    }

    /// Measures round trips over two queues. `client` and `server` make the ends, each in the worker that
    /// uses them.
    pub(crate) fn run<P, G>(
        self,
        how: How,
        requests: u64,
        client: impl FnOnce() -> Result<(P, G), String> + Send + 'static,
        server: impl FnOnce() -> Result<(P, G), String> + Send + 'static,
    ) -> Result<f64, String>
    where
        P: Put + 'static,
        G: Get + 'static,
    {
        let client = move || {
            let (mut put, mut get) = client()?;
            let mut message = [7u8; SIZE];
            Ok(move |number: u64| {
                stamp(&mut message, number);
                put.put(black_box(&message))?;
                get.get(|answer| check(answer, number))?
            })
        };
        let server = move || {
            let (mut put, mut get) = server()?;
            let mut message = [9u8; SIZE];
            Ok(move |number: u64| {
                get.get(|question| check(question, number))??;
                stamp(&mut message, number);
                put.put(black_box(&message))
            })
        };
        self.exchange(how, requests, client, server)
    }

    /// Calls the client's step and the server's step once for each request.
    pub(crate) fn exchange<C, S>(
        self,
        how: How,
        requests: u64,
        client: impl FnOnce() -> Result<C, String> + Send + 'static,
        server: impl FnOnce() -> Result<S, String> + Send + 'static,
    ) -> Result<f64, String>
    where
        C: FnMut(u64) -> Result<(), String>,
        S: FnMut(u64) -> Result<(), String>,
    {
        let warm_up = requests / 10;
        let all = warm_up + requests;
        let asks: Job = Box::new(move |lap| self.ask(warm_up, all, client()?, lap));
        let answers: Job = Box::new(move |lap| {
            let mut step = server()?;
            lap.ready();
            (0..warm_up).try_for_each(&mut step)?;
            lap.start();
            (warm_up..all).try_for_each(&mut step)?;
            lap.stop();
            Ok(())
        });
        let finish = race(how, self.place, vec![asks, answers])?;
        Ok(if self.parked { finish.noted as f64 } else { finish.each(requests) })
    }

    fn ask(
        self,
        warm_up: u64,
        all: u64,
        mut step: impl FnMut(u64) -> Result<(), String>,
        lap: &Lap,
    ) -> Result<(), String> {
        lap.ready();
        if !self.parked {
            (0..warm_up).try_for_each(&mut step)?;
            lap.start();
            (warm_up..all).try_for_each(&mut step)?;
            lap.stop();
            return Ok(());
        }
        let mut times = Vec::new();
        for number in 0..all {
            sleep(IDLE);
            if number == warm_up {
                lap.start();
            }
            let start = os::now();
            step(number)?;
            if number >= warm_up {
                times.push(os::now() - start);
            }
        }
        lap.stop();
        times.sort_unstable();
        lap.note(times[times.len() / 2]);
        Ok(())
    }
}

fn stamp(message: &mut [u8; SIZE], number: u64) {
    message[..8].copy_from_slice(&number.to_ne_bytes());
    message[SIZE - 8..].copy_from_slice(&number.to_ne_bytes());
}

fn check(message: &[u8], number: u64) -> Result<(), String> {
    let number = number.to_ne_bytes();
    if message.len() == SIZE && message[..8] == number && message[SIZE - 8..] == number {
        Ok(())
    } else {
        Err("a message was changed on the way".to_owned())
    }
}
