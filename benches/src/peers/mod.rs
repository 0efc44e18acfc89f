//! The rivals, and the limits.

pub(crate) mod limit;
pub(crate) mod pthread;
pub(crate) mod python;
pub(crate) mod std_sync;

#[cfg(feature = "rivals")]
mod cloudtoid;
#[cfg(feature = "rivals")]
mod crossbeam;
#[cfg(feature = "iceoryx2")]
mod iceoryx2;
#[cfg(feature = "rivals")]
mod ipc;
#[cfg(feature = "rivals")]
pub(crate) mod parking_lot;
#[cfg(feature = "rivals")]
pub(crate) mod procspawn;
#[cfg(feature = "rivals")]
mod shaq;

use crate::harness::Row;
use crate::os::Scratch;
use crate::queue::Traffic;
use crate::roundtrip::Trip;

/// Adds the rivals that have a queue.
pub(crate) fn queues(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static, scratch: &Scratch) {
    std_sync::queue(row, traffic);
    #[cfg(feature = "rivals")]
    {
        crossbeam::queue(row, traffic);
        ipc::queue(row, traffic);
        shaq::queue(row, traffic);
        cloudtoid::queue(row, traffic, scratch);
    }
    #[cfg(feature = "iceoryx2")]
    iceoryx2::queue(row, traffic, scratch);
    #[cfg(not(feature = "rivals"))]
    let _ = scratch.path();
}

/// Adds crossbeam's channel of vectors, which carries messages of any length between threads.
pub(crate) fn crossbeam_vectors(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static) {
    #[cfg(feature = "rivals")]
    crossbeam::vectors(row, traffic);
    #[cfg(not(feature = "rivals"))]
    let _ = (row, traffic);
}

/// Adds the rival whose queue takes any number of producers in one process.
pub(crate) fn crossbeam_queue(row: &mut Row, traffic: impl Fn(u64) -> Traffic + Copy + 'static) {
    #[cfg(feature = "rivals")]
    crossbeam::queue(row, traffic);
    #[cfg(not(feature = "rivals"))]
    let _ = (row, traffic);
}

/// Adds the rivals whose queues can carry requests and answers.
pub(crate) fn roundtrips(row: &mut Row, trip: Trip, scratch: &Scratch) {
    std_sync::roundtrip(row, trip);
    #[cfg(feature = "rivals")]
    {
        crossbeam::roundtrip(row, trip);
        ipc::roundtrip(row, trip);
        shaq::roundtrip(row, trip);
        cloudtoid::roundtrip(row, trip, scratch);
    }
    #[cfg(feature = "iceoryx2")]
    iceoryx2::roundtrip(row, trip, scratch);
    #[cfg(not(feature = "rivals"))]
    let _ = scratch.path();
}

/// Calls `ready` until it returns a value, for rivals without a blocking call. After 128 calls it yields the
/// CPU between two calls.
#[cfg(feature = "rivals")]
#[inline]
pub(crate) fn poll<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let mut looks = 0u32;
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        looks = looks.saturating_add(1);
        if looks < 128 { std::hint::spin_loop() } else { crate::os::yield_now() }
    }
}

/// A message in a channel of threads: an array in its slot, or boxed.
pub(crate) trait Message: AsRef<[u8]> + Send + 'static {
    fn from_bytes(bytes: &[u8]) -> Option<Self>
    where
        Self: Sized;
}

impl<const N: usize> Message for [u8; N] {
    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

impl Message for Vec<u8> {
    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(bytes.into())
    }
}

impl Message for Box<[u8]> {
    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(bytes.into())
    }
}

#[inline]
fn message<M: Message>(bytes: &[u8]) -> Result<M, String> {
    M::from_bytes(bytes).ok_or_else(|| "wrong length".to_owned())
}
