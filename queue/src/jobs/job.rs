//! [`Job`]: a job that is leased to this thread.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use multiproc_robust::signal_of_zombie;
use multiproc_shm::InFlight;

use super::JoinableQueue;
use crate::jobs::lease::{Last, Leased};

/// A job that is leased to this thread, and its value. Call [`done`](Self::done) when the work is done;
/// dropped without that, the job returns to the front of the queue.
///
/// It derefs to its value, a `V`, which came from a `JoinableQueue<T>`. Mostly both are the same type: a
/// `Job<T>`. A job of bytes is a `Job<Vec<u8>, [u8]>`, of plain values a `Job<T, Plain<T>>`.
///
/// The lease belongs to this *thread* (a job is not `Send`): when the thread or its process ends, for
/// whatever reason, the kernel returns the job.
///
/// ```
/// use multiproc_queue::JoinableQueue;
///
/// let queue = JoinableQueue::new(16)?;
/// queue.put(vec![1, 2, 3])?;
/// let job = queue.get()?;
/// let sum: i32 = job.iter().sum();
/// job.done();
/// assert_eq!((sum, queue.unfinished()), (6, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropped without `done`, it returns to the queue"]
pub struct Job<'a, V: 'static, T: ?Sized + 'static = V> {
    lease: Lease<'a, T>,
    value: V,
    deliveries: u32,
    last: Option<Last>,
    in_flight: InFlight,
}

impl<'a, V, T: ?Sized> Job<'a, V, T> {
    pub(super) fn new(lease: Lease<'a, T>, value: V, leased: Leased, in_flight: InFlight) -> Self {
        Self { lease, value, deliveries: leased.deliveries, last: leased.last, in_flight }
    }

    /// Marks the job as done: it is never leased again.
    pub fn done(self) {
        self.into_inner();
    }

    /// Marks the job as done, and returns its value.
    pub fn into_inner(self) -> V {
        if self.lease.finish() {
            self.in_flight.release();
        }
        self.value
    }

    /// Returns the job to the front of the queue, as dropping it does.
    pub fn retry(self) {}

    /// Returns how often the job was leased, this time included: more than 1 if an earlier holder died or
    /// gave it back.
    pub fn attempts(&self) -> u32 {
        self.deliveries
    }

    /// Returns the holder before this one; `None` for the first lease, also of a replayed dead letter.
    pub fn last_holder(&self) -> Option<Holder> {
        self.last.map(Holder)
    }

    /// Leaves the lease to `task_done`, and returns the value.
    pub(super) fn leave_to_task_done(self) -> V {
        self.lease.leave_to_task_done();
        // The references are not kept; a later holder may still need them.
        self.value
    }
}

impl<V, T: ?Sized> Deref for Job<'_, V, T> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// The value in this process. If the job returns to the queue, its next holder gets what was put.
impl<V, T: ?Sized> DerefMut for Job<'_, V, T> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.value
    }
}

impl<V: fmt::Debug, T: ?Sized> fmt::Debug for Job<'_, V, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("value", &self.value)
            .field("attempts", &self.deliveries)
            .field("last_holder", &self.last_holder())
            .finish()
    }
}

/// A lease that this thread holds; dropping it returns the job.
pub(super) struct Lease<'a, T: ?Sized + 'static> {
    queue: &'a JoinableQueue<T>,
    number: usize,
    /// Not `Send`: the kernel knows the lease as this thread's.
    here: PhantomData<*const ()>,
}

impl<'a, T: ?Sized> Lease<'a, T> {
    pub(super) fn new(queue: &'a JoinableQueue<T>, number: usize) -> Self {
        Self { queue, number, here: PhantomData }
    }

    fn finish(self) -> bool {
        let this = ManuallyDrop::new(self);
        this.queue.view().finish(this.number)
    }

    fn leave_to_task_done(self) {
        let this = ManuallyDrop::new(self);
        this.queue.view().note_taken(this.number);
    }
}

impl<T: ?Sized> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        // In a forked child this does nothing: the lease is its parent's.
        self.queue.view().give_back_job(self.number);
    }
}

/// An earlier holder of a job.
#[derive(Clone, Copy)]
pub struct Holder(pub(super) Last);

impl Holder {
    /// Returns its process; `None` if it died in the few instructions between taking the lease and signing
    /// it.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
    pub fn pid(&self) -> Option<u32> {
        Some((self.0.holder >> 32) as u32).filter(|pid| *pid != 0)
    }

    /// Returns whether it died with the job; otherwise it gave the job back.
    pub fn died(&self) -> bool {
        self.0.died
    }

    /// Returns the signal that ended its process. `None` if it did not die by a signal, or after its parent
    /// has collected its status.
    pub fn signal(&self) -> Option<i32> {
        self.pid().filter(|_| self.0.died).and_then(signal_of_zombie)
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder")
            .field("pid", &self.pid())
            .field("died", &self.died())
            .field("signal", &self.signal())
            .finish()
    }
}
