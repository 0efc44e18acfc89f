//! Locks: whoever dies, the next one gets it, soon, and everybody who slept is woken.

use multiproc::{Lock, LockGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{FUTEX, SOON, await_asleep, nothing_left, ours, sign, wait_for};

/// Cells: 0 "the holder may let go", 1 "the lock is held"; peers sign from 10 on.
const GO: usize = 0;
const HELD: usize = 1;
const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep, double: bool) {
    for case in cases() {
        sweep.run(&case);
    }
    if double {
        for case in heirs() {
            sweep.run(&case);
        }
    }
}

pub(crate) fn cases() -> Vec<Case<'static, Lock>> {
    vec![
        case("lock/lock+unlock", |lock, _| take(lock), |lock, _| next_ones(lock)),
        case(
            "lock/unlock, two asleep",
            |lock, _| unlock(lock),
            |lock, kill| {
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock)
            },
        )
        .warm(hold_until_two_sleep)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .peer(|lock, cells| sleeper(lock, cells, 1)),
        case(
            "lock/unlock, two asleep and a barger",
            |lock, _| unlock(lock),
            |lock, kill| {
                drop(lock.try_lock()?);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock)
            },
        )
        .warm(hold_until_two_sleep)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .peer(|lock, cells| sleeper(lock, cells, 1)),
        case(
            "lock/lock, asleep, woken",
            |lock, _| take(lock),
            |lock, kill| {
                kill.cells().set(GO, 1);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock)
            },
        )
        .peer(holder)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .release(|_, cells| cells.set(GO, 1)),
        case(
            "lock/lock_timeout, in vain",
            |lock, _| drop(lock.lock_timeout(std::time::Duration::from_millis(30))),
            |lock, kill| {
                kill.cells().set(GO, 1);
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                next_ones(lock)
            },
        )
        .peer(holder)
        .peer(|lock, cells| sleeper(lock, cells, 0))
        .release(|_, _| ()),
        case("lock/try_lock", |lock, _| drop(lock.try_lock()), |lock, _| next_ones(lock)),
        nested("lock/two, oldest first"),
    ]
}

/// Double kills: the one who takes over is killed, too, at each of its states.
fn heirs() -> Vec<Case<'static, Lock>> {
    vec![case("lock/lock+unlock, then an heir", |lock, _| take(lock), |lock, _| next_ones(lock)).heir(|lock, _| take(lock))]
}

fn case(
    name: &str,
    victim: impl Fn(&Lock, &Cells) + 'static,
    survive: impl Fn(&Lock, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Lock> {
    Case::new(name, || Lock::new().unwrap(), victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
}

fn nested(name: &str) -> Case<'static, Lock> {
    let inner = std::rc::Rc::new(std::cell::RefCell::new(None));
    let other = std::rc::Rc::clone(&inner);
    let made = move || {
        *inner.borrow_mut() = Some(Lock::new().unwrap());
        Lock::new().unwrap()
    };
    let (victims, survivors) = (std::rc::Rc::clone(&other), std::rc::Rc::clone(&other));
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
        move |lock: &Lock, _: &Kill<'_>| {
            next_ones(lock)?;
            next_ones(survivors.borrow().as_ref().unwrap())
        },
    )
    .watch(|_| ours())
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

fn hold_until_two_sleep(lock: &Lock, cells: &Cells) {
    // SAFETY: given back by the victim's operation, or by its death.
    unsafe { lock.raw_lock() }.unwrap();
    cells.set(HELD, 1);
    await_asleep(cells, PEER, FUTEX);
    await_asleep(cells, PEER + 1, FUTEX);
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

/// The next ones get it, soon, and only the first may be told of a death.
fn next_ones(lock: &Lock) -> Result<(), Fault> {
    for turn in 0..3 {
        let begin = std::time::Instant::now();
        // At the end of a sleep a waiter looks whether the owner lives: that is the belt, and not what is tested here.
        let Some(guard) = lock.lock_timeout(SOON)?.filter(|_| begin.elapsed() < SOON) else {
            return Err(Fault::Hang(format!("nobody gets it any more, owner {:?}", lock.owner())));
        };
        if turn > 0 && LockGuard::previous_owner_died(&guard).is_some() {
            return Err(Fault::Torn("a second owner died?".into()));
        }
    }
    Ok(())
}
