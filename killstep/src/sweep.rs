//! The sweep: for each case one run to find its states, then one kill per state (or step), each followed by the oracle.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::case::Role;
use crate::control::{PEERS, stage};
use crate::symbol::{self, Symbols};
use crate::sys::{self, Activity, Child, Status};
use crate::victim::{Guide, Target, Victim};
use crate::{Args, Case, Cells, Fault, Kill, Report, Row};

/// The exit code of [`Sweep::finish`] where the system does not allow ptrace, so that nothing was tested.
pub const NO_PTRACE: u8 = 77;

/// A child's exit code when its closure panicked.
const PANICKED: i32 = 101;
/// A case is given up after so many hangs: each costs a whole watchdog.
const HANGS_SHOWN: u64 = 10;
/// So many faults of one case are printed one by one.
const FAULTS_SHOWN: usize = 3;

/// A run over many cases: sweeps each, prints its row at once, and remembers it.
///
/// The process must have one thread, as `main` has at its beginning: all other processes are forked from it.
#[expect(missing_debug_implementations, reason = "holds a whole symbol table")]
pub struct Sweep {
    args: Args,
    report: Report,
    machine: Result<Machine, String>,
}

struct Machine {
    cells: Cells,
    vdso: std::ops::Range<usize>,
    symbols: Option<Symbols>,
    headed: bool,
}

/// How one kill went.
struct Outcome {
    step: u64,
    ended: bool,
    heir_ended: bool,
    /// Where the victims stood when they were killed.
    place: String,
    wake: Option<Duration>,
    fault: Option<Fault>,
}

impl Sweep {
    /// A sweep as `args` want it, after a look whether this system allows ptrace at all.
    #[must_use]
    pub fn new(args: Args) -> Self {
        Self { args, report: Report::default(), machine: Machine::new().map_err(|error| error.to_string()) }
    }

    /// Why nothing can be swept here, if so.
    #[must_use]
    pub fn unable(&self) -> Option<&str> {
        self.machine.as_ref().err().map(String::as_str)
    }

    /// Sweeps one case, prints its row and its faults, and returns the row; `None` when `--only` does not want it or nothing can be swept here.
    pub fn run<S>(&mut self, case: &Case<'_, S>) -> Option<Row> {
        let machine = self.machine.as_mut().ok().filter(|_| self.args.wants(&case.name))?;
        if !std::mem::replace(&mut machine.headed, true) {
            say(&Row::heading());
        }
        let row = machine.sweep(case, &self.args, u64::MAX);
        self.report.rows.push(row.clone());
        Some(row)
    }

    /// Whether the planted bugs are wanted (`--zoo`).
    #[must_use]
    pub fn wants_zoo(&self) -> bool {
        self.args.zoo
    }

    /// Under `--zoo`, sweeps a case in which `bug` is built in, until it is found. A bug given to several cases is found when one finds it.
    pub fn zoo<S>(&mut self, bug: &str, case: &Case<'_, S>) {
        let wanted = self.args.zoo && (self.args.wants(bug) || self.args.wants(&case.name));
        if let Some(machine) = self.machine.as_mut().ok().filter(|_| wanted) {
            let row = machine.sweep(case, &self.args, 1);
            self.planted(bug, &case.name, row.faults() != 0);
        }
    }

    /// Adds a planted bug that was tried by other means.
    pub fn planted(&mut self, bug: &str, test: &str, found: bool) {
        self.report.add_planted(bug, test, found);
    }

    /// What was found until now.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Prints the planted bugs and the last line. The exit code is 0 when all is well, 1 when something was found (or a planted bug was not),
    /// [`NO_PTRACE`] when nothing could be swept here.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        if let Err(reason) = &self.machine {
            say(&format!("killstep: NOTHING WAS TESTED, this system does not let us trace a child: {reason}"));
            return ExitCode::from(NO_PTRACE);
        }
        for planted in &self.report.zoo {
            say(&planted.to_string());
        }
        say(&self.report.summary());
        ExitCode::from(u8::from(!self.report.passed()))
    }
}

impl Machine {
    fn new() -> io::Result<Self> {
        let machine = Self { cells: Cells::new()?, vdso: symbol::vdso(), symbols: None, headed: false };
        let probe = Case::new("probe", || (), |(), _| {}, |(), _| Ok(()));
        let (steps, _) = machine.rehearse(&probe)?;
        if steps == 0 { Err(io::Error::other("a traced child makes no steps")) } else { Ok(machine) }
    }

    /// Sweeps a case until `enough` faults are found.
    fn sweep<S>(&mut self, case: &Case<'_, S>, args: &Args, enough: u64) -> Row {
        let mut row = Row { operation: case.name.clone(), ..Row::default() };
        let mut faults = Vec::new();
        if let Err(error) = self.fill(case, args, enough, &mut row, &mut faults) {
            row.broken = Some(error.to_string());
        }
        let planted = enough == 1;
        if !planted {
            say(&row.to_string());
        }
        if let Some(reason) = &row.broken {
            say(&format!("  BROKEN {}: {reason}", case.name));
        }
        for (step, text) in faults.iter().take(if planted { 1 } else { FAULTS_SHOWN }) {
            say(&format!("  FAULT {} {text}", case.name));
            if !planted {
                let program = env::args().next().unwrap_or_default();
                say(&format!("    repeat: {program} --only '{}' --step {step}", case.name));
            }
        }
        if let (false, [(first, _), .., (last, _)]) = (planted, faults.as_slice()) {
            say(&format!("  {} faults in all, between steps {first} and {last}", faults.len()));
        }
        row
    }

    fn fill<S>(
        &mut self,
        case: &Case<'_, S>,
        args: &Args,
        enough: u64,
        row: &mut Row,
        faults: &mut Vec<(u64, String)>,
    ) -> io::Result<()> {
        let (steps, changes) = self.rehearse(case)?;
        (row.steps, row.states) = (steps, changes + 1);
        'sweep: for number in 0.. {
            let target = match args.step {
                Some(step) => Target::Step(step),
                None if args.all => Target::Step(number),
                None => Target::State(number),
            };
            for heir in 0.. {
                let outcome = self.kill_at(case, target, heir)?;
                row.kills += if case.heir.is_some() { 2 } else { 1 };
                row.worst_wake = row.worst_wake.max(outcome.wake);
                if let Some(fault) = &outcome.fault {
                    match fault {
                        Fault::Hang(_) => row.hangs += 1,
                        Fault::Torn(_) => row.torn += 1,
                        Fault::Lost(_) => row.lost += 1,
                        Fault::Leaked(_) => row.leaked += 1,
                    }
                    faults.push((outcome.step, format!("{}: {fault}", outcome.place)));
                }
                if row.faults() >= enough || (args.step.is_some() && outcome.heir_ended) {
                    break 'sweep;
                }
                if row.hangs >= HANGS_SHOWN {
                    return Err(io::Error::other(format!(
                        "given up after {HANGS_SHOWN} hangs, at step {} of {steps}",
                        outcome.step
                    )));
                }
                match outcome {
                    Outcome { heir_ended: true, ended: true, .. } => break 'sweep,
                    Outcome { heir_ended: true, .. } => break,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Leads one victim through the whole operation: how many steps it takes and how many of them change the state.
    fn rehearse<S>(&self, case: &Case<'_, S>) -> io::Result<(u64, u64)> {
        self.cells.reset();
        let shared = (case.arrange)();
        let peers = self.start_peers(case, &shared)?;
        let victim = self.lead(case, &shared, &peers, Role::Victim, Target::End)?;
        Ok((victim.step, victim.changes))
    }

    /// One kill: a fresh object, the victim led to `target`, its death, its heir's death after `heir` changes, and what the survivors find.
    fn kill_at<S>(&mut self, case: &Case<'_, S>, target: Target, heir: u64) -> io::Result<Outcome> {
        self.cells.reset();
        let shared = (case.arrange)();
        let mut peers = self.start_peers(case, &shared)?;
        let mut victim = self.lead(case, &shared, &peers, Role::Victim, target)?;
        for (late, peer) in case.late_peers.iter().enumerate() {
            let index = case.peers.len() + late;
            let child = self.start_peer(index, peer, &shared)?;
            self.await_sleep(index, &child, case.watchdog, true)?;
            peers.push(child);
        }
        victim.kill(&self.cells);
        let mut helpers = victim.take_helpers();
        let mut second = None;
        if case.heir.is_some() {
            let mut heir = self.lead(case, &shared, &peers, Role::Heir, Target::State(heir))?;
            heir.kill(&self.cells);
            helpers.append(&mut heir.take_helpers());
            second = Some(heir);
        }
        let mut fault = self.judge(case, &shared, &victim)?.err();
        let deadline = Instant::now() + case.watchdog;
        let peer_count = peers.len();
        for (index, peer) in peers.iter_mut().chain(&mut helpers).enumerate() {
            // Whatever else went wrong stays the first finding; the peers are then killed, not waited for.
            if fault.is_none() {
                let who = || if index < peer_count { format!("peer {index}") } else { "who released the victim".to_owned() };
                fault = self.ended(peer.wait(deadline), &who).err();
            }
        }
        drop((peers, helpers));
        drop(shared);
        if let (None, Some(finally)) = (&fault, &case.finally) {
            fault = finally().err();
        }
        let mut place = String::new();
        if fault.is_some() {
            place = self.place(&victim);
            if let Some(heir) = &second {
                place.push_str(&format!(", then the heir's {}", self.place(heir)));
            }
        }
        let heir_ended = second.is_none_or(|heir| heir.ended);
        Ok(Outcome { step: victim.step, ended: victim.ended, heir_ended, place, wake: self.cells.worst_wake(), fault })
    }

    /// Starts a victim and leads it to `target`.
    fn lead<S>(&self, case: &Case<'_, S>, shared: &S, peers: &[Child], role: Role, target: Target) -> io::Result<Victim> {
        let release = case.release.as_ref().map(|release| move || self.fork(|| release(shared, &self.cells)));
        let guide = Guide {
            cells: &self.cells,
            role,
            vdso: self.vdso.clone(),
            granularity: case.granularity,
            regions: case.watch.as_ref().map(|watch| watch(shared)).unwrap_or_default(),
            peers: peers.iter().map(Child::pid).collect(),
            release: release.as_ref().map(|release| release as _),
            watchdog: case.watchdog,
            blocked_after: case.blocked_after,
            max_steps: case.max_steps,
        };
        let mut victim = Victim::adopt(self.start_victim(case, shared, role)?, &guide)?;
        victim.lead(target, &guide)?;
        Ok(victim)
    }

    /// Lets the survivor run the oracle.
    fn judge<S>(&self, case: &Case<'_, S>, shared: &S, victim: &Victim) -> io::Result<Result<(), Fault>> {
        let kill = Kill {
            cells: &self.cells,
            step: victim.step,
            blocked: victim.blocked,
            victim: victim.pid().unsigned_abs(),
            wake_limit: case.wake_limit,
        };
        let mut survivor = self.fork(|| self.cells.judge(&(case.survive)(shared, &kill)))?;
        let deadline = Instant::now() + case.watchdog + case.wake_limit;
        let end = self.ended(survivor.wait(deadline), &|| "the survivor".to_owned());
        Ok(end.and_then(|()| self.cells.verdict().unwrap_or_else(|| Err(Fault::Torn("the survivor gave no verdict".to_owned())))))
    }

    /// Whether a child came to a good end.
    fn ended(&self, status: Option<Status>, who: &dyn Fn() -> String) -> Result<(), Fault> {
        match status {
            Some(Status::Exited(0)) => Ok(()),
            Some(Status::Exited(PANICKED)) => Err(Fault::Torn(format!("{} panicked: {}", who(), self.cells.complaint()))),
            Some(status) => Err(Fault::Torn(format!("{} ended by {status:?}", who()))),
            None => Err(Fault::Hang(format!("{} does not come back", who()))),
        }
    }

    fn start_victim<S>(&self, case: &Case<'_, S>, shared: &S, role: Role) -> io::Result<Child> {
        let operation = case.heir.as_ref().filter(|_| role == Role::Heir).unwrap_or(&case.victim);
        self.fork(|| {
            if let Err(error) = sys::trace_me() {
                panic!("ptrace: {error}");
            }
            if let Some(warm) = &case.warm {
                warm(shared, &self.cells);
            }
            sys::stop_self();
            self.cells.set_stage(role, stage::READY);
            operation(shared, &self.cells);
            self.cells.set_stage(role, stage::DONE);
            loop {
                sys::pause();
            }
        })
    }

    fn start_peers<S>(&self, case: &Case<'_, S>, shared: &S) -> io::Result<Vec<Child>> {
        let count = case.peers.len() + case.late_peers.len();
        if count > PEERS {
            return Err(io::Error::other(format!("{count} peers; a case can have {PEERS}")));
        }
        let mut peers = Vec::new();
        for (index, peer) in case.peers.iter().enumerate() {
            let child = self.start_peer(index, peer, shared)?;
            self.await_sleep(index, &child, case.watchdog, false)?;
            peers.push(child);
        }
        Ok(peers)
    }

    fn start_peer<S>(&self, index: usize, peer: &dyn Fn(&S, &Cells), shared: &S) -> io::Result<Child> {
        self.fork(|| {
            peer(shared, &self.cells);
            self.cells.set_ended(index);
        })
    }

    /// Waits until a peer is asleep in a system call, and was so at a second look.
    fn await_sleep(&self, index: usize, peer: &Child, limit: Duration, may_end: bool) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        let mut asleep = 0;
        while asleep < 2 {
            match sys::activity(peer.pid()) {
                Activity::Asleep => asleep += 1,
                Activity::Ended if may_end => return Ok(()),
                Activity::Ended => {
                    let complaint = self.cells.complaint();
                    return Err(io::Error::other(format!("peer {index} ended instead of waiting {complaint}")));
                }
                Activity::Running if Instant::now() >= deadline => {
                    return Err(io::Error::other(format!("peer {index} does not fall asleep")));
                }
                Activity::Running => asleep = 0,
            }
            thread::sleep(Duration::from_micros(30));
        }
        Ok(())
    }

    /// A child that runs `body`; a panic becomes a complaint and an exit code, not a line on stderr per kill.
    fn fork(&self, body: impl FnOnce()) -> io::Result<Child> {
        Child::fork(|| {
            let cells = &self.cells;
            panic::set_hook(Box::new(|_| {}));
            match panic::catch_unwind(AssertUnwindSafe(body)) {
                Ok(()) => 0,
                Err(payload) => {
                    let text =
                        payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
                    cells.complain(text.unwrap_or("no text"));
                    PANICKED
                }
            }
        })
    }

    fn place(&mut self, victim: &Victim) -> String {
        let symbols = self.symbols.get_or_insert_with(Symbols::load);
        let place =
            victim.program_counter().map_or_else(|| "a system call, asleep".to_owned(), |address| symbols.describe(address));
        format!("step {} at {place}", victim.step)
    }
}

fn say(line: &str) {
    // Where nobody reads, nobody misses it.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
