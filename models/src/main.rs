//! Explicit-state models of the robust lock and of the ring's sleep protocol, with death as a step.
//!
//! `multiproc-models [--deep] [--trace] [words]` runs the tables below and exits with 1 if a right configuration fails,
//! if a planted bug is **not** found, or if a known hole has changed. `--deep` runs the large configurations too, `--trace`
//! prints the shortest way to each failure that was found, and words select the rows whose text contains all of them.
//!
//! Start reading at [`mod@lock`], then [`mod@ring`]; [`checker`] is the machine below both.

mod checker;
mod condition;
mod lock;
mod ring;

use checker::{Limits, Report, Verdict, check};
use condition::Condition;
use lock::Lock;
use ring::{ALL, Brief, Ring, Role};
use std::{
    env, fmt,
    io::{self, Write},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::Instant,
};

/// One line of the tables.
struct Row {
    system: System,
    expect: Expect,
    /// Only with `--deep`.
    deep: bool,
    /// Also check that nobody can be kept busy for ever.
    live: bool,
}

enum System {
    Lock(Lock),
    Condition(Condition),
    Ring(Ring),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Every state is right.
    Right,
    /// The checker finds the planted bug.
    Found,
    /// A known hole, which the one-second belt covers: exactly these complaints.
    Hole(&'static [&'static str]),
}

fn main() -> io::Result<ExitCode> {
    let (mut deep, mut trace, mut words) = (false, false, Vec::new());
    for word in env::args().skip(1) {
        match word.as_str() {
            "--deep" => deep = true,
            "--trace" => trace = true,
            _ => words.push(word),
        }
    }
    let rows: Vec<Row> =
        rows().into_iter().filter(|row| (deep || !row.deep) && words.iter().all(|word| row.to_string().contains(word))).collect();

    let start = Instant::now();
    let queue = Mutex::new(rows.iter());
    let mut failed = 0;
    writeln!(io::stdout(), "| configuration | kills/timeouts/signals | states | seconds | verdict |\n|---|---|---|---|---|")?;
    let workers = thread::available_parallelism().map_or(1, usize::from).min(2);
    thread::scope(|scope| {
        let work = || -> io::Result<usize> {
            let mut failed = 0;
            loop {
                let next = queue.lock().map_or(None, |mut rows| rows.next());
                let Some(row) = next else { return Ok(failed) };
                failed += usize::from(!row.run(trace)?);
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            failed += worker.join().unwrap_or(Ok(1))?;
        }
        io::Result::Ok(())
    })?;
    writeln!(io::stdout(), "\n{} rows, {failed} not as expected, {:.0} s", rows.len(), start.elapsed().as_secs_f64())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Row {
    /// Runs one row and prints it; `false` if it did not come out as expected.
    fn run(&self, trace: bool) -> io::Result<bool> {
        let start = Instant::now();
        let limits = Limits { states: 120_000_000, live: self.live, count: matches!(self.expect, Expect::Hole(_)) };
        let report = match &self.system {
            System::Lock(model) => check(model, limits),
            System::Condition(model) => check(model, limits),
            System::Ring(model) => check(model, limits),
        };
        let good = match (self.expect, report.verdict) {
            (Expect::Right, verdict) => verdict == Verdict::Holds,
            (Expect::Found, verdict) => matches!(verdict, Verdict::Broken(_)),
            (Expect::Hole(known), Verdict::Holds) => report.wrong.keys().eq(known),
            (Expect::Hole(_), _) => false,
        };
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "| {self} | {} | {:.1} | {}{} |",
            report.states,
            start.elapsed().as_secs_f64(),
            if good { "" } else { "**NOT AS EXPECTED** " },
            self.verdict(&report),
        )?;
        if trace || !good {
            for line in &report.trace {
                writeln!(out, "    {line}")?;
            }
        }
        Ok(good)
    }

    fn verdict(&self, report: &Report) -> String {
        match report.verdict {
            Verdict::Holds if report.wrong.is_empty() => if self.live { "right, live" } else { "right" }.into(),
            Verdict::Holds => {
                let holes: Vec<String> = report.wrong.iter().map(|(why, count)| format!("{count} {why}")).collect();
                format!("known hole: {} of {} quiet states", holes.join(", "), report.quiet)
            }
            Verdict::Broken(why) => format!("found in {} steps: {why}", report.trace.len().saturating_sub(1)),
            Verdict::TooBig => "too big".into(),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.system {
            System::Lock(lock) => {
                write!(f, "lock {lock}")?;
                lock.bug.map_or(Ok(()), |bug| write!(f, ", {bug:?}"))?;
                write!(f, " | {}/{}/{}", lock.kills, lock.timeouts, lock.spurious)
            }
            System::Condition(condition) => {
                write!(f, "condition {condition}")?;
                condition.bug.map_or(Ok(()), |bug| write!(f, ", {bug:?}"))?;
                write!(f, " | {}/{}/0", condition.kills, condition.timeouts)
            }
            System::Ring(ring) => {
                write!(f, "ring {ring}")?;
                ring.bug.map_or(Ok(()), |bug| write!(f, ", {bug:?}"))?;
                write!(f, " | {}/{}/{}", ring.kills, ring.timeouts, ring.spurious)
            }
        }
    }
}

// ---- the tables

fn rows() -> Vec<Row> {
    let mut rows = lock_rows();
    rows.extend(lock_bugs());
    rows.extend(condition_rows());
    rows.extend(condition_bugs());
    rows.extend(ring_rows());
    rows.extend(ring_bugs());
    rows.extend(ring_holes());
    rows
}

/// A row of the lock: processes, rounds, kills/timeouts/signals.
fn lock(processes: usize, rounds: u8, [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let lock = Lock { processes, rounds, kills, timeouts, spurious, bug: None };
    Row { system: System::Lock(lock), expect: Expect::Right, deep: false, live: true }
}

/// A row of the ring: who takes part, slots, kills/timeouts/signals.
fn ring(roles: &[Role], slots: u8, [kills, timeouts, spurious]: [u8; 3]) -> Row {
    let (roles, brief) = (roles.to_vec(), Brief::Never);
    let ring = Ring { roles, slots, filled: 0, kills, timeouts, spurious, brief, belt: false, bug: None };
    Row { system: System::Ring(ring), expect: Expect::Right, deep: false, live: false }
}

impl Row {
    fn deep(mut self) -> Self {
        self.deep = true;
        self
    }

    fn live(mut self) -> Self {
        self.live = true;
        self
    }

    fn lock_bug(mut self, bug: lock::Bug) -> Self {
        if let System::Lock(lock) = &mut self.system {
            lock.bug = Some(bug);
            self.expect = Expect::Found;
        }
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Ring)) -> Self {
        if let System::Ring(ring) = &mut self.system {
            change(ring);
        }
        self
    }

    fn brief(self, brief: Brief) -> Self {
        self.with(|ring| ring.brief = brief)
    }

    /// Begins with that many small messages in the ring.
    fn filled(self, filled: u8) -> Self {
        self.with(|ring| ring.filled = filled)
    }

    fn bug(mut self, bug: ring::Bug) -> Self {
        self.expect = Expect::Found;
        self.with(|ring| ring.bug = Some(bug))
    }

    fn hole(mut self, complaints: &'static [&'static str]) -> Self {
        self.expect = Expect::Hole(complaints);
        self
    }

    fn belt(self) -> Self {
        self.live().with(|ring| ring.belt = true)
    }
}

fn lock_rows() -> Vec<Row> {
    vec![
        lock(2, 2, [2, 1, 1]),
        lock(3, 2, [0, 1, 1]),
        lock(3, 2, [1, 1, 1]),
        lock(3, 2, [2, 1, 0]),
        lock(4, 1, [1, 1, 1]),
        lock(4, 1, [2, 1, 0]),
        lock(4, 2, [0, 0, 0]),
        lock(4, 2, [1, 1, 0]).deep(),
        lock(4, 2, [2, 0, 0]).deep(),
        lock(3, 3, [2, 1, 1]).deep(),
    ]
}

fn lock_bugs() -> Vec<Row> {
    use lock::Bug;
    let mut spare = lock(4, 1, [1, 1, 0]).lock_bug(Bug::WaiterDoesNotAnnounce);
    spare.expect = Expect::Right;
    vec![
        lock(2, 1, [0; 3]).lock_bug(Bug::NoWake),
        lock(3, 1, [0; 3]).lock_bug(Bug::ClearBeforeWake),
        lock(4, 1, [0; 3]).lock_bug(Bug::ClearIgnoresAnnounce),
        lock(4, 1, [0; 3]).lock_bug(Bug::NobodyAnnounces),
        lock(4, 2, [0; 3]).lock_bug(Bug::SlowTakeDoesNotAnnounce),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::SwapZero),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::PendingAfterTake),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::PendingClearedBeforeWake),
        lock(3, 1, [1, 0, 0]).lock_bug(Bug::OldKernel),
        spare,
    ]
}

/// A row of the condition: waiters, how many each notifier calls, kills/timeouts.
fn condition(waiters: usize, notifiers: [u8; 2], [kills, timeouts]: [u8; 2]) -> Row {
    let condition = Condition { waiters, notifiers, kills, timeouts, bug: None };
    Row { system: System::Condition(condition), expect: Expect::Right, deep: false, live: true }
}

fn condition_rows() -> Vec<Row> {
    vec![
        condition(2, [1, 1], [0, 2]),
        condition(2, [1, 0], [2, 1]),
        condition(2, [1, 1], [1, 0]),
        condition(2, [1, 1], [1, 1]).deep(),
        condition(2, [2, 0], [2, 1]),
        condition(3, [1, 0], [1, 0]).deep(),
        condition(3, [2, 0], [1, 0]).deep(),
        condition(2, [2, 1], [2, 1]).deep(),
        condition(3, [1, 1], [1, 1]).deep(),
        condition(3, [2, 0], [2, 1]).deep(),
    ]
}

fn condition_bugs() -> Vec<Row> {
    use condition::Bug;
    let row = |waiters, notifiers, kills, timeouts, bug| {
        let condition = Condition { waiters, notifiers, kills, timeouts, bug: Some(bug) };
        Row { system: System::Condition(condition), expect: Expect::Found, deep: false, live: false }
    };
    vec![
        row(1, [1, 0], 0, 0, Bug::LookBeforeNote),
        row(1, [1, 0], 1, 0, Bug::NoAlarm),
        row(2, [2, 0], 1, 0, Bug::TakerCallsNobody),
        row(3, [2, 0], 1, 0, Bug::CalledDoesNotLook).deep(),
        row(2, [1, 0], 1, 0, Bug::SeatsNotWatched),
        row(3, [1, 0], 2, 0, Bug::ForgetFirst).deep(),
        row(2, [1, 1], 1, 0, Bug::DeadPassed),
        row(2, [1, 0], 0, 1, Bug::GiveUpOutside),
        row(2, [1, 0], 1, 0, Bug::NoDebts),
    ]
}

/// Producers of small messages, so many each.
const fn p(messages: u8) -> Role {
    Role::Producer { size: 1, messages }
}

/// A producer of one message of two units.
const BIG: Role = Role::Producer { size: 2, messages: 1 };
const CONSUMER: Role = Role::Consumer { messages: ALL };
/// Gets one message and leaves: what it frees is all the room there will be.
const ONE_GET: Role = Role::Consumer { messages: 1 };
const CLOSER: Role = Role::Closer;

fn ring_rows() -> Vec<Row> {
    vec![
        // No death: the brief sleep alone is exact, and nobody is kept busy.
        ring(&[p(2), CONSUMER], 1, [0; 3]).live(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [0; 3]).live(),
        ring(&[p(2), p(2), CONSUMER], 1, [0; 3]).live(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [0, 1, 1]).brief(Brief::Only),
        ring(&[p(2), p(2), CONSUMER], 1, [0, 0, 0]).brief(Brief::Only),
        // One death.
        ring(&[p(2), CONSUMER], 1, [1, 1, 1]).live(),
        ring(&[p(2), CONSUMER], 1, [1, 1, 1]).brief(Brief::First),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [1, 1, 0]).live(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [1, 0, 0]).brief(Brief::First),
        ring(&[p(1), p(1), CONSUMER], 1, [1, 1, 0]).live(),
        ring(&[p(2), p(2), CONSUMER], 1, [1, 0, 0]),
        // Close.
        ring(&[p(1), CONSUMER, CLOSER], 1, [1, 1, 0]).live(),
        ring(&[CONSUMER, CONSUMER, CLOSER], 1, [1, 1, 1]).live(),
        ring(&[p(1), p(1), CLOSER], 1, [1, 1, 1]).filled(1).live(),
        ring(&[p(2), CONSUMER, CLOSER], 1, [1, 0, 0]),
        // Sizes.
        ring(&[BIG, p(1), ONE_GET], 2, [1, 1, 0]).filled(2).live(),
        ring(&[BIG, BIG, p(1), ONE_GET], 2, [0; 3]).filled(2).live(),
        ring(&[p(2), BIG, CONSUMER], 2, [1, 0, 0]),
        // The same, larger.
        ring(&[BIG, p(1), p(1), ONE_GET], 2, [0; 3]).filled(2).deep(),
        ring(&[p(2), CONSUMER, CONSUMER], 2, [1, 1, 1]).brief(Brief::First).deep(),
        ring(&[p(2), p(2), CONSUMER], 1, [1, 1, 0]).deep(),
        ring(&[p(2), p(2), CONSUMER], 1, [1, 0, 0]).brief(Brief::First).deep(),
        ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [1, 0, 0]).deep(),
        ring(&[p(1), CONSUMER, CONSUMER, CLOSER], 1, [1, 0, 0]).deep(),
        ring(&[p(1), p(1), CONSUMER, CLOSER], 1, [1, 0, 0]).deep(),
        ring(&[BIG, BIG, p(1), ONE_GET], 2, [1, 0, 0]).filled(2).deep(),
        ring(&[BIG, p(1), p(1), ONE_GET], 2, [1, 0, 0]).filled(2).deep(),
    ]
}

fn ring_bugs() -> Vec<Row> {
    use ring::Bug;
    let data = |kills| ring(&[p(2), CONSUMER], 1, [kills, 0, 0]);
    let herd = |kills| ring(&[p(2), CONSUMER, CONSUMER], 2, [kills, 0, 0]);
    let crowd = |kills| ring(&[p(2), p(2), CONSUMER], 1, [kills, 0, 0]);
    let sizes = || ring(&[BIG, BIG, p(1), ONE_GET], 2, [0; 3]).filled(2);
    let mut spare = ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [1, 0, 0]).bug(Bug::BumpOverwritesSnapshot).deep();
    spare.expect = Expect::Right;
    let closed = |role| ring(&[role, role, CLOSER], 1, [1, 0, 0]);
    vec![
        data(0).bug(Bug::RecheckBeforeAnnounce),
        data(0).bug(Bug::ClearIgnoresAnnounce),
        data(0).bug(Bug::BellNotCompared),
        data(0).brief(Brief::Only).bug(Bug::NoBumpAtRelease),
        data(0).bug(Bug::NoBumpAtRelease),
        data(1).bug(Bug::BellComparedFirst),
        data(1).bug(Bug::SlowTakeDoesNotAnnounce),
        data(1).bug(Bug::OtherLockNotWatched),
        data(1).bug(Bug::PendingClearedBeforeWakes),
        data(1).bug(Bug::OldKernel),
        herd(1).bug(Bug::OwnLockNotWatched),
        herd(1).bug(Bug::NotArmedAsleep),
        herd(1).bug(Bug::NoFlightAnnounce),
        herd(2).bug(Bug::NoChain),
        spare,
        crowd(1).bug(Bug::NoDuty),
        crowd(1).bug(Bug::DutyByLastIndex),
        crowd(1).bug(Bug::WakersUseLockWord).deep(),
        sizes().bug(Bug::NoPassOn),
        sizes().bug(Bug::PassOnToOne),
        sizes().live().bug(Bug::PassOnAlways),
        sizes().with(|ring| ring.kills = 1).bug(Bug::PassMarkedBeforeWaking).deep(),
        ring(&[p(1), CLOSER], 1, [1, 0, 0]).filled(1).bug(Bug::OwnLockReadAfterRecheck),
        closed(p(1)).filled(1).bug(Bug::CloserDoesNotAnnounce),
        closed(p(1)).filled(1).bug(Bug::CloseWakesAfterRelease),
        closed(p(1)).filled(1).bug(Bug::CloseWakesAfterReleaseArmed),
        closed(p(1)).filled(1).bug(Bug::CloseNotRepeatedByTaker),
        closed(CONSUMER).bug(Bug::CloseNotRepeatedBySleeper),
    ]
}

/// Two deaths: what is left to the belt, and that the belt is enough.
fn ring_holes() -> Vec<Row> {
    let trio = || ring(&[p(1), CONSUMER, CONSUMER, CONSUMER], 1, [2, 0, 0]);
    let closed = || ring(&[p(1), p(1), CLOSER], 1, [2, 1, 0]).filled(1);
    vec![
        ring(&[p(2), CONSUMER, CONSUMER], 2, [2, 0, 0]),
        ring(&[p(1), p(1), CONSUMER], 1, [2, 0, 0]),
        ring(&[p(1), CONSUMER, CLOSER], 1, [2, 0, 0]),
        closed().hole(&["LOST CLOSE", "LOST LOCK WAKE"]),
        closed().belt(),
        trio().hole(&["LOST LOCK WAKE"]).deep(),
        trio().belt().deep(),
    ]
}
