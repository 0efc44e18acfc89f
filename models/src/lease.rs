//! Jobs that are leased: slots whose locks are only watched, the consumers' lock, those who wait for a job and those who wait for the last one, and death at every step.
//!
//! On the ring's protocol (see [`mod@crate::ring`]) stands what is new: beside `L` of both sides and `A` of the producers' side, everybody who sleeps watches `L` of each slot; who joins
//! sleeps on a word of his own (`Seq`) instead of `A`. Nobody waits for room, and the first, brief sleep is left out. The producers' lock is entered in one step when it is free.
//! A message is its number; the header at a head is not 0 while more were put. What is counted as out may stay out for ever (`Held` is left by chance only).
//!
//! # The steps
//!
//! | [`At`] | the queue's line |
//! |---|---|
//! | `PStart` … `PDisarm` | put: enter, commit, release, wake one on A, clear |
//! | `GStart` … `Contending` | a consumer enters its side |
//! | `Recover`, `TellA` … `TellSeqWake` | with a lock that a dead one left: what became of the slot; everybody looks again |
//! | `Look`, `LockOfBack`, `UseNew` | `lease_one`: a slot whose job came back, or the oldest message and a free slot, or the first use of one |
//! | `SlotPending` … `Out` | its lock, watched (A moves, if a dead one had it); `TAKING`; the head; `OUT` |
//! | `Bury`, `Letter` | what came back too often becomes a dead letter: `BURYING`, the commit, and then what `done` does |
//! | `Count` | of a dead letter that becomes a job: it is counted, between `REVIVING` and the commit |
//! | `CRelease` … `Disarm` | leaves, with the chain |
//! | `Decide`, `Arm` … `Flight` | sleeps: what is watched is noted, then all is looked at, then the kernel compares and queues one word after the other |
//! | `JStart` | join: is a slot half moved, it takes the consumers' lock, for nobody else may ever come |
//! | `FHead` … `FEmpty` | `is_finished`, word by word |
//! | `DCount` … `DDisarm` | done: the joiners' count and A move; `FREE`; the slot's lock; telling |
//! | `BCount` … `BWake` | gives back: A moves; the slot's lock; one is woken |
//! | `Dying`, `DyingWakes` | the kernel: the list in any order, then what is pending |
//!
//! # The properties
//!
//! - A message that was put is in the log, in a slot, or done: in one of them, and for ever in the last. Who has one holds its slot's lock, and nobody else has it.
//! - `join` returns only if, while it looked for the last time, there was an instant at which all was done.
//! - When nobody can move by himself: no consumer sleeps while there is a job and a slot for it, or a slot that a dead one has half moved; nobody joins when all is done; nobody waits for a free lock; of a closed queue, nobody sleeps for what will not come.
//! - Nobody is kept busy for ever (`live`).
//!
//! # Orderings
//!
//! The model is sequentially consistent. What it relies on, beside what is said in [`mod@crate::ring`], are pairs of a store and a load in two threads, each of which must see the other's store:
//!
//! | one | the other |
//! |---|---|
//! | takes a slot (`compare_exchange`, SeqCst), then looks whether somebody sleeps, to move a count | counts itself, then notes the slot's word |
//! | releases a slot (`fetch_sub`, SeqCst), then looks whether somebody joins, sleeps, starves, whether it is closed | counts itself, says that it starves, closes; then reads the slot's word, and its state after it |
//! | counts a slot's first use, then looks whether somebody sleeps | counts itself, then asks how many slots there are |
//! | releases a slot, then reads those of others | the same: of two that are the last, one sees both free |
//!
//! All of these are SeqCst. A state is a Release store before the release of its slot, or before the head moves, so whoever sees those sees it.

mod deaths;
mod done;
mod get;
mod looks;
mod put;
mod sleep;
mod state;
mod turn;

use crate::checker::{Kind, Model, Step};
use crate::robust::Low;
use state::{
    A, At, C, COUNTS, FC, FP, FREVIVED, FSEQ, For, KB, LETTER, MOST, P, Process, S, SEQ, SLOTS, Says, Slot, State, WORDS, tid,
};
use std::fmt;
use turn::Turn;

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) roles: Vec<Role>,
    pub(crate) slots: u8,
    /// Slots that were used before.
    pub(crate) used: u8,
    /// Messages that are in the log at first.
    pub(crate) filled: u8,
    /// Whether there is a dead letter.
    pub(crate) letter: bool,
    /// The first consumer has found nothing, and then somebody has died with the first message. (Who takes it is not killed before he has moved A: that is a hole, of two deaths.)
    pub(crate) legacy: bool,
    /// What comes back becomes a dead letter.
    pub(crate) poison: bool,
    /// No more puts, from the beginning.
    pub(crate) closed: bool,
    /// How often a job may be given back.
    pub(crate) backs: u8,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    /// Who sleeps and should not wakes up after a second.
    pub(crate) belt: bool,
    pub(crate) bug: Option<Bug>,
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
    /// There is no `TAKING`: `OUT`, then the head.
    OutBeforeHead,
    /// There is no `TAKING`: the head, then `OUT`.
    HeadBeforeOut,
    /// Done gives the slot's lock back, and says `FREE` then.
    FreeAfterRelease,
    /// Who looks for a job that came back reads the state before the lock.
    StateBeforeLock,
    /// Who takes over from a dead consumer looks at the slots when it has moved the head itself.
    RecoverLate,
    /// Nobody watches the slots.
    WatchesNoSlots,
    /// Nobody is told of a slot's first use.
    FirstUseTellsNobody,
    /// How many slots there are is asked before the sleeper is counted, and not again.
    SlotsCountedOnce,
    /// A slot that a dead one has half moved is nothing to wake for.
    HalfMovedUnseen,
    /// Who joins does not see to what a dead one has half moved.
    JoinerRecoversNothing,
    /// Who joins keeps the wake of a death.
    JoinerKeepsWake,
    /// A consumer that is woken by a death tells nobody that all is done.
    WokenTellsNobody,
    /// "All is done" is decided without a second look at the log.
    FinishedWithoutSecondLook,
    /// There is no `BURYING`: the letter, then `FREE`.
    NoBurying,
    /// A dead letter that becomes a job is not counted.
    RevivedUncounted,
    /// It is counted before its slot says so.
    CountedFirst,
    /// Done wakes with nothing pending.
    ToldUnarmed,
    /// Done does not move the joiners' count before it says `FREE`.
    CountStays,
    /// Nor A.
    DoneStays,
    /// Giving back does not move A before the slot's lock is free.
    BackStays,
    /// Who takes a slot that a dead one left does not move A.
    HeirStays,
    /// Done forgets that somebody waits for a slot, and tells then.
    StarvedForgotten,
    /// Whoever is woken on a closed queue wakes all.
    WokenTellsAll,
    /// A consumer that leaves wakes no other one for what there is.
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
        write!(f, "slots {}", self.slots)?;
        let mut say = |what: &str, count: u8| if count > 0 { write!(f, ", {what} {count}") } else { Ok(()) };
        say("used", self.used)?;
        say("filled", self.filled)?;
        say("given back", self.backs)?;
        if self.legacy {
            write!(f, ", a legacy")?;
        }
        if self.poison {
            write!(f, ", poison")?;
        }
        if self.letter {
            write!(f, ", a letter")?;
        }
        if self.closed {
            write!(f, ", closed")?;
        }
        if self.belt { write!(f, ", belt") } else { Ok(()) }
    }
}

impl Model for Lease {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::GONE; MOST];
        for (me, (process, role)) in processes.iter_mut().zip(&self.roles).enumerate() {
            let left = match *role {
                Role::Producer { messages } => messages,
                Role::Consumer { jobs } => jobs,
                Role::Joiner => 0,
                Role::Reviver => 1,
            };
            *process = Process::new(self.start(me), left);
        }
        let (mut low, mut slots) = ([Low(0); WORDS], [Slot { says: Says::Free, number: 0 }; SLOTS]);
        if self.legacy {
            (low[S], slots[0].says, processes[0].at) = (Low(Low::OD | Low::W), Says::Out, At::Decide);
        }
        State {
            low,
            slots,
            puts: self.filled,
            head: self.legacy.into(),
            letters: self.letter.into(),
            used: self.used,
            starved: false,
            leaked: [false; 3],
            done: u8::from(self.letter) << LETTER,
            left: [self.kills, self.timeouts, self.spurious, self.backs],
            processes,
        }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..self.roles.len() {
            let turn = Turn { lease: self, before: state, me, p: state.processes[me] };
            turn.own_step(next);
            turn.mishaps(next);
        }
        if self.belt
            && next.iter().all(|step| step.kind == Kind::Chance)
            && let Some((me, _)) = self.stuck(state)
        {
            Turn { lease: self, before: state, me, p: state.processes[me] }.belt(next);
        }
        for step in next.iter_mut() {
            self.hurry(&mut step.state);
            let all_done = self.all_done(&step.state);
            for p in step.state.processes.iter_mut().filter(|p| p.purpose == For::Join) {
                p.instant |= all_done && matches!(p.at, At::FSlot | At::FSame | At::FEmpty);
            }
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
            return Some("JOINED TOO EARLY");
        }
        self.astray(state).or_else(|| if quiet { self.stuck(state).map(|(_, why)| why) } else { None })
    }

    fn show(&self, state: &State) -> String {
        let slots: Vec<String> = (0..usize::from(self.slots))
            .map(|slot| {
                let Slot { says, number } = state.slots[slot];
                format!("{} {says:?}{number}", state.low[S + slot].show())
            })
            .collect();
        let process = |p: &Process| {
            let armed = if p.pending == 0 { String::new() } else { format!("*{}", p.pending - 1) };
            let slot = if p.slot == 0 { String::new() } else { format!("@{}", p.slot - 1) };
            format!("{:?}{slot}{armed}{}", p.at, if p.rung { "!" } else { "" })
        };
        let all: Vec<String> = state.processes[..self.roles.len()].iter().map(process).collect();
        format!(
            "P={:<4} C={:<4} [{}] log {}..{} letters {} used {}{} {}",
            state.low[P].show(),
            state.low[C].show(),
            slots.join(", "),
            state.head,
            state.puts,
            state.letters,
            state.used,
            if state.starved { " starved" } else { "" },
            all.join("  ")
        )
    }
}
