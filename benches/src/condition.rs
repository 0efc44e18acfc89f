//! `condition/…`: a worker changes a number and notifies another, which changes it and notifies back.

use std::sync::{Arc, Condvar, Mutex};

use multiproc::{Condition, Value};

use crate::harness::{OURS, Row};
use crate::race::{How, Place};
use crate::roundtrip::Trip;

pub(crate) fn rows() -> Vec<Row> {
    let places = [("cross", Place::Cross), ("same", Place::Same)];
    places.map(|(name, place)| row(name, Trip { place, parked: false })).into()
}

fn row(name: &str, trip: Trip) -> Row {
    let mut row = Row::new(format!("condition/{name}"), trip.place);
    trip.add(&mut row, OURS, How::Processes, move |n| {
        let turn = Value::new(0_u64).map_err(text)?;
        let (odd, even) = (Condition::new().map_err(text)?, Condition::new().map_err(text)?);
        let client = (turn.clone(), odd.clone(), even.clone());
        let server = (turn, odd, even);
        trip.exchange(
            How::Processes,
            n,
            move || {
                let (turn, odd, even) = client;
                Ok(move |number| {
                    let mut guard = turn.lock().map_err(text)?;
                    *guard = 2 * number + 1;
                    odd.notify_one().map_err(text)?;
                    even.wait_while(guard, |turn| **turn != 2 * number + 2).map(drop).map_err(text)
                })
            },
            move || {
                let (turn, odd, even) = server;
                Ok(move |number| {
                    let guard = turn.lock().map_err(text)?;
                    let mut guard = odd.wait_while(guard, |turn| **turn != 2 * number + 1).map_err(text)?;
                    *guard = 2 * number + 2;
                    even.notify_one().map(drop).map_err(text)
                })
            },
        )
    });
    trip.add(&mut row, "std", How::Threads, move |n| {
        let shared = Arc::new((Mutex::new(0_u64), Condvar::new(), Condvar::new()));
        let (client, server) = (Arc::clone(&shared), shared);
        trip.exchange(
            How::Threads,
            n,
            move || {
                Ok(move |number| {
                    let (turn, odd, even) = &*client;
                    let mut guard = turn.lock().map_err(text)?;
                    *guard = 2 * number + 1;
                    odd.notify_one();
                    even.wait_while(guard, |turn| *turn != 2 * number + 2).map(drop).map_err(text)
                })
            },
            move || {
                Ok(move |number| {
                    let (turn, odd, even) = &*server;
                    let guard = turn.lock().map_err(text)?;
                    let mut guard = odd.wait_while(guard, |turn| *turn != 2 * number + 1).map_err(text)?;
                    *guard = 2 * number + 2;
                    even.notify_one();
                    Ok(())
                })
            },
        )
    });
    row
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
