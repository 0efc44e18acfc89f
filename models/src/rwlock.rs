//! The rwlock: a turnstile, places that are robust locks, a signature, and death at every step.
//!
//! The turnstile's own protocol is the lock's (see [`mod@crate::lock`]): it is entered in one step when it is free, and the kernel frees a dead one's. The places are modelled word by word
//! (see [`mod@crate::robust`]).
//!
//! # The steps
//!
//! | [`At`] | the rwlock's line |
//! |---|---|
//! | `Enter`, `Ask` | the turnstile; whether there is a signature |
//! | `Find`, `Sit`, `Leave` | reader: looks for a free place, takes it, gives the turnstile back |
//! | `Read`, `Rise` | its guard; gives the place back |
//! | `Look`, `Wait`, `Announce`, `Queue`, `Asleep`, `Pass` | writer, for each place: whether it is held; takes it as any lock; gives it back |
//! | `Sign`, `Begin`, `Write`, `Unsign`, `Leave` | signs; begins and ends a change; clears the signature; gives the turnstile back |
//!
//! Chance: death, a time-out at the turnstile or asleep, a wake-up for no reason (the look once a second is one, too).
//!
//! # The properties
//!
//! - Nobody reads or writes beside a writer.
//! - Who reads or writes what a dead writer has left half changed has been told. Nobody is told when no writer has died with its signature.
//! - When nobody can move by himself (who reads or writes may do so for ever): each place is free or had by a living reader; no writer sleeps at a free one; if nobody reads or writes nobody waits.
//! - Nobody waits for ever (`live`).

use crate::{
    checker::{Kind, Model, Step},
    robust::{Come, Flaws, MOST, Robust, tid},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RwLock {
    pub(crate) places: usize,
    pub(crate) readers: usize,
    pub(crate) writers: usize,
    pub(crate) rounds: u8,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    pub(crate) bug: Option<Bug>,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A writer gives the turnstile back before it writes.
    TurnstileOpens,
    /// A writer looks at the places before it has the turnstile.
    LooksOutside,
    /// A reader gives the turnstile back before it has its place.
    SitsOutside,
    /// The signature is cleared when the turnstile has been given back.
    ClearsOutside,
    /// A writer signs before the readers have left.
    SignsFirst,
    /// Told is who got the turnstile from a dead one, by the kernel's mark.
    KernelsMark,
    /// A reader that leaves wakes nobody.
    NoWake,
    /// A reader leaves with the low half only compared; **not a bug** here, where one writer at a time waits.
    ClearIgnoresAnnounce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum At {
    Gone,
    Idle,
    Enter,
    Ask,
    Find,
    Sit,
    Leave,
    Read,
    Rise,
    Look,
    Wait,
    Announce,
    Queue,
    Asleep,
    Pass,
    Sign,
    Begin,
    Write,
    Unsign,
    Dying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    writer: bool,
    rounds: u8,
    late: bool,
    told: bool,
    /// Has what it came for, or has had it.
    has: bool,
    /// The place it is at.
    place: u8,
    /// For [`Bug::LooksOutside`]: the places that were held.
    noted: u8,
}

impl Process {
    const GONE: Self =
        Self { at: At::Gone, writer: false, rounds: 0, late: false, told: false, has: false, place: 0, noted: 0 };

    fn bits(&self) -> u64 {
        let flags = [self.writer, self.late, self.told, self.has].into_iter().fold(0, |all, flag| all << 1 | u8::from(flag));
        u64::from_be_bytes([self.at as u8, flags, self.rounds, self.place, self.noted, 0, 0, 0])
    }

    fn rest(self) -> Self {
        Self { at: At::Idle, writer: self.writer, rounds: self.rounds - 1, ..Self::GONE }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    turnstile: u8,
    /// Its last owner died in it; only [`Bug::KernelsMark`] looks.
    marked: bool,
    signature: u8,
    /// For the properties: half of a change is there; somebody died with his signature.
    torn: bool,
    unfinished: bool,
    left: [u8; 3],
    robust: Robust,
    processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let flags = u8::from(self.torn) | u8::from(self.unfinished) << 1 | u8::from(self.marked) << 2;
        hasher.write(&[self.turnstile, self.signature, flags, self.left[0], self.left[1], self.left[2]]);
        self.robust.hash(hasher);
        for process in &self.processes {
            hasher.write_u64(process.bits());
        }
    }
}

impl State {
    /// The same with these words.
    fn with(&self, robust: Robust) -> Self {
        let mut state = *self;
        state.robust = robust;
        state
    }
}

impl RwLock {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn own_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mut state = *before;
        let mut p = state.processes[me];
        let place = usize::from(p.place);
        let what = match p.at {
            At::Gone => return,
            At::Idle if p.rounds == 0 => {
                p = Process::GONE;
                "leaves for good"
            }
            At::Idle => {
                p.at = if self.is(Bug::LooksOutside) && p.writer { At::Look } else { At::Enter };
                "wants"
            }
            At::Enter if p.late => {
                p = p.rest();
                "gives up"
            }
            At::Enter if state.turnstile != 0 => return,
            At::Enter => {
                state.turnstile = tid(me);
                p.told = std::mem::take(&mut state.marked) && self.is(Bug::KernelsMark);
                state.robust.set_pending(me, None);
                p.at = At::Ask;
                "enters"
            }
            At::Ask => {
                if !self.is(Bug::KernelsMark) {
                    p.told = state.signature != 0;
                }
                p.at = match p.writer {
                    false if self.is(Bug::SitsOutside) => At::Leave,
                    false => At::Find,
                    true if self.is(Bug::SignsFirst) => At::Sign,
                    true => At::Look,
                };
                "asks for a signature"
            }
            At::Find if place == self.places => {
                p.at = At::Leave;
                "finds no place"
            }
            At::Find => {
                if state.robust.is_held(place) {
                    p.place += 1;
                } else {
                    p.at = At::Sit;
                }
                "looks at a place"
            }
            At::Sit => {
                let (robust, what, kind, come) = state.robust.take_step(me, place);
                state.robust = robust;
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.place) = (At::Find, p.place + 1),
                    Come::Done(_) => (p.at, p.has) = (if self.is(Bug::SitsOutside) { At::Read } else { At::Leave }, true),
                }
                state.processes[me] = p;
                next.push(Step { who: me, what, kind, state });
                return;
            }
            At::Leave => {
                (state.turnstile, state.marked) = (0, false);
                state.robust.set_pending(me, None);
                p.at = match (p.writer, p.has) {
                    (false, true) => At::Read,
                    (false, false) if self.is(Bug::SitsOutside) => At::Find,
                    (true, true) if self.is(Bug::TurnstileOpens) => At::Begin,
                    (true, true) if self.is(Bug::ClearsOutside) => At::Unsign,
                    _ => At::Idle,
                };
                if p.at == At::Idle {
                    p = p.rest();
                }
                "leaves the turnstile"
            }
            At::Read => {
                state.processes[me].at = At::Rise;
                next.push(Step { who: me, what: "has read", kind: Kind::Chance, state });
                return;
            }
            At::Look if place == self.places => {
                (p.at, p.place) = match (state.turnstile == tid(me), self.is(Bug::SignsFirst)) {
                    (false, _) => (At::Enter, 0),
                    (true, true) => (At::Begin, p.place),
                    (true, false) => (At::Sign, p.place),
                };
                "has looked at all"
            }
            At::Look if self.is(Bug::LooksOutside) => {
                if state.turnstile != tid(me) {
                    p.noted |= u8::from(state.robust.is_held(place)) << place;
                    p.place += 1;
                } else if p.noted & 1 << place != 0 {
                    p.at = At::Wait;
                } else {
                    p.place += 1;
                }
                "looks at a place"
            }
            At::Look => {
                if state.robust.is_held(place) {
                    p.at = At::Wait;
                } else {
                    p.place += 1;
                }
                "looks at a place"
            }
            At::Wait => {
                let (robust, what, kind, come) = state.robust.take_step(me, place);
                state.robust = robust;
                match come {
                    Come::On => {}
                    Come::Not if p.late => p.at = At::Leave,
                    Come::Not => {
                        state.robust.set_pending(me, Some(place));
                        p.at = At::Announce;
                    }
                    Come::Done(_) => p.at = At::Pass,
                }
                state.processes[me] = p;
                next.push(Step { who: me, what, kind, state });
                return;
            }
            At::Announce => {
                p.at = if state.robust.mark(me, place) { At::Queue } else { At::Wait };
                "announces"
            }
            At::Queue => {
                p.at = if state.robust.queue(me, place) { At::Asleep } else { At::Wait };
                if p.at == At::Asleep { "sleeps" } else { "EAGAIN" }
            }
            At::Asleep if !state.robust.is_woken(me) => return,
            At::Asleep => {
                state.robust.wake_up(me);
                p.at = At::Wait;
                "is awake"
            }
            At::Sign => {
                state.signature = tid(me);
                (p.at, p.place) = if self.is(Bug::SignsFirst) { (At::Look, 0) } else { (At::Begin, 0) };
                if self.is(Bug::TurnstileOpens) {
                    (p.at, p.has) = (At::Leave, true);
                }
                "signs"
            }
            At::Begin => {
                (state.torn, p.at, p.has, p.place) = (true, At::Write, true, 0);
                "begins to write"
            }
            At::Write => {
                state.torn = false;
                state.processes[me].at = if self.is(Bug::ClearsOutside) { At::Leave } else { At::Unsign };
                next.push(Step { who: me, what: "has written", kind: Kind::Chance, state });
                return;
            }
            At::Unsign => {
                (state.signature, state.unfinished) = (0, false);
                p.at = At::Leave;
                p.has = false;
                if self.is(Bug::ClearsOutside) {
                    p = p.rest();
                }
                "clears the signature"
            }
            At::Rise | At::Pass => {
                let flaws = Flaws {
                    no_wake: self.is(Bug::NoWake),
                    clear_ignores_announce: self.is(Bug::ClearIgnoresAnnounce),
                };
                state.robust.give_step(me, place, true, flaws, |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    if let Come::Done(_) = come {
                        let p = &mut state.processes[me];
                        if p.at == At::Rise { *p = p.rest() } else { (p.at, p.place) = (At::Look, p.place + 1) }
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
            At::Dying => {
                let freed = |mut state: State| {
                    if state.turnstile == tid(me) {
                        (state.turnstile, state.marked) = (0, true);
                    }
                    state
                };
                if state.turnstile == tid(me) {
                    next.push(Step { who: me, what: "kernel: turnstile", kind: Kind::Own, state: freed(state) });
                }
                state.robust.die_step(me, |(robust, what, kind, come)| {
                    let mut state = before.with(robust);
                    if let Come::Done(_) = come {
                        state = freed(state);
                        state.processes[me] = Process::GONE;
                    }
                    next.push(Step { who: me, what, kind, state });
                });
                return;
            }
        };
        state.processes[me] = p;
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    fn mishaps(before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let p = before.processes[me];
        let mut push = |which: usize, what, edit: &dyn Fn(&mut State)| {
            if before.left[which] > 0 {
                let mut state = *before;
                state.left[which] -= 1;
                edit(&mut state);
                next.push(Step { who: me, what, kind: Kind::Chance, state });
            }
        };
        if !matches!(p.at, At::Gone | At::Idle | At::Dying) {
            push(0, "is killed", &|state| {
                state.robust.kill(me);
                // Who has signed when the readers had left: from there on the next one is to be told.
                state.unfinished |= state.signature == tid(me) && matches!(p.at, At::Begin | At::Write | At::Unsign);
                state.processes[me] = Process { at: At::Dying, ..Process::GONE };
            });
        }
        let rises = |state: &mut State| {
            if p.at == At::Asleep {
                state.robust.wake_up(me);
                state.processes[me].at = At::Wait;
            }
        };
        if matches!(p.at, At::Asleep | At::Enter) && !p.late {
            push(1, "is late", &|state| {
                state.processes[me].late = true;
                rises(state);
            });
        }
        if p.at == At::Asleep {
            push(2, "wakes for nothing", &rises);
        }
    }
}

impl fmt::Display for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}R {}W × {}, {} places", self.readers, self.writers, self.rounds, self.places)
    }
}

impl Model for RwLock {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::GONE; MOST];
        for (number, process) in processes.iter_mut().enumerate().take(self.readers + self.writers) {
            *process = Process { at: At::Idle, writer: number >= self.readers, rounds: self.rounds, ..Process::GONE };
        }
        State {
            turnstile: 0,
            marked: false,
            signature: 0,
            torn: false,
            unfinished: false,
            left: [self.kills, self.timeouts, self.spurious],
            robust: Robust::START,
            processes,
        }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..MOST {
            self.own_step(state, me, next);
            Self::mishaps(state, me, next);
        }
    }

    /// Readers are alike, and so are writers. Of the signature matters only that there is one, and whether its owner lives: it keeps the name.
    fn canonical(&self, state: &mut State) {
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        order.sort_by_cached_key(|&me| {
            let named = u8::from(state.turnstile == tid(me)) | u8::from(state.signature == tid(me)) << 1;
            (state.processes[me].bits(), state.robust.hands[me].key(), state.robust.held(me), named)
        });
        let old = *state;
        state.robust.rename(&order, |me| old.processes[me].at == At::Gone);
        for (new, from) in order.into_iter().enumerate() {
            state.processes[new] = old.processes[from];
            if old.turnstile == tid(from) {
                state.turnstile = tid(new);
            }
            if old.signature == tid(from) {
                state.signature = tid(new);
            }
        }
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        let writes = |p: &Process| matches!(p.at, At::Begin | At::Write | At::Unsign) && !self.is(Bug::ClearsOutside)
            || matches!(p.at, At::Begin | At::Write);
        let writers = state.processes.iter().filter(|p| writes(p)).count();
        let readers = state.processes.iter().filter(|p| p.at == At::Read).count();
        if writers > 1 || (writers == 1 && readers > 0) {
            return Some("BESIDE A WRITER");
        }
        for p in &state.processes {
            let enters = matches!(p.at, At::Read | At::Begin);
            if enters && state.torn && !p.told {
                return Some("NOT TOLD");
            }
            if enters && p.told && !state.unfinished {
                return Some("TOLD FOR NOTHING");
            }
        }
        if !quiet {
            return None;
        }
        let count = |at: At| state.processes.iter().filter(|p| p.at == at).count();
        if (0..self.places).filter(|place| state.robust.is_held(*place)).count() != readers {
            return Some("LOST PLACE");
        }
        if readers + writers == 0 && count(At::Asleep) + count(At::Enter) > 0 {
            return Some("WAITS FOR EVER");
        }
        let sleeper = |p: &Process| p.at == At::Asleep && !state.robust.is_held(p.place.into());
        state.processes.iter().any(sleeper).then_some("SLEEPS AT A FREE PLACE")
    }

    fn show(&self, state: &State) -> String {
        let words: Vec<String> = state.robust.words[..self.places].iter().map(|low| low.show()).collect();
        let all: Vec<String> = (0..self.readers + self.writers)
            .map(|me| {
                let (p, hand) = (&state.processes[me], &state.robust.hands[me]);
                format!("{:?}/{:?}{}", p.at, hand.stage, if p.told { "!" } else { "" })
            })
            .collect();
        let (torn, signature) = (if state.torn { " torn" } else { "" }, state.signature);
        format!("turnstile {} signed {signature}{torn} [{}] {}", state.turnstile, words.join(" "), all.join("  "))
    }
}
