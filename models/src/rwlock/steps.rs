//! What each process does next.

use super::{At, Bug, ENTRY, Process, Steps, Turn};
use crate::checker::Step;
use crate::kernel::tid;
use crate::robust::{Come, Flaws};

impl Turn<'_> {
    /// The next step by itself.
    pub(super) fn own_step(&self, next: &mut Steps) {
        let (me, mut state, mut p) = (self.me, *self.before, self.p);
        let (lock, locks) = (usize::from(p.lock), self.model.locks);
        let what = match p.at {
            At::Gone => return,
            At::Idle if p.rounds == 0 => {
                p = Process::default();
                "leaves for good"
            }
            At::Idle => {
                p.at = match p.writer {
                    true if self.is(Bug::LooksOutside) => At::Look,
                    true => At::Enter,
                    false => At::Glance,
                };
                "wants"
            }
            At::Glance => {
                for lock in
                    (0..state.own.used).filter(|lock| !state.is_held(ENTRY) && !state.is_held((*lock).into()))
                {
                    (p.at, p.lock) = (At::Grab, lock);
                    self.go(next, "finds a lock free, and the entry lock", state, p);
                }
                if p.at == At::Grab {
                    return;
                }
                p.at = At::Enter;
                "has to go through the entry lock"
            }
            At::Grab => {
                let (what, come) = state.take_step(me, lock);
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.lock) = (At::Enter, 0),
                    Come::Done(_) => p.at = if self.is(Bug::ChecksFirst) { At::AskIn } else { At::Check },
                }
                what
            }
            At::Check => {
                p.at = if state.is_held(ENTRY) { At::Back } else { At::AskIn };
                "looks at the entry lock"
            }
            At::AskIn => {
                (p.warned, p.has, p.at) = (state.own.signature != 0, true, At::Read);
                "asks for a signature"
            }
            At::Enter if p.late => {
                p = p.rest();
                "gives up"
            }
            At::Enter if state.is_held(ENTRY) => return,
            At::Enter => {
                p.warned = state.take(me, ENTRY) && self.is(Bug::KernelsMark);
                p.at = At::Ask;
                "enters"
            }
            At::Ask => {
                if !self.is(Bug::KernelsMark) {
                    p.warned = state.own.signature != 0;
                }
                p.at = match p.writer {
                    false if self.is(Bug::SitsOutside) => At::Leave,
                    false => At::Find,
                    true if self.is(Bug::SignsFirst) => At::Sign,
                    true => At::Look,
                };
                "asks for a signature"
            }
            At::Find if lock == locks => {
                p.at = At::Leave;
                "finds no lock"
            }
            At::Find => {
                if state.is_held(lock) {
                    p.lock += 1;
                } else if p.lock < state.own.used || self.is(Bug::WidensOutside) {
                    p.at = At::Sit;
                } else {
                    p.at = At::Widen;
                }
                "looks at a lock"
            }
            At::Widen => {
                state.own.used = state.own.used.max(p.lock + 1);
                p.at = if p.has { At::Read } else { At::Sit };
                "notes that it is used"
            }
            At::Sit => {
                let (what, come) = state.take_step(me, lock);
                match come {
                    Come::On => {}
                    Come::Not => (p.at, p.lock) = (At::Find, p.lock + 1),
                    Come::Done(_) => {
                        (p.at, p.has) = (if self.is(Bug::SitsOutside) { At::Read } else { At::Leave }, true);
                    }
                }
                what
            }
            At::Leave => {
                state.leave_mutex(me, ENTRY);
                p.at = match (p.writer, p.has) {
                    (false, true) if self.is(Bug::WidensOutside) => At::Widen,
                    (false, true) => At::Read,
                    (false, false) if self.is(Bug::SitsOutside) => At::Find,
                    (true, true) if self.is(Bug::EntryLockOpens) => At::Begin,
                    (true, true) if self.is(Bug::ClearsOutside) => At::Unsign,
                    _ => At::Idle,
                };
                if p.at == At::Idle {
                    p = p.rest();
                }
                "leaves the entry lock"
            }
            At::Read => {
                return self.chance(next, None, "has read", |state| state.processes[me].at = At::Rise);
            }
            At::Look if lock == if self.is(Bug::LooksOutside) { locks } else { state.own.used.into() } => {
                (p.at, p.lock) = match (state.holds(me, ENTRY), self.is(Bug::SignsFirst)) {
                    (false, _) => (At::Enter, 0),
                    (true, true) => (At::Begin, p.lock),
                    (true, false) => (At::Sign, p.lock),
                };
                "has looked at all"
            }
            At::Look => {
                let held = match self.is(Bug::LooksOutside) {
                    true if !state.holds(me, ENTRY) => {
                        p.noted |= u8::from(state.is_held(lock)) << lock;
                        false
                    }
                    true => p.noted & 1 << lock != 0,
                    false => state.is_held(lock),
                };
                (p.at, p.lock) = if held { (At::Wait, p.lock) } else { (At::Look, p.lock + 1) };
                "looks at a lock"
            }
            At::Wait => {
                let (what, come) = state.take_step(me, lock);
                match come {
                    Come::On => {}
                    Come::Not if p.late => p.at = At::Leave,
                    Come::Not => {
                        state.set_pending(me, lock);
                        p.at = At::Register;
                    }
                    Come::Done(_) => p.at = At::Pass,
                }
                what
            }
            At::Register => {
                p.at = if state.register_if_held(me, lock) { At::Queue } else { At::Wait };
                "registers"
            }
            At::Queue => {
                p.at = if state.queue_lock(me, lock) { At::Asleep } else { At::Wait };
                if p.at == At::Asleep { "sleeps" } else { "EAGAIN" }
            }
            At::Asleep if !self.hand().woken => return,
            At::Asleep => {
                state.forget(me);
                p.at = At::Wait;
                "is awake"
            }
            At::Sign => {
                state.own.signature = tid(me);
                (p.at, p.lock) = (if self.is(Bug::SignsFirst) { At::Look } else { At::Begin }, 0);
                if self.is(Bug::EntryLockOpens) {
                    (p.at, p.has) = (At::Leave, true);
                }
                "signs"
            }
            At::Begin => {
                (state.own.torn, p.at, p.has, p.lock) = (true, At::Write, true, 0);
                "begins to write"
            }
            At::Write => {
                let then = if self.is(Bug::ClearsOutside) { At::Leave } else { At::Unsign };
                return self.chance(next, None, "has written", |state| {
                    (state.own.torn, state.processes[me].at) = (false, then);
                });
            }
            At::Unsign => {
                (state.own.signature, state.own.unfinished) = (0, false);
                (p.at, p.has) = (At::Leave, false);
                if self.is(Bug::ClearsOutside) {
                    p = p.rest();
                }
                "clears the signature"
            }
            At::Rise | At::Pass | At::Back => {
                let (no_wake, clear_ignores_epoch) = (self.is(Bug::NoWake), self.is(Bug::ClearIgnoresEpoch));
                let flaws = Flaws { no_wake, clear_ignores_epoch };
                return state.give_step(me, lock, true, flaws, |mut state, what, kind, done| {
                    let p = &mut state.processes[me];
                    match p.at {
                        _ if !done => {}
                        At::Rise => *p = p.rest(),
                        At::Back => (p.at, p.lock) = (At::Enter, 0),
                        _ => (p.at, p.lock) = (At::Look, p.lock + 1),
                    }
                    next.push(Step { process: me, what, kind, state });
                });
            }
        };
        self.go(next, what, state, p);
    }
}
