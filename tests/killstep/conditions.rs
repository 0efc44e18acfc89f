//! Conditions: whatever process dies, each notification wakes one living waiter, and no other process.

use multiproc::{Condition, Lock, LockGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{
    SOON, WAITV, await_asleep, ignore, keeps_its_lock, nothing_left, ours, peers_go_on, sign, wait_for,
};

// Cells; peers sign from 10 on.
/// The second waiter may come.
const GO: usize = 0;
/// The holder may take the lock,
const HOLD: usize = 1;
/// has it,
const HELD: usize = 2;
/// and may let go.
const LET_GO: usize = 3;
/// A waiter was notified.
const NOTIFIED: usize = 4;
/// The victim has come back from its wait.
const BACK: usize = 5;
/// The process that will be killed with a notification.
const DOOMED: usize = 6;
const PEER: usize = 10;

/// A condition and the lock that goes with it.
type Pair = (Condition, Lock);

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
    for case in recoverers() {
        sweep.run(&case.without(Mode::Freeze, TWO).without(Mode::Missed, TWO));
    }
}

/// Why the cases with recoverers are not swept in the other modes.
const TWO: &str = "as the case without a recoverer: it differs in the second death";

pub(crate) fn cases() -> Vec<Case<'static, Pair>> {
    vec![
        case(
            "condition/notify_one, none waits",
            |pair, _| ignore(pair.0.notify_one()),
            |pair, kill| usable(pair, kill, 0),
        ),
        case(
            "condition/notify_one, one waits",
            |pair, _| ignore(pair.0.notify_one()),
            |pair, kill| whole(pair, kill, 1, 1),
        )
        .frozen(|pair, kill| stands_still(pair, kill, 1))
        .warm(|pair, cells| asleep(pair, cells, 1))
        .peer(|pair, cells| sleeper(pair, cells, 0)),
        case(
            "condition/notify_one, two wait",
            |pair, _| ignore(pair.0.notify_one()),
            |pair, kill| whole(pair, kill, 2, 1),
        )
        .frozen(|pair, kill| stands_still(pair, kill, 2))
        .sampled(3)
        .warm(|pair, cells| asleep(pair, cells, 2))
        .peer(|pair, cells| sleeper(pair, cells, 0))
        .peer(|pair, cells| sleeper(pair, cells, 1)),
        case(
            "condition/notify, two of three",
            |pair, _| ignore(pair.0.notify(2)),
            |pair, kill| whole(pair, kill, 3, 2),
        )
        .frozen(|pair, kill| stands_still(pair, kill, 3))
        .warm(|pair, cells| asleep(pair, cells, 3))
        .peer(|pair, cells| sleeper(pair, cells, 0))
        .peer(|pair, cells| sleeper(pair, cells, 1))
        .peer(|pair, cells| sleeper(pair, cells, 2)),
        case(
            "condition/notify_all, two wait",
            |pair, _| ignore(pair.0.notify_all()),
            |pair, kill| whole(pair, kill, 2, 2),
        )
        .frozen(|pair, kill| stands_still(pair, kill, 2))
        .warm(|pair, cells| asleep(pair, cells, 2))
        .peer(|pair, cells| sleeper(pair, cells, 0))
        .peer(|pair, cells| sleeper(pair, cells, 1)),
        case("condition/wait, to its sleep", |pair, _| wait(pair), |pair, kill| usable(pair, kill, 0)),
        case("condition/wait, notified", |pair, _| wait(pair), |pair, kill| usable(pair, kill, 0))
            .release(|pair, _| ignore(pair.0.notify_one())),
        // The victim is notified while a third process holds the lock: the notification that it was killed
        // with is for the other waiter.
        case("condition/wait, notified, another waits", return_from_wait, passed_on)
            .release(call_the_victim)
            .recoverer(|pair, _| ignore(pair.0.notify_one()))
            .peer(second)
            .peer(holder),
        // Another waiter is notified and killed: that wakes the victim, which has to pass the notification
        // on.
        case("condition/wait, woken by a death, another waits", return_from_wait, passed_on)
            .recoverer(|pair, _| ignore(pair.0.notify_one()))
            .warm(|pair, _| wait_until(|| pair.0.waiters() == 1))
            .release(kill_one_that_is_called)
            .peer(second)
            .peer(holder)
            .peer(doomed),
        case(
            "condition/wait_timeout, times out",
            |pair, _| wait_briefly(pair),
            |pair, kill| whole(pair, kill, 1, 0),
        )
        .release(|_, _| ())
        .peer(|pair, cells| sleeper(pair, cells, 0)),
        case(
            "condition/wait_timeout, not at all",
            |pair, _| ignore(pair.0.wait_timeout(lock(pair), std::time::Duration::ZERO)),
            |pair, kill| whole(pair, kill, 1, 0),
        )
        .peer(|pair, cells| sleeper(pair, cells, 0)),
    ]
}

/// Double kills: the process that repairs is killed, too.
fn recoverers() -> Vec<Case<'static, Pair>> {
    vec![
        case(
            "condition/notify_one, two wait, then a recoverer",
            |pair, _| ignore(pair.0.notify_one()),
            |pair, kill| {
                // Each of the two may have notified one waiter, or none.
                pair.0.notify_all()?;
                usable(pair, kill, 0)
            },
        )
        .recoverer(|pair, _| ignore(pair.0.notify_one()))
        .warm(|pair, _| drop(lock(pair)))
        .peer(|pair, cells| sleeper(pair, cells, 0))
        .peer(|pair, cells| sleeper(pair, cells, 1)),
        case(
            "condition/wait, killed asleep, then a recoverer",
            |pair, _| wait(pair),
            |pair, kill| {
                let left = pair.0.waiters();
                if left > 1 || (left == 1 && kill.recoverer_finished()) {
                    return Err(Fault::Lost("a dead waiter was notified, or is counted".into()));
                }
                usable(pair, kill, left)
            },
        )
        .recoverer(|pair, _| ignore(pair.0.notify_one()))
        .peer(|pair, cells| sleeper(pair, cells, 0)),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&Pair, &Cells) + 'static,
    survive: impl Fn(&Pair, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Pair> {
    Case::new(name, || (Condition::new().unwrap(), Lock::new().unwrap()), victim, survive)
        .frozen(|pair, kill| stands_still(pair, kill, 0))
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

fn lock(pair: &Pair) -> LockGuard<'_> {
    pair.1.lock().unwrap()
}

fn wait(pair: &Pair) {
    ignore(pair.0.wait(lock(pair)));
}

fn wait_briefly(pair: &Pair) {
    ignore(pair.0.wait_timeout(lock(pair), std::time::Duration::from_millis(30)));
}

fn sleeper(pair: &Pair, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    wait(pair);
}

/// All of these peers sleep in the condition.
fn asleep(pair: &Pair, cells: &Cells, count: usize) {
    (0..count).for_each(|number| await_asleep(cells, PEER + number, WAITV));
    assert_eq!(pair.0.waiters(), count);
}

fn wait_until(mut true_at_last: impl FnMut() -> bool) {
    while !true_at_last() {
        // SAFETY: no descriptors at all.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
    }
}

/// The victim: notes when it is back, with the lock.
fn return_from_wait(pair: &Pair, cells: &Cells) {
    let guard = pair.0.wait(lock(pair));
    cells.set(BACK, 1);
    drop(guard);
}

/// Waits in the condition, after the victim.
fn second(pair: &Pair, cells: &Cells) {
    wait_for(cells, GO);
    wait(pair);
}

/// Has the lock while a waiter is notified.
fn holder(pair: &Pair, cells: &Cells) {
    wait_for(cells, HOLD);
    let guard = lock(pair);
    cells.set(HELD, 1);
    wait_for(cells, LET_GO);
    drop(guard);
}

/// Waits in the condition before the victim, as a child that can be killed.
fn doomed(pair: &Pair, cells: &Cells) {
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        wait(pair);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    cells.set(DOOMED, u64::from(child.unsigned_abs()));
    // SAFETY: a child of ours.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

/// At the victim's first sleep; at the next one, for the lock, the holder lets go.
fn call_the_victim(pair: &Pair, cells: &Cells) {
    if cells.get(NOTIFIED) == 0 {
        call_the_oldest(pair, cells);
    } else {
        cells.set(LET_GO, 1);
    }
}

/// Has a peer hold the lock, and notifies the waiter that came first.
fn call_the_oldest(pair: &Pair, cells: &Cells) {
    let before = pair.0.waiters();
    cells.set(GO, 1);
    wait_until(|| pair.0.waiters() == before + 1);
    cells.set(HOLD, 1);
    wait_for(cells, HELD);
    cells.set(NOTIFIED, 1);
    ignore(pair.0.notify_one());
}

fn kill_one_that_is_called(pair: &Pair, cells: &Cells) {
    if cells.get(NOTIFIED) == 0 {
        call_the_oldest(pair, cells);
        let doomed = i32::try_from(cells.get(DOOMED)).unwrap();
        // SAFETY: numbers only.
        unsafe { libc::kill(doomed, libc::SIGKILL) };
    } else {
        cells.set(LET_GO, 1);
    }
}

/// There was one notification, for a dead waiter. The other waiter gets it soon, unless the victim had it and
/// came back with it.
fn passed_on(pair: &Pair, kill: &Kill<'_>) -> Result<(), Fault> {
    let cells = kill.cells();
    let notified = cells.get(NOTIFIED) != 0;
    cells.set(LET_GO, 1);
    cells.set(HOLD, 1);
    if !notified {
        // The sleeping waiter finds an unnoticed death by itself, and would do so while we count.
        let living = usize::from(cells.get(DOOMED) != 0);
        if kill.mode() == Mode::Missed && living > 0 {
            wait_until(|| pair.0.waiters() == living);
        }
        let before = pair.0.waiters();
        cells.set(GO, 1);
        wait_until(|| pair.0.waiters() == before + 1);
        return usable(pair, kill, before + 1);
    }
    match kill.must_wake(0) {
        Ok(_) if cells.get(BACK) != 0 && kill.mode() != Mode::Double => {
            Err(Fault::Torn("one notification, two waiters that came back".into()))
        }
        Ok(_) => usable(pair, kill, 0),
        Err(lost) => {
            let guard = pair
                .1
                .lock_timeout(kill.patience())?
                .ok_or(Fault::Hang("no process gets the lock any more".into()))?;
            if cells.get(BACK) == 0 && LockGuard::previous_owner_died(&guard).is_none() {
                return Err(lost);
            }
            drop(guard);
            usable(pair, kill, 1)
        }
    }
}

/// Of `all` waiters, `notified` were notified, or none if the notifier was killed before: nothing between.
fn whole(pair: &Pair, kill: &Kill<'_>, all: usize, notified: usize) -> Result<(), Fault> {
    if kill.mode() == Mode::Missed {
        // A sleeping waiter finds by itself that the victim, which counts as a waiter, is dead.
        wait_until(|| pair.0.waiters() <= all);
    }
    let left = pair.0.waiters();
    // Its recoverer notifies as well: once more all, or none.
    let recoverers = if kill.mode() == Mode::Double { notified } else { 0 };
    let most = (all - left.min(all)).min(all);
    let possible = [0, notified, recoverers, notified + recoverers].map(|notified| notified.min(all));
    let least = usize::from(kill.finished()) * notified + usize::from(kill.recoverer_finished()) * recoverers;
    if !possible.contains(&most) || most < least.min(all) {
        return Err(Fault::Torn(format!("{left} of {all} still wait")));
    }
    // They were notified in the order in which they came, which is that of their numbers.
    (0..all - left).try_for_each(|number| kill.must_wake(number).map(drop))?;
    if pair.0.waiters() != left {
        return Err(Fault::Torn("more waiters were notified than wanted".into()));
    }
    usable(pair, kill, left)
}

/// So many waiters are left, which are notified now. The next processes can use the lock and the condition as
/// before.
fn usable(pair: &Pair, kill: &Kill<'_>, waiting: usize) -> Result<(), Fault> {
    let notified = pair.0.notify_all()?;
    // A waiter whose death is not noticed yet counts: its notification goes to another waiter when the death
    // is noticed.
    let unnoticed = usize::from(kill.mode() == Mode::Missed);
    if notified < waiting || notified > waiting + unnoticed {
        return Err(Fault::Lost(format!("{notified} were notified, {waiting} waited")));
    }
    let Some(guard) = pair.1.lock_timeout(kill.patience())? else {
        return Err(Fault::Hang("no process gets the lock any more".into()));
    };
    let passed_on = notified > waiting;
    let (_guard, notified) = pair.0.wait_timeout(guard, std::time::Duration::from_millis(1))?;
    if (notified && !passed_on) || pair.0.waiters() != 0 {
        return Err(Fault::Torn("a notification that was not made".into()));
    }
    Ok(())
}

/// While the victim stands still, no process takes the user's lock from it, and the waiters among `peers`
/// that it has notified go on within a second. (Not asked of others: a process that notifies or begins to
/// wait while the victim stands inside the mutex waits for it.)
fn stands_still(pair: &Pair, kill: &Kill<'_>, peers: usize) -> Result<(), Fault> {
    keeps_its_lock(
        kill,
        || pair.1.owner().map(|owner| owner.tid),
        |limit| {
            let guard = if limit.is_zero() { pair.1.try_lock() } else { pair.1.lock_timeout(limit) }?;
            Ok(guard.map(|guard| LockGuard::previous_owner_died(&guard).is_some()))
        },
    )?;
    if peers == 0 { Ok(()) } else { peers_go_on(kill, peers - pair.0.waiters().min(peers)) }
}
