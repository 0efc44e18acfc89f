//! [`Counters`]: what has gone through a queue.

use crate::queue::Queue;

/// What has gone through a queue since it was made, by all processes: a snapshot. They are always counted, and cost nothing that could be measured.
///
/// ```
/// use multiproc_queue::Queue;
///
/// let queue: Queue<[u8]> = Queue::new(16)?;
/// queue.put_bytes(b"hello")?;
/// queue.put_bytes(b"world")?;
/// queue.get_bytes()?;
/// let counters = queue.counters();
/// assert_eq!((counters.puts, counters.gets, counters.bytes), (2, 1, 10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages that were put: exact, whoever dies.
    pub puts: u64,
    /// Messages that were taken: exact, whoever dies.
    pub gets: u64,
    /// Bytes of the messages that were put, as they travel: encoded, and without their headers. Of a producer that is killed in `put` the message may count and its bytes not.
    pub bytes: u64,
    /// How often somebody went to sleep for want of room, each look round once a second included. Near 0 where consumers are faster.
    pub put_sleeps: u64,
    /// How often somebody went to sleep for want of a message, likewise. Near 0 where producers are faster.
    pub get_sleeps: u64,
    /// How often somebody died with a lock of this queue in his hands, in the midst of a put, a get or a close, and another took it over. Who dies elsewhere disturbs nobody and is not counted.
    pub deaths: u64,
}

impl<T: ?Sized + 'static> Queue<T> {
    /// What has gone through it since it was made.
    pub fn counters(&self) -> Counters {
        self.view().counters()
    }
}
