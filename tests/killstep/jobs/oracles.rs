//! What queues of jobs must be like after a death, and what a stopped process must not disturb.

use std::ops::Range;
use std::time::{Duration, Instant};

use multiproc::GetError;
use multiproc_killstep::{Fault, Kill, Mode};

use super::{DONE, Jobs};
use crate::support::{BRIEFLY, in_time, peers_go_on};

/// Polls until the job that was returned too often is a dead letter. (Polling also finds a death that the
/// kernel has missed.)
pub(crate) fn until_dead_lettered(queue: &Jobs, kill: &Kill<'_>) -> Result<(), Fault> {
    let deadline = Instant::now() + kill.patience();
    while queue.unfinished() != 0 {
        if let Ok(job) = queue.try_get() {
            job.retry();
        }
        if Instant::now() > deadline {
            return Err(Fault::Hang(format!("{queue:?}")));
        }
    }
    Ok(())
}

pub(crate) fn deaths(kill: &Kill<'_>) -> usize {
    match kill.mode() {
        Mode::Freeze => 0,
        Mode::Double => 2,
        _ => 1,
    }
}

/// Takes everything out, and does it.
pub(crate) fn collect(queue: &Jobs, kill: &Kill<'_>) -> Result<Vec<u32>, Fault> {
    let mut got = Vec::new();
    while queue.unfinished() != 0 {
        match queue.get_timeout(kill.patience()) {
            Ok(job) => got.push(job.into_inner()),
            // A peer had it, and did it.
            Err(GetError::Empty) if queue.unfinished() == 0 => break,
            Err(error) => {
                return Err(Fault::Hang(format!("{error}, but {} are unfinished", queue.unfinished())));
            }
        }
        if got.len() > 20 {
            return Err(Fault::Torn(format!("there is no end of jobs: {got:?}")));
        }
    }
    Ok(got)
}

/// Each of these jobs is there once, or was done once. `unnoted`: as many may be done without a note, because
/// the process that did them was killed.
pub(crate) fn accounted(
    got: &[u32],
    kill: &Kill<'_>,
    numbers: Range<u32>,
    unnoted: usize,
) -> Result<(), Fault> {
    let mut missing = 0;
    for number in numbers {
        let there = got.iter().filter(|job| **job == number).count();
        let done = usize::try_from(kill.cell(DONE + number as usize)).unwrap_or(usize::MAX);
        match there + done {
            0 => missing += 1,
            1 => {}
            times => return Err(Fault::Torn(format!("job {number}, {times} times there"))),
        }
    }
    if missing > unnoted { Err(Fault::Lost(format!("{missing} jobs; there are {got:?}"))) } else { Ok(()) }
}

/// The victim put a job, and so did its recoverer.
pub(crate) fn put_there(queue: &Jobs, kill: &Kill<'_>) -> Result<(), Fault> {
    let there = collect(queue, kill)?.len();
    let (least, most) =
        (usize::from(kill.finished()) + usize::from(kill.recoverer_finished()), deaths(kill).max(1));
    if there < least || there > most {
        return Err(Fault::Lost(format!("{there} jobs of {least} to {most}")));
    }
    rest_is_usable(queue, kill)
}

/// No job was done without a note.
pub(crate) fn all_there(queue: &Jobs, kill: &Kill<'_>, count: u32) -> Result<(), Fault> {
    accounted(&collect(queue, kill)?, kill, 0..count, 0)?;
    rest_is_usable(queue, kill)
}

/// The victim does a job, and so does its recoverer.
pub(crate) fn some_done(queue: &Jobs, kill: &Kill<'_>, count: u32) -> Result<(), Fault> {
    accounted(&collect(queue, kill)?, kill, 0..count, deaths(kill).max(1))?;
    rest_is_usable(queue, kill)
}

/// Each of these jobs is there once: unfinished, or a dead letter.
pub(crate) fn dead_letters_too(queue: &Jobs, kill: &Kill<'_>, count: u32) -> Result<(), Fault> {
    let mut got = collect(queue, kill)?;
    let letters = queue.dead_letters().list()?;
    got.extend(letters.iter().map(|letter| letter.value().unwrap_or(u32::MAX)));
    accounted(&got, kill, 0..count, 0)?;
    while queue.dead_letters().take()?.is_some() {}
    rest_is_usable(queue, kill)
}

/// The joining peers go on once all is done, without help if the victim has done it.
pub(crate) fn joined(queue: &Jobs, kill: &Kill<'_>, joiners: usize) -> Result<(), Fault> {
    let got = collect(queue, kill)?;
    accounted(&got, kill, 0..1, deaths(kill).max(1))?;
    (0..joiners).try_for_each(|peer| kill.must_wake(peer).map(drop))?;
    rest_is_usable(queue, kill)
}

pub(crate) fn rest_is_usable(queue: &Jobs, kill: &Kill<'_>) -> Result<(), Fault> {
    for number in 0..5 {
        queue.put_timeout(number, kill.patience())?;
        let job = queue.get_timeout(kill.patience())?;
        if (*job, job.attempts(), queue.unfinished(), queue.leased()) != (number, 1, 1, 1) {
            return Err(Fault::Torn(format!("{job:?} of {queue:?}")));
        }
        job.done();
    }
    let finished = queue.unfinished() == 0 && queue.leased() == 0 && queue.join_timeout(kill.patience())?;
    if finished { Ok(()) } else { Err(Fault::Torn(format!("{queue:?}"))) }
}

/// While the victim stands still, time-outs hold, no process gets what it has leased, and the peers go on if
/// it has nothing.
pub(crate) fn stands_still(queue: &Jobs, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    let begin = Instant::now();
    match queue.join_timeout(BRIEFLY) {
        Ok(all_done) if all_done && queue.unfinished() != 0 => {
            return Err(Fault::Torn("joined too early".into()));
        }
        Ok(_) => in_time("join_timeout", begin, BRIEFLY)?,
        Err(error) => return Err(error.into()),
    }
    let held = queue.leased();
    let begin = Instant::now();
    match queue.get_timeout(BRIEFLY) {
        // One more is leased now: it was not the victim's.
        Ok(job) if queue.leased() > held => job.retry(),
        Ok(job) => return Err(Fault::Torn(format!("{job:?} was taken from the stopped victim"))),
        Err(GetError::Empty | GetError::Busy | GetError::Closed) => {}
        Err(error) => return Err(error.into()),
    }
    in_time("get_timeout", begin, BRIEFLY)?;
    let begin = Instant::now();
    match queue.try_get() {
        Ok(job) => job.retry(),
        Err(GetError::Empty | GetError::Busy | GetError::Closed) => {}
        Err(error) => return Err(error.into()),
    }
    in_time("try_get", begin, Duration::ZERO)?;
    peers_go_on(kill, peers)
}
