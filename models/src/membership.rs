//! Membership: producers register as members, consumers wait for messages or for the end of all producers,
//! with death at every step.
//!
//! This stands on the ring's protocol (see [`mod@crate::ring`]). What is new: the lock of each membership is
//! only watched. A consumer that sleeps watches `L` of each membership that was ever taken, and of the next
//! one, beside `L` of both sides and `A` of the producers' side. A *guest* is a consumer without membership:
//! it watches no memberships, and is notified of no end.
//!
//! What is left out: no process waits for room (that is the same with the roles exchanged), and there is no
//! brief first sleep. The producers' lock is entered in one step when it is free. A thread and the owner
//! thread of its process are one here.
//!
//! # The steps
//!
//! | [`At`] | the queue's line |
//! |---|---|
//! | `TStart` … `TNotifyWake` | registers: the first free membership ¹ |
//! | `Held` | is a member; by chance it puts, or leaves |
//! | `PStart` … `PDisarm` | put: enter, commit, release, wake one on `A`, clear |
//! | `LEpoch` … `LNotifyWake` | leaves ² |
//! | `GStart` … `Disarm` | get: enter, look, leave with the chain |
//! | `Decide` … `Again` | `has_ended` ³ |
//! | `Wait` … `HandOver` | sleeps ⁴ |
//!
//! 1. If a dead process had it, the death is cleared first (`OD`), and `A` advances. Then `used`; a first use
//!    notifies all.
//! 2. `A` advances; the lock, waking one process that watches it; if all have disconnected, all are notified.
//! 3. All memberships are free; the queue is empty; none of them was taken meanwhile.
//! 4. It notes the words that it will watch, then looks at everything. Then the kernel compares and queues
//!    one word after the other. A process that is woken looks whether all have disconnected, and notifies
//!    all.
//!
//! # The properties
//!
//! - A get returns "closed" only if, at some instant of its last look, members had come, none was there, and
//!   the queue was empty. So what the last member put before it left is received. While a member hands over
//!   to another that has come already, no get returns "closed".
//! - When no process can move by itself: no member consumer sleeps when all producers have disconnected. No
//!   process sleeps beside a message, and none waits for a free lock.
//! - No process is kept busy for ever (`live`).
//!
//! # Orderings
//!
//! The model is sequentially consistent. Beside what [`mod@crate::ring`] lists, it relies on these pairs of a
//! store and a load in two threads. Each thread must see the other's store:
//!
//! 1. A producer clears a death, or is about to free a membership; then it asks for sleepers, to advance an
//!    epoch. A sleeper counts itself, then notes the membership's word.
//! 2. A producer counts a membership's first use, then asks for sleepers. A sleeper counts itself, then asks
//!    how many memberships there are.
//! 3. A producer frees a membership, then reads those of others. So does another: of two that are the last,
//!    one sees both free.
//!
//! All of these are `SeqCst`.

mod consumer;
mod producer;
mod sleep;
mod state;

use crate::checker::Step;
use crate::kernel::{self, Low, Of, Protocol, Run};
use state::{At, C, MEMBERSHIPS, P, Process, S, Shared};
pub(crate) use state::{PROCESSES, WORDS};
use std::fmt;

type State = Of<Membership, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Membership, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// One run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Membership {
    pub(crate) roles: Vec<Role>,
    pub(crate) memberships: u8,
    /// Memberships that were used before.
    pub(crate) used: u8,
    /// The first consumer has found a member in the first membership, which has died then.
    pub(crate) legacy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Comes so often, and puts up to so many messages in all.
    Producer { visits: u8, messages: u8 },
    /// Gets so many messages ([`ALL`]: however many there are), until a get returns "closed", and leaves.
    Consumer { gets: u8 },
    /// The same without membership.
    Guest { gets: u8 },
}

pub(crate) const ALL: u8 = 7;

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// `used` is raised, and that notified, before the membership's lock is held.
    RaisesFirst,
    /// A sleeper asks how many memberships there are before it is counted, and not again.
    NoSecondLook,
    /// No process watches the memberships.
    MembershipsUnwatched,
    /// The membership that will be used next is not watched.
    NextUnwatched,
    /// A member that leaves does not advance `A` before the membership's lock is free.
    LeaverKeepsEpoch,
    /// A producer that takes a membership from a dead owner does not clear that death first.
    DeathNotCleared,
    /// It does, and does not advance `A` then.
    ClearedKeepsEpoch,
    /// To free a membership wakes no process.
    FreedWakesNone,
    /// It does, with nothing pending.
    DisarmedBeforeWake,
    /// A member that leaves does not look whether all have disconnected.
    LeaverNotifiesNone,
    /// Nor does a process that is woken.
    WokenNotifiesNone,
    /// A process that is woken does not notify that a membership was used for the first time.
    FirstUseNotNotifiedAgain,
    /// "Empty" is read before "disconnected".
    EmptyFirst,
    /// A consumer does not look a second time whether all have disconnected.
    OneLook,
}

impl Membership {
    fn is_guest(&self, me: usize) -> bool {
        matches!(self.roles[me], Role::Guest { .. })
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for role in &self.roles {
            match role {
                Role::Producer { visits, messages } => write!(f, "P{visits}×{messages} ")?,
                Role::Consumer { gets: ALL } => write!(f, "C ")?,
                Role::Consumer { gets } => write!(f, "C×{gets} ")?,
                Role::Guest { gets: ALL } => write!(f, "G ")?,
                Role::Guest { gets } => write!(f, "G×{gets} ")?,
            }
        }
        write!(f, "memberships {}", self.memberships)?;
        if self.used > 0 {
            write!(f, ", used {}", self.used)?;
        }
        if self.legacy { write!(f, ", a legacy") } else { Ok(()) }
    }
}

impl Protocol<PROCESSES, WORDS> for Membership {
    const NAME: &'static str = "members";
    type Bug = Bug;
    type Shared = Shared;
    type Process = Process;

    fn processes(&self) -> usize {
        self.roles.len()
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let model = &run.model;
        debug_assert!(usize::from(model.memberships) <= MEMBERSHIPS, "more memberships than words");
        let mut processes = [Process::default(); PROCESSES];
        for (process, role) in processes.iter_mut().zip(&model.roles) {
            let (at, left, visits) = match *role {
                Role::Producer { visits, messages } => (At::TStart, messages, visits),
                Role::Consumer { gets } | Role::Guest { gets } => (At::GStart, gets, 0),
            };
            *process = Process { at, left, visits, ..Process::default() };
        }
        let own = Shared { used: model.used, came: model.used > 0, puts: 0, head: 0, leaked: [false; 2] };
        let mut state = run.begin(own, processes, 0);
        if model.legacy {
            (state.words[S], state.processes[0].at) = (Low(Low::OD | Low::W), At::Wait);
        }
        state
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        match turn.p.at {
            At::Gone | At::Early | At::Held => {}
            at if at <= At::TNotifyWake => turn.register_member(next),
            at if at <= At::PDisarm => turn.put(next),
            at if at <= At::LNotifyWake => turn.leave(next),
            at if at <= At::Disarm => turn.get(next),
            at if at <= At::Again => turn.decide(next),
            _ => turn.sleep(next),
        }
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p) = (turn.me, turn.p);
        if p.at == At::Held {
            turn.chance(next, None, "leaves", |state| state.processes[me].at = At::LEpoch);
        }
        if p.at == At::Held && p.left > 0 {
            turn.chance(next, None, "puts", |state| state.processes[me].at = At::PStart);
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
        turn.p.at != At::Early
    }

    fn killed(_run: &Run<Self, PROCESSES, WORDS>, state: &mut State, me: usize) {
        let p = state.processes[me];
        state.own.leaked[0] |= p.waits_for_lock();
        state.own.leaked[1] |= p.counted;
    }

    /// When no process will be killed any more, the pending entry says nothing, and private steps need no
    /// step of their own. Also notes the instants at which all have disconnected and nothing is there.
    fn finish(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        if state.left[0] == 0 {
            (0..run.model.roles.len()).for_each(|me| Self::hurry(state, me));
        }
        let over = state.own.came && Self::all_disconnected(state) && !state.own.has_data();
        for p in state.processes.iter_mut().filter(|p| p.decides()) {
            p.instant |= over;
        }
    }

    fn alike(&self, one: usize, other: usize) -> bool {
        self.roles[one] == self.roles[other]
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        if state.processes.iter().any(|p| p.at == At::Early) {
            return Some("CLOSED TOO EARLY");
        }
        if quiet { Self::stuck(run, state).map(|(_, why)| why) } else { None }
    }

    fn stuck(run: &Run<Self, PROCESSES, WORDS>, state: &State) -> Option<(usize, &'static str)> {
        let waits = |me| Self::all_disconnected(state) && !run.model.is_guest(me);
        let wrong = |me: usize, p: &Process| match p.at {
            At::Contending => Some("LOST LOCK WAKE"),
            At::Asleep if state.own.has_data() => Some("SLEEPS BESIDE A MESSAGE"),
            At::Asleep if waits(me) => Some("WAITS THOUGH ALL HAVE DISCONNECTED"),
            _ => None,
        };
        let taking_part = &state.processes[..run.model.roles.len()];
        taking_part.iter().enumerate().find_map(|(me, p)| Some((me, wrong(me, p)?)))
    }

    fn poll(turn: &Turn<'_>, state: &mut State) {
        let mut p = turn.p;
        turn.awake(state, &mut p);
        if turn.p.at == At::Contending {
            p.at = At::GTry;
        }
        state.processes[turn.me] = p;
    }

    fn show(&self, state: &State) -> String {
        let memberships: Vec<String> = state.words[S..].iter().map(|low| low.show()).collect();
        let process = |me: usize| {
            let (p, hand) = (&state.processes[me], &state.hands[me]);
            let member = if p.member == 0 { String::new() } else { format!("@{}", p.member - 1) };
            format!("{:?}{member}{}{}", p.at, hand.show(), if hand.woken { "!" } else { "" })
        };
        let all: Vec<String> = (0..self.roles.len()).map(process).collect();
        let Shared { used, head, puts, .. } = state.own;
        format!(
            "P={:<4} C={:<4} [{}] used {used} log {head}..{puts} {}",
            state.words[P].show(),
            state.words[C].show(),
            memberships.join(", "),
            all.join("  ")
        )
    }
}
