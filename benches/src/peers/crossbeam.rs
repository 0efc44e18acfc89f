//! crossbeam-channel, between threads.

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Message, message};
use crate::harness::Row;
use crate::queue::{Get, Put, Traffic, capacity, run};
use crate::race::How;
use crate::roundtrip::{SIZE, Trip};

/// Small messages are arrays in the channel's slots. Large messages are boxed: one copy, and a pointer is
/// sent.
pub(crate) fn queue(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static) {
    row.add("crossbeam", How::Threads, move |n| {
        let traffic = traffic(n);
        match traffic.size {
            8 => pass::<[u8; 8]>(traffic),
            64 => pass::<[u8; 64]>(traffic),
            1024 => pass::<[u8; 1024]>(traffic),
            _ => pass::<Box<[u8]>>(traffic),
        }
    });
}

/// Adds a row with a vector for each message.
pub(crate) fn vectors(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static) {
    row.add("crossbeam", How::Threads, move |n| pass::<Vec<u8>>(traffic(n)));
}

pub(crate) fn roundtrip(row: &mut Row, trip: Trip) {
    trip.add(row, "crossbeam", How::Threads, move |n| {
        let (there, back) = (bounded::<[u8; SIZE]>(capacity(SIZE)), bounded(capacity(SIZE)));
        let (client, server) = ((there.0, back.1), (back.0, there.1));
        trip.run(How::Threads, n, || Ok(client), || Ok(server))
    });
}

fn pass<M: Message>(traffic: Traffic) -> Result<f64, String> {
    let (sender, receiver) = bounded::<M>(capacity(traffic.size));
    run(traffic, How::Threads, move |_| Ok(sender.clone()), move |_| Ok(receiver.clone()))
}

impl<M: Message> Put for Sender<M> {
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
