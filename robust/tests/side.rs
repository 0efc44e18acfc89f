//! Two sides between threads: the two kinds of threads take turns, each parked thread is woken, and none
//! sleeps longer than it must.
#![allow(unsafe_code, reason = "entering a bare side is a promise about its memory")]

mod common;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::{AcquireError, Acquired, Deadline, Park, Side, SidePeer, Waiter};

use common::watchdog;

/// The smallest two-sided thing: a cell that is empty (0) or full.
struct Cell {
    puts: Side,
    takes: Side,
    content: AtomicU64,
}

/// Whether what a thread waits for is there; new work is always worth a look.
struct Asked<'a, F>(&'a F);

impl<F: Fn() -> bool> SidePeer for Asked<'_, F> {
    fn more(&self, _: bool) -> bool {
        self.0()
    }

    fn worth_it(&self) -> bool {
        true
    }

    fn news(&self) -> bool {
        true
    }
}

impl<F: Fn() -> bool> Waiter for Asked<'_, F> {
    fn ready(&self) -> bool {
        self.0()
    }

    fn news(&self) -> bool {
        true
    }

    fn woken(&self) {}
}

impl Cell {
    fn leaked() -> &'static Self {
        Box::leak(Box::new(Self { puts: Side::new(), takes: Side::new(), content: AtomicU64::new(0) }))
    }

    /// One thread's turn: `mine` is its side, `other` the opposite one; `ready` tells whether it can act,
    /// `act` does.
    fn turn(
        mine: &'static Side,
        other: &'static Side,
        deadline: Deadline,
        ready: impl Fn() -> bool,
        mut act: impl FnMut(),
    ) -> Result<(), AcquireError> {
        let mut brief = true;
        loop {
            // SAFETY: it lives for ever.
            let how = unsafe { mine.enter(deadline) }?;
            assert_eq!(how, Acquired::Clean);
            let acted = ready();
            if acted {
                act();
            }
            assert!(mine.leave(other, Asked(&ready)));
            if acted {
                return Ok(());
            }
            if !other.park(mine, Park::new(brief, deadline), &Asked(&ready))? {
                return Err(AcquireError::TimedOut);
            }
            brief = false;
        }
    }

    fn put(&'static self, value: u64, deadline: Deadline) -> Result<(), AcquireError> {
        Self::turn(
            &self.puts,
            &self.takes,
            deadline,
            || self.content.load(SeqCst) == 0,
            || self.content.store(value, SeqCst),
        )
    }

    fn take(&'static self, deadline: Deadline) -> Result<u64, AcquireError> {
        let mut value = 0;
        Self::turn(
            &self.takes,
            &self.puts,
            deadline,
            || self.content.load(SeqCst) != 0,
            || value = self.content.swap(0, SeqCst),
        )?;
        Ok(value)
    }
}

#[test]
fn two_sides_take_turns() {
    const ROUNDS: u64 = 20_000;
    let _watchdog = watchdog();
    let cell = Cell::leaked();
    thread::scope(|s| {
        s.spawn(|| (1..=ROUNDS).for_each(|round| assert_eq!(cell.put(round, Deadline::NEVER), Ok(()))));
        s.spawn(|| (1..=ROUNDS).for_each(|round| assert_eq!(cell.take(Deadline::NEVER), Ok(round))));
    });
    assert!(!cell.puts.has_waiters() && !cell.takes.has_waiters());
}

#[test]
fn many_threads_on_each_side_lose_no_wake_up() {
    const ROUNDS: u64 = 3_000;
    let _watchdog = watchdog();
    let cell = Cell::leaked();
    let (sum, start) = (AtomicU64::new(0), Instant::now());
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| (1..=ROUNDS).for_each(|round| assert_eq!(cell.put(round, Deadline::NEVER), Ok(()))));
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    sum.fetch_add(cell.take(Deadline::NEVER).expect("no error"), SeqCst);
                }
            });
        }
    });
    assert_eq!(sum.load(SeqCst), 3 * ROUNDS * (ROUNDS + 1) / 2);
    assert!(!cell.puts.has_waiters() && !cell.takes.has_waiters());
    // Each lost wake-up would have cost up to one second.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn wait_ends_at_its_deadline() {
    let _watchdog = watchdog();
    let cell = Cell::leaked();
    let start = Instant::now();
    assert_eq!(cell.take(Deadline::NOW), Err(AcquireError::TimedOut));
    assert_eq!(cell.take(Deadline::after(Duration::from_millis(30))), Err(AcquireError::TimedOut));
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(cell.put(1, Deadline::NOW), Ok(()));
    assert_eq!(cell.put(2, Deadline::after(Duration::from_millis(30))), Err(AcquireError::TimedOut));
    assert_eq!(cell.take(Deadline::NOW), Ok(1));
    assert!(!cell.puts.has_waiters() && !cell.takes.has_waiters());
}

#[test]
fn waiter_that_times_out_takes_no_wake_up_with_it() {
    const ROUNDS: u64 = 100;
    let _watchdog = watchdog();
    let cell = Cell::leaked();
    let timeouts = AtomicU32::new(0);
    let start = Instant::now();
    thread::scope(|s| {
        // Two impatient takers time out again and again beside a patient one, which must get the rest.
        let taken: Vec<_> = (0..3)
            .map(|taker| {
                let timeouts = &timeouts;
                s.spawn(move || {
                    let mut taken = 0_u64;
                    loop {
                        let deadline = if taker == 0 {
                            Deadline::NEVER
                        } else {
                            Deadline::after(Duration::from_micros(300))
                        };
                        match cell.take(deadline) {
                            Ok(u64::MAX) => return taken,
                            Ok(_) => taken += 1,
                            Err(_) => drop(timeouts.fetch_add(1, SeqCst)),
                        }
                    }
                })
            })
            .collect();
        for round in 1..=ROUNDS {
            if round % 10 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(cell.put(round, Deadline::NEVER), Ok(()));
        }
        for _ in 0..3 {
            assert_eq!(cell.put(u64::MAX, Deadline::NEVER), Ok(()));
        }
        assert_eq!(taken.into_iter().map(|taker| taker.join().expect("no panic")).sum::<u64>(), ROUNDS);
    });
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn only_the_thread_inside_can_leave() {
    let cell = Cell::leaked();
    // SAFETY: it lives for ever.
    assert_eq!(unsafe { cell.puts.enter(Deadline::NOW) }, Ok(Acquired::Clean));
    assert!(cell.puts.lock().is_held_by_this_thread() && !cell.takes.lock().is_held());
    // SAFETY: as above.
    assert_eq!(unsafe { cell.puts.enter(Deadline::NEVER) }, Err(AcquireError::AlreadyHeld));
    thread::scope(|s| {
        s.spawn(|| {
            // SAFETY: as above.
            assert_eq!(unsafe { cell.puts.enter(Deadline::NOW) }, Err(AcquireError::TimedOut));
            assert!(!cell.puts.leave_without_peer());
        });
    });
    assert!(cell.puts.leave_without_peer());
    assert!(!cell.puts.lock().is_held());
}

#[test]
fn next_thread_learns_that_the_owner_ended_inside() {
    let _watchdog = watchdog();
    let cell = Cell::leaked();
    thread::scope(|s| {
        // SAFETY: as above.
        s.spawn(|| assert_eq!(unsafe { cell.puts.enter(Deadline::NEVER) }, Ok(Acquired::Clean)));
    });
    // SAFETY: as above.
    assert!(matches!(unsafe { cell.puts.enter(Deadline::NEVER) }, Ok(Acquired::OwnerDied(_))));
    assert!(cell.puts.leave_without_peer());
}
