//! One attempt: a fresh object, the processes round it, what happens to the victim, and what the survivors
//! find.

use std::collections::HashSet;
use std::time::{Duration, Instant};
use std::{io, panic, thread};

use crate::case::Role;
use crate::control::{PEERS, stage};
use crate::key::Before;
use crate::path::Path;
use crate::symbol::{self, Symbols};
use crate::sys::{self, Activity, Child, Status};
use crate::victim::{Guide, Target, Victim, settle};
use crate::{Case, Cells, Fault, Granularity, Kill, Mode, Region};

/// A path from which as many runs stray, one after the other, is not followed any more.
const MAX_STRAYED: u32 = 3;
/// A child's exit code when its closure panicked.
const PANICKED: i32 = 101;

pub(crate) struct Machine {
    cells: Cells,
    vdso: std::ops::Range<usize>,
    symbols: Option<Symbols>,
}

/// What the first run of a case has shown.
pub(crate) struct Rehearsal {
    /// How many steps the operation takes.
    pub(crate) steps: u64,
    /// How many of them change the state.
    pub(crate) changes: u64,
    /// Where it changes the state; `None` if later runs do not follow it.
    path: Option<Path>,
    /// How many runs have strayed from the path, one after the other.
    strayed: u32,
}

/// How one attempt went.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) step: u64,
    pub(crate) ended: bool,
    pub(crate) recoverer_ended: bool,
    /// The victim left what an earlier victim had left, and nothing more was done.
    pub(crate) repeated: bool,
    /// Where the victims stood.
    pub(crate) place: String,
    pub(crate) wake: Option<Duration>,
    pub(crate) fault: Option<Fault>,
}

impl Machine {
    pub(crate) fn new() -> io::Result<Self> {
        let machine = Self { cells: Cells::new()?, vdso: symbol::vdso(), symbols: None };
        let probe = Case::new("probe", || (), |(), _| {}, |(), _| Ok(()));
        let steps = machine.rehearse(&probe)?.steps;
        if steps == 0 { Err(io::Error::other("a traced child makes no steps")) } else { Ok(machine) }
    }

    /// Leads one victim through the whole operation, step by step.
    pub(crate) fn rehearse<S>(&self, case: &Case<'_, S>) -> io::Result<Rehearsal> {
        self.cells.reset();
        let shared = (case.arrange)();
        let peers = self.start_peers(case, &shared)?;
        let mut path = Path::default();
        let victim = self.lead(case, &shared, &peers, Role::Victim, Target::End, Some(&mut path))?;
        let by_steps = case.granularity == Granularity::Instructions;
        Ok(Rehearsal {
            steps: victim.step,
            changes: victim.changes,
            path: by_steps.then_some(path),
            strayed: 0,
        })
    }

    /// One attempt, along the path of the rehearsal if the victim keeps to it.
    pub(crate) fn attempt<S>(
        &mut self,
        case: &Case<'_, S>,
        rehearsal: &mut Rehearsal,
        mode: Mode,
        target: Target,
        recoverer: u64,
        seen: &mut HashSet<u64>,
    ) -> io::Result<Outcome> {
        if let Some(path) = &rehearsal.path {
            if let Some(outcome) = self.attempt_along(case, Some(path), mode, target, recoverer, seen)? {
                rehearsal.strayed = 0;
                return Ok(outcome);
            }
            rehearsal.strayed += 1;
            if rehearsal.strayed == MAX_STRAYED {
                rehearsal.path = None;
            }
        }
        let outcome = self.attempt_along(case, None, mode, target, recoverer, seen)?;
        outcome.ok_or_else(|| io::Error::other("strayed without a path"))
    }

    /// One attempt: a fresh object, the victim led to `target`, what the mode does to it (in [`Mode::Double`]
    /// its recoverer's death after `recoverer` changes, too), and what the survivors find. What dead victims
    /// have left is noted in `seen`; a state that leaves the same again is not judged.
    fn attempt_along<S>(
        &mut self,
        case: &Case<'_, S>,
        path: Option<&Path>,
        mode: Mode,
        target: Target,
        recoverer: u64,
        seen: &mut HashSet<u64>,
    ) -> io::Result<Option<Outcome>> {
        self.cells.reset();
        let shared = (case.arrange)();
        let before = Before::look(regions(case, &shared));
        let mut peers = self.start_peers(case, &shared)?;
        let led = match path {
            Some(path) => self.lead_along(case, &shared, &peers, path, target).ok().flatten(),
            None => Some(self.lead(case, &shared, &peers, Role::Victim, target, None)?),
        };
        let Some(mut victim) = led else {
            drop(peers);
            drop(shared);
            clear_away(case);
            return Ok(None);
        };
        let mut outcome =
            Outcome { step: victim.step, ended: victim.ended, recoverer_ended: true, ..Outcome::default() };
        let (asleep, stood) = (victim.blocked, victim.program_counter());
        if mode == Mode::Freeze {
            victim.freeze()?;
            self.cells.set_killed();
        }
        for (late, peer) in case.late_peers.iter().enumerate() {
            let index = case.peers.len() + late;
            let child = self.start_peer(index, peer, &shared)?;
            self.await_sleep(index, &child, case.watchdog, true)?;
            peers.push(child);
        }
        let kill = self.kill(case, mode, &victim, asleep);
        let (mut helpers, mut second) = (Vec::new(), None);
        if mode == Mode::Freeze {
            if let Some(frozen) = &case.frozen {
                outcome.fault = self.judge(case, &kill, || frozen(&shared, &kill))?.err();
            }
            if outcome.fault.is_none() {
                outcome.fault = self.let_go(case, &shared, &peers, &mut victim).err();
            }
        } else {
            if mode == Mode::Missed {
                victim.lose_list()?;
            }
            victim.kill(&self.cells);
        }
        helpers.append(&mut victim.take_helpers());
        if matches!(mode, Mode::Double | Mode::Missed) && recoverer == 0 {
            let pids: Vec<_> = peers.iter().map(Child::pid).collect();
            settle(&pids);
            let more = case.fingerprint.as_ref().map(|fingerprint| fingerprint(&shared));
            let key = before.key(&self.cells, &victim, asleep, &pids, more);
            outcome.repeated = key.is_some_and(|key| !seen.insert(key));
        }
        if outcome.repeated {
            drop((peers, helpers, victim));
            drop(shared);
            clear_away(case);
            return Ok(Some(outcome));
        }
        if mode == Mode::Double {
            let mut recoverer =
                self.lead(case, &shared, &peers, Role::Recoverer, Target::State(recoverer), None)?;
            recoverer.kill(&self.cells);
            helpers.append(&mut recoverer.take_helpers());
            outcome.recoverer_ended = recoverer.ended;
            second = Some(recoverer);
        }
        if outcome.fault.is_none() {
            outcome.fault = self.judge(case, &kill, || (case.survive)(&shared, &kill))?.err();
        }
        let deadline = Instant::now() + case.watchdog.max(case.patience(mode));
        let peer_count = peers.len();
        for (index, peer) in peers.iter_mut().chain(&mut helpers).enumerate() {
            // The first finding stays; after it the peers are killed, not waited for.
            if outcome.fault.is_none() {
                let who = || {
                    if index < peer_count {
                        format!("peer {index}")
                    } else {
                        "the process that released the victim".to_owned()
                    }
                };
                outcome.fault = self.ended(peer.wait(deadline), &who).err();
            }
        }
        let places = (stood, second.as_ref().map(|recoverer| (recoverer.step, recoverer.program_counter())));
        drop((peers, helpers, victim, second));
        drop(shared);
        if let (None, Some(finally)) = (&outcome.fault, &case.finally) {
            outcome.fault = finally().err();
        }
        if outcome.fault.is_some() {
            outcome.place = self.place(outcome.step, places.0);
            if let Some((step, counter)) = places.1 {
                outcome.place.push_str(&format!(", then the recoverer's {}", self.place(step, counter)));
            }
        }
        outcome.wake = self.cells.worst_wake();
        Ok(Some(outcome))
    }

    /// Lets a frozen victim go on to its end. A victim that falls asleep for good is killed there.
    fn let_go<S>(
        &self,
        case: &Case<'_, S>,
        shared: &S,
        peers: &[Child],
        victim: &mut Victim,
    ) -> Result<(), Fault> {
        self.cells.set_killed();
        let release = case.release.as_ref().map(|release| move || self.fork(|| release(shared, &self.cells)));
        let mut guide = self.guide(case, shared, peers, Role::Victim);
        guide.release = release.as_ref().map(|release| release as _);
        guide.granularity = Granularity::Syscalls;
        guide.regions.clear();
        let stuck =
            |error: io::Error| Fault::Hang(format!("let go, the victim does not come to its end: {error}"));
        victim.thaw(&guide).map_err(stuck)?;
        if victim.blocked {
            victim.kill(&self.cells);
        }
        Ok(())
    }

    /// Starts a victim and leads it to `target`, step by step.
    fn lead<S>(
        &self,
        case: &Case<'_, S>,
        shared: &S,
        peers: &[Child],
        role: Role,
        target: Target,
        path: Option<&mut Path>,
    ) -> io::Result<Victim> {
        let release = case.release.as_ref().map(|release| move || self.fork(|| release(shared, &self.cells)));
        let mut guide = self.guide(case, shared, peers, role);
        guide.release = release.as_ref().map(|release| release as _);
        let mut victim = Victim::adopt(self.start_victim(case, shared, role)?, &guide)?;
        victim.lead(target, &guide, path)?;
        Ok(victim)
    }

    /// Starts a victim and leads it to `target`, at full speed as far as `path` goes. Returns `None` if it
    /// strays.
    fn lead_along<S>(
        &self,
        case: &Case<'_, S>,
        shared: &S,
        peers: &[Child],
        path: &Path,
        target: Target,
    ) -> io::Result<Option<Victim>> {
        let release = case.release.as_ref().map(|release| move || self.fork(|| release(shared, &self.cells)));
        let mut guide = self.guide(case, shared, peers, Role::Victim);
        guide.release = release.as_ref().map(|release| release as _);
        let mut victim = Victim::adopt(self.start_victim(case, shared, Role::Victim)?, &guide)?;
        if !victim.follow(path, target, &guide)? {
            return Ok(None);
        }
        victim.lead(target, &guide, None)?;
        Ok(Some(victim))
    }

    fn guide<'a, S>(&'a self, case: &Case<'_, S>, shared: &S, peers: &[Child], role: Role) -> Guide<'a> {
        Guide {
            cells: &self.cells,
            role,
            vdso: self.vdso.clone(),
            granularity: case.granularity,
            regions: regions(case, shared),
            peers: peers.iter().map(Child::pid).collect(),
            release: None,
            watchdog: case.watchdog,
            blocked_after: case.blocked_after,
            max_steps: case.max_steps,
        }
    }

    fn kill<S>(&self, case: &Case<'_, S>, mode: Mode, victim: &Victim, asleep: bool) -> Kill<'_> {
        Kill {
            cells: &self.cells,
            step: victim.step,
            blocked: asleep,
            victim: victim.pid().unsigned_abs(),
            mode,
            wake_limit: case.patience(mode),
        }
    }

    /// Lets a survivor run an oracle.
    fn judge<S>(
        &self,
        case: &Case<'_, S>,
        kill: &Kill<'_>,
        oracle: impl FnOnce() -> Result<(), Fault>,
    ) -> io::Result<Result<(), Fault>> {
        let mut survivor = self.fork(|| self.cells.judge(&oracle()))?;
        let deadline = Instant::now() + case.watchdog + kill.wake_limit;
        let end = self.ended(survivor.wait(deadline), &|| "the survivor".to_owned());
        Ok(end.and_then(|()| {
            self.cells
                .verdict()
                .unwrap_or_else(|| Err(Fault::Torn("the survivor gave no verdict".to_owned())))
        }))
    }

    /// Whether a child came to a good end.
    fn ended(&self, status: Option<Status>, who: &dyn Fn() -> String) -> Result<(), Fault> {
        match status {
            Some(Status::Exited(0)) => Ok(()),
            Some(Status::Exited(PANICKED)) => {
                Err(Fault::Torn(format!("{} panicked: {}", who(), self.cells.complaint())))
            }
            Some(status) => Err(Fault::Torn(format!("{} ended by {status:?}", who()))),
            None => Err(Fault::Hang(format!("{} does not come back", who()))),
        }
    }

    fn start_victim<S>(&self, case: &Case<'_, S>, shared: &S, role: Role) -> io::Result<Child> {
        let operation = case.recoverer.as_ref().filter(|_| role == Role::Recoverer).unwrap_or(&case.victim);
        let warm = case.warm.as_ref().filter(|_| role == Role::Victim);
        self.fork(|| {
            if let Err(error) = sys::trace_me() {
                panic!("ptrace: {error}");
            }
            if let Some(warm) = warm {
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
                    return Err(io::Error::other(format!(
                        "peer {index} ended instead of waiting {complaint}"
                    )));
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
            match panic::catch_unwind(panic::AssertUnwindSafe(body)) {
                Ok(()) => 0,
                Err(payload) => {
                    let text = payload
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| payload.downcast_ref::<&str>().copied());
                    cells.complain(text.unwrap_or("no text"));
                    PANICKED
                }
            }
        })
    }

    fn place(&mut self, step: u64, counter: Option<usize>) -> String {
        let symbols = self.symbols.get_or_insert_with(Symbols::load);
        let place =
            counter.map_or_else(|| "a system call, asleep".to_owned(), |address| symbols.describe(address));
        format!("step {step} at {place}")
    }
}

/// Runs `finally` without a judgement: it may remove what no survivor has found.
fn clear_away<S>(case: &Case<'_, S>) {
    if let Some(finally) = &case.finally {
        let _ = finally();
    }
}

/// What is watched of an object.
fn regions<S>(case: &Case<'_, S>, shared: &S) -> Vec<Region> {
    case.watch.as_ref().map(|watch| watch(shared)).unwrap_or_default()
}
