//! The ring's sleep protocol: two robust locks back to back, and no process sleeps with either.
//!
//! Each side, P for producers and C for consumers, has one 64-bit word as in [`mod@crate::lock`]: L (TID,
//! `W`, `OD`) and its epoch, A. A of one side is also the futex on which the *other* role sleeps. `kb`,
//! always 0, is the futex of the waiters for the side's lock. Living processes wake `kb` and A, only the
//! kernel wakes L. So no wake-up meant for one class of sleepers is taken by another.
//!
//! # What may be seen
//!
//! | the word of a side | meaning |
//! |---|---|
//! | `0` | free; no process relies on the one that comes next |
//! | `W` | free; perhaps a process sleeps, on `kb` or, of the other role, on A |
//! | `OD`, `OD W` | free; the last owner died in it |
//! | `tid`, `tid W` | held; with `W`, the holder wakes and chains when it releases |
//!
//! # The steps
//!
//! | [`At`] | the ring's line |
//! |---|---|
//! | `Start` | `list_op_pending = my node` |
//! | `Try` | word 0: CAS64 → tid; else ¹ |
//! | `WaitKb`, `WaitLock`, `Contending` | `futex_waitv` \[`kb` == 0, L == the value registered\] |
//! | `Look` | under the lock: fits, or there is data → the one commit store |
//! | `PassAdvance`, `PassWake`, `PassMark` | a producer without room for itself passes on ² |
//! | `Release` | `list_op_pending = my node`; unlink; `s = fetch_sub(tid)` keeps `W` ³ |
//! | `WakeKb` | if `nwait`: wakes one on `kb` |
//! | `Advance`, `WakeA` | if `nother`, after progress or with new work for them ⁴ |
//! | `Chain`, `ChainWake` | if the other side sleeps, and what it waits for is there ⁵ |
//! | `Clear` | if none was woken: CAS64 (`W`, A) → (0, A) |
//! | `Disarm` | `list_op_pending = 0`, the last thing |
//! | `Arm` | nothing found: `list_op_pending = the other side's node` ⁶ |
//! | `Register` | CAS64 on the other side: `W`, A + 1 |
//! | `ReadMine` | reads my L: **before** the re-check |
//! | `Recheck` | without the lock: data, room or `closed`? |
//! | `WaitMine`, `WaitOther`, `WaitA`, `Asleep` | `futex_waitv` \[L mine, L other, A other\] ⁷ |
//! | `Woken` | the kernel takes it off all queues |
//! | `DutyOther`, `DutyMine`, `DutyAdvance`, `DutyA` | after **every** wake-up ⁸ |
//! | `NotifyP` … `NotifyCWake` | the ring is closed: A + 1 and wakes all, on both A |
//! | `HandOver` | registers on my side, still armed on the other; then acquires |
//! | `CloseRegister`, `Close` | the closer, holding P ⁹ |
//!
//! 1. Free with `W` or `OD`: CAS64 keeps `W`, drops `OD`, A + 1. Held: `nwait` + 1, CAS64 sets `W`, A + 1.
//!    When taken, `list_op_pending = 0` ([`mod@crate::lock`] has link and unlink).
//! 2. There is room for the smallest size that any producer ever slept for (`least`), and `passed` ≠ head: A
//!    of C + 1, wakes **all** on it, `passed` = head; all under the lock.
//! 3. Without `W`: done.
//! 4. New work is data or `closed`, or room ≥ `least`. `p = fetch_add(A + 1)`; if `p` ≠ `s`, `W` stays; wakes
//!    one on A. Without progress or new work, `W` stays.
//! 5. Data; or room ≥ `least` and `passed` ≠ head. A of the other side + 1, wakes one on it.
//! 6. `nother` + 1, `least` = min(`least`, size).
//! 7. **A last.** The kernel compares and queues one word after the other. EAGAIN → `Register`.
//! 8. For each L that is free with `W` it wakes its `kb` (if `nwait`). For mine it also advances A and wakes
//!    one on A, if `nother` and there is new work for them.
//! 9. Registers on P, `closed = true`, then `Notify…`, then releases.
//!
//! A broadcast (`Notify…`) is repeated by each process that takes P or C with `OD` and finds `closed`, and by
//! each sleeper that was woken and finds `closed`.
//!
//! The brief first sleep waits on A alone, and ends by itself after some milliseconds. A process may be
//! killed before any step. Asleep, it may time out, or be interrupted by a signal. Which sleeper a wake-up
//! reaches is left open.
//!
//! # What is not modelled
//!
//! Positions are a count. The re-check's reads (header at head, head again; tail, then head) are one step:
//! each is exact when it says "nothing", and when it says "something" the lock is taken and the truth looked
//! up. Spinning happens without the lock and writes nothing. A is a counter without numbers (see
//! [`mod@crate::kernel`]). Memory is sequentially consistent; where that matters is the next section.
//!
//! # Orderings
//!
//! Read-modify-writes of one word are totally ordered, and most of the protocol needs no more. Either a
//! release's `fetch_sub` sees the sleeper's `W`, or the sleeper's registration reads from it
//! (Release/Acquire) and its re-check sees the commit. These pairs are *store, then load of another word* on
//! both sides (Dekker). On x86 the read-modify-write in between is the fence. Elsewhere all four accesses, or
//! a fence between each two, must be `SeqCst`:
//!
//! 1. A sleeper registers (the other side's word), then re-checks (header, head, tail, `closed`). A releaser
//!    commits, then does `fetch_sub` on that word. This is the same word: Release/Acquire suffices for the
//!    wake-up. For space, the futex is the consumer's word and the commit is `head`: the same.
//! 2. A sleeper registers (the other side's word), then reads my L. The kernel stores `OD` into my L, then
//!    wakes. If both missed, the sleeper sleeps beside a death. The kernel's futex call is a full fence; the
//!    registration must be `SeqCst` before the read.
//! 3. A sleeper adds 1 to `nother`, then registers. A releaser does `fetch_sub`, then reads `nother`. The
//!    same word again: `nother` + 1 is published by the registration whose `W` was seen.
//! 4. A sleeper adds 1 to `nother`, registers, then re-checks head. A producer in the lock reads head, then
//!    `nother` (to pass on), and stores `passed` = head. If both missed, a sleeper is not notified: `SeqCst`.
//! 5. A chaining process commits, or reads the other role's position; then it reads the other `nother`. A
//!    sleeper of that role adds 1 to `nother`, registers, then re-checks. If both missed, a wake-up is not
//!    passed on: `SeqCst`.
//! 6. A waiter for the lock adds 1 to `nwait`, then registers. A releaser does `fetch_sub`, then reads
//!    `nwait`. The same word: published by the registration.
//! 7. After the kernel's wake-up, duty reads both L, `nwait`, `nother`. A process about to sleep counts
//!    itself, registers, then the kernel compares L. The comparison in the kernel is fenced; the reads are
//!    `SeqCst`.
//! 8. A closer registers, stores `closed = true`, advances A, then wakes. A sleeper registers, re-checks
//!    `closed`, then the kernel compares A. The same word A: Release/Acquire.
//!
//! # The properties
//!
//! - Never more in the ring than fits.
//! - No lost wake-up. When no process can move by itself: none sleeps for a free lock, for data while there
//!   is data, or for room while there is room for its message. On a closed ring, none sleeps at all.
//! - No process is kept busy (`live`): from every state a quiet one can be reached, and no cycle contains a
//!   wake-up.

mod acquire;
mod looks;
mod release;
mod sleep;
mod state;

use crate::checker::Step;
use crate::kernel::{self, Of, Protocol, Run};
use state::{At, C, P, Process, Shared};
pub(crate) use state::{PROCESSES, WORDS};
use std::fmt;

type State = Of<Ring, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Ring, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// A consumer that never has enough.
pub(crate) const ALL: u8 = u8::MAX;

/// What a process does in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Puts `messages` messages of `size` units each.
    Producer { size: u8, messages: u8 },
    /// Gets so many messages ([`ALL`]: until there are no more).
    Consumer { messages: u8 },
    /// Closes the ring, from the producers' side.
    Closer,
}

/// How sleepers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Brief {
    /// With the precise wait at once.
    #[default]
    Never,
    /// First on A alone, a few milliseconds; then precisely.
    First,
    /// On A alone, for ever: shows that with no kill that is exact.
    Only,
}

/// One run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ring {
    pub(crate) roles: Vec<Role>,
    pub(crate) slots: u8,
    /// Messages of one unit that are there at the start.
    pub(crate) filled: u8,
    pub(crate) brief: Brief,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A is the first word of the precise sleep.
    EpochComparedFirst,
    /// Duty only when the index `futex_waitv` returned is a lock word's.
    DutyByLastIndex,
    /// No duty after any wake-up.
    NoDuty,
    /// A process without progress, or one that only wakes up, notifies none of what a dead process has done.
    NoNewWork,
    /// The re-check comes before the registration.
    RecheckBeforeRegister,
    /// The clear compares L only.
    ClearIgnoresEpoch,
    /// The sleep compares A with whatever it is by then.
    EpochNotCompared,
    /// The slow take does not advance A.
    SlowTakeKeepsEpoch,
    /// The other side's L is no word of the sleep.
    OtherLockNotWatched,
    /// My L is no word of the sleep.
    OwnLockNotWatched,
    /// My L is read after the re-check.
    OwnLockReadAfterRecheck,
    /// Release wakes through A without advancing it.
    NoAdvanceAtRelease,
    /// After the advance the clear trusts the new word, whatever the advance replaced. **Not found any more**
    /// since duty follows every wake-up; the comparison costs nothing and stays.
    AdvanceOverwritesSnapshot,
    /// Sleepers arm nothing.
    NotArmedAsleep,
    /// No registration on my side after a sleep.
    NoHandOverRegister,
    /// `list_op_pending` is zeroed before the wake-ups.
    PendingClearedBeforeWakes,
    /// Living processes wake waiters for the lock through L.
    WakersUseLockWord,
    /// Release does not chain.
    NoChain,
    /// A producer without room does not pass its wake-up on: it chains only after a commit.
    NoPassOn,
    /// It passes it on to one.
    PassOnToOne,
    /// It passes it on however often.
    PassOnAlways,
    /// `passed` is set before the wake-up.
    PassMarkedBeforeWaking,
    /// The closer does not set `W` before `closed`.
    CloserDoesNotRegister,
    /// The closer notifies after its release, with nothing armed.
    CloseWakesAfterRelease,
    /// The same, armed on P.
    CloseWakesAfterReleaseArmed,
    /// A process that takes over from a dead owner does not notify.
    CloseNotRepeatedByTaker,
    /// A process that is woken does not notify.
    CloseNotRepeatedBySleeper,
    /// Kernels before 6.2 without the fix: a pending operation wakes only if the whole word is 0.
    OldKernel,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut roles = self.roles.as_slice();
        while let Some(&role) = roles.first() {
            let alike = roles.iter().take_while(|&&other| other == role).count();
            match role {
                Role::Producer { size: 1, messages } => write!(f, "{alike}P×{messages} ")?,
                Role::Producer { messages, .. } => write!(f, "{alike}P×{messages}(big) ")?,
                Role::Consumer { messages: ALL } => write!(f, "{alike}C ")?,
                Role::Consumer { messages } => write!(f, "{alike}C×{messages} ")?,
                Role::Closer => write!(f, "closer ")?,
            }
            roles = &roles[alike..];
        }
        write!(f, "ring {}", self.slots)?;
        if self.filled > 0 {
            write!(f, " filled {}", self.filled)?;
        }
        match self.brief {
            Brief::Never => Ok(()),
            Brief::First => write!(f, ", brief first"),
            Brief::Only => write!(f, ", brief only"),
        }
    }
}

impl Protocol<PROCESSES, WORDS> for Ring {
    const NAME: &'static str = "ring";
    type Bug = Bug;
    type Shared = Shared;
    type Process = Process;

    fn processes(&self) -> usize {
        self.roles.len()
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let model = &run.model;
        let mut processes = [Process::default(); PROCESSES];
        for (process, role) in processes.iter_mut().zip(&model.roles) {
            (process.at, process.brief) = (At::Start, model.brief != Brief::Never);
            if let Role::Producer { messages, .. } | Role::Consumer { messages } = *role {
                process.messages = messages;
            }
        }
        run.begin(Shared { count: model.filled, ..Shared::default() }, processes, 0)
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        match turn.p.at {
            At::Gone => {}
            At::Start | At::Disarm | At::Arm => {
                let mut state = *turn.before;
                let what = turn.run.private_step(&mut state, turn.me);
                turn.go(next, what, state, state.processes[turn.me]);
            }
            at if at <= At::Contending => turn.acquire(next),
            at if at <= At::PassMark => turn.inside(next),
            at if at <= At::NotifyCWake => turn.close(next),
            at if at <= At::Clear => turn.release(next),
            at if at < At::Asleep => turn.sleep(next),
            At::Asleep if !turn.hand().woken => turn.sleep(next),
            _ => turn.wake_up(next),
        }
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p, woken) = (turn.me, turn.p, turn.hand().woken);
        let asleep = matches!(p.at, At::Asleep | At::Contending) && !woken;
        let again = |state: &mut State| turn.again(state);
        if !p.late && turn.model.roles[me] != Role::Closer {
            match p.at {
                At::Contending if asleep => turn.chance(next, Turn::LATE, "is late", |state| {
                    again(state);
                    state.processes[me].late = true;
                }),
                At::Asleep | At::Register if !woken => {
                    turn.chance(next, Turn::LATE, "is late and leaves", |state| {
                        state.processes[me] = Process::default()
                    });
                }
                // Awake and late: it will find out where it looks at the clock.
                At::Woken | At::HandOver | At::Try
                    if p.at != At::Try || turn.before.is_held(turn.model.side(me)) =>
                {
                    turn.chance(next, Turn::LATE, "is late", |state| state.processes[me].late = true);
                }
                _ => {}
            }
        }
        if asleep {
            turn.chance(next, Turn::SPURIOUS, "is woken by a signal", again);
        }
    }

    fn killed(run: &Run<Self, PROCESSES, WORDS>, state: &mut State, me: usize) {
        let (p, mine) = (state.processes[me], run.model.side(me));
        state.own.leaked_nwait[mine] |= p.waits_for_lock();
        state.own.leaked_nother[1 - mine] |= p.is_parking();
    }

    fn is_old_kernel(run: &Run<Self, PROCESSES, WORDS>) -> bool {
        run.is(Bug::OldKernel)
    }

    /// When no process will be killed any more, `list_op_pending` says nothing, and private steps need no
    /// step of their own.
    fn finish(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        if state.left[0] > 0 {
            return;
        }
        for me in 0..run.model.roles.len() {
            while match (state.processes[me].at, run.model.roles[me]) {
                (At::Arm, Role::Producer { size, .. }) => state.own.least != 0 && state.own.least <= size,
                (At::Start | At::Disarm | At::Arm, _) => true,
                _ => false,
            } {
                run.private_step(state, me);
            }
            if !state.hands[me].is_dying() {
                state.clear_pending(me);
            }
        }
    }

    fn alike(&self, one: usize, other: usize) -> bool {
        self.roles[one] == self.roles[other]
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        if state.own.used() > run.model.slots {
            return Some("OVERFLOW");
        }
        if quiet { Self::stuck(run, state).map(|(_, why)| why) } else { None }
    }

    fn stuck(run: &Run<Self, PROCESSES, WORDS>, state: &State) -> Option<(usize, &'static str)> {
        let model = &run.model;
        let wrong = |me: usize| match (state.processes[me].at, model.roles[me]) {
            (At::Contending, _) => Some("LOST LOCK WAKE"),
            (At::Asleep, _) if state.own.closed => Some("LOST CLOSE"),
            (At::Asleep, Role::Consumer { .. }) if model.is_ready(state, me) => Some("LOST DATA WAKE"),
            (At::Asleep, _) if model.is_ready(state, me) => Some("LOST SPACE WAKE"),
            _ => None,
        };
        (0..model.roles.len()).find_map(|me| Some((me, wrong(me)?)))
    }

    fn poll(turn: &Turn<'_>, state: &mut State) {
        turn.again(state);
    }

    fn show(&self, state: &State) -> String {
        let process = |me: usize| {
            let (p, hand) = (&state.processes[me], &state.hands[me]);
            let name = match self.roles[me] {
                Role::Producer { size, .. } => ["p", "p", "pp"][usize::from(size)],
                Role::Consumer { .. } => "c",
                Role::Closer => "x",
            };
            format!("{name}:{:?}{}{}", p.at, hand.show(), if hand.woken { "!" } else { "" })
        };
        let all: Vec<String> = (0..self.roles.len()).map(process).collect();
        format!(
            "P={:<6} C={:<6} n={}{}{} {}",
            state.words[P].show(),
            state.words[C].show(),
            state.own.used(),
            if state.own.closed { " closed" } else { "" },
            if state.own.passed { " passed" } else { "" },
            all.join("  ")
        )
    }
}
