//! cloudtoid-interprocess: messages of any size between many processes. Its subscribers have a blocking call;
//! a publisher can only poll while the queue is full.

use std::path::PathBuf;

use cloudtoid_interprocess::{Error, Options, Publisher, Subscriber};

use super::poll;
use crate::harness::Row;
use crate::os::{self, Scratch};
use crate::queue::{Get, Put, Traffic, capacity, run};
use crate::race::How;
use crate::roundtrip::{SIZE, Trip};

pub(crate) fn queue(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static, scratch: &Scratch) {
    let path = scratch.path().to_owned();
    row.add("cloudtoid", How::Processes, move |n| {
        let traffic = traffic(n);
        let options = options(&path, "queue", traffic.size);
        let same = options.clone();
        run(traffic, How::Processes, move |_| publisher(&options), move |_| subscriber(&same))
    });
}

pub(crate) fn roundtrip(row: &mut Row, trip: Trip, scratch: &Scratch) {
    let path = scratch.path().to_owned();
    trip.add(row, "cloudtoid", How::Processes, move |n| {
        let (there, back) = (options(&path, "there", SIZE), options(&path, "back", SIZE));
        let ends = |put: Options, get: Options| move || Ok((publisher(&put)?, subscriber(&get)?));
        trip.run(How::Processes, n, ends(there.clone(), back.clone()), ends(back, there))
    });
}

/// Every worker opens the queue before the first message: the last worker to close it unlinks it.
fn options(path: &PathBuf, role: &str, size: usize) -> Options {
    let name = format!("{role}-{}-{}", std::process::id(), os::now());
    Options::new(name, capacity(size) * (size + 16)).with_path(path)
}

fn publisher(options: &Options) -> Result<Publisher, String> {
    Publisher::open(options).map_err(|problem| problem.to_string())
}

fn subscriber(options: &Options) -> Result<Subscriber, String> {
    Subscriber::open(options).map_err(|problem| problem.to_string())
}

impl Put for Publisher {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        poll(|| match self.try_send(message) {
            Err(Error::Full) => None,
            result => Some(result.map_err(|problem| problem.to_string())),
        })
    }
}

impl Get for Subscriber {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        self.recv().map(|message| look(&message)).map_err(|problem| problem.to_string())
    }
}
