//! iceoryx2: publish and subscribe without copies, used as a queue: one publisher, one subscriber, no
//! overwriting. `receive` never waits, so both sides poll.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{
    BackpressureStrategy, Config, LogLevel, Node, NodeBuilder, ServiceName, ipc, set_log_level,
};

use super::poll;
use crate::harness::Row;
use crate::os::{self, Apart, Scratch, Sharable};
use crate::queue::{Get, Put, Traffic, capacity, run};
use crate::race::How;
use crate::roundtrip::{SIZE, Trip};

pub(crate) fn queue(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static, scratch: &Scratch) {
    // Each subscriber gets every message.
    if traffic(1).consumers > 1 {
        return;
    }
    let path = scratch.path().to_owned();
    row.add("iceoryx2", How::Processes, move |n| {
        let (traffic, rendezvous) = (traffic(n), os::shared::<Rendezvous>());
        let channel = Channel::new(&path, "queue", traffic.size);
        let same = channel.clone();
        let put = move |_| {
            let sender = channel.sender()?;
            rendezvous.meet(|| Ok(()))?;
            Ok(sender)
        };
        let get = move |_| {
            let receiver = same.receiver()?;
            rendezvous.meet(|| receiver.connect())?;
            Ok(receiver)
        };
        run(traffic, How::Processes, put, get)
    });
}

pub(crate) fn roundtrip(row: &mut Row, trip: Trip, scratch: &Scratch) {
    // Both sides poll, so they never sleep.
    if trip.parked {
        return;
    }
    let path = scratch.path().to_owned();
    trip.add(row, "iceoryx2", How::Processes, move |n| {
        let (there, back) = (Channel::new(&path, "there", SIZE), Channel::new(&path, "back", SIZE));
        let rendezvous: &Rendezvous = os::shared();
        let ends = |put: Channel, get: Channel| {
            move || {
                let (sender, receiver) = (put.sender()?, get.receiver()?);
                rendezvous.meet(|| receiver.connect())?;
                Ok((sender, receiver))
            }
        };
        trip.run(How::Processes, n, ends(there.clone(), back.clone()), ends(back, there))
    });
}

/// Orders the start: both sides are made, then the subscriber calls `receive` once, then messages are sent.
/// Otherwise `send` may return `Ok` and drop the message.
#[derive(Default)]
struct Rendezvous {
    made: Apart<AtomicU64>,
    looked: Apart<AtomicU64>,
}
// SAFETY: atomics only.
unsafe impl Sharable for Rendezvous {}

impl Rendezvous {
    fn meet(&self, look: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let both = |count: &AtomicU64| {
            count.fetch_add(1, SeqCst);
            poll(|| (count.load(SeqCst) == 2).then_some(()));
        };
        both(&self.made);
        look()?;
        both(&self.looked);
        Ok(())
    }
}

/// A service with one publisher and one subscriber.
#[derive(Clone)]
struct Channel {
    path: PathBuf,
    name: String,
    size: usize,
}

type Service = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;

impl Channel {
    fn new(path: &Path, role: &str, size: usize) -> Self {
        Self { path: path.to_owned(), name: format!("{role}-{}-{}", std::process::id(), os::now()), size }
    }

    fn sender(&self) -> Result<Sender, String> {
        let (node, service) = self.service().map_err(|problem| format!("{problem:?}"))?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(self.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(|problem| format!("{problem:?}"))?;
        Ok(Sender { publisher, _service: service, _node: node })
    }

    fn receiver(&self) -> Result<Receiver, String> {
        let (node, service) = self.service().map_err(|problem| format!("{problem:?}"))?;
        let builder = service.subscriber_builder().buffer_size(capacity(self.size));
        let subscriber = builder.create().map_err(|problem| format!("{problem:?}"))?;
        Ok(Receiver { subscriber, _service: service, _node: node })
    }

    fn service(&self) -> Result<(Node<ipc::Service>, Service), Box<dyn std::error::Error>> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        let root =
            self.path.to_string_lossy().as_ref().try_into().map_err(|problem| format!("{problem:?}"))?;
        config.global.set_root_path(&root);
        // Files that it makes elsewhere have names that begin like the scratch directory's, and are removed
        // with it.
        let prefix =
            self.path.file_name().map_or_else(String::new, |name| format!("{}-", name.to_string_lossy()));
        config.global.prefix = prefix.as_str().try_into().map_err(|problem| format!("{problem:?}"))?;
        let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
        let name = ServiceName::new(&self.name)?;
        let service = node
            .service_builder(&name)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .subscriber_max_buffer_size(capacity(self.size))
            .open_or_create()?;
        Ok((node, service))
    }
}

struct Sender {
    publisher: Publisher<ipc::Service, [u8], ()>,
    _service: Service,
    _node: Node<ipc::Service>,
}

struct Receiver {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    _service: Service,
    _node: Node<ipc::Service>,
}

impl Receiver {
    fn connect(&self) -> Result<(), String> {
        match self.subscriber.receive() {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|_| "a message before the first"))),
        }
    }
}

impl Put for Sender {
    #[inline]
    fn put(&mut self, message: &[u8]) -> Result<(), String> {
        let sample =
            self.publisher.loan_slice_uninit(message.len()).map_err(|problem| format!("{problem:?}"))?;
        sample.write_from_slice(message).send().map(|_| ()).map_err(|problem| format!("{problem:?}"))
    }
}

impl Get for Receiver {
    #[inline]
    fn get<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let sample =
            poll(|| self.subscriber.receive().transpose()).map_err(|problem| format!("{problem:?}"))?;
        Ok(look(sample.payload()))
    }
}
