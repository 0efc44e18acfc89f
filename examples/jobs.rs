//! Three processes do jobs. One more is killed while it has a job, which is delivered again. One job always
//! fails, and becomes a dead letter.
//!
//! `cargo run --example jobs`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{error::Error, thread};

use multiproc::{AtomicValue, JobLimits, JoinableQueue, Process, process::Exit};

/// Numbers to be squared; squares are added up.
type Squares = (JoinableQueue<u64>, AtomicValue<u64>);

fn work((jobs, sum): Squares) -> Result<u32, String> {
    let mut again = 0;
    for job in jobs.iter() {
        let job = job.map_err(|error| error.to_string())?;
        again += u32::from(job.attempts() > 1);
        if *job == 13 {
            // This job always fails. Dropping a job gives it back.
            continue;
        }
        sum.fetch_add(*job * *job);
        job.done();
    }
    Ok(again)
}

/// Takes a job, sets `holding`, and never finishes the job.
fn hold((jobs, holding): (JoinableQueue<u64>, AtomicValue<u64>)) {
    let job = jobs.get();
    holding.store(1);
    while job.is_ok() {
        thread::park();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    multiproc::init();
    let jobs = JoinableQueue::new(JobLimits::from(100).max_deliveries(3))?;
    jobs.put(1)?;
    let holding = AtomicValue::new(0)?;
    let holder = Process::spawn(hold, (jobs.clone(), holding.clone()))?;
    while holding.load() == 0 {
        thread::yield_now();
    }

    let sum = AtomicValue::new(0)?;
    let workers =
        (0..3).map(|_| Process::spawn(work, (jobs.clone(), sum.clone()))).collect::<Result<Vec<_>, _>>()?;
    (2..=20).try_for_each(|number| jobs.put(number))?;
    println!(
        "{} unfinished, {} leased; killing the process that holds its job",
        jobs.unfinished(),
        jobs.leased()
    );
    holder.kill()?;
    jobs.join()?;
    jobs.close();

    let mut again = 0;
    for worker in workers {
        if let Exit::Value(count) = worker.join()? {
            again += count?;
        }
    }
    let letters = jobs.dead_letters().list()?;
    let failed = letters[0].value()?;
    println!("the squares add up to {}; {again} redeliveries; {failed} is a dead letter", sum.load());
    assert_eq!((sum.load(), letters.len(), letters[0].attempts()), (2870 - 169, 1, 3));
    // The killed process had received 1, once. 13 was delivered three times.
    assert_eq!(again, 3);
    let counters = jobs.counters();
    assert_eq!((counters.puts, counters.gets, counters.redelivered, counters.dead_lettered), (20, 20, 3, 1));
    Ok(())
}
