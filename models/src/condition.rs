//! The condition: a mutex, a wait slot for each waiter, tickets, and death at every step.
//!
//! The mutex and the wait slots are words of [`mod@crate::kernel`]; their own protocols are not modelled
//! again (see [`mod@crate::lock`]). A free mutex is entered in one step. The user's lock is a step between
//! the notification and the end of the wait slot. Each waiter waits once, in a slot of its own; each notifier
//! notifies once.
//!
//! A waiter is notified when its ticket is at most the **notified-up-to ticket** (`upto`).
//!
//! # The steps
//!
//! | [`At`] | the condition's line |
//! |---|---|
//! | `Ask` | `notify`: does any process wait at all? |
//! | `Enter` | through the mutex, when it is free ¹ |
//! | `Count` | debts, waiters, dead tickets to be forgotten; the new notified-up-to ticket |
//! | `SetW`, `Advance`, `Forget`, `Call` | `W` on the mutex; the one store; the dead tickets; each wake-up |
//! | `Sit`, `GiveUp` | what the mutex was entered for, if not to notify |
//! | `Out` | leaves the mutex |
//! | `Note`, `Look`, `Sleep`, `Asleep` | notes all words, and deaths; is it notified? compares and sleeps |
//! | `Resume`, `Rise` | takes the user's lock; clears the ticket, then the slot |
//!
//! 1. A process that finds "owner died" there wakes all waiters in the end.
//!
//! All words are compared in one step. Instead, a process is in the queues of all words as long as it is on
//! its way into or out of its sleep. So a wake-up for a death may reach it there, and be lost. A process that
//! stands at the mutex may get the mutex's wake-up as well: it needs none to come in.
//!
//! # The properties, in quiet states
//!
//! - No process sleeps that has been notified.
//! - Notifications that were made have been received by living processes. Or they were dropped when none
//!   waited, or they are those of dead processes when none sleeps. With one death: exactly; with more: not
//!   too few.

mod steps;

use crate::checker::Step;
use crate::kernel::{self, Low, Of, Protocol, Run, steps};
use std::fmt;

/// Waiters and notifiers in one run, and the words that have an owner.
pub(crate) const PROCESSES: usize = 5;
const WAITERS: usize = 4;
pub(crate) const WORDS: usize = 1 + WAITERS;
/// The mutex, and the first wait slot.
const MUTEX: usize = 0;
const SLOT: usize = 1;

type State = Of<Condition, PROCESSES, WORDS>;
type Turn<'a> = kernel::Turn<'a, Condition, PROCESSES, WORDS>;
type Steps = Vec<Step<State>>;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition {
    pub(crate) waiters: usize,
    /// How many each notifier notifies.
    pub(crate) notifiers: [u8; 2],
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A waiter looks whether it is notified, and notes the words then.
    LookBeforeNote,
    /// The notified-up-to ticket advances without `W` on the mutex.
    NoWaitersBit,
    /// A process that takes the mutex from a dead owner notifies none.
    RecovererNotifiesNone,
    /// A waiter that was woken and notified leaves without a look for deaths.
    NotifiedDoesNotLook,
    /// No process watches the wait slots.
    SlotsNotWatched,
    /// The dead are forgotten before the notified-up-to ticket has advanced for them.
    ForgetFirst,
    /// A process that dies waiting is not forgotten before the notified-up-to ticket passes it.
    DeadPassed,
    /// A time-out clears the ticket without the mutex.
    GiveUpOutside,
    /// A death with a notification is not passed on.
    NoDebts,
}

steps! {
    enum At {
        Ask Enter Count SetW Advance Forget Call
        Sit GiveUp Out
        Note Look Sleep Asleep Resume Rise
        Gone
    }
}

/// What the mutex was entered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
enum For {
    #[default]
    Sitting,
    Mending,
    GivingUp,
    Notifying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Process {
    at: At,
    purpose: For,
    /// Found the mutex left by a dead owner.
    recovers: bool,
    /// Its own slot was woken since it noted the words.
    called: bool,
    /// It has noted a death.
    death: bool,
    late: bool,
    /// Inside the mutex: the notified-up-to ticket to be, the slots to forget, the slots to wake.
    target: u8,
    forget: u8,
    wake: u8,
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Shared {
    tickets: u8,
    /// The notified-up-to ticket.
    upto: u8,
    ticket: [u8; WAITERS],
    /// For the properties only: notifications.
    made: u8,
    received: u8,
    dropped: u8,
}

impl Condition {
    /// How many a process notifies.
    fn notifies(&self, me: usize) -> u8 {
        me.checked_sub(self.waiters).and_then(|notifier| self.notifiers.get(notifier)).copied().unwrap_or(0)
    }

    fn waits(state: &State, slot: usize) -> bool {
        state.is_held(SLOT + slot) && state.own.ticket[slot] > state.own.upto
    }

    /// Whether a dead process was notified in this slot.
    fn owes(state: &State, slot: usize) -> bool {
        let ticket = state.own.ticket[slot];
        !state.is_held(SLOT + slot) && ticket != 0 && ticket <= state.own.upto
    }

    /// Each process is in the futex queues that its place says. A process that was woken notes the words
    /// again.
    fn queue_all(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        let watched = if run.is(Bug::SlotsNotWatched) { SLOT } else { WORDS };
        for me in 0..PROCESSES {
            let at = &mut state.processes[me].at;
            if state.hands[me].woken && matches!(at, At::Sleep | At::Asleep) {
                *at = At::Note;
            }
            let words = match at {
                At::Enter => SLOT,
                At::Note | At::Sleep | At::Asleep => watched,
                _ => 0,
            };
            state.hands[me].requeue(0..words);
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            self.notifiers.iter().filter(|count| **count > 0).map(u8::to_string).collect();
        write!(f, "{} waiters, notifies {}", self.waiters, counts.join("+"))
    }
}

impl Protocol<PROCESSES, WORDS> for Condition {
    const NAME: &'static str = "condition";
    type Bug = Bug;
    type Shared = Shared;
    type Process = Process;

    fn processes(&self) -> usize {
        self.waiters + self.notifiers.iter().filter(|count| **count > 0).count()
    }

    fn start(run: &Run<Self, PROCESSES, WORDS>) -> State {
        let mut processes = [Process::default(); PROCESSES];
        for (me, process) in processes.iter_mut().enumerate().take(run.model.processes()) {
            (process.at, process.purpose) =
                if me < run.model.waiters { (At::Enter, For::Sitting) } else { (At::Ask, For::Notifying) };
        }
        let own = Shared { tickets: 0, upto: 0, ticket: [0; WAITERS], made: 0, received: 0, dropped: 0 };
        let mut state = run.begin(own, processes, 0);
        Self::queue_all(run, &mut state);
        state
    }

    fn step(turn: &Turn<'_>, next: &mut Steps) {
        turn.own_step(next);
    }

    fn chances(turn: &Turn<'_>, next: &mut Steps) {
        let (me, p) = (turn.me, turn.p);
        if me < turn.model.waiters && !p.late && matches!(p.at, At::Asleep | At::Look) {
            turn.chance(next, Turn::LATE, "is late", |state| {
                let p = &mut state.processes[me];
                p.late = true;
                if p.at == At::Asleep {
                    p.at = At::Note;
                }
            });
        }
    }

    /// The mutex is the pending entry of a process that stands at it.
    fn killed(_run: &Run<Self, PROCESSES, WORDS>, state: &mut State, me: usize) {
        if state.processes[me].at == At::Enter {
            state.set_pending(me, MUTEX);
        }
    }

    fn finish(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        Self::queue_all(run, state);
    }

    /// Waiters are not exchanged: tickets tell them apart. Notifiers of as many are alike.
    fn alike(&self, one: usize, other: usize) -> bool {
        one >= self.waiters && other >= self.waiters && self.notifies(one) == self.notifies(other)
    }

    /// What was noted is forgotten where no process will ask for it.
    fn forget(run: &Run<Self, PROCESSES, WORDS>, state: &mut State) {
        for (hand, p) in state.hands.iter_mut().zip(&mut state.processes) {
            if !matches!(p.at, At::Look | At::Sleep) {
                hand.seen = [Low(0); WORDS];
                p.death = false;
                p.called &= run.is(Bug::NotifiedDoesNotLook);
            }
        }
    }

    fn wrong(run: &Run<Self, PROCESSES, WORDS>, state: &State, quiet: bool) -> Option<&'static str> {
        if !quiet {
            return None;
        }
        let (own, waiters) = (&state.own, run.model.waiters);
        let asleep = |slot: usize| state.processes[slot].at == At::Asleep;
        if (0..waiters).any(|slot| asleep(slot) && own.ticket[slot] <= own.upto) {
            return Some("LOST NOTIFICATION");
        }
        let owed = u8::try_from((0..waiters).filter(|slot| Self::owes(state, *slot)).count()).unwrap_or(0);
        if owed > 0 && (0..waiters).any(asleep) {
            return Some("NOT PASSED ON");
        }
        let answered = own.received + own.dropped + owed;
        if answered < own.made {
            return Some("NOTIFICATION LOST WITH ITS RECEIVER");
        }
        (answered > own.made && run.left[0] - state.left[0] < 2).then_some("ONE TOO MANY")
    }

    fn show(&self, state: &State) -> String {
        let all: Vec<String> =
            state.processes[..self.processes()].iter().map(|p| format!("{:?}", p.at)).collect();
        let Shared { upto, ticket, made, received, dropped, .. } = state.own;
        let mutex = state.words[MUTEX].show();
        format!("mutex {mutex} upto {upto} {ticket:?} {made}/{received}/{dropped} {}", all.join(" "))
    }
}
