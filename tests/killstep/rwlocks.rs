//! Readers and writers: whoever dies, the others come in, soon, and only a dead writer is told of.

use multiproc::{ReadGuard, RwLock, WriteGuard};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{SOON, killed_only, killed_twice, nothing_left, ours, wait_for};

/// Cells: 0 "the holder may let go", 1 "the lock is held".
const GO: usize = 0;
const HELD: usize = 1;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&killed_only(case));
    }
    sweep.run(&killed_twice(
        case("rwlock/write+unlock, then an heir", |lock, _| drop(lock.write()), |lock, _| usable(lock))
            .heir(|lock, _| drop(lock.write())),
    ));
}

pub(crate) fn cases() -> Vec<Case<'static, RwLock>> {
    vec![
        case("rwlock/read+unlock", |lock, _| drop(lock.read()), |lock, _| untold(lock)),
        case("rwlock/try_read", |lock, _| drop(lock.try_read()), |lock, _| untold(lock)),
        case("rwlock/read+unlock, a place used before", |lock, _| drop(lock.read()), |lock, _| untold(lock)).warm(read),
        case("rwlock/read+unlock, a place used before, others come", |lock, _| drop(lock.read()), woken)
            .warm(read)
            .late_peer(write)
            .late_peer(read),
        case("rwlock/write+unlock", |lock, _| drop(lock.write()), |lock, _| usable(lock)),
        case("rwlock/try_write", |lock, _| drop(lock.try_write()), |lock, _| usable(lock)),
        case("rwlock/read+unlock, another reads", |lock, _| drop(lock.read()), let_go)
            .peer(|lock, cells| hold(lock.read().unwrap(), cells)),
        // A late reader and a late writer find the victim anywhere, and wait for it where they must.
        case("rwlock/read+unlock, others come", |lock, _| drop(lock.read()), woken).late_peer(write).late_peer(read),
        case("rwlock/write+unlock, others come", |lock, _| drop(lock.write()), woken).late_peer(write).late_peer(read),
        case("rwlock/write, asleep for a reader, woken", |lock, _| drop(lock.write()), let_go)
            .peer(|lock, cells| hold(lock.read().unwrap(), cells))
            .release(|_, cells| cells.set(GO, 1)),
        case("rwlock/write, asleep for a writer, woken", |lock, _| drop(lock.write()), let_go)
            .peer(|lock, cells| hold(lock.write().unwrap(), cells))
            .release(|_, cells| cells.set(GO, 1)),
        case("rwlock/read, asleep, woken", |lock, _| drop(lock.read()), let_go)
            .peer(|lock, cells| hold(lock.write().unwrap(), cells))
            .release(|_, cells| cells.set(GO, 1)),
        case("rwlock/write_timeout, in vain", |lock, _| drop(lock.write_timeout(std::time::Duration::from_millis(30))), let_go)
            .peer(|lock, cells| hold(lock.read().unwrap(), cells))
            .release(|_, _| ()),
        case("rwlock/read_timeout, in vain", |lock, _| drop(lock.read_timeout(std::time::Duration::from_millis(30))), let_go)
            .peer(|lock, cells| hold(lock.write().unwrap(), cells))
            .release(|_, _| ()),
    ]
}

fn case(
    name: &str,
    victim: impl Fn(&RwLock, &Cells) + 'static,
    survive: impl Fn(&RwLock, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, RwLock> {
    Case::new(name, || RwLock::new().unwrap(), victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
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
    kill.must_wake(0)?;
    usable(lock)
}

fn woken(lock: &RwLock, kill: &Kill<'_>) -> Result<(), Fault> {
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    usable(lock)
}

/// Nobody has written, so nobody is told.
fn untold(lock: &RwLock) -> Result<(), Fault> {
    let guard = lock.read_timeout(SOON)?.ok_or(Fault::Hang("nobody reads any more".into()))?;
    if ReadGuard::previous_owner_died(&guard).is_some() {
        return Err(Fault::Torn("a writer died?".into()));
    }
    drop(guard);
    usable(lock)
}

/// The next ones come in, soon, and once a writer has finished nobody is told of a death.
fn usable(lock: &RwLock) -> Result<(), Fault> {
    drop(lock.read_timeout(SOON)?.ok_or(Fault::Hang("nobody reads any more".into()))?);
    drop(lock.write_timeout(SOON)?.ok_or(Fault::Hang("nobody writes any more".into()))?);
    let guard = lock.write_timeout(SOON)?.ok_or(Fault::Hang("nobody writes any more".into()))?;
    if WriteGuard::previous_owner_died(&guard).is_some() || lock.readers() > 0 {
        return Err(Fault::Torn("the dead stay".into()));
    }
    Ok(())
}
