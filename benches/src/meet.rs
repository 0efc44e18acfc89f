//! `event/…` and `barrier/…`: two workers that wait for each other's event in turn, and two that meet at a
//! barrier.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use multiproc::{Barrier, Event};

use crate::harness::{OURS, Row};
use crate::os::{self, Apart};
use crate::peers::limit::{CacheLines, Futexes};
use crate::race::{How, Place};
use crate::roundtrip::{Trip, infallible};

pub(crate) fn rows() -> Vec<Row> {
    let places = [("cross", Place::Cross), ("same", Place::Same)];
    let trips = places.map(|(name, place)| (name, Trip { place, parked: false }));
    let events = trips.iter().map(|(name, trip)| event(name, *trip));
    events.chain(trips.iter().map(|(name, trip)| barrier(name, *trip))).collect()
}

/// There and back: two events.
fn event(name: &str, trip: Trip) -> Row {
    let mut row = Row::new(format!("event/{name}"), trip.place);
    trip.add(&mut row, OURS, How::Processes, move |n| {
        let made = || Event::new().map_err(|problem| problem.to_string());
        let (there, back) = (made()?, made()?);
        let (ask, answer) = (there.clone(), back.clone());
        let client = move |_| {
            ask.set();
            answer.wait();
            answer.clear();
            Ok(())
        };
        let server = move |_| {
            there.wait();
            there.clear();
            back.set();
            Ok(())
        };
        trip.exchange(How::Processes, n, || Ok(client), || Ok(server))
    });
    trip.add(&mut row, "limit", How::Processes, move |n| {
        if trip.place == Place::Cross {
            let lines: &'static CacheLines = os::shared();
            let client = move || Ok(infallible(|i| lines.ask(i)));
            trip.exchange(How::Processes, n, client, move || Ok(infallible(|i| lines.answer(i))))
        } else {
            let words: &'static Futexes = os::shared();
            let client = move || Ok(infallible(|i| words.ask(i)));
            trip.exchange(How::Processes, n, client, move || Ok(infallible(|i| words.answer(i))))
        }
    });
    trip.add(&mut row, "std", How::Threads, move |n| {
        let (there, back) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
        let (ask, answer) = (there.clone(), back.clone());
        let client = move |_| {
            ask.set();
            answer.take();
            Ok(())
        };
        let server = move |_| {
            there.take();
            back.set();
            Ok(())
        };
        trip.exchange(How::Threads, n, || Ok(client), || Ok(server))
    });
    row
}

/// A replacement for an event: a flag, a mutex and a condition.
#[derive(Default)]
struct Flag {
    up: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    fn set(&self) {
        *self.up.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn take(&self) {
        let up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        let mut up = self.changed.wait_while(up, |up| !*up).unwrap_or_else(PoisonError::into_inner);
        *up = false;
    }
}

/// One round of two workers.
fn barrier(name: &str, trip: Trip) -> Row {
    let mut row = Row::new(format!("barrier/{name}"), trip.place);
    trip.add(&mut row, OURS, How::Processes, move |n| {
        let one = Barrier::new(2).map_err(|problem| problem.to_string())?;
        let other = one.clone();
        let meet =
            |barrier: Barrier| move |_| barrier.wait().map(|_| ()).map_err(|problem| problem.to_string());
        trip.exchange(How::Processes, n, move || Ok(meet(one)), move || Ok(meet(other)))
    });
    trip.add(&mut row, "limit", How::Processes, move |n| {
        let words: &'static Apart<AtomicU32> = os::shared();
        let meet = move |_| {
            pass(words);
            Ok(())
        };
        trip.exchange(How::Processes, n, move || Ok(meet), move || Ok(meet))
    });
    trip.add(&mut row, "std", How::Threads, move |n| {
        let one = Arc::new(std::sync::Barrier::new(2));
        let other = one.clone();
        let meet = |barrier: Arc<std::sync::Barrier>| {
            move |_| {
                barrier.wait();
                Ok(())
            }
        };
        trip.exchange(How::Threads, n, move || Ok(meet(one)), move || Ok(meet(other)))
    });
    row
}

/// A counter and a futex: two arrivals make a round. It survives no kill.
fn pass(word: &AtomicU32) {
    let mine = word.fetch_add(1, SeqCst);
    if mine % 2 == 1 {
        os::futex_wake(word);
        return;
    }
    let mut seen = mine.wrapping_add(1);
    while seen == mine.wrapping_add(1) {
        os::futex_wait(word, seen);
        seen = word.load(SeqCst);
    }
}
