//! Processes that hold a job and are killed, stopped or forked.

use std::time::Duration;

use multiproc::{AtomicValue, GetError, JobLimits, JoinableQueue};

use crate::common::{How, Outcome, fork, kill, signal, spawn, stop, value, wait_for, wait_until};
use crate::kit::{go_on, is_asleep, watchdog};

type Desk = (JoinableQueue<u32>, AtomicValue<u32>);

fn desk(jobs: u32) -> Result<Desk, Box<dyn std::error::Error>> {
    let queue = JoinableQueue::new(JobLimits::from(100).unlimited_deliveries())?;
    (0..jobs).try_for_each(|number| queue.put(number))?;
    Ok((queue, AtomicValue::new(0)?))
}

/// Takes a job, adds itself to `step`, and finishes the job when `step` reaches 100.
fn hold((queue, step): Desk) {
    let job = queue.get().unwrap();
    step.fetch_add(1);
    wait_for(&step, 100);
    job.done();
}

#[test]
fn job_of_a_killed_process_is_delivered_again() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = desk(1)?;
    let child = spawn(hold, (queue.clone(), step.clone()));
    wait_for(&step, 1);
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    signal(child.pid(), libc::SIGKILL);
    let job = queue.get()?;
    let holder = job.last_holder().unwrap();
    assert_eq!((job.attempts(), holder.pid(), holder.died()), (2, Some(child.pid()), true));
    // This process has not reaped the child yet, so its status is there.
    wait_until(|| holder.signal().is_some());
    assert_eq!(holder.signal(), Some(libc::SIGKILL));
    child.join()?;
    assert_eq!(holder.signal(), None);
    job.done();
    queue.join()?;
    Ok(())
}

#[test]
fn thirty_killed_processes_lose_no_job() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = desk(20)?;
    for round in 1..=30 {
        let child = spawn(hold, (queue.clone(), step.clone()));
        wait_for(&step, round);
        kill(&child);
        assert_eq!((queue.unfinished(), queue.leased()), (20, 0));
    }
    let mut deliveries = 0;
    for _ in 0..20 {
        let job = queue.get()?;
        deliveries += job.attempts();
        job.done();
    }
    assert_eq!((deliveries, queue.unfinished()), (20 + 30, 0));
    Ok(())
}

#[test]
fn stopped_process_keeps_its_job() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = desk(2)?;
    let child = spawn(hold, (queue.clone(), step.clone()));
    wait_for(&step, 1);
    stop(child.pid());
    // It keeps its job. Other consumers get theirs, and time-outs hold.
    queue.get()?.done();
    assert!(matches!(queue.get_timeout(Duration::from_millis(1200)), Err(GetError::Empty)));
    assert!(!queue.join_timeout(Duration::from_millis(1200))?);
    assert_eq!((queue.unfinished(), queue.leased()), (1, 1));
    go_on(child.pid());
    step.store(100);
    value(&child);
    queue.join()?;
    Ok(())
}

#[test]
fn stopped_waiting_consumer_delays_no_job_for_long() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = desk(0)?;
    let waiters: Vec<_> = (0..2).map(|_| spawn(hold, (queue.clone(), step.clone()))).collect();
    wait_until(|| waiters.iter().all(|child| is_asleep(child.pid())));
    stop(waiters[0].pid());
    // Whichever consumer the wake-up goes to, the running one has a job within a second: then its liveness
    // poll looks.
    queue.put(1)?;
    wait_for(&step, 1);
    queue.put(2)?;
    go_on(waiters[0].pid());
    wait_for(&step, 2);
    step.store(100);
    waiters.iter().for_each(value);
    queue.join()?;
    Ok(())
}

#[test]
fn copy_of_a_job_in_a_forked_child_does_nothing() -> Outcome {
    let _watchdog = watchdog();
    let (queue, _) = desk(2)?;
    let job = queue.get()?;
    // The child's copy of the job holds no lease: neither its drop nor its `done` changes the parent's job.
    let mut copy = Some(job);
    let other = queue.clone();
    let child = fork(How::Libc, || {
        copy.take().unwrap().done();
        let mine = other.try_get().unwrap();
        i32::from(*mine != 1 || other.leased() != 2)
    });
    assert_eq!(child.wait(), 0);
    // The job that the child took itself came back when the child ended.
    assert_eq!((queue.unfinished(), queue.leased()), (2, 1));
    let job = copy.unwrap();
    assert_eq!(*job, 0);
    job.done();
    assert_eq!(*queue.get()?, 1);
    Ok(())
}
