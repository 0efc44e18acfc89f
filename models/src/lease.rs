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

mod deaths;
mod done;
mod get;
mod sleep;

use crate::checker::{Kind, Model, Step};
use crate::robust::Low;
use std::{
    fmt,
    hash::{Hash, Hasher},
};

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

/// Most processes, most slots, and the words that have an owner.
const MOST: usize = 4;
const SLOTS: usize = 2;
const WORDS: usize = 2 + SLOTS;
/// The producers' lock, the consumers', and the first slot's.
const P: usize = 0;
const C: usize = 1;
const S: usize = 2;
/// Futex words beside them: A of P, the consumers' contenders, the joiners' count.
const A: usize = WORDS;
const KB: usize = WORDS + 1;
const SEQ: usize = WORDS + 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum At {
    PStart,
    PTry,
    PCommit,
    PRelease,
    PBump,
    PWake,
    PClear,
    PDisarm,
    GStart,
    GTry,
    WaitKb,
    WaitLock,
    Contending,
    Recover,
    TellA,
    TellAWake,
    TellSeq,
    TellSeqWake,
    Look,
    LockOfBack,
    UseNew,
    SlotPending,
    SlotTake,
    SlotMoves,
    Bury,
    Letter,
    Count,
    Taking,
    Head,
    Out,
    CRelease,
    WakeKb,
    Chain,
    ChainWake,
    Clear,
    Disarm,
    Held,
    Decide,
    Arm,
    Announce,
    Note,
    Ready,
    ReadyStarved,
    ReadyBack,
    Queue,
    Asleep,
    Woken,
    DutyKb,
    Retell,
    PassOn,
    PassWake,
    Flight,
    JStart,
    FHead,
    FSlot,
    FSame,
    FEmpty,
    SeqBump,
    SeqWake,
    EndBump,
    EndWake,
    DCount,
    DFree,
    DRelease,
    DTell,
    DStarved,
    DBump,
    DWake,
    DDisarm,
    BCount,
    BRelease,
    BBump,
    BWake,
    Dying,
    DyingWakes,
    Early,
    Gone,
}

/// What a look at all slots is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum For {
    Join,
    Ready,
    Done,
    Retell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    purpose: For,
    /// Futex words it is queued on; woken since.
    queued: u8,
    rung: bool,
    /// The pending word plus 1.
    pending: u8,
    /// The words as noted, and which counts have not moved since: of P (A), of C, the joiners', of letters that became jobs.
    seen: [Low; WORDS],
    fresh: [bool; COUNTS],
    /// In a release: W must stay.
    keep: bool,
    /// Counted as a sleeper.
    napping: bool,
    /// The lock was left by a dead one, and that is to be seen to.
    heir: bool,
    /// How many slots it watches; the one that it looks at.
    watch: u8,
    index: u8,
    /// The slot that it takes or has, plus 1.
    slot: u8,
    /// That slot's job came back.
    back: bool,
    /// The head, as noted.
    head: u8,
    /// Messages still to put, jobs still to do.
    left: u8,
    /// For the properties: all was done at some instant of this look.
    instant: bool,
}

const FP: usize = 0;
const FC: usize = 1;
const FSEQ: usize = 2;
const FREVIVED: usize = 3;
const COUNTS: usize = 4;
/// The number of the dead letter.
const LETTER: u8 = 5;

impl Process {
    const fn new(at: At, left: u8) -> Self {
        Self {
            at,
            purpose: For::Join,
            queued: 0,
            rung: false,
            pending: 0,
            seen: [Low(0); WORDS],
            fresh: [false; COUNTS],
            keep: false,
            napping: false,
            heir: false,
            watch: 0,
            index: 0,
            slot: 0,
            back: false,
            head: 0,
            left,
            instant: false,
        }
    }

    const GONE: Self = Self::new(At::Gone, 0);

    fn bytes(&self) -> ([u8; 8], [u8; 8]) {
        let flags =
            [self.rung, self.fresh[FP], self.fresh[FC], self.fresh[FSEQ], self.keep, self.napping, self.heir, self.instant];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let places = self.watch << 6 | self.index << 3 | self.slot << 1 | u8::from(self.back);
        let counts = self.head << 4 | self.left;
        (
            [self.at as u8, self.purpose as u8, self.queued, flags, self.pending, places, counts, self.fresh[FREVIVED].into()],
            [self.seen[0].0, self.seen[1].0, self.seen[2].0, self.seen[3].0, 0, 0, 0, 0],
        )
    }

    /// Forgets what it has seen: it will look again.
    fn forget(&mut self) {
        (self.queued, self.rung, self.keep) = (0, false, false);
        (self.seen, self.fresh) = ([Low(0); WORDS], [false; COUNTS]);
        (self.watch, self.index, self.head) = (0, 0, 0);
    }

    /// Looks whether all is done, for this.
    fn scan(&mut self, purpose: For) {
        (self.at, self.purpose, self.instant) = (At::FHead, purpose, false);
    }

    fn asleep(&self) -> bool {
        matches!(self.at, At::Asleep | At::Contending) && !self.rung
    }
}

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Says {
    Free,
    Out,
    Taking,
    Reviving,
    Burying,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    says: Says,
    /// The message that it is to be filled with, and has in it.
    number: u8,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    low: [Low; WORDS],
    slots: [Slot; SLOTS],
    puts: u8,
    head: u8,
    /// Dead letters.
    letters: u8,
    used: u8,
    starved: bool,
    /// Counts that a dead one has left too high: contenders, sleepers, joiners.
    leaked: [bool; 3],
    /// For the properties: what was done.
    done: u8,
    /// Kills, time-outs, signals, jobs to be given back.
    left: [u8; 4],
    processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let flags = [self.starved, self.leaked[0], self.leaked[1], self.leaked[2]];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let [one, two] = self.slots.map(|slot| slot.number << 3 | slot.says as u8);
        hasher.write(&[self.low[0].0, self.low[1].0, self.low[2].0, self.low[3].0, one, two, self.done, flags]);
        let [kills, timeouts, spurious, backs] = self.left;
        hasher.write(&[self.puts, self.head, self.used, kills, timeouts, spurious, backs, self.letters]);
        for process in &self.processes {
            let (one, two) = process.bytes();
            hasher.write_u64(u64::from_le_bytes(one) ^ u64::from_le_bytes(two) << 56);
            hasher.write_u64(u64::from_le_bytes(two));
        }
    }
}

fn tid(me: usize) -> u8 {
    u8::try_from(me + 1).unwrap_or(Low::TID)
}

impl State {
    /// A+1 of a side, or the joiners' count.
    fn bump(&mut self, count: usize) {
        for process in &mut self.processes {
            process.fresh[count] = false;
        }
    }

    /// `W`, and A+1.
    fn announce(&mut self, side: usize) {
        self.low[side].0 |= Low::W;
        self.bump(side);
    }

    fn is_held(&self, slot: usize) -> bool {
        self.low[S + slot].owner() != 0
    }

    fn used(&self) -> std::ops::Range<usize> {
        0..usize::from(self.used)
    }

    fn has_data(&self) -> bool {
        self.puts > self.head
    }

    fn contenders(&self) -> bool {
        let contends = |p: &Process| matches!(p.at, At::WaitKb | At::WaitLock | At::Contending);
        self.leaked[0] || self.processes.iter().any(contends)
    }

    /// FUTEX_WAKE of one: whomever it may reach, or nobody.
    fn wake_one(&self, word: usize, mut found: impl FnMut(Self, bool)) {
        let mut nobody = true;
        for sleeper in (0..MOST).filter(|i| self.processes[*i].queued & 1 << word != 0) {
            nobody = false;
            let mut state = *self;
            let p = &mut state.processes[sleeper];
            (p.queued, p.rung) = (p.queued & !(1 << word), true);
            found(state, true);
        }
        if nobody {
            found(*self, false);
        }
    }

    fn wake_all(&mut self, word: usize) -> Kind {
        let mut kind = Kind::Own;
        for p in self.processes.iter_mut().filter(|p| p.queued & 1 << word != 0) {
            (p.queued, p.rung, kind) = (p.queued & !(1 << word), true, Kind::Wakes);
        }
        kind
    }
}

impl Lease {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn joins(&self, me: usize) -> bool {
        self.roles.get(me) == Some(&Role::Joiner)
    }

    /// Consumers that sleep, as they are counted.
    fn sleepers(&self, state: &State) -> bool {
        state.leaked[1] || (0..MOST).any(|me| state.processes[me].napping && !self.joins(me))
    }

    fn joiners(&self, state: &State) -> bool {
        state.leaked[2] || (0..MOST).any(|me| state.processes[me].napping && self.joins(me))
    }

    fn has_slot(&self, state: &State) -> bool {
        state.used < self.slots || state.used().any(|slot| !state.is_held(slot) && state.slots[slot].says == Says::Free)
    }

    /// A job that came back, or one that a dead one has half moved.
    fn is_back(&self, state: &State, slot: usize) -> bool {
        let says = state.slots[slot].says;
        !state.is_held(slot) && (says == Says::Out || (says != Says::Free && !self.is(Bug::HalfMovedUnseen)))
    }

    /// Somebody has died on the way into a slot.
    fn is_half_moved(&self, state: &State) -> bool {
        let half = |slot: usize| !matches!(state.slots[slot].says, Says::Free | Says::Out) && !state.is_held(slot);
        !self.is(Bug::JoinerRecoversNothing) && state.used().any(half)
    }

    fn has_job(&self, state: &State) -> bool {
        (state.has_data() && self.has_slot(state)) || state.used().any(|slot| self.is_back(state, slot))
    }

    fn all_done(&self, state: &State) -> bool {
        u32::from(state.puts) + u32::from(self.letter) == state.done.count_ones()
    }

    /// Nothing will ever come but what this one has itself.
    fn is_over(&self, state: &State, me: usize) -> bool {
        let mine = |slot: usize| state.low[S + slot].owner() == tid(me);
        self.closed && !state.has_data() && state.used().all(|slot| mine(slot) || state.slots[slot].says == Says::Free)
    }

    /// A process that has done its part.
    fn start(&self, me: usize) -> At {
        match self.roles[me] {
            Role::Producer { .. } => At::PStart,
            Role::Consumer { .. } => At::GStart,
            Role::Joiner => At::JStart,
            Role::Reviver => At::GStart,
        }
    }

    /// Somebody who ought not to sleep, when nobody moves.
    fn stuck(&self, state: &State) -> Option<&'static str> {
        let right = Self { bug: None, ..self.clone() };
        state.processes.iter().enumerate().find_map(|(me, p)| match p.at {
            At::Contending => Some("LOST LOCK WAKE"),
            At::Asleep if self.joins(me) => self.all_done(state).then_some("JOINS THOUGH ALL IS DONE"),
            At::Asleep if right.has_job(state) => Some("SLEEPS BESIDE A JOB"),
            At::Asleep if right.is_over(state, me) => Some("SLEEPS THROUGH THE END"),
            _ => None,
        })
    }

    /// A message that is nowhere, or twice.
    fn astray(&self, state: &State) -> Option<&'static str> {
        let holder = |slot: usize| {
            let has = |p: &Process| usize::from(p.slot) == slot + 1 && matches!(p.at, At::Held | At::DCount);
            state.processes.iter().filter(|p| has(p)).count()
        };
        for (me, p) in state.processes.iter().enumerate().filter(|(_, p)| p.at == At::Held) {
            let slot = usize::from(p.slot) - 1;
            if state.low[S + slot].owner() != tid(me) || holder(slot) > 1 {
                return Some("OUT TWICE");
            }
            if state.done & 1 << state.slots[slot].number != 0 {
                return Some("DONE, AND OUT AGAIN");
            }
        }
        for message in (0..state.puts).chain(self.letter.then_some(LETTER)) {
            let lies = |slot: &Slot, says| slot.says == says && slot.number == message;
            let out = state.slots.iter().filter(|slot| lies(slot, Says::Out)).count();
            let moving = [Says::Taking, Says::Reviving, Says::Burying];
            let moving = state.slots.iter().any(|slot| moving.iter().any(|says| lies(slot, *says)));
            let waits = usize::from(message >= state.head && message != LETTER);
            let done = usize::from(state.done & 1 << message != 0);
            if waits + out + done > 1 {
                return Some("ONE TOO MANY");
            }
            if waits + out + done == 0 && !moving {
                return Some("LOST");
            }
        }
        None
    }
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
        if self.closed { write!(f, ", closed") } else { Ok(()) }
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
        self.astray(state).or_else(|| if quiet { self.stuck(state) } else { None })
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

/// One process at one state: everything that a step needs.
struct Turn<'a> {
    lease: &'a Lease,
    before: &'a State,
    me: usize,
    p: Process,
}

impl Turn<'_> {
    /// The one thing that it does next by itself.
    fn own_step(&self, next: &mut Vec<Step<State>>) {
        match self.p.at {
            At::Gone | At::Early => {}
            at if at <= At::PDisarm => self.put(next),
            at if at <= At::TellSeqWake => self.enter(next),
            at if at <= At::Out => self.take(next),
            at if at <= At::Disarm => self.leave(next),
            At::Held => {}
            at if at <= At::Flight => self.sleep(next),
            at if at <= At::EndWake => self.finished(next),
            at if at <= At::BWake => self.done(next),
            _ => self.die(next),
        }
    }

    fn push(&self, next: &mut Vec<Step<State>>, what: &'static str, state: State) {
        next.push(Step { who: self.me, what, kind: Kind::Own, state });
    }

    /// Goes on there, having changed these.
    fn go(&self, next: &mut Vec<Step<State>>, what: &'static str, mut state: State, p: Process) {
        state.processes[self.me] = p;
        self.push(next, what, state);
    }

    /// Wakes one on a word, or nobody, and goes on as `then` says.
    fn wake(&self, next: &mut Vec<Step<State>>, word: usize, what: &'static str, then: impl Fn(&mut Process, bool)) {
        self.before.wake_one(word, |mut state, woke| {
            then(&mut state.processes[self.me], woke);
            let kind = if woke { Kind::Wakes } else { Kind::Own };
            next.push(Step { who: self.me, what, kind, state });
        });
    }

    /// Wakes all on a word.
    fn wake_all(&self, next: &mut Vec<Step<State>>, word: usize, what: &'static str, then: At) {
        let mut state = *self.before;
        let kind = state.wake_all(word);
        state.processes[self.me].at = then;
        next.push(Step { who: self.me, what, kind, state });
    }
}
