//! A step, and whose it is; and the kernel for the dead.

use super::state::{At, Front, L, Nap, Process, S, State, WORDS, tid};
use super::{ALL, Bug, Places, Role};
use crate::checker::{Kind, Step};
use crate::robust::Low;

/// One process at one state: everything that a step needs.
pub(super) struct Turn<'a> {
    pub(super) places: &'a Places,
    pub(super) before: &'a State,
    pub(super) me: usize,
    pub(super) p: Process,
}

impl Turn<'_> {
    /// The one thing that it does next by itself.
    pub(super) fn own_step(&self, next: &mut Vec<Step<State>>) {
        match self.p.at {
            At::Gone | At::Fill => {}
            at if at < At::KAlarm => self.put(next),
            at if at < At::Fill => self.leave_producers(next),
            at if at < At::GStart => self.commit(next),
            at if at < At::Decide => self.get(next),
            at if at < At::Retell => self.sleep(next),
            at if at < At::LHead => self.retell(next),
            at if at < At::Dying => self.look(next),
            _ => self.die(next),
        }
    }

    pub(super) fn is(&self, bug: Bug) -> bool {
        self.places.bug == Some(bug)
    }

    /// Whether this one has a role, and hears of those who are gone.
    pub(super) fn has_role(&self) -> bool {
        matches!(self.places.roles[self.me], Role::Getter { role: true, .. })
    }

    pub(super) fn plain(&self) -> bool {
        matches!(self.places.roles[self.me], Role::Putter { .. })
    }

    /// Goes on there, having changed these.
    pub(super) fn go(&self, next: &mut Vec<Step<State>>, what: &'static str, mut state: State, p: Process) {
        state.processes[self.me] = p;
        next.push(Step { who: self.me, what, kind: Kind::Own, state });
    }

    /// Wakes one on a word, or nobody, and goes on as `then` says.
    pub(super) fn wake(&self, next: &mut Vec<Step<State>>, word: usize, what: &'static str, then: impl Fn(&mut Process, bool)) {
        self.before.wake_one(word, |mut state, woke| {
            then(&mut state.processes[self.me], woke);
            let kind = if woke { Kind::Wakes } else { Kind::Own };
            next.push(Step { who: self.me, what, kind, state });
        });
    }

    /// Wakes all who sleep for this.
    pub(super) fn wake_all(&self, next: &mut Vec<Step<State>>, nap: Nap, what: &'static str, then: impl Fn(&mut Process)) {
        let mut state = *self.before;
        let kind = state.wake_all(super::state::BELLS + nap as usize);
        then(&mut state.processes[self.me]);
        next.push(Step { who: self.me, what, kind, state });
    }

    /// The kernel: the list, then what is pending.
    fn die(&self, next: &mut Vec<Step<State>>) {
        let (before, p) = (self.before, self.p);
        if p.at == At::DyingWakes {
            let word = usize::from(p.index);
            return self.wake(next, word, "kernel wakes", |p, _| (p.at, p.index) = (At::Dying, 0));
        }
        let pending = usize::from(p.pending);
        let mine = |word: &usize| before.low[*word].owner() == tid(self.me);
        let mut listed = false;
        for word in (0..WORDS).filter(|word| mine(word) && word + 1 != pending) {
            listed = true;
            self.bury(next, word, p.pending);
        }
        match pending.checked_sub(1) {
            _ if listed => {}
            None => self.go(next, "kernel: gone", *before, Process::GONE),
            Some(word) if mine(&word) || before.low[word].owner() == 0 => self.bury(next, word, 0),
            Some(_) => self.go(next, "kernel: not its own", *before, Process::GONE),
        }
    }

    /// Marks a word, if it is its own, and wakes one if somebody may sleep.
    fn bury(&self, next: &mut Vec<Step<State>>, word: usize, pending: u8) {
        let mut state = *self.before;
        let low = state.low[word];
        let wakes = low.owner() == 0 || low.has(Low::W);
        if low.owner() != 0 {
            state.low[word] = Low(Low::OD | low.0 & Low::W);
        }
        let at = if wakes { At::DyingWakes } else { At::Dying };
        let index = if wakes { u8::try_from(word).unwrap_or(0) } else { 0 };
        self.go(next, "kernel looks", state, Process { at, index, pending, ..Process::GONE });
    }

    /// What may be filled, and death, time-outs, signals.
    pub(super) fn mishaps(&self, next: &mut Vec<Step<State>>) {
        let (before, p, me) = (self.before, self.p, self.me);
        let mut push = |left: Option<usize>, what, edit: &dyn Fn(&mut Process)| {
            let mut state = *before;
            if let Some(left) = left {
                if state.left[left] == 0 {
                    return;
                }
                state.left[left] -= 1;
            }
            if left == Some(0) && p.napping {
                state.leaked[p.nap as usize] = true;
            }
            edit(&mut state.processes[me]);
            next.push(Step { who: me, what, kind: Kind::Chance, state });
        };
        let first = if self.is(Bug::GivenFirst) { At::XRelease } else { At::XCommit };
        if p.at == At::Fill {
            push(None, "has filled it", &|p| p.at = first);
            push(Some(3), "gives it up", &|p| (p.at, p.gives_up) = (first, true));
        }
        if !matches!(p.at, At::Gone | At::Dying | At::DyingWakes) {
            push(Some(0), "is killed", &|p| *p = Process { at: At::Dying, pending: p.pending, ..Process::GONE });
        }
        if p.at == At::Asleep && !p.rung {
            push(Some(1), "is late", &|p| *p = Process::GONE);
            push(Some(2), "is woken by a signal", &|p| p.rung = true);
        }
    }
}

impl Places {
    /// When nobody will be killed any more, what is pending says nothing, and private steps need no turn of their own.
    pub(super) fn hurry(&self, state: &mut State) {
        if state.left[0] > 0 {
            return;
        }
        for me in 0..self.roles.len() {
            let (used, seat) = (state.used, state.low[S].owner() == tid(me));
            let p = &mut state.processes[me];
            loop {
                match p.at {
                    At::PDisarm | At::XDisarm | At::CDisarm => p.disarm(used),
                    At::PStart if p.left > 0 => p.at = At::PTry,
                    At::GStart if p.left > 0 => p.at = At::GTry,
                    At::TPending => p.at = At::TTake,
                    At::PStart if seat => p.at = At::HTouch,
                    At::PStart | At::GStart | At::HDisarm => *p = Process::GONE,
                    _ => break,
                }
            }
            if !matches!(p.at, At::Dying | At::DyingWakes) {
                p.pending = 0;
            }
        }
        debug_assert!(usize::from(self.locks) + L <= WORDS, "more locks than words");
    }
}

impl Process {
    pub(super) fn done_one(&mut self) {
        if self.left != ALL {
            self.left = self.left.saturating_sub(1);
        }
    }

    /// Pending is 0: an operation has ended.
    pub(super) fn disarm(&mut self, used: u8) {
        let (vain, left, ended) = (self.vain, self.left, self.at);
        (self.pending, self.over, self.front, self.vain) = (0, false, Front::Empty, false);
        self.at = match ended {
            At::CDisarm if vain => At::Decide,
            At::CDisarm => At::GStart,
            At::PDisarm if self.lock != 0 => At::Fill,
            At::PDisarm if vain && left > 0 => At::Arm,
            _ => At::PStart,
        };
        match self.at {
            At::Arm => self.watch = if self.nap == Nap::Lock { used } else { 0 },
            At::PStart => {
                *self = Self::new(At::PStart, left);
                if ended == At::XDisarm {
                    self.done_one();
                }
            }
            _ => {}
        }
    }
}
