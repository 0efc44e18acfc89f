//! A consumer: the lock, a message, or the question whether all producers have disconnected.

use super::state::{A, At, C, KB, P, Process, S};
use super::{ALL, Bug, Membership, State, Steps, Turn};

impl Turn<'_> {
    /// With the lock: a message, if there is one; and one wake-up for the next.
    pub(super) fn get(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let what = match p.at {
            At::GStart if p.left == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::GStart => {
                state.set_pending(me, C);
                p.at = At::GTry;
                "pending = C"
            }
            At::GTry if !state.is_held(C) => {
                state.take(me, C);
                state.forget(me);
                p.forget();
                p.at = At::Look;
                "takes C"
            }
            At::GTry => {
                state.register(C);
                state.note(me, C);
                p.at = At::WaitKb;
                "registers as a waiter"
            }
            At::WaitKb => {
                state.queue(me, KB, true);
                p.at = At::WaitLock;
                "queues for C"
            }
            At::WaitLock if state.words[C] == self.hand().seen[C] => {
                state.queue_word(me, C);
                p.at = At::Contending;
                "sleeps for C"
            }
            At::Contending if !self.hand().woken => return,
            At::WaitLock | At::Contending => {
                state.forget(me);
                p.forget();
                p.at = At::GTry;
                "wakes for C"
            }
            At::Look => {
                if state.own.has_data() {
                    (state.own.head, p.got) = (state.own.head + 1, true);
                }
                p.at = At::CRelease;
                "looks"
            }
            At::CRelease => {
                p.at = if state.release(me, C) { At::WakeKb } else { At::Disarm };
                "releases C"
            }
            At::WakeKb if Membership::waiters(&state) => {
                let then = |p: &mut Process, woke| (p.keep, p.at) = (p.keep | woke, At::Chain);
                return self.wake(next, KB, "wakes a waiter for C", then);
            }
            At::WakeKb => {
                p.at = At::Chain;
                "no process waits for C"
            }
            At::Chain if Membership::sleepers(&state) && state.own.has_data() => {
                state.advance(P);
                p.at = At::ChainWake;
                "chains: A + 1"
            }
            At::Chain => {
                p.at = At::Clear;
                "nothing to chain"
            }
            At::ChainWake => return self.wake(next, A, "chains", |p, _| p.at = At::Clear),
            At::Clear => {
                state.clear_w(me, C, p.keep);
                (p.keep, p.at) = (false, At::Disarm);
                "clears W, if nothing has changed"
            }
            _ => {
                state.clear_pending(me);
                p.at = if p.got { At::GStart } else { At::Decide };
                p.left -= u8::from(p.got && p.left != ALL);
                p.got = false;
                "pending = 0"
            }
        };
        self.go(next, what, state, p);
    }

    /// `has_ended`: no member is there, nothing is there, and no member has come meanwhile.
    pub(super) fn decide(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let word = S + usize::from(p.index);
        let what = match p.at {
            At::Decide if state.own.used == 0 || self.model.is_guest(me) => {
                p.at = At::Wait;
                "no member has come"
            }
            At::Decide => {
                (p.used, p.at) =
                    (state.own.used, if self.is(Bug::EmptyFirst) { At::Empty } else { At::Once });
                "have all disconnected?"
            }
            At::Once if p.index >= p.used => {
                (p.index, p.at) = (0, if self.is(Bug::EmptyFirst) { At::AgainUsed } else { At::Empty });
                "all are free"
            }
            At::Once if Membership::is_taken(&state, p.index) => self.must_wait(&mut state, &mut p),
            At::Once => {
                state.hands[me].set_fresh(word, true);
                p.index += 1;
                "it is free"
            }
            At::Empty if state.own.has_data() => self.must_wait(&mut state, &mut p),
            At::Empty if self.is(Bug::OneLook) => closed(&mut p),
            At::Empty => {
                p.at = if self.is(Bug::EmptyFirst) { At::Once } else { At::AgainUsed };
                "it is empty"
            }
            At::AgainUsed if state.own.used != p.used => self.must_wait(&mut state, &mut p),
            At::AgainUsed => {
                p.at = At::Again;
                "as many as before"
            }
            At::Again if p.index >= p.used => closed(&mut p),
            At::Again if state.is_held(word) || !self.hand().is_fresh(word) => {
                self.must_wait(&mut state, &mut p)
            }
            _ => {
                state.hands[me].set_fresh(word, false);
                p.index += 1;
                "no member has come"
            }
        };
        self.go(next, what, state, p);
    }

    fn must_wait(&self, state: &mut State, p: &mut Process) -> &'static str {
        state.forget(self.me);
        p.forget();
        p.at = At::Wait;
        "must wait"
    }
}

fn closed(p: &mut Process) -> &'static str {
    *p = Process { at: if p.instant { At::Gone } else { At::Early }, ..Process::default() };
    "closed"
}
