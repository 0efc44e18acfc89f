//! What may happen to a process, and the kernel for the dead.

use super::{At, Low, Process, Roles, State, Turn, WORDS, tid};
use crate::checker::{Kind, Step};

impl Turn<'_> {
    /// The kernel: the list, then what is pending.
    pub(super) fn die(&self, next: &mut Vec<Step<State>>) {
        let (before, p) = (self.before, self.p);
        if p.at == At::DyingWakes {
            let word = usize::from(p.seat);
            return self.wake(next, word, "kernel wakes", |p, _| (p.at, p.seat) = (At::Dying, 0));
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
        let seat = if wakes { u8::try_from(word).unwrap_or(0) } else { 0 };
        self.go(next, "kernel looks", state, Process { at, seat, pending, ..Process::GONE });
    }

    /// What one with a role does when it likes, death, time-outs, signals.
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
            if left == Some(0) {
                state.leaked[0] |= matches!(p.at, At::WaitKb | At::WaitLock | At::Contending);
                state.leaked[1] |= p.napping;
            }
            edit(&mut state.processes[me]);
            next.push(Step { who: me, what, kind: Kind::Chance, state });
        };
        if p.at == At::Held {
            push(None, "lets go", &|p| p.at = At::LTouch);
        }
        if p.at == At::Held && p.left > 0 {
            push(None, "puts", &|p| p.at = At::PStart);
        }
        if !matches!(p.at, At::Gone | At::Early | At::Dying | At::DyingWakes) {
            push(Some(0), "is killed", &|p| *p = Process { at: At::Dying, pending: p.pending, ..Process::GONE });
        }
        if p.at == At::Asleep && !p.rung {
            push(Some(1), "is late", &|p| *p = Process::GONE);
        }
        if p.asleep() {
            push(Some(2), "is woken by a signal", &|p| p.rung = true);
        }
    }
}

impl Roles {
    pub(super) fn after_leaving(&self, got: bool) -> At {
        if got { At::GStart } else { At::Decide }
    }

    /// When nobody will be killed any more, what is pending says nothing, and private steps need no turn of their own.
    pub(super) fn hurry(&self, state: &mut State) {
        if state.left[0] > 0 {
            return;
        }
        for p in &mut state.processes[..self.who.len()] {
            loop {
                p.at = match p.at {
                    At::PDisarm => At::Held,
                    At::PStart => At::PTry,
                    At::GStart if p.left > 0 => At::GTry,
                    At::LPending => At::LRelease,
                    At::GStart => {
                        *p = Process::GONE;
                        At::Gone
                    }
                    _ => break,
                };
            }
            if !matches!(p.at, At::Dying | At::DyingWakes) {
                p.pending = 0;
            }
        }
    }
}
