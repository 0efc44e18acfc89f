//! What the cases share: a namespace of their own, its bytes, and how to wait for a peer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use multiproc::shm::{Gc, Namespace};
use multiproc_killstep::{Cells, Fault, Kill, Region};

/// A namespace of this process alone, removed in the end; and one CPU, so that no process spins: single steps
/// through a spin loop prove nothing and take minutes.
pub(crate) struct OwnNamespace(PathBuf);

impl OwnNamespace {
    /// `sweeps`: whether this process does; else its workers need all of its CPUs.
    pub(crate) fn new(sweeps: bool) -> Self {
        let directory = PathBuf::from(format!("/dev/shm/multiproc-killstep-{}", std::process::id()));
        // SAFETY: this program has one thread.
        unsafe { std::env::set_var("MULTIPROC_DIR", &directory) };
        if sweeps {
            // SAFETY: no arguments.
            let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0);
            run_on(cpu..cpu + 1);
        }
        // How long to spin is found out once: here, and not in every victim.
        multiproc::robust::spin(multiproc::robust::NO_CPU, 1, 1, || true);
        Self(directory)
    }
}

/// Lets this process run on all CPUs: for hunts in which processes must race.
pub(crate) fn all_cpus() {
    run_on(0..64);
}

fn run_on(cpus: std::ops::Range<usize>) {
    // SAFETY: an all-zero CPU set is a valid one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        // SAFETY: a valid set and a CPU in its range.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: a valid set of its own size.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

impl Drop for OwnNamespace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Every byte of ours that this process has mapped.
pub(crate) fn ours() -> Vec<Region> {
    // Only the beginning of a queue, whose log may become very long.
    beginnings(16 << 10)
}

/// So many bytes of every object of ours that this process has mapped.
pub(crate) fn beginnings(most: usize) -> Vec<Region> {
    let directory = std::env::var("MULTIPROC_DIR").unwrap_or_default();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
    let ranges = maps.lines().filter(|line| line.contains(&directory)).filter_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((hex(start)?, hex(end)?))
    });
    ranges
        .map(|(start, end)| Region::new(std::ptr::with_exposed_provenance(start), (end - start).min(most)))
        .collect()
}

/// Nothing is left: neither a file nor an in-flight reference that would keep a file.
pub(crate) fn nothing_left() -> Result<(), Fault> {
    let namespace = Namespace::current()?;
    Gc::new().in_flight_age(Duration::ZERO).run(&namespace)?;
    let left = files(namespace.path());
    if left.is_empty() { Ok(()) } else { Err(Fault::Leaked(format!("{left:?}"))) }
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Leaves its process id, so that the victim can wait until the process sleeps.
pub(crate) fn sign(cells: &Cells, cell: usize) {
    cells.set(cell, u64::from(std::process::id()));
}

/// Waits until a cell is not 0 any more.
pub(crate) fn wait_for(cells: &Cells, cell: usize) {
    while cells.get(cell) == 0 {
        // Not a `sleep`, which the kit does not take for waiting.
        // SAFETY: no descriptors at all.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 4) };
    }
}

/// Waits until the process that signed the cell sleeps in this futex call.
pub(crate) fn await_asleep(cells: &Cells, cell: usize, calls: &[i64]) {
    wait_for(cells, cell);
    let file = format!("/proc/{}/syscall", cells.get(cell));
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let call = std::fs::read_to_string(&file).unwrap_or_default();
        let number = call.split(' ').next().and_then(|number| number.parse::<i64>().ok());
        if number.is_some_and(|number| calls.contains(&number)) {
            return;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// A sleep on one word.
pub(crate) const FUTEX: &[i64] = &[libc::SYS_futex];
/// A sleep on several words: a ring's long sleep, after its brief park.
pub(crate) const WAITV: &[i64] = &[libc::SYS_futex_waitv];

/// Well below the second after which the liveness poll would help.
pub(crate) const SOON: Duration = Duration::from_millis(500);

/// For results that the victim does not look at.
pub(crate) fn ignore<T>(_: T) {}

/// A time-out while the victim stands still.
pub(crate) const BRIEFLY: Duration = Duration::from_millis(20);
/// Within a second the liveness poll replaces a wake-up that a stopped process holds.
const LIVENESS_POLL: Duration = Duration::from_millis(1500);

/// It ended in time. What was added to `limit` may be a busy machine's, but is less than the second between
/// two liveness polls.
pub(crate) fn in_time(what: &str, begin: Instant, limit: Duration) -> Result<(), Fault> {
    const BUSY: Duration = Duration::from_millis(900);
    let took = begin.elapsed();
    if took <= limit + BUSY {
        Ok(())
    } else {
        Err(Fault::Hang(format!("{what} took {took:?}, not {limit:?}")))
    }
}

/// While the victim stands still, what it holds stays its own, and time-outs hold. Other processes get what
/// it does not hold. `owner` is the thread that has the lock; `take` takes it for a moment, within a time,
/// and returns whether the last owner died.
pub(crate) fn keeps_its_lock(
    kill: &Kill<'_>,
    owner: impl Fn() -> Option<u32>,
    take: impl Fn(Duration) -> Result<Option<bool>, Fault>,
) -> Result<(), Fault> {
    let before = owner();
    let its = before == Some(kill.victim());
    let begin = Instant::now();
    let taken = take(BRIEFLY)?;
    in_time("to wait for the lock", begin, BRIEFLY)?;
    match taken {
        Some(_) if its => return Err(Fault::Torn("a lock was taken from the stopped victim".into())),
        Some(true) => return Err(Fault::Torn("the stopped victim was taken for dead".into())),
        None if before.is_none() => return Err(Fault::Hang("a free lock cannot be taken".into())),
        None if begin.elapsed() < BRIEFLY => return Err(Fault::Torn("the time-out came early".into())),
        _ => {}
    }
    // A process that polls looks at the owner now and then, too.
    for _ in 0..130 {
        let begin = Instant::now();
        if take(Duration::ZERO)?.is_some() && its {
            return Err(Fault::Torn("a lock was taken from the stopped victim, by polling".into()));
        }
        in_time("to try for the lock", begin, Duration::ZERO)?;
    }
    if its && owner() != before {
        Err(Fault::Torn("the stopped victim does not own it any more".into()))
    } else {
        Ok(())
    }
}

/// The peers from 0 go on within a second, whatever wake-up the stopped victim holds.
pub(crate) fn peers_go_on(kill: &Kill<'_>, count: usize) -> Result<(), Fault> {
    let begin = Instant::now();
    while let Some(peer) = (0..count).find(|peer| !kill.peer_ended(*peer)) {
        if begin.elapsed() > LIVENESS_POLL {
            return Err(Fault::Hang(format!("peer {peer} waits for the stopped victim, which has nothing")));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}
