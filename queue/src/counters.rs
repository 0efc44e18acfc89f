//! [`Counters`] and [`JobCounters`]: what has passed through a queue.

use multiproc_ring::Counters;

use crate::jobs::JoinableQueue;
use crate::queue::Queue;

impl<T: ?Sized + 'static> Queue<T> {
    /// Returns what has passed through it since it was made: a snapshot.
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
    pub fn counters(&self) -> Counters {
        self.view().counters()
    }
}

/// What has passed through a [`JoinableQueue`] since it was made, in all processes: a snapshot. The counters
/// are always on.
///
/// ```
/// use multiproc_queue::JoinableQueue;
///
/// let queue = JoinableQueue::new(16)?;
/// queue.put(7_u8)?;
/// queue.get()?.retry();
/// queue.get()?.done();
/// let counters = queue.counters();
/// assert_eq!((counters.puts, counters.gets, counters.redelivered, counters.dead_lettered), (1, 1, 1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobCounters {
    /// Jobs that were put: exact, whichever process dies. (A replayed dead letter is not put again.)
    pub puts: u64,
    /// Jobs that were leased for the first time: exact, whichever process dies. `puts - gets` wait.
    pub gets: u64,
    /// How often a job was leased again after its holder gave it back or died: exact, whichever process dies;
    /// it corresponds to [`attempts`](crate::Job::attempts) above 1. So jobs were leased `gets + redelivered`
    /// times; each replayed dead letter adds one.
    pub redelivered: u64,
    /// Jobs that became [dead letters](JoinableQueue::dead_letters): exact, whichever process dies. Those
    /// that were taken or replayed since count, too.
    pub dead_lettered: u64,
    /// Bytes of the jobs that were put, encoded, without headers. If a producer is killed in `put`, its job
    /// may count and its bytes not.
    pub bytes: u64,
    /// How often a producer went to sleep for lack of room, the liveness poll once a second included. Near 0
    /// if consumers are faster.
    pub put_sleeps: u64,
    /// How often a consumer went to sleep for lack of a job or of a free lease, the liveness poll included;
    /// `join` does not count. Near 0 if producers are faster.
    pub get_sleeps: u64,
    /// How often a process died holding a lock of this queue (in a put, a get or a close), so that another
    /// took it over. A process that dies with a job, and elsewhere, is not counted here: its job is counted
    /// above.
    pub deaths: u64,
}

impl<T: ?Sized + 'static> JoinableQueue<T> {
    /// Returns what has passed through it since it was made: a snapshot.
    pub fn counters(&self) -> JobCounters {
        self.view().job_counters()
    }
}
