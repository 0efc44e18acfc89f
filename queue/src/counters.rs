//! [`Counters`] and [`JobCounters`]: what has gone through a queue.

use multiproc_ring::Counters;

use crate::jobs::JoinableQueue;
use crate::queue::Queue;

impl<T: ?Sized + 'static> Queue<T> {
    /// What has gone through it since it was made.
    pub fn counters(&self) -> Counters {
        self.view().counters()
    }
}

/// What has gone through a [`JoinableQueue`] since it was made, by all processes: a snapshot. They are always counted.
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
    /// Jobs that were put: exact, whoever dies. (A dead letter that is brought back to life is not put again.)
    pub puts: u64,
    /// Jobs that were handed out for the first time: exact, whoever dies. `puts - gets` wait.
    pub gets: u64,
    /// How often a job was handed out once more that somebody has given back, or has died with: exact, whoever dies, as its [`attempts`](crate::Job::attempts) above 1. So jobs were handed out `gets + redelivered` times;
    /// those that were brought back to life once more each.
    pub redelivered: u64,
    /// Jobs that became [dead letters](JoinableQueue::dead_letters): exact, whoever dies; also those that were taken out or brought back to life since.
    pub dead_lettered: u64,
    /// Bytes of the jobs that were put, as they travel: encoded, and without their headers. Of a producer that is killed in `put` the job may count and its bytes not.
    pub bytes: u64,
    /// How often somebody went to sleep for want of room, each look round once a second included. Near 0 where consumers are faster.
    pub put_sleeps: u64,
    /// How often somebody went to sleep for want of a job, or of a slot for one, likewise; who joins is not among them. Near 0 where producers are faster.
    pub get_sleeps: u64,
    /// How often somebody died with a lock of this queue in his hands, in the midst of a put, a get or a close, and another took it over. Who dies with a job in his hands, and elsewhere, is not counted: the job is.
    pub deaths: u64,
}

impl<T: ?Sized + 'static> JoinableQueue<T> {
    /// What has gone through it since it was made.
    pub fn counters(&self) -> JobCounters {
        self.view().job_counters()
    }
}
