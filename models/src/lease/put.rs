//! Put.

use super::state::{A, At, P, Process};
use super::{Steps, Turn};

impl Turn<'_> {
    /// A producer: the lock, the commit, one wake-up.
    pub(super) fn put(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::PStart if p.left == 0 => {
                p = Process::default();
                "leaves for good"
            }
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
            At::PAdvance if !self.model.sleepers(&state) => {
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
                p.at = At::PStart;
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }
}
