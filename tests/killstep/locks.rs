//! Locks: after any death the next waiter gets the lock soon, and every sleeping peer is woken.

use multiproc::{Lock, LockGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{
    FUTEX, SOON, await_asleep, keeps_its_lock, nothing_left, ours, peers_go_on, sign, wait_for,
};

/// Cells: 0 "the holder may let go", 1 "the lock is held"; peers sign from 10 on.
const GO: usize = 0;
const HELD: usize = 1;
const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Lock>> {
    vec![
        case("lock/lock+unlock", |lock, _| take(lock), next_ones).sampled(3),
        case(
            "lock/unlock, another waits",
            |lock, _| unlock(lock),
            |lock, kill| {
                kill.must_wake(0)?;
                next_ones(lock, kill)
            },
        )
        .warm(|lock, cells| hold_until_asleep(lock, cells, 1))
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .recoverer(|lock, _| take(lock))
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 1)),
        case(
            "lock/unlock, two asleep",
            |lock, _| unlock(lock),
            |lock, kill| {
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock, kill)
            },
        )
        .warm(|lock, cells| hold_until_asleep(lock, cells, 2))
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .peer(|lock, cells| sleeper(lock, cells, 1))
        .recoverer(|lock, _| take(lock))
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 2))
        .sampled(3),
        case(
            "lock/unlock, two asleep and a barger",
            |lock, _| unlock(lock),
            |lock, kill| {
                drop(lock.try_lock()?);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock, kill)
            },
        )
        .warm(|lock, cells| hold_until_asleep(lock, cells, 2))
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .peer(|lock, cells| sleeper(lock, cells, 1))
        .recoverer(|lock, _| take(lock))
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 2)),
        case(
            "lock/lock, asleep, woken",
            |lock, _| take(lock),
            |lock, kill| {
                kill.cells().set(GO, 1);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock, kill)
            },
        )
        .peer(holder)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .release(|_, cells| cells.set(GO, 1))
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 2)),
        case(
            "lock/lock_timeout, times out",
            |lock, _| drop(lock.lock_timeout(std::time::Duration::from_millis(30))),
            |lock, kill| {
                kill.cells().set(GO, 1);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock, kill)
            },
        )
        .peer(holder)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .release(|_, _| ())
        .frozen(|lock, kill| sleepers_go_on(lock, kill, 2)),
        case("lock/try_lock", |lock, _| drop(lock.try_lock()), next_ones),
        nested("lock/two, oldest first"),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Lock, &Cells) + 'static,
    survive: impl Fn(&Lock, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Lock> {
    Case::new(name, || Lock::new().unwrap(), victim, survive)
        .frozen(unharmed)
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

fn nested(name: &str) -> Case<'static, Lock> {
    let inner = std::rc::Rc::new(std::cell::RefCell::new(None));
    let other = std::rc::Rc::clone(&inner);
    let made = move || {
        *inner.borrow_mut() = Some(Lock::new().unwrap());
        Lock::new().unwrap()
    };
    let (victims, survivors, others) =
        (std::rc::Rc::clone(&other), std::rc::Rc::clone(&other), std::rc::Rc::clone(&other));
    Case::new(
        name,
        made,
        move |lock: &Lock, _: &Cells| {
            let other = victims.borrow();
            let first = lock.lock();
            let second = other.as_ref().unwrap().lock();
            drop(first);
            drop(second);
        },
        move |lock: &Lock, kill: &Kill<'_>| {
            next_ones(lock, kill)?;
            next_ones(survivors.borrow().as_ref().unwrap(), kill)
        },
    )
    .frozen(move |lock, kill| {
        unharmed(lock, kill)?;
        unharmed(others.borrow().as_ref().unwrap(), kill)
    })
    .watch(|_| ours())
    .wake_within(SOON)
    .finally(move || {
        *other.borrow_mut() = None;
        nothing_left()
    })
}

fn take(lock: &Lock) {
    drop(lock.lock());
}

fn unlock(lock: &Lock) {
    // SAFETY: taken in `warm`, by this thread.
    unsafe { lock.raw_unlock() };
}

fn hold_until_asleep(lock: &Lock, cells: &Cells, sleepers: usize) {
    // SAFETY: given back by the victim's operation, or by its death.
    unsafe { lock.raw_lock() }.unwrap();
    cells.set(HELD, 1);
    (0..sleepers).for_each(|number| await_asleep(cells, PEER + number, FUTEX));
}

fn sleeper(lock: &Lock, cells: &Cells, number: usize) {
    wait_for(cells, HELD);
    sign(cells, PEER + number);
    take(lock);
}

fn holder(lock: &Lock, cells: &Cells) {
    let guard = lock.lock().unwrap();
    cells.set(HELD, 1);
    wait_for(cells, GO);
    drop(guard);
}

/// The next three calls get it soon, and only the first may report a death.
fn next_ones(lock: &Lock, kill: &Kill<'_>) -> Result<(), Fault> {
    for turn in 0..3 {
        let begin = std::time::Instant::now();
        // At the end of a sleep a waiter looks whether the owner lives. This liveness poll is not what is
        // tested here (but for `Mode::Missed`, which is patient).
        let soon = kill.patience();
        let Some(guard) = lock.lock_timeout(soon)?.filter(|_| begin.elapsed() < soon) else {
            return Err(Fault::Hang(format!("no process gets it any more, owner {:?}", lock.owner())));
        };
        let reported = LockGuard::previous_owner_died(&guard).is_some();
        if reported && (turn > 0 || kill.mode() == Mode::Freeze) {
            return Err(Fault::Torn(
                if turn > 0 { "a second owner died?" } else { "no process died" }.into(),
            ));
        }
    }
    Ok(())
}

/// While the victim stands still.
fn unharmed(lock: &Lock, kill: &Kill<'_>) -> Result<(), Fault> {
    keeps_its_lock(
        kill,
        || lock.owner().map(|owner| owner.tid),
        |limit| {
            let guard = if limit.is_zero() { lock.try_lock() } else { lock.lock_timeout(limit) }?;
            Ok(guard.map(|guard| LockGuard::previous_owner_died(&guard).is_some()))
        },
    )
}

/// The same with peers that want the lock, too: unless the victim has it, they get it.
fn sleepers_go_on(lock: &Lock, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    unharmed(lock, kill)?;
    kill.cells().set(GO, 1);
    if lock.owner().is_some_and(|owner| owner.tid == kill.victim()) {
        Ok(())
    } else {
        peers_go_on(kill, peers)
    }
}
