//! Who has a job, between processes: killed, stopped, forked.

use std::time::Duration;

use multiproc::{AtomicValue, GetError, JobLimits, JoinableQueue};

use crate::common::{How, Outcome, fork, kill, signal, spawn, value, wait_for, wait_until};
use crate::kit::{go_on, sleeps, stop, watchdog};

type Desk = (JoinableQueue<u32>, AtomicValue<u32>);

fn desk(jobs: u32) -> Result<Desk, Box<dyn std::error::Error>> {
    let queue = JoinableQueue::new(JobLimits::from(100).unlimited_deliveries())?;
    (0..jobs).try_for_each(|number| queue.put(number))?;
    Ok((queue, AtomicValue::new(0)?))
}

/// Takes a job, says so, and does it only when told to.
fn hold((queue, step): Desk) {
    let job = queue.get().unwrap();
    step.fetch_add(1);
    wait_for(&step, 100);
    job.done();
}

#[test]
fn killed() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = desk(1)?;
    let child = spawn(hold, (queue.clone(), step.clone()));
    wait_for(&step, 1);
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    signal(child.pid(), libc::SIGKILL);
    let job = queue.get()?;
    let holder = job.last_holder().unwrap();
    assert_eq!((job.attempts(), holder.pid(), holder.died()), (2, Some(child.pid()), true));
    // Nobody has asked for its status yet.
    wait_until(|| holder.signal().is_some());
    assert_eq!(holder.signal(), Some(libc::SIGKILL));
    child.join()?;
    assert_eq!(holder.signal(), None);
    job.done();
    queue.join()?;
    Ok(())
}

#[test]
fn killed_again_and_again() -> Outcome {
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
fn stopped() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = desk(2)?;
    let child = spawn(hold, (queue.clone(), step.clone()));
    wait_for(&step, 1);
    stop(child.pid());
    // It keeps its job; others get theirs, and time-outs hold.
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
fn sleeping_consumer_stopped() -> Outcome {
    let _watchdog = watchdog();
    let (queue, step) = desk(0)?;
    let sleepers: Vec<_> = (0..2).map(|_| spawn(hold, (queue.clone(), step.clone()))).collect();
    wait_until(|| sleepers.iter().all(|child| sleeps(child.pid())));
    stop(sleepers[0].pid());
    // Whichever of the two the wake goes to, the one that runs has a job within the second in which it looks by itself.
    queue.put(1)?;
    wait_for(&step, 1);
    queue.put(2)?;
    go_on(sleepers[0].pid());
    wait_for(&step, 2);
    step.store(100);
    sleepers.iter().for_each(value);
    queue.join()?;
    Ok(())
}

#[test]
fn forked() -> Outcome {
    let _watchdog = watchdog();
    let (queue, _) = desk(2)?;
    let job = queue.get()?;
    // The copy in the child is nobody's: neither its drop nor its `done` is ours.
    let mut copy = Some(job);
    let other = queue.clone();
    let child = fork(How::Libc, || {
        copy.take().unwrap().done();
        let mine = other.try_get().unwrap();
        i32::from(*mine != 1 || other.leased() != 2)
    });
    assert_eq!(child.wait(), 0);
    // What it took itself came back with its end.
    assert_eq!((queue.unfinished(), queue.leased()), (2, 1));
    let job = copy.unwrap();
    assert_eq!(*job, 0);
    job.done();
    assert_eq!(*queue.get()?, 1);
    Ok(())
}
