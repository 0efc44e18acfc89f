//! [`Job`]: a message that is out with this thread.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use multiproc_robust::signal_of_zombie;
use multiproc_shm::Tickets;

use super::JoinableQueue;
use crate::jobs::lease::{Last, Leased};

/// A job that is this thread's: its value, and the duty to say [`done`](Self::done). Dropped without that, it is given back, to the front.
///
/// It derefs to its value, a `V`, which came from a `JoinableQueue<T>`. Mostly that is the same: a `Job<T>`. Of bytes it is a `Job<Vec<u8>, [u8]>`, of plain values a `Job<T, Plain<T>>`.
///
/// It belongs to this *thread* (it is not `Send`): when the thread ends, or its process, by whatever death, the kernel gives the job back.
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
#[must_use = "dropped, it is given back"]
pub struct Job<'a, V: 'static, T: ?Sized + 'static = V> {
    lease: Lease<'a, T>,
    value: V,
    deliveries: u32,
    last: Option<Last>,
    tickets: Tickets,
}

impl<'a, V, T: ?Sized> Job<'a, V, T> {
    pub(super) fn new(lease: Lease<'a, T>, value: V, leased: Leased, tickets: Tickets) -> Self {
        Self { lease, value, deliveries: leased.deliveries, last: leased.last, tickets }
    }

    /// It is done: nobody gets it again.
    pub fn done(self) {
        self.into_inner();
    }

    /// It is done, and its value is the caller's.
    pub fn into_inner(self) -> V {
        if self.lease.finish() {
            self.tickets.redeem();
        }
        self.value
    }

    /// Gives it back, to be handed out again before others, as dropping it does.
    pub fn retry(self) {}

    /// How often it was handed out, this time included: more than 1 where somebody has died with it, or has given it back.
    pub fn attempts(&self) -> u32 {
        self.deliveries
    }

    /// Who had it before this time; `None` the first time, and for a dead letter that was brought back to life.
    pub fn last_holder(&self) -> Option<Holder> {
        self.last.map(Holder)
    }

    /// Forgets the duty; `task_done` has it from now on.
    pub(super) fn leave_to_task_done(self) -> V {
        self.lease.leave_to_task_done();
        // Nobody remembers them; a second reader may still need them.
        self.value
    }
}

impl<V, T: ?Sized> Deref for Job<'_, V, T> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// The value in this process; what is handed out again, should it come to that, is what was put.
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

/// A slot that this thread holds, to be given back.
pub(super) struct Lease<'a, T: ?Sized + 'static> {
    queue: &'a JoinableQueue<T>,
    slot: usize,
    /// The kernel knows it as this thread's.
    here: PhantomData<*const ()>,
}

impl<'a, T: ?Sized> Lease<'a, T> {
    pub(super) fn new(queue: &'a JoinableQueue<T>, slot: usize) -> Self {
        Self { queue, slot, here: PhantomData }
    }

    fn finish(self) -> bool {
        let this = ManuallyDrop::new(self);
        this.queue.view().finish(this.slot)
    }

    fn leave_to_task_done(self) {
        let this = ManuallyDrop::new(self);
        this.queue.view().note_taken(this.slot);
    }
}

impl<T: ?Sized> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        // In a forked child this does nothing: the job is its parent's.
        self.queue.view().give_back_job(self.slot);
    }
}

/// Who had a job before.
#[derive(Clone, Copy)]
pub struct Holder(pub(super) Last);

impl Holder {
    /// Its process; `None` if it died in the few instructions in which it took the job, before it had signed.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
    pub fn pid(&self) -> Option<u32> {
        Some((self.0.holder >> 32) as u32).filter(|pid| *pid != 0)
    }

    /// Whether it died with the job; else it has given it back.
    pub fn died(&self) -> bool {
        self.0.died
    }

    /// The signal that ended its process, as long as that can be known: until its parent has asked for its status.
    pub fn signal(&self) -> Option<i32> {
        self.pid().filter(|_| self.0.died).and_then(signal_of_zombie)
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").field("pid", &self.pid()).field("died", &self.died()).field("signal", &self.signal()).finish()
    }
}
