//! Jobs that are leased, by consumers and joiners, with death at every step.
//!
//! This stands on the ring's protocol (see [`mod@crate::ring`]). What is new:
//!
//! - The lock of each lease is only watched: everybody that sleeps watches its `L`, beside `L` of both sides
//!   and `A` of the producers' side.
//! - A joiner sleeps on a futex of its own (`SEQ`, an event count) instead of `A`.
//!
//! What is left out: no process waits for room, and there is no brief first sleep. The producers' lock is
//! entered in one step when it is free. A message is its number; the header at a head is not 0 while more
//! were put. A job that is leased may stay so for ever (`Held` is left by chance only).
//!
//! # The steps
//!
//! | [`At`] | the queue's line |
//! |---|---|
//! | `PStart` … `PDisarm` | put: enter, commit, release, wake one on `A`, clear |
//! | `GStart` … `Contending` | a consumer enters its side |
//! | `Recover`, `Notify` … `NotifyJoinersWake` | after a death with the lock ¹ |
//! | `Look`, `LockOfBack`, `UseNew` | `lease_one` ² |
//! | `LeasePending` … `Leased` | its lock, watched ³; `TAKING`; the head; `LEASED` |
//! | `DeadLetter`, `DeadLetterTail` | a job that came back too often is dead-lettered ⁴ |
//! | `Count` | a dead letter that becomes a job is counted ⁵ |
//! | `CRelease` … `Disarm` | leaves, with the chain |
//! | `Decide`, `Arm` … `HandOver` | sleeps ⁶ |
//! | `JStart` | join: recovers a lease that is half moved ⁷ |
//! | `FHead` … `FEmpty` | `is_finished`, word by word |
//! | `DCount` … `DDisarm` | done ⁸ |
//! | `BCount` … `BWake` | gives back: the epoch; the lease's lock; wakes one |
//!
//! 1. The process decides what became of the lease that the dead process was moving. Then it notifies all.
//! 2. A lease whose job came back, or the oldest message and a free lease, or the first use of a lease.
//! 3. The epoch `A` advances if a dead process had the lease.
//! 4. `DEAD_LETTERING`, the commit, and then what done does.
//! 5. Between `REVIVING` and the commit.
//! 6. It notes the words that it will watch, then looks at everything. Then the kernel compares and queues
//!    one word after the other.
//! 7. It takes the consumers' lock for that: perhaps no other process ever comes.
//! 8. The joiners' epoch and `A` advance; `FREE`; the lease's lock; the notifications.
//!
//! # The properties
//!
//! - A message that was put is in the log, in a lease, or done: in one of them, and in the last for ever. The
//!   process that has a job holds its lease's lock, and no other process has the job.
//! - `join` returns only if all was done at some instant of its last look.
//! - When no process can move by itself: no consumer sleeps while there is a job and a lease for it, or a
//!   lease that a dead process has half moved. No process joins when all is done, and none waits for a free
//!   lock. On a closed queue, no process sleeps for what will not come.
//! - No process is kept busy for ever (`live`).
//!
//! # Orderings
//!
//! The model is sequentially consistent. Beside what [`mod@crate::ring`] lists, it relies on these pairs of a
//! store and a load in two threads. Each thread must see the other's store:
//!
//! 1. A consumer takes a lease (`compare_exchange`), then asks for sleepers, to advance an epoch. A sleeper
//!    counts itself, then notes the lease's word.
//! 2. A consumer releases a lease (`fetch_sub`), then asks for joiners, sleepers, starvation, `closed`. The
//!    other process counts itself, says that it starves, or closes; then it reads the lease's word, and then
//!    its state.
//! 3. A consumer counts a lease's first use, then asks for sleepers. A sleeper counts itself, then asks how
//!    many leases there are.
//! 4. A consumer releases a lease, then reads those of others. So does another: of two that are the last, one
//!    sees both free.
//!
//! All of these are `SeqCst`. A lease's state is stored (Release) before the lease is released, or before the
//! head moves. So a process that sees the latter sees the former.

mod done;
mod get;
mod looks;
mod put;
mod sleep;
mod state;

use crate::checker::Step;
use crate::kernel::{self, Low, Of, Protocol, Run, tid};
use state::{At, C, DEAD_LETTER, For, Job, LEASES, P, Process, S, Says, Shared};
pub(crate) use state::{PROCESSES, WORDS};
use std::fmt;

type State = Of<Lease, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Lease, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// One run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lease {
    pub(crate) roles: Vec<Role>,
    pub(crate) leases: u8,
    /// Leases that were used before.
    pub(crate) used: u8,
    /// Messages that are in the log at first.
    pub(crate) filled: u8,
    /// Whether there is a dead letter.
    pub(crate) letter: bool,
    /// The first consumer has found nothing, and then a process has died with the first message. (A process
    /// that takes that job is not killed before it has advanced `A`: that is a known gap, of two deaths.)
    pub(crate) legacy: bool,
    /// A job that comes back becomes a dead letter.
    pub(crate) poison: bool,
    /// No more puts, from the beginning.
    pub(crate) closed: bool,
    /// How often a job may be given back.
    pub(crate) backs: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Producer {
        messages: u8,
    },
    /// Does so many jobs ([`ALL`]: however many there are), and leaves.
    Consumer {
        jobs: u8,
    },
    Joiner,
    /// Makes the dead letter, if there is one, a job again.
    Reviver,
}

pub(crate) const ALL: u8 = 7;

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// There is no `TAKING`: `LEASED`, then the head.
    LeasedBeforeHead,
    /// There is no `TAKING`: the head, then `LEASED`.
    HeadBeforeLeased,
    /// Done gives the lease's lock back, and says `FREE` then.
    FreeAfterRelease,
    /// A consumer that looks for a job that came back reads the state before the lock.
    StateBeforeLock,
    /// A consumer that takes the lock from a dead owner looks at the leases only after it has moved the head
    /// itself.
    RecoverLate,
    /// No process watches the leases.
    LeasesUnwatched,
    /// The first use of a lease notifies no process.
    FirstUseNotNotified,
    /// A sleeper asks how many leases there are before it is counted, and not again.
    LeasesCountedOnce,
    /// A lease that a dead process has half moved is nothing to wake for.
    HalfMovedUnseen,
    /// A joiner does not recover what a dead process has half moved.
    JoinerRecoversNothing,
    /// A joiner keeps the wake-up of a death.
    JoinerKeepsWake,
    /// A consumer that is woken by a death notifies no joiner that all is done.
    WokenNotifiesNone,
    /// "All is done" is decided without a second look at the log.
    FinishedWithoutSecondLook,
    /// There is no `DEAD_LETTERING`: the dead letter, then `FREE`.
    NoDeadLettering,
    /// A dead letter that becomes a job is not counted.
    RevivedUncounted,
    /// It is counted before its lease says so.
    CountedFirst,
    /// Done wakes with nothing pending.
    NotifiesUnarmed,
    /// Done does not advance the joiners' epoch before it says `FREE`.
    DoneKeepsJoinersEpoch,
    /// Nor the epoch `A`.
    DoneKeepsEpoch,
    /// Giving back does not advance `A` before the lease's lock is free.
    BackKeepsEpoch,
    /// A consumer that takes a lease from a dead owner does not advance `A`.
    RecovererKeepsEpoch,
    /// Done forgets that a consumer waits for a lease, and notifies then.
    StarvedForgotten,
    /// A process that is woken on a closed queue wakes all.
    WokenNotifiesAll,
    /// A consumer that leaves wakes no other for what there is.
    NoChain,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for role in &self.roles {
            match role {
                Role::Producer { messages } => write!(f, "P×{messages} ")?,
                Role::Consumer { jobs: ALL } => write!(f, "C ")?,
                Role::Consumer { jobs } => write!(f, "C×{jobs} ")?,
                Role::Joiner => write!(f, "J ")?,
                Role::Reviver => write!(f, "R ")?,
            }
        }
        write!(f, "leases {}", self.leases)?;
        for (what, count) in [("used", self.used), ("filled", self.filled), ("given back", self.backs)] {
            if count > 0 {
                write!(f, ", {what} {count}")?;
            }
        }
        let flags = [
            (self.legacy, "a legacy"),
            (self.poison, "poison"),
            (self.letter, "a dead letter"),
            (self.closed, "closed"),
        ];
        flags.iter().filter(|(is, _)| *is).try_for_each(|(_, what)| write!(f, ", {what}"))
    }
}

impl Protocol<PROCESSES, WORDS> for Lease {
    const NAME: &'static str = "jobs";
    type Bug = Bug;
    type Shared = Shared;
    type Process = Process;

    fn processes(&self) -> usize {
        self.roles.len()
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let model = &run.model;
        debug_assert!(usize::from(model.leases) <= LEASES, "more leases than words");
        let mut processes = [Process::default(); PROCESSES];
        for (me, (process, role)) in processes.iter_mut().zip(&model.roles).enumerate() {
            let left = match *role {
                Role::Producer { messages } => messages,
                Role::Consumer { jobs } => jobs,
                Role::Joiner => 0,
                Role::Reviver => 1,
            };
            *process = Process { at: model.begins(me), left, ..Process::default() };
        }
        let own = Shared {
            jobs: [Job { says: Says::Free, number: 0 }; LEASES],
            puts: model.filled,
            head: model.legacy.into(),
            letters: model.letter.into(),
            used: model.used,
            starved: false,
            leaked: [false; 3],
            done: u8::from(model.letter) << DEAD_LETTER,
        };
        let mut state = run.begin(own, processes, model.backs);
        if model.legacy {
            state.words[S] = Low(Low::OD | Low::W);
            (state.own.jobs[0].says, state.processes[0].at) = (Says::Leased, At::Decide);
        }
        state
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        match turn.p.at {
            At::Gone | At::Early | At::Held => {}
            at if at <= At::PDisarm => turn.put(next),
            at if at <= At::NotifyJoinersWake => turn.enter(next),
            at if at <= At::Leased => turn.take(next),
            at if at <= At::Disarm => turn.leave(next),
            at if at <= At::HandOver => turn.sleep(next),
            at if at <= At::EndWake => turn.finished(next),
            _ => turn.done(next),
        }
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p) = (turn.me, turn.p);
        if p.at == At::Held {
            turn.chance(next, None, "has done it", |state| state.processes[me].at = At::DCount);
            turn.chance(next, Turn::MORE, "cannot do it", |state| state.processes[me].at = At::BCount);
        }
        let sleeps = matches!(p.at, At::Asleep | At::Contending) && !turn.hand().woken;
        if sleeps && p.at == At::Asleep {
            turn.chance(next, Turn::LATE, "is late", |state| state.processes[me] = Process::default());
        }
        if sleeps {
            turn.chance(next, Turn::SPURIOUS, "is woken by a signal", |state| state.hands[me].woken = true);
        }
    }

    fn is_mortal(turn: &Turn<'_>) -> bool {
        turn.p.at != At::Early && !(turn.model.legacy && turn.p.at == At::LeaseAdvance)
    }

    fn killed(run: &Run<Self, PROCESSES, WORDS>, state: &mut State, me: usize) {
        let (p, joins) = (state.processes[me], run.model.joins(me));
        let leaked = [p.waits_for_lock(), p.counted && !joins, p.counted && joins];
        for (all, leaked) in state.own.leaked.iter_mut().zip(leaked) {
            *all |= leaked;
        }
    }

    /// When no process will be killed any more, the pending entry says nothing, and private steps need no
    /// step of their own. Also notes the instants at which all is done.
    fn finish(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        let model = &run.model;
        if state.left[0] == 0 {
            (0..model.roles.len()).for_each(|me| model.hurry(state, me));
        }
        let all_done = model.all_done(state);
        for p in state.processes.iter_mut().filter(|p| p.purpose == For::Join) {
            p.instant |= all_done && matches!(p.at, At::FLease | At::FSame | At::FEmpty);
        }
    }

    fn alike(&self, one: usize, other: usize) -> bool {
        self.roles[one] == self.roles[other]
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        if state.processes.iter().any(|p| p.at == At::Early) {
            return Some("JOINED TOO EARLY");
        }
        let stuck = || if quiet { Self::stuck(run, state).map(|(_, why)| why) } else { None };
        run.model.astray(state).or_else(stuck)
    }

    fn stuck(run: &Run<Self, PROCESSES, WORDS>, state: &State) -> Option<(usize, &'static str)> {
        let right = Run { bug: None, ..run.clone() };
        let wrong = |me: usize, p: &Process| match p.at {
            At::Contending => Some("LOST LOCK WAKE"),
            At::Asleep if run.model.joins(me) => {
                run.model.all_done(state).then_some("JOINS THOUGH ALL IS DONE")
            }
            At::Asleep if right.has_job(state) => Some("SLEEPS BESIDE A JOB"),
            At::Asleep if run.model.is_over(state, me) => Some("SLEEPS THROUGH THE END"),
            _ => None,
        };
        state.processes.iter().enumerate().find_map(|(me, p)| Some((me, wrong(me, p)?)))
    }

    fn poll(turn: &Turn<'_>, state: &mut State) {
        let mut p = turn.p;
        if p.at == At::Contending {
            state.forget(turn.me);
            p.forget();
            p.at = At::GTry;
        } else {
            turn.awake(state, &mut p);
        }
        state.processes[turn.me] = p;
    }

    fn show(&self, state: &State) -> String {
        let Shared { jobs, puts, head, letters, used, starved, .. } = state.own;
        let leases: Vec<String> = (0..usize::from(self.leases))
            .map(|at| format!("{} {:?}{}", state.words[S + at].show(), jobs[at].says, jobs[at].number))
            .collect();
        let process = |me: usize| {
            let (p, hand) = (&state.processes[me], &state.hands[me]);
            let lease = if p.lease == 0 { String::new() } else { format!("@{}", p.lease - 1) };
            format!("{:?}{lease}{}{}", p.at, hand.show(), if hand.woken { "!" } else { "" })
        };
        let all: Vec<String> = (0..self.roles.len()).map(process).collect();
        format!(
            "P={:<4} C={:<4} [{}] log {head}..{puts} letters {letters} used {used}{} {}",
            state.words[P].show(),
            state.words[C].show(),
            leases.join(", "),
            if starved { " starved" } else { "" },
            all.join("  ")
        )
    }
}

/// The lease that a process takes or has is noted as its number plus 1; so is its lock as a pending entry.
fn number(lease: usize) -> u8 {
    tid(lease)
}
