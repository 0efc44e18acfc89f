//! ipc-channel's channel of bytes. It holds as much as the socket's buffer, and has one consumer.

use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, bytes_channel};

use crate::harness::Row;
use crate::queue::{Get, Put, Traffic, run_pair};
use crate::race::How;
use crate::roundtrip::Trip;

pub(crate) fn queue(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static) {
    if traffic(1).consumers > 1 {
        return;
    }
    row.add("ipc-channel", How::Processes, move |n| {
        let (sender, receiver) = bytes_channel().map_err(|problem| problem.to_string())?;
        run_pair(traffic(n), How::Processes, sender, receiver)
    });
}

pub(crate) fn roundtrip(row: &mut Row, trip: Trip) {
    trip.add(row, "ipc-channel", How::Processes, move |n| {
        let there = bytes_channel().map_err(|problem| problem.to_string())?;
        let back = bytes_channel().map_err(|problem| problem.to_string())?;
        let (client, server) = ((there.0, back.1), (back.0, there.1));
        trip.run(How::Processes, n, || Ok(client), || Ok(server))
    });
}

impl Put for IpcBytesSender {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        self.send(message).map_err(|problem| problem.to_string())
    }
}

impl Get for IpcBytesReceiver {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        self.recv().map(|message| look(&message)).map_err(|problem| format!("{problem:?}"))
    }
}
