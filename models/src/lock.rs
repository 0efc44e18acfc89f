//! The robust lock: one 64-bit word, the kernel's robust list, and death at every step.
//!
//! # The word
//!
//! | low half | high half | meaning |
//! |---|---|---|
//! | `0` | A | free, nobody sleeps |
//! | `W` | A | free, perhaps somebody sleeps |
//! | `OD`, `OD W` | A | free, the last owner died in it |
//! | `tid`, `tid W` | A | held by `tid` |
//!
//! Any word without TID bits is free. `W` (`WAITERS`) outlives a release and is cleared in one place only. A, the
//! announce counter, moves whenever somebody is about to sleep and whenever the lock is taken the slow way; only
//! equality with an earlier value is ever asked of it, so the model keeps, for each process, whether A is still what
//! the process saw (`fresh`). That is the counter without its numbers; that 2³² announcements may go by between two
//! steps of one process is not modelled.
//!
//! # The steps
//!
//! | [`At`] | the lock's line |
//! |---|---|
//! | `Idle` | acquire: `list_op_pending = node` |
//! | `Read` | load the word |
//! | `Take` | CAS64: 0 → tid; with `W` or `OD` set (slow): keep `W`, drop `OD`, A+1 |
//! | `Link`, `Taken` | link the node; `list_op_pending` stays as it is while the lock is held |
//! | `Announce` | before each sleep, CAS64: set `W`, A+1. Past its deadline, a waiter leaves here: `W` stays |
//! | `Wait` | `futex_wait` on the low half: the kernel compares and queues in one step |
//! | `Held` | release: `list_op_pending = node` |
//! | `Unlink`, `Sub` | unlink the node; `s = fetch_sub(tid)` keeps `W` and returns A |
//! | `Wake` | if `W` was set: wake one |
//! | `Clear` | if nobody was woken: CAS64 (`W`, A of `s`) → (0, A) |
//! | `Disarm` | `list_op_pending = 0`, the last thing |
//! | `Dying`, `DyingWakes` | the kernel, for a dead thread: owner is the dead one → `OD`, keep `W`, then wake one if `W`; pending and no owner → wake one |
//!
//! A process may be killed before any step; asleep, after having been woken; between the kernel's two steps
//! everybody else goes on. Which sleeper a wake reaches is left open.
//!
//! # The properties
//!
//! - Never two owners at once.
//! - No lost wake: when nobody can move by himself, nobody sleeps.
//! - Nobody waits for ever (`live`): from every state a quiet one can be reached, and no cycle contains a wake-up.

use crate::{
    checker::{Kind, Model, Step},
    kernel::Low,
};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// One run: how many processes, how often each takes the lock, how much goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lock {
    pub(crate) processes: usize,
    pub(crate) rounds: u8,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    pub(crate) bug: Option<Bug>,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The clear compares the low half only.
    ClearIgnoresAnnounce,
    /// Neither a waiter nor a slow take moves A.
    NobodyAnnounces,
    /// Release stores 0 and then wakes; who has slept takes with `W` set. What glibc does.
    SwapZero,
    /// `list_op_pending` is set only after the CAS.
    PendingAfterTake,
    /// `list_op_pending` is zeroed before the wake.
    PendingClearedBeforeWake,
    /// Release does not wake.
    NoWake,
    /// The clear comes before the wake, as if waking nobody were certain.
    ClearBeforeWake,
    /// The slow take leaves A alone, waiters move it.
    SlowTakeDoesNotAnnounce,
    /// A waiter leaves A alone, slow takes move it. **Not a bug** in this lock: whoever takes the word `W`, and so makes
    /// an old clear dangerous, takes it the slow way. The ring's sleepers do need their announce.
    WaiterDoesNotAnnounce,
    /// Kernels before 6.2 without the fix: a pending operation wakes only if the whole word is 0.
    OldKernel,
}

/// Most processes in one run.
const MOST: usize = 4;

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum At {
    Idle,
    Read,
    Take,
    Link,
    Taken,
    Announce,
    Wait,
    Asleep,
    Held,
    Unlink,
    Sub,
    Wake,
    Clear,
    Disarm,
    Dying,
    DyingWakes,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    /// Low half seen last; the value the next CAS or wait compares with.
    seen: Low,
    /// A is still what it was when `seen` was read.
    fresh: bool,
    pending: bool,
    linked: bool,
    /// The deadline has passed.
    late: bool,
    /// Has slept in this acquire (for [`Bug::SwapZero`]).
    slept: bool,
    rounds: u8,
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct State {
    low: Low,
    left: Left,
    processes: [Process; MOST],
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy)]
struct Left {
    kills: u8,
    timeouts: u8,
    spurious: u8,
}

impl Hash for Left {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(u64::from_le_bytes([self.kills, self.timeouts, self.spurious, 0, 0, 0, 0, 0]));
    }
}

impl Process {
    fn bits(self) -> [u8; 8] {
        [
            self.at as u8,
            self.seen.0,
            self.fresh.into(),
            self.pending.into(),
            self.linked.into(),
            self.late.into(),
            self.slept.into(),
            self.rounds,
        ]
    }

    fn rest(&mut self) {
        (self.seen, self.fresh) = (Low(0), false);
    }
}

impl Hash for Process {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(u64::from_le_bytes(self.bits()));
    }
}

impl State {
    /// A+1: what anybody else saw is old now.
    fn announce(&mut self) {
        for process in &mut self.processes {
            process.fresh = false;
        }
    }

    /// A CAS64 of `me` would succeed.
    fn unchanged(&self, me: usize) -> bool {
        self.processes[me].seen == self.low && self.processes[me].fresh
    }

    /// FUTEX_WAKE of one: every sleeper it may reach, or nobody.
    fn wake_one(&self, mut found: impl FnMut(Self, bool)) {
        let mut nobody = true;
        for sleeper in 0..MOST {
            if self.processes[sleeper].at == At::Asleep {
                nobody = false;
                let mut state = *self;
                state.processes[sleeper].at = At::Read;
                found(state, true);
            }
        }
        if nobody {
            found(*self, false);
        }
    }
}

impl Lock {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The one thing `me` does next by itself.
    fn own_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mut state = *before;
        let tid = u8::try_from(me + 1).unwrap_or(Low::TID);
        let low = state.low;
        let unchanged = state.unchanged(me);
        let p = &mut state.processes[me];
        let what = match p.at {
            At::Gone | At::Asleep => return,
            At::Idle if p.rounds == 0 => {
                p.at = At::Gone;
                "leaves for good"
            }
            At::Idle => {
                p.pending = !self.is(Bug::PendingAfterTake);
                p.at = At::Read;
                "pending = node"
            }
            At::Read => {
                (p.seen, p.fresh) = (low, true);
                p.at = if low.owner() == 0 { At::Take } else { At::Announce };
                "loads the word"
            }
            At::Take if !unchanged => {
                p.rest();
                p.at = At::Read;
                "takes: too late"
            }
            At::Take => {
                let slept = self.is(Bug::SwapZero) && p.slept;
                state.low = Low(tid | (low.0 & Low::W) | if slept { Low::W } else { 0 });
                p.rest();
                p.at = At::Link;
                if low != Low(0) && !self.is(Bug::SlowTakeDoesNotAnnounce) && !self.is(Bug::NobodyAnnounces) {
                    state.announce();
                }
                "takes"
            }
            At::Link => {
                p.pending = true;
                p.linked = true;
                p.at = At::Taken;
                "links"
            }
            At::Taken => {
                // Pending stays: the kernel skips a pending entry on its walk, and releases the word once.
                (p.slept, p.late) = (false, false);
                p.at = At::Held;
                "has it"
            }
            At::Announce if p.late => {
                p.rest();
                p.at = At::Disarm;
                "gives up"
            }
            At::Announce if !unchanged => {
                p.rest();
                p.at = At::Read;
                "announces: too late"
            }
            At::Announce => {
                p.seen = Low(low.0 | Low::W);
                p.fresh = false; // futex_wait compares the low half only
                p.at = At::Wait;
                state.low = Low(low.0 | Low::W);
                if !self.is(Bug::WaiterDoesNotAnnounce) && !self.is(Bug::NobodyAnnounces) {
                    state.announce();
                }
                "announces"
            }
            At::Wait => {
                let same = low == p.seen;
                p.rest();
                p.slept |= same;
                p.at = if same { At::Asleep } else { At::Read };
                if same { "sleeps" } else { "EAGAIN" }
            }
            At::Held => {
                p.pending = true;
                p.at = At::Unlink;
                "pending = node"
            }
            At::Unlink => {
                p.linked = false;
                p.at = At::Sub;
                "unlinks"
            }
            At::Sub => {
                state.low = Low(if self.is(Bug::SwapZero) { 0 } else { low.0 & Low::W });
                let waiters = low.has(Low::W) && !self.is(Bug::NoWake);
                if waiters {
                    (p.seen, p.fresh) = (Low(Low::W), true);
                }
                if self.is(Bug::PendingClearedBeforeWake) {
                    p.pending = false;
                }
                p.at = match (waiters, self.is(Bug::ClearBeforeWake)) {
                    (true, false) => At::Wake,
                    (true, true) => At::Clear,
                    (false, _) => At::Disarm,
                };
                "releases"
            }
            At::Wake => {
                let clears = !self.is(Bug::SwapZero) && !self.is(Bug::ClearBeforeWake);
                before.wake_one(|mut state, woke| {
                    let p = &mut state.processes[me];
                    p.at = if woke || !clears { At::Disarm } else { At::Clear };
                    if p.at == At::Disarm {
                        p.rest();
                    }
                    let (what, kind) = if woke { ("wakes one", Kind::Wakes) } else { ("wakes nobody", Kind::Own) };
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
            At::Clear => {
                let same = low == p.seen && (p.fresh || self.is(Bug::ClearIgnoresAnnounce));
                p.rest();
                p.at = if self.is(Bug::ClearBeforeWake) { At::Wake } else { At::Disarm };
                if same {
                    state.low = Low(0);
                }
                if same { "clears W" } else { "clears W: too late" }
            }
            At::Disarm => {
                p.pending = false;
                p.rounds -= 1;
                (p.slept, p.late) = (false, false);
                p.at = At::Idle;
                "pending = 0"
            }
            At::Dying => {
                let owner = low.owner() == tid && (p.linked || p.pending);
                let open = p.pending && low.owner() == 0 && (low == Low(0) || !self.is(Bug::OldKernel));
                if owner {
                    state.low = Low(Low::OD | (low.0 & Low::W));
                }
                let wakes = (owner && low.has(Low::W)) || open;
                state.processes[me] = Process::gone(if wakes { At::DyingWakes } else { At::Gone });
                "kernel looks"
            }
            At::DyingWakes => {
                before.wake_one(|mut state, woke| {
                    state.processes[me].at = At::Gone;
                    let kind = if woke { Kind::Wakes } else { Kind::Own };
                    next.push(Step { who: me, what: "kernel wakes", kind, state });
                });
                return;
            }
        };
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// What may happen to `me`.
    fn mishaps(before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let p = before.processes[me];
        let mut push = |what, change: fn(&mut Left), edit: fn(&mut Process)| {
            let mut state = *before;
            change(&mut state.left);
            edit(&mut state.processes[me]);
            next.push(Step { who: me, what, kind: Kind::Chance, state });
        };
        if before.left.kills > 0 && !matches!(p.at, At::Idle | At::Dying | At::DyingWakes | At::Gone) {
            push("is killed", |left| left.kills -= 1, |p| p.at = At::Dying);
        }
        if before.left.timeouts > 0 && matches!(p.at, At::Asleep | At::Announce) && !p.late {
            let asleep = p.at == At::Asleep;
            let edit: fn(&mut Process) = if asleep { |p| (p.at, p.late) = (At::Read, true) } else { |p| p.late = true };
            push("is late", |left| left.timeouts -= 1, edit);
        }
        if before.left.spurious > 0 && p.at == At::Asleep {
            push("is woken by a signal", |left| left.spurious -= 1, |p| p.at = At::Read);
        }
    }
}

impl Process {
    fn gone(at: At) -> Self {
        Self { at, seen: Low(0), fresh: false, pending: false, linked: false, late: false, slept: false, rounds: 0 }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} processes × {}", self.processes, self.rounds)
    }
}

impl Model for Lock {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::gone(At::Gone); MOST];
        for process in &mut processes[..self.processes] {
            (process.at, process.rounds) = (At::Idle, self.rounds);
        }
        let left = Left { kills: self.kills, timeouts: self.timeouts, spurious: self.spurious };
        State { low: Low(0), left, processes }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..self.processes {
            self.own_step(state, me, next);
            Self::mishaps(state, me, next);
        }
    }

    /// Processes are alike: sort them, and rename the TIDs in the words accordingly.
    fn canonical(&self, state: &mut State) {
        let owner = state.low.owner();
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        let key = |i: usize| {
            let mut process = state.processes[i];
            let tid = u8::try_from(i + 1).unwrap_or(0);
            // TIDs are names, so they take no part in the order, but "is the owner" does.
            process.seen.0 &= !Low::TID;
            (u64::from_be_bytes(process.bits()), tid == owner)
        };
        order[..self.processes].sort_unstable_by_key(|&i| key(i));
        let mut names = [0_u8; Low::TID as usize + 1];
        for (new, &old) in (1_u8..).zip(&order) {
            names[old + 1] = new;
        }
        let rename = |low: Low| Low((low.0 & !Low::TID) | names[low.owner() as usize]);
        let old = *state;
        state.low = rename(old.low);
        for (process, from) in state.processes.iter_mut().zip(order) {
            *process = old.processes[from];
            process.seen = rename(process.seen);
        }
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        let holds = |p: &&Process| matches!(p.at, At::Link | At::Taken | At::Held | At::Unlink | At::Sub);
        if state.processes.iter().filter(holds).count() > 1 {
            return Some("TWO OWNERS");
        }
        (quiet && state.processes.iter().any(|p| p.at == At::Asleep)).then_some("LOST WAKE")
    }

    fn show(&self, state: &State) -> String {
        let process = |p: &Process| {
            let armed = if p.pending { "*" } else { "" };
            format!("{:?}{armed}({}{})", p.at, p.seen.show(), if p.fresh { "" } else { "'" })
        };
        let all: Vec<String> = state.processes[..self.processes].iter().map(process).collect();
        format!("{:<7} {}", state.low.show(), all.join("  "))
    }
}
