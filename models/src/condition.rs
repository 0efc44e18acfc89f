//! The condition: a gate, a seat for each waiter, tickets, the horizon, and death at every step.
//!
//! The gate's lock and the user's lock are not modelled again (see [`mod@crate::lock`]): a free gate is entered in one step, and the user's lock is a step between being called and leaving the
//! seat. Each waiter waits once, in a seat of its own; each notifier notifies once.
//!
//! # The steps
//!
//! | [`At`] | the condition's line |
//! |---|---|
//! | `Ask` | `notify`: whether anybody waits at all |
//! | `Enter` | through the gate, when it is free; whoever finds "owner died" there wakes all seated in the end |
//! | `Count` | debts, who waits, who is forgotten; the new horizon |
//! | `Alarm`, `Horizon`, `Forget`, `Call` | `W` on the gate; the one store; the dead tickets; each wake |
//! | `Sit`, `GiveUp` | what the gate was entered for, if it was not for calls |
//! | `Out` | leaves the gate |
//! | `Note`, `Look`, `Sleep`, `Asleep` | notes all words, and deaths; looks at the horizon; compares and sleeps |
//! | `Resume`, `Rise` | takes the user's lock; clears the ticket, then the seat |
//! | `Dying…` | the kernel: the gate, the seat, what was pending, each first marked and then woken |
//!
//! A wake for a death reaches any sleeper, or one that is on its way into or out of its sleep, or one that stands at the gate.
//!
//! # The properties, in quiet states
//!
//! - Nobody sleeps who has been called.
//! - Calls that were made have been received by the living, or were dropped when nobody waited, or are those of dead ones when nobody sleeps. With one death: exactly; with more: not too few.

mod steps;

use crate::checker::{Model, Step};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition {
    pub(crate) waiters: usize,
    /// How many each notifier calls.
    pub(crate) notifiers: [u8; 2],
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) bug: Option<Bug>,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The horizon is looked at before the words are noted.
    LookBeforeNote,
    /// The horizon moves without `W` on the gate.
    NoAlarm,
    /// Who takes the gate over from a dead one wakes nobody.
    TakerCallsNobody,
    /// Who was woken and called leaves without a look for deaths.
    CalledDoesNotLook,
    /// Nobody watches the seats.
    SeatsNotWatched,
    /// The dead are forgotten before the horizon has moved for them.
    ForgetFirst,
    /// Who dies waiting is not forgotten before the horizon passes.
    DeadPassed,
    /// A time-out clears the ticket without the gate.
    GiveUpOutside,
    /// A death with a call is not passed on.
    NoDebts,
}

/// Waiters and notifiers in one run.
const MOST: usize = 5;
const WAITERS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum At {
    Ask,
    Enter,
    Count,
    Alarm,
    Horizon,
    Forget,
    Call,
    Sit,
    GiveUp,
    Out,
    Note,
    Look,
    Sleep,
    Asleep,
    Resume,
    Rise,
    Gone,
    DyingGate,
    DyingGateWakes,
    DyingSeat,
    DyingSeatWakes,
    DyingPending,
}

/// What the gate was entered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum For {
    Sitting,
    Mending,
    GivingUp,
    Calling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    purpose: For,
    /// Found the gate left by a dead one.
    heir: bool,
    /// Words as noted: the gate's, the seats', and whether its own seat was called since.
    gate: u8,
    seats: [u8; WAITERS],
    called: bool,
    death: bool,
    late: bool,
    /// Inside the gate: the horizon to be, whom to forget, whom to wake.
    target: u8,
    forget: u8,
    wake: u8,
    /// Killed at the gate.
    pending: bool,
}

/// The owner word of a seat.
const FREE: u8 = 0;
const HELD: u8 = 1;
const LEFT: u8 = 2;
/// The owner word of the gate: 0, an owner plus 1, or this.
const OWNER_DIED: u8 = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    gate: u8,
    alarm: bool,
    tickets: u8,
    horizon: u8,
    seats: [u8; WAITERS],
    ticket: [u8; WAITERS],
    kills: u8,
    timeouts: u8,
    /// For the properties only.
    made: u8,
    received: u8,
    dropped: u8,
    processes: [Process; MOST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&[
            self.gate,
            self.alarm.into(),
            self.tickets,
            self.horizon,
            self.kills,
            self.timeouts,
            self.made,
            self.received,
        ]);
        hasher.write(&self.seats);
        hasher.write(&self.ticket);
        hasher.write(&[self.dropped]);
        for p in &self.processes {
            hasher.write(&[
                p.at as u8,
                p.purpose as u8,
                p.heir.into(),
                p.gate,
                p.called.into(),
                p.death.into(),
                p.late.into(),
                p.target,
            ]);
            hasher.write(&p.seats);
            hasher.write(&[p.forget, p.wake, p.pending.into()]);
        }
    }
}

impl State {
    fn waiting(&self, seat: usize) -> bool {
        self.seats[seat] == HELD && self.ticket[seat] > self.horizon
    }

    fn owes(&self, seat: usize) -> bool {
        self.seats[seat] != HELD && self.ticket[seat] != 0 && self.ticket[seat] <= self.horizon
    }

    /// A wake for a death, on a word that everybody watches: whomever it may reach. At the gate somebody stands who needs no wake to come in.
    fn wake_one(&self, me: usize, at_gate: bool, mut found: impl FnMut(Self, bool)) {
        let mut nobody = true;
        for other in (0..MOST).filter(|other| *other != me) {
            let at = self.processes[other].at;
            if matches!(at, At::Asleep | At::Sleep | At::Note) || (at_gate && at == At::Enter) {
                nobody = false;
                let mut state = *self;
                if at != At::Enter {
                    state.processes[other].at = At::Note;
                }
                found(state, at == At::Asleep);
            }
        }
        if nobody {
            found(*self, false);
        }
    }
}

impl Condition {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

impl Process {
    const fn gone() -> Self {
        Self {
            at: At::Gone,
            purpose: For::Sitting,
            heir: false,
            gate: 0,
            seats: [0; WAITERS],
            called: false,
            death: false,
            late: false,
            target: 0,
            forget: 0,
            wake: 0,
            pending: false,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls: Vec<String> = self.notifiers.iter().filter(|count| **count > 0).map(u8::to_string).collect();
        write!(f, "{} waiters, calls {}", self.waiters, calls.join("+"))
    }
}

impl Model for Condition {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::gone(); MOST];
        for (number, process) in processes.iter_mut().enumerate() {
            let notifier = number.checked_sub(self.waiters);
            if notifier.is_none_or(|notifier| self.notifiers.get(notifier).is_some_and(|count| *count > 0)) {
                (process.at, process.purpose) =
                    if notifier.is_some() { (At::Ask, For::Calling) } else { (At::Enter, For::Sitting) };
            }
        }
        State {
            gate: 0,
            alarm: false,
            tickets: 0,
            horizon: 0,
            seats: [FREE; WAITERS],
            ticket: [0; WAITERS],
            kills: self.kills,
            timeouts: self.timeouts,
            made: 0,
            received: 0,
            dropped: 0,
            processes,
        }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..MOST {
            self.own_step(state, me, next);
            Self::mishaps(state, me, me < self.waiters, next);
        }
    }

    /// Waiters are not renamed: tickets tell them apart. Notifiers of the same are alike. What was noted is forgotten where nobody will ask for it.
    fn canonical(&self, state: &mut State) {
        for p in &mut state.processes {
            match p.at {
                At::Gone => *p = Process::gone(),
                At::Look | At::Sleep => {}
                _ => {
                    (p.gate, p.seats, p.death) = (0, [0; WAITERS], false);
                    p.called &= self.is(Bug::CalledDoesNotLook);
                }
            }
        }
        let (one, other) = (self.waiters, self.waiters + 1);
        if other < MOST && self.notifiers[0] == self.notifiers[1] {
            let key = |me: usize| {
                let p = &state.processes[me];
                (p.at as u8, usize::from(state.gate) == me + 1, p.heir, p.target, p.forget, p.wake, p.pending)
            };
            if key(other) < key(one) {
                state.processes.swap(one, other);
                state.gate = match usize::from(state.gate) {
                    gate if gate == one + 1 => state.gate + 1,
                    gate if gate == other + 1 => state.gate - 1,
                    _ => state.gate,
                };
                // Nobody compares the owner of a gate that he has noted but with what it is.
                for p in &mut state.processes {
                    p.gate = match usize::from(p.gate) {
                        gate if gate == one + 1 => p.gate + 1,
                        gate if gate == other + 1 => p.gate - 1,
                        _ => p.gate,
                    };
                }
            }
        }
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        if !quiet {
            return None;
        }
        let asleep = |seat: usize| state.processes[seat].at == At::Asleep;
        if (0..self.waiters).any(|seat| asleep(seat) && state.ticket[seat] <= state.horizon) {
            return Some("LOST CALL");
        }
        let owed = u8::try_from((0..self.waiters).filter(|seat| state.owes(*seat)).count()).unwrap_or(0);
        if owed > 0 && (0..self.waiters).any(asleep) {
            return Some("NOT PASSED ON");
        }
        let answered = state.received + state.dropped + owed;
        if answered < state.made {
            return Some("CALL LOST WITH ITS RECEIVER");
        }
        (answered > state.made && self.kills - state.kills < 2).then_some("ONE TOO MANY")
    }

    fn show(&self, state: &State) -> String {
        let all: Vec<String> = state.processes[..self.waiters + 2].iter().map(|p| format!("{:?}", p.at)).collect();
        let State { gate, alarm, horizon, ticket, made, received, dropped, .. } = state;
        format!(
            "gate {gate}{} h{horizon} {ticket:?} {made}/{received}/{dropped} {}",
            if *alarm { "W" } else { "" },
            all.join(" ")
        )
    }
}
