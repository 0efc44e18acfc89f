//! Explicit-state models of the primitives, with death as a step: of the robust lock, of what is made of
//! several locks, of the ring's sleep protocol, of leased jobs, of membership and of reservations.
//!
//! `multiproc-models [--deep] [--trace] [words]` runs the tables. It exits with 1 if a right configuration
//! fails, if a planted bug is **not** found, if a known gap has changed, or if no row was selected. `--deep`
//! runs the large configurations too. `--trace` prints the shortest way to each failure that was found. Words
//! select the rows whose text contains all of them.
//!
//! Start reading at [`mod@lock`], then [`mod@ring`]. [`checker`] explores the states, and [`kernel`] is the
//! one kernel under all models. [`mod@semaphore`], [`mod@rwlock`] and [`mod@barrier`] stand on
//! [`mod@robust`], [`mod@condition`] on the kernel alone. [`mod@lease`] is the ring's protocol again with
//! jobs, [`mod@membership`] with members, [`mod@reservation`] with reservations. [`mod@rows`] has the tables.

mod barrier;
mod checker;
mod condition;
mod kernel;
mod lease;
mod lock;
mod membership;
mod reservation;
mod ring;
mod robust;
mod rows;
mod rwlock;
mod semaphore;

use checker::{Limits, Model, Report, Verdict, check};
use rows::rows;
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
    system: Box<dyn Checked + Send + Sync>,
    expect: Expect,
    /// Only with `--deep`.
    deep: bool,
    /// Also check that no process can be kept busy for ever.
    live: bool,
}

/// A model that can be checked, whatever its states are.
trait Checked: fmt::Display {
    fn check(&self, limits: Limits) -> Report;
}

impl<M: Model + fmt::Display> Checked for M {
    fn check(&self, limits: Limits) -> Report {
        check(self, limits)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Every state is right.
    Right,
    /// The checker finds the planted bug.
    Found,
    /// A known gap, which the liveness poll covers: exactly these complaints.
    Gap(&'static [&'static str]),
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
    let selected = |row: &Row| words.iter().all(|word| row.to_string().contains(word));
    let rows: Vec<Row> = rows().into_iter().filter(|row| (deep || !row.deep) && selected(row)).collect();

    let start = Instant::now();
    let queue = Mutex::new(rows.iter());
    let mut failed = 0;
    writeln!(
        io::stdout(),
        "| configuration | kills/timeouts/signals | states | seconds | verdict |\n|---|---|---|---|---|"
    )?;
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
    writeln!(
        io::stdout(),
        "\n{} rows, {failed} not as expected, {:.0} s",
        rows.len(),
        start.elapsed().as_secs_f64()
    )?;
    Ok(if failed == 0 && !rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Row {
    /// Runs one row and prints it. Returns `false` if it did not come out as expected.
    fn run(&self, trace: bool) -> io::Result<bool> {
        let start = Instant::now();
        let limits =
            Limits { states: 120_000_000, live: self.live, count: matches!(self.expect, Expect::Gap(_)) };
        let report = self.system.check(limits);
        let good = match (self.expect, report.verdict) {
            (Expect::Right, verdict) => verdict == Verdict::Holds,
            (Expect::Found, verdict) => matches!(verdict, Verdict::Broken(_)),
            (Expect::Gap(known), Verdict::Holds) => report.wrong.keys().eq(known),
            (Expect::Gap(_), _) => false,
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
            Verdict::Holds if report.wrong.is_empty() => {
                if self.live { "right, live" } else { "right" }.into()
            }
            Verdict::Holds => {
                let gaps: Vec<String> =
                    report.wrong.iter().map(|(why, count)| format!("{count} {why}")).collect();
                format!("known gap: {} of {} quiet states", gaps.join(", "), report.quiet)
            }
            Verdict::Broken(why) => format!("found in {} steps: {why}", report.trace.len().saturating_sub(1)),
            Verdict::TooBig => "too big".into(),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.system.fmt(f)
    }
}
