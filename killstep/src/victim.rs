//! The victim: one process under ptrace, led to its kill point.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use crate::case::Role;
use crate::control::stage;
use crate::path::Path;
use crate::sys::{self, Activity, Child, Resume, Status};
use crate::{Cells, Granularity, Region};

/// Robust lists longer than this are not followed further.
const LIST_LIMIT: usize = 64;
/// How long a peer that the victim has woken may run before the victim goes on.
const SETTLE: Duration = Duration::from_millis(20);

/// An operation that falls asleep more often than this does not end.
const MAX_SLEEPS: u32 = 100;

/// How far the victim is to be led.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// To the state after this many changes.
    State(u64),
    /// To exactly this step.
    Step(u64),
    /// To the end of the operation.
    End,
}

/// What leading needs to know of its case.
pub(crate) struct Guide<'a> {
    pub(crate) cells: &'a Cells,
    pub(crate) role: Role,
    pub(crate) vdso: std::ops::Range<usize>,
    pub(crate) granularity: Granularity,
    pub(crate) regions: Vec<Region>,
    pub(crate) peers: Vec<i32>,
    pub(crate) release: Option<&'a dyn Fn() -> io::Result<Child>>,
    pub(crate) watchdog: Duration,
    pub(crate) blocked_after: Duration,
    pub(crate) max_steps: u64,
}

/// Where the victim stands.
pub(crate) struct Victim {
    pub(crate) child: Child,
    /// Steps made since the operation began; falling asleep in a system call counts as one.
    pub(crate) step: u64,
    /// Of these, the steps that made a new state.
    pub(crate) changes: u64,
    /// Asleep in a system call.
    pub(crate) blocked: bool,
    /// The operation has returned, or sleeps and the case has no `release`.
    pub(crate) ended: bool,
    /// How often it fell asleep.
    sleeps: u32,
    /// The most recent step was to wake.
    woken: bool,
    signal: i32,
    /// The program counter, where the victim stands at an instruction.
    pub(crate) counter: usize,
    /// Which instructions met so far enter the kernel: most are met again and again.
    entries: HashMap<usize, bool>,
    robust_list: Option<usize>,
    pub(crate) snapshot: Snapshot,
    helpers: Vec<Child>,
}

/// The watched bytes, and the robust list as the kernel would walk it now.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) bytes: Vec<u8>,
    pub(crate) list: Vec<u64>,
}

impl Victim {
    /// Takes over `child`, which stops itself before its operation, and leads it to the first instruction of
    /// that.
    pub(crate) fn adopt(mut child: Child, guide: &Guide<'_>) -> io::Result<Self> {
        match child.wait_stop()? {
            Status::Stopped(sys::SIGSTOP, _) => {}
            status => return Err(died(guide, status)),
        }
        sys::set_trace_options(child.pid())?;
        while guide.cells.stage(guide.role) != stage::READY {
            sys::resume(child.pid(), Resume::Step, 0)?;
            match child.wait_stop()? {
                Status::Stopped(..) => {}
                status => return Err(died(guide, status)),
            }
        }
        let robust_list = sys::robust_list(child.pid());
        let mut victim = Self {
            child,
            step: 0,
            changes: 0,
            blocked: false,
            ended: false,
            sleeps: 0,
            woken: false,
            signal: 0,
            counter: 0,
            entries: HashMap::new(),
            robust_list,
            snapshot: Snapshot::default(),
            helpers: Vec::new(),
        };
        victim.counter = sys::program_counter(victim.child.pid())?;
        victim.snapshot = victim.look(guide);
        Ok(victim)
    }

    /// Leads the victim to `target`, or to where its operation ends.
    pub(crate) fn lead(
        &mut self,
        target: Target,
        guide: &Guide<'_>,
        mut path: Option<&mut Path>,
    ) -> io::Result<()> {
        let mut entered = false;
        loop {
            let there = match target {
                Target::State(changes) => self.changes >= changes,
                Target::Step(step) => self.step >= step,
                Target::End => false,
            };
            self.ended =
                guide.cells.stage(guide.role) == stage::DONE || (self.blocked && guide.release.is_none());
            if there || self.ended {
                return Ok(());
            }
            if self.step >= guide.max_steps {
                return Err(io::Error::other(format!(
                    "the operation did not end within {} steps",
                    guide.max_steps
                )));
            }
            if entered {
                self.settle_all(guide);
            }
            if self.sleeps > MAX_SLEEPS {
                return Err(io::Error::other(format!(
                    "the victim falls asleep again and again (step {})",
                    self.step
                )));
            }
            let instruction = self.program_counter();
            entered = if self.blocked { self.wake(guide)? } else { self.advance(guide)? };
            self.step += 1;
            if !matches!(target, Target::Step(_)) {
                let now = self.look(guide);
                let changed = entered || now != self.snapshot;
                self.changes += u64::from(changed);
                if let Some(path) = &mut path {
                    path.note(instruction, self.step, changed.then_some(now.list != self.snapshot.list));
                }
                self.snapshot = now;
            }
        }
    }

    /// Where the victim stands; `None` while it sleeps.
    pub(crate) fn program_counter(&self) -> Option<usize> {
        (!self.blocked).then_some(self.counter)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Stops the victim where it stands, as SIGSTOP would: a sleeping victim is taken out of its system call,
    /// which begins again when it goes on. It must be [thawed](Self::thaw) or killed.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.blocked) {
            sys::stop(self.child.pid());
            match self.child.wait_stop()? {
                Status::Stopped(..) => self.counter = sys::program_counter(self.child.pid())?,
                status => {
                    return Err(io::Error::other(format!(
                        "the victim ended when it was stopped ({status:?})"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Lets a frozen victim go on at full speed, to where its operation ends.
    pub(crate) fn thaw(&mut self, guide: &Guide<'_>) -> io::Result<()> {
        self.lead(Target::End, guide, None)
    }

    /// Makes the kernel forget the victim's robust list, pending entry and all. It can only be killed
    /// afterwards.
    pub(crate) fn lose_list(&mut self) -> io::Result<()> {
        self.freeze()?;
        sys::forget_robust_list(&mut self.child)?;
        match sys::robust_list(self.child.pid()) {
            None => Ok(()),
            Some(_) => Err(io::Error::other("the victim still has its robust list")),
        }
    }

    /// Kills the victim, and waits until the kernel has cleaned up after it.
    pub(crate) fn kill(&mut self, cells: &Cells) {
        cells.set_killed();
        self.child.kill();
    }

    /// The processes that released the victim from its sleeps.
    pub(crate) fn take_helpers(&mut self) -> Vec<Child> {
        std::mem::take(&mut self.helpers)
    }

    /// Waits a moment until none of the peers runs; after a sleep, nor what has released the victim from it.
    pub(crate) fn settle_all(&mut self, guide: &Guide<'_>) {
        let helper = if std::mem::take(&mut self.woken) { self.helpers.last().map(Child::pid) } else { None };
        let others: Vec<_> = guide.peers.iter().copied().chain(helper).collect();
        settle(&others);
    }

    /// Makes one step. Returns whether it was a system call.
    pub(crate) fn advance(&mut self, guide: &Guide<'_>) -> io::Result<bool> {
        let pid = self.child.pid();
        let signal = std::mem::take(&mut self.signal);
        let (how, enters) = match guide.granularity {
            Granularity::Instructions => (
                Resume::Step,
                *self.entries.entry(self.counter).or_insert_with(|| sys::is_syscall(pid, self.counter)),
            ),
            Granularity::Syscalls => (Resume::Syscall, true),
        };
        sys::resume(pid, how, signal)?;
        if !enters {
            // Nothing but a system call can keep it.
            let status = self.child.wait_stop()?;
            self.stopped(guide, status)?;
        } else if let Some(status) = self.stop_or_sleep(guide.blocked_after, guide)? {
            self.stopped(guide, status)?;
        } else {
            self.blocked = true;
            self.sleeps += 1;
        }
        Ok(enters)
    }

    /// Has the victim released from its sleep, and waits until it has left the system call.
    pub(crate) fn wake(&mut self, guide: &Guide<'_>) -> io::Result<bool> {
        if let Some(release) = guide.release {
            self.helpers.push(release()?);
        }
        let deadline = Instant::now() + guide.watchdog;
        loop {
            if let Some(status) = self.child.poll_stop()? {
                (self.blocked, self.woken) = (false, true);
                self.stopped(guide, status)?;
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!(
                    "`release` did not wake the victim (step {})",
                    self.step
                )));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Waits for the next stop; `None` when the victim has been asleep for `patience`.
    fn stop_or_sleep(&mut self, patience: Duration, guide: &Guide<'_>) -> io::Result<Option<Status>> {
        let begin = Instant::now();
        let mut looks = 0_u32;
        loop {
            if let Some(status) = self.child.poll_stop()? {
                return Ok(Some(status));
            }
            looks += 1;
            if looks > 20 {
                std::thread::sleep(Duration::from_micros(20));
            }
            let waited = begin.elapsed();
            if waited >= patience && sys::activity(self.child.pid()) == Activity::Asleep {
                // It may have stopped between the two looks.
                return self.child.poll_stop();
            }
            if waited >= guide.watchdog.max(patience) * 4 {
                return Err(io::Error::other(format!(
                    "the victim neither stops nor sleeps (step {})",
                    self.step
                )));
            }
        }
    }

    fn stopped(&mut self, guide: &Guide<'_>, status: Status) -> io::Result<()> {
        match status {
            // SIGSTOP: `freeze` came just as a system call ended by itself.
            Status::Stopped(sys::SIGTRAP | sys::SIGSTOP, _) => {}
            // A signal on its way: it is delivered with the next step.
            Status::Stopped(signal, _) => self.signal = signal,
            status => return Err(died(guide, status)),
        }
        self.counter = sys::program_counter(self.child.pid())?;
        // A clock in the vDSO reads until the time has stood still, which under single steps it never does:
        // run it at full speed.
        if guide.granularity == Granularity::Instructions && guide.vdso.contains(&self.counter) {
            let status = sys::run_to_caller(&mut self.child)?;
            return self.stopped(guide, status);
        }
        Ok(())
    }

    pub(crate) fn look(&self, guide: &Guide<'_>) -> Snapshot {
        let pid = self.child.pid();
        let mut ranges: Vec<_> = guide.regions.iter().map(|region| (region.address, region.length)).collect();
        let mut bytes = vec![0; ranges.iter().map(|range| range.1).sum()];
        ranges.retain(|range| range.1 != 0);
        let read = if bytes.is_empty() { 0 } else { sys::read_memory(pid, &ranges, &mut bytes) };
        bytes.truncate(read);
        Snapshot { bytes, list: self.robust_list.map(|head| walk(pid, head)).unwrap_or_default() }
    }
}

/// The robust list of `pid`: the pending entry, then every entry from `head` on.
fn walk(pid: i32, head: usize) -> Vec<u64> {
    let word = |address: usize| {
        let mut bytes = [0; 8];
        (sys::read_memory(pid, &[(address, 8)], &mut bytes) == 8).then(|| u64::from_ne_bytes(bytes))
    };
    let mut list = Vec::with_capacity(8);
    let mut header = [0; 24];
    if sys::read_memory(pid, &[(head, 24)], &mut header) != 24 {
        return list;
    }
    let field =
        |at: usize| header[at..at + 8].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    list.extend([field(8), field(16)]);
    let mut next = Some(field(0));
    // Bit 0 of a link marks a priority-inheritance lock and is no part of the address.
    while let Some(entry) =
        next.filter(|entry| usize::try_from(entry & !1) != Ok(head) && list.len() < LIST_LIMIT)
    {
        list.push(entry);
        next = usize::try_from(entry & !1).ok().and_then(word);
    }
    list
}

/// Waits a moment until none of the peers runs, so that a step of the victim always meets the same state.
pub(crate) fn settle(peers: &[i32]) {
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline && peers.iter().any(|&peer| sys::activity(peer) == Activity::Running) {
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn died(guide: &Guide<'_>, status: Status) -> io::Error {
    let complaint = guide.cells.complaint();
    io::Error::other(format!("the victim ended by itself ({status:?}) {complaint}"))
}
