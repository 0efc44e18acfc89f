//! A step, and whose it is.

use super::{At, Process, Roles, State};
use crate::checker::{Kind, Step};

/// One process at one state: everything that a step needs.
pub(super) struct Turn<'a> {
    pub(super) roles: &'a Roles,
    pub(super) before: &'a State,
    pub(super) me: usize,
    pub(super) p: Process,
}

impl Turn<'_> {
    /// The one thing that it does next by itself.
    pub(super) fn own_step(&self, next: &mut Vec<Step<State>>) {
        match self.p.at {
            At::Gone | At::Early | At::Held => {}
            at if at <= At::TTellWake => self.come(next),
            at if at <= At::PDisarm => self.put(next),
            at if at <= At::LTellWake => self.leave(next),
            at if at <= At::Disarm => self.get(next),
            at if at <= At::Again => self.decide(next),
            at if at <= At::Flight => self.sleep(next),
            _ => self.die(next),
        }
    }

    pub(super) fn push(&self, next: &mut Vec<Step<State>>, what: &'static str, state: State) {
        next.push(Step { who: self.me, what, kind: Kind::Own, state });
    }

    /// Goes on there, having changed these.
    pub(super) fn go(&self, next: &mut Vec<Step<State>>, what: &'static str, mut state: State, p: Process) {
        state.processes[self.me] = p;
        self.push(next, what, state);
    }

    /// The count of a word moves, for itself as well.
    pub(super) fn bump(&self, state: &mut State, p: &mut Process, word: usize) {
        state.bump(word);
        p.fresh[word] = false;
    }

    /// Wakes one on a word, or nobody, and goes on as `then` says.
    pub(super) fn wake(&self, next: &mut Vec<Step<State>>, word: usize, what: &'static str, then: impl Fn(&mut Process, bool)) {
        self.before.wake_one(word, |mut state, woke| {
            then(&mut state.processes[self.me], woke);
            let kind = if woke { Kind::Wakes } else { Kind::Own };
            next.push(Step { who: self.me, what, kind, state });
        });
    }

    /// Wakes all on a word.
    pub(super) fn wake_all(&self, next: &mut Vec<Step<State>>, word: usize, what: &'static str, then: At) {
        let mut state = *self.before;
        let kind = state.wake_all(word);
        state.processes[self.me].at = then;
        next.push(Step { who: self.me, what, kind, state });
    }
}
