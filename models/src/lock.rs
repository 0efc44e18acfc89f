//! The robust lock: one 64-bit word, the kernel's robust list, and death at every step.
//!
//! # The word
//!
//! | low half | meaning |
//! |---|---|
//! | `0` | free, no process sleeps |
//! | `W` | free, perhaps a process sleeps |
//! | `OD`, `OD W` | free, the last owner died in it |
//! | `tid`, `tid W` | held by `tid` |
//!
//! Any word without TID bits is free. `W` (`WAITERS`) outlives a release and is cleared in one place only.
//! The high half is the epoch `E`. It advances whenever a process is about to sleep, and whenever the lock is
//! taken the slow way (see [`mod@crate::kernel`] for how epochs are modelled).
//!
//! # The steps
//!
//! | [`At`] | the lock's line |
//! |---|---|
//! | `Idle` | acquire: `list_op_pending = node` |
//! | `Read` | loads the word |
//! | `Take` | CAS64: 0 → tid. With `W` or `OD` (slow): keeps `W`, drops `OD`, E + 1 |
//! | `Link`, `Taken` | links the node; `list_op_pending` stays while the lock is held |
//! | `Register` | before each sleep, CAS64: sets `W`, E + 1 ¹ |
//! | `Wait` | `futex_wait` on the low half: the kernel compares and queues in one step |
//! | `Held` | release: `list_op_pending = node` |
//! | `Unlink`, `Sub` | unlinks the node; `s = fetch_sub(tid)` keeps `W` and returns E |
//! | `Wake` | if `W` was set: wakes one |
//! | `Clear` | if no process was woken: CAS64 (`W`, E of `s`) → (0, E) |
//! | `Disarm` | `list_op_pending = 0`, the last thing |
//!
//! 1. A waiter that is past its deadline leaves here; `W` stays.
//!
//! A process may be killed before any step; asleep, and after it was woken. Between the kernel's two steps
//! all other processes go on. Which sleeper a wake-up reaches is left open.
//!
//! # The properties
//!
//! - Never two owners at once.
//! - No lost wake-up: when no process can move by itself, none sleeps.
//! - No process waits for ever (`live`): from every state a quiet one can be reached, and no cycle contains a
//!   wake-up.

use crate::checker::Step;
use crate::kernel::{self, Low, Of, Protocol, Run, steps, tid};
use std::fmt;

/// Most processes in one run, and the words.
pub(crate) const PROCESSES: usize = 4;
pub(crate) const WORDS: usize = 1;

type State = Of<Lock, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Lock, PROCESSES, WORDS>;

/// One run: how many processes, how often each takes the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lock {
    pub(crate) processes: usize,
    pub(crate) rounds: u8,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The clear compares the low half only.
    ClearIgnoresEpoch,
    /// Neither a waiter nor a slow take advances the epoch.
    EpochStandsStill,
    /// Release stores 0 and then wakes; a process that has slept takes with `W` set. What glibc does.
    SwapZero,
    /// `list_op_pending` is set only after the CAS.
    PendingAfterTake,
    /// `list_op_pending` is zeroed before the wake-up.
    PendingClearedBeforeWake,
    /// Release does not wake.
    NoWake,
    /// The clear comes before the wake-up, as if it were certain that none is woken.
    ClearBeforeWake,
    /// The slow take does not advance the epoch, waiters do.
    SlowTakeKeepsEpoch,
    /// A waiter does not advance the epoch, slow takes do. **Not a bug** in this lock: a process that takes
    /// the word `W`, and so makes an old clear dangerous, takes it the slow way. The ring's sleepers do need
    /// to advance it.
    WaiterKeepsEpoch,
    /// Kernels before 6.2 without the fix: a pending operation wakes only if the whole word is 0.
    OldKernel,
}

steps! {
    /// Where a process stands: the step that it takes next.
    enum At {
        Idle Read Take Link Taken Register Wait Asleep
        Held Unlink Sub Wake Clear Disarm
        Gone
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    at: At,
    /// The deadline has passed.
    late: bool,
    /// Has slept in this acquire (for [`Bug::SwapZero`]).
    slept: bool,
    rounds: u8,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} processes × {}", self.processes, self.rounds)
    }
}

impl Protocol<PROCESSES, WORDS> for Lock {
    const NAME: &'static str = "lock";
    type Bug = Bug;
    type Shared = ();
    type Process = Process;

    fn processes(&self) -> usize {
        self.processes
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let mut processes = [Process::default(); PROCESSES];
        for process in &mut processes[..run.model.processes] {
            (process.at, process.rounds) = (At::Idle, run.model.rounds);
        }
        run.begin((), processes, 0)
    }

    fn step(turn: &Turn<'_>, next: &mut Vec<Step<State>>) {
        turn.own_step(next);
    }

    fn chances(turn: &Turn<'_>, next: &mut Vec<Step<State>>) {
        let (me, p) = (turn.me, turn.p);
        let wakes = |state: &mut State, late| {
            state.forget(me);
            (state.processes[me].at, state.processes[me].late) = (At::Read, late);
        };
        if p.at == At::Asleep && !p.late {
            turn.chance(next, Turn::LATE, "is late", |state| wakes(state, true));
        }
        if p.at == At::Register && !p.late {
            turn.chance(next, Turn::LATE, "is late", |state| state.processes[me].late = true);
        }
        if p.at == At::Asleep {
            turn.chance(next, Turn::SPURIOUS, "is woken by a signal", |state| wakes(state, p.late));
        }
    }

    fn is_mortal(turn: &Turn<'_>) -> bool {
        turn.p.at != At::Idle
    }

    fn is_old_kernel(run: &Run<Self, PROCESSES, WORDS>) -> bool {
        run.is(Bug::OldKernel)
    }

    /// A process that is woken leaves its only queue, and reads the word again.
    fn finish(_run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        for me in 0..PROCESSES {
            if state.hands[me].woken {
                state.forget(me);
                state.processes[me].at = At::Read;
            }
        }
    }

    fn alike(&self, _one: usize, _other: usize) -> bool {
        true
    }

    fn wrong(_run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        let holds = |p: &&Process| matches!(p.at, At::Link | At::Taken | At::Held | At::Unlink | At::Sub);
        if state.processes.iter().filter(holds).count() > 1 {
            return Some("TWO OWNERS");
        }
        (quiet && state.processes.iter().any(|p| p.at == At::Asleep)).then_some("LOST WAKE")
    }

    fn show(&self, state: &State) -> String {
        let process = |me: usize| {
            let hand = &state.hands[me];
            let fresh = if hand.is_fresh(0) { "" } else { "'" };
            format!("{:?}{}({}{fresh})", state.processes[me].at, hand.show(), hand.seen[0].show())
        };
        let all: Vec<String> = (0..self.processes).map(process).collect();
        format!("{:<7} {}", state.words[0].show(), all.join("  "))
    }
}

impl Turn<'_> {
    /// The next step by itself.
    fn own_step(&self, next: &mut Vec<Step<State>>) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let low = state.words[0];
        let unchanged = self.hand().seen[0] == low && self.hand().is_fresh(0);
        let what = match p.at {
            At::Gone | At::Asleep => return,
            At::Idle if p.rounds == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::Idle => {
                if !self.is(Bug::PendingAfterTake) {
                    state.set_pending(me, 0);
                }
                p.at = At::Read;
                "pending = node"
            }
            At::Read => {
                state.note(me, 0);
                state.hands[me].set_fresh(0, true);
                p.at = if low.is_free() { At::Take } else { At::Register };
                "loads the word"
            }
            At::Register if p.late => {
                state.forget(me);
                p.at = At::Disarm;
                "gives up"
            }
            At::Take | At::Register if !unchanged => {
                state.forget(me);
                p.at = At::Read;
                "the word has changed"
            }
            At::Take => {
                let slept = self.is(Bug::SwapZero) && p.slept;
                state.words[0] = Low(tid(me) | (low.0 & Low::W) | if slept { Low::W } else { 0 });
                state.forget(me);
                let still = self.is(Bug::SlowTakeKeepsEpoch) || self.is(Bug::EpochStandsStill);
                if low != Low(0) && !still {
                    state.advance(0);
                }
                p.at = At::Link;
                "takes"
            }
            At::Link => {
                state.set_pending(me, 0);
                state.link(me, 0);
                p.at = At::Taken;
                "links"
            }
            At::Taken => {
                // Pending stays: the kernel skips a pending entry on its walk, and releases the word once.
                (p.slept, p.late, p.at) = (false, false, At::Held);
                "has it"
            }
            At::Register => {
                state.words[0].0 |= Low::W;
                if !self.is(Bug::WaiterKeepsEpoch) && !self.is(Bug::EpochStandsStill) {
                    state.advance(0);
                }
                state.note(me, 0);
                // futex_wait compares the low half only.
                state.hands[me].forget_epochs();
                p.at = At::Wait;
                "registers"
            }
            At::Wait => {
                let same = state.queue_word(me, 0) == kernel::Queued::Yes;
                p.slept |= same;
                p.at = if same { At::Asleep } else { At::Read };
                if same { "sleeps" } else { "EAGAIN" }
            }
            At::Held => {
                state.set_pending(me, 0);
                p.at = At::Unlink;
                "pending = node"
            }
            At::Unlink => {
                state.unlink(me, 0);
                p.at = At::Sub;
                "unlinks"
            }
            At::Sub => {
                let waiters = state.release(me, 0) && !self.is(Bug::NoWake);
                state.hands[me].set_fresh(0, waiters);
                if self.is(Bug::SwapZero) {
                    state.words[0] = Low(0);
                }
                if self.is(Bug::PendingClearedBeforeWake) {
                    state.clear_pending(me);
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
                return self.before.wake_one(0, |mut state, woke, kind| {
                    if woke || !clears {
                        state.hands[me].forget_epochs();
                    }
                    state.processes[me].at = if woke || !clears { At::Disarm } else { At::Clear };
                    next.push(Step {
                        process: me,
                        what: if woke { "wakes one" } else { "wakes none" },
                        kind,
                        state,
                    });
                });
            }
            At::Clear => {
                let same = low == Low(Low::W) && (self.hand().is_fresh(0) || self.is(Bug::ClearIgnoresEpoch));
                state.hands[me].forget_epochs();
                if same {
                    state.words[0] = Low(0);
                }
                p.at = if self.is(Bug::ClearBeforeWake) { At::Wake } else { At::Disarm };
                if same { "clears W" } else { "clears W: too late" }
            }
            At::Disarm => {
                state.clear_pending(me);
                p = Process { at: At::Idle, rounds: p.rounds - 1, ..Process::default() };
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}
