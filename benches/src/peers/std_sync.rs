//! The standard library, between threads.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Message, message};
use crate::harness::Row;
use crate::lock::{BenchLock, Contest};
use crate::queue::{Get, Put, Traffic, capacity, run_pair};
use crate::race::How;
use crate::roundtrip::{SIZE, Trip};
use crate::value::run_as;

/// Its channel has one consumer.
pub(crate) fn queue(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static) {
    if traffic(1).consumers > 1 {
        return;
    }
    row.add("std", How::Threads, move |n| {
        let traffic = traffic(n);
        match traffic.size {
            8 => pass::<[u8; 8]>(traffic),
            64 => pass::<[u8; 64]>(traffic),
            1024 => pass::<[u8; 1024]>(traffic),
            _ => pass::<Box<[u8]>>(traffic),
        }
    });
}

pub(crate) fn roundtrip(row: &mut Row, trip: Trip) {
    trip.add(row, "std", How::Threads, move |n| {
        let (there, back) = (sync_channel::<[u8; SIZE]>(capacity(SIZE)), sync_channel(capacity(SIZE)));
        let (client, server) = ((there.0, back.1), (back.0, there.1));
        trip.run(How::Threads, n, || Ok(client), || Ok(server))
    });
}

pub(crate) fn lock(row: &mut Row, contest: Contest) {
    row.add("std", How::Threads, move |n| {
        let lock = Arc::new(Mutex::new(()));
        contest.run(How::Threads, n, || lock.clone())
    });
}

pub(crate) fn locked_add(row: &mut Row) {
    row.add("std", How::Threads, |n| {
        let number = Arc::new(Mutex::new(0));
        let reader = number.clone();
        let add = move || {
            *number.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            Ok(())
        };
        run_as(How::Threads, n, add, || *reader.lock().unwrap_or_else(PoisonError::into_inner))
    });
}

fn pass<M: Message>(traffic: Traffic) -> Result<f64, String> {
    let (sender, receiver) = sync_channel::<M>(capacity(traffic.size));
    run_pair(traffic, How::Threads, sender, receiver)
}

impl<M: Message> Put for SyncSender<M> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.send(message(bytes)?).map_err(|_| "the receiver has disconnected".to_owned())
    }
}

impl<M: Message> Get for Receiver<M> {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        self.recv()
            .map(|message| look(message.as_ref()))
            .map_err(|_| "the sender has disconnected".to_owned())
    }
}

impl BenchLock for Arc<Mutex<()>> {
    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> Result<R, String> {
        let _guard = self.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(section())
    }
}
