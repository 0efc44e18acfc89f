//! Queues of jobs as the cases need them, and what the processes do with a job.

use multiproc::{GetError, JobLimits, JoinableQueue};
use multiproc_killstep::Cells;

use super::{DONE, Jobs};

/// No lease was ever used.
pub(crate) fn fresh() -> Jobs {
    JoinableQueue::new(JobLimits::from(8).unlimited_deliveries()).unwrap()
}

/// So many jobs, from 0 on, in a queue whose leases have been used.
pub(crate) fn jobs(count: u32) -> Jobs {
    put(used(fresh()), count)
}

pub(crate) fn fresh_deadly() -> Jobs {
    JoinableQueue::new(JobLimits::from(8).max_deliveries(1)).unwrap()
}

pub(crate) fn deadly() -> Jobs {
    let queue = used(fresh_deadly());
    queue.put(9).unwrap();
    queue.get().unwrap().retry();
    assert!(queue.try_get().is_err() && queue.dead_letters().take().unwrap().is_some());
    queue
}

pub(crate) fn used(queue: Jobs) -> Jobs {
    put(queue.clone(), 3);
    let jobs: Vec<_> = (0..3).map(|_| queue.get().unwrap()).collect();
    jobs.into_iter().for_each(multiproc::Job::done);
    queue
}

pub(crate) fn put(queue: Jobs, count: u32) -> Jobs {
    (0..count).for_each(|number| queue.put(number).unwrap());
    queue
}

/// The first job was returned.
pub(crate) fn back(queue: Jobs) -> Jobs {
    queue.get().unwrap().retry();
    queue
}

/// Two dead letters, 0 and 1.
pub(crate) fn dead_lettered() -> Jobs {
    let queue = put(deadly(), 2);
    for _ in 0..2 {
        queue.get().unwrap().retry();
    }
    assert!(queue.try_get().is_err() && queue.dead_letters().len() == 2);
    queue
}

pub(crate) fn closing() -> Jobs {
    let queue = jobs(1);
    queue.close();
    queue
}

/// Dies with the job; a process that was only stopped returns the job in the end.
pub(crate) fn hold(job: Result<multiproc::Job<'_, u32>, GetError>) {
    drop(job);
}

pub(crate) fn finish(job: Result<multiproc::Job<'_, u32>, GetError>, cells: &Cells) {
    if let Ok(job) = job {
        let number = *job;
        job.done();
        cells.add(DONE + number as usize, 1);
    }
}

pub(crate) fn nap() {
    // SAFETY: no descriptors at all.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}
