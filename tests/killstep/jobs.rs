//! Jobs: a job is there until it is done, leased by one living holder at most, and returned when that dies;
//! every waiter goes on.

mod arrange;
mod oracles;

use std::time::Duration;

pub(crate) use arrange::*;
use multiproc::{GetError, JoinableQueue, PutError};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};
pub(crate) use oracles::*;

use crate::support::{SOON, WAITV, await_asleep, beginnings, nothing_left, sign, wait_for};

pub(crate) type Jobs = JoinableQueue<u32>;

/// Cells: what was got, by number of the process (victim, recoverer, peers); the peers' process ids, from
/// here on.
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
        case("jobs/get", || jobs(2), |queue, _| hold(queue.get()), |queue, kill| all_there(queue, kill, 2))
            .sampled(3),
        case(
            "jobs/try_get",
            || jobs(2),
            |queue, _| hold(queue.try_get()),
            |queue, kill| all_there(queue, kill, 2),
        ),
        case(
            "jobs/get_timeout",
            || jobs(2),
            |queue, _| hold(queue.get_timeout(SOON)),
            |queue, kill| all_there(queue, kill, 2),
        ),
        case(
            "jobs/get, the first use of a lease",
            || put(fresh(), 2),
            |queue, _| hold(queue.get()),
            |queue, kill| all_there(queue, kill, 2),
        ),
        case(
            "jobs/get, returned before",
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
        .sampled(3),
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
        .recoverer(|queue, _| hold(queue.try_get())),
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
        .recoverer(|queue, _| hold(queue.try_get()))
        .without(Mode::Freeze, "its peers need each other"),
        case(
            "jobs/get+done",
            || jobs(1),
            |queue, cells| finish(queue.get(), cells),
            |queue, kill| some_done(queue, kill, 1),
        ),
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
        .sampled(3),
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
                    // The job was returned: the sleeping consumer gets it without help, and with it the last
                    // is done.
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
                // The job was returned for one of them, or all is done.
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                if queue.unfinished() == 0 { Ok(()) } else { Err(Fault::Lost(format!("{queue:?}"))) }
            },
        )
        .late_peer(|queue, cells| queue.iter().for_each(|job| finish(job, cells)))
        .late_peer(|queue, cells| queue.iter().for_each(|job| finish(job, cells)))
        .recoverer(|queue, cells| finish(queue.try_get(), cells)),
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
                // The job was returned, and the peer was notified, or there is another.
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
            "jobs/get, dead-letters",
            || back(put(deadly(), 2)),
            |queue, _| hold(queue.get()),
            |queue, kill| dead_letters_too(queue, kill, 2),
        )
        .sampled(3),
        case(
            "jobs/get, dead-letters the first",
            || back(put(fresh_deadly(), 1)),
            |queue, _| hold(queue.try_get()),
            |queue, kill| dead_letters_too(queue, kill, 1),
        ),
        case(
            "jobs/get, dead-letters the last, one joins",
            || back(put(deadly(), 1)),
            |queue, _| hold(queue.try_get()),
            |queue, kill| {
                until_dead_lettered(queue, kill)?;
                kill.must_wake(0)?;
                dead_letters_too(queue, kill, 1)
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.join().unwrap();
        })
        .warm(|_, cells| await_asleep(cells, PEER, WAITV)),
        case(
            "jobs/dead_letters, take",
            dead_lettered,
            |queue, cells| {
                if let Ok(Some(letter)) = queue.dead_letters().take() {
                    cells.set(DONE + letter.value().unwrap() as usize, 1);
                }
            },
            |queue, kill| {
                // A letter that was just taken is lost with its taker.
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
            dead_lettered,
            |queue, _| drop(queue.dead_letters().list()),
            |queue, kill| dead_letters_too(queue, kill, 2),
        ),
        case(
            "jobs/dead_letters, replay",
            dead_lettered,
            |queue, _| drop(queue.dead_letters().replay()),
            |queue, kill| dead_letters_too(queue, kill, 2),
        ),
        case(
            "jobs/dead_letters, replay, one sleeps",
            dead_lettered,
            |queue, _| drop(queue.dead_letters().replay()),
            |queue, kill| {
                if queue.dead_letters().len() < 2 {
                    kill.must_wake(0)?;
                } else {
                    queue.dead_letters().replay()?;
                    kill.must_wake(0)?;
                }
                dead_letters_too(queue, kill, 2)
            },
        )
        .late_peer(|queue, cells| finish(queue.get(), cells)),
        case(
            "jobs/join",
            || jobs(1),
            |queue, _| queue.join().unwrap(),
            |queue, kill| all_there(queue, kill, 1),
        )
        .release(|queue, cells| finish(queue.get(), cells))
        .recoverer(|queue, _| drop(queue.join_timeout(Duration::ZERO))),
        case(
            "jobs/join, another joins",
            || jobs(1),
            |queue, _| queue.join().unwrap(),
            |queue, kill| joined(queue, kill, 1),
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.join().unwrap();
        })
        .release(|queue, cells| finish(queue.get(), cells))
        .recoverer(|queue, _| drop(queue.join_timeout(Duration::ZERO))),
        case(
            "jobs/join_timeout, times out",
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
