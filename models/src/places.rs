//! Places that are reserved: records that are filled without a lock, those who wait for them, for room, and for a lock to reserve with, one who says that he puts (a seat), and death at every step.
//!
//! On the ring's protocol (see [`mod@crate::ring`]) stands what is new: beside `L` of both sides and `A` of the side it waits for, who sleeps watches `L` of each lock of a place, and, with a role, of the producers' seat; who
//! waits for a free lock sleeps on a word of his own. The first, brief sleep is left out; both sides' locks are entered in one step when they are free; all records have one size, and the log is never used again.
//! A place may be filled for ever (`Fill` is left by chance only).
//!
//! # The steps
//!
//! | `At` | the queue's line |
//! |---|---|
//! | `PStart`, `PTry` | a producer enters its side |
//! | `PRecover` … `PTellWake` | with a lock that a dead one left: `tail`; all are woken, for a lock may be used for the first time |
//! | `PBegin` … `TUseWake` | `begin`: a free lock, taken watched; its turn word; A moves, or one is woken if a dead one had it; its first use |
//! | `PAppend`, `UTouch` … `USeqWake` | is there room? If not, the lock is given back |
//! | `PHeader`, `PTail` | the record |
//! | `KAlarm` … `KTellWake` | close |
//! | `PRelease` … `PDisarm` | leaves: who has come in vain looks before it wakes |
//! | `Fill`, `XCommit` … `XDisarm` | commit, or give up: the header, or the turn word; both counts; the lock; telling |
//! | `HTouch` … `HDisarm` | lets go of the seat |
//! | `GStart` … `GHole` | a getter takes: the header, the lock, the turn, the header again |
//! | `CRelease` … `CDisarm` | leaves, with the chain |
//! | `Decide` … `Flight` | sleeps: what is watched is noted, then all is looked at, then the kernel compares and queues one word after the other |
//! | `Retell` … `RSeqWake` | what a dead one may have left untold |
//! | `LHead` … `LSame` | `at_front`, word by word |
//! | `Dying`, `DyingWakes` | the kernel: the list in any order, then what is pending |
//!
//! # The properties
//!
//! - Before the head each record was a message and was got once, or is a hole for ever: nobody fills it, nobody can.
//! - When nobody can move by himself: nobody sleeps for a message while there is one, or a hole to be got over, at the head; nor for one that will not come, the queue being closed, or, with a role, the seat free, and nothing
//!   there or being filled; nobody sleeps for room, or for a lock, that is there.
//! - Nobody is kept busy for ever, and nobody wakes each other in turn for ever (`live`).

mod fill;
mod get;
mod put;
mod sleep;
mod state;
mod turn;

use crate::checker::{Model, Step};
use crate::robust::Low;
use state::{At, Front, L, LOCKS, MOST, Nap, Process, RECORDS, Record, S, Says, State, WORDS, tid};
use std::fmt;
use turn::Turn;

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) roles: Vec<Role>,
    pub(crate) locks: u8,
    /// Locks that were used before.
    pub(crate) used: u8,
    /// Records that have room.
    pub(crate) room: u8,
    /// The first process has a seat.
    pub(crate) seat: bool,
    /// The first process, or the second beside a seat, is filling a place.
    pub(crate) begun: bool,
    /// There is a place of a dead one; and the second process, if it reserves, has found no free lock before.
    pub(crate) legacy: bool,
    /// The seat is free: who had it is gone.
    pub(crate) gone: bool,
    /// No more places, from the beginning.
    pub(crate) closed: bool,
    /// How many places may be given up.
    pub(crate) backs: u8,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    pub(crate) bug: Option<Bug>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reserves so many places, one after the other.
    Reserver {
        places: u8,
    },
    Putter {
        messages: u8,
    },
    /// Gets so many messages ([`ALL`]: however many there are), and leaves.
    Getter {
        messages: u8,
        role: bool,
    },
    Closer,
}

pub(crate) const ALL: u8 = 7;

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A mark is a lock alone.
    NoTurn,
    /// The header is not read again after the lock.
    HeaderReadOnce,
    /// Who takes a lock moves no count.
    HeirStays,
    /// Giving a lock back does not move what is compared last.
    BackStays,
    /// The lock is given back before the commit.
    GivenFirst,
    /// A commit wakes with nothing pending.
    ToldUnarmed,
    /// Nobody is told of a lock's first use.
    FirstUseTellsNobody,
    /// How many locks there are is asked before the sleeper is counted, and not again.
    LocksCountedOnce,
    /// Nobody watches the locks.
    LocksUnwatched,
    /// Who waits for a lock keeps the wake of a death.
    WaiterKeepsWake,
    /// Who is woken tells nobody.
    WokenTellsNobody,
    /// Who is woken when it is ending tells all, also what is being filled.
    RetellsAlways,
    /// Who has no role, and is woken when all producers are gone and nothing is there, tells nobody.
    RolelessForgets,
    /// A commit wakes one, although it is ending.
    EndWakesOne,
    /// Who has come in vain wakes one of the others all the same.
    VainWakes,
    /// Who is woken wakes one of the others all the same.
    PassesOnAlways,
    /// A getter that leaves wakes no other for what there is.
    NoChain,
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for role in &self.roles {
            match role {
                Role::Reserver { places } => write!(f, "R×{places} ")?,
                Role::Putter { messages } => write!(f, "P×{messages} ")?,
                Role::Getter { messages, role } => {
                    write!(f, "G{}", if *role { "'" } else { "" })?;
                    if *messages == ALL { write!(f, " ")? } else { write!(f, "×{messages} ")? }
                }
                Role::Closer => write!(f, "K ")?,
            }
        }
        write!(f, "locks {}", self.locks)?;
        let mut say = |what: &str, count: u8| if count > 0 { write!(f, ", {what} {count}") } else { Ok(()) };
        say("used", self.used)?;
        say("room", if usize::from(self.room) < RECORDS { self.room } else { 0 })?;
        say("given up", self.backs)?;
        let flags = [
            (self.seat, ", a seat"),
            (self.begun, ", begun"),
            (self.legacy, ", a legacy"),
            (self.gone, ", all gone"),
            (self.closed, ", closed"),
        ];
        flags.iter().filter(|(is, _)| *is).try_for_each(|(_, what)| write!(f, "{what}"))
    }
}

impl Places {
    fn is_getter(&self, me: usize) -> bool {
        matches!(self.roles[me], Role::Getter { .. })
    }

    /// Whether who had the seat is gone.
    fn is_gone(&self, state: &State) -> bool {
        (self.seat || self.gone) && !state.is_held(S)
    }

    /// As the words say, which a dead one may not have brought up to date.
    fn has_room(&self, state: &State) -> bool {
        state.tail.saturating_sub(state.head) < self.room
    }

    /// What is at the head.
    fn front(state: &State) -> Front {
        let Record { says, lock, turn } = state.record(state.head);
        match says {
            Says::Empty => Front::Empty,
            Says::Reserved if state.is_held(L + usize::from(lock)) && state.turns[usize::from(lock)] == turn => Front::Filling,
            _ => Front::Something,
        }
    }

    /// Somebody who ought not to sleep, when nobody moves.
    fn stuck(&self, state: &State) -> Option<&'static str> {
        let front = Self::front(state);
        let wrong = |(me, p): (usize, &Process)| match p.nap {
            _ if p.at != At::Asleep => None,
            Nap::Room if state.closed || self.has_room(state) => Some("SLEEPS BESIDE ROOM"),
            Nap::Lock if state.closed || state.has_free() => Some("SLEEPS BESIDE A LOCK"),
            Nap::Data if front == Front::Something => Some("SLEEPS BESIDE A RECORD"),
            Nap::Data if front == Front::Empty => {
                let role = matches!(self.roles[me], Role::Getter { role: true, .. });
                (state.closed || (role && self.is_gone(state))).then_some("SLEEPS THROUGH THE END")
            }
            _ => None,
        };
        state.processes.iter().enumerate().find_map(wrong)
    }

    /// A record that became what it should not.
    fn astray(state: &State) -> Option<&'static str> {
        for at in 0..state.head {
            let (got, record) = (state.got & 1 << at != 0, state.record(at));
            if got != (record.says == Says::Message) {
                return Some(if got { "A HOLE, TAKEN AS A MESSAGE" } else { "SKIPPED" });
            }
            let fills = |p: &Process| p.lock != 0 && p.record == at && matches!(p.at, At::Fill | At::XCommit) && !p.gives_up;
            if !got && state.processes.iter().any(|p| fills(p) && record.turn == state.turns[usize::from(record.lock)]) {
                return Some("SKIPPED, AND STILL BEING FILLED");
            }
        }
        None
    }
}

impl Model for Places {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::GONE; MOST];
        for (process, role) in processes.iter_mut().zip(&self.roles) {
            *process = match *role {
                Role::Reserver { places: left } | Role::Putter { messages: left } => Process::new(At::PStart, left),
                Role::Getter { messages, .. } => Process::new(At::GStart, messages),
                Role::Closer => Process::new(At::PStart, 1),
            };
        }
        let mut state = State {
            low: [Low(0); WORDS],
            turns: [0; LOCKS],
            records: [Record { says: Says::Empty, lock: 0, turn: 0 }; RECORDS],
            head: 0,
            tail: 0,
            got: 0,
            used: self.used,
            closed: self.closed,
            told: 0,
            leaked: [false; 3],
            left: [self.kills, self.timeouts, self.spurious, self.backs],
            processes,
        };
        if self.seat {
            state.low[S] = Low(tid(0) | Low::W);
        } else if self.gone {
            state.low[S] = Low(Low::W);
        }
        for lock in state.used() {
            state.low[lock] = Low(Low::W);
        }
        if self.begun || self.legacy {
            (state.turns[0], state.tail) = (1, 1);
            state.records[0] = Record { says: Says::Reserved, lock: 0, turn: 1 };
            state.low[L] = Low(Low::OD | Low::W);
        }
        if self.legacy && matches!(self.roles[..], [_, Role::Reserver { .. }, ..]) {
            let waits = &mut state.processes[1];
            (waits.at, waits.nap, waits.watch) = (At::Arm, Nap::Lock, self.used);
        }
        if self.begun {
            let me = usize::from(self.seat && self.roles.len() > 1 && matches!(self.roles[1], Role::Reserver { .. }));
            state.low[L] = Low(tid(me) | Low::W);
            (state.processes[me].at, state.processes[me].lock) = (At::Fill, 1);
        }
        state
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..self.roles.len() {
            let turn = Turn { places: self, before: state, me, p: state.processes[me] };
            turn.own_step(next);
            turn.mishaps(next);
        }
        for step in next.iter_mut() {
            self.hurry(&mut step.state);
        }
    }

    /// Sorts the processes of one role, and renames them in the words.
    fn canonical(&self, state: &mut State) {
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        let key = |me: usize| {
            let (one, two) = state.processes[me].bytes();
            (one, two.map(|low| low & !Low::TID), state.low.map(|low| low.owner() == tid(me)))
        };
        let n = self.roles.len();
        let mut from = 0;
        while from < n {
            let to = (from..n).find(|&i| self.roles[i] != self.roles[from]).unwrap_or(n);
            order[from..to].sort_by_key(|&me| key(me));
            from = to;
        }
        let mut names = [0_u8; 8];
        for (new, &old) in order.iter().enumerate() {
            // Those who have gone are only noted; they become one.
            names[usize::from(tid(old))] = if state.processes[old].at == At::Gone { Low::TID } else { tid(new) };
        }
        names[usize::from(Low::TID)] = Low::TID;
        let rename = |low: Low| Low((low.0 & !Low::TID) | names[usize::from(low.owner())]);
        let old = *state;
        state.low = old.low.map(rename);
        for (process, from) in state.processes.iter_mut().zip(order) {
            *process = old.processes[from];
            process.seen = process.seen.map(rename);
        }
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        Self::astray(state).or_else(|| if quiet { self.stuck(state) } else { None })
    }

    fn show(&self, state: &State) -> String {
        let locks = (0..usize::from(self.locks)).map(|lock| format!("{} turn {}", state.low[L + lock].show(), state.turns[lock]));
        let record = |record: &Record| match record.says {
            Says::Empty => "-".to_owned(),
            Says::Message => "m".to_owned(),
            Says::Reserved => format!("r{}.{}", record.lock, record.turn),
        };
        let process = |p: &Process| {
            let armed = if p.pending == 0 { String::new() } else { format!("*{}", p.pending - 1) };
            format!("{:?}{armed}{}", p.at, if p.rung { "!" } else { "" })
        };
        format!(
            "P={:<4} C={:<4} S={:<4} [{}] {}..{} {}{} {}",
            state.low[0].show(),
            state.low[1].show(),
            state.low[S].show(),
            locks.collect::<Vec<_>>().join(", "),
            state.head,
            state.tail,
            state.records.iter().map(record).collect::<String>(),
            if state.closed { " closed" } else { "" },
            state.processes[..self.roles.len()].iter().map(process).collect::<Vec<_>>().join("  ")
        )
    }
}
