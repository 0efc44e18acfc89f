//! shaq: fixed slots in a shared file. Its consumers have a blocking call; a producer can only poll while it
//! is full.
//!
//! Messages are written and read in their slots.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::FromRawFd as _;
use std::time::Duration;

use shaq::{mpmc, spsc};

use super::poll;
use crate::harness::Row;
use crate::queue::{Get, Put, Traffic, capacity, run, run_pair};
use crate::race::How;
use crate::roundtrip::{SIZE, Trip};

/// A day: its blocking calls need a time-out.
const PATIENCE: Duration = Duration::from_secs(86_400);

pub(crate) fn queue(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static) {
    row.add("shaq", How::Processes, move |n| {
        let traffic = traffic(n);
        match traffic.size {
            8 => pass::<8>(traffic),
            64 => pass::<64>(traffic),
            1024 => pass::<1024>(traffic),
            65536 => pass::<65536>(traffic),
            size => Err(format!("no slots of {size} bytes")),
        }
    });
}

pub(crate) fn roundtrip(row: &mut Row, trip: Trip) {
    trip.add(row, "shaq", How::Processes, move |n| {
        let (there, back) = (pair::<SIZE>()?, pair::<SIZE>()?);
        let (client, server) = ((there.0, back.1), (back.0, there.1));
        trip.run(How::Processes, n, || Ok(client), || Ok(server))
    });
}

fn pass<const N: usize>(traffic: Traffic) -> Result<f64, String> {
    if traffic.consumers == 1 {
        let (producer, consumer) = pair::<N>()?;
        return run_pair(traffic, How::Processes, producer, consumer);
    }
    let size = mpmc::minimum_file_size::<[u8; N]>(capacity(N));
    // SAFETY: a fresh file, initialised here; the messages are bytes.
    let producer = unsafe { mpmc::Producer::<[u8; N]>::create(&file()?, size) };
    let producer = producer.map_err(|problem| problem.to_string())?;
    let producer = std::sync::Arc::new(producer);
    let consumers = producer.clone();
    run(traffic, How::Processes, move |_| Ok(producer.clone()), move |_| Ok(consumers.join_as_consumer()))
}

/// The two ends for messages of N bytes.
type Pair<const N: usize> = (spsc::Producer<[u8; N]>, spsc::Consumer<[u8; N]>);

fn pair<const N: usize>() -> Result<Pair<N>, String> {
    let file = file()?;
    let size = spsc::minimum_file_size::<[u8; N]>(capacity(N));
    // SAFETY: a fresh file, initialised here, with one producer; the messages are bytes.
    let producer = unsafe { spsc::Producer::create(&file, size) }.map_err(|problem| problem.to_string())?;
    // SAFETY: as above, with one consumer.
    let consumer = unsafe { spsc::Consumer::join(&file) }.map_err(|problem| problem.to_string())?;
    Ok((producer, consumer))
}

fn file() -> Result<File, String> {
    // SAFETY: a name that ends in 0.
    let descriptor = unsafe { libc::memfd_create(c"shaq".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    // SAFETY: only this function has the descriptor.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

impl<const N: usize> Put for spsc::Producer<[u8; N]> {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        let message: &[u8; N] = message.try_into().map_err(|_| "wrong length")?;
        poll(|| {
            let mut batch = self.write_batch();
            // SAFETY: written at once.
            let slot = unsafe { batch.try_as_mut() }?;
            slot.write(*message);
            Some(())
        });
        Ok(())
    }
}

impl<const N: usize> Get for spsc::Consumer<[u8; N]> {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let batch = self.reserve_read_batch_timeout(NonZeroUsize::MIN, PATIENCE);
        let batch = batch.map_err(|problem| format!("{problem:?}"))?;
        batch.get(0).map(|message| look(message)).ok_or_else(|| "an empty batch".to_owned())
    }
}

impl<const N: usize> Put for std::sync::Arc<mpmc::Producer<[u8; N]>> {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        let message: &[u8; N] = message.try_into().map_err(|_| "wrong length")?;
        poll(|| {
            // SAFETY: written at once.
            let slot = unsafe { self.try_reserve_write() }?;
            slot.write(*message);
            Some(())
        });
        Ok(())
    }
}

impl<const N: usize> Get for mpmc::Consumer<[u8; N]> {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let message = self.reserve_read_timeout(PATIENCE).map_err(|problem| format!("{problem:?}"))?;
        Ok(look(&message.as_ref()[..]))
    }
}
