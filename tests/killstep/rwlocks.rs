//! Readers and writers: after any death the others enter soon, and only a dead writer is reported.

use std::cell::RefCell;
use std::time::Duration;

use multiproc::{ReadGuard, RwLock, WriteGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{
    FUTEX, SOON, await_asleep, keeps_its_lock, nothing_left, ours, peers_go_on, sign, wait_for,
};

/// Cells: 0 "the holder may let go", 1 "the lock is held", 2 "the holder may let go since before the death";
/// peers sign from 10 on.
const GO: usize = 0;
const HELD: usize = 1;
const WENT: usize = 2;
const PEER: usize = 10;

/// So many peers read, as long as the victim stands still.
#[derive(Clone, Copy)]
struct Beside(usize);

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

pub(crate) fn cases() -> Vec<Case<'static, RwLock>> {
    vec![
        case("rwlock/read+unlock", |lock, _| drop(lock.read()), no_report),
        case("rwlock/try_read", |lock, _| drop(lock.try_read()), no_report),
        case("rwlock/read+unlock, a claim used before", |lock, _| drop(lock.read()), no_report).warm(read),
        case("rwlock/read+unlock, a claim used before, others come", |lock, _| drop(lock.read()), woken)
            .warm(read)
            .late_peer(write)
            .late_peer(read),
        case("rwlock/write+unlock", |lock, _| drop(lock.write()), usable).sampled(3),
        case("rwlock/try_write", |lock, _| drop(lock.try_write()), usable),
        case("rwlock/read+unlock, another reads", |lock, _| drop(lock.read()), let_go)
            .peer(|lock, cells| hold(lock.read().unwrap(), cells))
            .frozen(|lock, kill| stands_still(lock, kill, Beside(1), 1)),
        // A late reader and a late writer find the victim at any point, and wait for it if they must.
        case("rwlock/read+unlock, others come", |lock, _| drop(lock.read()), woken)
            .late_peer(write)
            .late_peer(read)
            .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 2)),
        case("rwlock/write+unlock, others come", |lock, _| drop(lock.write()), woken)
            .late_peer(write)
            .late_peer(read)
            .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 2)),
        // They sleep already when the victim unlocks; the barger comes after that.
        case("rwlock/unlock of a reader, a writer asleep", |_, _| let_guard_go(), woken_one)
            .warm(|lock, cells| keep(Held::Read(kept(lock).read().unwrap()), cells, 1))
            .peer(|lock, cells| sleeper(lock, cells, 0, write))
            .recoverer(|lock, _| drop(lock.try_write()))
            .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 1)),
        case(
            "rwlock/unlock of a writer, two asleep and a barger",
            |_, _| let_guard_go(),
            |lock, kill| {
                drop(lock.try_write()?);
                woken(lock, kill)
            },
        )
        .warm(|lock, cells| keep(Held::Write(kept(lock).write().unwrap()), cells, 2))
        .peer(|lock, cells| sleeper(lock, cells, 0, write))
        .peer(|lock, cells| sleeper(lock, cells, 1, read))
        .recoverer(|lock, _| drop(lock.try_write()))
        .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 2)),
        case(
            "rwlock/write, asleep for a reader, woken",
            |lock, _| drop(lock.write()),
            |lock, kill| {
                if kill.cell(WENT) == 0
                    && !kill.finished()
                    && !kill.recoverer_finished()
                    && kill.mode() != Mode::Freeze
                {
                    // The reader is still there, so no process has written.
                    kill.cells().set(GO, 1);
                    kill.must_wake(0)?;
                    return no_report(lock, kill);
                }
                let_go(lock, kill)
            },
        )
        .peer(|lock, cells| hold(lock.read().unwrap(), cells))
        .release(|_, cells| {
            cells.set(WENT, 1);
            cells.set(GO, 1);
        })
        .frozen(|lock, kill| stands_still(lock, kill, Beside(1), 1)),
        case("rwlock/write, asleep for a writer, woken", |lock, _| drop(lock.write()), let_go)
            .peer(|lock, cells| hold(lock.write().unwrap(), cells))
            .release(|_, cells| cells.set(GO, 1))
            .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 1)),
        case("rwlock/read, asleep, woken", |lock, _| drop(lock.read()), let_go)
            .peer(|lock, cells| hold(lock.write().unwrap(), cells))
            .release(|_, cells| cells.set(GO, 1))
            .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 1)),
        case(
            "rwlock/write_timeout, times out",
            |lock, _| drop(lock.write_timeout(Duration::from_millis(30))),
            let_go,
        )
        .peer(|lock, cells| hold(lock.read().unwrap(), cells))
        .release(|_, _| ())
        .frozen(|lock, kill| stands_still(lock, kill, Beside(1), 1)),
        case(
            "rwlock/read_timeout, times out",
            |lock, _| drop(lock.read_timeout(Duration::from_millis(30))),
            let_go,
        )
        .peer(|lock, cells| hold(lock.write().unwrap(), cells))
        .release(|_, _| ())
        .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 1)),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&RwLock, &Cells) + 'static,
    survive: impl Fn(&RwLock, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, RwLock> {
    Case::new(name, || RwLock::new().unwrap(), victim, survive)
        .frozen(|lock, kill| stands_still(lock, kill, Beside(0), 0))
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
}

/// A guard that the victim has from `warm` on.
enum Held {
    Read(ReadGuard<'static>),
    Write(WriteGuard<'static>),
}

thread_local! {
    static GUARD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// A handle for the rest of this process's life.
fn kept(lock: &RwLock) -> &'static RwLock {
    Box::leak(Box::new(lock.clone()))
}

fn keep(guard: Held, cells: &Cells, sleepers: usize) {
    GUARD.set(Some(guard));
    cells.set(HELD, 1);
    (0..sleepers).for_each(|number| await_asleep(cells, PEER + number, FUTEX));
}

fn let_guard_go() {
    match GUARD.take() {
        Some(Held::Read(guard)) => drop(guard),
        Some(Held::Write(guard)) => drop(guard),
        None => {}
    }
}

fn sleeper(lock: &RwLock, cells: &Cells, number: usize, want: fn(&RwLock, &Cells)) {
    wait_for(cells, HELD);
    sign(cells, PEER + number);
    want(lock, cells);
}

fn hold<G>(guard: G, cells: &Cells) {
    cells.set(HELD, 1);
    wait_for(cells, GO);
    drop(guard);
}

fn write(lock: &RwLock, _: &Cells) {
    drop(lock.write());
}

fn read(lock: &RwLock, _: &Cells) {
    drop(lock.read());
}

fn let_go(lock: &RwLock, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.cells().set(GO, 1);
    woken_one(lock, kill)
}

fn woken_one(lock: &RwLock, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(0)?;
    usable(lock, kill)
}

fn woken(lock: &RwLock, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    usable(lock, kill)
}

/// No process has written, so no death is reported.
fn no_report(lock: &RwLock, kill: &Kill<'_>) -> Result<(), Fault> {
    let guard =
        lock.read_timeout(kill.patience())?.ok_or(Fault::Hang("no process can read any more".into()))?;
    if ReadGuard::previous_owner_died(&guard).is_some() {
        return Err(Fault::Torn("a writer died?".into()));
    }
    drop(guard);
    usable(lock, kill)
}

/// The next processes enter soon, and once a writer has finished no death is reported.
fn usable(lock: &RwLock, kill: &Kill<'_>) -> Result<(), Fault> {
    let soon = kill.patience();
    let reader = lock.read_timeout(soon)?.ok_or(Fault::Hang("no process can read any more".into()))?;
    if kill.mode() == Mode::Freeze && ReadGuard::previous_owner_died(&reader).is_some() {
        return Err(Fault::Torn("no process died".into()));
    }
    drop(reader);
    drop(lock.write_timeout(soon)?.ok_or(Fault::Hang("no process can write any more".into()))?);
    let guard = lock.write_timeout(soon)?.ok_or(Fault::Hang("no process can write any more".into()))?;
    if WriteGuard::previous_owner_died(&guard).is_some() || lock.readers() > 0 {
        return Err(Fault::Torn("the dead stay".into()));
    }
    Ok(())
}

/// While the victim stands still: as long as it reads no process writes, as long as it writes none enters, no
/// death is reported, and time-outs hold. What it does not hold, other processes get; then the peers, too.
fn stands_still(lock: &RwLock, kill: &Kill<'_>, beside: Beside, peers: usize) -> Result<(), Fault> {
    const ANY_READER: u32 = 1;
    let writer = || lock.writer().map(|owner| owner.tid);
    let reads = || lock.readers() > beside.0;
    let holder = || {
        writer().or_else(|| {
            if reads() { Some(kill.victim()) } else { (lock.readers() > 0).then_some(ANY_READER) }
        })
    };
    keeps_its_lock(kill, writer, |limit| {
        let guard = if limit.is_zero() { lock.try_read() } else { lock.read_timeout(limit) }?;
        Ok(guard.map(|guard| ReadGuard::previous_owner_died(&guard).is_some()))
    })?;
    keeps_its_lock(kill, holder, |limit| {
        let guard = if limit.is_zero() { lock.try_write() } else { lock.write_timeout(limit) }?;
        Ok(guard.map(|guard| WriteGuard::previous_owner_died(&guard).is_some()))
    })?;
    kill.cells().set(GO, 1);
    let has = writer() == Some(kill.victim()) || (beside.0 == 0 && reads());
    if has { Ok(()) } else { peers_go_on(kill, peers) }
}
