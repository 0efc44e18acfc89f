//! Jobs: what was put is there until it is done, out with one living holder at most, and comes back when that one dies; everybody who waits goes on.

use std::ops::Range;
use std::time::{Duration, Instant};

use multiproc::{GetError, JobLimits, JoinableQueue, PutError};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{BRIEFLY, SOON, WAITV, await_asleep, beginnings, in_time, nothing_left, peers_go_on, sign, wait_for};

type Jobs = JoinableQueue<u32>;

/// Cells: what was got, by number of the process (victim, heir, peers); who the peers are, from here on.
const PEER: usize = 10;
/// Jobs that were done, by their number, from here on.
const DONE: usize = 20;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn cases() -> Vec<Case<'static, Jobs>> {
    vec![
        case("jobs/put", || jobs(0), |queue, _| drop(queue.put(0)), put_there),
        case("jobs/try_put", || jobs(0), |queue, _| drop(queue.try_put(0)), put_there),
        case("jobs/put_timeout", || jobs(0), |queue, _| drop(queue.put_timeout(0, SOON)), put_there),
        case("jobs/get", || jobs(2), |queue, _| hold(queue.get()), |queue, kill| all_there(queue, kill, 2)).sampled(2),
        case("jobs/try_get", || jobs(2), |queue, _| hold(queue.try_get()), |queue, kill| all_there(queue, kill, 2)),
        case("jobs/get_timeout", || jobs(2), |queue, _| hold(queue.get_timeout(SOON)), |queue, kill| all_there(queue, kill, 2)),
        case(
            "jobs/get, the first use of a slot",
            || put(fresh(), 2),
            |queue, _| hold(queue.get()),
            |queue, kill| all_there(queue, kill, 2),
        ),
        case(
            "jobs/get, one that came back",
            || back(jobs(2)),
            |queue, _| hold(queue.get()),
            |queue, kill| all_there(queue, kill, 2),
        ),
        case(
            "jobs/get, another waits",
            || jobs(2),
            |queue, _| hold(queue.get()),
            |queue, kill| {
                kill.must_wake(0)?;
                all_there(queue, kill, 2)
            },
        )
        .late_peer(|queue, cells| finish(queue.get(), cells))
        .sampled(2),
        case(
            "jobs/get, the holder dies, another sleeps",
            || jobs(1),
            |queue, _| hold(queue.get()),
            |queue, kill| {
                kill.must_wake(0)?;
                all_there(queue, kill, 1)
            },
        )
        .late_peer(|queue, cells| finish(queue.get(), cells))
        .frozen(|queue, kill| stands_still(queue, kill, 0)),
        case(
            "jobs/get, asleep, woken",
            || jobs(0),
            |queue, _| hold(queue.get()),
            |queue, kill| {
                queue.put(1)?;
                kill.must_wake(0)?;
                let got = collect(queue, kill)?;
                accounted(&got, kill, 1..2 + u32::try_from(kill.cell(2)).unwrap_or(0), 0)?;
                rest_is_usable(queue, kill)
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            finish(queue.get(), cells);
        })
        .release(|queue, cells| {
            // Again and again: the peer takes the first.
            let number = cells.get(2);
            cells.set(2, number + 1);
            queue.put(2 + u32::try_from(number).unwrap()).unwrap();
        })
        .heir(|queue, _| hold(queue.try_get())),
        case(
            "jobs/get, woken by a death and killed in flight",
            || jobs(1),
            |queue, _| hold(queue.get()),
            |queue, kill| {
                kill.cells().set(PEER + 1, 1);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                all_there(queue, kill, 1)
            },
        )
        .peer(|queue, cells| {
            // Gets the job before the victim looks, and dies with it while the victim sleeps.
            let job = queue.get().unwrap();
            sign(cells, PEER);
            while cells.get(PEER + 1) == 0 {
                nap();
            }
            std::mem::forget(job);
        })
        .warm(|_, cells| wait_for(cells, PEER))
        .release(|_, cells| cells.set(PEER + 1, 1))
        .late_peer(|queue, cells| finish(queue.get(), cells))
        .heir(|queue, _| hold(queue.try_get()))
        .without(Mode::Freeze, "its peers need each other"),
        case("jobs/get+done", || jobs(1), |queue, cells| finish(queue.get(), cells), |queue, kill| some_done(queue, kill, 1)),
        case(
            "jobs/get+done, one joins",
            || jobs(1),
            |queue, cells| finish(queue.get(), cells),
            |queue, kill| joined(queue, kill, 1),
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.join().unwrap();
        })
        .warm(|_, cells| await_asleep(cells, PEER, WAITV))
        .sampled(2),
        case(
            "jobs/get+done, two join",
            || jobs(1),
            |queue, cells| finish(queue.get(), cells),
            |queue, kill| joined(queue, kill, 2),
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.join().unwrap();
        })
        .peer(|queue, cells| {
            sign(cells, PEER + 1);
            queue.join().unwrap();
        })
        .warm(|_, cells| {
            await_asleep(cells, PEER, WAITV);
            await_asleep(cells, PEER + 1, WAITV);
        }),
        case(
            "jobs/get+done, one joins and one sleeps for jobs",
            || jobs(1),
            |queue, cells| finish(queue.get(), cells),
            |queue, kill| {
                if queue.unfinished() != 0 {
                    // It came back: the one that sleeps has it, without help, and with it the last is done.
                    kill.must_wake(1)?;
                    kill.must_wake(0).map(drop)
                } else {
                    kill.must_wake(0)?;
                    queue.put(7)?;
                    kill.must_wake(1).map(drop)
                }
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.join().unwrap();
        })
        .warm(|_, cells| await_asleep(cells, PEER, WAITV))
        .late_peer(|queue, _| drop(queue.get().map(multiproc::Job::done)))
        .without(Mode::Freeze, "which of the two goes on depends on where it stands"),
        case(
            "jobs/get+done, closed, two wait for the end",
            closing,
            |queue, cells| finish(queue.get(), cells),
            |queue, kill| {
                // It came back for one of them, or all is done.
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                if queue.unfinished() == 0 { Ok(()) } else { Err(Fault::Lost(format!("{queue:?}"))) }
            },
        )
        .late_peer(|queue, cells| queue.iter().for_each(|job| finish(job, cells)))
        .late_peer(|queue, cells| queue.iter().for_each(|job| finish(job, cells)))
        .heir(|queue, cells| finish(queue.try_get(), cells)),
        case(
            "jobs/get+retry",
            || jobs(1),
            |queue, _| drop(queue.get().map(multiproc::Job::retry)),
            |queue, kill| all_there(queue, kill, 1),
        ),
        case(
            "jobs/get+retry, another sleeps",
            || jobs(1),
            |queue, _| drop(queue.get().map(multiproc::Job::retry)),
            |queue, kill| {
                kill.must_wake(0)?;
                all_there(queue, kill, 1)
            },
        )
        .late_peer(|queue, cells| finish(queue.get(), cells)),
        case(
            "jobs/take+task_done",
            || jobs(1),
            |queue, cells| {
                if let Ok(number) = queue.take() {
                    queue.task_done().unwrap();
                    cells.set(DONE + number as usize, 1);
                }
            },
            |queue, kill| some_done(queue, kill, 1),
        ),
        case(
            "jobs/task_done, another sleeps",
            || jobs(1),
            |queue, cells| {
                if queue.task_done().is_ok() {
                    cells.add(DONE, 1);
                }
            },
            |queue, kill| {
                if queue.unfinished() == 0 && !kill.peer_ended(0) {
                    queue.put(1)?;
                }
                // It came back, and the peer heard of it, or there is another.
                kill.must_wake(0)?;
                collect(queue, kill)?;
                rest_is_usable(queue, kill)
            },
        )
        .peer(|queue, cells| {
            wait_for(cells, PEER + 1);
            sign(cells, PEER);
            finish(queue.get(), cells);
        })
        .warm(|queue, cells| {
            queue.take().unwrap();
            cells.set(PEER + 1, 1);
            await_asleep(cells, PEER, WAITV);
        }),
        case(
            "jobs/get, buries",
            || back(put(deadly(), 2)),
            |queue, _| hold(queue.get()),
            |queue, kill| letters_too(queue, kill, 2),
        )
        .sampled(2),
        case(
            "jobs/get, buries the first",
            || back(put(fresh_deadly(), 1)),
            |queue, _| hold(queue.try_get()),
            |queue, kill| letters_too(queue, kill, 1),
        ),
        case(
            "jobs/get, buries the last, one joins",
            || back(put(deadly(), 1)),
            |queue, _| hold(queue.try_get()),
            |queue, kill| {
                until_buried(queue, kill)?;
                kill.must_wake(0)?;
                letters_too(queue, kill, 1)
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.join().unwrap();
        })
        .warm(|_, cells| await_asleep(cells, PEER, WAITV)),
        case(
            "jobs/dead_letters, take",
            buried,
            |queue, cells| {
                if let Ok(Some(letter)) = queue.dead_letters().take() {
                    cells.set(DONE + letter.value().unwrap() as usize, 1);
                }
            },
            |queue, kill| {
                // One that was just taken goes with its taker.
                let before = queue.dead_letters().len();
                let gone = 2 - before;
                if gone > deaths(kill).max(1) || (kill.finished() && gone == 0) {
                    return Err(Fault::Lost(format!("{gone} letters gone")));
                }
                queue.dead_letters().replay()?;
                let mut there = collect(queue, kill)?;
                there.sort_unstable();
                there.dedup();
                if there.len() == before {
                    rest_is_usable(queue, kill)
                } else {
                    Err(Fault::Lost(format!("{there:?} of {before}")))
                }
            },
        ),
        case(
            "jobs/dead_letters, list",
            buried,
            |queue, _| drop(queue.dead_letters().list()),
            |queue, kill| letters_too(queue, kill, 2),
        ),
        case(
            "jobs/dead_letters, replay",
            buried,
            |queue, _| drop(queue.dead_letters().replay()),
            |queue, kill| letters_too(queue, kill, 2),
        ),
        case(
            "jobs/dead_letters, replay, one sleeps",
            buried,
            |queue, _| drop(queue.dead_letters().replay()),
            |queue, kill| {
                if queue.dead_letters().len() < 2 {
                    kill.must_wake(0)?;
                } else {
                    queue.dead_letters().replay()?;
                    kill.must_wake(0)?;
                }
                letters_too(queue, kill, 2)
            },
        )
        .late_peer(|queue, cells| finish(queue.get(), cells)),
        case("jobs/join", || jobs(1), |queue, _| queue.join().unwrap(), |queue, kill| all_there(queue, kill, 1))
            .release(|queue, cells| finish(queue.get(), cells))
            .heir(|queue, _| drop(queue.join_timeout(Duration::ZERO))),
        case("jobs/join, another joins", || jobs(1), |queue, _| queue.join().unwrap(), |queue, kill| joined(queue, kill, 1))
            .peer(|queue, cells| {
                sign(cells, PEER);
                queue.join().unwrap();
            })
            .release(|queue, cells| finish(queue.get(), cells))
            .heir(|queue, _| drop(queue.join_timeout(Duration::ZERO))),
        case(
            "jobs/join_timeout, in vain",
            || jobs(1),
            |queue, _| drop(queue.join_timeout(Duration::from_millis(30))),
            |queue, kill| all_there(queue, kill, 1),
        )
        .release(|_, _| ()),
        case(
            "jobs/close, two asleep",
            || jobs(0),
            |queue, _| queue.close(),
            |queue, kill| {
                if kill.finished() && !queue.is_closed() {
                    return Err(Fault::Lost("the close".into()));
                }
                if queue.is_closed() {
                    kill.must_wake(0)?;
                    kill.must_wake(1)?;
                }
                queue.close();
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                match (queue.try_get(), queue.put(1)) {
                    (Err(GetError::Closed), Err(PutError::Closed(1))) => Ok(()),
                    other => Err(Fault::Torn(format!("{other:?} after close"))),
                }
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            drop(queue.get());
        })
        .peer(|queue, cells| {
            sign(cells, PEER + 1);
            drop(queue.get());
        })
        .warm(|_, cells| {
            await_asleep(cells, PEER, WAITV);
            await_asleep(cells, PEER + 1, WAITV);
        }),
    ]
}

fn case(
    name: &str,
    arrange: impl Fn() -> Jobs + 'static,
    victim: impl Fn(&Jobs, &Cells) + 'static,
    survive: impl Fn(&Jobs, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Jobs> {
    // The block, and the beginning of the log.
    Case::new(name, arrange, victim, survive)
        .watch(|_| beginnings(18 << 10))
        .wake_within(SOON)
        .frozen(|queue, kill| stands_still(queue, kill, 0))
        .finally(nothing_left)
}

/// No slot was ever used.
fn fresh() -> Jobs {
    JoinableQueue::new(JobLimits::from(8).unlimited_deliveries()).unwrap()
}

/// So many jobs, from 0 on, in a queue whose slots have been used.
fn jobs(count: u32) -> Jobs {
    put(used(fresh()), count)
}

fn fresh_deadly() -> Jobs {
    JoinableQueue::new(JobLimits::from(8).max_deliveries(1)).unwrap()
}

fn deadly() -> Jobs {
    let queue = used(fresh_deadly());
    queue.put(9).unwrap();
    queue.get().unwrap().retry();
    assert!(queue.try_get().is_err() && queue.dead_letters().take().unwrap().is_some());
    queue
}

fn used(queue: Jobs) -> Jobs {
    put(queue.clone(), 3);
    let jobs: Vec<_> = (0..3).map(|_| queue.get().unwrap()).collect();
    jobs.into_iter().for_each(multiproc::Job::done);
    queue
}

fn put(queue: Jobs, count: u32) -> Jobs {
    (0..count).for_each(|number| queue.put(number).unwrap());
    queue
}

/// The first job came back.
fn back(queue: Jobs) -> Jobs {
    queue.get().unwrap().retry();
    queue
}

/// Two dead letters, 0 and 1.
fn buried() -> Jobs {
    let queue = put(deadly(), 2);
    for _ in 0..2 {
        queue.get().unwrap().retry();
    }
    assert!(queue.try_get().is_err() && queue.dead_letters().len() == 2);
    queue
}

fn closing() -> Jobs {
    let queue = jobs(1);
    queue.close();
    queue
}

/// Dies with the job; one that was only stopped gives it back in the end.
fn hold(job: Result<multiproc::Job<'_, u32>, GetError>) {
    drop(job);
}

fn finish(job: Result<multiproc::Job<'_, u32>, GetError>, cells: &Cells) {
    if let Ok(job) = job {
        let number = *job;
        job.done();
        cells.add(DONE + number as usize, 1);
    }
}

fn nap() {
    // SAFETY: no descriptors at all.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}

/// Polls until the job that came back too often is a dead letter. (Who polls finds those whose death the kernel has missed, too.)
fn until_buried(queue: &Jobs, kill: &Kill<'_>) -> Result<(), Fault> {
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

fn deaths(kill: &Kill<'_>) -> usize {
    match kill.mode() {
        Mode::Freeze => 0,
        Mode::Double => 2,
        _ => 1,
    }
}

/// Takes everything out, and does it.
fn collect(queue: &Jobs, kill: &Kill<'_>) -> Result<Vec<u32>, Fault> {
    let mut got = Vec::new();
    while queue.unfinished() != 0 {
        match queue.get_timeout(kill.patience()) {
            Ok(job) => got.push(job.into_inner()),
            // A peer had it, and did it.
            Err(GetError::Empty) if queue.unfinished() == 0 => break,
            Err(error) => return Err(Fault::Hang(format!("{error}, but {} are unfinished", queue.unfinished()))),
        }
        if got.len() > 20 {
            return Err(Fault::Torn(format!("there is no end of jobs: {got:?}")));
        }
    }
    Ok(got)
}

/// Each of these jobs is there once, or was done once; `untold`: so many may be done of which their doer, killed, could not tell.
fn accounted(got: &[u32], kill: &Kill<'_>, numbers: Range<u32>, untold: usize) -> Result<(), Fault> {
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
    if missing > untold { Err(Fault::Lost(format!("{missing} jobs; there are {got:?}"))) } else { Ok(()) }
}

/// The victim put a job, and so did its heir.
fn put_there(queue: &Jobs, kill: &Kill<'_>) -> Result<(), Fault> {
    let there = collect(queue, kill)?.len();
    let (least, most) = (usize::from(kill.finished()) + usize::from(kill.heir_finished()), deaths(kill).max(1));
    if there < least || there > most {
        return Err(Fault::Lost(format!("{there} jobs of {least} to {most}")));
    }
    rest_is_usable(queue, kill)
}

/// Nobody has done one without telling.
fn all_there(queue: &Jobs, kill: &Kill<'_>, count: u32) -> Result<(), Fault> {
    accounted(&collect(queue, kill)?, kill, 0..count, 0)?;
    rest_is_usable(queue, kill)
}

/// The victim does one, and so does its heir.
fn some_done(queue: &Jobs, kill: &Kill<'_>, count: u32) -> Result<(), Fault> {
    accounted(&collect(queue, kill)?, kill, 0..count, deaths(kill).max(1))?;
    rest_is_usable(queue, kill)
}

/// Each of these jobs is there once: unfinished, or a dead letter.
fn letters_too(queue: &Jobs, kill: &Kill<'_>, count: u32) -> Result<(), Fault> {
    let mut got = collect(queue, kill)?;
    let letters = queue.dead_letters().list()?;
    got.extend(letters.iter().map(|letter| letter.value().unwrap_or(u32::MAX)));
    accounted(&got, kill, 0..count, 0)?;
    while queue.dead_letters().take()?.is_some() {}
    rest_is_usable(queue, kill)
}

/// Those who join go on once all is done, which is without help if the victim has done it.
fn joined(queue: &Jobs, kill: &Kill<'_>, joiners: usize) -> Result<(), Fault> {
    let got = collect(queue, kill)?;
    accounted(&got, kill, 0..1, deaths(kill).max(1))?;
    (0..joiners).try_for_each(|peer| kill.must_wake(peer).map(drop))?;
    rest_is_usable(queue, kill)
}

fn rest_is_usable(queue: &Jobs, kill: &Kill<'_>) -> Result<(), Fault> {
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

/// While the victim stands still: time-outs hold, what it has in its hands nobody gets, and the peers go on if it has nothing.
fn stands_still(queue: &Jobs, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    let begin = Instant::now();
    match queue.join_timeout(BRIEFLY) {
        Ok(all_done) if all_done && queue.unfinished() != 0 => return Err(Fault::Torn("joined too early".into())),
        Ok(_) => in_time("join_timeout", begin, BRIEFLY)?,
        Err(error) => return Err(error.into()),
    }
    let held = queue.leased();
    let begin = Instant::now();
    match queue.get_timeout(BRIEFLY) {
        // One more is out now: it was not the victim's.
        Ok(job) if queue.leased() > held => job.retry(),
        Ok(job) => return Err(Fault::Torn(format!("{job:?} was taken from one who stands still"))),
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
