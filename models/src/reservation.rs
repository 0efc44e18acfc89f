//! Reservations: records that are filled without a lock, and processes that wait for them, for room, or for a
//! lock to reserve with; one member that puts; and death at every step.
//!
//! This stands on the ring's protocol (see [`mod@crate::ring`]). What is new:
//!
//! - The lock of each reservation is only watched. A process that sleeps watches `L` of each such lock beside
//!   `L` of both sides and `A` of the side that it waits for; a member consumer also watches the producers'
//!   membership.
//! - A process that waits for a free lock sleeps on a futex of its own.
//!
//! What is left out: there is no brief first sleep. Both sides' locks are entered in one step when they are
//! free. All records have one size, and the log does not wrap. A reservation may be filled for ever (`Fill`
//! is left by chance only).
//!
//! # The steps
//!
//! | `At` | the queue's line |
//! |---|---|
//! | `PStart`, `PTry` | a producer enters its side |
//! | `PRecover` … `PNotifyWake` | after a death with the lock: `tail`; wakes all ¹ |
//! | `PBegin` … `TUseWake` | `begin`: a free lock, taken watched ² |
//! | `PAppend`, `UEpoch` … `USeqWake` | is there room? If not, the lock is given back |
//! | `PHeader`, `PTail` | the record |
//! | `KRegister` … `KNotifyWake` | close |
//! | `PRelease` … `PDisarm` | leaves; without progress it looks before it wakes |
//! | `Fill`, `XCommit` … `XDisarm` | commit, or abort ³ |
//! | `HEpoch` … `HDisarm` | leaves the membership |
//! | `GStart` … `GAborted` | a getter takes: the header, the lock, the generation, the header again |
//! | `CRelease` … `CDisarm` | leaves, with the chain |
//! | `Decide` … `HandOver` | sleeps ⁴ |
//! | `NotifyAgain` … `RSeqWake` | what a dead process may have left without a notification |
//! | `LHead` … `LSame` | `at_front`, word by word |
//!
//! 1. A lock may be used for the first time.
//! 2. Its generation; `A` advances, or one process is woken if a dead process had it; its first use.
//! 3. The header, or the generation; both epochs; the lock; the notifications.
//! 4. It notes the words that it will watch, then looks at everything. Then the kernel compares and queues
//!    one word after the other.
//!
//! # The properties
//!
//! - Before the head, each record was a message and was received once, or is aborted for ever: no process
//!   fills it, and none can.
//! - When no process can move by itself, no process sleeps for a message while there is one at the head, or
//!   an aborted record to be skipped. None sleeps for a message that will not come: the queue is closed or,
//!   for a member, all producers have disconnected, and nothing is there or being filled. None sleeps for
//!   room, or for a lock, that is there.
//! - No process is kept busy for ever, and no processes wake each other in turn for ever (`live`).

mod fill;
mod get;
mod put;
mod sleep;
mod state;

use crate::checker::Step;
use crate::kernel::{self, Low, Of, Protocol, Run, tid};
use state::{At, C, Front, L, LOCKS, P, Process, RECORDS, Record, S, Says, Shared, Wants};
pub(crate) use state::{PROCESSES, WORDS};
use std::fmt;

type State = Of<Reservation, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Reservation, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// One run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reservation {
    pub(crate) roles: Vec<Role>,
    pub(crate) locks: u8,
    /// Locks that were used before.
    pub(crate) used: u8,
    /// Records that have room.
    pub(crate) room: u8,
    /// The first process is a member.
    pub(crate) member: bool,
    /// The first process, or the second beside a member, is filling a reservation.
    pub(crate) begun: bool,
    /// There is a reservation of a dead process; and the second process, if it reserves, has found no free
    /// lock before.
    pub(crate) legacy: bool,
    /// The membership is free: the member has disconnected.
    pub(crate) disconnected: bool,
    /// No more reservations, from the beginning.
    pub(crate) closed: bool,
    /// How many reservations may be aborted.
    pub(crate) backs: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes so many reservations, one after the other.
    Reserver {
        count: u8,
    },
    Putter {
        messages: u8,
    },
    /// Gets so many messages ([`ALL`]: however many there are), and leaves.
    Getter {
        messages: u8,
        member: bool,
    },
    Closer,
}

pub(crate) const ALL: u8 = 7;

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A mark is a lock alone.
    NoGeneration,
    /// The header is not read again after the lock.
    HeaderReadOnce,
    /// A process that takes a lock advances no epoch.
    RecovererKeepsEpoch,
    /// Giving a lock back does not advance the epoch that is compared last.
    BackKeepsEpoch,
    /// The lock is given back before the commit.
    GivenFirst,
    /// A commit wakes with nothing pending.
    NotifiesUnarmed,
    /// The first use of a lock notifies no process.
    FirstUseNotNotified,
    /// A sleeper asks how many locks there are before it is counted, and not again.
    LocksCountedOnce,
    /// No process watches the locks.
    LocksUnwatched,
    /// A process that waits for a lock keeps the wake-up of a death.
    WaiterKeepsWake,
    /// A process that is woken notifies none.
    WokenNotifiesNone,
    /// A process that is woken when the end is near notifies all, also of what is being filled.
    NotifiesAgainAlways,
    /// A non-member, woken when all producers have disconnected and nothing is there, notifies none.
    NonMemberForgets,
    /// A commit wakes one, although the end is near.
    EndWakesOne,
    /// A process without progress wakes one of the others all the same.
    NoProgressWakes,
    /// A process that is woken wakes one of the others all the same.
    PassesOnAlways,
    /// A getter that leaves wakes no other for what there is.
    NoChain,
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for role in &self.roles {
            match role {
                Role::Reserver { count } => write!(f, "R×{count} ")?,
                Role::Putter { messages } => write!(f, "P×{messages} ")?,
                Role::Getter { messages, member } => {
                    write!(f, "G{}", if *member { "'" } else { "" })?;
                    if *messages == ALL { write!(f, " ")? } else { write!(f, "×{messages} ")? }
                }
                Role::Closer => write!(f, "K ")?,
            }
        }
        write!(f, "locks {}", self.locks)?;
        let room = if usize::from(self.room) < RECORDS { self.room } else { 0 };
        for (what, count) in [("used", self.used), ("room", room), ("aborted", self.backs)] {
            if count > 0 {
                write!(f, ", {what} {count}")?;
            }
        }
        let flags = [
            (self.member, "a member"),
            (self.begun, "begun"),
            (self.legacy, "a legacy"),
            (self.disconnected, "all disconnected"),
            (self.closed, "closed"),
        ];
        flags.iter().filter(|(is, _)| *is).try_for_each(|(_, what)| write!(f, ", {what}"))
    }
}

impl Reservation {
    fn is_getter(&self, me: usize) -> bool {
        matches!(self.roles[me], Role::Getter { .. })
    }

    fn is_member(&self, me: usize) -> bool {
        matches!(self.roles[me], Role::Getter { member: true, .. })
    }

    /// Whether the member has disconnected.
    fn is_disconnected(&self, state: &State) -> bool {
        (self.member || self.disconnected) && !state.is_held(S)
    }

    /// As the words say, which a dead process may not have brought up to date.
    fn has_room(&self, state: &State) -> bool {
        state.own.tail.saturating_sub(state.own.head) < self.room
    }

    /// What is at the head.
    fn front(state: &State) -> Front {
        let Record { says, lock, generation } = state.own.record(state.own.head);
        let lock = usize::from(lock);
        match says {
            Says::Empty => Front::Empty,
            Says::Reserved if state.is_held(L + lock) && state.own.generations[lock] == generation => {
                Front::Filling
            }
            _ => Front::Something,
        }
    }

    /// A record that became what it should not.
    fn astray(state: &State) -> Option<&'static str> {
        for at in 0..state.own.head {
            let (got, record) = (state.own.got & 1 << at != 0, state.own.record(at));
            if got != (record.says == Says::Message) {
                return Some(if got { "AN ABORTED RECORD, TAKEN AS A MESSAGE" } else { "SKIPPED" });
            }
            let fills = |p: &Process| {
                p.lock != 0 && p.record == at && matches!(p.at, At::Fill | At::XCommit) && !p.aborts
            };
            let valid = record.generation == state.own.generations[usize::from(record.lock)];
            if !got && valid && state.processes.iter().any(fills) {
                return Some("SKIPPED, AND STILL BEING FILLED");
            }
        }
        None
    }
}

impl Protocol<PROCESSES, WORDS> for Reservation {
    const NAME: &'static str = "reserved";
    type Bug = Bug;
    type Shared = Shared;
    type Process = Process;

    fn processes(&self) -> usize {
        self.roles.len()
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let model = &run.model;
        debug_assert!(usize::from(model.locks) <= LOCKS, "more locks than words");
        let mut processes = [Process::default(); PROCESSES];
        for (process, role) in processes.iter_mut().zip(&model.roles) {
            let (at, left) = match *role {
                Role::Reserver { count: left } | Role::Putter { messages: left } => (At::PStart, left),
                Role::Getter { messages, .. } => (At::GStart, messages),
                Role::Closer => (At::PStart, 1),
            };
            *process = Process { at, left, ..Process::default() };
        }
        let own = Shared {
            generations: [0; LOCKS],
            records: [Record::EMPTY; RECORDS],
            head: 0,
            tail: 0,
            got: 0,
            used: model.used,
            closed: model.closed,
            notified: 0,
            leaked: [false; 3],
        };
        let mut state = run.begin(own, processes, model.backs);
        for lock in (L..L + usize::from(model.used)).chain(model.disconnected.then_some(S)) {
            state.words[lock] = Low(Low::W);
        }
        if model.member {
            state.take_watched(0, S);
        }
        if model.begun || model.legacy {
            (state.own.generations[0], state.own.tail) = (1, 1);
            state.own.records[0] = Record { says: Says::Reserved, lock: 0, generation: 1 };
            state.words[L] = Low(Low::OD | Low::W);
        }
        if model.legacy && matches!(model.roles[..], [_, Role::Reserver { .. }, ..]) {
            let waits = &mut state.processes[1];
            (waits.at, waits.wants, waits.watch) = (At::Arm, Wants::Lock, model.used);
        }
        if model.begun {
            let me = usize::from(model.member && matches!(model.roles.get(1), Some(Role::Reserver { .. })));
            state.take_watched(me, L);
            (state.processes[me].at, state.processes[me].lock) = (At::Fill, 1);
        }
        state
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        match turn.p.at {
            At::Gone | At::Fill => {}
            at if at < At::KRegister => turn.put(next),
            at if at < At::Fill => turn.leave_producers(next),
            at if at < At::GStart => turn.commit(next),
            at if at < At::Decide => turn.get(next),
            at if at < At::NotifyAgain => turn.sleep(next),
            at if at < At::LHead => turn.notify_again(next),
            _ => turn.look(next),
        }
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p) = (turn.me, turn.p);
        let first = if turn.is(Bug::GivenFirst) { At::XRelease } else { At::XCommit };
        if p.at == At::Fill {
            turn.chance(next, None, "has filled it", |state| state.processes[me].at = first);
            turn.chance(next, Turn::MORE, "aborts it", |state| {
                (state.processes[me].at, state.processes[me].aborts) = (first, true);
            });
        }
        if p.at == At::Asleep && !turn.hand().woken {
            turn.chance(next, Turn::LATE, "is late", |state| state.processes[me] = Process::default());
            turn.chance(next, Turn::SPURIOUS, "is woken by a signal", |state| state.hands[me].woken = true);
        }
    }

    fn killed(_run: &Run<Self, PROCESSES, WORDS>, state: &mut State, me: usize) {
        let p = state.processes[me];
        state.own.leaked[p.wants as usize] |= p.counted;
    }

    /// When no process will be killed any more, the pending entry says nothing, and private steps need no
    /// step of their own.
    fn finish(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        if state.left[0] == 0 {
            (0..run.model.roles.len()).for_each(|me| Self::hurry(state, me));
        }
    }

    fn alike(&self, one: usize, other: usize) -> bool {
        self.roles[one] == self.roles[other]
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        let stuck = || if quiet { Self::stuck(run, state).map(|(_, why)| why) } else { None };
        Self::astray(state).or_else(stuck)
    }

    fn stuck(run: &Run<Self, PROCESSES, WORDS>, state: &State) -> Option<(usize, &'static str)> {
        let (model, closed, front) = (&run.model, state.own.closed, Self::front(state));
        let over = |me: usize| closed || (model.is_member(me) && model.is_disconnected(state));
        let wrong = |me: usize, p: &Process| match p.wants {
            _ if p.at != At::Asleep => None,
            Wants::Room if closed || model.has_room(state) => Some("SLEEPS BESIDE ROOM"),
            Wants::Lock if closed || Self::has_free(state) => Some("SLEEPS BESIDE A LOCK"),
            Wants::Data if front == Front::Something => Some("SLEEPS BESIDE A RECORD"),
            Wants::Data if front == Front::Empty && over(me) => Some("SLEEPS THROUGH THE END"),
            _ => None,
        };
        state.processes.iter().enumerate().find_map(|(me, p)| Some((me, wrong(me, p)?)))
    }

    fn show(&self, state: &State) -> String {
        let Shared { generations, records, head, tail, closed, .. } = state.own;
        let lock = |lock: usize| format!("{} generation {}", state.words[L + lock].show(), generations[lock]);
        let record = |record: &Record| match record.says {
            Says::Empty => "-".to_owned(),
            Says::Message => "m".to_owned(),
            Says::Reserved => format!("r{}.{}", record.lock, record.generation),
        };
        let process = |me: usize| {
            let hand = &state.hands[me];
            format!("{:?}{}{}", state.processes[me].at, hand.show(), if hand.woken { "!" } else { "" })
        };
        let locks: Vec<String> = (0..usize::from(self.locks)).map(lock).collect();
        let all: Vec<String> = (0..self.roles.len()).map(process).collect();
        format!(
            "P={:<4} C={:<4} S={:<4} [{}] {head}..{tail} {}{} {}",
            state.words[P].show(),
            state.words[C].show(),
            state.words[S].show(),
            locks.join(", "),
            records.iter().map(record).collect::<String>(),
            if closed { " closed" } else { "" },
            all.join("  ")
        )
    }
}

/// The lock that a process takes or has is noted as its number plus 1.
fn number(lock: usize) -> u8 {
    tid(lock)
}
