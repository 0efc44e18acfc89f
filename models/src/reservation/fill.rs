//! A reservation becomes a message, or is aborted; and a member that puts no more leaves.

use super::put::{advance_if_slept, notify_waiters};
use super::state::{At, L, P, Process, S, Says, Wants};
use super::{Bug, Reservation, Steps, Turn};

impl Turn<'_> {
    pub(super) fn commit(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let lock = usize::from(p.lock).saturating_sub(1);
        let late = self.is(Bug::GivenFirst);
        let what = match p.at {
            At::XCommit => {
                if p.aborts {
                    state.own.generations[lock] += 1;
                } else {
                    state.own.records[usize::from(p.record)].says = Says::Message;
                }
                p.at = if late { At::XNotify } else { At::XEpoch };
                if p.aborts { "aborts: generation + 1" } else { "commits" }
            }
            At::XEpoch => {
                self.advance_both(&mut state);
                p.at = At::XRelease;
                "both epochs + 1"
            }
            At::XRelease => {
                state.release_watched(me, L + lock);
                if self.is(Bug::NotifiesUnarmed) {
                    state.clear_pending(me);
                }
                p.at = if late { At::XCommit } else { At::XNotify };
                "releases the lock"
            }
            At::XNotify => {
                let ends = state.own.closed || self.model.is_disconnected(&state);
                p.keep = ends && !self.is(Bug::EndWakesOne);
                p.at = if Reservation::sleepers(&state, Wants::Data) { At::XAdvance } else { At::XSeq };
                "does any process sleep?"
            }
            At::XAdvance => {
                state.advance(P);
                p.at = At::XWake;
                "A + 1"
            }
            At::XWake if p.keep => {
                return self.wake_all(next, Wants::Data.futex(), "wakes all", |p| p.at = At::XSeq);
            }
            At::XWake => return self.wake(next, Wants::Data.futex(), "wakes one", |p, _| p.at = At::XSeq),
            At::XSeq => {
                p.at = notify_waiters(&mut state, At::XSeqWake, At::XDisarm);
                "does any process wait for the lock?"
            }
            At::XSeqWake => {
                return self.wake_all(next, Wants::Lock.futex(), "wakes them", |p| p.at = At::XDisarm);
            }
            At::XDisarm => {
                state.clear_pending(me);
                p.rest(state.own.used);
                "pending = 0"
            }
            At::HEpoch => {
                advance_if_slept(&mut state, &[Wants::Data, Wants::Room]);
                p.at = At::HRelease;
                "both sides: A + 1"
            }
            At::HRelease => {
                state.release_watched(me, S);
                p.at = At::HNotify;
                "releases the membership"
            }
            At::HNotify => {
                state.advance(P);
                p.at = At::HWake;
                "all have disconnected: A + 1"
            }
            At::HWake => {
                return self.wake_all(next, Wants::Data.futex(), "wakes all", |p| p.at = At::HDisarm);
            }
            _ => {
                p = Process::default();
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}
