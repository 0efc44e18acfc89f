//! Roles: producers who say that they are there by seats that are only watched, consumers who wait for them or for their end, and death at every step.
//!
//! On the ring's protocol (see [`mod@crate::ring`]) stands what is new: beside `L` of both sides and `A` of the producers' side, a consumer that sleeps watches `L` of each seat that was ever
//! taken, and of the next one. A *guest* is a consumer without a role: it watches no seats, and is told of no end. Nobody waits for room (that is the same with the roles exchanged), and the first, brief sleep is left
//! out. The producers' lock is entered in one step when it is free. A thread and the keeper of its process are one here.
//!
//! # The steps
//!
//! | [`At`] | the queue's line |
//! |---|---|
//! | `TStart` … `TTellWake` | `take_seat`: the first that is free; if a dead one had it, that is settled, and A moves; `used`; all are told of a first use |
//! | `Held` | has a role; by chance it puts, or lets go |
//! | `PStart` … `PDisarm` | put: enter, commit, release, wake one on A, clear |
//! | `LTouch` … `LTellWake` | `leave_seat`: A moves; the lock, waking one who watches it; are all gone? then all are told |
//! | `GStart` … `Disarm` | get: enter, look, leave with the chain |
//! | `Decide` … `Again` | `has_ended`: all seats are free; the queue is empty; none of them was taken meanwhile |
//! | `Wait` … `Flight` | sleeps: what is watched is noted, then all is looked at, then the kernel compares and queues one word after the other; who is woken looks whether all are gone, and tells all |
//! | `Dying`, `DyingWakes` | the kernel: the list in any order, then what is pending |
//!
//! # The properties
//!
//! - A get is told "closed" only if, while it looked for the last time, there was an instant at which some had come, nobody was there, and the queue was empty. So what the last one put before it let go is got; and
//!   while one hands over to another that has come already, nobody is told.
//! - When nobody can move by himself: no consumer with a role sleeps when all who have come are gone; nobody sleeps beside a message; nobody waits for a free lock.
//! - Nobody is kept busy for ever (`live`).
//!
//! # Orderings
//!
//! The model is sequentially consistent. What it relies on, beside what is said in [`mod@crate::ring`], are pairs of a store and a load in two threads, each of which must see the other's store:
//!
//! | one | the other |
//! |---|---|
//! | settles a death, or is about to free a seat, then looks whether somebody sleeps, to move a count | counts itself, then notes the seat's word |
//! | counts a seat's first use, then looks whether somebody sleeps | counts itself, then asks how many seats there are |
//! | frees a seat, then reads those of others | the same: of two that are the last, one sees both free |
//!
//! All of these are SeqCst.

mod deaths;
mod gets;
mod seats;
mod sleep;
mod state;
mod turn;

use crate::checker::{Kind, Model, Step};
use crate::robust::Low;
use state::{A, At, C, FC, FP, KB, MOST, P, Process, S, SEATS, State, WORDS, tid};
use std::fmt;
use turn::Turn;

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    pub(crate) who: Vec<Who>,
    pub(crate) seats: u8,
    /// Seats that were used before.
    pub(crate) used: u8,
    /// The first consumer has found somebody in the first of them, who has died then.
    pub(crate) legacy: bool,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    /// Who sleeps and should not wakes up after a second.
    pub(crate) belt: bool,
    pub(crate) bug: Option<Bug>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Comes so often, and puts up to so many messages in all.
    Producer { visits: u8, messages: u8 },
    /// Gets so many messages ([`ALL`]: however many there are), until it is told that all are gone, and leaves.
    Consumer { gets: u8 },
    /// The same without a role.
    Guest { gets: u8 },
}

pub(crate) const ALL: u8 = 7;

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// `used` is raised, and that told, before the seat's lock is held.
    RaisesFirst,
    /// How many seats there are is asked before the sleeper is counted, and not again.
    NoSecondLook,
    /// Nobody watches the seats.
    WatchesNoSeats,
    /// The seat that will be used next is not watched.
    NextUnwatched,
    /// Who lets go does not move A before the seat's lock is free.
    LeaverTouchesNothing,
    /// Who takes a seat that a dead one left does not settle that death first.
    HeirStays,
    /// He does, and does not move A then.
    SettledUnheard,
    /// To free a seat wakes nobody.
    FreedUnheard,
    /// It does, with nothing pending.
    DisarmedBeforeWake,
    /// Who lets go does not look whether all are gone.
    LeaverTellsNobody,
    /// Nor does one who is woken.
    WokenTellsNobody,
    /// Who is woken does not tell that a seat was used for the first time.
    FirstUseNotRetold,
    /// "Empty" is read before "gone".
    EmptyFirst,
    /// Nobody looks a second time whether all are gone.
    OneLook,
}

impl Roles {
    pub(super) fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(super) fn is_guest(&self, me: usize) -> bool {
        matches!(self.who[me], Who::Guest { .. })
    }

    /// Somebody who ought not to sleep, when nobody moves.
    fn stuck(&self, state: &State) -> Option<(usize, &'static str)> {
        let wrong = |me: usize, p: &Process| match p.at {
            At::Contending => Some("LOST LOCK WAKE"),
            At::Asleep if state.has_data() => Some("SLEEPS BESIDE A MESSAGE"),
            At::Asleep if state.nobody_is_there() && !self.is_guest(me) => Some("WAITS FOR THOSE WHO ARE GONE"),
            _ => None,
        };
        state.processes[..self.who.len()].iter().enumerate().find_map(|(me, p)| Some((me, wrong(me, p)?)))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for who in &self.who {
            match who {
                Who::Producer { visits, messages } => write!(f, "P{visits}×{messages} ")?,
                Who::Consumer { gets: ALL } => write!(f, "C ")?,
                Who::Consumer { gets } => write!(f, "C×{gets} ")?,
                Who::Guest { gets: ALL } => write!(f, "G ")?,
                Who::Guest { gets } => write!(f, "G×{gets} ")?,
            }
        }
        write!(f, "seats {}", self.seats)?;
        if self.used > 0 {
            write!(f, ", used {}", self.used)?;
        }
        if self.legacy {
            write!(f, ", a legacy")?;
        }
        if self.belt { write!(f, ", belt") } else { Ok(()) }
    }
}

impl Model for Roles {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::GONE; MOST];
        for (process, who) in processes.iter_mut().zip(&self.who) {
            *process = match *who {
                Who::Producer { visits, messages } => Process::new(At::TStart, messages, visits),
                Who::Consumer { gets } | Who::Guest { gets } => Process::new(At::GStart, gets, 0),
            };
        }
        let mut low = [Low(0); WORDS];
        if self.legacy {
            (low[S], processes[0].at) = (Low(Low::OD | Low::W), At::Wait);
        }
        let left = [self.kills, self.timeouts, self.spurious];
        State { low, used: self.used, came: self.used > 0, puts: 0, head: 0, leaked: [false; 2], left, processes }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        debug_assert!(usize::from(self.seats) <= SEATS, "more seats than words");
        for me in 0..self.who.len() {
            let turn = Turn { roles: self, before: state, me, p: state.processes[me] };
            turn.own_step(next);
            turn.mishaps(next);
        }
        if self.belt
            && next.iter().all(|step| step.kind == Kind::Chance)
            && let Some((me, _)) = self.stuck(state)
        {
            Turn { roles: self, before: state, me, p: state.processes[me] }.belt(next);
        }
        for step in next.iter_mut() {
            self.hurry(&mut step.state);
            let over = step.state.came && step.state.nobody_is_there() && !step.state.has_data();
            for p in step.state.processes.iter_mut().filter(|p| p.decides()) {
                p.instant |= over;
            }
        }
    }

    /// Sorts those who do the same, and renames them in the words.
    fn canonical(&self, state: &mut State) {
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        let key = |me: usize| {
            let mut bytes = state.processes[me].bytes();
            bytes[6..].iter_mut().for_each(|low| *low &= !Low::TID);
            (bytes, state.low.map(|low| low.owner() == tid(me)))
        };
        let n = self.who.len();
        let mut from = 0;
        while from < n {
            let to = (from..n).find(|&i| self.who[i] != self.who[from]).unwrap_or(n);
            order[from..to].sort_unstable_by_key(|&me| key(me));
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
        if state.processes.iter().any(|p| p.at == At::Early) {
            return Some("TOLD TOO EARLY");
        }
        if quiet { self.stuck(state).map(|(_, why)| why) } else { None }
    }

    fn show(&self, state: &State) -> String {
        let seats: Vec<String> = state.low[S..].iter().map(|low| low.show()).collect();
        let process = |p: &Process| {
            let armed = if p.pending == 0 { String::new() } else { format!("*{}", p.pending - 1) };
            let seat = if p.seat == 0 { String::new() } else { format!("@{}", p.seat - 1) };
            format!("{:?}{seat}{armed}{}", p.at, if p.rung { "!" } else { "" })
        };
        let all: Vec<String> = state.processes[..self.who.len()].iter().map(process).collect();
        format!(
            "P={:<4} C={:<4} [{}] used {} log {}..{} {}",
            state.low[P].show(),
            state.low[C].show(),
            seats.join(", "),
            state.used,
            state.head,
            state.puts,
            all.join("  ")
        )
    }
}
