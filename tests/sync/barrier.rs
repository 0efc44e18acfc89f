//! The contract of a barrier between processes, also when one of them dies; CPython's tests of it are at the
//! end.
#![allow(clippy::print_stdout, reason = "a test prints what it measured")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::sync::{AcquireError, MAX_PARTIES};
use multiproc::{AtomicValue, Barrier, Broken, ErrorKind};

use crate::common::{
    Dice, Forked, How, LONG, Outcome, alone, fork, kill, signal, spawn, unique, value, wait_until,
};

#[test]
fn barrier_is_found_by_name() -> Outcome {
    fn child(name: String) -> usize {
        Barrier::open(&name).expect("it is there").wait().expect("it is not broken").index()
    }
    let _alone = alone();
    let name = unique("barrier");
    let barrier = Barrier::create(&name, 2)?;
    assert_eq!((barrier.name(), barrier.parties()), (Some(name.as_str()), 2));
    assert_eq!(Barrier::create(&name, 2).expect_err("it exists").kind(), ErrorKind::AlreadyExists);
    assert_eq!(Barrier::open_or_create(&name, 3).expect_err("of two").kind(), ErrorKind::Mismatch);
    let child = spawn(child, name.clone());
    let mine = barrier.wait()?;
    assert_eq!(value(&child) + mine.index(), 1);
    assert_eq!(mine.is_leader(), mine.index() == 1);
    Barrier::unlink(&name)?;
    assert_eq!(Barrier::open(&name).expect_err("unlinked").kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn barrier_is_for_1_to_120_participants() -> Outcome {
    for parties in [0, MAX_PARTIES + 1, usize::MAX] {
        let error = Barrier::new(parties).expect_err("too few or too many");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("parties, and not 1 to 120"), "{error}");
    }
    let _alone = alone();
    let barrier = Barrier::new(MAX_PARTIES)?;
    let mut indices = thread::scope(|s| {
        let wait = || barrier.wait().expect("it is not broken").index();
        let threads: Vec<_> = (0..MAX_PARTIES).map(|_| s.spawn(wait)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    indices.sort_unstable();
    assert!(indices.into_iter().eq(0..MAX_PARTIES));
    Ok(())
}

#[test]
fn more_threads_than_participants_may_wait() -> Outcome {
    let _alone = alone();
    let (barrier, rounds) = (Barrier::new(2)?, AtomicValue::new(0_u64)?);
    thread::scope(|s| {
        for _ in 0..6 {
            s.spawn(|| while barrier.wait_with(|| _ = rounds.fetch_add(1)).is_ok() {});
        }
        wait_until(|| rounds.load() > 1_000);
        barrier.abort();
    });
    assert_eq!(barrier.waiting(), 0);
    Ok(())
}

#[test]
fn action_is_run_before_any_participant_goes_on() -> Outcome {
    const ROUNDS: u64 = 300;
    let _alone = alone();
    let (barrier, count) = (Barrier::new(3)?, AtomicValue::new(0_u64)?);
    let participate = || {
        for round in 1..=ROUNDS {
            barrier.wait_with(|| _ = count.fetch_add(1)).expect("it is not broken");
            assert!(count.load() == round || count.load() == round + 1);
        }
        0
    };
    let children: Vec<Forked> = (0..2).map(|_| fork(How::Libc, participate)).collect();
    participate();
    for child in children {
        assert_eq!(child.wait(), 0);
    }
    assert_eq!(count.load(), ROUNDS);
    Ok(())
}

#[test]
fn panic_in_the_action_breaks_the_barrier() -> Outcome {
    let _alone = alone();
    let barrier = Barrier::new(2)?;
    thread::scope(|s| {
        let other = s.spawn(|| barrier.wait().expect_err("the action panicked").cause());
        wait_until(|| barrier.waiting() == 1);
        assert!(catch_unwind(AssertUnwindSafe(|| barrier.wait_with(|| panic!("on purpose")))).is_err());
        assert_eq!(other.join().expect("no panic"), Broken::ByOther);
    });
    assert!(barrier.is_broken());
    barrier.reset();
    // A wait inside the action is refused.
    let inner = std::cell::Cell::new(None);
    let single = Barrier::new(1)?;
    single.wait_with(|| inner.set(single.wait().err()))?;
    let refused = Broken::Refused(AcquireError::AlreadyHeld);
    assert_eq!(inner.take().map(|error| error.cause()), Some(refused));
    Ok(())
}

#[test]
fn killed_participant_breaks_the_barrier() -> Outcome {
    fn child(barrier: Barrier) {
        let _ = barrier.wait();
    }
    fn pid_of_the_dead(barrier: Barrier) -> Option<u32> {
        barrier.wait().expect_err("a participant died").pid()
    }
    let _alone = alone();
    let mut took = Vec::new();
    for _ in 0..10 {
        let barrier = Barrier::new(4)?;
        let others = [(); 2].map(|()| spawn(pid_of_the_dead, barrier.clone()));
        let victim = spawn(child, barrier.clone());
        wait_until(|| barrier.waiting() == 3);
        thread::sleep(Duration::from_millis(2));
        let pid = victim.pid();
        let killed = Instant::now();
        kill(&victim);
        wait_until(|| barrier.waiting() == 0);
        took.push(killed.elapsed());
        for other in &others {
            assert_eq!(value(other), Some(pid));
        }
        // Later waits fail, too, until a process resets the barrier.
        let error = barrier.wait().expect_err("it is broken");
        assert_eq!((error.pid(), error.cause()), (Some(pid), Broken::PartyDied(Some(pid))));
        assert_eq!(error.to_string(), format!("barrier (anonymous): broken: process {pid} died"));
        assert!(barrier.is_broken());
        barrier.reset();
        let error = barrier.wait_timeout(Duration::from_millis(1)).expect_err("no other participant waits");
        assert_eq!(error.cause(), Broken::TimedOut);
    }
    took.sort();
    println!("{took:?}");
    // The kernel reports the death; by a waiter's liveness poll it would take half a second on average.
    assert!(took[5] < Duration::from_millis(100), "{took:?}");
    Ok(())
}

#[test]
fn death_of_the_only_waiter_breaks_the_barrier_for_the_next() -> Outcome {
    let _alone = alone();
    let barrier = Barrier::new(2)?;
    let victim = fork(How::Libc, || i32::from(barrier.wait().is_err()));
    wait_until(|| barrier.waiting() == 1);
    let pid = victim.pid();
    victim.kill();
    assert!(barrier.is_broken());
    assert_eq!(barrier.wait().expect_err("it died").pid(), Some(pid));
    Ok(())
}

#[test]
fn death_in_the_action_breaks_the_barrier() -> Outcome {
    let _alone = alone();
    let (barrier, step) = (Barrier::new(2)?, AtomicValue::new(0_u32)?);
    thread::scope(|s| -> Outcome {
        let other = s.spawn(|| barrier.wait().expect_err("it died").pid());
        wait_until(|| barrier.waiting() == 1);
        let leader = fork(How::Libc, || {
            let _ = barrier.wait_with(|| {
                step.store(1);
                wait_until(|| step.load() == u32::MAX);
            });
            0
        });
        wait_until(|| step.load() == 1);
        let pid = leader.pid();
        leader.kill();
        assert_eq!(other.join().expect("no panic"), Some(pid));
        Ok(())
    })
}

#[test]
fn participants_killed_at_random_leave_a_usable_barrier() -> Outcome {
    const KILLS: u32 = 100;
    const PARTICIPANTS: usize = 3;
    let _alone = alone();
    let mut dice = Dice::of_this_run();
    let barrier = Barrier::new(PARTICIPANTS)?;
    let (rounds, broken) = (AtomicValue::new(0_u64)?, AtomicValue::new(0_u64)?);
    let worker = || {
        fork(How::Libc, || {
            loop {
                match barrier.wait_with(|| _ = rounds.fetch_add(1)) {
                    Ok(_) => {}
                    Err(error) if matches!(error.cause(), Broken::PartyDied(_) | Broken::ByOther) => {
                        broken.fetch_add(1);
                        barrier.reset();
                    }
                    Err(error) => panic!("{error}\n"),
                }
            }
        })
    };
    let mut workers: Vec<Forked> = (0..PARTICIPANTS).map(|_| worker()).collect();
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLS {
        let (seen, start, some) = (rounds.load(), Instant::now(), dice.below(50));
        wait_until(|| rounds.load() > seen + some);
        slowest = slowest.max(start.elapsed());
        let victim = workers.swap_remove(usize::try_from(dice.below(PARTICIPANTS as u64))?);
        signal(victim.pid(), libc::SIGKILL);
        victim.wait();
        workers.push(worker());
    }
    workers.into_iter().for_each(Forked::kill);
    println!("{} rounds, {} times broken, slowest {slowest:?}", rounds.load(), broken.load());
    barrier.reset();
    assert!(!barrier.is_broken());
    Ok(())
}

/// CPython's `_TestBarrier`: five participants, four of them in processes of their own.
mod cpython_barrier {
    use super::*;

    const N: usize = 5;

    /// The lists of Python's tests, which use only their lengths.
    type Counts = [AtomicValue<u64>; 3];

    fn counts() -> Result<Counts, multiproc::Error> {
        Ok([AtomicValue::new(0)?, AtomicValue::new(0)?, AtomicValue::new(0)?])
    }

    /// Runs `participate` in four children and in this process; all must return true.
    fn run(participate: impl Fn() -> bool) {
        let children: Vec<Forked> = (1..N).map(|_| fork(How::Libc, || i32::from(!participate()))).collect();
        assert!(participate());
        for child in children {
            assert_eq!(child.wait(), 0);
        }
    }

    fn multipass(barrier: &Barrier, lists: &Counts, passes: u64) {
        let participants = barrier.parties() as u64;
        run(|| {
            for pass in 0..passes {
                lists[0].fetch_add(1);
                assert_eq!(lists[1].load(), pass * participants);
                barrier.wait_timeout(LONG).expect("it is not broken");
                lists[1].fetch_add(1);
                assert_eq!(lists[0].load(), (pass + 1) * participants);
                barrier.wait_timeout(LONG).expect("it is not broken");
            }
            !barrier.is_broken()
        });
        assert_eq!(barrier.waiting(), 0);
    }

    #[test]
    fn test_barrier() -> Outcome {
        let _alone = alone();
        multipass(&Barrier::new(N)?, &counts()?, 1);
        Ok(())
    }

    #[test]
    fn test_barrier_10() -> Outcome {
        let _alone = alone();
        multipass(&Barrier::new(N)?, &counts()?, 10);
        Ok(())
    }

    #[test]
    fn test_wait_return() -> Outcome {
        let _alone = alone();
        let (barrier, [firsts, leaders, sum]) = (Barrier::new(N)?, counts()?);
        run(|| {
            let result = barrier.wait().expect("it is not broken");
            firsts.fetch_add(u64::from(result.index() == 0));
            leaders.fetch_add(u64::from(result.is_leader()));
            sum.fetch_add(1 << (4 * result.index()));
            true
        });
        assert_eq!((firsts.load(), leaders.load(), sum.load()), (1, 1, 0x11111));
        Ok(())
    }

    #[test]
    fn test_action() -> Outcome {
        let _alone = alone();
        let (barrier, [results, ..]) = (Barrier::new(N)?, counts()?);
        run(|| {
            barrier.wait_with(|| _ = results.fetch_add(1)).expect("it is not broken");
            results.load() == 1
        });
        Ok(())
    }

    /// One participant aborts instead of waiting a second time. The others count whether their second wait
    /// passed or failed.
    fn abort_in_the_second_round(barrier: &Barrier, [passed, failed, _]: &Counts) {
        if barrier.wait().is_ok_and(|result| result.index() == N / 2) {
            barrier.abort();
        } else if barrier.wait().is_ok() {
            passed.fetch_add(1);
        } else {
            failed.fetch_add(1);
        }
    }

    #[test]
    fn test_abort() -> Outcome {
        let _alone = alone();
        let (barrier, lists) = (Barrier::new(N)?, counts()?);
        run(|| {
            abort_in_the_second_round(&barrier, &lists);
            true
        });
        assert_eq!((lists[0].load(), lists[1].load()), (0, N as u64 - 1));
        assert!(barrier.is_broken());
        barrier.abort();
        assert!(barrier.is_broken() && barrier.wait().is_err());
        Ok(())
    }

    #[test]
    fn test_reset() -> Outcome {
        let _alone = alone();
        let (barrier, [passed, failed, again]) = (Barrier::new(N)?, counts()?);
        run(|| {
            if barrier.wait().expect("it is not broken").index() == N / 2 {
                wait_until(|| barrier.waiting() == N - 1);
                barrier.reset();
            } else if barrier.wait().is_ok() {
                passed.fetch_add(1);
            } else {
                failed.fetch_add(1);
            }
            barrier.wait().expect("it was reset");
            again.fetch_add(1);
            true
        });
        assert_eq!((passed.load(), failed.load(), again.load()), (0, N as u64 - 1, N as u64));
        Ok(())
    }

    #[test]
    fn test_abort_and_reset() -> Outcome {
        let _alone = alone();
        let (barrier, other, lists) = (Barrier::new(N)?, Barrier::new(N)?, counts()?);
        run(|| {
            abort_in_the_second_round(&barrier, &lists);
            if other.wait().expect("it is not broken").index() == N / 2 {
                barrier.reset();
            }
            other.wait().expect("it is not broken");
            barrier.wait().expect("it was reset");
            lists[2].fetch_add(1);
            true
        });
        assert_eq!(lists.map(|list| list.load()), [0, N as u64 - 1, N as u64]);
        Ok(())
    }

    #[test]
    fn test_timeout() -> Outcome {
        let _alone = alone();
        let (barrier, [failed, timed_out, _]) = (Barrier::new(N)?, counts()?);
        run(|| {
            if barrier.wait().expect("it is not broken").index() == N / 2 {
                // This participant comes late: after the time-out of the others.
                wait_until(|| barrier.is_broken());
            }
            if let Err(error) = barrier.wait_timeout(Duration::from_millis(100)) {
                failed.fetch_add(1);
                timed_out.fetch_add(u64::from(error.cause() == Broken::TimedOut));
            }
            true
        });
        assert_eq!((failed.load(), timed_out.load()), (N as u64, 1));
        Ok(())
    }

    #[test]
    fn test_single_thread() -> Outcome {
        let barrier = Barrier::new(1)?;
        for _ in 0..2 {
            assert!(barrier.wait_timeout(Duration::ZERO)?.is_leader());
        }
        Ok(())
    }

    #[test]
    fn test_thousand() -> Outcome {
        const PASSES: u64 = 1_000;
        let _alone = alone();
        let (barrier, [passed, ..]) = (Barrier::new(N)?, counts()?);
        run(|| {
            for pass in 0..PASSES {
                barrier.wait().expect("it is not broken");
                let before = passed.fetch_add(1);
                // After all of the pass before, and before any of the next.
                let this_pass = pass * N as u64..(pass + 1) * N as u64;
                assert!(this_pass.contains(&before), "{before} in pass {pass}\n");
            }
            true
        });
        assert_eq!(passed.load(), PASSES * N as u64);
        Ok(())
    }
}
