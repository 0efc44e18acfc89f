//! A producer: registers, puts, leaves.

use super::state::{A, At, P, Process, S};
use super::{Bug, Membership, State, Steps, Turn};
use crate::kernel::Low;

impl Turn<'_> {
    /// Takes the first free membership.
    pub(super) fn register_member(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let word = S + usize::from(p.index);
        let what = match p.at {
            At::TStart if p.visits == 0 || p.index >= self.model.memberships => {
                p = Process::default();
                "leaves for good"
            }
            At::TStart if state.words[word].is_dead() && !self.is(Bug::DeathNotCleared) => {
                state.words[word].0 &= !Low::OD;
                state.advance(word);
                p.at = if self.is(Bug::ClearedKeepsEpoch) { At::TPending } else { At::TEpoch };
                "clears a death"
            }
            At::TEpoch => {
                advance_if_slept(&mut state);
                p.at = At::TPending;
                "A + 1, if a consumer sleeps"
            }
            At::TStart | At::TPending => {
                state.set_pending(me, word);
                p.at = if self.is(Bug::RaisesFirst) { At::TRaiseFirst } else { At::TTake };
                "pending = membership"
            }
            At::TTake | At::TRaiseFirst if state.is_held(word) => {
                state.clear_pending(me);
                (p.index, p.at) = (p.index + 1, At::TStart);
                "it is taken"
            }
            At::TRaiseFirst => {
                state.own.used = state.own.used.max(p.index + 1);
                p.at = At::TTake;
                "used, too early"
            }
            At::TTake => {
                // On the list, and soon the owner thread's: to the kernel that is the same.
                state.take_watched(me, word);
                state.advance(word);
                (p.member, p.at) = (p.index + 1, At::TRaise);
                (p.index, state.own.came) = (0, true);
                "takes the membership"
            }
            At::TRaise => {
                let first = state.own.used < p.member || self.is(Bug::RaisesFirst);
                state.own.used = state.own.used.max(p.member);
                p.at = if first { At::TNotify } else { At::Held };
                "used"
            }
            At::TNotify => {
                state.advance(P);
                p.at = At::TNotifyWake;
                "notifies: A + 1"
            }
            _ => return self.wake_all(next, A, "wakes all", |p| p.at = At::Held),
        };
        self.go(next, what, state, p);
    }

    /// The lock, the commit, one wake-up.
    pub(super) fn put(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::PStart => {
                state.set_pending(me, P);
                p.at = At::PTry;
                "pending = P"
            }
            At::PTry if state.is_held(P) => return,
            At::PTry => {
                state.take(me, P);
                p.at = At::PCommit;
                "takes P"
            }
            At::PCommit => {
                state.own.puts += 1;
                (p.left, p.at) = (p.left - 1, At::PRelease);
                "puts"
            }
            At::PRelease => {
                p.at = if state.release(me, P) { At::PAdvance } else { At::PDisarm };
                "releases P"
            }
            At::PAdvance if !Membership::sleepers(&state) => {
                p.at = At::PClear;
                "no consumer sleeps"
            }
            At::PAdvance => {
                (p.keep, p.at) = (p.keep | state.advance_released(me, P), At::PWake);
                "A + 1"
            }
            At::PWake => {
                let then = |p: &mut Process, woke| (p.keep, p.at) = (p.keep | woke, At::PClear);
                return self.wake(next, A, "wakes one", then);
            }
            At::PClear => {
                state.clear_w(me, P, p.keep);
                (p.keep, p.at) = (false, At::PDisarm);
                "clears W, if nothing has changed"
            }
            _ => {
                state.clear_pending(me);
                p.at = At::Held;
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }

    /// Frees the membership.
    pub(super) fn leave(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let word = S + usize::from(p.member).saturating_sub(1);
        let out = |p: &mut Process| {
            let visits = p.visits.saturating_sub(1);
            *p = Process { at: At::TStart, left: p.left, visits, ..Process::default() };
        };
        let what = match p.at {
            At::LEpoch => {
                if !self.is(Bug::LeaverKeepsEpoch) {
                    advance_if_slept(&mut state);
                }
                p.at = At::LPending;
                "A + 1, if a consumer sleeps"
            }
            At::LPending => {
                state.set_pending(me, word);
                p.at = At::LRelease;
                "pending = membership"
            }
            At::LRelease => {
                state.release(me, word);
                if self.is(Bug::DisarmedBeforeWake) {
                    state.clear_pending(me);
                }
                p.at = At::LWake;
                "frees the membership"
            }
            At::LWake if self.is(Bug::FreedWakesNone) => {
                p.at = At::LDisarm;
                "wakes none"
            }
            At::LWake => {
                let then = |p: &mut Process, woke| p.at = if woke { At::LDisarm } else { At::LClear };
                return self.wake(next, word, "wakes one that watches", then);
            }
            At::LClear => {
                state.clear_w(me, word, false);
                p.at = At::LDisarm;
                "clears W, if nothing has changed"
            }
            At::LDisarm => {
                state.clear_pending(me);
                state.hands[me].forget_epochs();
                p.at = At::LLook;
                if self.is(Bug::LeaverNotifiesNone) {
                    out(&mut p);
                }
                "pending = 0"
            }
            At::LLook if p.index < state.own.used && Membership::is_taken(&state, p.index) => {
                out(&mut p);
                "a member is there"
            }
            At::LLook if p.index < state.own.used => {
                p.index += 1;
                "it is free"
            }
            At::LLook => {
                p.at = At::LNotify;
                "all have disconnected"
            }
            At::LNotify => {
                state.advance(P);
                p.at = At::LNotifyWake;
                "notifies: A + 1"
            }
            _ => return self.wake_all(next, A, "wakes all", out),
        };
        self.go(next, what, state, p);
    }
}

fn advance_if_slept(state: &mut State) {
    if Membership::sleepers(state) {
        state.advance(P);
    }
}
